//! The run's durable record: what was begun, what is done, and the lock that keeps it to one process.
//!
//! Everything is written before it is done. The state of a run is folded from its records by one table
//! ([`state::RunState::apply_record`]); an illegal record is an error when it is written and when it is read. The journal
//! knows no domain type: acts, before-images and the route are JSON to it.

pub mod approval;
pub mod checkpoint_store;
pub mod error;
pub mod file;
pub mod lease;
#[cfg(test)]
pub(crate) mod memory_store;
pub mod record;
mod run_binding;
pub mod run_store;
pub mod state;
mod step_state;
pub mod store;
mod transitions;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod time_tests;

pub use crate::model::lease_record::LeaseRecord;
pub use checkpoint_store::CheckpointStore;
pub use error::JournalError;
pub use file::FileLog;
pub use lease::{LeaseError, RunLease};
pub use record::{FinalOutcome, JOURNAL_FORMAT, JournalEntry, OpenedEntry, Record};
pub use run_binding::RunBinding;
pub use run_store::{CheckpointRecord, CheckpointText, RunStore};
pub use state::{RunPhase, RunState, StepApproval, StepState, StepStatus};
pub use store::{Journal, JournalStore, MakeRecord};
