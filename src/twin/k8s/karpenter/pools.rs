//! The status of node pools: whether their class is Ready, what their nodes amount to, the hash of their template.

use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{set_at, value_at};
use super::super::store::ObjectKey;
use super::conditions::{Conditions, POOL_DEPENDENTS};
use super::objects::{self, ActiveProviders, is_deleting, name_of};
use super::plan::pool_usage;
use super::{classes, hashes};

/// Looks at all pools.
pub fn reconcile(cluster: &mut SimCluster, active: ActiveProviders) {
    let Some(kinds) = objects::kinds(cluster) else {
        return;
    };
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
        let usage = pool_usage(cluster, active, name_of(&pool));
        let stamp = cluster.timestamp_text();
        cluster.change_object(&key, |object| {
            let resources = json!({
                "cpu": show_cpu(usage.cpu_millis), "memory": format!("{}Ki", usage.memory >> 10),
                "pods": usage.pods.to_string(), "ephemeral-storage": format!("{}Gi", usage.storage >> 30),
                "nodes": usage.nodes.to_string(),
            });
            set_at(object, "status.resources", zeros_short(resources));
            set_at(object, "status.nodes", usage.nodes);
            let mut conditions = Conditions::of(object, stamp, POOL_DEPENDENTS);
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
