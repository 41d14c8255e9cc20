//! Replica sets: as many pods as asked for.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::KubeEvent;
use super::super::cluster::SimCluster;
use super::super::json::{find_condition, list_at_mut, number_at, set_at, text_at, value_at};
use super::super::kinds::{PODS, REPLICA_SETS};
use super::super::store::{ObjectKey, ObjectName};
use super::super::typed_views::PodView;
use super::{ControllerWork, pods};

/// Creates or deletes what is missing or too much, and counts.
pub fn reconcile(cluster: &mut SimCluster, name: &ObjectName) {
    let Some(set_) = cluster.store.find_object(REPLICA_SETS, name).cloned() else {
        return;
    };
    let uid = text_at(&set_, "metadata.uid").to_owned();
    let wanted = number_at(&set_, "spec.replicas").unwrap_or(1);
    let all = cluster.store.pods_of(&uid);
    // Pods that are being deleted do not count as active, so the replacement is made at once and beside them.
    let active: Vec<Arc<PodView>> = all.iter().filter(|p| p.is_active()).cloned().collect();
    let mut refusal = None;
    if value_at(&set_, "metadata.deletionTimestamp").is_none() {
        let missing = wanted - active.len() as i64;
        // One refusal stops this round: its siblings would be refused for the same reason. The work is queued again.
        for _ in 0..missing.max(0) {
            let mut pod = pods::pod_from_template(&set_);
            set_at(&mut pod, "metadata.generateName", format!("{}-", name.name));
            let owner = ControllerWork::ReplicaSet(name.clone());
            if let Err(why) = pods::create_pod(cluster, pod, owner) {
                refusal = Some(why);
                break;
            }
        }
        if missing < 0 {
            for pod in sort_for_deletion(cluster, &active, &uid)
                .into_iter()
                .take((-missing) as usize)
            {
                pods::delete_pod(cluster, &pod);
            }
        }
    }
    // The refusal is told until one attempt is not refused (K8S-ADM-5).
    let conditions = failure_conditions(cluster, &set_, refusal);
    update_status(cluster, name, &set_, &uid, conditions);
}

/// The pods in the order in which they may go: those that serve least first, doubled-up ones before lone ones, young
/// before old.
fn sort_for_deletion(
    cluster: &SimCluster,
    active: &[Arc<PodView>],
    uid: &str,
) -> Vec<Arc<PodView>> {
    let mut order = active.to_vec();
    let together = |pod: &PodView| {
        cluster
            .store
            .index
            .load
            .get(&pod.node)
            .and_then(|l| l.by_owner.get(uid))
            .copied()
            .unwrap_or(0)
    };
    let born = |pod: &PodView| {
        let object = cluster
            .store
            .find_object(PODS, &ObjectName::new(pod.ns.clone(), pod.name.clone()));
        object
            .map(|o| text_at(o, "metadata.creationTimestamp").to_owned())
            .unwrap_or_default()
    };
    // The order is the real controller's: unbound, pending and not ready pods first, then those on a node with more
    // siblings, then the youngest.
    order.sort_by_cached_key(|p| {
        (
            !p.node.is_empty(),
            p.phase != "Pending",
            p.ready,
            Reverse(together(p)),
            Reverse(born(p)),
        )
    });
    order
}

/// The conditions with ReplicaFailure, which stands with its first words for as long as pods are refused (K8S-ADM-5); none
/// where there never was one.
fn failure_conditions(
    cluster: &SimCluster,
    set_: &Value,
    refusal: Option<String>,
) -> Option<Value> {
    let mut after = set_.clone();
    match (refusal, find_condition(set_, "ReplicaFailure")) {
        (None, None) => return None,
        // An attempt that was not refused takes the condition away.
        (None, Some(_)) => {
            list_at_mut(&mut after, "status.conditions")
                .retain(|c| text_at(c, "type") != "ReplicaFailure");
        }
        // The first message stands for as long as pods are refused, though a later one may have another reason.
        (Some(_), Some(_)) => {}
        (Some(why), None) => {
            let condition = json!({
                "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": why,
                "lastTransitionTime": cluster.timestamp_text(),
            });
            list_at_mut(&mut after, "status.conditions").push(condition);
        }
    }
    value_at(&after, "status.conditions").cloned()
}

fn update_status(
    cluster: &mut SimCluster,
    name: &ObjectName,
    set_: &Value,
    uid: &str,
    conditions: Option<Value>,
) {
    let min_ready = number_at(set_, "spec.minReadySeconds").unwrap_or(0);
    let all = cluster.store.pods_of(uid);
    let active: Vec<_> = all.iter().filter(|p| p.is_active()).collect();
    // A pod that is not available yet changes by time alone, so the set is looked at again when its time is over.
    let mut available = 0;
    let mut look_again = None;
    for pod in &active {
        match pods::is_available(cluster, pod, min_ready) {
            Ok(yes) => available += i64::from(yes),
            Err(wait) => look_again = look_again.max(Some(wait)),
        }
    }
    if let Some(wait) = look_again.and_then(|w| Duration::try_from(w).ok()) {
        cluster.schedule_after(
            wait,
            KubeEvent::RepeatWork(ControllerWork::ReplicaSet(name.clone())),
        );
    }
    // Terminating pods have a count of their own and are in no other.
    let ready = active.iter().filter(|p| p.ready).count();
    let going = all
        .iter()
        .filter(|p| p.deleting && !p.is_finished())
        .count();
    let generation = number_at(set_, "metadata.generation").unwrap_or(1);
    let mut status = vec![
        ("replicas", json!(active.len())),
        ("fullyLabeledReplicas", json!(active.len())),
        ("readyReplicas", json!(ready)),
        ("availableReplicas", json!(available)),
        ("terminatingReplicas", json!(going)),
        ("observedGeneration", json!(generation)),
    ];
    status.extend(conditions.map(|all| ("conditions", all)));
    cluster.write_status(
        &ObjectKey {
            res: REPLICA_SETS,
            at: name.clone(),
        },
        &status,
    );
}
