//! The parameters of a template: what it declares, what a request gives, and what Parameter Store has for them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::format::plain_text;
use crate::twin::aws::call::Input;
use crate::twin::aws::ec2::images;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::iam;
use crate::twin::aws::state::{AwsAccount, CloudFormationStack};

/// What every type begins with whose value is the name of a parameter of Parameter Store.
const STORED_TYPE_PREFIX: &str = "AWS::SSM::Parameter::Value<";

/// A parameter as a template declares it.
#[derive(Clone, Debug)]
pub struct DeclaredParameter {
    kind: String,
    default: Option<String>,
}

impl DeclaredParameter {
    /// Its value is the name of a parameter of Parameter Store (CFN-19).
    pub fn is_stored(&self) -> bool {
        self.kind.starts_with(STORED_TYPE_PREFIX)
    }

    /// It is used as a list.
    pub fn is_list(&self) -> bool {
        let stored = self.kind.strip_prefix(STORED_TYPE_PREFIX);
        let kind = stored.unwrap_or(&self.kind);
        kind.starts_with("List<") || kind.starts_with("CommaDelimitedList")
    }
}

/// The parameters that a template declares.
pub fn declared_parameters(template: &Value) -> BTreeMap<String, DeclaredParameter> {
    let declared = template.get("Parameters").and_then(Value::as_object);
    let all = declared.into_iter().flatten();
    all.map(|(name, of)| {
        let declared = DeclaredParameter {
            kind: of.get("Type").map(plain_text).unwrap_or_default(),
            default: of.get("Default").map(plain_text),
        };
        (name.clone(), declared)
    })
    .collect()
}

/// The values of the template's parameters: given, the stack's own, or the default (CFN-10).
pub fn requested_parameters(
    input: Input,
    stack: &CloudFormationStack,
    template: &Value,
) -> Result<BTreeMap<String, String>, AwsError> {
    let declared = declared_parameters(template);
    let mut values = BTreeMap::new();
    let mut unknown = Vec::new();
    for given in input.get_list("Parameters").iter().map(Input) {
        let key = given.require_text("ParameterKey")?;
        if !declared.contains_key(key) {
            unknown.push(key);
            continue;
        }
        let value = match given.get_bool("UsePreviousValue") == Some(true) {
            true => stack.parameters.get(key).map(String::as_str),
            false => given.get_text("ParameterValue"),
        };
        values.extend(value.map(|value| (key.to_owned(), value.to_owned())));
    }
    if !unknown.is_empty() {
        return Err(AwsError::validation_error(format!(
            "Parameters: [{}] do not exist in the template",
            unknown.join(", ")
        )));
    }
    let mut missing = Vec::new();
    for (name, of) in declared {
        match (values.contains_key(&name), of.default) {
            (true, _) => {}
            (false, Some(default)) => drop(values.insert(name, default)),
            (false, None) => missing.push(name),
        }
    }
    match missing.is_empty() {
        true => Ok(values),
        false => Err(AwsError::validation_error(format!(
            "Parameters: [{}] must have values",
            missing.join(", ")
        ))),
    }
}

/// What Parameter Store has now for the parameters whose values are names in it, whoever gave them (CFN-19, CFN-22). The
/// caller has to be allowed to read them (CFN-25).
pub fn resolve_stored(
    cloud: &mut AwsAccount,
    template: &Value,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, AwsError> {
    let declared = declared_parameters(template);
    let stored = given.iter().filter(|(name, _)| {
        declared
            .get(*name)
            .is_some_and(DeclaredParameter::is_stored)
    });
    let stored: Vec<(&String, &String)> = stored.collect();
    let calls: Vec<(&str, String)> = stored
        .iter()
        .map(|(_, path)| {
            let arn = format!("arn:aws:ssm:{}::parameter{path}", cloud.region);
            ("ssm:GetParameters", arn)
        })
        .collect();
    if iam::check_forwarded(cloud, "cloudformation:CreateChangeSet", &calls).is_err() {
        return Err(AwsError::validation_error(
            "AccessDenied. User doesn't have permission to call ssm:GetParameters",
        ));
    }
    let mut resolved = BTreeMap::new();
    let mut unknown = Vec::new();
    for (name, path) in stored {
        match images::parameter_value(cloud, path) {
            Some(value) => drop(resolved.insert(name.clone(), value)),
            None => unknown.push(path.as_str()),
        }
    }
    match unknown.is_empty() {
        true => Ok(resolved),
        false => Err(AwsError::validation_error(format!(
            "Unable to fetch parameters [{}] from parameter store for this account.",
            unknown.join(",")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_type_says_whether_a_value_is_a_list_and_whether_parameter_store_has_it() {
        for (kind, list, stored) in [
            ("String", false, false),
            ("Number", false, false),
            ("CommaDelimitedList", true, false),
            ("List<AWS::EC2::Subnet::Id>", true, false),
            ("AWS::SSM::Parameter::Name", false, false),
            (
                "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>",
                false,
                true,
            ),
            ("AWS::SSM::Parameter::Value<List<String>>", true, true),
            ("AWS::SSM::Parameter::Value<CommaDelimitedList>", true, true),
        ] {
            let template = json!({"Parameters": {"P": {"Type": kind, "Default": 5}}});
            let declared = &declared_parameters(&template)["P"];
            assert_eq!(
                (declared.is_list(), declared.is_stored()),
                (list, stored),
                "{kind}"
            );
            assert_eq!(declared.default.as_deref(), Some("5"));
        }
    }
}
