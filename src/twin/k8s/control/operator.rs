//! A stand-in for every operator whose objects own pods directly (StrimziPodSet, CNPG's Cluster and the like), and for the
//! controller of ReplicationControllers: a pod of theirs that is gone is made again, under its own name and with the same
//! spec. What else operators do is known of a few: see `database_roles` and `drain_cleaner`.

use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{as_object_mut, remove_at, set_at, slot_at, text_at, value_at};
use super::super::kinds::PODS;
use super::super::store::{ObjectName, StoredObject};
use super::super::typed_views::OwnerRef;
use super::super::{KubeEvent, admission};
use super::pods::REFUSED_POD_BACKOFF;
use super::{ControllerWork, longhorn};

/// Kinds that are known to make their pods again.
const KNOWN_OWNER_KINDS: &[&str] = &[
    "Cluster",
    "InstanceManager",
    "ReplicationController",
    "StrimziPodSet",
];

/// Labels that a pod gets with its node.
const NODE_LABELS: &[&str] = &[
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// The owner that an operator looks after: the controller, else any (Strimzi's are not marked as controllers).
fn operator_owner(pod: &Value) -> Option<OwnerRef> {
    OwnerRef::controller_of(pod).or_else(|| OwnerRef::first_of(pod))
}

/// Whether an operator brings the owner's pods back.
fn has_operator(cluster: &SimCluster, owner: &OwnerRef) -> bool {
    let kinds = &cluster.store.kinds;
    owner.kind == "ReplicationController"
        || kinds
            .kind_of_object(&owner.api_version, &owner.kind)
            .is_none_or(|res| !kinds.get(res).builtin)
}

/// A pod is gone: its operator will see to it.
pub fn on_pod_gone(cluster: &mut SimCluster, pod: &StoredObject) {
    let Some(owner) = operator_owner(pod) else {
        return;
    };
    let ends = text_at(pod, "spec.restartPolicy") != "Always";
    if (ends && !longhorn::is_instance_manager(pod)) || !has_operator(cluster, &owner) {
        return;
    }
    let name = ObjectName::of_object(pod);
    cluster.operator_pods.insert(name.clone(), pod.clone());
    cluster.queue_work(ControllerWork::Operator(name));
}

/// Operators that were down look again at what they missed.
pub fn resume_operators(cluster: &mut SimCluster) {
    let names: Vec<ObjectName> = cluster.operator_pods.keys().cloned().collect();
    for name in names {
        cluster.queue_work(ControllerWork::Operator(name));
    }
}

/// Makes a pod again, where its owner is still there and its operator works.
pub fn reconcile(cluster: &mut SimCluster, name: &ObjectName) {
    let Some(old) = cluster.operator_pods.get(name).cloned() else {
        return;
    };
    let Some(owner) = operator_owner(&old) else {
        return;
    };
    // An operator that is down makes nothing. The work is kept until it is up again.
    if cluster.operators_down.contains(&owner.kind) || waits_for_node(cluster, &old) {
        return;
    }
    // The pod is forgotten before it is made, so that a second event does not make it twice.
    cluster.operator_pods.remove(name);
    // Of a kind that the snapshot does not have nothing is known; where it is known, an owner that is gone owns nothing.
    let known = cluster
        .store
        .kinds
        .kind_of_object(&owner.api_version, &owner.kind);
    let lives = known.is_none_or(|res| {
        let found = cluster
            .store
            .find_object(res, &ObjectName::new(&*name.ns, &*owner.name));
        found.is_some_and(|o| text_at(o, "metadata.uid") == owner.uid)
    });
    if lives {
        // A name that is taken is what the operator wanted.
        let mut pod = copy_for_recreation(&old);
        // A pod that a quota or another rule refuses is tried again, as an operator would.
        if admission::admit_pod(cluster, &mut pod).is_err() {
            cluster.operator_pods.insert(name.clone(), old);
            let again = KubeEvent::RepeatWork(ControllerWork::Operator(name.clone()));
            cluster.schedule_after(REFUSED_POD_BACKOFF, again);
            return;
        }
        let made = cluster.create_object(PODS, pod, false);
        // The kinds that the twin only guesses at are counted, so that a report can say so.
        if made.is_ok() && !KNOWN_OWNER_KINDS.contains(&owner.kind.as_str()) {
            *cluster.stand_ins.entry(owner.kind).or_default() += 1;
        }
    }
}

/// Whether it is of one node, which is closed or gone (CTL-9).
fn waits_for_node(cluster: &SimCluster, pod: &Value) -> bool {
    let node = cluster.store.index.nodes.get(text_at(pod, "spec.nodeName"));
    longhorn::is_instance_manager(pod) && node.is_none_or(|n| n.unschedulable)
}

fn copy_for_recreation(old: &Value) -> Value {
    let mut pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}});
    for path in [
        "metadata.name",
        "metadata.namespace",
        "metadata.labels",
        "metadata.annotations",
        "metadata.ownerReferences",
        "spec",
    ] {
        if let Some(value) = value_at(old, path) {
            set_at(&mut pod, path, value.clone());
        }
    }
    // The scheduler places the copy; an instance manager is bound to its node by its maker (CTL-9).
    if !longhorn::is_instance_manager(old) {
        remove_at(&mut pod, "spec.nodeName");
    }
    // The request to be rolled has been fulfilled by the deletion.
    if let Some(notes) = pod["metadata"]
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        notes.remove("strimzi.io/manual-rolling-update");
    }
    // Labels that tell of the old node would be wrong on another one.
    let labels = as_object_mut(slot_at(&mut pod, "metadata.labels"));
    labels.retain(|key, _| !NODE_LABELS.contains(&key.as_str()));
    pod
}
