//! Deployments: a replica set for each template, and a rolling change from one to the next.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::Due;
use super::super::cluster::Cluster;
use super::super::json::{
    annotation, at, condition, flag, number, object, scaled, set, set_condition, slot, text, unset,
};
use super::super::kinds::{DEPLOYMENTS, REPLICA_SETS};
use super::super::store::{Key, Name, Object, owner_reference};
use super::{Work, pods};

const REVISION: &str = "deployment.kubernetes.io/revision";
const HASH: &str = "pod-template-hash";

/// Moves a deployment on by one step, and counts.
pub fn reconcile(cluster: &mut Cluster, name: &Name) {
    let Some(deployment) = cluster.store.find(DEPLOYMENTS, name).cloned() else {
        return;
    };
    if at(&deployment, "metadata.deletionTimestamp").is_some() {
        return;
    }
    if flag(&deployment, "spec.paused") {
        let sets = sets_of(cluster, &deployment);
        if let [only] = sets
            .iter()
            .filter(|s| wanted(s) > 0)
            .collect::<Vec<_>>()
            .as_slice()
        {
            scale(
                cluster,
                &deployment,
                only,
                number(&deployment, "spec.replicas").unwrap_or(1),
            );
        }
    } else {
        advance(cluster, &deployment);
    }
    count(cluster, name);
}

fn wanted(set_: &Value) -> i64 {
    number(set_, "spec.replicas").unwrap_or(0)
}

fn available(set_: &Value) -> i64 {
    number(set_, "status.availableReplicas").unwrap_or(0)
}

/// The deployment's replica sets, oldest first.
fn sets_of(cluster: &Cluster, deployment: &Value) -> Vec<Object> {
    let uid = text(deployment, "metadata.uid");
    let keys = cluster.store.owned(uid).filter(|k| k.res == REPLICA_SETS);
    let mut sets: Vec<Object> = keys.filter_map(|k| cluster.store.get(k)).cloned().collect();
    sets.sort_by_cached_key(|s| {
        (
            revision_of(s),
            text(s, "metadata.creationTimestamp").to_owned(),
        )
    });
    sets
}

fn revision_of(object: &Value) -> i64 {
    annotation(object, REVISION)
        .and_then(|r| r.parse().ok())
        .unwrap_or(0)
}

/// The template without what the controller itself put there.
fn bare_template(object: &Value) -> Value {
    let mut template = at(object, "spec.template").cloned().unwrap_or_default();
    if let Some(Value::Object(labels)) = template
        .get_mut("metadata")
        .and_then(|m| m.get_mut("labels"))
    {
        labels.remove(HASH);
    }
    unset(&mut template, "metadata.creationTimestamp");
    template
}

/// Whether a replica set is of the deployment's template, as it is now and but for what the controller put there.
fn runs(set_: &Value, deployment: &Value) -> bool {
    let [mut old, mut new] = [set_, deployment].map(|o| at(o, "spec.template"));
    for (inside, skipped) in [
        ("metadata", ""),
        ("labels", "creationTimestamp"),
        ("", HASH),
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

fn advance(cluster: &mut Cluster, deployment: &Object) {
    let replicas = number(deployment, "spec.replicas").unwrap_or(1);
    let sets = sets_of(cluster, deployment);
    let (new, old): (Vec<Object>, Vec<Object>) =
        sets.into_iter().partition(|s| runs(s, deployment));
    let recreate = text(deployment, "spec.strategy.type") == "Recreate";
    if recreate {
        let mut waits = false;
        for set_ in &old {
            scale(cluster, deployment, set_, 0);
            waits |= cluster
                .store
                .pods_of(text(set_, "metadata.uid"))
                .iter()
                .any(|p| !p.finished());
        }
        if waits {
            // A terminating pod tells its replica set, which tells us by its status.
            return;
        }
    }
    let (surge, unavailable) = if recreate {
        (0, 0)
    } else {
        bounds(deployment, replicas)
    };
    let Some(new) = new.last().cloned() else {
        let total: i64 = old.iter().map(|s| wanted(s)).sum();
        let first = if recreate || old.is_empty() {
            replicas
        } else {
            (replicas + surge - total).clamp(0, replicas)
        };
        create_set(cluster, deployment, &old, first);
        return;
    };
    revise(cluster, deployment, &new, &old);
    if wanted(&new) > replicas {
        scale(cluster, deployment, &new, replicas);
    } else if wanted(&new) < replicas {
        let total: i64 = wanted(&new) + old.iter().map(|s| wanted(s)).sum::<i64>();
        let more = (replicas + surge - total).min(replicas - wanted(&new));
        if recreate || more > 0 {
            let to = if recreate {
                replicas
            } else {
                wanted(&new) + more
            };
            scale(cluster, deployment, &new, to);
            return;
        }
    }
    if !recreate {
        shrink_old(cluster, deployment, &new, &old, replicas - unavailable);
    }
    forget_oldest(cluster, deployment, &old);
}

/// maxSurge and maxUnavailable; both zero would never move.
fn bounds(deployment: &Value, replicas: i64) -> (i64, i64) {
    let field = |name: &str| at(deployment, &format!("spec.strategy.rollingUpdate.{name}"));
    let surge = scaled(field("maxSurge"), replicas, true).unwrap_or(0);
    let unavailable = scaled(field("maxUnavailable"), replicas, false)
        .unwrap_or(0)
        .min(replicas);
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

/// Takes pods from the old sets: those that do not serve first, then as many as may be missing.
fn shrink_old(cluster: &mut Cluster, deployment: &Object, new: &Value, old: &[Object], least: i64) {
    let total: i64 = wanted(new) + old.iter().map(|s| wanted(s)).sum::<i64>();
    let mut may_go = total - least - (wanted(new) - available(new)).max(0);
    let mut left: Vec<i64> = old.iter().map(|s| wanted(s)).collect();
    for (set_, left) in old.iter().zip(&mut left) {
        let broken = (wanted(set_) - available(set_)).clamp(0, may_go.max(0));
        *left -= broken;
        may_go -= broken;
    }
    let serving: i64 = available(new) + old.iter().map(|s| available(s)).sum::<i64>();
    let mut may_go = (serving - least).min(may_go).max(0);
    for left in &mut left {
        let gone = (*left).clamp(0, may_go);
        *left -= gone;
        may_go -= gone;
    }
    for (set_, left) in old.iter().zip(left) {
        scale(cluster, deployment, set_, left);
    }
}

fn scale(cluster: &mut Cluster, deployment: &Value, set_: &Value, to: i64) {
    if wanted(set_) == to {
        return;
    }
    let replicas = number(deployment, "spec.replicas").unwrap_or(1);
    let (surge, _) = bounds(deployment, replicas);
    let key = Key {
        res: REPLICA_SETS,
        at: Name::of(set_),
    };
    cluster.change(&key, |s| {
        set(s, "spec.replicas", to);
        let notes = object(slot(s, "metadata.annotations"));
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

fn create_set(cluster: &mut Cluster, deployment: &Object, old: &[Object], replicas: i64) {
    let base = text(deployment, "metadata.name");
    let mut template = bare_template(deployment);
    let hash = pods::template_hash(Some(&template));
    let revision = old.iter().map(|s| revision_of(s)).max().unwrap_or(0) + 1;
    pods::label(&mut template, HASH, &hash);
    let mut selector = at(deployment, "spec.selector").cloned().unwrap_or_default();
    object(slot(&mut selector, "matchLabels")).insert(HASH.into(), hash.clone().into());
    let labels = at(&template, "metadata.labels")
        .cloned()
        .unwrap_or_default();
    let wanted_by = number(deployment, "spec.replicas").unwrap_or(1);
    let set_ = json!({
        "metadata": {
            "name": format!("{base}-{hash}"), "namespace": text(deployment, "metadata.namespace"), "labels": labels,
            "annotations": {
                REVISION: revision.to_string(),
                "deployment.kubernetes.io/desired-replicas": wanted_by.to_string(),
                "deployment.kubernetes.io/max-replicas": (wanted_by + bounds(deployment, wanted_by).0).to_string(),
            },
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": {
            "replicas": replicas, "selector": selector, "template": template,
            "minReadySeconds": number(deployment, "spec.minReadySeconds").unwrap_or(0),
        },
    });
    // In a namespace that goes nothing is created any more; the deployment goes with it.
    if cluster.create(REPLICA_SETS, set_, false).is_ok() {
        note_revision(cluster, deployment, revision);
    }
}

/// A template that comes back takes up its old set, at a new revision.
fn revise(cluster: &mut Cluster, deployment: &Object, new: &Object, old: &[Object]) {
    let latest = old.iter().map(|s| revision_of(s)).max().unwrap_or(0);
    let mut revision = revision_of(new);
    if revision <= latest {
        revision = latest + 1;
        cluster.change(
            &Key {
                res: REPLICA_SETS,
                at: Name::of(new),
            },
            |s| {
                object(slot(s, "metadata.annotations"))
                    .insert(REVISION.into(), revision.to_string().into());
            },
        );
    }
    note_revision(cluster, deployment, revision);
}

fn note_revision(cluster: &mut Cluster, deployment: &Value, revision: i64) {
    if revision_of(deployment) != revision {
        cluster.change(
            &Key {
                res: DEPLOYMENTS,
                at: Name::of(deployment),
            },
            |d| {
                object(slot(d, "metadata.annotations"))
                    .insert(REVISION.into(), revision.to_string().into());
            },
        );
    }
}

/// Keeps only as many empty sets as the history is long.
fn forget_oldest(cluster: &mut Cluster, deployment: &Value, old: &[Object]) {
    let keep = number(deployment, "spec.revisionHistoryLimit")
        .unwrap_or(10)
        .max(0) as usize;
    let empty: Vec<&Object> = old
        .iter()
        .filter(|s| wanted(s) == 0 && number(s, "status.replicas").unwrap_or(0) == 0)
        .collect();
    for set_ in empty.iter().take(empty.len().saturating_sub(keep)) {
        cluster.delete(
            &Key {
                res: REPLICA_SETS,
                at: Name::of(set_),
            },
            None,
        );
    }
}

fn count(cluster: &mut Cluster, name: &Name) {
    let Some(deployment) = cluster.store.find(DEPLOYMENTS, name).cloned() else {
        return;
    };
    let sets = sets_of(cluster, &deployment);
    let sum = |field: &str| -> i64 {
        sets.iter()
            .map(|s| number(s, &format!("status.{field}")).unwrap_or(0))
            .sum()
    };
    let new: Option<&Arc<Value>> = sets.iter().rfind(|s| runs(s, &deployment));
    let updated = new.and_then(|s| number(s, "status.replicas")).unwrap_or(0);
    let replicas = number(&deployment, "spec.replicas").unwrap_or(1);
    let (total, available) = (sum("replicas"), sum("availableReplicas"));
    let (_, unavailable) = bounds(&deployment, replicas);
    let stamp = cluster.stamp();
    let generation = number(&deployment, "metadata.generation").unwrap_or(1);
    let complete = updated == replicas && total == replicas && available == replicas;
    let moved = [
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
    ]
    .iter()
    .zip([total, updated, sum("readyReplicas"), available])
    .any(|(field, now)| number(&deployment, &format!("status.{field}")).unwrap_or(0) != now);
    let set_name = new
        .map(|s| text(s, "metadata.name").to_owned())
        .unwrap_or_default();
    let deadline = number(&deployment, "spec.progressDeadlineSeconds").unwrap_or(600);
    let idle = stalled_for(cluster, &deployment);
    let late =
        !complete && !moved && idle.is_some_and(|i| i >= SignedDuration::from_secs(deadline));
    cluster.change(
        &Key {
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
                    unset(d, "status.unavailableReplicas");
                } else {
                    set(d, &format!("status.{field}"), value);
                }
            }
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
            note(d, "Available", status, reason, message, &stamp, false);
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
            let settled = condition(d, "Progressing")
                .is_some_and(|c| text(c, "reason") == "ProgressDeadlineExceeded");
            if complete || late || moved || !settled {
                note(
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
    if !complete && !late && deadline < i64::from(i32::MAX) {
        let left = SignedDuration::from_secs(deadline)
            - idle.filter(|_| !moved).unwrap_or(SignedDuration::ZERO);
        let wait = Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1);
        if cluster.deadlines.insert(name.clone()) {
            cluster.later(wait, Due::Again(Work::Deadline(name.clone())));
        }
    }
}

/// How long the deployment has not moved.
fn stalled_for(cluster: &Cluster, deployment: &Value) -> Option<SignedDuration> {
    let since: Timestamp = text(condition(deployment, "Progressing")?, "lastUpdateTime")
        .parse()
        .ok()?;
    Some(cluster.now.duration_since(since))
}

fn note(
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
    if moved && !changed {
        let conditions = super::super::json::list_mut(deployment, "status.conditions");
        if let Some(condition) = conditions.iter_mut().find(|c| text(c, "type") == kind) {
            set(condition, "lastUpdateTime", stamp);
        }
    }
}
