//! Stateful sets: pods with names, one after the other; the old one is gone before the new one comes (K8S-POD-1).

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::facts::Pod;
use super::super::json::{at, list, list_mut, number, set, text};
use super::super::kinds::{CLAIMS, STATEFUL_SETS};
use super::super::store::{Key, Name};
use super::{Work, pods, rollout};

/// Takes the next step, and counts.
pub fn reconcile(cluster: &mut Cluster, name: &Name) {
    let Some(set_) = cluster.store.find(STATEFUL_SETS, name).cloned() else {
        return;
    };
    let uid = text(&set_, "metadata.uid").to_owned();
    // Seeded revisions carry the set's name, new ones get it.
    let hash = rollout::revision(cluster, &set_);
    let revision = if hash.starts_with(&format!("{}-", name.name)) {
        hash
    } else {
        format!("{}-{hash}", name.name)
    };
    if at(&set_, "metadata.deletionTimestamp").is_none() {
        step(cluster, name, &set_, &uid, &revision);
    }
    count(cluster, name, &set_, &uid, &revision);
}

/// The set's pods by number.
fn numbered(cluster: &Cluster, set_name: &str, uid: &str) -> Vec<(i64, Arc<Pod>)> {
    let number_of = |p: &Pod| {
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

fn step(cluster: &mut Cluster, name: &Name, set_: &Value, uid: &str, revision: &str) {
    let replicas = number(set_, "spec.replicas").unwrap_or(1);
    let first = number(set_, "spec.ordinals.start").unwrap_or(0);
    let parallel = text(set_, "spec.podManagementPolicy") == "Parallel";
    let all = numbered(cluster, &name.name, uid);
    let find = |n: i64| all.iter().find(|(m, _)| *m == n).map(|(_, p)| p);
    for n in first..first + replicas {
        match find(n) {
            None => {
                create(cluster, name, set_, n, revision);
                if !parallel {
                    return;
                }
            }
            Some(pod) if pod.finished() && !pod.deleting => {
                pods::delete(cluster, pod);
                return;
            }
            Some(pod) if !parallel && (pod.deleting || !pod.ready) => {
                // An old pod that never gets ready is not waited for when a new template has come.
                if !pod.deleting && is_stuck(set_, pod, revision) {
                    pods::delete(cluster, pod);
                }
                return;
            }
            Some(_) => {}
        }
    }
    for (_, pod) in all
        .iter()
        .rev()
        .filter(|(n, _)| *n >= first + replicas || *n < first)
    {
        if !pod.deleting {
            pods::delete(cluster, pod);
        }
        if !parallel {
            return;
        }
    }
    if text(set_, "spec.updateStrategy.type") == "OnDelete" {
        return;
    }
    let partition = number(set_, "spec.updateStrategy.rollingUpdate.partition").unwrap_or(0);
    for (n, pod) in all.iter().rev() {
        if *n < partition {
            return;
        }
        if !is_at(pod, revision) {
            if !pod.deleting {
                pods::delete(cluster, pod);
            }
            return;
        }
        if pod.deleting || !pod.ready {
            return;
        }
    }
}

fn is_at(pod: &Pod, revision: &str) -> bool {
    pod.labels
        .get("controller-revision-hash")
        .is_some_and(|r| r == revision)
}

fn is_stuck(set_: &Value, pod: &Pod, revision: &str) -> bool {
    text(set_, "spec.updateStrategy.type") != "OnDelete"
        && pod.phase == "Pending"
        && !is_at(pod, revision)
}

fn create(cluster: &mut Cluster, name: &Name, set_: &Value, n: i64, revision: &str) {
    let pod_name = format!("{}-{n}", name.name);
    let mut pod = pods::from_template(set_);
    set(&mut pod, "metadata.name", pod_name.clone());
    set(&mut pod, "metadata.generateName", format!("{}-", name.name));
    pods::label(&mut pod, "controller-revision-hash", revision);
    pods::label(&mut pod, "statefulset.kubernetes.io/pod-name", &pod_name);
    pods::label(&mut pod, "apps.kubernetes.io/pod-index", &n.to_string());
    set(&mut pod, "spec.hostname", pod_name.clone());
    set(&mut pod, "spec.subdomain", text(set_, "spec.serviceName"));
    for template in list(set_, "spec.volumeClaimTemplates") {
        let volume = text(template, "metadata.name");
        let claim = format!("{volume}-{pod_name}");
        let volumes = list_mut(&mut pod, "spec.volumes");
        volumes.retain(|v| text(v, "name") != volume);
        volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}));
        let key = Name::new(name.ns.clone(), claim.clone());
        if cluster.store.find(CLAIMS, &key).is_none() {
            let labels = at(set_, "spec.selector.matchLabels")
                .cloned()
                .unwrap_or_default();
            let object = json!({
                "metadata": {"name": claim, "namespace": name.ns, "labels": labels},
                "spec": template.get("spec").cloned().unwrap_or_default(),
            });
            // It has just been looked for.
            let _ = cluster.create(CLAIMS, object, false);
        }
    }
    pods::create(cluster, pod, Work::StatefulSet(name.clone()));
}

fn count(cluster: &mut Cluster, name: &Name, set_: &Value, uid: &str, revision: &str) {
    let all = numbered(cluster, &name.name, uid);
    let replicas = number(set_, "spec.replicas").unwrap_or(1);
    let there = all.iter().filter(|(_, p)| !p.finished()).count();
    let ready = all.iter().filter(|(_, p)| p.ready && !p.deleting).count();
    let updated = all
        .iter()
        .filter(|(_, p)| p.active() && is_at(p, revision))
        .count();
    let done = updated as i64 == replicas && ready as i64 == replicas;
    let before = text(set_, "status.currentRevision").to_owned();
    let current = if done || before.is_empty() {
        revision.to_owned()
    } else {
        before
    };
    let at_current = all
        .iter()
        .filter(|(_, p)| p.active() && is_at(p, &current))
        .count();
    let generation = number(set_, "metadata.generation").unwrap_or(1);
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
    pods::write_status(
        cluster,
        &Key {
            res: STATEFUL_SETS,
            at: name.clone(),
        },
        &status,
    );
}
