//! Whether what was moved serves again, and how a single replica is moved without a gap.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::k8s::cache::Snapshot;
use crate::model::ApiError;
use crate::model::kube::{Key, Owner, Pod, Workload};
use crate::steps::World;

/// Whether a pod was made in the place of one that was moved, and does not serve yet.
pub fn is_replacement(pod: &Pod, since: Timestamp, sick: &BTreeSet<String>) -> bool {
    let replaces = |o: &Owner| {
        matches!(
            o.kind.as_str(),
            "ReplicaSet" | "StatefulSet" | "ReplicationController"
        ) && !sick.contains(&o.uid)
    };
    !pod.ready
        && pod.deletion_timestamp.is_none()
        && !pod.finished()
        && pod.created.is_some_and(|t| t >= since)
        && pod.owner.as_ref().is_some_and(replaces)
}

/// Says what a workload lacks.
pub fn unsettled_text(workload: &Workload, snapshot: &Snapshot) -> String {
    let waiting = snapshot
        .pods
        .values()
        .find(|p| {
            !p.ready
                && p.deletion_timestamp.is_none()
                && p.owner.as_ref().is_some_and(|o| o.uid == workload.uid)
        })
        .map(|p| {
            let why = p.waiting.as_deref().unwrap_or(&p.phase);
            format!(
                ", pod {} on {}: {why}",
                p.key,
                p.node.as_deref().unwrap_or("no node")
            )
        })
        .unwrap_or_default();
    format!(
        "{} {} has {} of {} ready{waiting}",
        workload.kind, workload.key, workload.ready, workload.desired
    )
}

/// The Deployment whose restart brings up a new pod before `pod` goes; or why there is none.
pub async fn restart_of(world: &World, pod: &Pod) -> Result<Result<Key, String>, ApiError> {
    let Some(owner) = pod.owner.as_ref().filter(|o| o.kind == "ReplicaSet") else {
        let kind = pod.owner.as_ref().map_or("nothing", |o| o.kind.as_str());
        return Ok(Err(format!(
            "it belongs to {kind}, and only a Deployment starts the new pod first"
        )));
    };
    let set = world
        .kube
        .workload("ReplicaSet", &Key::new(&pod.key.namespace, &owner.name))
        .await?;
    let Some(top) = set.owner.filter(|o| o.kind == "Deployment") else {
        return Ok(Err("its ReplicaSet belongs to no Deployment".to_owned()));
    };
    let key = Key::new(&pod.key.namespace, &top.name);
    let deployment = world.kube.workload("Deployment", &key).await?;
    Ok(if deployment.strategy.as_deref() == Some("Recreate") {
        Err(format!("Deployment {key} has strategy Recreate"))
    } else if deployment.paused {
        Err(format!("Deployment {key} is paused"))
    } else if matches!(deployment.max_surge.as_deref(), Some("0" | "0%")) {
        Err(format!("Deployment {key} has maxSurge 0"))
    } else if !pod.claims.is_empty() {
        Err("it mounts a volume that two pods may not share".to_owned())
    } else {
        Ok(key)
    })
}
