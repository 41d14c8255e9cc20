//! Templates: reading them, what refers to what, and the values that outputs have.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::{AwsAccount, CloudFormationStack};

/// Bytes that a template in a request may have (CFN-4).
const MAX_BODY_LENGTH: usize = 51_200;

fn format_error(why: impl std::fmt::Display) -> AwsError {
    AwsError::validation_error(format!("Template format error: {why}"))
}

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

/// A template in YAML. Of the short forms of functions those that name a resource keep their meaning; the tags of others
/// are dropped, so that their arguments stand alone.
fn read_yaml(text: &str) -> Result<Value, AwsError> {
    let lines: Vec<String> = text.lines().map(expand_short_form).collect();
    let read: Result<Value, _> = serde_saphyr::from_str(&lines.join("\n"));
    match read {
        Ok(template) if template.is_object() => Ok(template),
        Ok(_) | Err(_) => Err(format_error("YAML not well-formed.")),
    }
}

/// Writes `!Ref`, `!GetAtt`, `!Sub` and `!ImportValue` of a line as the functions that they stand for.
fn expand_short_form(line: &str) -> String {
    const SHORT_FORMS: &[(&str, &str)] = &[
        ("!Ref ", "Ref"),
        ("!GetAtt ", "Fn::GetAtt"),
        ("!Sub ", "Fn::Sub"),
        ("!ImportValue ", "Fn::ImportValue"),
    ];
    let Some((before, tagged)) = line.find(['!']).map(|at| line.split_at(at)) else {
        return line.to_owned();
    };
    // A mark of another kind, inside a text, is no tag.
    if !before.trim_end().ends_with([':', '-']) {
        return line.to_owned();
    }
    for (short, function) in SHORT_FORMS {
        let Some(argument) = tagged.strip_prefix(short).map(str::trim) else {
            continue;
        };
        if argument.starts_with(['|', '>', '[']) {
            return format!("{before}{argument}");
        }
        let plain = argument.trim_matches(['"', '\'']);
        return format!("{before}{}", serde_json::json!({*function: plain}));
    }
    let bare = tagged.split_once(' ').map_or("", |(_, argument)| argument);
    format!("{before}{bare}")
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
    known.extend(declared_parameters(&template).keys().cloned());
    check_references(&template, "Resources", &known)?;
    check_references(&template, "Outputs", &known)?;
    Ok(template)
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

fn check_references(
    template: &Value,
    block: &str,
    known: &BTreeSet<String>,
) -> Result<(), AwsError> {
    let mut named = BTreeSet::new();
    match block {
        "Resources" => {
            for resource in resources_of(template).values() {
                named.extend(dependencies_of(resource));
            }
        }
        _ => collect_references(template.get(block).unwrap_or(&Value::Null), &mut named),
    }
    let unknown: Vec<&str> = named.difference(known).map(String::as_str).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(format_error(format_args!(
        "Unresolved resource dependencies [{}] in the {block} block of the template",
        unknown.join(", ")
    )))
}

/// The resources of a template, by logical id.
pub fn resources_of(template: &Value) -> BTreeMap<String, Value> {
    let resources = template.get("Resources").and_then(Value::as_object);
    let all = resources.into_iter().flatten();
    all.map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The parameters that a template declares, and their defaults.
pub fn declared_parameters(template: &Value) -> BTreeMap<String, Option<String>> {
    let declared = template.get("Parameters").and_then(Value::as_object);
    let all = declared.into_iter().flatten();
    all.map(|(name, of)| (name.clone(), of.get("Default").map(plain_text)))
        .collect()
}

/// The names that a resource refers to, in its properties or by DependsOn.
pub fn dependencies_of(resource: &Value) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    collect_references(
        resource.get("Properties").unwrap_or(&Value::Null),
        &mut named,
    );
    match resource.get("DependsOn") {
        Some(Value::String(one)) => drop(named.insert(one.clone())),
        Some(Value::Array(all)) => {
            named.extend(all.iter().filter_map(|v| v.as_str().map(str::to_owned)));
        }
        Some(_) | None => {}
    }
    named
}

/// Collects what `Ref`, `Fn::GetAtt` and `Fn::Sub` name; pseudo parameters are left out.
fn collect_references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|v| collect_references(v, into)),
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("Ref", Value::String(name)) => {
                        if !name.starts_with("AWS::") {
                            into.insert(name.clone());
                        }
                    }
                    ("Fn::GetAtt", Value::String(path)) => {
                        into.extend(path.split('.').next().map(str::to_owned));
                    }
                    ("Fn::GetAtt", Value::Array(path)) => {
                        into.extend(path.first().and_then(Value::as_str).map(str::to_owned));
                    }
                    ("Fn::Sub", Value::String(text)) => into.extend(names_in_text(text)),
                    ("Fn::Sub", Value::Array(parts)) => {
                        let own = parts.get(1).and_then(Value::as_object);
                        let text = parts.first().and_then(Value::as_str).unwrap_or_default();
                        let given = |name: &String| own.is_some_and(|o| o.contains_key(name));
                        into.extend(names_in_text(text).into_iter().filter(|n| !given(n)));
                        parts
                            .iter()
                            .skip(1)
                            .for_each(|v| collect_references(v, into));
                    }
                    (_, value) => collect_references(value, into),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The names in `${...}` of a text.
fn names_in_text(text: &str) -> Vec<String> {
    let parts = text.split("${").skip(1);
    let inner = parts.filter_map(|part| part.split_once('}').map(|(name, _)| name));
    let named = inner.filter(|name| !name.starts_with('!') && !name.starts_with("AWS::"));
    named
        .filter_map(|name| name.split('.').next().map(str::to_owned))
        .collect()
}

/// Names of exports that a template imports, as far as they are written out.
pub fn imports_of(template: &Value) -> BTreeSet<String> {
    fn collect(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|v| collect(v, into)),
            Value::Object(map) => {
                for (key, value) in map {
                    match (key.as_str(), value) {
                        ("Fn::ImportValue", Value::String(name)) => drop(into.insert(name.clone())),
                        (_, value) => collect(value, into),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = BTreeSet::new();
    collect(template, &mut found);
    found
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

/// Puts the values of parameters in the place of references to them.
pub fn fill_parameters(value: &Value, parameters: &BTreeMap<String, String>) -> Value {
    match value {
        Value::Object(map) => {
            let only = map.iter().next().filter(|_| map.len() == 1);
            if let Some(("Ref", Value::String(name))) = only.map(|(k, v)| (k.as_str(), v))
                && let Some(value) = parameters.get(name)
            {
                return Value::String(value.clone());
            }
            let filled = map.iter();
            let filled = filled.map(|(k, v)| (k.clone(), fill_parameters(v, parameters)));
            Value::Object(filled.collect())
        }
        Value::Array(items) => Value::Array(
            items
                .iter()
                .map(|v| fill_parameters(v, parameters))
                .collect(),
        ),
        other => other.clone(),
    }
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What a value of a template is for a stack that is there. What the twin cannot work out stays as it is written.
pub fn resolve_text(cloud: &AwsAccount, stack: &CloudFormationStack, value: &Value) -> String {
    let Some(map) = value.as_object().filter(|m| m.len() == 1) else {
        return plain_text(value);
    };
    let Some((function, argument)) = map.iter().next() else {
        return String::new();
    };
    let texts = |v: &Value| -> Vec<String> {
        let items = v.as_array().into_iter().flatten();
        items.map(|v| resolve_text(cloud, stack, v)).collect()
    };
    match function.as_str() {
        "Ref" => resolve_name(cloud, stack, &plain_text(argument)),
        "Fn::GetAtt" => {
            let path = match argument {
                Value::Array(parts) => parts.iter().map(plain_text).collect::<Vec<_>>().join("."),
                other => plain_text(other),
            };
            resolve_name(cloud, stack, &path)
        }
        "Fn::Sub" => {
            let text = match argument {
                Value::Array(parts) => parts.first().map(plain_text).unwrap_or_default(),
                other => plain_text(other),
            };
            substitute(cloud, stack, &text)
        }
        "Fn::Join" => {
            let separator = argument.get(0).map(plain_text).unwrap_or_default();
            texts(argument.get(1).unwrap_or(&Value::Null)).join(&separator)
        }
        "Fn::ImportValue" => {
            let name = resolve_text(cloud, stack, argument);
            let outputs = cloud.cloudformation.live_stacks().flat_map(|s| &s.outputs);
            let mut exported = outputs.filter(|o| o.export.as_ref() == Some(&name));
            exported.next().map_or(name.clone(), |o| o.value.clone())
        }
        _ => value.to_string(),
    }
}

fn substitute(cloud: &AwsAccount, stack: &CloudFormationStack, text: &str) -> String {
    let mut parts = text.split("${");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('}') {
            Some((name, rest)) => {
                out += &resolve_name(cloud, stack, name);
                out += rest;
            }
            None => out += part,
        }
    }
    out
}

/// The value of a parameter, a pseudo parameter, a resource, or an attribute of one.
fn resolve_name(cloud: &AwsAccount, stack: &CloudFormationStack, name: &str) -> String {
    let pseudo = match name {
        "AWS::StackName" => Some(&stack.name),
        "AWS::StackId" => Some(&stack.id),
        "AWS::Region" => Some(&cloud.region),
        "AWS::AccountId" => Some(&cloud.account),
        _ => None,
    };
    if let Some(value) = pseudo.or_else(|| stack.parameters.get(name)) {
        return value.clone();
    }
    if name == "AWS::Partition" {
        return "aws".to_owned();
    }
    let (logical, attribute) = name.split_once('.').unwrap_or((name, ""));
    let Some(resource) = stack.resources.get(logical) else {
        return name.to_owned();
    };
    let id = &resource.physical_id;
    let account = &cloud.account;
    match (attribute, resource.kind.as_str()) {
        ("Arn", "AWS::IAM::Role") => format!("arn:aws:iam::{account}:role/{id}"),
        ("Arn", "AWS::IAM::InstanceProfile") => {
            format!("arn:aws:iam::{account}:instance-profile/{id}")
        }
        ("Arn", "AWS::EKS::Cluster") => {
            format!("arn:aws:eks:{}:{account}:cluster/{id}", cloud.region)
        }
        _ => id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_resource_refers_to_is_found_in_every_form() {
        let resource = json!({
            "DependsOn": ["A"],
            "Properties": {
                "One": {"Ref": "B"},
                "Two": [{"Fn::GetAtt": ["C", "Arn"]}, {"Fn::GetAtt": "D.Arn"}],
                "Three": {"Fn::Sub": "${E}-${F.Arn}-${AWS::StackName}-${!G}"},
                "Four": {"Fn::Sub": ["${H}${I}", {"I": {"Ref": "J"}}]},
                "Five": {"Ref": "AWS::Region"},
            },
        });
        let found: Vec<String> = dependencies_of(&resource).into_iter().collect();
        assert_eq!(found, ["A", "B", "C", "D", "E", "F", "H", "J"]);
    }

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
    fn short_forms_of_yaml_that_name_resources_are_read() {
        let yaml = "Description: nodes! all of them\nResources:\n  A:\n    Type: AWS::EKS::Nodegroup\n    DeletionPolicy: Retain\n    Properties:\n      NodeRole: !GetAtt Role.Arn\n      LaunchTemplate:\n        Id: !Ref 'Template'\n      Subnets: !Split [',', a]\n      Tags:\n        Name: !Sub \"${AWS::StackName}-${Other}\"\n";
        let template = read_template(yaml).unwrap();
        let resource = &resources_of(&template)["A"];
        let found: Vec<String> = dependencies_of(resource).into_iter().collect();
        assert_eq!(found, ["Other", "Role", "Template"]);
        assert_eq!(resource["DeletionPolicy"], "Retain");
        assert_eq!(resource["Properties"]["Subnets"], json!([",", "a"]));
        assert_eq!(template["Description"], "nodes! all of them");
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
