//! What the engine itself asks of a world; what steps ask is theirs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::event::Kind;

/// What the engine asks of a world.
pub trait Ground: Send + Sync {
    /// The time.
    fn now(&self) -> Timestamp;
    /// Tells whoever watches; never blocks.
    fn emit(&self, kind: Kind);
    /// A counter that changes when something in the cluster did, to wake a wait.
    fn changed(&self) -> watch::Receiver<u64>;
    /// Ready pods of the workloads that have become more since this process began to count them.
    fn risen_workloads(&self) -> BTreeMap<String, u32> {
        BTreeMap::new()
    }
    /// Credentials were refused: the next call is made with new ones, where there are any.
    fn renew(&self) {}
}
