//! Karpenter's objects from what the API server gives.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::node_pool::{ConditionState, NODE_POOL_LABEL, NodeClaim, NodeClass, NodePool};

/// An object of Karpenter, whichever it is.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct KarpenterObject {
    metadata: KarpenterMetadata,
    spec: Value,
    status: KarpenterStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KarpenterMetadata {
    name: String,
    uid: String,
    resource_version: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    deletion_timestamp: Option<String>,
    generation: i64,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KarpenterStatus {
    node_name: Option<String>,
    amis: Vec<KarpenterImage>,
    conditions: Vec<KarpenterCondition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KarpenterImage {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KarpenterCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    observed_generation: Option<i64>,
}

fn by_type(conditions: Vec<KarpenterCondition>) -> BTreeMap<String, ConditionState> {
    let each = conditions.into_iter().map(|c| {
        let state = ConditionState {
            status: c.status,
            reason: c.reason,
            message: c.message,
        };
        (c.kind, state)
    });
    each.collect()
}

/// Reads a NodePool.
pub fn to_node_pool(object: KarpenterObject) -> NodePool {
    let meta = object.metadata;
    NodePool {
        name: meta.name,
        uid: meta.uid,
        resource_version: meta.resource_version,
        labels: meta.labels,
        annotations: meta.annotations,
        deleting: meta.deletion_timestamp.is_some(),
        spec: object.spec,
        ready: by_type(object.status.conditions).remove("Ready"),
    }
}

/// Reads a NodeClaim.
pub fn to_node_claim(object: KarpenterObject) -> NodeClaim {
    let meta = object.metadata;
    NodeClaim {
        name: meta.name,
        uid: meta.uid,
        pool: meta.labels.get(NODE_POOL_LABEL).cloned(),
        node: object.status.node_name.filter(|name| !name.is_empty()),
        labels: meta.labels,
        annotations: meta.annotations,
        deleting: meta.deletion_timestamp.is_some(),
        spec: object.spec,
        conditions: by_type(object.status.conditions),
    }
}

/// Reads an EC2NodeClass.
pub fn to_node_class(object: KarpenterObject) -> NodeClass {
    let meta = object.metadata;
    // What was judged before the last change says nothing of the class as it is.
    let mut conditions = object.status.conditions;
    conditions.retain(|c| {
        c.observed_generation
            .is_none_or(|seen| seen >= meta.generation)
    });
    NodeClass {
        name: meta.name,
        labels: meta.labels,
        annotations: meta.annotations,
        deleting: meta.deletion_timestamp.is_some(),
        spec: object.spec,
        ready: by_type(conditions).remove("Ready"),
        images: object.status.amis.into_iter().map(|i| i.name).collect(),
    }
}
