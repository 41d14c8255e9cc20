//! Garbage: what is owned by nothing any more, and namespaces that go.

use std::time::Duration;

use serde_json::Value;

use super::super::Due;
use super::super::cluster::Cluster;
use super::super::json::{list, list_mut, text};
use super::super::kinds::NAMESPACES;
use super::super::store::{Key, Name};
use super::Work;

/// Deletes what the object with `uid`, which is gone, owned alone.
pub fn orphans(cluster: &mut Cluster, uid: &str) {
    let owned: Vec<Key> = cluster.store.owned(uid).cloned().collect();
    for key in owned {
        let Some(object) = cluster.store.get(&key).cloned() else {
            continue;
        };
        let lives = |owner: &&Value| text(owner, "uid") != uid && is_there(cluster, &key, owner);
        if list(&object, "metadata.ownerReferences")
            .iter()
            .any(|o| lives(&o))
        {
            cluster.change(&key, |o| {
                list_mut(o, "metadata.ownerReferences").retain(|r| text(r, "uid") != uid);
            });
        } else {
            cluster.delete(&key, None);
        }
    }
}

fn is_there(cluster: &Cluster, child: &Key, owner: &Value) -> bool {
    let Some(res) = cluster
        .store
        .kinds
        .of(text(owner, "apiVersion"), text(owner, "kind"))
    else {
        return false;
    };
    let ns = if cluster.store.kinds.get(res).namespaced {
        child.at.ns.as_str()
    } else {
        ""
    };
    let found = cluster.store.find(res, &Name::new(ns, text(owner, "name")));
    found.is_some_and(|o| text(o, "metadata.uid") == text(owner, "uid"))
}

/// Empties a namespace that is to go, and lets it go when it is empty.
pub fn namespace(cluster: &mut Cluster, name: &str) {
    let key = Key::new(NAMESPACES, "", name);
    let going = cluster
        .store
        .get(&key)
        .is_some_and(|n| text(n, "status.phase") == "Terminating");
    if !going {
        return;
    }
    let kinds: Vec<_> = cluster
        .store
        .kinds
        .all()
        .filter(|(_, k)| k.namespaced)
        .map(|(res, _)| res)
        .collect();
    let mut left = false;
    for res in kinds {
        let names: Vec<Name> = cluster
            .store
            .all(res, name)
            .map(|(n, _)| n.clone())
            .collect();
        for at in names {
            let key = Key { res, at };
            cluster.delete(&key, None);
            left |= cluster.store.get(&key).is_some();
        }
    }
    if left {
        cluster.later(
            Duration::from_secs(1),
            Due::Again(Work::Namespace(name.to_owned())),
        );
    } else {
        cluster.store.take(&key);
    }
}
