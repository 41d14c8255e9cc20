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

use super::super::KubeEvent;
use super::super::cluster::SimCluster;
use super::super::json::{find_label, text_at};
use super::super::kinds::{ATTACHMENTS, BUDGETS, PODS, VOLUMES};
use super::super::store::{ObjectKey, ObjectName};
use super::super::typed_views::PodView;
use super::ControllerWork;

/// How long its manager takes to see that a node was closed or opened.
const NOTICE: Duration = Duration::from_secs(5);
/// When it looks again while something holds the budget.
const RETRY: Duration = Duration::from_secs(30);
/// The driver of its volumes.
const DRIVER: &str = "driver.longhorn.io";

/// Whether a pod is an instance manager.
pub fn is_instance_manager(pod: &Value) -> bool {
    find_label(pod, "longhorn.io/component") == Some("instance-manager")
}

fn managers_on(cluster: &SimCluster, node: &str) -> Vec<Arc<PodView>> {
    let of_longhorn = |p: &Arc<PodView>| {
        let component = p.labels.get("longhorn.io/component");
        component.is_some_and(|c| c == "instance-manager") && !p.is_finished()
    };
    let mut pods = cluster.store.pods_on(node);
    pods.retain(of_longhorn);
    pods
}

/// A node was closed or opened: its instance managers are looked at.
pub fn notice(cluster: &mut SimCluster, node: &str) {
    if !managers_on(cluster, node).is_empty() {
        cluster.schedule_after(
            NOTICE,
            KubeEvent::RepeatWork(ControllerWork::Longhorn(node.to_owned())),
        );
    }
}

/// Looks at the budgets of a node's instance managers.
pub fn reconcile(cluster: &mut SimCluster, node: &str) {
    let pods = managers_on(cluster, node);
    if pods.is_empty() || cluster.operators_down.contains("InstanceManager") {
        return;
    }
    // A node that is gone is not closed: its instance manager goes with it.
    let closed = cluster.store.index.nodes.get(node);
    let closed = closed.is_some_and(|n| n.unschedulable);
    for pod in pods {
        let name = ObjectName::new(pod.ns.clone(), pod.name.clone());
        // On an open node a budget that was deleted is made again.
        if !closed {
            if let Some(budget) = cluster.longhorn_budgets.remove(&name) {
                // Somebody may have made one of its name meanwhile.
                let _ = cluster.create_object(BUDGETS, budget, false);
            }
            continue;
        }
        // Without a budget there is nothing to release: the manager can be evicted already.
        let budgets = cluster.store.index.budgets_of(&pod);
        let Some(budget) = budgets.into_iter().next() else {
            continue;
        };
        // An engine that runs here or the last healthy copy of a volume keeps the budget; nothing tells when that
        // changes, so it is looked at again.
        if has_attached(cluster, node) || is_last(cluster, node) {
            cluster.schedule_after(
                RETRY,
                KubeEvent::RepeatWork(ControllerWork::Longhorn(node.to_owned())),
            );
            continue;
        }
        // The spec is kept for when the node is opened again. The object itself is deleted as Longhorn deletes it.
        if let Some(object) = cluster.store.find_object(BUDGETS, &budget).cloned() {
            let again = serde_json::json!({
                "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                "metadata": {"name": budget.name, "namespace": budget.ns},
                "spec": object["spec"],
            });
            cluster.longhorn_budgets.insert(name, again);
            cluster.delete_object(&ObjectKey::new(BUDGETS, budget.ns, budget.name), None);
        }
    }
}

fn is_longhorns(volume: &Value) -> bool {
    text_at(volume, "spec.csi.driver") == DRIVER
}

/// Whether one of its volumes is attached to the node: its engine runs there.
fn has_attached(cluster: &SimCluster, node: &str) -> bool {
    let mut all = cluster.store.objects_of(ATTACHMENTS, "").map(|(_, a)| a);
    all.any(|a| text_at(a, "spec.nodeName") == node && text_at(a, "spec.attacher") == DRIVER)
}

/// Whether there are volumes, and no other node has an instance manager with a budget.
fn is_last(cluster: &SimCluster, node: &str) -> bool {
    let mut volumes = cluster.store.objects_of(VOLUMES, "").map(|(_, v)| v);
    if !volumes.any(|v| is_longhorns(v)) {
        return false;
    }
    let mut pods = cluster.store.objects_of(PODS, "").map(|(_, p)| p);
    !pods.any(|p| {
        let there = text_at(p, "spec.nodeName");
        is_instance_manager(p) && there != node && {
            let others = managers_on(cluster, there);
            others
                .iter()
                .any(|o| !cluster.store.index.budgets_of(o).is_empty())
        }
    })
}
