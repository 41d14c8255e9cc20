//! Hashes of the static fields of node pools and classes, by which drift is told (KARP-9). The twin's function is another one
//! than Karpenter's; what a snapshot's annotations say of the present fields is kept.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::cluster::SimCluster;
use super::super::json::{find_annotation, remove_at, set_at, value_at};
use super::super::store::{ObjectKey, StoredObject};

pub const POOL_HASH: &str = "karpenter.sh/nodepool-hash";
pub const POOL_HASH_VERSION: &str = "karpenter.sh/nodepool-hash-version";
/// The versions that Karpenter 1.x writes.
pub const POOL_VERSION: &str = "v3";
pub const CLASS_VERSION: &str = "v6";

/// Members of a class's spec that are no static fields.
const CLASS_DYNAMIC: &[&str] = &[
    "amiFamily",
    "amiSelectorTerms",
    "capacityReservationSelectorTerms",
    "kubelet",
    "securityGroupSelectorTerms",
    "subnetSelectorTerms",
];

/// The annotation with a class's hash, by the class's group and kind.
pub fn class_annotation(group: &str, kind: &str, version: bool) -> String {
    let suffix = if version { "-version" } else { "" };
    format!("{group}/{}-hash{suffix}", kind.to_lowercase())
}

/// The hash of a pool's template, without its requirements.
pub fn pool_hash(cluster: &SimCluster, pool: &Value) -> String {
    let mut fields = value_at(pool, "spec.template").cloned().unwrap_or_default();
    remove_at(&mut fields, "spec.requirements");
    shown_hash(cluster, "NodePool", fields)
}

/// The hash of a class's spec, without its selectors.
pub fn class_hash(cluster: &SimCluster, kind: &str, class: &Value) -> String {
    let mut fields = value_at(class, "spec").cloned().unwrap_or_default();
    for member in CLASS_DYNAMIC {
        remove_at(&mut fields, member);
    }
    shown_hash(cluster, kind, fields)
}

fn shown_hash(cluster: &SimCluster, kind: &str, fields: Value) -> String {
    let own = own_hash(kind, &fields);
    let known = &cluster.pools.known_hashes;
    known.get(&own).cloned().unwrap_or_else(|| number_of(&own))
}

fn own_hash(kind: &str, fields: &Value) -> String {
    let text = json!([kind, fields]).to_string();
    hex::encode(Sha256::digest(text))
}

/// A hash as Karpenter shows one: a number of 64 bits.
fn number_of(hash: &str) -> String {
    let number = u64::from_str_radix(&hash[..16], 16).unwrap_or_default();
    number.to_string()
}

/// Learns which hash a snapshot's object has for its present fields.
pub fn learn_hash(cluster: &mut SimCluster, kind: &str, object: &StoredObject, annotation: &str) {
    let Some(shown) = find_annotation(object, annotation).map(str::to_owned) else {
        return;
    };
    let mut fields = value_at(object, "spec").cloned().unwrap_or_default();
    if kind == "NodePool" {
        fields = value_at(object, "spec.template")
            .cloned()
            .unwrap_or_default();
        remove_at(&mut fields, "spec.requirements");
    } else {
        for member in CLASS_DYNAMIC {
            remove_at(&mut fields, member);
        }
    }
    let own = own_hash(kind, &fields);
    cluster.pools.known_hashes.entry(own).or_insert(shown);
}

/// Writes annotations where they say something new.
pub fn write_annotations(cluster: &mut SimCluster, key: &ObjectKey, notes: &[(&str, &str)]) {
    let Some(object) = cluster.store.get_object(key) else {
        return;
    };
    if notes
        .iter()
        .all(|(name, value)| find_annotation(object, name) == Some(*value))
    {
        return;
    }
    cluster.change_object(key, |o| {
        let mut all = value_at(o, "metadata.annotations")
            .cloned()
            .unwrap_or_else(|| json!({}));
        for (name, value) in notes {
            all[*name] = json!(value);
        }
        set_at(o, "metadata.annotations", all);
    });
}
