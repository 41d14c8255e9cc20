//! What the engine itself asks of a world; what steps ask is theirs.

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
    /// Credentials were refused: the next call is made with new ones, where there are any.
    fn renew(&self) {}
}
