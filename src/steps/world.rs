//! What a step may ask: the clients, the watches, the clock, and where to say how it gets on.

use std::sync::Arc;

use crate::aws::AwsApi;
use crate::event::{EventKind, RunEvent, StepProgress};
use crate::k8s::{KubeApi, WatchCache};
use crate::model::{ApiError, Clock};
use crate::steps::WATCH_STALENESS_LIMIT;
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
    /// Where events go; never blocks.
    pub emit: Arc<dyn Fn(RunEvent) + Send + Sync>,
}

impl StepWorld {
    /// Says how a step gets on.
    pub fn emit_progress(&self, progress: StepProgress) {
        (self.emit)(RunEvent {
            at: self.clock.now(),
            kind: EventKind::Progress(progress),
        });
    }

    /// The workloads that have fewer Ready pods now than when the run began.
    ///
    /// # Errors
    /// Those of the watches and of listing workloads: what could not be read is not taken for whole.
    pub async fn short_workloads(&self) -> Result<Vec<ShortWorkload>, ApiError> {
        let snapshot = self.cache.read_current(WATCH_STALENESS_LIMIT).await?;
        self.workloads.short_workloads(&self.kube, &snapshot).await
    }

    /// A token that makes a call once-only across crashes: the same run, step and act give the same token.
    pub fn idempotency_token(&self, step: &str, act: &str) -> String {
        use sha2::{Digest, Sha256};
        let hash = Sha256::digest(format!("{}\n{step}\n{act}", self.run));
        format!("eksup-{}", hex::encode(&hash[..16]))
    }
}
