//! What fault rules do to node pools, and that somebody fixes it again.

use serde_json::json;

use super::super::json::{remove_at, text_at, value_at};
use super::super::kinds::{DEPLOYMENTS, KindId, PODS, STATEFUL_SETS};
use super::super::pool_notices::wake;
use super::super::run_in_cluster;
use super::super::store::{ObjectKey, ObjectName};
use super::lifecycle::delete_claim;
use super::objects::{self, DO_NOT_DISRUPT, is_deleting, name_of};
use crate::twin::world::SimWorld;

/// Karpenter's controller stops or goes on; whether that changed anything.
pub fn set_stopped(world: &mut SimWorld, stopped: bool) -> bool {
    run_in_cluster(world, |cluster| {
        let there = objects::kinds(cluster).is_some();
        let was = std::mem::replace(&mut cluster.pools.switches.stopped, stopped);
        wake(cluster);
        there && was != stopped
    })
}

/// The subnets of a class are not found any more, or again; whether there is such a class.
pub fn set_class_ready(world: &mut SimWorld, name: &str, ready: bool) -> bool {
    run_in_cluster(world, |cluster| {
        let res = cluster
            .store
            .kinds
            .find_kind(objects::EC2_GROUP, "EC2NodeClass");
        let there = res.is_some_and(|res| objects::find_named(cluster, res, name).is_some());
        let switch = &mut cluster.pools.switches.not_ready_classes;
        if ready {
            switch.remove(name);
        } else {
            switch.insert(name.to_owned());
        }
        wake(cluster);
        there
    })
}

/// No instance can be had for a pool any more, or again; whether there is such a pool.
pub fn set_pool_capacity(world: &mut SimWorld, name: &str, there_is: bool) -> bool {
    run_in_cluster(world, |cluster| {
        let known = objects::find_pool(cluster, name).is_some();
        let switch = &mut cluster.pools.switches.no_capacity;
        if there_is {
            switch.remove(name);
        } else {
            switch.insert(name.to_owned());
        }
        wake(cluster);
        known
    })
}

/// Somebody annotates the running pods of a workload; whether there is such a workload.
pub fn mark_do_not_disrupt(world: &mut SimWorld, ns: &str, name: &str) -> bool {
    run_in_cluster(world, |cluster| {
        let at = ObjectName::new(ns, name);
        if annotate_workload(cluster, &at, true) {
            cluster.pools.switches.undisruptable.insert(at);
            wake(cluster);
            true
        } else {
            false
        }
    })
}

/// Writes the annotation on the running pods of a workload, or takes it off. The template stays, as a change of it would roll
/// the workload out.
fn annotate_workload(
    cluster: &mut super::super::SimCluster,
    at: &ObjectName,
    marked: bool,
) -> bool {
    let kinds: [KindId; 2] = [DEPLOYMENTS, STATEFUL_SETS];
    let found = kinds
        .into_iter()
        .find_map(|res| cluster.store.find_object(res, at).cloned());
    let Some(workload) = found else { return false };
    let selector =
        super::super::selector::LabelSelector::from_spec(value_at(&workload, "spec.selector"));
    for pod in cluster.store.index.selected_pods(&at.ns, &selector) {
        let key = ObjectKey::new(PODS, pod.ns.clone(), pod.name.clone());
        cluster.change_object(&key, |p| {
            let mut notes = p["metadata"]["annotations"].clone();
            if marked {
                notes[DO_NOT_DISRUPT] = json!("true");
            } else if let Some(notes) = notes.as_object_mut() {
                notes.remove(DO_NOT_DISRUPT);
            }
            p["metadata"]["annotations"] = notes;
            if text_at(p, "metadata.annotations").is_empty()
                && p["metadata"]["annotations"]
                    .as_object()
                    .is_none_or(|n| n.is_empty())
            {
                remove_at(p, "metadata.annotations");
            }
        });
    }
    true
}

/// So many of Karpenter's node claims are deleted, as when they expire; whether there were any. None where there are no pools.
pub fn replace_claims(world: &mut SimWorld, number: u32) -> Option<bool> {
    run_in_cluster(world, |cluster| {
        let kinds = objects::kinds(cluster)?;
        let claims = objects::all_of(cluster, kinds.claims);
        let names: Vec<String> = claims
            .iter()
            .filter(|c| !is_deleting(c))
            .take(number as usize)
            .map(|c| name_of(c).to_owned())
            .collect();
        for name in &names {
            delete_claim(cluster, name);
        }
        Some(!names.is_empty())
    })
}

/// Somebody fixes what fault rules have switched.
pub fn restore_pools(world: &mut SimWorld) {
    run_in_cluster(world, |cluster| {
        let switches = std::mem::take(&mut cluster.pools.switches);
        for at in &switches.undisruptable {
            annotate_workload(cluster, at, false);
        }
        wake(cluster);
    });
}
