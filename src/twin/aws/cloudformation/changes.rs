//! What is different between two templates of a stack, as a change set shows it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::template::{fill_parameters, resources_of};
use crate::twin::aws::state::{CloudFormationStack, StackSwitches};

/// A template with the values of its parameters.
#[derive(Clone, Copy)]
pub struct FilledTemplate<'t> {
    pub template: &'t Value,
    pub parameters: &'t BTreeMap<String, String>,
}

impl FilledTemplate<'_> {
    fn resources(self) -> BTreeMap<String, Value> {
        resources_of(&fill_parameters(self.template, self.parameters))
    }

    fn outputs(self) -> Value {
        fill_parameters(
            self.template.get("Outputs").unwrap_or(&json!({})),
            self.parameters,
        )
    }
}

/// Whether outputs are different: such a change set can be executed, though it changes no resource.
pub fn outputs_differ(before: FilledTemplate, after: FilledTemplate) -> bool {
    before.outputs() != after.outputs()
}

/// The changes of resources, by logical id; `tags` where the stack's tags become others.
pub fn resource_changes(
    stack: &CloudFormationStack,
    switches: &StackSwitches,
    before: FilledTemplate,
    after: FilledTemplate,
    tags: bool,
) -> Vec<Value> {
    let (old, new) = (before.resources(), after.resources());
    let mut changes = Vec::new();
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let physical = stack.resources.get(name).map(|r| r.physical_id.as_str());
        let change = match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => modification(switches, old, new, tags),
            (None, Some(new)) => Some(simple_change("Add", new)),
            (Some(old), None) => Some(removal(old)),
            (None, None) => None,
        };
        let Some(mut change) = change else { continue };
        change["LogicalResourceId"] = json!(name);
        change["PhysicalResourceId"] = json!(physical);
        changes.push(json!({"Type": "Resource", "ResourceChange": change}));
    }
    changes
}

fn kind_of(resource: &Value) -> &str {
    resource
        .get("Type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn simple_change(action: &str, resource: &Value) -> Value {
    json!({"Action": action, "ResourceType": kind_of(resource), "Scope": [], "Details": []})
}

fn removal(resource: &Value) -> Value {
    let mut change = simple_change("Remove", resource);
    change["PolicyAction"] = json!(match is_retained(resource) {
        true => "Retain",
        false => "Delete",
    });
    change
}

/// Whether a resource stays when it is taken out of its stack, or the stack is deleted (CFN-7).
pub fn is_retained(resource: &Value) -> bool {
    let policy = resource.get("DeletionPolicy").and_then(Value::as_str);
    matches!(policy, Some("Retain" | "RetainExceptOnCreate"))
}

fn modification(switches: &StackSwitches, old: &Value, new: &Value, tags: bool) -> Option<Value> {
    let (mut scope, mut details) = (Vec::new(), Vec::new());
    let mut note = |attribute: &'static str, name: Option<&str>, recreation: &'static str| {
        if !scope.contains(&attribute) {
            scope.push(attribute);
        }
        details.push(json!({
            "Target": {"Attribute": attribute, "Name": name, "RequiresRecreation": recreation},
            "Evaluation": "Static",
            "ChangeSource": "DirectModification",
        }));
    };
    let differs = |attribute: &str| old.get(attribute) != new.get(attribute);
    let kind = kind_of(new);
    for name in changed_properties(old, new) {
        note("Properties", Some(&name), recreation_of(kind, &name));
    }
    if tags {
        note("Tags", None, "Never");
    }
    // A change of what a resource is called by depends on nothing else; DependsOn is no change.
    let counted = ["Metadata", "CreationPolicy", "UpdatePolicy"];
    for attribute in counted.into_iter().filter(|a| differs(a)) {
        note(attribute, None, "Never");
    }
    if switches.metadata_shows_other_policies && differs("Metadata") {
        for attribute in ["CreationPolicy", "UpdatePolicy"] {
            if !differs(attribute) {
                note(attribute, None, "Never");
            }
        }
    }
    let is_other_kind = kind_of(old) != kind;
    // Whether a policy alone is a change is not settled (CFN-8); beside another change it is shown.
    let mut policies = ["DeletionPolicy", "UpdateReplacePolicy"]
        .into_iter()
        .filter(|a| differs(a))
        .peekable();
    let alone = details_are_empty(old, new, tags) && !is_other_kind;
    if policies.peek().is_some() && (!alone || switches.policy_alone_is_change) {
        for attribute in policies {
            note(attribute, None, "Never");
        }
    }
    if scope.is_empty() && !is_other_kind {
        return None;
    }
    let recreated = is_other_kind
        || details
            .iter()
            .any(|d: &Value| d["Target"]["RequiresRecreation"] == "Always");
    Some(json!({
        "Action": "Modify",
        "ResourceType": kind,
        "Replacement": if recreated { "True" } else { "False" },
        "Scope": scope,
        "Details": details,
    }))
}

/// Whether nothing but policies of deletion differs.
fn details_are_empty(old: &Value, new: &Value, tags: bool) -> bool {
    let counted = ["Properties", "Metadata", "CreationPolicy", "UpdatePolicy"];
    !tags && counted.iter().all(|a| old.get(a) == new.get(a))
}

fn changed_properties(old: &Value, new: &Value) -> Vec<String> {
    let properties = |of: &Value| {
        let map = of.get("Properties").and_then(Value::as_object);
        map.cloned().unwrap_or_default()
    };
    let (old, new) = (properties(old), properties(new));
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let changed = names.into_iter().filter(|n| old.get(*n) != new.get(*n));
    changed.cloned().collect()
}

/// Whether a change of a property replaces the resource, as the template reference says of the kinds of eksctl's stacks.
fn recreation_of(kind: &str, property: &str) -> &'static str {
    let recreating: &[&str] = match kind {
        "AWS::EKS::Nodegroup" => &[
            "AmiType",
            "CapacityType",
            "ClusterName",
            "DiskSize",
            "InstanceTypes",
            "NodegroupName",
            "NodeRole",
            "RemoteAccess",
            "Subnets",
        ],
        "AWS::AutoScaling::AutoScalingGroup" => &["AutoScalingGroupName", "InstanceId"],
        "AWS::EC2::LaunchTemplate" => &["LaunchTemplateName", "TagSpecifications"],
        "AWS::IAM::Role" => &["Path", "RoleName"],
        "AWS::IAM::InstanceProfile" => &["InstanceProfileName", "Path"],
        "AWS::EC2::SecurityGroup" => &["GroupDescription", "GroupName", "VpcId"],
        _ => &[],
    };
    match recreating.contains(&property) {
        true => "Always",
        false => "Never",
    }
}

/// Logical ids with an action in the changes of a change set.
pub fn names_with_action(changes: &[Value], action: &str) -> Vec<String> {
    let with = changes.iter().map(|c| &c["ResourceChange"]);
    let with = with.filter(|c| c["Action"] == action);
    with.filter_map(|c| c["LogicalResourceId"].as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(switches: &StackSwitches, old: Value, new: Value) -> Vec<Value> {
        let parameters = BTreeMap::new();
        let whole = |resource: Value| json!({"Resources": {"G": resource}});
        let (old, new) = (whole(old), whole(new));
        let filled = |template| FilledTemplate {
            template,
            parameters: &parameters,
        };
        let stack = CloudFormationStack::default();
        resource_changes(&stack, switches, filled(&old), filled(&new), false)
    }

    #[test]
    fn metadata_is_a_change_and_a_policy_alone_is_one_only_where_it_counts() {
        let plain = json!({"Type": "AWS::IAM::Role"});
        let retained = json!({"Type": "AWS::IAM::Role", "DeletionPolicy": "Retain"});
        let marked =
            json!({"Type": "AWS::IAM::Role", "DeletionPolicy": "Retain", "Metadata": {"a": 1}});
        let switches = StackSwitches::default();
        assert!(diff(&switches, plain.clone(), retained.clone()).is_empty());
        let change = &diff(&switches, plain.clone(), marked.clone())[0]["ResourceChange"];
        assert_eq!(change["Scope"], json!(["Metadata", "DeletionPolicy"]));
        assert_eq!(change["Replacement"], "False");
        let counting = StackSwitches {
            policy_alone_is_change: true,
            metadata_shows_other_policies: true,
            ..StackSwitches::default()
        };
        let change = &diff(&counting, plain.clone(), retained)[0]["ResourceChange"];
        assert_eq!(change["Scope"], json!(["DeletionPolicy"]));
        let change = &diff(&counting, plain, marked)[0]["ResourceChange"];
        assert_eq!(
            change["Scope"],
            json!([
                "Metadata",
                "CreationPolicy",
                "UpdatePolicy",
                "DeletionPolicy"
            ])
        );
    }

    #[test]
    fn a_property_that_names_the_resource_replaces_it_and_depends_on_is_no_change() {
        let group = |name: &str, depends: &str| json!({"Type": "AWS::EKS::Nodegroup", "DependsOn": depends, "Properties": {"NodegroupName": name}});
        let switches = StackSwitches::default();
        assert!(diff(&switches, group("a", "X"), group("a", "Y")).is_empty());
        let change = &diff(&switches, group("a", "X"), group("b", "X"))[0]["ResourceChange"];
        assert_eq!(change["Replacement"], "True");
    }
}
