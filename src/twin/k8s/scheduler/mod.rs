//! The scheduler: finds a node for each pod, or says of every node why it will not do.

mod fit;
mod pod_affinity;
mod preempt;
mod score;
mod topology_spread;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::cluster::SimCluster;
use super::fargate_state::{PROVISIONING_MILLIS, is_scheduled_by_fargate};
use super::json::{as_object_mut, list_at, set_at, set_condition, slot_at};
use super::kinds::PODS;
pub use super::node_affinity::RequiredNodes;
use super::node_affinity::named_nodes;
use super::store::{ObjectKey, ObjectName};
use super::typed_views::{NodeTaint, NodeView, PodView};
use super::{KubeEvent, volumes};
use crate::model::Minor;
pub use fit::PodConstraints;
use preempt::Preemption;

/// The first minor whose messages name no taint (K8S-SCHED-6).
const TAINT_VALUES_UNTIL: Minor = Minor::new(34);

/// From this many fitting nodes on, no more are looked for; as the real one, which stops early in large clusters.
const ENOUGH_FITTING_NODES: usize = 100;

/// Finds a node for a pod; whether there was one.
pub fn schedule_pod(cluster: &mut SimCluster, name: &ObjectName) {
    let object = cluster.store.find_object(PODS, name);
    if object.is_some_and(|o| is_scheduled_by_fargate(o)) {
        return begin_provisioning(cluster, name);
    }
    try_schedule(cluster, name);
}

/// A pod of Fargate's waits for a node.
fn begin_provisioning(cluster: &mut SimCluster, name: &ObjectName) {
    let Some(pod) = cluster.store.index.pods.get(name) else {
        return;
    };
    let uid = pod.uid.clone();
    let (from, to) = PROVISIONING_MILLIS;
    let wait = cluster.random_delay(from, to);
    cluster.schedule_after(wait, KubeEvent::Fargate(name.clone(), uid));
}

/// Tries again for all pods that have no node, the most important first.
pub fn retry_pending_pods(cluster: &mut SimCluster) {
    // The order is by priority and then by name, so that the same seed gives the same placement.
    let mut waiting: Vec<(i64, ObjectName)> = Vec::new();
    for name in &cluster.store.index.pending {
        let pod = cluster.store.index.pods.get(name);
        let priority = pod.map_or(0, |p| p.priority);
        waiting.push((-priority, name.clone()));
    }
    waiting.sort();
    // Pods of one owner ask for the same: when one finds nothing, neither do its siblings.
    let mut hopeless: BTreeSet<String> = BTreeSet::new();
    for (_, name) in waiting {
        let owner = cluster
            .store
            .index
            .pods
            .get(&name)
            .and_then(|p| p.owner.clone());
        let siblings = owner
            .filter(|o| o.kind == "ReplicaSet" || o.kind == "Job")
            .map(|o| o.uid);
        if siblings.as_ref().is_some_and(|uid| hopeless.contains(uid)) {
            continue;
        }
        if !try_schedule(cluster, &name)
            && let Some(uid) = siblings
        {
            hopeless.insert(uid);
        }
    }
}

fn try_schedule(cluster: &mut SimCluster, name: &ObjectName) -> bool {
    let Some(pod) = cluster.store.index.pods.get(name).cloned() else {
        return true;
    };
    let Some(object) = cluster.store.find_object(PODS, name).cloned() else {
        return true;
    };
    if !pod.node.is_empty() || !pod.is_active() {
        return true;
    }
    // What another scheduler has begun to look at is not looked at here; the pod says nothing about its siblings.
    if is_scheduled_by_fargate(&object) {
        return true;
    }
    // A gated pod is not looked at until its gates are removed, which says nothing about its siblings.
    if !list_at(&object, "spec.schedulingGates").is_empty() {
        let why = "Scheduling is blocked due to non-empty scheduling gates";
        mark_unschedulable(cluster, name, "SchedulingGated", why);
        return true;
    }
    match choose_node(cluster, &object, &pod) {
        Ok(node) => {
            bind_pod(cluster, name, &node);
            true
        }
        // A pod that fits nowhere may make room for itself; where it does, it waits for those pods to end and is
        // tried again then.
        Err(misfit) => {
            let preemption = match PodConstraints::from_pod(cluster, &object, &pod) {
                Ok(ask) => preempt::preempt_pods(cluster, &object, &pod, &ask),
                Err(_) => Preemption::Helpless,
            };
            // The condition carries the message that eksup and `kubectl describe` show.
            mark_unschedulable(
                cluster,
                name,
                "Unschedulable",
                &misfit.to_message(&preemption),
            );
            false
        }
    }
}

/// Why no node will do.
enum Unschedulable {
    NoNodes,
    /// A reason that holds for all nodes.
    Everywhere(usize, String),
    Nodes {
        total: usize,
        reasons: BTreeMap<String, usize>,
        /// Nodes that would do if pods went.
        for_room: usize,
    },
}

/// The best node for a pod, or why none will do.
fn choose_node(
    cluster: &mut SimCluster,
    object: &Value,
    pod: &PodView,
) -> Result<String, Unschedulable> {
    let index = &cluster.store.index;
    let total = index.nodes.len();
    if total == 0 {
        return Err(Unschedulable::NoNodes);
    }
    let ask = PodConstraints::from_pod(cluster, object, pod)
        .map_err(|why| Unschedulable::Everywhere(total, why))?;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut fitting: Vec<Arc<NodeView>> = Vec::new();
    let mut for_room = 0;
    // A pod that names its node by a field is looked at on that node only (K8S-SCHED-1), as DaemonSet pods are.
    let named = named_nodes(object.get("spec").unwrap_or(&Value::Null));
    let nodes: Vec<&Arc<NodeView>> = match &named {
        Some(names) if names.is_empty() => {
            let why = "pod affinity terms conflict".to_owned();
            return Err(Unschedulable::Everywhere(total, why));
        }
        Some(names) => names.iter().filter_map(|n| index.nodes.get(n)).collect(),
        None => index.nodes.values().collect(),
    };
    // The nodes that were not looked at are in the message as well, under the plugin that left them out.
    if nodes.len() < total {
        let why = "node(s) didn't satisfy plugin(s) [NodeAffinity]".to_owned();
        reasons.insert(why, total - nodes.len());
    }
    // On a large cluster the scheduler begins at another node each time and stops when it has found enough.
    let from = if nodes.len() > ENOUGH_FITTING_NODES {
        cluster.rng.usize(..nodes.len())
    } else {
        0
    };
    for node in nodes[from..].iter().chain(&nodes[..from]) {
        match ask.check_fit(cluster, node) {
            Ok(()) => fitting.push((*node).clone()),
            Err(refusal) => {
                for_room += usize::from(refusal.room);
                for reason in refusal.reasons {
                    *reasons.entry(reason).or_default() += 1;
                }
            }
        }
        if fitting.len() >= ENOUGH_FITTING_NODES {
            break;
        }
    }
    // Reasons are counted over all nodes, since the message tells how many nodes have each.
    if fitting.is_empty() {
        return Err(Unschedulable::Nodes {
            total,
            reasons,
            for_room,
        });
    }
    // Among equally good nodes the choice is random, as in the real scheduler.
    let best = score::best_nodes(cluster, &ask, pod, &fitting);
    let pick = if best.len() > 1 {
        cluster.rng.usize(..best.len())
    } else {
        0
    };
    Ok(best[pick].name.clone())
}

impl Unschedulable {
    /// The scheduler's own words.
    fn to_message(&self, preemption: &Preemption) -> String {
        // A reason that holds for all nodes is told without a number in front.
        let (total, told, for_room) = match self {
            Self::NoNodes => return "no nodes available to schedule pods".to_owned(),
            Self::Everywhere(total, why) => (*total, why.clone(), 0),
            Self::Nodes {
                total,
                reasons,
                for_room,
            } => {
                let told = reasons.iter().map(|(reason, n)| format!("{n} {reason}"));
                let mut told: Vec<String> = told.collect();
                told.sort();
                (*total, told.join(", "), *for_room)
            }
        };
        let told = format!("0/{total} nodes are available: {told}.");
        match preemption {
            // The second half of the message tells what preemption came to. It is left out where preemption made
            // room.
            Preemption::Makes => told,
            Preemption::NotEligible(why) => format!("{told} preemption: {why}"),
            Preemption::Helpless => {
                let mut helpless = Vec::new();
                // Nodes where removing pods could have helped are counted apart from the others.
                if for_room > 0 {
                    helpless.push(format!(
                        "{for_room} No preemption victims found for incoming pod"
                    ));
                }
                if total > for_room {
                    helpless.push(format!(
                        "{} Preemption is not helpful for scheduling",
                        total - for_room
                    ));
                }
                helpless.sort();
                let helpless = helpless.join(", ");
                format!("{told} preemption: 0/{total} nodes are available: {helpless}.")
            }
        }
    }
}

/// A taint that keeps a pod with these tolerations off a node.
fn untolerated_taint<'a>(node: &'a NodeView, tolerations: &[Value]) -> Option<&'a NodeTaint> {
    let hard = |t: &&NodeTaint| t.effect == "NoSchedule" || t.effect == "NoExecute";
    let mut taints = node.taints.iter().filter(hard);
    taints.find(|t| t.toleration_for(tolerations).is_none())
}

/// Whether a taint keeps a pod with these tolerations off a node.
fn has_untolerated_taint(node: &NodeView, tolerations: &[Value]) -> bool {
    untolerated_taint(node, tolerations).is_some()
}

fn mark_unschedulable(cluster: &mut SimCluster, name: &ObjectName, reason: &str, why: &str) {
    let stamp = cluster.timestamp_text();
    cluster.change_object(
        &ObjectKey {
            res: PODS,
            at: name.clone(),
        },
        |pod| {
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": reason, "message": why,
                "lastProbeTime": null, "lastTransitionTime": stamp,
            });
            set_condition(pod, condition);
        },
    );
}

/// Binds a pod to a node; a volume that waited for its first consumer is made there.
pub fn bind_pod(cluster: &mut SimCluster, name: &ObjectName, node: &str) {
    let key = ObjectKey {
        res: PODS,
        at: name.clone(),
    };
    let Some(pod) = cluster.store.get_object(&key).cloned() else {
        return;
    };
    // A volume that waits for its first consumer has to exist in the node's zone before the kubelet asks for it.
    volumes::provision_volumes(cluster, &pod, node);
    let labels = cluster
        .store
        .index
        .nodes
        .get(node)
        .map(|n| n.labels.clone())
        .unwrap_or_default();
    // The labels are copied as the node has them at this moment, and stay when the node's change.
    let (stamp, new) = (cluster.timestamp_text(), cluster.version >= Minor::new(35));
    cluster.change_object(&key, |pod| {
        set_at(pod, "spec.nodeName", node);
        if new {
            // Since 1.35 a pod carries the topology of its node.
            for label in ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"] {
                if let Some(value) = labels.get(label) {
                    as_object_mut(slot_at(pod, "metadata.labels")).insert(label.to_owned(), value.clone().into());
                }
            }
        }
        let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": stamp});
        set_condition(pod, condition);
    });
}
