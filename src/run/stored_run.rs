//! The run as its journal in the cluster has it.

use std::sync::Arc;

use super::cluster_connection::ClusterConnection;
use super::error::{RunError, RunErrorKind};
use super::kube_store::KubeRunStore;
use crate::journal::{CheckpointStore, Journal, RunState};
use crate::route::Route;

/// Reads the run as it stands, without the lock.
pub async fn read_run_state(reached: &ClusterConnection) -> Result<Option<RunState>, RunError> {
    let remote = Arc::new(KubeRunStore(reached.kube.clone()));
    let journal = Journal::load(Box::new(CheckpointStore::new(remote, Arc::new(|_| {})))).await?;
    Ok(journal.run_state().cloned())
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
