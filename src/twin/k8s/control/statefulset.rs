//! Stateful sets: pods with names, one after the other; the old one is gone before the new one comes (K8S-POD-1).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::KubeEvent;
use super::super::cluster::SimCluster;
use super::super::json::{list_at, list_at_mut, number_at, set_at, text_at, value_at};
use super::super::kinds::{CLAIMS, STATEFUL_SETS};
use super::super::store::{ObjectKey, ObjectName};
use super::super::typed_views::PodView;
use super::{ControllerWork, pods, rollout};

/// The revisions of a set: pods below its partition are of the current one, the others of the update's (K8S-POD-6).
struct SetRevisions {
    current: String,
    update: String,
}

/// Takes the next step, and counts.
pub fn reconcile(cluster: &mut SimCluster, name: &ObjectName) {
    let Some(set_) = cluster.store.find_object(STATEFUL_SETS, name).cloned() else {
        return;
    };
    let uid = text_at(&set_, "metadata.uid").to_owned();
    let revisions = find_revisions(cluster, name, &set_, &uid);
    if value_at(&set_, "metadata.deletionTimestamp").is_none() {
        take_step(cluster, name, &set_, &uid, &revisions);
    }
    update_status(cluster, name, &set_, &uid, &revisions);
}

/// Names the set's revisions, and keeps their templates: a pod below the partition may have to be made again from the
/// older one.
fn find_revisions(
    cluster: &mut SimCluster,
    name: &ObjectName,
    set_: &Value,
    uid: &str,
) -> SetRevisions {
    // Seeded revisions carry the set's name, new ones get it.
    let hash = rollout::current_revision(cluster, set_);
    let update = if hash.starts_with(&format!("{}-", name.name)) {
        hash
    } else {
        format!("{}-{hash}", name.name)
    };
    let current = match text_at(set_, "status.currentRevision") {
        "" => update.clone(),
        current => current.to_owned(),
    };
    let templates = &mut cluster.revisions.templates;
    let key = (uid.to_owned(), update.clone());
    if !templates.contains_key(&key) {
        // What is neither current nor to come is asked for by nobody.
        templates.retain(|(of, revision), _| of != uid || *revision == current);
        let template = value_at(set_, "spec.template").cloned();
        templates.insert(key, template.unwrap_or_default());
    }
    SetRevisions { current, update }
}

/// The lowest ordinal that an update reaches.
fn first_updated_ordinal(set_: &Value) -> i64 {
    let first = number_at(set_, "spec.ordinals.start").unwrap_or(0);
    first + number_at(set_, "spec.updateStrategy.rollingUpdate.partition").unwrap_or(0)
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

fn take_step(
    cluster: &mut SimCluster,
    name: &ObjectName,
    set_: &Value,
    uid: &str,
    revisions: &SetRevisions,
) {
    let replicas = number_at(set_, "spec.replicas").unwrap_or(1);
    let first = number_at(set_, "spec.ordinals.start").unwrap_or(0);
    let min_ready = number_at(set_, "spec.minReadySeconds").unwrap_or(0);
    let parallel = text_at(set_, "spec.podManagementPolicy") == "Parallel";
    let all = pods_by_ordinal(cluster, &name.name, uid);
    let find = |n: i64| all.iter().find(|(m, _)| *m == n).map(|(_, p)| p);
    let is_unavailable = |cluster: &SimCluster, pod: &PodView| {
        pod.deleting || pods::is_available(cluster, pod, min_ready) != Ok(true)
    };
    // Pods are made in the order of their ordinals; each must be available before the next one, unless the policy is
    // Parallel.
    for n in first..first + replicas {
        match find(n) {
            None => {
                create_pod(cluster, name, set_, n, revisions);
                if !parallel {
                    return;
                }
            }
            // A pod that has ended is deleted first, because its name is taken until then (K8S-POD-1).
            Some(pod) if pod.is_finished() && !pod.deleting => {
                pods::delete_pod(cluster, pod);
                return;
            }
            // One that never gets ready is waited for, even if a new template has come (K8S-POD-7).
            Some(pod) if !parallel && is_unavailable(cluster, pod) => return,
            Some(_) => {}
        }
    }
    // Pods beyond the number go from the highest ordinal down, one at a time.
    let is_wanted = |n: i64| (first..first + replicas).contains(&n);
    for (_, pod) in all.iter().rev().filter(|(n, _)| !is_wanted(*n)) {
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
    // An update takes pods from the highest ordinal down to the partition, and waits until each is available again.
    // It deletes pods and asks no budget.
    let reached = first_updated_ordinal(set_);
    for (_, pod) in all
        .iter()
        .rev()
        .filter(|(n, _)| is_wanted(*n) && *n >= reached)
    {
        if !is_at_revision(pod, &revisions.update) {
            if !pod.deleting {
                pods::delete_pod(cluster, pod);
            }
            return;
        }
        if is_unavailable(cluster, pod) {
            return;
        }
    }
}

fn is_at_revision(pod: &PodView, revision: &str) -> bool {
    pod.labels
        .get("controller-revision-hash")
        .is_some_and(|r| r == revision)
}

/// Creates the pod of ordinal `n`: from the current revision's template below the partition, else from the update's
/// (K8S-POD-6).
fn create_pod(
    cluster: &mut SimCluster,
    name: &ObjectName,
    set_: &Value,
    n: i64,
    revisions: &SetRevisions,
) {
    let on_delete = text_at(set_, "spec.updateStrategy.type") == "OnDelete";
    let revision = if !on_delete && n < first_updated_ordinal(set_) {
        &revisions.current
    } else {
        &revisions.update
    };
    let pod_name = format!("{}-{n}", name.name);
    let key = (
        text_at(set_, "metadata.uid").to_owned(),
        revision.to_owned(),
    );
    let mut pod = match cluster.revisions.templates.get(&key) {
        Some(template) => {
            let mut of_revision = set_.clone();
            set_at(&mut of_revision, "spec.template", template.clone());
            pods::pod_from_template(&of_revision)
        }
        // A snapshot has no template but the newest: the pod is of the older revision by its label alone.
        None => pods::pod_from_template(set_),
    };
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
    revisions: &SetRevisions,
) {
    let all = pods_by_ordinal(cluster, &name.name, uid);
    let replicas = number_at(set_, "spec.replicas").unwrap_or(1);
    let min_ready = number_at(set_, "spec.minReadySeconds").unwrap_or(0);
    // A pod that is being deleted counts for as long as it says that it is Ready (K8S-POD-8).
    let (mut ready, mut available, mut look_again) = (0, 0, None);
    for (_, pod) in all.iter().filter(|(_, p)| p.ready) {
        ready += 1;
        match pods::is_available(cluster, pod, min_ready) {
            Ok(yes) => available += i64::from(yes),
            // It becomes available by time alone, so the set is looked at again then.
            Err(wait) => look_again = Some(look_again.map_or(wait, |before| wait.min(before))),
        }
    }
    if let Some(wait) = look_again.and_then(|w| Duration::try_from(w).ok()) {
        cluster.schedule_after(
            wait,
            KubeEvent::RepeatWork(ControllerWork::StatefulSet(name.clone())),
        );
    }
    let count_at = |revision: &str| {
        let at = |(_, p): &&(i64, Arc<PodView>)| !p.deleting && is_at_revision(p, revision);
        all.iter().filter(at).count() as i64
    };
    let updated = count_at(&revisions.update);
    // The current revision follows only when every pod has been replaced and is Ready, and never with OnDelete.
    let done = text_at(set_, "spec.updateStrategy.type") != "OnDelete"
        && updated == replicas
        && ready == replicas
        && all.len() as i64 == replicas;
    let current = if done {
        &revisions.update
    } else {
        &revisions.current
    };
    let generation = number_at(set_, "metadata.generation").unwrap_or(1);
    let status = [
        ("replicas", json!(all.len())),
        ("readyReplicas", json!(ready)),
        ("availableReplicas", json!(available)),
        ("currentReplicas", json!(count_at(current))),
        ("updatedReplicas", json!(updated)),
        ("currentRevision", json!(current)),
        ("updateRevision", json!(revisions.update)),
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
