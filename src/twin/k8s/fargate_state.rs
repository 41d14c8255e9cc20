//! What the cluster knows of Fargate: its profiles, its nodes and which pods are its own to schedule.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::json::text_at;
use super::typed_views::NodeView;
use crate::twin::glob::matches_glob;

/// The scheduler's name, in the pods and in its events.
pub const SCHEDULER_NAME: &str = "fargate-scheduler";
/// The label that names the profile of a pod.
pub const PROFILE_LABEL: &str = "eks.amazonaws.com/fargate-profile";
/// The label and the taint of its nodes, and the annotation that keeps a pod away.
pub const COMPUTE_TYPE: &str = "eks.amazonaws.com/compute-type";
/// From a pod's creation to its node.
pub const PROVISIONING_MILLIS: (u64, u64) = (30_000, 60_000);
/// From the end of a pod to that of its node.
pub const NODE_END_MILLIS: (u64, u64) = (5_000, 20_000);

/// What the cluster knows of Fargate.
#[derive(Clone, Debug, Default)]
pub struct FargateState {
    /// By name, in the order in which they are asked.
    pub(super) profiles: BTreeMap<String, SchedulingProfile>,
    /// No pod gets a node before then.
    pub(super) no_capacity_until: Option<Timestamp>,
}

/// A profile, as far as it decides where pods go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchedulingProfile {
    pub name: String,
    pub selectors: Vec<ProfileSelector>,
    /// Ids of subnets.
    pub subnets: Vec<String>,
}

/// Which pods a profile takes: those of a namespace that have all the labels. `*` and `?` stand for any text and any
/// character (FARG-2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileSelector {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
}

impl ProfileSelector {
    /// Whether a pod of the namespace with these labels is of this profile.
    pub fn takes(&self, ns: &str, labels: &BTreeMap<String, String>) -> bool {
        let has = |(key, value): (&String, &String)| {
            let mut own = labels.iter();
            own.any(|(k, v)| matches_glob(key, k) && matches_glob(value, v))
        };
        matches_glob(&self.namespace, ns) && self.labels.iter().all(has)
    }
}

/// Whether the node is one of Fargate's.
pub fn is_fargate(node: &NodeView) -> bool {
    node.label_value(COMPUTE_TYPE) == "fargate"
}

/// Whether a pod is Fargate's to schedule, and nobody else's.
pub fn is_scheduled_by_fargate(pod: &Value) -> bool {
    text_at(pod, "spec.schedulerName") == SCHEDULER_NAME
}
