//! Pods that fail on green as the plan accepts.
//!
//! The consent is for what was foretold: the container starts on a node of green and does not get well. A pod that is on
//! its way, finds no node or no image, or fails on blue already, is short as any other.

use std::collections::HashMap;

use super::workload_health::{ReadyCounts, workload_of};
use crate::k8s::cache::CacheSnapshot;
use crate::model::kube::Pod;
use crate::route::AcceptedLosses;

/// Counts, by workload, the pods that fail on another node group than the blue ones, in which they worked.
pub fn count_lost(
    snapshot: &CacheSnapshot,
    replica_sets: &HashMap<String, String>,
    losses: &AcceptedLosses,
) -> ReadyCounts {
    let mut counts = ReadyCounts::new();
    if losses.is_empty() {
        return counts;
    }
    let failing = snapshot.pods.values().filter(|p| fails_by_itself(p));
    for pod in failing {
        let Some(name) = workload_of(pod, replica_sets) else {
            continue;
        };
        let node = pod.node.as_ref().and_then(|n| snapshot.nodes.get(n));
        let group = node.and_then(|n| n.nodegroup_name());
        let given_up = losses.get(&name);
        // Where it worked before, on its blue, a failure is no accepted loss.
        if group.is_some_and(|g| given_up.is_some_and(|blue| !blue.contains(g))) {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

/// Whether the pod's containers started, and do not get well.
fn fails_by_itself(pod: &Pod) -> bool {
    let started = pod.phase == "Running" && pod.deletion_timestamp.is_none();
    // Before a container starts its reasons are about images and settings (K8S pkg/kubelet/images, container).
    let waits_to_start = |why: &str| {
        let reason = why.split([':', ' ']).next().unwrap_or_default();
        reason.contains("Image") || reason.contains("Creat") || reason.contains("Initializing")
    };
    started && !pod.ready && !pod.waiting.as_deref().is_some_and(waits_to_start)
}
