//! Nodes: reading one, and a change that either applies to the object as it was read or not at all.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use super::api_call::{MERGE_PATCH_CONTENT_TYPE, with_field_manager};
use super::convert;
use crate::k8s::KubeApi;
use crate::model::ApiError;
use crate::model::kube::{Node, Taint};

/// A change to a node. What is `None` or empty stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeChange {
    pub unschedulable: Option<bool>,
    /// The whole new list.
    pub taints: Option<Vec<Taint>>,
    /// `None` removes.
    pub labels: BTreeMap<String, Option<String>>,
    /// `None` removes.
    pub annotations: BTreeMap<String, Option<String>>,
}

impl KubeApi {
    /// One node, read now. The product reads nodes through its watch.
    #[cfg(test)]
    pub async fn read_node(&self, name: &str) -> Result<Node, ApiError> {
        self.get_json("get nodes", &format!("/api/v1/nodes/{name}"))
            .await
            .map(convert::to_node)
    }

    /// One merge patch carrying the `resourceVersion` that was read, so that a concurrent change is a Conflict.
    pub async fn change_node(&self, read: &Node, change: &NodeChange) -> Result<Node, ApiError> {
        let path = with_field_manager(&format!("/api/v1/nodes/{}", read.name));
        self.send_json(
            "patch nodes",
            Method::PATCH,
            &path,
            MERGE_PATCH_CONTENT_TYPE,
            &build_node_patch(read, change),
        )
        .await
        .map(convert::to_node)
    }
}

fn build_node_patch(read: &Node, change: &NodeChange) -> Value {
    let NodeChange {
        unschedulable,
        taints,
        labels,
        annotations,
    } = change;
    // The version makes it all or nothing: a list of taints is replaced as a whole, and another's change must not get
    // lost.
    let mut patch = json!({ "metadata": { "resourceVersion": read.resource_version } });
    if let Some(unschedulable) = unschedulable {
        // Absent is how a node that was never cordoned says false.
        patch["spec"]["unschedulable"] = if *unschedulable {
            json!(true)
        } else {
            Value::Null
        };
    }
    if let Some(taints) = taints {
        let list: Vec<Value> = taints.iter().map(taint_json).collect();
        patch["spec"]["taints"] = if list.is_empty() {
            Value::Null
        } else {
            json!(list)
        };
    }
    if !labels.is_empty() {
        patch["metadata"]["labels"] = json!(labels);
    }
    if !annotations.is_empty() {
        patch["metadata"]["annotations"] = json!(annotations);
    }
    patch
}

fn taint_json(taint: &Taint) -> Value {
    let Taint { key, value, effect } = taint;
    match value {
        Some(value) => json!({ "key": key, "value": value, "effect": effect }),
        None => json!({ "key": key, "effect": effect }),
    }
}
