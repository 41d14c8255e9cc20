//! Nodes.

use k8s_openapi::api::core::v1;

use super::quantity::{counted_resources, other_resources, resource_amounts};
use super::{take_annotations, to_timestamp};
use crate::model::kube::{Node, Taint};

/// Reads a node. Without a Ready condition it is `Unknown`, as one whose kubelet has never reported.
pub fn to_node(mut node: v1::Node) -> Node {
    let annotations = take_annotations(&mut node.metadata);
    let meta = node.metadata;
    let spec = node.spec.unwrap_or_default();
    let status = node.status.unwrap_or_default();
    // The condition's text is kept and not only whether it is `True`: `Unknown` says that the kubelet is silent, which
    // is a dead node and not one that is starting.
    let ready = status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .find(|c| c.type_ == "Ready");
    // What pods may take, which is less than what the machine has.
    let allocatable = resource_amounts(&status.allocatable.unwrap_or_default());
    Node {
        name: meta.name.unwrap_or_default(),
        uid: meta.uid.unwrap_or_default(),
        resource_version: meta.resource_version.unwrap_or_default(),
        labels: meta.labels.unwrap_or_default(),
        annotations,
        unschedulable: spec.unschedulable.unwrap_or(false),
        taints: spec
            .taints
            .unwrap_or_default()
            .into_iter()
            .map(|t| Taint {
                key: t.key,
                value: t.value,
                effect: t.effect,
            })
            .collect(),
        provider_id: spec.provider_id,
        ready: ready
            .as_ref()
            .map_or_else(|| "Unknown".to_owned(), |c| c.status.clone()),
        ready_since: ready.and_then(|c| to_timestamp(c.last_transition_time)),
        os_image: (status.node_info.as_ref())
            .map(|i| i.os_image.clone())
            .unwrap_or_default(),
        kubelet_version: status
            .node_info
            .map(|i| i.kubelet_version)
            .unwrap_or_default(),
        allocatable: counted_resources(&allocatable),
        other_allocatable: other_resources(&allocatable),
        created: to_timestamp(meta.creation_timestamp),
        deleting: meta.deletion_timestamp.is_some(),
        self_managed_group: None,
    }
}
