//! What a pod shows of its account and its credentials.

use serde_json::Value;

use super::json::{list_at, text_at};
use super::object::ObjectName;

/// Variables that give a container credentials of its own.
const CREDENTIAL_VARIABLES: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

pub fn all_containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list_at(pod, "spec.containers").iter()
}

pub fn has_variable(pod: &Value, names: &[&str]) -> bool {
    let mut variables = all_containers(pod).flat_map(|c| list_at(c, "env"));
    variables.any(|v| names.contains(&text_at(v, "name")))
}

/// The service account of a pod.
pub fn service_account(pod: &Value) -> ObjectName {
    let name = text_at(pod, "spec.serviceAccountName");
    let name = if name.is_empty() { "default" } else { name };
    ObjectName::new(text_at(pod, "metadata.namespace"), name)
}

/// Whether the pod's containers are given credentials of their own.
pub fn has_own_credentials(pod: &Value) -> bool {
    has_variable(pod, CREDENTIAL_VARIABLES)
}

/// Returns the service account of a pod that shows that it gives credentials.
pub fn account_with_credentials(pod: &Value) -> Option<ObjectName> {
    has_own_credentials(pod).then(|| service_account(pod))
}
