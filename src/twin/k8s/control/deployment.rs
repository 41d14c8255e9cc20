//! Deployments: a replica set for each template, and a rolling change from one to the next.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::KubeEvent;
use super::super::cluster::SimCluster;
use super::super::json::{
    as_object_mut, find_annotation, find_condition, flag_at, list_at_mut, number_at, remove_at,
    scale_int_or_percent, set_at, set_condition, slot_at, text_at, value_at,
};
use super::super::kinds::{DEPLOYMENTS, REPLICA_SETS};
use super::super::store::{ObjectKey, ObjectName, StoredObject, owner_reference};
use super::{ControllerWork, pods};

const REVISION_ANNOTATION: &str = "deployment.kubernetes.io/revision";
const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

/// Moves a deployment on by one step, and counts.
pub fn reconcile(cluster: &mut SimCluster, name: &ObjectName) {
    let Some(deployment) = cluster.store.find_object(DEPLOYMENTS, name).cloned() else {
        return;
    };
    if value_at(&deployment, "metadata.deletionTimestamp").is_some() {
        return;
    }
    // A paused deployment follows its number of replicas but does not change its template's pods.
    if flag_at(&deployment, "spec.paused") {
        // With pods of several templates the real controller scales them in proportion; that is left out here.
        let sets = replica_sets_of(cluster, &deployment);
        if let [only] = sets
            .iter()
            .filter(|s| desired_replicas(s) > 0)
            .collect::<Vec<_>>()
            .as_slice()
        {
            scale_set(
                cluster,
                &deployment,
                only,
                number_at(&deployment, "spec.replicas").unwrap_or(1),
            );
        }
    } else {
        advance_rollout(cluster, &deployment);
    }
    update_status(cluster, name);
}

fn desired_replicas(set_: &Value) -> i64 {
    number_at(set_, "spec.replicas").unwrap_or(0)
}

fn available_replicas(set_: &Value) -> i64 {
    number_at(set_, "status.availableReplicas").unwrap_or(0)
}

/// The deployment's replica sets, oldest first.
fn replica_sets_of(cluster: &SimCluster, deployment: &Value) -> Vec<StoredObject> {
    let uid = text_at(deployment, "metadata.uid");
    let keys = cluster
        .store
        .owned_by(uid)
        .filter(|k| k.res == REPLICA_SETS);
    let mut sets: Vec<StoredObject> = keys
        .filter_map(|k| cluster.store.get_object(k))
        .cloned()
        .collect();
    // The revision decides before the time of creation: a template that returned has an older set with a newer
    // revision.
    sets.sort_by_cached_key(|s| {
        (
            revision_of(s),
            text_at(s, "metadata.creationTimestamp").to_owned(),
        )
    });
    sets
}

fn revision_of(object: &Value) -> i64 {
    find_annotation(object, REVISION_ANNOTATION)
        .and_then(|r| r.parse().ok())
        .unwrap_or(0)
}

/// The template without what the controller itself put there.
fn bare_template(object: &Value) -> Value {
    let mut template = value_at(object, "spec.template")
        .cloned()
        .unwrap_or_default();
    if let Some(Value::Object(labels)) = template
        .get_mut("metadata")
        .and_then(|m| m.get_mut("labels"))
    {
        labels.remove(TEMPLATE_HASH_LABEL);
    }
    remove_at(&mut template, "metadata.creationTimestamp");
    template
}

/// Whether a replica set is of the deployment's template, as it is now and but for what the controller put there.
fn has_current_template(set_: &Value, deployment: &Value) -> bool {
    // The template is compared level by level, so that the parts that the controller or the server adds can be left
    // out.
    let [mut old, mut new] = [set_, deployment].map(|o| value_at(o, "spec.template"));
    for (inside, skipped) in [
        ("metadata", ""),
        ("labels", "creationTimestamp"),
        ("", TEMPLATE_HASH_LABEL),
    ] {
        let [a, b] = [old, new].map(|v| {
            let map = v.and_then(Value::as_object).into_iter().flatten();
            map.filter(move |(key, _)| *key != inside && *key != skipped)
        });
        if !a.eq(b) {
            return false;
        }
        [old, new] = [old, new].map(|v| v?.get(inside));
    }
    true
}

fn advance_rollout(cluster: &mut SimCluster, deployment: &StoredObject) {
    let replicas = number_at(deployment, "spec.replicas").unwrap_or(1);
    let sets = replica_sets_of(cluster, deployment);
    let (new, old): (Vec<StoredObject>, Vec<StoredObject>) = sets
        .into_iter()
        .partition(|s| has_current_template(s, deployment));
    let recreate = text_at(deployment, "spec.strategy.type") == "Recreate";
    // Recreate stops every old pod before the first new one, so it waits until all of them have ended.
    if recreate {
        let mut waits = false;
        for set_ in &old {
            scale_set(cluster, deployment, set_, 0);
            waits |= cluster
                .store
                .pods_of(text_at(set_, "metadata.uid"))
                .iter()
                .any(|p| !p.is_finished());
        }
        if waits {
            // A terminating pod tells its replica set, which tells us by its status.
            return;
        }
    }
    let (surge, unavailable) = if recreate {
        (0, 0)
    } else {
        rollout_bounds(deployment, replicas)
    };
    // The new set starts with as many pods as the surge leaves room for, so that the total is never exceeded.
    let Some(new) = new.last().cloned() else {
        let total: i64 = old.iter().map(|s| desired_replicas(s)).sum();
        let first = if recreate || old.is_empty() {
            replicas
        } else {
            (replicas + surge - total).clamp(0, replicas)
        };
        create_replica_set(cluster, deployment, &old, first);
        return;
    };
    update_revision(cluster, deployment, &new, &old);
    // One pass does one thing, as the real controller: what is scaled up is seen in the next pass, before any old pod
    // goes.
    if desired_replicas(&new) > replicas {
        scale_set(cluster, deployment, &new, replicas);
    } else if desired_replicas(&new) < replicas {
        let total: i64 =
            desired_replicas(&new) + old.iter().map(|s| desired_replicas(s)).sum::<i64>();
        let more = (replicas + surge - total).min(replicas - desired_replicas(&new));
        if recreate || more > 0 {
            let to = if recreate {
                replicas
            } else {
                desired_replicas(&new) + more
            };
            scale_set(cluster, deployment, &new, to);
            return;
        }
    }
    if !recreate {
        scale_down_old_sets(cluster, deployment, &new, &old, replicas - unavailable);
    }
    delete_oldest_sets(cluster, deployment, &old);
}

/// maxSurge and maxUnavailable; both zero would never move.
fn rollout_bounds(deployment: &Value, replicas: i64) -> (i64, i64) {
    let field = |name: &str| value_at(deployment, &format!("spec.strategy.rollingUpdate.{name}"));
    let surge = scale_int_or_percent(field("maxSurge"), replicas, true).unwrap_or(0);
    let unavailable = scale_int_or_percent(field("maxUnavailable"), replicas, false)
        .unwrap_or(0)
        .min(replicas);
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

/// Takes pods from the old sets: those that do not serve first, then as many as may be missing.
fn scale_down_old_sets(
    cluster: &mut SimCluster,
    deployment: &StoredObject,
    new: &Value,
    old: &[StoredObject],
    least: i64,
) {
    // Pods that are being started count as missing: only what is beyond the least number of available pods may go.
    let total: i64 = desired_replicas(new) + old.iter().map(|s| desired_replicas(s)).sum::<i64>();
    let mut may_go = total - least - (desired_replicas(new) - available_replicas(new)).max(0);
    let mut left: Vec<i64> = old.iter().map(|s| desired_replicas(s)).collect();
    // Pods that do not serve go first, because taking them costs no availability.
    for (set_, left) in old.iter().zip(&mut left) {
        let broken = (desired_replicas(set_) - available_replicas(set_)).clamp(0, may_go.max(0));
        *left -= broken;
        may_go -= broken;
    }
    // Then those that serve, as far as the least number stays available.
    let serving: i64 =
        available_replicas(new) + old.iter().map(|s| available_replicas(s)).sum::<i64>();
    let mut may_go = (serving - least).min(may_go).max(0);
    for left in &mut left {
        let gone = (*left).clamp(0, may_go);
        *left -= gone;
        may_go -= gone;
    }
    for (set_, left) in old.iter().zip(left) {
        scale_set(cluster, deployment, set_, left);
    }
}

fn scale_set(cluster: &mut SimCluster, deployment: &Value, set_: &Value, to: i64) {
    if desired_replicas(set_) == to {
        return;
    }
    // The annotations are what the real controller uses for scaling in proportion; clients read them too.
    let replicas = number_at(deployment, "spec.replicas").unwrap_or(1);
    let (surge, _) = rollout_bounds(deployment, replicas);
    let key = ObjectKey {
        res: REPLICA_SETS,
        at: ObjectName::of_object(set_),
    };
    cluster.change_object(&key, |s| {
        set_at(s, "spec.replicas", to);
        let notes = as_object_mut(slot_at(s, "metadata.annotations"));
        notes.insert(
            "deployment.kubernetes.io/desired-replicas".into(),
            replicas.to_string().into(),
        );
        notes.insert(
            "deployment.kubernetes.io/max-replicas".into(),
            (replicas + surge).to_string().into(),
        );
    });
}

fn create_replica_set(
    cluster: &mut SimCluster,
    deployment: &StoredObject,
    old: &[StoredObject],
    replicas: i64,
) {
    let base = text_at(deployment, "metadata.name");
    let mut template = bare_template(deployment);
    let hash = pods::template_hash(Some(&template));
    let revision = old.iter().map(|s| revision_of(s)).max().unwrap_or(0) + 1;
    // The hash keeps the pods of two templates apart: it is in the name, the labels and the selector.
    pods::set_label(&mut template, TEMPLATE_HASH_LABEL, &hash);
    let mut selector = value_at(deployment, "spec.selector")
        .cloned()
        .unwrap_or_default();
    as_object_mut(slot_at(&mut selector, "matchLabels"))
        .insert(TEMPLATE_HASH_LABEL.into(), hash.clone().into());
    let labels = value_at(&template, "metadata.labels")
        .cloned()
        .unwrap_or_default();
    let wanted_by = number_at(deployment, "spec.replicas").unwrap_or(1);
    let set_ = json!({
        "metadata": {
            "name": format!("{base}-{hash}"), "namespace": text_at(deployment, "metadata.namespace"), "labels": labels,
            "annotations": {
                REVISION_ANNOTATION: revision.to_string(),
                "deployment.kubernetes.io/desired-replicas": wanted_by.to_string(),
                "deployment.kubernetes.io/max-replicas": (wanted_by + rollout_bounds(deployment, wanted_by).0).to_string(),
            },
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": {
            "replicas": replicas, "selector": selector, "template": template,
            "minReadySeconds": number_at(deployment, "spec.minReadySeconds").unwrap_or(0),
        },
    });
    // In a namespace that goes nothing is created any more; the deployment goes with it.
    if cluster.create_object(REPLICA_SETS, set_, false).is_ok() {
        record_revision(cluster, deployment, revision);
    }
}

/// A template that comes back takes up its old set, at a new revision.
fn update_revision(
    cluster: &mut SimCluster,
    deployment: &StoredObject,
    new: &StoredObject,
    old: &[StoredObject],
) {
    let latest = old.iter().map(|s| revision_of(s)).max().unwrap_or(0);
    let mut revision = revision_of(new);
    // A set that is taken up again gets the highest revision, so that it is the newest in the history.
    if revision <= latest {
        revision = latest + 1;
        cluster.change_object(
            &ObjectKey {
                res: REPLICA_SETS,
                at: ObjectName::of_object(new),
            },
            |s| {
                as_object_mut(slot_at(s, "metadata.annotations"))
                    .insert(REVISION_ANNOTATION.into(), revision.to_string().into());
            },
        );
    }
    record_revision(cluster, deployment, revision);
}

fn record_revision(cluster: &mut SimCluster, deployment: &Value, revision: i64) {
    if revision_of(deployment) != revision {
        cluster.change_object(
            &ObjectKey {
                res: DEPLOYMENTS,
                at: ObjectName::of_object(deployment),
            },
            |d| {
                as_object_mut(slot_at(d, "metadata.annotations"))
                    .insert(REVISION_ANNOTATION.into(), revision.to_string().into());
            },
        );
    }
}

/// Keeps only as many empty sets as the history is long.
fn delete_oldest_sets(cluster: &mut SimCluster, deployment: &Value, old: &[StoredObject]) {
    let keep = number_at(deployment, "spec.revisionHistoryLimit")
        .unwrap_or(10)
        .max(0) as usize;
    // Only sets without pods go, even where the history is longer than it may be.
    let empty: Vec<&StoredObject> = old
        .iter()
        .filter(|s| desired_replicas(s) == 0 && number_at(s, "status.replicas").unwrap_or(0) == 0)
        .collect();
    for set_ in empty.iter().take(empty.len().saturating_sub(keep)) {
        cluster.delete_object(
            &ObjectKey {
                res: REPLICA_SETS,
                at: ObjectName::of_object(set_),
            },
            None,
        );
    }
}

fn update_status(cluster: &mut SimCluster, name: &ObjectName) {
    let Some(deployment) = cluster.store.find_object(DEPLOYMENTS, name).cloned() else {
        return;
    };
    // The counts are the sums of what the sets report: the deployment does not look at pods.
    let sets = replica_sets_of(cluster, &deployment);
    let sum = |field: &str| -> i64 {
        sets.iter()
            .map(|s| number_at(s, &format!("status.{field}")).unwrap_or(0))
            .sum()
    };
    let new: Option<&Arc<Value>> = sets.iter().rfind(|s| has_current_template(s, &deployment));
    let updated = new
        .and_then(|s| number_at(s, "status.replicas"))
        .unwrap_or(0);
    let replicas = number_at(&deployment, "spec.replicas").unwrap_or(1);
    let (total, available) = (sum("replicas"), sum("availableReplicas"));
    let (_, unavailable) = rollout_bounds(&deployment, replicas);
    let stamp = cluster.timestamp_text();
    let generation = number_at(&deployment, "metadata.generation").unwrap_or(1);
    let complete = updated == replicas && total == replicas && available == replicas;
    // Progress is any change of the counts; it starts the deadline again.
    let moved = [
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
    ]
    .iter()
    .zip([total, updated, sum("readyReplicas"), available])
    .any(|(field, now)| number_at(&deployment, &format!("status.{field}")).unwrap_or(0) != now);
    let set_name = new
        .map(|s| text_at(s, "metadata.name").to_owned())
        .unwrap_or_default();
    // It is the new replica set's (K8S-ADM-5).
    let failure = new.and_then(|s| find_condition(s, "ReplicaFailure"));
    let failure = failure.map(|c| text_at(c, "message").to_owned());
    // The deadline is only a condition: a deployment that is late is worked on as before.
    let deadline = number_at(&deployment, "spec.progressDeadlineSeconds").unwrap_or(600);
    let idle = stalled_for(cluster, &deployment);
    let late =
        !complete && !moved && idle.is_some_and(|i| i >= SignedDuration::from_secs(deadline));
    // The status fields are written at once, so that a watch sees one change.
    cluster.change_object(
        &ObjectKey {
            res: DEPLOYMENTS,
            at: name.clone(),
        },
        |d| {
            for (field, value) in [
                ("replicas", total),
                ("updatedReplicas", updated),
                ("readyReplicas", sum("readyReplicas")),
                ("availableReplicas", available),
                ("terminatingReplicas", sum("terminatingReplicas")),
                (
                    "unavailableReplicas",
                    (replicas.max(total) - available).max(0),
                ),
                ("observedGeneration", generation),
            ] {
                if field == "unavailableReplicas" && value == 0 {
                    remove_at(d, "status.unavailableReplicas");
                } else {
                    set_at(d, &format!("status.{field}"), value);
                }
            }
            // A deployment is available while no more pods are missing than its strategy allows.
            let (status, reason, message) = if available >= replicas - unavailable {
                (
                    "True",
                    "MinimumReplicasAvailable",
                    "Deployment has minimum availability.",
                )
            } else {
                (
                    "False",
                    "MinimumReplicasUnavailable",
                    "Deployment does not have minimum availability.",
                )
            };
            set_rollout_condition(d, "Available", status, reason, message, &stamp, false);
            // The condition goes as soon as the set no longer has it (K8S-ADM-5).
            match &failure {
                Some(why) => {
                    let kind = "ReplicaFailure";
                    set_rollout_condition(d, kind, "True", "FailedCreate", why, &stamp, false);
                }
                None if find_condition(d, "ReplicaFailure").is_some() => {
                    list_at_mut(d, "status.conditions")
                        .retain(|c| text_at(c, "type") != "ReplicaFailure");
                }
                None => {}
            }
            // Of the three answers "complete" stands before "late": a deployment that is complete is never late.
            let (status, reason, did) = if complete {
                (
                    "True",
                    "NewReplicaSetAvailable",
                    "has successfully progressed.",
                )
            } else if late {
                (
                    "False",
                    "ProgressDeadlineExceeded",
                    "has timed out progressing.",
                )
            } else {
                ("True", "ReplicaSetUpdated", "is progressing.")
            };
            // A deadline that has passed stays told until something moves again.
            let settled = find_condition(d, "Progressing")
                .is_some_and(|c| text_at(c, "reason") == "ProgressDeadlineExceeded");
            if complete || late || moved || !settled {
                set_rollout_condition(
                    d,
                    "Progressing",
                    status,
                    reason,
                    &format!("ReplicaSet \"{set_name}\" {did}"),
                    &stamp,
                    moved,
                );
            }
        },
    );
    // The largest number means no deadline. Otherwise one event looks again just after the deadline; a second one is
    // not queued.
    if !complete && !late && deadline < i64::from(i32::MAX) {
        let left = SignedDuration::from_secs(deadline)
            - idle.filter(|_| !moved).unwrap_or(SignedDuration::ZERO);
        let wait = Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1);
        if cluster.deadlines.insert(name.clone()) {
            cluster.schedule_after(
                wait,
                KubeEvent::RepeatWork(ControllerWork::ProgressDeadline(name.clone())),
            );
        }
    }
}

/// How long the deployment has not moved.
fn stalled_for(cluster: &SimCluster, deployment: &Value) -> Option<SignedDuration> {
    let since: Timestamp = text_at(find_condition(deployment, "Progressing")?, "lastUpdateTime")
        .parse()
        .ok()?;
    Some(cluster.now.duration_since(since))
}

fn set_rollout_condition(
    deployment: &mut Value,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    stamp: &str,
    moved: bool,
) {
    let changed = set_condition(
        deployment,
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastUpdateTime": stamp, "lastTransitionTime": stamp,
        }),
    );
    // Progress without a change of status moves only the time of the last update.
    if moved && !changed {
        let conditions = super::super::json::list_at_mut(deployment, "status.conditions");
        if let Some(condition) = conditions.iter_mut().find(|c| text_at(c, "type") == kind) {
            set_at(condition, "lastUpdateTime", stamp);
        }
    }
}
