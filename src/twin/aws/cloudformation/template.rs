//! Templates: reading them, and what of one is refused.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::format::{format_error, resources_of};
use super::parameters::declared_parameters;
use super::references::{dependencies_of, references_in};
use super::scope::TemplateScope;
use super::yaml::read_yaml;
use crate::twin::aws::error::AwsError;

/// Bytes that a template in a request may have (CFN-4).
const MAX_BODY_LENGTH: usize = 51_200;

/// A template in JSON or YAML.
pub fn read_template(text: &str) -> Result<Value, AwsError> {
    if !text.trim_start().starts_with('{') {
        return read_yaml(text);
    }
    serde_json::from_str(text).map_err(|e| {
        format_error(format_args!(
            "JSON not well-formed. (line {}, column {})",
            e.line(),
            e.column()
        ))
    })
}

/// Reads a template of a request: its size, its form, and that it refers to nothing that is not in it.
pub fn read_submitted(text: &str) -> Result<Value, AwsError> {
    if text.len() > MAX_BODY_LENGTH {
        return Err(AwsError::validation_error(format!(
            "1 validation error detected: Value at 'templateBody' failed to satisfy constraint: Member must have length less than or equal to {MAX_BODY_LENGTH}"
        )));
    }
    let template = read_template(text)?;
    let resources = template.get("Resources").and_then(Value::as_object);
    let resources = resources
        .filter(|r| !r.is_empty())
        .ok_or_else(|| format_error("At least one Resources member must be defined."))?;
    for (name, resource) in resources {
        let Some(members) = resource.as_object() else {
            return Err(format_error("Any Resources member must be an object."));
        };
        if members.get("Type").and_then(Value::as_str).is_none() {
            return Err(format_error(format_args!(
                "[/Resources/{name}] Every Resources object must contain a Type member."
            )));
        }
        check_policies(name, members)?;
    }
    let mut known: BTreeSet<String> = resources.keys().cloned().collect();
    known.extend(declared_parameters(&template).into_keys());
    check_conditions(&template)?;
    let mut named = BTreeSet::new();
    for resource in resources.values() {
        named.extend(dependencies_of(resource));
    }
    if let Some(why) = unresolved(&named, &known, "Resources") {
        return Err(format_error(why));
    }
    let outputs = template.get("Outputs").map(references_in);
    if let Some(why) = unresolved(&outputs.unwrap_or_default(), &known, "Outputs") {
        return Err(format_error(why));
    }
    Ok(template)
}

/// Refuses what refers to a resource that is not there because its condition does not hold (CFN-24). What stands only in
/// DependsOn is no reference.
pub fn check_active(scope: &TemplateScope) -> Result<(), AwsError> {
    let resources = scope.resources();
    let mut known: BTreeSet<String> = resources.keys().cloned().collect();
    known.extend(declared_parameters(scope.template).into_keys());
    let mut named = BTreeSet::new();
    for resource in resources.values() {
        named.extend(
            resource
                .get("Properties")
                .map(references_in)
                .unwrap_or_default(),
        );
    }
    if let Some(why) = unresolved(&named, &known, "Resources") {
        return Err(format_error(why));
    }
    let mut named = BTreeSet::new();
    for output in scope.outputs().values() {
        named.extend(references_in(output));
    }
    match unresolved(&named, &known, "Outputs") {
        Some(why) => Err(AwsError::validation_error(why)),
        None => Ok(()),
    }
}

/// Says which names are not known, in CloudFormation's words.
fn unresolved(named: &BTreeSet<String>, known: &BTreeSet<String>, block: &str) -> Option<String> {
    let unknown: Vec<&str> = named.difference(known).map(String::as_str).collect();
    (!unknown.is_empty()).then(|| {
        format!(
            "Unresolved resource dependencies [{}] in the {block} block of the template",
            unknown.join(", ")
        )
    })
}

/// Refuses a condition that is not in the template (CFN-24).
fn check_conditions(template: &Value) -> Result<(), AwsError> {
    let is_known = |name: &str| {
        template
            .get("Conditions")
            .is_some_and(|c| c.get(name).is_some())
    };
    for block in ["Resources", "Outputs"] {
        let members = template.get(block).and_then(Value::as_object);
        for member in members.into_iter().flat_map(Map::values) {
            let condition = member.get("Condition").and_then(Value::as_str);
            if let Some(name) = condition.filter(|name| !is_known(name)) {
                return Err(format_error(format_args!(
                    "Unresolved condition dependency {name} in the {block} block of the template"
                )));
            }
            if let Some(name) = find_condition(member, &|name| !is_known(name)) {
                return Err(AwsError::validation_error(format!(
                    "Template error: unresolved condition dependency {name} in Fn::If"
                )));
            }
        }
    }
    Ok(())
}

/// The first condition of an `Fn::If` in a value that is wanted.
fn find_condition(value: &Value, wanted: &dyn Fn(&str) -> bool) -> Option<String> {
    let found = value.get("Fn::If").and_then(|f| f.get(0)?.as_str());
    if let Some(name) = found.filter(|name| wanted(name)) {
        return Some(name.to_owned());
    }
    match value {
        Value::Array(items) => items.iter().find_map(|v| find_condition(v, wanted)),
        Value::Object(map) => map.values().find_map(|v| find_condition(v, wanted)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn check_policies(name: &str, members: &Map<String, Value>) -> Result<(), AwsError> {
    const DELETION_POLICIES: &[&str] = &["Delete", "Retain", "RetainExceptOnCreate", "Snapshot"];
    for attribute in ["DeletionPolicy", "UpdateReplacePolicy"] {
        let Some(policy) = members.get(attribute) else {
            continue;
        };
        let policy = policy.as_str().unwrap_or_default();
        if !DELETION_POLICIES.contains(&policy) {
            return Err(AwsError::validation_error(format!(
                "Template error: {attribute} of {name} must be one of Delete, Retain, RetainExceptOnCreate and Snapshot, not {policy}"
            )));
        }
    }
    Ok(())
}

/// The capability that a template's IAM resources need (CFN-5).
pub fn required_capability(template: &Value) -> Option<&'static str> {
    const IAM_NAMES: &[&str] = &[
        "RoleName",
        "UserName",
        "GroupName",
        "InstanceProfileName",
        "ManagedPolicyName",
    ];
    let resources = resources_of(template);
    let of_iam = |r: &&Value| {
        let kind = r.get("Type").and_then(Value::as_str);
        kind.is_some_and(|k| k.starts_with("AWS::IAM::"))
    };
    let mut needed = None;
    for resource in resources.values().filter(of_iam) {
        let properties = resource.get("Properties").and_then(Value::as_object);
        let named = properties.is_some_and(|p| IAM_NAMES.iter().any(|n| p.contains_key(*n)));
        if named {
            return Some("CAPABILITY_NAMED_IAM");
        }
        needed = Some("CAPABILITY_IAM");
    }
    needed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_that_refers_to_what_is_not_in_it_is_refused() {
        let text = json!({"Resources": {"A": {"Type": "AWS::SNS::Topic", "Properties": {"X": {"Ref": "Gone"}}}}});
        let error = read_submitted(&text.to_string()).unwrap_err();
        assert_eq!(
            error.message,
            "Template format error: Unresolved resource dependencies [Gone] in the Resources block of the template"
        );
        let yaml = "Resources:\n  A:\n    Type: AWS::SNS::Topic\n    Properties:\n      X: !GetAtt Gone.Arn\n";
        assert_eq!(read_submitted(yaml).unwrap_err().message, error.message);
        let long = format!("{{\"Description\": \"{}\"}}", "x".repeat(MAX_BODY_LENGTH));
        let long = read_submitted(&long).unwrap_err();
        assert!(
            long.message.contains("less than or equal to 51200"),
            "{}",
            long.message
        );
    }

    #[test]
    fn iam_resources_need_a_capability_and_named_ones_another() {
        let with = |properties: Value| json!({"Resources": {"R": {"Type": "AWS::IAM::Role", "Properties": properties}}});
        assert_eq!(
            required_capability(&with(json!({}))),
            Some("CAPABILITY_IAM")
        );
        assert_eq!(
            required_capability(&with(json!({"RoleName": "r"}))),
            Some("CAPABILITY_NAMED_IAM")
        );
        let none = json!({"Resources": {"T": {"Type": "AWS::SNS::Topic"}}});
        assert_eq!(required_capability(&none), None);
    }
}
