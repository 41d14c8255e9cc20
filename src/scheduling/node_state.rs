//! A node as pods are placed on it.

use super::node_load::NodeLoad;
use crate::model::kube::Node;

/// A node with its pods.
#[derive(Clone, Debug)]
pub struct NodeState<'a> {
    pub node: &'a Node,
    /// Whether pods may be placed there at all; a node that is not counts as a place over which pods are spread.
    pub accepts_pods: bool,
    pub load: NodeLoad,
    /// Slots of its pods.
    pub(super) slots: Vec<usize>,
}
