//! What Longhorn's manager does with its instance managers when a node is closed (CTL-9, node-drain-policy
//! `block-if-contains-last-replica`): it deletes the budget of one whose node has no volume attached any more, where no
//! volume has its last replica there; it makes the budget again when the node is open again, and no pod on a closed node.
//!
//! # Divergence
//!
//! Where replicas are is taken to be on every node with an instance manager: the last of those keeps its budget as long as
//! there are Longhorn volumes. Replicas are not rebuilt, and nodes that join get no instance manager.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::super::Due;
use super::super::cluster::Cluster;
use super::super::facts::Pod;
use super::super::json::{label, text};
use super::super::kinds::{ATTACHMENTS, BUDGETS, PODS, VOLUMES};
use super::super::store::{Key, Name};
use super::Work;

/// How long its manager takes to see that a node was closed or opened.
const NOTICE: Duration = Duration::from_secs(5);
/// When it looks again while something holds the budget.
const RETRY: Duration = Duration::from_secs(30);
/// The driver of its volumes.
const DRIVER: &str = "driver.longhorn.io";

/// Whether a pod is an instance manager.
pub fn is_instance_manager(pod: &Value) -> bool {
    label(pod, "longhorn.io/component") == Some("instance-manager")
}

fn managers_on(cluster: &Cluster, node: &str) -> Vec<Arc<Pod>> {
    let of_longhorn = |p: &Arc<Pod>| {
        let component = p.labels.get("longhorn.io/component");
        component.is_some_and(|c| c == "instance-manager") && !p.finished()
    };
    let mut pods = cluster.store.pods_on(node);
    pods.retain(of_longhorn);
    pods
}

/// A node was closed or opened: its instance managers are looked at.
pub fn notice(cluster: &mut Cluster, node: &str) {
    if !managers_on(cluster, node).is_empty() {
        cluster.later(NOTICE, Due::Again(Work::Longhorn(node.to_owned())));
    }
}

/// Looks at the budgets of a node's instance managers.
pub fn reconcile(cluster: &mut Cluster, node: &str) {
    let pods = managers_on(cluster, node);
    if pods.is_empty() || cluster.operators_down.contains("InstanceManager") {
        return;
    }
    let closed = cluster.store.index.nodes.get(node);
    let closed = closed.is_some_and(|n| n.unschedulable);
    for pod in pods {
        let name = Name::new(pod.ns.clone(), pod.name.clone());
        if !closed {
            if let Some(budget) = cluster.longhorn_budgets.remove(&name) {
                // Somebody may have made one of its name meanwhile.
                let _ = cluster.create(BUDGETS, budget, false);
            }
            continue;
        }
        let budgets = cluster.store.index.budgets_of(&pod);
        let Some(budget) = budgets.into_iter().next() else {
            continue;
        };
        if has_attached(cluster, node) || is_last(cluster, node) {
            cluster.later(RETRY, Due::Again(Work::Longhorn(node.to_owned())));
            continue;
        }
        if let Some(object) = cluster.store.find(BUDGETS, &budget).cloned() {
            let again = serde_json::json!({
                "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                "metadata": {"name": budget.name, "namespace": budget.ns},
                "spec": object["spec"],
            });
            cluster.longhorn_budgets.insert(name, again);
            cluster.delete(&Key::new(BUDGETS, budget.ns, budget.name), None);
        }
    }
}

fn is_longhorns(volume: &Value) -> bool {
    text(volume, "spec.csi.driver") == DRIVER
}

/// Whether one of its volumes is attached to the node: its engine runs there.
fn has_attached(cluster: &Cluster, node: &str) -> bool {
    let mut all = cluster.store.all(ATTACHMENTS, "").map(|(_, a)| a);
    all.any(|a| text(a, "spec.nodeName") == node && text(a, "spec.attacher") == DRIVER)
}

/// Whether there are volumes, and no other node has an instance manager with a budget.
fn is_last(cluster: &Cluster, node: &str) -> bool {
    let mut volumes = cluster.store.all(VOLUMES, "").map(|(_, v)| v);
    if !volumes.any(|v| is_longhorns(v)) {
        return false;
    }
    let mut pods = cluster.store.all(PODS, "").map(|(_, p)| p);
    !pods.any(|p| {
        let there = text(p, "spec.nodeName");
        is_instance_manager(p) && there != node && {
            let others = managers_on(cluster, there);
            others
                .iter()
                .any(|o| !cluster.store.index.budgets_of(o).is_empty())
        }
    })
}
