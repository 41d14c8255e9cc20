//! The API server's own admission of pods, whoever makes them: the priority class, LimitRanges' defaults, the Pod Security
//! level of the namespace, ResourceQuotas. It refuses in the API server's words.

mod fargate_profile;
pub mod limit_range;
pub mod pod_security;
pub mod quota;
mod security_rules;

use serde_json::Value;

use super::cluster::SimCluster;
use super::json::{set_at, text_at, text_map_at};
use super::kinds::{PODS, PRIORITY_CLASSES};
use super::status::ApiFailure;
use super::store::ObjectName;
use super::{webhooks, windows_nodes};

/// Admits a pod that is about to be made, names it and fills in what admission gives.
pub fn admit_pod(cluster: &mut SimCluster, pod: &mut Value) -> Result<(), ApiFailure> {
    let ns = text_at(pod, "metadata.namespace").to_owned();
    fargate_profile::assign_profile(cluster, pod);
    windows_nodes::inject_address(cluster, pod);
    check_priority_class(cluster, pod)?;
    limit_range::fill_defaults(cluster, &ns, pod);
    // A name is made between what changes a pod and what refuses it.
    let prefix = text_at(pod, "metadata.generateName").to_owned();
    if text_at(pod, "metadata.name").is_empty() && !prefix.is_empty() {
        let name = format!("{prefix}{}", cluster.name_suffix());
        set_at(pod, "metadata.name", name);
    }
    pod_security::check_level(cluster, &ns, pod)?;
    let labels = text_map_at(pod, "metadata.labels");
    webhooks::check_webhooks(cluster, PODS, "", &ns, &labels)?;
    quota::check_quotas(cluster, &ns, pod)
}

/// Refuses a pod whose PriorityClass is not there (K8S-ADM-1).
fn check_priority_class(cluster: &SimCluster, pod: &Value) -> Result<(), ApiFailure> {
    let class = text_at(pod, "spec.priorityClassName");
    let built_in = matches!(
        class,
        "" | "system-node-critical" | "system-cluster-critical"
    );
    // A snapshot without a list of classes does not say which there are, so every class is taken to exist.
    if built_in || !cluster.knows_priority_classes {
        return Ok(());
    }
    let at = ObjectName::new("", class);
    match cluster.store.find_object(PRIORITY_CLASSES, &at) {
        Some(_) => Ok(()),
        None => {
            let why = format!("no PriorityClass with name {class} was found");
            Err(refuse_pod(cluster, pod, &why))
        }
    }
}

fn refuse_pod(cluster: &SimCluster, pod: &Value, why: &str) -> ApiFailure {
    let own = text_at(pod, "metadata.name");
    let name = match own.is_empty() {
        true => text_at(pod, "metadata.generateName"),
        false => own,
    };
    ApiFailure::forbidden_action(cluster.store.kinds.get(PODS), name, why)
}
