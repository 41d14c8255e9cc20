//! CloudFormation stacks that own a group of nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::stack_template::read_template;

/// What CloudFormation takes as a text of a template; more has to lie in S3.
pub const MAX_TEMPLATE_BYTES: usize = 51_200;

/// What belongs to one group of nodes and may be kept when the group goes; by what CloudFormation calls their kinds.
const KEPT_KINDS: [&str; 12] = [
    "AWS::EC2::LaunchTemplate",
    "AWS::EC2::PlacementGroup",
    "AWS::EC2::SecurityGroup",
    "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::EKS::AccessEntry",
    "AWS::IAM::InstanceProfile",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::AutoScaling::LaunchConfiguration",
    "AWS::CDK::Metadata",
];

/// The kinds of groups of nodes.
const GROUP_KINDS: [&str; 2] = ["AWS::EKS::Nodegroup", "AWS::AutoScaling::AutoScalingGroup"];

/// A stack, as DescribeStacks has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stack {
    /// Its ARN, which a later stack of the same name does not have.
    pub id: String,
    pub name: String,
    /// As CloudFormation spells it, such as `UPDATE_COMPLETE`.
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    #[serde(default)]
    pub termination_protection: bool,
    /// It belongs to another stack, which would miss it.
    #[serde(default)]
    pub nested: bool,
    /// Names of its parameters.
    #[serde(default)]
    pub parameters: Vec<String>,
    /// Those that CloudFormation resolves again with each update, such as the newest image's.
    #[serde(skip)]
    pub resolved_parameters: Vec<ResolvedParameter>,
    /// Names of what other stacks may import.
    #[serde(default)]
    pub exports: Vec<String>,
}

/// A parameter whose value is read from Parameter Store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedParameter {
    pub name: String,
    /// Its name in Parameter Store.
    pub source: String,
    /// What was read with the stack's last update.
    pub value: String,
}

/// One resource of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StackResource {
    /// Its name in the template.
    pub logical_id: String,
    /// What AWS calls it; of a managed node group `cluster/group`.
    #[serde(default)]
    pub physical_id: String,
    pub kind: String,
}

/// A stack with what decides whether it may be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StackReading {
    pub stack: Stack,
    pub resources: Vec<StackResource>,
    /// Its template as it was given, JSON or YAML. It may hold secrets, so that no snapshot has it.
    #[serde(skip)]
    pub template: String,
    /// Why the template cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_problem: Option<String>,
    /// The stacks that import what this one exports, by export.
    #[serde(default)]
    pub imported: BTreeMap<String, Vec<String>>,
}

/// A change set, as DescribeChangeSet has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeSet {
    pub status: String,
    pub status_reason: Option<String>,
    pub execution_status: String,
    pub changes: Vec<StackChange>,
}

/// What a change set would do to one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackChange {
    pub logical_id: String,
    /// `Modify`, `Add`, `Remove` and others.
    pub action: String,
    /// What of it changes, such as `Metadata`.
    pub scope: Vec<String>,
    /// `True` or `Conditional` where the resource may be made again.
    pub replacement: Option<String>,
    /// Its properties are listed only because they refer to another resource of the change set, of which CloudFormation cannot
    /// say beforehand that it stays, or to a parameter that is spelled otherwise and means the same.
    pub follows: bool,
}

impl Stack {
    /// Whether CloudFormation works on it.
    pub fn is_in_progress(&self) -> bool {
        self.status.ends_with("_IN_PROGRESS")
    }

    /// Whether it can be updated and deleted now: it is at rest, as one template describes it.
    pub fn is_at_rest(&self) -> bool {
        matches!(
            self.status.as_str(),
            "CREATE_COMPLETE"
                | "UPDATE_COMPLETE"
                | "UPDATE_ROLLBACK_COMPLETE"
                | "IMPORT_COMPLETE"
                | "IMPORT_ROLLBACK_COMPLETE"
        )
    }

    /// Its status with CloudFormation's reason, as text.
    pub fn status_text(&self) -> String {
        match &self.status_reason {
            Some(reason) => format!("{} ({reason})", self.status),
            None => self.status.clone(),
        }
    }
}

impl StackReading {
    /// A stack with what was read of it.
    pub fn new(
        mut stack: Stack,
        resources: Vec<StackResource>,
        template: String,
        imported: BTreeMap<String, Vec<String>>,
    ) -> Self {
        let read = read_template(&template);
        // What nothing is made of may be resolved again.
        if let Ok(read) = &read {
            let resolved = &mut stack.resolved_parameters;
            resolved.retain(|p| read.uses_parameter(&p.name));
        }
        Self {
            stack,
            resources,
            template_problem: read.err(),
            template,
            imported,
        }
    }

    /// The stack's resource that is the group: of a managed one by cluster and name, of another by name.
    pub fn find_group(&self, cluster: &str, group: &str) -> Option<&StackResource> {
        let managed = format!("{cluster}/{group}");
        let mut resources = self.resources.iter();
        resources.find(|r| match r.kind.as_str() {
            "AWS::EKS::Nodegroup" => r.physical_id == managed,
            "AWS::AutoScaling::AutoScalingGroup" => r.physical_id == group,
            _ => false,
        })
    }

    /// Why the stack cannot be deleted with nothing lost but the group; empty where it can. A status that passes is no
    /// reason.
    pub fn deletion_problems(&self, cluster: &str, group: &str) -> Vec<String> {
        let mut out = Vec::new();
        let stack = &self.stack;
        if self.find_group(cluster, group).is_none() {
            out.push(format!("it does not hold {group}"));
        }
        // What belongs to more than this group is no part of it, though all but the group would be kept.
        let others: Vec<String> = self
            .resources
            .iter()
            .filter(|r| match GROUP_KINDS.contains(&r.kind.as_str()) {
                true => !self.is_group(r, cluster, group),
                false => !KEPT_KINDS.contains(&r.kind.as_str()),
            })
            .map(|r| format!("{} ({})", r.logical_id, r.kind))
            .collect();
        if !others.is_empty() {
            out.push(format!("it also holds {}", others.join(", ")));
        }
        if stack.nested {
            out.push("it is part of another stack".to_owned());
        }
        if stack.termination_protection {
            out.push("it is protected from termination".to_owned());
        }
        if !stack.is_at_rest() && !stack.is_in_progress() {
            out.push(format!("its status is {}", stack.status_text()));
        }
        for (export, importers) in &self.imported {
            out.push(format!("{} imports its {export}", importers.join(", ")));
        }
        out.extend(self.template_problem.clone());
        // What comes of a snapshot has no template to try it with.
        if let (Some(group), Ok(template)) = (
            self.find_group(cluster, group),
            read_template(&self.template),
        ) {
            let resolved = &stack.resolved_parameters;
            let kept = template.keep_all_but(&group.logical_id, "check", resolved);
            out.extend(kept.err());
        }
        out
    }

    fn is_group(&self, resource: &StackResource, cluster: &str, group: &str) -> bool {
        let found = self.find_group(cluster, group);
        found.is_some_and(|g| g.logical_id == resource.logical_id)
    }
}

impl ChangeSet {
    /// What it would change beside policies and metadata, as text; empty where it changes nothing that runs.
    pub fn harmful_changes(&self) -> Vec<String> {
        let harmless = |c: &&StackChange| {
            let known = |scope: &String| {
                // A policy says how a change is made, and makes none. CloudFormation lists some beside Metadata (CFN-9).
                scope == "Metadata" || scope.ends_with("Policy")
            };
            let stays = matches!(c.replacement.as_deref(), None | Some("False" | "N/A"));
            // Attributes of a resource of which only policies and metadata change stay, so that what follows them does.
            let same = stays && !c.scope.is_empty() && c.scope.iter().all(known);
            c.action == "Modify" && (same || c.follows)
        };
        let harmful = self.changes.iter().filter(|c| !harmless(c));
        harmful
            .map(|c| {
                format!(
                    "{} {} ({})",
                    c.action.to_lowercase(),
                    c.logical_id,
                    match c.scope.is_empty() {
                        true => "it does not say what of it".to_owned(),
                        false => c.scope.join(", "),
                    }
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(logical: &str, kind: &str, physical: &str) -> StackResource {
        StackResource {
            logical_id: logical.into(),
            physical_id: physical.into(),
            kind: kind.into(),
        }
    }

    fn reading() -> StackReading {
        let stack = Stack {
            id: "arn:aws:cloudformation:us-east-1:1:stack/s/1".into(),
            name: "s".into(),
            status: "CREATE_COMPLETE".into(),
            ..Stack::default()
        };
        let resources = vec![
            resource("ManagedNodeGroup", "AWS::EKS::Nodegroup", "dev/blue"),
            resource("NodeInstanceRole", "AWS::IAM::Role", "role"),
        ];
        let template = r#"{"Resources": {"ManagedNodeGroup": {}, "NodeInstanceRole": {}}}"#;
        StackReading::new(stack, resources, template.into(), BTreeMap::new())
    }

    #[test]
    fn a_stack_of_one_group_and_what_belongs_to_it_may_be_deleted() {
        assert_eq!(
            reading().deletion_problems("dev", "blue"),
            Vec::<String>::new()
        );
        // A change that is under way is waited for.
        let mut busy = reading();
        busy.stack.status = "UPDATE_IN_PROGRESS".into();
        assert!(busy.deletion_problems("dev", "blue").is_empty());
    }

    #[test]
    fn each_reason_against_deleting_a_stack_is_named() {
        type Change = fn(&mut StackReading);
        let cases: [(&str, Change); 9] = [
            ("does not hold blue", |s| {
                s.resources[0].physical_id = "dev/other".into();
            }),
            ("also holds Cluster (AWS::EKS::Cluster)", |s| {
                s.resources
                    .push(resource("Cluster", "AWS::EKS::Cluster", "dev"));
            }),
            ("also holds Second (AWS::EKS::Nodegroup)", |s| {
                s.resources
                    .push(resource("Second", "AWS::EKS::Nodegroup", "dev/red"));
            }),
            ("part of another stack", |s| s.stack.nested = true),
            ("protected from termination", |s| {
                s.stack.termination_protection = true;
            }),
            ("UPDATE_ROLLBACK_FAILED (why)", |s| {
                s.stack.status = "UPDATE_ROLLBACK_FAILED".into();
                s.stack.status_reason = Some("why".into());
            }),
            ("apps imports its s::Role", |s| {
                s.imported.insert("s::Role".into(), vec!["apps".into()]);
            }),
            ("its template has no ManagedNodeGroup", |s| {
                let (stack, resources) = (s.stack.clone(), s.resources.clone());
                let other = "Resources: {Other: {}}".into();
                *s = StackReading::new(stack, resources, other, BTreeMap::new());
            }),
            ("neither JSON nor YAML", |s| {
                let (stack, resources) = (s.stack.clone(), s.resources.clone());
                let neither = "Resources: {".into();
                *s = StackReading::new(stack, resources, neither, BTreeMap::new());
            }),
        ];
        for (expected, change) in cases {
            let mut stack = reading();
            change(&mut stack);
            let problems = stack.deletion_problems("dev", "blue").join("; ");
            assert!(problems.contains(expected), "{expected}: {problems}");
        }
    }

    #[test]
    fn a_change_set_that_touches_more_than_policies_and_metadata_is_harmful() {
        let change = |action: &str, scope: &[&str], replacement: Option<&str>| ChangeSet {
            status: "CREATE_COMPLETE".into(),
            status_reason: None,
            execution_status: "AVAILABLE".into(),
            changes: vec![StackChange {
                logical_id: "NodeGroup".into(),
                action: action.into(),
                scope: scope.iter().map(|s| (*s).to_owned()).collect(),
                replacement: replacement.map(str::to_owned),
                follows: false,
            }],
        };
        let harmless = change("Modify", &["Metadata", "DeletionPolicy"], Some("False"));
        assert!(harmless.harmful_changes().is_empty());
        let mut follows = change("Modify", &["Metadata", "Properties"], Some("Conditional"));
        follows.changes[0].follows = true;
        assert!(follows.harmful_changes().is_empty());
        for harmful in [
            change("Modify", &["Metadata", "Properties"], Some("False")),
            change("Modify", &["Metadata"], Some("Conditional")),
            change("Remove", &[], None),
            change("Modify", &[], None),
        ] {
            assert_eq!(harmful.harmful_changes().len(), 1, "{harmful:?}");
        }
    }
}
