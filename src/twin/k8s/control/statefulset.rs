//! Stateful sets: pods with names, one after the other; the old one is gone before the new one comes (K8S-POD-1).

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{list_at, list_at_mut, number_at, set_at, text_at, value_at};
use super::super::kinds::{CLAIMS, STATEFUL_SETS};
use super::super::store::{ObjectKey, ObjectName};
use super::super::typed_views::PodView;
use super::{ControllerWork, pods, rollout};

/// Takes the next step, and counts.
pub fn reconcile(cluster: &mut SimCluster, name: &ObjectName) {
    let Some(set_) = cluster.store.find_object(STATEFUL_SETS, name).cloned() else {
        return;
    };
    let uid = text_at(&set_, "metadata.uid").to_owned();
    // Seeded revisions carry the set's name, new ones get it.
    let hash = rollout::current_revision(cluster, &set_);
    let revision = if hash.starts_with(&format!("{}-", name.name)) {
        hash
    } else {
        format!("{}-{hash}", name.name)
    };
    if value_at(&set_, "metadata.deletionTimestamp").is_none() {
        take_step(cluster, name, &set_, &uid, &revision);
    }
    update_status(cluster, name, &set_, &uid, &revision);
}

/// The set's pods by number.
fn pods_by_ordinal(cluster: &SimCluster, set_name: &str, uid: &str) -> Vec<(i64, Arc<PodView>)> {
    let number_of = |p: &PodView| {
        p.name
            .strip_prefix(set_name)?
            .strip_prefix('-')?
            .parse::<i64>()
            .ok()
    };
    let mut all: Vec<_> = cluster
        .store
        .pods_of(uid)
        .into_iter()
        .filter_map(|p| Some((number_of(&p)?, p)))
        .collect();
    all.sort_by_key(|(n, _)| *n);
    all
}

fn take_step(cluster: &mut SimCluster, name: &ObjectName, set_: &Value, uid: &str, revision: &str) {
    let replicas = number_at(set_, "spec.replicas").unwrap_or(1);
    let first = number_at(set_, "spec.ordinals.start").unwrap_or(0);
    let parallel = text_at(set_, "spec.podManagementPolicy") == "Parallel";
    let all = pods_by_ordinal(cluster, &name.name, uid);
    let find = |n: i64| all.iter().find(|(m, _)| *m == n).map(|(_, p)| p);
    // Pods are made in the order of their ordinals; each must be Ready before the next one, unless the policy is
    // Parallel.
    for n in first..first + replicas {
        match find(n) {
            None => {
                create_pod(cluster, name, set_, n, revision);
                if !parallel {
                    return;
                }
            }
            // A pod that has ended is deleted first, because its name is taken until then (K8S-POD-1).
            Some(pod) if pod.is_finished() && !pod.deleting => {
                pods::delete_pod(cluster, pod);
                return;
            }
            Some(pod) if !parallel && (pod.deleting || !pod.ready) => {
                // An old pod that never gets ready is not waited for when a new template has come.
                if !pod.deleting && is_pod_stuck(set_, pod, revision) {
                    pods::delete_pod(cluster, pod);
                }
                return;
            }
            Some(_) => {}
        }
    }
    // Pods beyond the number go from the highest ordinal down, one at a time.
    for (_, pod) in all
        .iter()
        .rev()
        .filter(|(n, _)| *n >= first + replicas || *n < first)
    {
        if !pod.deleting {
            pods::delete_pod(cluster, pod);
        }
        if !parallel {
            return;
        }
    }
    // With OnDelete an old pod stays until somebody deletes it, as a drain does.
    if text_at(set_, "spec.updateStrategy.type") == "OnDelete" {
        return;
    }
    let partition = number_at(set_, "spec.updateStrategy.rollingUpdate.partition").unwrap_or(0);
    // An update takes pods from the highest ordinal down, and waits until each is Ready again. It deletes pods and
    // asks no budget.
    for (n, pod) in all.iter().rev() {
        if *n < partition {
            return;
        }
        if !is_at_revision(pod, revision) {
            if !pod.deleting {
                pods::delete_pod(cluster, pod);
            }
            return;
        }
        if pod.deleting || !pod.ready {
            return;
        }
    }
}

fn is_at_revision(pod: &PodView, revision: &str) -> bool {
    pod.labels
        .get("controller-revision-hash")
        .is_some_and(|r| r == revision)
}

fn is_pod_stuck(set_: &Value, pod: &PodView, revision: &str) -> bool {
    text_at(set_, "spec.updateStrategy.type") != "OnDelete"
        && pod.phase == "Pending"
        && !is_at_revision(pod, revision)
}

fn create_pod(cluster: &mut SimCluster, name: &ObjectName, set_: &Value, n: i64, revision: &str) {
    let pod_name = format!("{}-{n}", name.name);
    let mut pod = pods::pod_from_template(set_);
    set_at(&mut pod, "metadata.name", pod_name.clone());
    set_at(&mut pod, "metadata.generateName", format!("{}-", name.name));
    pods::set_label(&mut pod, "controller-revision-hash", revision);
    // The labels let a Service or a budget select one single pod.
    pods::set_label(&mut pod, "statefulset.kubernetes.io/pod-name", &pod_name);
    pods::set_label(&mut pod, "apps.kubernetes.io/pod-index", &n.to_string());
    // The hostname and the subdomain together are the stable name that peers find each other by.
    set_at(&mut pod, "spec.hostname", pod_name.clone());
    set_at(
        &mut pod,
        "spec.subdomain",
        text_at(set_, "spec.serviceName"),
    );
    // A claim outlives its pod: the one of this ordinal is used again, with the volume that it is bound to.
    for template in list_at(set_, "spec.volumeClaimTemplates") {
        let volume = text_at(template, "metadata.name");
        let claim = format!("{volume}-{pod_name}");
        let volumes = list_at_mut(&mut pod, "spec.volumes");
        volumes.retain(|v| text_at(v, "name") != volume);
        volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}));
        let key = ObjectName::new(name.ns.clone(), claim.clone());
        if cluster.store.find_object(CLAIMS, &key).is_none() {
            let labels = value_at(set_, "spec.selector.matchLabels")
                .cloned()
                .unwrap_or_default();
            let object = json!({
                "metadata": {"name": claim, "namespace": name.ns, "labels": labels},
                "spec": template.get("spec").cloned().unwrap_or_default(),
            });
            // It has just been looked for.
            let _ = cluster.create_object(CLAIMS, object, false);
        }
    }
    // It looks again.
    let _ = pods::create_pod(cluster, pod, ControllerWork::StatefulSet(name.clone()));
}

fn update_status(
    cluster: &mut SimCluster,
    name: &ObjectName,
    set_: &Value,
    uid: &str,
    revision: &str,
) {
    let all = pods_by_ordinal(cluster, &name.name, uid);
    let replicas = number_at(set_, "spec.replicas").unwrap_or(1);
    let there = all.iter().filter(|(_, p)| !p.is_finished()).count();
    // A pod that is being deleted may still be Ready, but serves no longer as far as the set is concerned.
    let ready = all.iter().filter(|(_, p)| p.ready && !p.deleting).count();
    let updated = all
        .iter()
        .filter(|(_, p)| p.is_active() && is_at_revision(p, revision))
        .count();
    // The current revision follows only when every pod has been replaced and is Ready.
    let done = updated as i64 == replicas && ready as i64 == replicas;
    let before = text_at(set_, "status.currentRevision").to_owned();
    let current = if done || before.is_empty() {
        revision.to_owned()
    } else {
        before
    };
    let at_current = all
        .iter()
        .filter(|(_, p)| p.is_active() && is_at_revision(p, &current))
        .count();
    let generation = number_at(set_, "metadata.generation").unwrap_or(1);
    let status = [
        ("replicas", json!(there)),
        ("readyReplicas", json!(ready)),
        ("availableReplicas", json!(ready)),
        ("currentReplicas", json!(at_current)),
        ("updatedReplicas", json!(updated)),
        ("currentRevision", json!(current)),
        ("updateRevision", json!(revision)),
        ("observedGeneration", json!(generation)),
    ];
    cluster.write_status(
        &ObjectKey {
            res: STATEFUL_SETS,
            at: name.clone(),
        },
        &status,
    );
}
