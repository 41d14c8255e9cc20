//! Why a workload lacks a pod: what the pod that takes its place waits for.

use std::collections::HashMap;

use super::workload_health::{ShortWorkload, workload_of};
use crate::k8s::cache::CacheSnapshot;
use crate::model::kube::{NamespacedName, Pod};

/// Why a workload is short that has no pod on its way.
pub(super) const NOTHING_STARTS: &str = "no other pod of it is starting";
/// Longest text of a pod's trouble in a message.
const MAX_REASON_LENGTH: usize = 300;

/// By workload: the pod that is not Ready and tells most.
pub(super) struct StartingPods<'a>(HashMap<String, &'a Pod>);

impl<'a> StartingPods<'a> {
    pub(super) fn find(
        snapshot: &'a CacheSnapshot,
        replica_sets: &HashMap<String, String>,
    ) -> Self {
        // Of several pods the one with a reason, then the one on a node, says most about why the workload is short.
        let tells = |pod: &Pod| (pod.waiting.is_some(), pod.node.is_some());
        let mut pods: HashMap<String, &Pod> = HashMap::new();
        let starting = snapshot.pods.values().map(AsRef::as_ref);
        for pod in starting.filter(|p: &&Pod| !p.ready && p.deletion_timestamp.is_none()) {
            let Some(name) = workload_of(pod, replica_sets) else {
                continue;
            };
            let known = pods.entry(name).or_insert(pod);
            if tells(pod) >= tells(known) {
                *known = pod;
            }
        }
        Self(pods)
    }

    /// The one of a workload.
    pub(super) fn of_workload(&self, name: &str) -> Option<&'a Pod> {
        self.0.get(name).copied()
    }

    /// Says of each workload which of its pods is not Ready, and why.
    pub(super) fn explain_shortages(&self, short: &mut [ShortWorkload]) {
        for workload in short {
            workload.why = match self.of_workload(&workload.name) {
                Some(pod) => format!("pod {}", pod_problem_text(pod)),
                None => NOTHING_STARTS.to_owned(),
            };
        }
    }
}

/// The claim that a starting pod waits for, as far as that can be told from pods alone, and the pod on another node that
/// mounts it.
pub(super) fn volume_holder(
    snapshot: &CacheSnapshot,
    pod: &Pod,
) -> Option<(NamespacedName, String)> {
    if pod.claims.is_empty() {
        return None;
    }
    // A container that has got further waits for something else.
    let attaching = pod
        .waiting
        .as_deref()
        .is_none_or(|w| w == "ContainerCreating");
    // A ReadWriteOnce volume that another node holds keeps a pod in ContainerCreating without any condition that says
    // so (K8S-SCHED-5).
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
