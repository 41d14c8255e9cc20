//! The rollback of a cluster with EKS Auto Mode: its nodes are rolled back first, while the cluster stays ACTIVE, and the
//! control plane after them (EKS-RB-8, EKS-RB-9).

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

use super::{EksEvent, cluster, requested_cluster, schedule_after, schedule_between, update};
use crate::model::Minor;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::kube;
use crate::twin::aws::state::{EksCluster, EksUpdate, UpdateCancellation};
use crate::twin::world::SimWorld;

/// Between two looks at the nodes.
const NODE_RECHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Minutes that EKS waits for the nodes: the least, the most, and where nobody says how many.
const TIMEOUT_MINUTES: (i64, i64, i64) = (120, 10_080, 720);

/// Whether the cluster has Auto Mode.
pub fn has_auto_mode(eks: &EksCluster) -> bool {
    let compute = eks.rest.get("computeConfig");
    compute.is_some_and(|c| c.get("enabled") == Some(&Value::Bool(true)))
}

/// Rolls the nodes back first.
pub fn begin(world: &mut SimWorld, input: Input, to: Minor) -> Result<Value, AwsError> {
    let (least, most, default) = TIMEOUT_MINUTES;
    let config = input.get_input("rollbackConfig");
    let minutes = config.and_then(|c| c.get_number("timeoutMinutes"));
    let minutes = minutes.unwrap_or(default);
    if !(least..=most).contains(&minutes) {
        return Err(AwsError::invalid_parameter(format!(
            "timeoutMinutes must be between {least} and {most}"
        )));
    }
    let id = cluster::begin_update(world, "VersionRollback", to);
    let until = world
        .now()
        .saturating_add(SignedDuration::from_mins(minutes));
    if let Some(running) = find_update(world, &id) {
        running.nodes_until = until.ok();
    }
    kube::set_auto_mode_version(world, Some(to));
    let due = EksEvent::AutoNodesRechecked { update: id.clone() };
    schedule_after(world, NODE_RECHECK_INTERVAL, due);
    let eks = world.cloud.eks.as_ref();
    eks.map(|eks| update::update_answer(eks, &id))
        .ok_or_else(|| AwsError::not_found("No cluster"))
}

fn find_update<'w>(world: &'w mut SimWorld, id: &str) -> Option<&'w mut EksUpdate> {
    world.cloud.eks.as_mut()?.updates.get_mut(id)
}

/// The target of a rollback whose nodes are being rolled back, and until when.
fn node_phase(world: &mut SimWorld, id: &str) -> Option<(Minor, jiff::Timestamp)> {
    let running = find_update(world, id).filter(|u| u.status == "InProgress")?;
    let version = running.params.iter().find(|(kind, _)| kind == "Version")?;
    Some((version.1.parse().ok()?, running.nodes_until?))
}

/// Goes on with the control plane once no node of Auto Mode is newer than it will be; after the timeout EKS cancels.
pub fn recheck_nodes(world: &mut SimWorld, id: &str) {
    let Some((to, until)) = node_phase(world, id) else {
        return;
    };
    let cancelled = find_update(world, id).is_some_and(|u| u.cancellation.is_some());
    if cancelled {
        return;
    }
    let newer = kube::auto_mode_minors(world).into_iter().any(|m| m > to);
    if !newer {
        if let Some(running) = find_update(world, id) {
            running.nodes_until = None;
        }
        return cluster::begin_control_plane_update(world, id, to);
    }
    if world.now() >= until {
        return begin_cancellation(world, id, "The rollback timed out.");
    }
    let update = id.to_owned();
    let due = EksEvent::AutoNodesRechecked { update };
    schedule_after(world, NODE_RECHECK_INTERVAL, due);
}

/// CancelUpdate: only rollbacks of Auto Mode clusters, and only while the nodes are rolled back (EKS-CP-3, EKS-RB-9). The wording is
/// not known.
pub fn cancel(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    let id = input.get_text("updateId").unwrap_or_default().to_owned();
    let Some(running) = eks.updates.get(&id) else {
        return Err(AwsError::not_found(format!("No update found for ID: {id}")));
    };
    if running.status != "InProgress" {
        return Err(AwsError::invalid_request(format!(
            "Update {id} is not in progress and cannot be cancelled."
        )));
    }
    if running.nodes_until.is_none() {
        return Err(AwsError::invalid_request(format!(
            "Update {id} of type {} does not support cancellation.",
            running.kind
        )));
    }
    // Asked again, the same cancellation goes on.
    if running.cancellation.is_none() {
        begin_cancellation(world, &id, "Cancelled by the caller.");
    }
    let eks = requested_cluster(world, input)?;
    Ok(update::update_answer(eks, &id))
}

fn begin_cancellation(world: &mut SimWorld, id: &str, reason: &'static str) {
    if let Some(running) = find_update(world, id) {
        running.cancellation = Some(UpdateCancellation {
            status: "InProgress",
            reason,
        });
    }
    // The nodes follow the control plane again, which is still the newer one.
    kube::set_auto_mode_version(world, None);
    let update = id.to_owned();
    schedule_between(world, 20, 60, EksEvent::RollbackCancelled { update });
}

/// The update is over; nothing of the control plane has changed.
pub fn finish_cancellation(world: &mut SimWorld, id: &str) {
    let Some(running) = find_update(world, id) else {
        return;
    };
    running.status = "Cancelled".to_owned();
    running.nodes_until = None;
    if let Some(cancellation) = &mut running.cancellation {
        cancellation.status = "Successful";
    }
    if let Some(eks) = &mut world.cloud.eks {
        eks.running = None;
    }
}
