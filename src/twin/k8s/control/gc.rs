//! Garbage: what is owned by nothing any more, and namespaces that go.

use std::time::Duration;

use serde_json::Value;

use super::super::KubeEvent;
use super::super::cluster::SimCluster;
use super::super::json::{list_at, list_at_mut, text_at};
use super::super::kinds::NAMESPACES;
use super::super::store::{ObjectKey, ObjectName};
use super::ControllerWork;

/// Whether an owner that an object names exists.
#[derive(PartialEq, Eq)]
enum OwnerState {
    There,
    Gone,
    /// Its kind is not known, so nobody can ask for it.
    Unknown,
}

/// Deletes what the object with `uid`, which is gone, owned alone.
pub fn delete_orphans(cluster: &mut SimCluster, uid: &str) {
    let owned: Vec<ObjectKey> = cluster.store.owned_by(uid).cloned().collect();
    for key in owned {
        let Some(object) = cluster.store.get_object(&key).cloned() else {
            continue;
        };
        let others: Vec<OwnerState> = list_at(&object, "metadata.ownerReferences")
            .iter()
            .filter(|owner| text_at(owner, "uid") != uid)
            .map(|owner| find_owner(cluster, &key, owner))
            .collect();
        // An owner that cannot be asked for leaves the object as it is (K8S-GC-1).
        if others.contains(&OwnerState::Unknown) {
            continue;
        }
        // An object with another owner that is still there only loses the reference.
        if others.contains(&OwnerState::There) {
            cluster.change_object(&key, |o| {
                list_at_mut(o, "metadata.ownerReferences").retain(|r| text_at(r, "uid") != uid);
            });
        } else {
            cluster.delete_object(&key, None);
        }
    }
}

fn find_owner(cluster: &SimCluster, child: &ObjectKey, owner: &Value) -> OwnerState {
    let Some(res) = cluster
        .store
        .kinds
        .kind_of_object(text_at(owner, "apiVersion"), text_at(owner, "kind"))
    else {
        return OwnerState::Unknown;
    };
    // An owner is of the same namespace as what it owns, or of none.
    let ns = if cluster.store.kinds.get(res).namespaced {
        child.at.ns.as_str()
    } else {
        ""
    };
    let found = cluster
        .store
        .find_object(res, &ObjectName::new(ns, text_at(owner, "name")));
    if found.is_some_and(|o| text_at(o, "metadata.uid") == text_at(owner, "uid")) {
        OwnerState::There
    } else {
        OwnerState::Gone
    }
}

/// Empties a namespace that is to go, and lets it go when it is empty.
pub fn empty_namespace(cluster: &mut SimCluster, name: &str) {
    let key = ObjectKey::new(NAMESPACES, "", name);
    let going = cluster
        .store
        .get_object(&key)
        .is_some_and(|n| text_at(n, "status.phase") == "Terminating");
    if !going {
        return;
    }
    // The kinds are read from the store, so custom resources are emptied as well.
    let kinds: Vec<_> = cluster
        .store
        .kinds
        .all()
        .filter(|(_, k)| k.namespaced)
        .map(|(res, _)| res)
        .collect();
    // Pods and claims go by their own controllers, which need time; so the namespace is looked at until nothing is
    // left.
    let mut left = false;
    for res in kinds {
        let names: Vec<ObjectName> = cluster
            .store
            .objects_of(res, name)
            .map(|(n, _)| n.clone())
            .collect();
        for at in names {
            let key = ObjectKey { res, at };
            cluster.delete_object(&key, None);
            left |= cluster.store.get_object(&key).is_some();
        }
    }
    // Nothing but this work removes the namespace: its finalizer is the controller's.
    if left {
        cluster.schedule_after(
            Duration::from_secs(1),
            KubeEvent::RepeatWork(ControllerWork::Namespace(name.to_owned())),
        );
    } else {
        cluster.store.remove_object(&key);
    }
}
