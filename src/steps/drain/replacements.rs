//! How a single replica is moved without a gap: its Deployment is restarted, so that the new pod is Ready before it goes.

use crate::model::ApiError;
use crate::model::kube::{NamespacedName, Pod};
use crate::model::restarts::no_restart;
use crate::steps::StepWorld;

/// The Deployment whose restart brings up a new pod before `pod` goes; or why there is none.
///
/// # Errors
/// Those of reading the pod's owners.
pub async fn find_restart(
    world: &StepWorld,
    pod: &Pod,
) -> Result<Result<NamespacedName, String>, ApiError> {
    // From the pod to its ReplicaSet to its Deployment: whoever else owns a ReplicaSet (a Rollout) has its own way to
    // restart.
    let Some(owner) = pod.owner.as_ref().filter(|o| o.kind == "ReplicaSet") else {
        let kind = pod.owner.as_ref().map_or("nothing", |o| o.kind.as_str());
        return Ok(Err(format!(
            "it belongs to {kind}, and only a Deployment starts the new pod first"
        )));
    };
    let set = world
        .kube
        .read_workload(
            "ReplicaSet",
            &NamespacedName::new(&pod.key.namespace, &owner.name),
        )
        .await?;
    let Some(top) = set.owner.filter(|o| o.kind == "Deployment") else {
        return Ok(Err("its ReplicaSet belongs to no Deployment".to_owned()));
    };
    let key = NamespacedName::new(&pod.key.namespace, &top.name);
    let deployment = world.kube.read_workload("Deployment", &key).await?;
    Ok(match no_restart(&deployment, !pod.claims.is_empty()) {
        Some(why) => Err(why),
        None => Ok(key),
    })
}
