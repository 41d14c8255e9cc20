//! The run's durable record: what was begun, what is done, and the lock that keeps it to one process.
//!
//! Everything is written before it is done. The state of a run is folded from its records by one table
//! ([`state::RunState::apply`]); an illegal record is an error when it is written and when it is read. The journal
//! knows no domain type: acts, before-images and the route are JSON to it.

pub mod approval;
mod bound;
pub mod error;
pub mod file;
pub mod incluster;
pub mod lock;
pub mod memory;
pub mod record;
pub mod remote;
pub mod state;
pub mod store;
mod table;

#[cfg(test)]
mod tests;

pub use bound::Bound;
pub use error::JournalError;
pub use file::FileLog;
pub use incluster::InCluster;
pub use lock::{Lock, LockError};
pub use record::{Entry, FORMAT, Opened, Outcome, Record};
pub use remote::{Held, Remote, Stored, Text};
pub use state::{Approval, Phase, RunState, Status, StepState};
pub use store::{Journal, Make, Store};
