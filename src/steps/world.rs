//! What a step may ask: the clients, the watches, the clock, and where to say how it gets on.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use crate::aws::AwsApi;
use crate::engine::StepError;
use crate::event::{EventKind, RunEvent, StepProgress};
use crate::k8s::{KubeApi, WatchCache};
use crate::model::{ApiError, Clock};
use crate::steps::attempts::once_only_token;
use crate::steps::workload_health::{ShortWorkload, WorkloadMonitor};

/// What a step may ask.
#[derive(Clone)]
pub struct StepWorld {
    pub cluster: String,
    pub run: String,
    pub aws: AwsApi,
    pub kube: KubeApi,
    pub cache: WatchCache,
    pub clock: Clock,
    /// What the workloads had when the run began.
    pub workloads: WorkloadMonitor,
    /// Names of the run's groups, blue and green, that are self-managed Auto Scaling groups.
    pub self_managed: Arc<BTreeSet<String>>,
    /// Those that are NodePools.
    pub node_pools: Arc<BTreeSet<String>>,
    /// Where events go; never blocks.
    pub emit: Arc<dyn Fn(RunEvent) + Send + Sync>,
}

impl StepWorld {
    /// Says how a step gets on.
    pub fn emit_progress(&self, progress: StepProgress) {
        self.emit_kind(EventKind::Progress(progress));
    }

    /// Tells whoever watches.
    pub fn emit_kind(&self, kind: EventKind) {
        (self.emit)(RunEvent {
            at: self.clock.now(),
            kind,
        });
    }

    /// The workloads that have fewer Ready pods now than when the run began.
    ///
    /// # Errors
    /// Those of the watches and of listing workloads: what could not be read is not taken for whole.
    pub async fn short_workloads(&self) -> Result<Vec<ShortWorkload>, ApiError> {
        let snapshot = self.read_snapshot().await?;
        self.workloads.short_workloads(&self.kube, &snapshot).await
    }

    /// The token that makes a call of this run once-only across crashes; see [`once_only_token`].
    ///
    /// # Errors
    /// What is asked cannot be written as JSON.
    pub fn idempotency_token(
        &self,
        step: &str,
        (operation, asked): (&str, &impl Serialize),
        attempt: &impl Serialize,
    ) -> Result<String, StepError> {
        once_only_token(&self.run, step, (operation, asked), attempt)
            .map_err(|e| StepError::Broken(format!("cannot make the token of {operation}: {e}")))
    }
}
