//! Whether a node will do for a pod: the filters of the real scheduler, in its order and words.

use std::sync::Arc;

use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{list_at, number_at, value_at};
use super::super::node_affinity::{NodeTerm, RequiredNodes};
use super::super::pod_requests::ResourceAmounts;
use super::super::typed_views::{NodeTaint, NodeView, PodView};
use super::super::volumes::VolumeNeeds;
use super::pod_affinity::{AffinityPreference, PodAffinity, read_preferences};
use super::topology_spread::{SpreadConstraint, read_constraints};
use super::{TAINT_VALUES_UNTIL, untolerated_taint};
use crate::model::Minor;

/// The first minor that does not try to make room for more than a node has.
const UNRESOLVABLE_SINCE: Minor = Minor::new(34);

/// Why a node will not do.
#[derive(Debug)]
pub struct NodeRefusal {
    pub reasons: Vec<String>,
    /// It might help if other pods went.
    pub room: bool,
}

impl NodeRefusal {
    fn from_reason(reason: impl Into<String>, room: bool) -> Self {
        Self {
            reasons: vec![reason.into()],
            room,
        }
    }
}

/// What a pod asks of a node.
pub struct PodConstraints<'a> {
    pub pod: &'a PodView,
    pub tolerations: &'a [Value],
    required: RequiredNodes,
    pub preferred: Vec<(i64, NodeTerm)>,
    volumes: VolumeNeeds,
    pub spreads: Vec<SpreadConstraint>,
    affinity: PodAffinity,
    pub preferences: Vec<AffinityPreference>,
}

impl<'a> PodConstraints<'a> {
    /// Reads what a pod asks for; an error is a reason that holds for all nodes.
    pub fn from_pod(
        cluster: &SimCluster,
        object: &'a Value,
        pod: &'a PodView,
    ) -> Result<Self, String> {
        let spec = value_at(object, "spec").unwrap_or(&Value::Null);
        let tolerations = list_at(spec, "tolerations");
        let required = RequiredNodes::from_spec(spec);
        let preferred = list_at(
            spec,
            "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution",
        );
        // Preferences only weigh; they never refuse a node.
        let preferred = preferred.iter().map(|p| {
            let term = NodeTerm::from_term(p.get("preference").unwrap_or(&Value::Null));
            (number_at(p, "weight").unwrap_or(1), term)
        });
        Ok(Self {
            pod,
            tolerations,
            preferred: preferred.collect(),
            // What is asked of volumes can fail for all nodes at once, as when a claim does not exist.
            volumes: VolumeNeeds::for_pod(cluster, object)?,
            spreads: read_constraints(cluster, spec, pod, &required, tolerations),
            affinity: PodAffinity::for_pod(cluster, object, pod),
            preferences: read_preferences(cluster, object),
            required,
        })
    }

    /// Whether a node will do.
    pub fn check_fit(&self, cluster: &SimCluster, node: &NodeView) -> Result<(), NodeRefusal> {
        self.check_fit_without(cluster, node, &[])
    }

    /// Whether a node would do if these pods of it were gone.
    pub fn check_fit_without(
        &self,
        cluster: &SimCluster,
        node: &NodeView,
        gone: &[Arc<PodView>],
    ) -> Result<(), NodeRefusal> {
        // A cordon is looked at as if it were the taint that follows it, so a toleration of that taint passes it
        // (K8S-TAINT-1).
        let unschedulable = NodeTaint {
            key: "node.kubernetes.io/unschedulable".into(),
            value: String::new(),
            effect: "NoSchedule".into(),
        };
        if node.unschedulable && unschedulable.toleration_for(self.tolerations).is_none() {
            return Err(NodeRefusal::from_reason(
                "node(s) were unschedulable",
                false,
            ));
        }
        if let Some(taint) = untolerated_taint(node, self.tolerations) {
            // Since 1.34 the message leaves out which taint it is (K8S-SCHED-6).
            let reason = if cluster.version < TAINT_VALUES_UNTIL {
                format!(
                    "node(s) had untolerated taint {{{}: {}}}",
                    taint.key, taint.value
                )
            } else {
                "node(s) had untolerated taint(s)".to_owned()
            };
            return Err(NodeRefusal::from_reason(reason, false));
        }
        if !self.required.matches(node) {
            let reason = "node(s) didn't match Pod's node affinity/selector";
            return Err(NodeRefusal::from_reason(reason, false));
        }
        // From here on a refusal may be about pods on the node, so that their removal can help.
        if self.is_port_taken(cluster, node, gone) {
            let reason = "node(s) didn't have free ports for the requested pod ports";
            return Err(NodeRefusal::from_reason(reason, true));
        }
        // The order of the filters is the scheduler's: it stops at the first one that refuses, and only that one is
        // in the message.
        self.check_room(cluster, node, gone)?;
        let named = |(reason, room): (&str, bool)| NodeRefusal::from_reason(reason, room);
        self.volumes
            .check_node(cluster, node, gone)
            .map_err(named)?;
        for spread in self.spreads.iter().filter(|s| s.hard) {
            spread.check_node(node, gone).map_err(named)?;
        }
        self.affinity
            .check_node(cluster, self.pod, node, gone)
            .map_err(named)
    }

    fn check_room(
        &self,
        cluster: &SimCluster,
        node: &NodeView,
        gone: &[Arc<PodView>],
    ) -> Result<(), NodeRefusal> {
        // The sums are those of the index without the pods that are thought gone, so that preemption tries the same
        // checks.
        let none = ResourceAmounts::new();
        let load = cluster.store.index.load.get(&node.name);
        let sum = |of: fn(&PodView) -> i64| gone.iter().map(|p| of(p)).sum::<i64>();
        let (mut reasons, mut room) = (Vec::new(), true);
        let pods = load.map_or(0, |l| l.pods) - gone.len() as i64;
        if pods + 1 > node.pods {
            reasons.push("Too many pods".to_owned());
        }
        // All resources that are short are told, not only the first.
        let mut check = |name: &str, asked: i64, used: i64, all: i64| {
            if asked > 0 && used + asked > all {
                reasons.push(format!("Insufficient {name}"));
                // What the whole node does not have nobody can leave; the scheduler says so since 1.34 (K8S-SCHED-6).
                room &= asked <= all || cluster.version < UNRESOLVABLE_SINCE;
            }
        };
        let used = load.map_or(0, |l| l.cpu) - sum(|p| p.cpu);
        check("cpu", self.pod.cpu, used, node.cpu);
        let used = load.map_or(0, |l| l.memory) - sum(|p| p.memory);
        check("memory", self.pod.memory, used, node.memory);
        let of = |amounts: &ResourceAmounts, name: &str| amounts.get(name).copied().unwrap_or(0);
        let taken = load.map_or(&none, |l| &l.others);
        // Resources beside CPU and memory are compared only where the pod asks for them.
        for (name, asked) in &self.pod.others {
            let left: i64 = gone.iter().map(|p| of(&p.others, name)).sum();
            check(name, *asked, of(taken, name) - left, of(&node.others, name));
        }
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(NodeRefusal { reasons, room })
        }
    }

    fn is_port_taken(&self, cluster: &SimCluster, node: &NodeView, gone: &[Arc<PodView>]) -> bool {
        if self.pod.host_ports.is_empty() {
            return false;
        }
        let pods = cluster.store.pods_on(&node.name);
        let stays = |p: &&Arc<PodView>| !p.is_finished() && !gone.iter().any(|g| g.uid == p.uid);
        pods.iter().filter(stays).any(|p| {
            let mut ports = p.host_ports.iter();
            ports.any(|port| self.pod.host_ports.iter().any(|o| o.conflicts_with(port)))
        })
    }
}
