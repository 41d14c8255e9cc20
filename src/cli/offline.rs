//! A snapshot read as a live cluster is: over the twin, in virtual time.

use std::path::{Path, PathBuf};

use super::context::quote_for_shell;
use super::runtime::run_in_virtual_time;
use crate::chaos::twin_connection::connect_twin;
use crate::inventory::snapshot;
use crate::model::inventory::Unread;
use crate::model::snapshot::Snapshot;
use crate::model::{Clock, Inventory};
use crate::plan::Plan;
use crate::run::cluster_connection::ClusterConnection;
use crate::run::error::{RunError, usage_error};
use crate::twin::{Twin, scenario};

/// The snapshot a user names: a file, or a bundled scenario such as `fleet-100`.
pub fn read_snapshot(path: &Path) -> Result<Snapshot, RunError> {
    match path.to_str().and_then(scenario::find_scenario) {
        Some(bundled) => Ok(bundled),
        None => Ok(snapshot::read_snapshot(path)?),
    }
}

/// The bundled snapshot of that cluster.
pub fn bundled_snapshot(cluster: &str) -> Option<Snapshot> {
    scenario::find_scenario(cluster).filter(|s| s.inventory.cluster.name == cluster)
}

/// # Errors
/// The snapshot is of another cluster than the plan.
pub fn check_same_cluster(snapshot: &Snapshot, plan: &Plan) -> Result<(), RunError> {
    let of = &snapshot.inventory.cluster.name;
    if *of == plan.cluster {
        return Ok(());
    }
    Err(usage_error(format!(
        "the snapshot is of cluster `{of}`, and the plan is for `{}`",
        plan.cluster
    ))
    .with_hint(
        "name a snapshot of the plan's cluster with --snapshot, or the snapshot's cluster in the plan",
    ))
}

/// # Errors
/// The plan moves self-managed groups, and the snapshot does not hold what their nodes are started with.
pub fn check_groups_are_whole(snapshot: &Snapshot, plan: &Plan) -> Result<(), RunError> {
    let held = snapshot
        .aws
        .contains_key("autoscaling:DescribeAutoScalingGroups");
    if held || plan.auto_scaling_groups.is_empty() {
        return Ok(());
    }
    Err(usage_error(
        "`autoScalingGroups` cannot be rehearsed from a snapshot: it holds no user data, which can hold secrets, and without it \
         no node of such a group would join",
    )
    .with_hint("remove `autoScalingGroups` for the rehearsal; `eksup check` judges these groups in the live cluster"))
}

/// Reads the snapshot that `path` names for an upgrade by `plan`.
pub fn read_inventory(path: &Path, plan: &Plan) -> Result<Inventory, RunError> {
    let mut snapshot = read_snapshot(path)?;
    check_same_cluster(&snapshot, plan)?;
    run_in_virtual_time(async {
        let clock = Clock::starting_at(snapshot.inventory.taken_at);
        let twin = Twin::start(scenario::take_world(&mut snapshot, 1));
        let reached: ClusterConnection = connect_twin(twin.wire(), &snapshot, &clock).await?;
        let mut inventory = reached.read_for_plan(plan).await?;
        // Nothing is judged again.
        let taken = snapshot.inventory;
        inventory.insights_refresh = taken.insights_refresh;
        if taken.limits.is_none() {
            inventory.unread.push(Unread {
                op: "servicequotas:GetServiceQuota".to_owned(),
                why: "the snapshot was taken without quotas and offerings".to_owned(),
            });
        }
        inventory.limits = taken.limits;
        Ok(inventory)
    })
}

/// A command as it would be given again, for the same snapshot.
pub fn with_snapshot_flag(command: String, snapshot: Option<&PathBuf>) -> String {
    match snapshot {
        Some(path) => {
            let flag = ["--snapshot".to_owned(), path.display().to_string()];
            format!("{command} {}", quote_for_shell(&flag))
        }
        None => command,
    }
}
