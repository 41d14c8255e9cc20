//! What keeps Karpenter, or EKS Auto Mode, from replacing a node. Pure.

use crate::k8s::cache::CacheSnapshot;
use crate::model::kube::{Node, Pod};
use crate::model::node_pool::{DO_NOT_DISRUPT, is_node_kept, pod_stay};

/// How many are told.
const MAX_BLOCKERS: usize = 4;

/// What keeps these nodes: annotations of theirs and of their pods, and budgets that allow nothing now.
pub fn find_blockers<'a>(
    snapshot: &CacheSnapshot,
    nodes: impl Iterator<Item = &'a Node>,
) -> Vec<String> {
    let mut found = Vec::new();
    for node in nodes {
        if is_node_kept(&node.annotations) {
            found.push(format!(
                "node {} has the annotation {DO_NOT_DISRUPT}",
                node.name
            ));
            continue;
        }
        for pod in snapshot.pods.on_node(&node.name).iter() {
            if pod.is_finished() || pod.deletion_timestamp.is_some() {
                continue;
            }
            if pod_stay(&pod.annotations).is_some() {
                found.push(format!(
                    "pod {} on {} has the annotation {DO_NOT_DISRUPT}",
                    pod.key, node.name
                ));
            } else if let Some(budget) = find_closed_budget(snapshot, pod) {
                found.push(format!(
                    "PodDisruptionBudget {budget} allows no eviction of {} on {}",
                    pod.key, node.name
                ));
            }
        }
    }
    found.sort();
    found.dedup();
    let more = found.len().saturating_sub(MAX_BLOCKERS);
    found.truncate(MAX_BLOCKERS);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    found
}

fn find_closed_budget(snapshot: &CacheSnapshot, pod: &Pod) -> Option<String> {
    let budget = snapshot.pdbs.values().find(|pdb| {
        pdb.key.namespace == pod.key.namespace
            && (pdb.selector.as_ref()).is_some_and(|s| s.matches(&pod.labels))
            && pdb.allowed <= 0
    });
    budget.map(|pdb| pdb.key.to_string())
}
