//! What the engine asks of the steps' world.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::engine::EngineEnv;
use crate::event::EventKind;
use crate::steps::StepWorld;

impl EngineEnv for StepWorld {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn emit_event(&self, kind: EventKind) {
        self.emit_kind(kind);
    }

    fn subscribe_changes(&self) -> watch::Receiver<u64> {
        self.cache.subscribe_changes()
    }

    fn raised_workloads(&self) -> BTreeMap<String, u32> {
        self.workloads.raised_workloads()
    }

    fn renew_credentials(&self) {
        if let Some(chain) = self.aws.chain.clone() {
            // Whoever asks next waits for this.
            tokio::spawn(async move { chain.clear_cache().await });
        }
    }
}
