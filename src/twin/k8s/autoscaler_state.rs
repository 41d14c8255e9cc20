//! What a cluster autoscaler knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::typed_views::NodeView;
use crate::twin::aws::scaling::ScalingGroup;

/// What an autoscaler knows. All but the log dies with its pod.
#[derive(Clone, Debug, Default)]
pub struct Autoscaler {
    /// A scan is queued.
    pub(super) queued: bool,
    /// The pod that it is, by uid.
    pub(super) pod: String,
    pub(super) groups: Vec<ScalingGroup>,
    pub(super) read_at: Option<Timestamp>,
    /// By Auto Scaling group: the node a new one is taken to be like.
    pub(super) templates: BTreeMap<String, Arc<NodeView>>,
    /// The same by DescribeNodegroup, and when that was asked.
    pub(super) described: BTreeMap<String, (Timestamp, Arc<NodeView>)>,
    /// By node: since when nothing needs it.
    pub(super) unneeded: BTreeMap<String, Timestamp>,
    /// Nodes that could not be emptied, and until when they are left alone.
    pub(super) unremovable: BTreeMap<String, Timestamp>,
    pub(super) leaving: BTreeMap<String, LeavingNode>,
    pub(super) grown_at: Option<Timestamp>,
    /// What it did, for those who look on.
    pub(super) log: Vec<ScalingAction>,
}

/// Something it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScalingAction {
    Grew { nodegroup: String, by: i64 },
    Ended { nodegroup: String, node: String },
    GaveUp { node: String },
    Restarted,
}

/// A node on its way out.
#[derive(Clone, Debug)]
pub struct LeavingNode {
    pub(super) since: Timestamp,
    pub(super) nodegroup: String,
    pub(super) instance: String,
    /// Somebody had cordoned it before.
    pub(super) was_cordoned: bool,
    /// Its instance is being ended: it is there until its connections have drained.
    pub(super) ended: bool,
}
