//! Which DaemonSets have to be Ready on green before it is ready itself. Pure.

use crate::k8s::cache::CacheSnapshot;
use crate::model::kube::{Node, Taint, Workload};
use crate::scheduling::{node_affinity, tolerations};

/// DaemonSet pods that belong on green's ready nodes and are not ready there.
pub(super) fn missing_daemon_pods(
    snapshot: &CacheSnapshot,
    nodes: &[std::sync::Arc<Node>],
    sets: &[Workload],
) -> Vec<String> {
    let mut missing = Vec::new();
    for node in nodes.iter().filter(|n| n.is_ready()) {
        let pods = snapshot.pods.on_node(&node.name);
        for set in sets.iter().filter(|s| belongs_on_node(s, node)) {
            let ready = pods
                .iter()
                .any(|p| p.ready && p.owner.as_ref().is_some_and(|o| o.uid == set.uid));
            if !ready {
                missing.push(format!(
                    "DaemonSet {} is not ready on {}",
                    set.key, node.name
                ));
            }
        }
    }
    missing
}

/// Whether the DaemonSet controller puts a pod on the node. What keeps pods off while a node is starting does not last.
fn belongs_on_node(set: &Workload, node: &Node) -> bool {
    let starting = |t: &&Taint| t.key.starts_with("node.kubernetes.io/");
    let lasting: Vec<Taint> = (node.taints.iter().filter(|t| !starting(t)))
        .cloned()
        .collect();
    node_affinity::workload_matches_node(set, &node.name, &node.labels)
        && tolerations::first_untolerated_by_daemon(&lasting, &set.tolerations).is_none()
}
