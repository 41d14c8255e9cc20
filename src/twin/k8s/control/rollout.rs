//! Revisions of templates, and whether a change of one has reached every pod.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{list_at, list_at_mut, number_at, slot_at, text_at, value_at};
use super::super::kinds::{DAEMON_SETS, DEPLOYMENTS, KindId, STATEFUL_SETS};
use super::super::revisions::Revisions;
use super::super::store::{ObjectKey, ObjectName};
use super::pods::template_hash;

/// The name of a set's current revision.
pub fn current_revision(cluster: &mut SimCluster, set_: &Value) -> String {
    let uid = text_at(set_, "metadata.uid");
    let generation = number_at(set_, "metadata.generation");
    let Revisions { names, last, .. } = &mut cluster.revisions;
    if let Some((of, name)) = last.get(uid)
        && Some(*of) == generation
    {
        return name.clone();
    }
    let hash = template_hash(value_at(set_, "spec.template"));
    let key = (uid.to_owned(), hash.clone());
    let name = names.entry(key).or_insert(hash).clone();
    // Where a snapshot has no generation, nothing counts its changes either.
    if let Some(generation) = generation {
        last.insert(uid.to_owned(), (generation, name.clone()));
    }
    name
}

/// Learns the names of the revisions a snapshot's sets are at.
pub fn learn_revisions(cluster: &mut SimCluster) {
    for res in [DAEMON_SETS, STATEFUL_SETS] {
        let sets: Vec<_> = cluster
            .store
            .objects_of(res, "")
            .map(|(_, o)| o.clone())
            .collect();
        for set_ in sets {
            let uid = text_at(&set_, "metadata.uid").to_owned();
            // A StatefulSet says its revision itself. Of a DaemonSet it is what most pods carry, as one that is being
            // updated has both.
            let named = text_at(&set_, "status.updateRevision").to_owned();
            let named = if named.is_empty() {
                most_common_revision(cluster, &uid)
            } else {
                Some(named)
            };
            if let Some(named) = named {
                // The name is kept by the template's hash, so that a template that returns has its old revision
                // again.
                cluster.revisions.names.insert(
                    (uid, template_hash(value_at(&set_, "spec.template"))),
                    named,
                );
            }
        }
    }
}

/// A daemon set does not say which revision is current: it is the one most of its pods have.
fn most_common_revision(cluster: &SimCluster, uid: &str) -> Option<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for pod in cluster.store.pods_of(uid) {
        if let Some(revision) = pod.labels.get("controller-revision-hash") {
            *counts.entry(revision.clone()).or_default() += 1;
        }
    }
    counts
        .into_iter()
        .max_by_key(|(_, n)| *n)
        .map(|(revision, _)| revision)
}

/// Whether a workload's controller has seen its spec, and every pod of the old template has been replaced by a ready
/// one of the new.
pub fn is_rolled_out(cluster: &SimCluster, res: KindId, name: &ObjectName) -> bool {
    let Some(object) = cluster.store.find_object(res, name) else {
        return false;
    };
    // Numbers of a status that is behind the spec are about the old template.
    let status = |field: &str| number_at(object, &format!("status.{field}")).unwrap_or(0);
    let seen =
        status("observedGeneration") >= number_at(object, "metadata.generation").unwrap_or(0);
    let replicas = number_at(object, "spec.replicas").unwrap_or(1);
    // A pod of the old template that still counts keeps the rollout unfinished; so does a new one that is not
    // available.
    seen && match res {
        DEPLOYMENTS => {
            status("updatedReplicas") >= replicas
                && status("replicas") == status("updatedReplicas")
                && status("availableReplicas") >= replicas
        }
        DAEMON_SETS => {
            let wanted = status("desiredNumberScheduled");
            status("updatedNumberScheduled") >= wanted && status("numberAvailable") >= wanted
        }
        STATEFUL_SETS => {
            status("updatedReplicas") >= replicas && status("readyReplicas") >= replicas
        }
        _ => true,
    }
}

/// Puts an image into a workload's template, as an add-on's update does.
pub fn set_image(cluster: &mut SimCluster, key: &ObjectKey, container: &str, tag: &str) -> bool {
    let mut found = false;
    cluster.change_object(key, |o| {
        for field in ["containers", "initContainers"] {
            if list_at(o, &format!("spec.template.spec.{field}")).is_empty() {
                continue;
            }
            for c in list_at_mut(slot_at(o, "spec.template.spec"), field)
                .iter_mut()
                .filter(|c| text_at(c, "name") == container)
            {
                found = true;
                let image = text_at(c, "image");
                // A registry's port has a colon of its own; a digest goes with the tag it belongs to.
                let plain = image.split('@').next().unwrap_or_default();
                let end = plain
                    .rfind(':')
                    .filter(|colon| *colon > plain.rfind('/').unwrap_or(0))
                    .unwrap_or(plain.len());
                let new = format!("{}:{tag}", &plain[..end]);
                super::super::json::set_at(c, "image", new);
            }
        }
    });
    found
}
