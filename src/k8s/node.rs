//! Nodes: reading one, and a change that either applies to the object as it was read or not at all.

use std::collections::BTreeMap;

use crate::k8s::Kube;
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

impl Kube {
    /// One merge patch carrying the `resourceVersion` that was read, so that a concurrent change is a Conflict.
    pub async fn change_node(&self, read: &Node, change: &NodeChange) -> Result<Node, ApiError> {
        todo!()
    }
}
