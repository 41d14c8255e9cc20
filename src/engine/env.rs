//! What the engine itself asks of a world; what steps ask is theirs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::event::EventKind;

/// What the engine asks of a world.
pub trait EngineEnv: Send + Sync {
    /// Returns the time of the clock that journal and deadlines count by.
    fn now(&self) -> Timestamp;
    /// Tells whoever watches; never blocks.
    fn emit_event(&self, kind: EventKind);
    /// A counter that changes when something in the cluster did, to wake a wait.
    fn subscribe_changes(&self) -> watch::Receiver<u64>;
    /// Ready pods of the workloads that have become more since this process began to count them.
    fn raised_workloads(&self) -> BTreeMap<String, u32> {
        BTreeMap::new()
    }
    /// Credentials were refused: the next call is made with new ones, where there are any.
    fn renew_credentials(&self) {}
}
