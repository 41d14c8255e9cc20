//! Replica sets: as many pods as asked for.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::Due;
use super::super::cluster::Cluster;
use super::super::facts::Pod;
use super::super::json::{at, number, set, text};
use super::super::kinds::{PODS, REPLICA_SETS};
use super::super::store::{Key, Name};
use super::{Work, pods};

/// Creates or deletes what is missing or too much, and counts.
pub fn reconcile(cluster: &mut Cluster, name: &Name) {
    let Some(set_) = cluster.store.find(REPLICA_SETS, name).cloned() else {
        return;
    };
    let uid = text(&set_, "metadata.uid").to_owned();
    let wanted = number(&set_, "spec.replicas").unwrap_or(1);
    let all = cluster.store.pods_of(&uid);
    let active: Vec<Arc<Pod>> = all.iter().filter(|p| p.active()).cloned().collect();
    if at(&set_, "metadata.deletionTimestamp").is_none() {
        let missing = wanted - active.len() as i64;
        for _ in 0..missing.max(0) {
            let mut pod = pods::from_template(&set_);
            set(&mut pod, "metadata.generateName", format!("{}-", name.name));
            if !pods::create(cluster, pod, Work::ReplicaSet(name.clone())) {
                break;
            }
        }
        if missing < 0 {
            for pod in surplus(cluster, &active, &uid)
                .into_iter()
                .take((-missing) as usize)
            {
                pods::delete(cluster, &pod);
            }
        }
    }
    count(cluster, name, &set_, &uid);
}

/// The pods in the order in which they may go: those that serve least first, doubled-up ones before lone ones, young
/// before old.
fn surplus(cluster: &Cluster, active: &[Arc<Pod>], uid: &str) -> Vec<Arc<Pod>> {
    let mut order = active.to_vec();
    let together = |pod: &Pod| {
        cluster
            .store
            .index
            .load
            .get(&pod.node)
            .and_then(|l| l.by_owner.get(uid))
            .copied()
            .unwrap_or(0)
    };
    let born = |pod: &Pod| {
        let object = cluster
            .store
            .find(PODS, &Name::new(pod.ns.clone(), pod.name.clone()));
        object
            .map(|o| text(o, "metadata.creationTimestamp").to_owned())
            .unwrap_or_default()
    };
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

fn count(cluster: &mut Cluster, name: &Name, set_: &Value, uid: &str) {
    let min_ready = number(set_, "spec.minReadySeconds").unwrap_or(0);
    let all = cluster.store.pods_of(uid);
    let active: Vec<_> = all.iter().filter(|p| p.active()).collect();
    let mut available = 0;
    let mut look_again = None;
    for pod in &active {
        match pods::available(cluster, pod, min_ready) {
            Ok(yes) => available += i64::from(yes),
            Err(wait) => look_again = look_again.max(Some(wait)),
        }
    }
    if let Some(wait) = look_again.and_then(|w| Duration::try_from(w).ok()) {
        cluster.later(wait, Due::Again(Work::ReplicaSet(name.clone())));
    }
    let ready = active.iter().filter(|p| p.ready).count();
    let going = all.iter().filter(|p| p.deleting && !p.finished()).count();
    let generation = number(set_, "metadata.generation").unwrap_or(1);
    let status = [
        ("replicas", json!(active.len())),
        ("fullyLabeledReplicas", json!(active.len())),
        ("readyReplicas", json!(ready)),
        ("availableReplicas", json!(available)),
        ("terminatingReplicas", json!(going)),
        ("observedGeneration", json!(generation)),
    ];
    pods::write_status(
        cluster,
        &Key {
            res: REPLICA_SETS,
            at: name.clone(),
        },
        &status,
    );
}
