//! The run as its journal in the cluster has it.

use std::sync::Arc;

use super::cluster_connection::ClusterConnection;
use super::error::{RunError, RunErrorKind};
use super::kube_store::KubeRunStore;
use crate::journal::{CheckpointStore, Journal, RunState};
use crate::model::Timestamp;
use crate::model::marks::{RUN_NAME, RUN_NAMESPACE};
use crate::route::Route;

/// Reads the run as it stands, without the lock.
pub async fn read_run_state(reached: &ClusterConnection) -> Result<Option<RunState>, RunError> {
    let remote = Arc::new(KubeRunStore(reached.kube.clone()));
    let journal = Journal::load(Box::new(CheckpointStore::new(remote, Arc::new(|_| {})))).await?;
    Ok(journal.run_state().cloned())
}

/// Refuses a run of another cluster. The run is kept in its cluster, and a backup that is restored elsewhere brings it
/// along: whatever acts on a stored run asks this first.
pub fn check_own_run(state: &RunState, arn: &str) -> Result<(), RunError> {
    if state.cluster_arn == arn {
        return Ok(());
    }
    let text = format!(
        "run {} belongs to {}, and this is {arn}",
        state.run, state.cluster_arn
    );
    Err(RunError::new(RunErrorKind::Mismatch, text)
        .with_state(vec![
            "nothing was changed by this command; neither cluster was touched".to_owned(),
        ])
        .with_hint(
            "check which cluster is meant: the plan's cluster and region, --profile, and the --kubeconfig and --context that were given",
        )
        .with_hint(format!(
            "if this is the right cluster, the ConfigMap `{RUN_NAME}` in {RUN_NAMESPACE} was restored from a backup of the other cluster: that run continues there, and the person who restored the backup decides what becomes of this copy"
        )))
}

/// The route that a run promised.
pub fn stored_route(state: &RunState) -> Result<Route, RunError> {
    serde_json::from_value(state.binding.promised_route().clone()).map_err(|e| {
        RunError::new(
            RunErrorKind::Mismatch,
            format!("the route of run {} cannot be read: {e}", state.run),
        )
        .with_hint("continue with the eksup version that began the run")
    })
}

/// A run's name: when it began, and a little chance.
pub fn new_run_name(now: Timestamp) -> String {
    let chance: String = (0..4)
        .map(|_| fastrand::alphanumeric().to_ascii_lowercase())
        .collect();
    format!("{}-{chance}", now.strftime("%Y%m%d-%H%M%S"))
}
