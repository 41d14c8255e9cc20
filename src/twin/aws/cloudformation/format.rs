//! What all that read templates need of them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::twin::aws::error::AwsError;

/// A template that cannot be read, in CloudFormation's words.
pub fn format_error(why: impl std::fmt::Display) -> AwsError {
    AwsError::validation_error(format!("Template format error: {why}"))
}

/// The resources of a template, by logical id.
pub fn resources_of(template: &Value) -> BTreeMap<String, Value> {
    let resources = template.get("Resources").and_then(Value::as_object);
    let all = resources.into_iter().flatten();
    all.map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// A scalar as text.
pub fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
