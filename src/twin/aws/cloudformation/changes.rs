//! What is different between two templates of a stack, as a change set shows it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::references::{attributes_in, references_in};
use super::scope::TemplateScope;
use crate::twin::aws::state::{CloudFormationStack, StackSwitches};

/// Why a detail of a change is one.
enum ChangeCause<'c> {
    Template,
    /// Beside a parameter that causes it.
    TemplateToo,
    Parameter(&'c str),
    /// An attribute of a resource that changes too, which is known once that is done (CFN-20).
    Attribute(&'c str),
}

/// A change of a resource that stays.
#[derive(Default)]
struct Modification {
    scope: Vec<&'static str>,
    details: Vec<Value>,
    is_other_kind: bool,
}

impl Modification {
    fn is_empty(&self) -> bool {
        self.scope.is_empty() && !self.is_other_kind
    }

    fn note(
        &mut self,
        attribute: &'static str,
        name: Option<&str>,
        recreation: &'static str,
        cause: ChangeCause,
    ) {
        if !self.scope.contains(&attribute) {
            self.scope.push(attribute);
        }
        let (source, evaluation, entity) = match cause {
            ChangeCause::Template => ("DirectModification", "Static", None),
            ChangeCause::TemplateToo => ("DirectModification", "Dynamic", None),
            ChangeCause::Parameter(name) => ("ParameterReference", "Static", Some(name)),
            ChangeCause::Attribute(path) => ("ResourceAttribute", "Dynamic", Some(path)),
        };
        self.details.push(json!({
            "Target": {"Attribute": attribute, "Name": name, "RequiresRecreation": recreation},
            "Evaluation": evaluation,
            "ChangeSource": source,
            "CausingEntity": entity,
        }));
    }

    /// An attribute of the resource that is no property.
    fn note_attribute(&mut self, attribute: &'static str) {
        self.note(attribute, None, "Never", ChangeCause::Template);
    }

    /// Whether its attributes may change with it.
    fn changes_attributes(&self, switches: &StackSwitches) -> bool {
        self.scope.contains(&"Properties")
            || (switches.metadata_shows_dependents && self.scope.contains(&"Metadata"))
    }

    fn into_change(self, kind: &str) -> Value {
        let recreating = |by_attribute: bool| {
            let mut details = self.details.iter();
            details.any(|d| {
                (d["ChangeSource"] == "ResourceAttribute") == by_attribute
                    && d["Target"]["RequiresRecreation"] == "Always"
            })
        };
        let replacement = match (self.is_other_kind || recreating(false), recreating(true)) {
            (true, _) => "True",
            (false, true) => "Conditional",
            (false, false) => "False",
        };
        json!({
            "Action": "Modify",
            "ResourceType": kind,
            "Replacement": replacement,
            "Scope": self.scope,
            "Details": self.details,
        })
    }
}

/// Whether outputs are different: such a change set can be executed, though it changes no resource.
pub fn outputs_differ(before: &TemplateScope, after: &TemplateScope) -> bool {
    before.outputs() != after.outputs()
}

/// The changes of resources, by logical id; `tags` where the stack's tags become others.
pub fn resource_changes(
    stack: &CloudFormationStack,
    switches: &StackSwitches,
    before: &TemplateScope,
    after: &TemplateScope,
    tags: bool,
) -> Vec<Value> {
    let (old, new) = (before.resources(), after.resources());
    let parameters = changed_parameters(before, after);
    let mut modifications = BTreeMap::new();
    for (name, new) in &new {
        let Some(old) = old.get(name) else { continue };
        let written = written_properties(after.template, name);
        let mut made = compare_properties(switches, old, new, &written, &parameters);
        compare_attributes(&mut made, switches, old, new, tags);
        modifications.insert(name, made);
    }
    add_dependents(&mut modifications, switches, after.template, &new);
    let mut changes = Vec::new();
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let mut change = match (modifications.remove(&name), old.get(name), new.get(name)) {
            (Some(made), _, Some(new)) if !made.is_empty() => made.into_change(kind_of(new)),
            (None, None, Some(new)) => simple_change("Add", new),
            (None, Some(old), None) => removal(old),
            _ => continue,
        };
        let physical = stack.resources.get(name).map(|r| r.physical_id.as_str());
        change["LogicalResourceId"] = json!(name);
        change["PhysicalResourceId"] = json!(physical);
        changes.push(json!({"Type": "Resource", "ResourceChange": change}));
    }
    changes
}

/// Names of the parameters whose value, as it was given, is another one. What Parameter Store has for it does not count
/// (CFN-22).
fn changed_parameters(before: &TemplateScope, after: &TemplateScope) -> BTreeSet<String> {
    let given = after.given.iter();
    let changed = given.filter(|(name, value)| {
        let was = before.given.get(*name);
        was.is_some_and(|was| was != *value)
    });
    changed.map(|(name, _)| name.clone()).collect()
}

/// The properties of a resource as they stand in the template.
fn written_properties(template: &Value, name: &str) -> Map<String, Value> {
    let resource = template.get("Resources").and_then(|r| r.get(name));
    resource.map(properties_of).unwrap_or_default()
}

fn properties_of(resource: &Value) -> Map<String, Value> {
    let map = resource.get("Properties").and_then(Value::as_object);
    map.cloned().unwrap_or_default()
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

fn compare_properties(
    switches: &StackSwitches,
    old: &Value,
    new: &Value,
    written: &Map<String, Value>,
    parameters: &BTreeSet<String>,
) -> Modification {
    let kind = kind_of(new);
    let mut made = Modification {
        is_other_kind: kind_of(old) != kind,
        ..Modification::default()
    };
    let (old, new) = (properties_of(old), properties_of(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let named = written.get(name).map(references_in).unwrap_or_default();
        let causes: Vec<&String> = named.intersection(parameters).collect();
        let shown_alone = switches.parameter_alone_is_change && !causes.is_empty();
        if old.get(name) == new.get(name) && !shown_alone {
            continue;
        }
        let recreation = recreation_of(kind, name);
        for parameter in &causes {
            let cause = ChangeCause::Parameter(parameter);
            made.note("Properties", Some(name), recreation, cause);
        }
        let cause = match causes.is_empty() {
            true => ChangeCause::Template,
            false => ChangeCause::TemplateToo,
        };
        made.note("Properties", Some(name), recreation, cause);
    }
    made
}

/// Adds what differs beside properties.
fn compare_attributes(
    made: &mut Modification,
    switches: &StackSwitches,
    old: &Value,
    new: &Value,
    tags: bool,
) {
    let differs = |attribute: &str| old.get(attribute) != new.get(attribute);
    if tags {
        made.note_attribute("Tags");
    }
    // A change of what a resource is called by depends on nothing else; DependsOn is no change.
    let counted = ["Metadata", "CreationPolicy", "UpdatePolicy"];
    for attribute in counted.into_iter().filter(|a| differs(a)) {
        made.note_attribute(attribute);
    }
    if switches.metadata_shows_other_policies && differs("Metadata") {
        for attribute in ["CreationPolicy", "UpdatePolicy"] {
            if !differs(attribute) {
                made.note_attribute(attribute);
            }
        }
    }
    // Whether a policy alone is a change is not settled (CFN-8); beside another change it is shown.
    let alone = made.is_empty();
    for attribute in ["DeletionPolicy", "UpdateReplacePolicy"] {
        if differs(attribute) && (!alone || switches.policy_alone_is_change) {
            made.note_attribute(attribute);
        }
    }
}

/// Adds the properties that have an attribute of a resource that changes, and so on with those that have one of theirs.
fn add_dependents(
    modifications: &mut BTreeMap<&String, Modification>,
    switches: &StackSwitches,
    template: &Value,
    resources: &BTreeMap<String, Value>,
) {
    let mut seen: BTreeSet<(String, String, String)> = BTreeSet::new();
    loop {
        let changing = modifications.iter();
        let changing = changing.filter(|(_, made)| made.changes_attributes(switches));
        let changing: BTreeSet<String> = changing.map(|(name, _)| (*name).clone()).collect();
        let before = seen.len();
        for (name, made) in modifications.iter_mut() {
            let kind = resources.get(*name).map(kind_of).unwrap_or_default();
            for (property, value) in written_properties(template, name) {
                for path in attributes_in(&value) {
                    let of = path.split('.').next().unwrap_or_default();
                    let key = ((*name).clone(), property.clone(), path.clone());
                    if changing.contains(of) && seen.insert(key) {
                        let recreation = recreation_of(kind, &property);
                        let cause = ChangeCause::Attribute(&path);
                        made.note("Properties", Some(&property), recreation, cause);
                    }
                }
            }
        }
        if seen.len() == before {
            return;
        }
    }
}

/// Whether a change of a property replaces the resource, as the template reference says of the kinds of node groups' stacks.
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
    use crate::twin::aws::cloudformation::scope::ParameterValues;

    fn diff(switches: &StackSwitches, old: Value, new: Value) -> Vec<Value> {
        let whole = |resource: Value| json!({"Resources": {"G": resource}});
        diff_templates(switches, (&whole(old), [""; 2]), (&whole(new), [""; 2]))
    }

    /// The changes between two templates, each with what its parameter P was given and resolved to.
    fn diff_templates(
        switches: &StackSwitches,
        (old, was): (&Value, [&str; 2]),
        (new, is): (&Value, [&str; 2]),
    ) -> Vec<Value> {
        let maps = [was, is].map(|values| {
            values.map(|value| {
                let pair = (!value.is_empty()).then(|| ("P".to_owned(), value.to_owned()));
                pair.into_iter().collect::<BTreeMap<_, _>>()
            })
        });
        let scope = |template, values: usize| {
            let [given, resolved] = &maps[values];
            let parameters = ParameterValues { given, resolved };
            TemplateScope::new(template, parameters, BTreeMap::new())
        };
        let stack = CloudFormationStack::default();
        resource_changes(&stack, switches, &scope(old, 0), &scope(new, 1), false)
    }

    /// A launch template with an image from parameter P, of this type, and a group that has its version.
    fn nodes(kind: &str) -> Value {
        json!({
            "Parameters": {"P": {"Type": kind}},
            "Resources": {
                "Group": {"Type": "AWS::AutoScaling::AutoScalingGroup", "Properties": {"LaunchTemplate": {"Version": {"Fn::GetAtt": ["Template", "LatestVersionNumber"]}}}},
                "Template": {"Type": "AWS::EC2::LaunchTemplate", "Properties": {"LaunchTemplateData": {"ImageId": {"Ref": "P"}}}},
            },
        })
    }

    /// Logical id, source, evaluation and cause of each detail.
    fn details(changes: &[Value]) -> Vec<Value> {
        let each = changes.iter().map(|c| &c["ResourceChange"]);
        each.flat_map(|change| {
            let details = change["Details"].as_array().unwrap().iter();
            details.map(|d| {
                json!([
                    change["LogicalResourceId"],
                    d["ChangeSource"],
                    d["Evaluation"],
                    d["CausingEntity"]
                ])
            })
        })
        .collect()
    }

    const STORED: &str = "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>";

    #[test]
    fn a_newer_value_of_parameter_store_changes_the_template_and_what_has_its_version() {
        let template = nodes(STORED);
        let switches = StackSwitches::default();
        let (was, is) = (["/image", "ami-1"], ["/image", "ami-2"]);
        let changes = diff_templates(&switches, (&template, was), (&template, is));
        let expected = [
            json!([
                "Group",
                "ResourceAttribute",
                "Dynamic",
                "Template.LatestVersionNumber"
            ]),
            json!(["Template", "DirectModification", "Static", null]),
        ];
        assert_eq!(details(&changes), expected);
        assert!(diff_templates(&switches, (&template, was), (&template, was)).is_empty());
    }

    #[test]
    fn another_value_of_a_parameter_is_told_as_its_own_cause() {
        let template = nodes("String");
        let switches = StackSwitches::default();
        let changes = diff_templates(
            &switches,
            (&template, ["ami-1", ""]),
            (&template, ["ami-2", ""]),
        );
        assert_eq!(
            details(&changes)[1..],
            [
                json!(["Template", "ParameterReference", "Static", "P"]),
                json!(["Template", "DirectModification", "Dynamic", null]),
            ]
        );
    }

    #[test]
    fn a_parameter_that_gives_its_resolved_value_itself_is_no_change_unless_it_counts() {
        let (stored, plain) = (nodes(STORED), nodes("String"));
        let (was, is) = (["/image", "ami-1"], ["ami-1", ""]);
        let switches = StackSwitches::default();
        assert!(diff_templates(&switches, (&stored, was), (&plain, is)).is_empty());
        let counting = StackSwitches {
            parameter_alone_is_change: true,
            ..StackSwitches::default()
        };
        let changes = diff_templates(&counting, (&stored, was), (&plain, is));
        let expected = [
            json!([
                "Group",
                "ResourceAttribute",
                "Dynamic",
                "Template.LatestVersionNumber"
            ]),
            json!(["Template", "ParameterReference", "Static", "P"]),
            json!(["Template", "DirectModification", "Dynamic", null]),
        ];
        assert_eq!(details(&changes), expected);
    }

    #[test]
    fn metadata_of_a_resource_is_shown_at_what_has_its_attributes_only_where_it_counts() {
        let (was, is) = (["ami-1", ""], ["ami-1", ""]);
        let plain = nodes("String");
        let mut marked = plain.clone();
        marked["Resources"]["Template"]["Metadata"] = json!({"a": 1});
        let names = |switches: &StackSwitches| {
            let changes = diff_templates(switches, (&plain, was), (&marked, is));
            names_with_action(&changes, "Modify")
        };
        assert_eq!(names(&StackSwitches::default()), ["Template"]);
        let counting = StackSwitches {
            metadata_shows_dependents: true,
            ..StackSwitches::default()
        };
        assert_eq!(names(&counting), ["Group", "Template"]);
    }

    #[test]
    fn a_resource_whose_condition_ceases_to_hold_is_removed() {
        let template = json!({
            "Parameters": {"P": {"Type": "String"}},
            "Conditions": {"Wanted": {"Fn::Equals": [{"Ref": "P"}, "yes"]}},
            "Resources": {"Topic": {"Type": "AWS::SNS::Topic", "Condition": "Wanted"}},
        });
        let diff = |was, is| {
            let switches = StackSwitches::default();
            diff_templates(&switches, (&template, [was, ""]), (&template, [is, ""]))
        };
        assert_eq!(names_with_action(&diff("yes", "no"), "Remove"), ["Topic"]);
        assert_eq!(names_with_action(&diff("no", "yes"), "Add"), ["Topic"]);
        assert!(diff("no", "never").is_empty());
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
