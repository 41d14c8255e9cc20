//! The outputs of a stack, with the values that what is there gives them.

use serde_json::Value;

use super::format::plain_text;
use super::scope::TemplateScope;
use crate::twin::aws::state::{AwsAccount, CloudFormationStack, StackOutput};

/// The outputs of a template as they are for a stack.
pub fn outputs_of(
    cloud: &AwsAccount,
    stack: &CloudFormationStack,
    template: &Value,
) -> Vec<StackOutput> {
    let outputs = TemplateScope::of_stack(cloud, stack, template).outputs();
    let all = outputs.into_iter();
    all.map(|(key, output)| StackOutput {
        value: resolve_text(cloud, stack, output.get("Value").unwrap_or(&Value::Null)),
        export: output
            .pointer("/Export/Name")
            .map(|name| resolve_text(cloud, stack, name)),
        key,
    })
    .collect()
}

/// What a value whose parameters are filled in is for what is there. What the twin cannot work out stays as it is written.
fn resolve_text(cloud: &AwsAccount, stack: &CloudFormationStack, value: &Value) -> String {
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
            let mut text = argument
                .get(0)
                .map_or_else(|| plain_text(argument), plain_text);
            let own = argument.get(1).and_then(Value::as_object);
            for (name, value) in own.into_iter().flatten() {
                let value = resolve_text(cloud, stack, value);
                text = text.replace(&format!("${{{name}}}"), &value);
            }
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

/// The value of a resource, or of an attribute of one.
fn resolve_name(cloud: &AwsAccount, stack: &CloudFormationStack, name: &str) -> String {
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
