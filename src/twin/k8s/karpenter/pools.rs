//! The status of node pools: whether their class is Ready, what their nodes amount to, the hash of their template.

use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{find_condition, list_at, number_at, set_at, text_at, value_at};
use super::super::store::ObjectKey;
use super::conditions::{Conditions, POOL_DEPENDENTS};
use super::objects::{self, ActiveProviders, is_deleting, name_of};
use super::plan::usage_of;
use super::{classes, hashes};

/// Looks at all pools.
pub fn reconcile(cluster: &mut SimCluster, active: ActiveProviders, synced: bool) {
    let Some(kinds) = objects::kinds(cluster) else {
        return;
    };
    let nodes = objects::state_nodes(cluster, active);
    for pool in objects::managed_pools(cluster, active) {
        if is_deleting(&pool) {
            continue;
        }
        let key = ObjectKey::new(kinds.pools, "", name_of(&pool));
        let hash = hashes::pool_hash(cluster, &pool);
        hashes::write_annotations(
            cluster,
            &key,
            &[
                (hashes::POOL_HASH, &hash),
                (hashes::POOL_HASH_VERSION, hashes::POOL_VERSION),
            ],
        );
        let reference = value_at(&pool, "spec.template.spec.nodeClassRef");
        let class = objects::find_class(cluster, reference);
        let usage = usage_of(&nodes, name_of(&pool));
        let stamp = cluster.timestamp_text();
        let generation = number_at(&pool, "metadata.generation").unwrap_or(1);
        let seen = |kind: &str| {
            let found = find_condition(&pool, kind);
            found.and_then(|c| number_at(c, "observedGeneration"))
        };
        // A changed pool is not Ready for a moment, until each condition has been looked at again.
        if seen("Ready").is_some_and(|seen| seen != generation) {
            cluster.change_object(&key, |object| {
                let told = "NodeClassReady=True, ValidationSucceeded=True";
                let mut conditions = Conditions::of(object, stamp.clone(), POOL_DEPENDENTS);
                conditions.set("Ready", "Unknown", "ReconcilingDependents", told);
            });
        }
        let of_class = class
            .as_ref()
            .map(|(_, c)| number_at(c, "metadata.generation").unwrap_or(1));
        let class_seen = number_at(&pool, "status.nodeClassObservedGeneration");
        let health_unknown = seen("NodeRegistrationHealthy") != Some(generation)
            || (of_class.is_some() && class_seen != of_class);
        cluster.change_object(&key, |object| {
            let resources = json!({
                "cpu": show_cpu(usage.cpu_millis), "memory": format!("{}Ki", usage.memory >> 10),
                "pods": usage.pods.to_string(), "ephemeral-storage": format!("{}Gi", usage.storage >> 30),
                "nodes": usage.nodes.to_string(),
            });
            // They are counted only while all node claims have their instances (KARP-19).
            if synced {
                set_at(object, "status.resources", zeros_short(resources));
                set_at(object, "status.nodes", usage.nodes);
            }
            if let Some(generation) = of_class {
                set_at(object, "status.nodeClassObservedGeneration", generation);
            }
            let mut conditions = Conditions::of(object, stamp, POOL_DEPENDENTS);
            if health_unknown {
                let why = "object is awaiting reconciliation";
                let reason = "AwaitingReconciliation";
                conditions.set("NodeRegistrationHealthy", "Unknown", reason, why);
            }
            conditions.set_true("ValidationSucceeded");
            match class.as_ref().map(|(_, class)| (is_deleting(class), classes::readiness(class))) {
                None => {
                    let why = "NodeClass not found on cluster";
                    conditions.set("NodeClassReady", "False", "NodeClassNotFound", why);
                }
                Some((true, _)) => {
                    let why = "NodeClass is Terminating";
                    conditions.set("NodeClassReady", "False", "NodeClassTerminating", why);
                }
                Some((false, Ok(()))) => conditions.set_true("NodeClassReady"),
                Some((false, Err(Some((reason, message))))) => {
                    conditions.set("NodeClassReady", "False", &reason, &message);
                }
                Some((false, Err(None))) => {
                    let why = "Node Class Readiness Unknown";
                    conditions.set("NodeClassReady", "False", "NodeClassReadinessUnknown", why);
                }
            }
        });
    }
}

/// A node of a pool has registered: the pool is healthy in this.
pub fn mark_healthy(cluster: &mut SimCluster, claim: &Value) {
    let Some(pool) = objects::find_pool(cluster, objects::pool_of(claim)) else {
        return;
    };
    let uid = text_at(&pool, "metadata.uid");
    let owners = list_at(claim, "metadata.ownerReferences");
    if !owners.iter().any(|o| text_at(o, "uid") == uid) {
        return;
    }
    let Some(kinds) = objects::kinds(cluster) else {
        return;
    };
    let key = ObjectKey::new(kinds.pools, "", name_of(&pool));
    let stamp = cluster.timestamp_text();
    cluster.change_object(&key, |object| {
        let mut conditions = Conditions::of(object, stamp, POOL_DEPENDENTS);
        conditions.set_true("NodeRegistrationHealthy");
    });
}

fn show_cpu(millis: i64) -> String {
    match millis % 1000 {
        0 => (millis / 1000).to_string(),
        _ => format!("{millis}m"),
    }
}

/// The same amounts, where nothing is shown as `0`.
fn zeros_short(mut resources: Value) -> Value {
    for (_, amount) in super::super::json::as_object_mut(&mut resources) {
        let text = amount.as_str().unwrap_or_default();
        if text.trim_end_matches(char::is_alphabetic) == "0" {
            *amount = json!("0");
        }
    }
    resources
}
