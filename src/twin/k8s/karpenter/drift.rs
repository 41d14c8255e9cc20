//! What of a node claim is no longer as its pool and class want it (KARP-9), and whether it may be consolidated.

use jiff::Timestamp;
use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{
    find_annotation, find_condition, list_at, text_at, text_map_at, value_at,
};
use super::conditions::{is_true, since};
use super::objects::{self, AUTO_GROUP, EC2_GROUP, pool_of};
use super::{hashes, lifecycle, offers, requirements};
use crate::twin::aws::pool_instances;

/// Writes the conditions Drifted and Consolidatable of a node claim.
pub fn reconcile(cluster: &mut SimCluster, name: &str) {
    let Some(claim) = objects::find_claim(cluster, name) else {
        return;
    };
    let Some(pool) = objects::find_pool(cluster, pool_of(&claim)) else {
        return;
    };
    if objects::is_deleting(&claim) {
        return;
    }
    let drifted = match is_true(&claim, "Launched") {
        true => drift_reason(cluster, &pool, &claim),
        false => Ok(None),
    };
    let consolidatable = is_consolidatable(cluster, &claim);
    // Most of the time nothing is new.
    let shown = find_condition(&claim, "Drifted").map(|c| text_at(c, "reason"));
    let same_drift = drifted.as_ref().map_or(true, |reason| *reason == shown);
    if same_drift && consolidatable == is_true(&claim, "Consolidatable") {
        return;
    }
    lifecycle::set_conditions(cluster, name, |c| {
        match drifted {
            Ok(Some(reason)) => c.set("Drifted", "True", reason, reason),
            Ok(None) => c.clear("Drifted"),
            // What cannot be told stays as it is.
            Err(()) => {}
        }
        if consolidatable {
            c.set_true("Consolidatable");
        } else {
            c.clear("Consolidatable");
        }
    });
}

fn drift_reason(
    cluster: &SimCluster,
    pool: &Value,
    claim: &Value,
) -> Result<Option<&'static str>, ()> {
    if differs(pool, claim, hashes::POOL_HASH, hashes::POOL_HASH_VERSION) {
        return Ok(Some("NodePoolDrifted"));
    }
    let labels = text_map_at(claim, "metadata.labels");
    let asked = list_at(pool, "spec.template.spec.requirements");
    if !requirements::all_met(&labels, asked) {
        return Ok(Some("RequirementsDrifted"));
    }
    let reference = value_at(pool, "spec.template.spec.nodeClassRef");
    let Some((_, class)) = objects::find_class(cluster, reference) else {
        return Ok(None);
    };
    if objects::is_deleting(&class) {
        return Ok(None);
    }
    let (group, kind) = (
        reference.map_or("", |r| text_at(r, "group")),
        reference.map_or("", |r| text_at(r, "kind")),
    );
    if group == AUTO_GROUP {
        let arm = labels
            .get("kubernetes.io/arch")
            .is_some_and(|a| a == "arm64");
        let wanted = cluster.pools.session.auto_images.get(&arm);
        let image = text_at(claim, "status.imageID");
        let drifted = wanted.is_some_and(|wanted| wanted != image) && !image.is_empty();
        return Ok(drifted.then_some("AMIDrift"));
    }
    if group != EC2_GROUP {
        return Ok(None);
    }
    let own = hashes::class_annotation(group, kind, false);
    let version = hashes::class_annotation(group, kind, true);
    if differs(&class, claim, &own, &version) {
        return Ok(Some("NodeClassDrift"));
    }
    let images = list_at(&class, "status.amis");
    let image = text_at(claim, "status.imageID");
    if images.is_empty() || image.is_empty() {
        return Err(());
    }
    let instance_type = labels.get("node.kubernetes.io/instance-type").cloned();
    let offered = pool_instances::describe_type(instance_type.unwrap_or_default());
    let wanted = offers::image_for(&offered, images).map(|i| text_at(i, "id"));
    if wanted != Some(image) {
        return Ok(Some("AMIDrift"));
    }
    let zones = offers::zones_of(&class, &[]);
    let zone = labels.get("topology.kubernetes.io/zone");
    if zones.is_empty() {
        return Err(());
    }
    if zone.is_some_and(|z| !zones.contains_key(z)) {
        return Ok(Some("SubnetDrift"));
    }
    Ok(None)
}

/// Whether two objects have a hash of the same version, and not the same.
fn differs(owner: &Value, claim: &Value, hash: &str, version: &str) -> bool {
    let [mine, its] =
        [owner, claim].map(|o| (find_annotation(o, hash), find_annotation(o, version)));
    match (mine, its) {
        ((Some(mine), Some(my_version)), (Some(its), Some(its_version))) => {
            my_version == its_version && mine != its
        }
        _ => false,
    }
}

/// Whether no pod has come or gone for as long as the pool waits.
fn is_consolidatable(cluster: &SimCluster, claim: &Value) -> bool {
    let Some(wait) = lifecycle::consolidate_after(cluster, claim) else {
        return false;
    };
    if !is_true(claim, "Initialized") {
        return false;
    }
    let last: Option<Timestamp> = text_at(claim, "status.lastPodEventTime").parse().ok();
    let from = last.or_else(|| since(claim, "Initialized"));
    from.is_some_and(|from| cluster.now.duration_since(from) >= wait)
}
