//! A stand-in for every operator whose objects own pods directly (StrimziPodSet, CNPG's Cluster and the like), and for the
//! controller of ReplicationControllers: a pod of theirs that is gone is made again, under its own name and with the same
//! spec. What else operators do is known of a few: see `database_roles` and `drain_cleaner`.

use serde_json::Value;

use super::super::cluster::Cluster;
use super::super::facts::Owner;
use super::super::json::{at, object, set, slot, text, unset};
use super::super::kinds::PODS;
use super::super::store::{Name, Object};
use super::{Work, longhorn};

/// Kinds that are known to make their pods again.
const KNOWN: &[&str] = &[
    "Cluster",
    "InstanceManager",
    "ReplicationController",
    "StrimziPodSet",
];

/// Labels that a pod gets with its node.
const OF_THE_NODE: &[&str] = &[
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// The owner that an operator looks after: the controller, else any (Strimzi's are not marked as controllers).
fn owner_of(pod: &Value) -> Option<Owner> {
    Owner::of(pod).or_else(|| Owner::first(pod))
}

/// Whether an operator brings the owner's pods back.
fn has_operator(cluster: &Cluster, owner: &Owner) -> bool {
    let kinds = &cluster.store.kinds;
    owner.kind == "ReplicationController"
        || kinds
            .of(&owner.api_version, &owner.kind)
            .is_none_or(|res| !kinds.get(res).builtin)
}

/// A pod is gone: its operator will see to it.
pub fn pod_gone(cluster: &mut Cluster, pod: &Object) {
    let Some(owner) = owner_of(pod) else { return };
    let ends = text(pod, "spec.restartPolicy") != "Always";
    if (ends && !longhorn::is_instance_manager(pod)) || !has_operator(cluster, &owner) {
        return;
    }
    let name = Name::of(pod);
    cluster.operator_pods.insert(name.clone(), pod.clone());
    cluster.soon(Work::Operator(name));
}

/// Operators that were down look again at what they missed.
pub fn resume(cluster: &mut Cluster) {
    let names: Vec<Name> = cluster.operator_pods.keys().cloned().collect();
    for name in names {
        cluster.soon(Work::Operator(name));
    }
}

/// Makes a pod again, where its owner is still there and its operator works.
pub fn reconcile(cluster: &mut Cluster, name: &Name) {
    let Some(old) = cluster.operator_pods.get(name).cloned() else {
        return;
    };
    let Some(owner) = owner_of(&old) else { return };
    if cluster.operators_down.contains(&owner.kind) || waits_for_node(cluster, &old) {
        return;
    }
    cluster.operator_pods.remove(name);
    // Of a kind that the snapshot does not have nothing is known; where it is known, an owner that is gone owns nothing.
    let known = cluster.store.kinds.of(&owner.api_version, &owner.kind);
    let lives = known.is_none_or(|res| {
        let found = cluster.store.find(res, &Name::new(&*name.ns, &*owner.name));
        found.is_some_and(|o| text(o, "metadata.uid") == owner.uid)
    });
    if lives {
        // A name that is taken is what the operator wanted.
        let made = cluster.create(PODS, again(&old), false);
        if made.is_ok() && !KNOWN.contains(&owner.kind.as_str()) {
            *cluster.stand_ins.entry(owner.kind).or_default() += 1;
        }
    }
}

/// Whether it is of one node, which is closed or gone (CTL-9).
fn waits_for_node(cluster: &Cluster, pod: &Value) -> bool {
    let node = cluster.store.index.nodes.get(text(pod, "spec.nodeName"));
    longhorn::is_instance_manager(pod) && node.is_none_or(|n| n.unschedulable)
}

fn again(old: &Value) -> Value {
    let mut pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}});
    for path in [
        "metadata.name",
        "metadata.namespace",
        "metadata.labels",
        "metadata.annotations",
        "metadata.ownerReferences",
        "spec",
    ] {
        if let Some(value) = at(old, path) {
            set(&mut pod, path, value.clone());
        }
    }
    if !longhorn::is_instance_manager(old) {
        unset(&mut pod, "spec.nodeName");
    }
    if let Some(notes) = pod["metadata"]
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        notes.remove("strimzi.io/manual-rolling-update");
    }
    let labels = object(slot(&mut pod, "metadata.labels"));
    labels.retain(|key, _| !OF_THE_NODE.contains(&key.as_str()));
    pod
}
