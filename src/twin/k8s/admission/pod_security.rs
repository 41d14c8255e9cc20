//! Pod Security admission: the level that a namespace's label enforces (K8S-ADM-4). Versions of the standards are taken for
//! the newest.

use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{find_label, text_map_at, value_at};
use super::super::kinds::NAMESPACES;
use super::super::status::ApiFailure;
use super::super::store::ObjectName;
use super::{refuse_pod, security_rules};

/// Refuses a pod that its namespace's level forbids.
pub fn check_level(cluster: &SimCluster, ns: &str, pod: &Value) -> Result<(), ApiFailure> {
    // A pod in a namespace that does not exist is refused by whoever creates it, so there is nothing to check here.
    let at = ObjectName::new("", ns);
    let Some(namespace) = cluster.store.find_object(NAMESPACES, &at) else {
        return Ok(());
    };
    let label = |key| find_label(namespace, key).filter(|l| !l.is_empty());
    let restricted = match label("pod-security.kubernetes.io/enforce") {
        None | Some("privileged") => return Ok(()),
        Some("baseline") => false,
        // What is no level is taken for the strictest.
        Some(_) => true,
    };
    // Only new pods are checked: those that run stay, whatever the label says later (K8S-ADM-4).
    let annotations = text_map_at(pod, "metadata.annotations");
    let spec = value_at(pod, "spec").unwrap_or(&Value::Null);
    let broken = security_rules::broken_rules(spec, &annotations, restricted);
    if broken.is_empty() {
        return Ok(());
    }
    // The version appears in the message only; every version is checked by the newest rules.
    let version = label("pod-security.kubernetes.io/enforce-version").unwrap_or("latest");
    let level = if restricted { "restricted" } else { "baseline" };
    let why = format!(
        "violates PodSecurity \"{level}:{version}\": {}",
        broken.join(", ")
    );
    Err(refuse_pod(cluster, pod, &why))
}
