//! Which DaemonSets have to be Ready on green before it is ready itself. Pure.

use std::sync::Arc;

use crate::k8s::cache::CacheSnapshot;
use crate::model::kube::{Node, Pod, Taint, Workload};
use crate::scheduling::{node_affinity, tolerations};

/// DaemonSet pods that belong on green's ready nodes and are not ready there.
pub(super) fn missing_daemon_pods(
    snapshot: &CacheSnapshot,
    nodes: &[Arc<Node>],
    sets: &[Workload],
) -> Vec<String> {
    let mut missing = Vec::new();
    for node in nodes.iter().filter(|n| n.is_ready()) {
        let pods = snapshot.pods.on_node(&node.name);
        for set in sets.iter().filter(|s| belongs_on_node(s, node)) {
            let own = |p: &&Arc<Pod>| p.owner.as_ref().is_some_and(|o| o.uid == set.uid);
            // During a rollout two pods of a DaemonSet may be on a node; one that is Ready is enough.
            let why = match pods.iter().filter(own).max_by_key(|p| p.ready) {
                Some(pod) if pod.ready => continue,
                Some(pod) => pod.waiting.as_deref().unwrap_or(&pod.phase),
                // Only events tell why: a DaemonSet has no condition for pods that are refused.
                None => "no pod is there; see its events",
            };
            missing.push(format!(
                "DaemonSet {} is not ready on {} ({why})",
                set.key, node.name
            ));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::pods::PodsByNode;
    use crate::model::kube::Owner;
    use crate::steps::drain::fixtures::{closed_node, shop_workload};
    use crate::steps::evictable::tests::pod;

    #[test]
    fn a_daemon_set_that_is_missing_says_whether_it_has_a_pod_and_what_that_waits_for() {
        let mut node: Node = closed_node("g1", None);
        node.taints.clear();
        let nodes = [Arc::new(node)];
        let set = shop_workload("DaemonSet", "agent", None, 1);
        let said = |waiting: Option<Option<&str>>| {
            let mut pods = PodsByNode::default();
            if let Some(waiting) = waiting {
                let mut own = pod("agent-x", "g1");
                own.ready = false;
                own.waiting = waiting.map(str::to_owned);
                own.phase = "Pending".to_owned();
                own.owner = Some(Owner {
                    uid: set.uid.clone(),
                    ..own.owner.take().unwrap()
                });
                pods.put_pod(Arc::new(own));
            }
            let snapshot = CacheSnapshot {
                pods: Arc::new(pods),
                ..CacheSnapshot::default()
            };
            let missing = missing_daemon_pods(&snapshot, &nodes, std::slice::from_ref(&set));
            let [only] = missing.as_slice() else {
                panic!("{missing:?}")
            };
            let (_, why) = only.split_once(" is not ready on g1 ").unwrap();
            why.to_owned()
        };
        assert_eq!(said(None), "(no pod is there; see its events)");
        assert_eq!(said(Some(None)), "(Pending)");
        assert_eq!(said(Some(Some("ImagePullBackOff"))), "(ImagePullBackOff)");
    }
}
