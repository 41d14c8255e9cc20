//! The life of a node claim: launched, registered, initialized, and what of it has drifted (KARP-10).

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{
    find_annotation, find_condition, list_at, list_at_mut, set_at, text_at, text_map_at, value_at,
};
use super::super::run_in_cluster;
use super::super::store::StoredObject;
use super::conditions::{CLAIM_DEPENDENTS, Conditions, is_true, since, status_of};
use super::objects::{self, ActiveProviders, FINALIZER, is_deleting, name_of, pool_of};
use super::{drift, launch, pools};
use crate::twin::aws::pool_instances;
use crate::twin::world::SimWorld;

/// How long a node claim may take to be launched, and then to register.
const LAUNCH_TIMEOUT: SignedDuration = SignedDuration::from_mins(5);
const REGISTRATION_TIMEOUT: SignedDuration = SignedDuration::from_mins(15);
/// A pod that comes or goes is noted no more often than this.
const POD_EVENT_INTERVAL: SignedDuration = SignedDuration::from_secs(10);

/// Looks at all node claims that are not on their way out.
pub fn reconcile(world: &mut SimWorld, active: ActiveProviders) {
    let claims = run_in_cluster(world, |cluster| objects::managed_claims(cluster, active));
    for claim in claims.iter().filter(|c| !is_deleting(c)) {
        let name = name_of(claim).to_owned();
        run_in_cluster(world, |cluster| add_finalizer(cluster, &name));
        if status_of(claim, "Launched") == "Unknown" {
            launch::launch_claim(world, &name);
        }
        run_in_cluster(world, |cluster| {
            register(cluster, &name);
            initialize(cluster, &name);
            check_deadlines(cluster, &name);
            note_pod_events(cluster, &name);
            drift::reconcile(cluster, &name);
            expire(cluster, &name);
        });
        tag_when_registered(world, &name);
    }
}

/// Changes the conditions of a node claim.
pub fn set_conditions(cluster: &mut SimCluster, name: &str, f: impl FnOnce(&mut Conditions<'_>)) {
    let stamp = cluster.timestamp_text();
    if let Some(key) = objects::claim_key(cluster, name) {
        cluster.change_object(&key, |claim| {
            f(&mut Conditions::of(claim, stamp, CLAIM_DEPENDENTS));
        });
    }
}

/// Deletes a node claim.
pub fn delete_claim(cluster: &mut SimCluster, name: &str) {
    if let Some(key) = objects::claim_key(cluster, name) {
        cluster.delete_object(&key, None);
    }
}

fn add_finalizer(cluster: &mut SimCluster, name: &str) {
    let Some(key) = objects::claim_key(cluster, name) else {
        return;
    };
    let known = cluster.store.get_object(&key);
    if known.is_none_or(|c| {
        objects::has_finalizer(c, FINALIZER) && find_condition(c, "Launched").is_some()
    }) {
        return;
    }
    let stamp = cluster.timestamp_text();
    cluster.change_object(&key, |claim| {
        if !objects::has_finalizer(claim, FINALIZER) {
            list_at_mut(claim, "metadata.finalizers").push(json!(FINALIZER));
        }
        Conditions::of(claim, stamp, CLAIM_DEPENDENTS);
    });
}

/// The node is there: it gets the claim's labels, taints, finalizer and owner, and loses the taint of a node that nobody knows.
fn register(cluster: &mut SimCluster, name: &str) {
    let Some(claim) = objects::find_claim(cluster, name) else {
        return;
    };
    if !is_true(&claim, "Launched") || status_of(&claim, "Registered") != "Unknown" {
        return;
    }
    let Some(node) = objects::node_of_claim(cluster, &claim) else {
        let why = "Node not registered with cluster";
        set_conditions(cluster, name, |c| {
            c.set("Registered", "Unknown", "NodeNotFound", why);
        });
        return;
    };
    let key = objects::node_key(name_of(&node));
    cluster.change_object(&key, |node| {
        sync_node(&claim, node);
        list_at_mut(node, "spec.taints")
            .retain(|t| text_at(t, "key") != objects::UNREGISTERED_TAINT);
        if list_at(node, "spec.taints").is_empty() {
            super::super::json::remove_at(node, "spec.taints");
        }
        node["metadata"]["labels"][objects::REGISTERED_LABEL] = json!("true");
    });
    let node_name = name_of(&node).to_owned();
    if let Some(key) = objects::claim_key(cluster, name) {
        cluster.change_object(&key, |claim| set_at(claim, "status.nodeName", node_name));
    }
    set_conditions(cluster, name, |c| c.set_true("Registered"));
    pools::mark_healthy(cluster, &claim);
}

fn sync_node(claim: &Value, node: &mut Value) {
    if !objects::has_finalizer(node, FINALIZER) {
        list_at_mut(node, "metadata.finalizers").push(json!(FINALIZER));
    }
    let owners = list_at_mut(node, "metadata.ownerReferences");
    if owners.iter().all(|o| text_at(o, "kind") != "NodeClaim") {
        owners.push(json!({
            "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": name_of(claim),
            "uid": text_at(claim, "metadata.uid"), "blockOwnerDeletion": true,
        }));
    }
    for list in ["spec.taints", "spec.startupTaints"] {
        for taint in list_at(claim, list) {
            let same = |t: &Value| t["key"] == taint["key"] && t["effect"] == taint["effect"];
            if !list_at(node, "spec.taints").iter().any(same) {
                list_at_mut(node, "spec.taints").push(taint.clone());
            }
        }
    }
    for (part, own) in [
        ("labels", text_map_at(claim, "metadata.labels")),
        ("annotations", text_map_at(claim, "metadata.annotations")),
    ] {
        for (key, value) in own {
            node["metadata"][part][key] = json!(value);
        }
    }
}

/// The node is Ready, and nothing that goes by itself is left on it.
fn initialize(cluster: &mut SimCluster, name: &str) {
    let Some(claim) = objects::find_claim(cluster, name) else {
        return;
    };
    if !is_true(&claim, "Registered") || status_of(&claim, "Initialized") != "Unknown" {
        return;
    }
    let unknown = |cluster: &mut SimCluster, reason: &str, message: &str| {
        set_conditions(cluster, name, |c| {
            c.set("Initialized", "Unknown", reason, message);
        });
    };
    let Some(node) = objects::node_of_claim(cluster, &claim) else {
        return unknown(cluster, "NodeNotFound", "Node not registered with cluster");
    };
    if !is_true(&node, "Ready") {
        return unknown(cluster, "NodeNotReady", "Node status is NotReady");
    }
    let taints = list_at(&node, "spec.taints");
    let startup = list_at(&claim, "spec.startupTaints");
    let same = |a: &Value, b: &Value| a["key"] == b["key"] && a["effect"] == b["effect"];
    if let Some(taint) = taints.iter().find(|t| startup.iter().any(|s| same(s, t))) {
        let why = format!("StartupTaint \"{}\" still exists", describe_taint(taint));
        return unknown(cluster, "StartupTaintsExist", &why);
    }
    if let Some(taint) = taints
        .iter()
        .find(|t| objects::is_ephemeral(text_at(t, "key")))
    {
        let why = format!(
            "KnownEphemeralTaint \"{}\" still exists",
            describe_taint(taint)
        );
        return unknown(cluster, "KnownEphemeralTaintsExist", &why);
    }
    let room = value_at(&node, "status.allocatable");
    let asked = value_at(&claim, "spec.resources.requests").and_then(Value::as_object);
    let lacks = asked.into_iter().flatten().find(|(resource, amount)| {
        let has = room.and_then(|r| r.get(resource.as_str()));
        super::super::json::quantity_units(Some(amount)) > 0
            && super::super::json::quantity_units(has) == 0
    });
    if let Some((resource, _)) = lacks {
        let why = format!("Resource \"{resource}\" was requested but not registered");
        return unknown(cluster, "ResourceNotRegistered", &why);
    }
    let key = objects::node_key(name_of(&node));
    cluster.change_object(&key, |node| {
        node["metadata"]["labels"][objects::INITIALIZED_LABEL] = json!("true");
    });
    set_conditions(cluster, name, |c| c.set_true("Initialized"));
}

fn describe_taint(taint: &Value) -> String {
    let (key, value, effect) = (
        text_at(taint, "key"),
        text_at(taint, "value"),
        text_at(taint, "effect"),
    );
    match value {
        "" => format!("{key}:{effect}"),
        value => format!("{key}={value}:{effect}"),
    }
}

/// A node claim that is not launched or not registered in time is deleted.
fn check_deadlines(cluster: &mut SimCluster, name: &str) {
    let Some(claim) = objects::find_claim(cluster, name) else {
        return;
    };
    if is_deleting(&claim) || is_true(&claim, "Registered") {
        return;
    }
    let age = |kind: &str| since(&claim, kind).map(|t| cluster.now.duration_since(t));
    let late = match is_true(&claim, "Launched") {
        false => age("Launched").is_some_and(|a| a >= LAUNCH_TIMEOUT),
        true => age("Registered").is_some_and(|a| a >= REGISTRATION_TIMEOUT),
    };
    if late {
        delete_claim(cluster, name);
    }
}

/// Writes when a pod last came to the node or left it.
fn note_pod_events(cluster: &mut SimCluster, name: &str) {
    let Some(claim) = objects::find_claim(cluster, name) else {
        return;
    };
    let node = text_at(&claim, "status.nodeName");
    let Some(at) = cluster.pools.session.pod_events.remove(node) else {
        return;
    };
    let last: Option<Timestamp> = text_at(&claim, "status.lastPodEventTime").parse().ok();
    if last.is_some_and(|last| at.duration_since(last) < POD_EVENT_INTERVAL) {
        return;
    }
    let stamp = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    if let Some(key) = objects::claim_key(cluster, name) {
        cluster.change_object(&key, |c| set_at(c, "status.lastPodEventTime", stamp));
    }
}

/// A node claim that is as old as it may become is deleted, whatever its pods and budgets say (KARP-13).
fn expire(cluster: &mut SimCluster, name: &str) {
    let Some(claim) = objects::find_claim(cluster, name) else {
        return;
    };
    let after = super::super::json::parse_duration(text_at(&claim, "spec.expireAfter"));
    let created: Option<Timestamp> = text_at(&claim, "metadata.creationTimestamp").parse().ok();
    let (Some(after), Some(created)) = (after, created) else {
        return;
    };
    let after = SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
    if !is_deleting(&claim) && cluster.now.duration_since(created) >= after {
        delete_claim(cluster, name);
    }
}

/// A registered node's instance gets its name and the cluster's.
fn tag_when_registered(world: &mut SimWorld, name: &str) {
    const TAGGED: &str = "karpenter.k8s.aws/tagged";
    let Some(claim) = objects::find_claim(&world.kube, name) else {
        return;
    };
    let node = text_at(&claim, "status.nodeName").to_owned();
    if node.is_empty() || find_annotation(&claim, TAGGED) == Some("true") || is_deleting(&claim) {
        return;
    }
    let group = text_at(&claim, "spec.nodeClassRef.group");
    let instance = objects::instance_of_claim(&claim).to_owned();
    if group == objects::EC2_GROUP {
        let cluster_name = pool_instances::cluster_name(world);
        let tags = [
            ("Name", node.as_str()),
            ("karpenter.sh/nodeclaim", name),
            ("eks:eks-cluster-name", &cluster_name),
        ];
        pool_instances::tag_instance(world, &instance, &tags);
    }
    run_in_cluster(world, |cluster| {
        if let Some(key) = objects::claim_key(cluster, name) {
            super::hashes::write_annotations(cluster, &key, &[(TAGGED, "true")]);
        }
    });
}

/// With what a node of a claim registers: what the provider writes into its user data.
pub fn registration_of(claim: &StoredObject, short_hop: bool) -> pool_instances::PoolRegistration {
    let triple = |t: &Value| {
        let text = |key: &str| text_at(t, key).to_owned();
        (text("key"), text("value"), text("effect"))
    };
    let of = |list: &str| list_at(claim, list).iter().map(triple).collect::<Vec<_>>();
    let mut taints = of("spec.taints");
    let startup = of("spec.startupTaints");
    taints.extend(startup.iter().cloned());
    let unregistered = objects::UNREGISTERED_TAINT.to_owned();
    taints.push((unregistered, String::new(), "NoExecute".to_owned()));
    let mut labels: BTreeMap<String, String> = text_map_at(claim, "metadata.labels");
    labels.retain(|key, _| !key.starts_with("topology.") && !key.starts_with("kubernetes.io/"));
    let auto = text_at(claim, "spec.nodeClassRef.group") == objects::AUTO_GROUP;
    if auto {
        labels.insert(
            "eks.amazonaws.com/compute-type".to_owned(),
            "auto".to_owned(),
        );
    }
    pool_instances::PoolRegistration {
        labels,
        taints,
        startup_taints: startup
            .into_iter()
            .map(|(key, _, effect)| (key, effect))
            .collect(),
        short_hop,
    }
}

/// Whether a claim's pool has consolidation, and for how long after the last pod it waits: None for never.
pub fn consolidate_after(cluster: &SimCluster, claim: &Value) -> Option<SignedDuration> {
    let pool = objects::find_pool(cluster, pool_of(claim))?;
    let text = text_at(&pool, "spec.disruption.consolidateAfter");
    let text = if text.is_empty() { "0s" } else { text };
    let wait = super::super::json::parse_duration(text)?;
    SignedDuration::try_from(wait).ok()
}
