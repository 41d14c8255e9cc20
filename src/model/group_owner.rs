//! Which tool a group of nodes belongs to, as far as its tags tell.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A tool that makes node groups and would make one again that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwningTool {
    Eksctl,
    Terraform,
    Pulumi,
    Cloudformation,
    /// It deploys with CloudFormation, whose tags its groups have: only a person can tell the two apart.
    Cdk,
}

impl OwningTool {
    /// The tool's own spelling of its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eksctl => "eksctl",
            Self::Terraform => "Terraform",
            Self::Pulumi => "Pulumi",
            Self::Cloudformation => "CloudFormation",
            Self::Cdk => "CDK",
        }
    }

    /// The tool that says by this tag that a group is its own.
    pub fn of_tag(key: &str, value: &str) -> Option<Self> {
        let (key, value) = (key.to_ascii_lowercase(), value.to_ascii_lowercase());
        if key.starts_with("alpha.eksctl.io/") || key.starts_with("eksctl.") {
            Some(Self::Eksctl)
        } else if key.starts_with("aws:cloudformation:") {
            Some(Self::Cloudformation)
        } else if key == "terraform"
            || ((key == "managed-by" || key == "managedby" || key == "managed_by")
                && value.contains("terraform"))
        {
            Some(Self::Terraform)
        } else if key.starts_with("pulumi")
            || (key.starts_with("managed") && value.contains("pulumi"))
        {
            Some(Self::Pulumi)
        } else {
            None
        }
    }
}

impl fmt::Display for OwningTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tool and the tags by which it knows a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupOwner {
    pub tool: OwningTool,
    pub tags: BTreeMap<String, String>,
}

impl GroupOwner {
    /// The owner of a group with these tags. Terraform leaves no tag of its own.
    pub fn from_tags(tags: &BTreeMap<String, String>) -> Option<Self> {
        let known: Vec<(OwningTool, (&String, &String))> = tags
            .iter()
            .filter_map(|(k, v)| Some((OwningTool::of_tag(k, v)?, (k, v))))
            .collect();
        // eksctl works through CloudFormation, and is what a user knows it by.
        let tool = [
            OwningTool::Eksctl,
            OwningTool::Terraform,
            OwningTool::Pulumi,
            OwningTool::Cloudformation,
        ]
        .into_iter()
        .find(|tool| known.iter().any(|(known, _)| known == tool))?;
        let tags = known.into_iter().map(|(_, (k, v))| (k.clone(), v.clone()));
        Some(Self {
            tool,
            tags: tags.collect(),
        })
    }

    /// The CloudFormation stack that the group is in.
    pub fn stack(&self) -> Option<&str> {
        self.tags
            .get("aws:cloudformation:stack-name")
            .map(String::as_str)
    }

    /// The stack's ARN, or where no tag has it, its name.
    pub fn stack_id(&self) -> Option<&str> {
        let id = self.tags.get("aws:cloudformation:stack-id");
        id.map(String::as_str).or_else(|| self.stack())
    }

    /// What the stack's template calls the group.
    pub fn logical_id(&self) -> Option<&str> {
        self.tags
            .get("aws:cloudformation:logical-id")
            .map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_an_eksctl_stack_is_of_eksctl_and_keeps_the_name_of_its_stack() {
        let tags = [
            ("aws:cloudformation:stack-name", "eksctl-dev-nodegroup-ng"),
            ("aws:cloudformation:logical-id", "ManagedNodeGroup"),
            ("alpha.eksctl.io/nodegroup-name", "ng"),
            ("team", "shop"),
        ];
        let tags = tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let owner = GroupOwner::from_tags(&tags).unwrap();
        assert_eq!(owner.tool, OwningTool::Eksctl);
        assert_eq!(owner.stack(), Some("eksctl-dev-nodegroup-ng"));
        assert_eq!(owner.logical_id(), Some("ManagedNodeGroup"));
        assert!(!owner.tags.contains_key("team"));
        let of_nobody = [("team".to_owned(), "shop".to_owned())].into();
        assert_eq!(GroupOwner::from_tags(&of_nobody), None);
    }
}
