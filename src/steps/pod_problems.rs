//! Why a workload lacks a pod: what the pod that takes its place waits for.

use std::collections::HashMap;

use super::workload_health::workload_of;
use crate::k8s::cache::CacheSnapshot;
use crate::model::kube::{NamespacedName, Pod};

/// Why a workload is short that has no pod on its way.
pub(super) const NOTHING_STARTS: &str = "no other pod of it is starting";
/// Longest text of a pod's trouble in a message.
const MAX_REASON_LENGTH: usize = 300;

/// The pod of a workload that is not Ready, and why.
pub(super) fn explain_shortage(
    snapshot: &CacheSnapshot,
    replica_sets: &HashMap<String, String>,
    workload: &str,
) -> String {
    match starting_pod(snapshot, replica_sets, workload) {
        Some(pod) => format!("pod {}", pod_problem_text(pod)),
        None => NOTHING_STARTS.to_owned(),
    }
}

/// The pod of a workload that is not Ready and tells most.
fn starting_pod<'a>(
    snapshot: &'a CacheSnapshot,
    replica_sets: &HashMap<String, String>,
    workload: &str,
) -> Option<&'a Pod> {
    let of_workload = (snapshot.pods.values().map(AsRef::as_ref))
        .filter(|p: &&Pod| workload_of(p, replica_sets).as_deref() == Some(workload));
    of_workload
        .filter(|p| !p.ready && p.deletion_timestamp.is_none())
        .max_by_key(|p| (p.waiting.is_some(), p.node.is_some()))
}

/// The claim that the starting pod of a workload waits for, as far as that can be told from pods alone, and the pod on
/// another node that mounts it.
pub(super) fn volume_holder(
    snapshot: &CacheSnapshot,
    replica_sets: &HashMap<String, String>,
    workload: &str,
) -> Option<(NamespacedName, String)> {
    let pod = starting_pod(snapshot, replica_sets, workload)?;
    // A container that has got further waits for something else.
    let attaching = pod
        .waiting
        .as_deref()
        .is_none_or(|w| w == "ContainerCreating");
    let node = pod.node.as_ref().filter(|_| attaching)?;
    let mut holders = snapshot.pods.values().filter(|p| {
        p.key.namespace == pod.key.namespace
            && !p.is_finished()
            && p.node.as_ref().is_some_and(|n| n != node)
    });
    holders.find_map(|holder| {
        let claim = pod.claims.iter().find(|c| holder.claims.contains(c))?;
        let on = holder.node.as_deref().unwrap_or_default();
        let claim = NamespacedName::new(&pod.key.namespace, claim);
        Some((claim, format!("pod {} on {on}", holder.key)))
    })
}

/// A pod that is not Ready, where it is, and why.
pub fn pod_problem_text(pod: &Pod) -> String {
    let node = pod.node.as_deref().unwrap_or("no node");
    let reason = pod.waiting.as_deref().unwrap_or(match pod.phase.as_str() {
        "Running" => "Running, but not Ready",
        phase => phase,
    });
    let reason: String = reason.chars().take(MAX_REASON_LENGTH).collect();
    format!("{} on {node}: {reason}", pod.key)
}
