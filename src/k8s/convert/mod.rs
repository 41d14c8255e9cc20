//! The API server's objects cut down to the model: one function per kind.

mod admission;
mod cluster_objects;
mod cni;
mod node;
mod node_pools;
mod pod;
mod pod_admission;
mod pod_cloud;
mod pod_security;
mod quantity;
mod scheduling;
#[cfg(test)]
mod tests;
mod volumes;
mod workload;

pub use admission::{to_mutating_webhooks, to_namespace_labels, to_validating_webhooks};
pub use cluster_objects::{
    to_attachment, to_pdb, to_service, to_target_group_binding, to_volume, volume_limits,
};
pub use cni::{to_cni_settings, to_eni_config};
pub use node::to_node;
pub use node_pools::{to_node_claim, to_node_class, to_node_pool};
pub use pod::to_pod;
pub use pod_admission::{to_class_name, to_limit_defaults, to_resource_quota};
pub use pod_cloud::account_with_role;
pub use workload::{
    active_replica_set_to_workload, daemon_set_to_workload, deployment_to_workload,
    job_to_workload, replica_set_to_workload, stateful_set_to_workload,
};

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::model::kube::{NamespacedName, Owner, Selector, SelectorExpression, Toleration};

/// The annotation that repeats the whole manifest: long, and it may hold what should not be copied about.
const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn object_key(meta: &ObjectMeta) -> NamespacedName {
    NamespacedName::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

fn to_timestamp(at: Option<Time>) -> Option<Timestamp> {
    at.map(|at| at.0)
}

fn take_annotations(meta: &mut ObjectMeta) -> BTreeMap<String, String> {
    let mut annotations = meta.annotations.take().unwrap_or_default();
    annotations.remove(LAST_APPLIED_ANNOTATION);
    annotations
}

fn find_controller(meta: &ObjectMeta) -> Option<Owner> {
    let controller = meta
        .owner_references
        .iter()
        .flatten()
        .find(|o| o.controller == Some(true))?;
    Some(Owner {
        kind: controller.kind.clone(),
        name: controller.name.clone(),
        uid: controller.uid.clone(),
    })
}

/// What makes the object again: its controller, else a custom resource among its owners. Some operators (Strimzi) do not
/// call themselves the controller; an owner of a built-in kind that does not is there for garbage collection only.
fn find_recreating_owner(meta: &ObjectMeta) -> Option<Owner> {
    let is_custom = |api_version: &str| {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        group.contains('.') && !group.ends_with(".k8s.io")
    };
    let custom = || {
        let mut owners = meta.owner_references.iter().flatten();
        let custom = owners.find(|o| is_custom(&o.api_version))?;
        Some(Owner {
            kind: custom.kind.clone(),
            name: custom.name.clone(),
            uid: custom.uid.clone(),
        })
    };
    find_controller(meta).or_else(custom)
}

fn to_selector(selector: LabelSelector) -> Selector {
    let expressions = selector.match_expressions.unwrap_or_default();
    Selector {
        match_labels: selector.match_labels.unwrap_or_default(),
        expressions: expressions
            .into_iter()
            .map(|e| SelectorExpression {
                key: e.key,
                operator: e.operator,
                values: e.values.unwrap_or_default(),
            })
            .collect(),
    }
}

fn number_or_percent(value: IntOrString) -> String {
    match value {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text,
    }
}

fn to_tolerations(list: Option<Vec<v1::Toleration>>) -> Vec<Toleration> {
    list.unwrap_or_default()
        .into_iter()
        .map(|t| Toleration {
            key: t.key,
            operator: t.operator.unwrap_or_else(|| "Equal".to_owned()),
            value: t.value,
            effect: t.effect,
        })
        .collect()
}
