//! Nodes that eksup does not replace itself, by who makes them.

use crate::model::Minor;
use crate::model::kube::Node;
use crate::model::node_pool::pool_of;
use crate::plan::KarpenterPool;

/// Nodes that somebody else makes, and that the route brings along.
#[derive(Clone, Debug, PartialEq)]
pub enum OtherNodes {
    /// Those of a NodePool, by drift.
    Pool(Box<KarpenterPool>),
    Fargate,
    AutoMode,
}

/// The nodes of this kind that the plan brings along, and the oldest kubelet of each.
#[derive(Clone, Debug)]
pub struct OtherMove {
    pub nodes: OtherNodes,
    pub kubelet: Minor,
}

impl OtherNodes {
    /// A name that no node group can have.
    pub fn key(&self) -> String {
        match self {
            Self::Pool(pool) => format!("NodePool {}", pool.node_pool),
            Self::Fargate => "pods on Fargate".to_owned(),
            Self::AutoMode => "EKS Auto Mode".to_owned(),
        }
    }

    /// Whether the node is one of these.
    pub fn has_node(&self, node: &Node) -> bool {
        match self {
            Self::Pool(pool) => pool_of(node) == Some(&pool.node_pool) && !node.is_auto_mode(),
            Self::Fargate => node.is_fargate(),
            Self::AutoMode => node.is_auto_mode(),
        }
    }
}

impl OtherMove {
    /// The NodePool, where they are one's.
    pub fn pool(&self) -> Option<&KarpenterPool> {
        match &self.nodes {
            OtherNodes::Pool(pool) => Some(pool),
            OtherNodes::Fargate | OtherNodes::AutoMode => None,
        }
    }
}
