//! What a look at a drain sees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::StepRefusal;
use crate::k8s::cache::CacheSnapshot;
use crate::k8s::pods::NodePods;
use crate::model::kube::{NamespacedName, Node, Pod};
use crate::model::marks;
use crate::steps::drain::act::DrainTarget;
use crate::steps::drain::placement::PlacementFacts;
use crate::steps::drain::timers::DrainTimes;
use crate::steps::evictable::keeps_node_occupied;
use crate::steps::workload_health::{PodWorkload, ReadyCounts, ShortWorkload};

/// Whether a single replica can be moved by a restart of its Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaRestart {
    /// Its restart brings the new pod up first.
    Possible(NamespacedName),
    /// This process has restarted it; the new pod is awaited.
    Underway(NamespacedName),
    /// The restart would not bring the new pod first, and why.
    No(String),
}

/// What a look sees. Node and pod data come from watches; the rest is read only when a decision needs it.
#[derive(Default)]
pub struct DrainObservation {
    pub run: String,
    pub snapshot: CacheSnapshot,
    /// Blue's nodes, by name.
    pub nodes: Vec<BlueNode>,
    /// Volumes still attached to begun nodes that have no pod left, as `volume on node`.
    pub attached: Vec<(String, String)>,
    /// When the last of the begun nodes was seen to become empty; none where this process found them so.
    pub emptied: Option<Timestamp>,
    /// The group that is emptied.
    pub group: String,
    /// Workloads with more Ready pods than when the run began; read before the first node is begun.
    pub raised_counts: ReadyCounts,
    /// Workloads with fewer Ready pods than when the run began; read only where a decision rests on it.
    pub short: Vec<ShortWorkload>,
    /// By pod uid, of the begun nodes' pods: the workload it belongs to.
    pub workloads: BTreeMap<String, PodWorkload>,
    /// By pod uid: the Deployment whose restart brings up a new pod before this one goes, or why there is none.
    pub restarts: BTreeMap<String, ReplicaRestart>,
    /// What else decides where pods can go.
    pub placement_facts: Arc<PlacementFacts>,
    /// How long this process has seen what deadlines are about.
    pub elapsed: DrainTimes,
    /// A pod that came back to a node that is being emptied, again and again: what to say of it.
    pub returned_pod: Option<StepRefusal>,
    /// By pod uid: how often its eviction was refused.
    pub attempts: BTreeMap<String, u32>,
    /// A workload whose pods were moved more often than can be right.
    pub returning_workload: Option<String>,
    /// Pods not to be asked again just yet, by uid.
    pub paused_pods: BTreeSet<String>,
    /// Those of them whose eviction was refused, by a webhook or by a budget that had just closed, with its words.
    pub refusals: BTreeMap<String, String>,
    /// Begun nodes whose instance is still a target of a controller-filled target group, with the group's ARN.
    pub registered: Vec<(String, String)>,
    /// Begun nodes to be taken out of a target group now, because others in it are healthy.
    pub deregister: Vec<DrainTarget>,
    /// Why what a controller fills cannot be served by green yet; read before another node is begun.
    pub green_cannot_serve: Option<String>,
    /// Nodes of blue that this drain took out of a target group, for taking back.
    pub missing_targets: Vec<DrainTarget>,
    /// Ready nodes of green, the size the group is set to, and the most it may have; read only where it may have to grow.
    pub green_ready: i32,
    pub green_desired: i32,
    pub green_max: i32,
    /// When EKS was last asked to change green.
    pub green_modified: Option<Timestamp>,
    /// Nodes of green that joined after it was held, which the autoscaler may remove.
    pub unprotected_nodes: Vec<String>,
    /// Blue's instances that are in none of the target groups that the drain takes nodes out of, by target group; read
    /// before the first node is begun.
    pub never_registered: NeverRegistered,
    /// On rollback: blue's nodes that are not judged yet in a target group they left.
    pub returning_nodes: Vec<ReturningNode>,
    /// On rollback: the same look at green.
    pub green_observation: Option<Box<GreenDrainObservation>>,
}

/// A look at green in a rollback.
pub struct GreenDrainObservation {
    pub seen: DrainObservation,
    /// Pods, by uid, that have not been Ready for a while.
    pub unready: BTreeSet<String>,
    /// Nodes that have not been Ready for a while.
    pub dead: BTreeSet<String>,
    /// Whether a pod on green that has to move is Ready.
    pub serves: bool,
    /// What only the end of a dead node's instance sets free, as text.
    pub stranded: Vec<String>,
    /// Pods in the place of those that were on green, which are not Ready, as text.
    pub not_ready: Vec<String>,
    /// The same of those alone that dead nodes held on to.
    pub freed_not_ready: Vec<String>,
    /// Whether this run may delete pods, as far as is known.
    pub(super) may_delete: bool,
}

impl DrainObservation {
    /// Returns the pods that were let go a moment ago and of which no watch has told yet that they do: they still read
    /// Ready, and no longer count. One whose eviction was refused stays, and counts.
    pub fn evicted_unseen(&self) -> impl Iterator<Item = &Pod> {
        let pods = self.nodes.iter().flat_map(|n| n.pods.iter());
        let goes =
            |uid: &String| self.paused_pods.contains(uid) && !self.refusals.contains_key(uid);
        let unseen = move |p: &&Pod| p.deletion_timestamp.is_none() && goes(&p.uid);
        pods.map(AsRef::as_ref).filter(unseen)
    }
}

/// How many nodes there were to empty, and how many pods to move.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainBeforeImage {
    nodes: usize,
    pods: usize,
    /// Workloads that had more Ready pods by then than when the run began, and how many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    workloads: ReadyCounts,
    /// Instances that were in a target group's place, but not in it: nobody makes them targets in a rollback.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) never_registered: NeverRegistered,
}

/// By ARN of a target group, or name of a classic load balancer: instances that were not registered there.
pub type NeverRegistered = BTreeMap<String, BTreeSet<String>>;

/// A node of blue that is not judged yet in a target group, or is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturningNode {
    pub node: String,
    pub instance: String,
    pub target_group: String,
    /// As ELB says; none where it is not in the group.
    pub state: Option<String>,
}

impl DrainBeforeImage {
    /// Counts the nodes of the group and the pods that have to leave them, and keeps what workloads had more of by
    /// then.
    pub fn of_observation(seen: &DrainObservation) -> Self {
        let left = |n: &BlueNode| {
            n.pods
                .iter()
                .filter(|p| keeps_node_occupied(p, &n.node))
                .count()
        };
        Self {
            nodes: seen.nodes.len(),
            pods: seen.nodes.iter().map(left).sum(),
            workloads: seen.raised_counts.clone(),
            never_registered: seen.never_registered.clone(),
        }
    }

    /// Whether an instance was in a target group when the drain began. One that joined later is taken for one of them.
    pub fn was_registered(&self, target_group: &str, instance: &str) -> bool {
        let absent = self.never_registered.get(target_group);
        !absent.is_some_and(|instances| instances.contains(instance))
    }
}

/// A blue node and the pods on it.
#[derive(Clone)]
pub struct BlueNode {
    pub node: Arc<Node>,
    pub pods: NodePods,
    /// Which run began to empty it, and when.
    begun: Option<(String, Timestamp)>,
}

impl BlueNode {
    /// A node and its pods, with the run's mark read once. A mark that cannot be read is none: the node is begun again.
    pub fn new(node: Arc<Node>, pods: NodePods) -> Self {
        let mark = node.annotations.get(marks::DRAINING);
        let begun = mark
            .and_then(|mark| mark.split_once('@'))
            .and_then(|(by, at)| Some((by.to_owned(), at.parse().ok()?)));
        Self { node, pods, begun }
    }

    /// When this run began to empty the node.
    pub fn begun_at(&self, run: &str) -> Option<Timestamp> {
        self.begun
            .as_ref()
            .filter(|(by, _)| by == run)
            .map(|(_, at)| *at)
    }

    /// Whether this run gave the node up, by consent.
    pub fn is_skipped_by(&self, run: &str) -> bool {
        self.node
            .annotations
            .get(marks::SKIPPED)
            .is_some_and(|by| by == run)
    }

    /// Whether this run has closed the node in any way.
    pub fn is_closed_by(&self, run: &str) -> bool {
        self.node
            .annotations
            .get(marks::CORDONED)
            .is_some_and(|by| by == run)
            || self
                .node
                .taints
                .iter()
                .any(|t| t.key == marks::BLUE_TAINT && t.value.as_deref() == Some(run))
    }
}

/// Puts blue's nodes and their pods together.
pub fn collect_blue_nodes(snapshot: &CacheSnapshot, blue: &str) -> Vec<BlueNode> {
    snapshot
        .nodes
        .values()
        .filter(|n| n.nodegroup_name() == Some(blue))
        .map(|n| BlueNode::new(n.clone(), snapshot.pods.on_node(&n.name)))
        .collect()
}

/// Pods that keep begun nodes from being empty.
pub(super) fn begun_pods(seen: &DrainObservation) -> impl Iterator<Item = &Pod> {
    seen.nodes
        .iter()
        .filter(|n| n.begun_at(&seen.run).is_some() && !n.is_skipped_by(&seen.run))
        .flat_map(|n| {
            n.pods
                .iter()
                .filter(|p| keeps_node_occupied(p, &n.node))
                .map(AsRef::as_ref)
        })
}
