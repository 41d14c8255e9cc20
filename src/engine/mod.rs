//! Steps forward and back, retries by error class, stop signals.
//!
//! The loop: look; on `Act` write it down, act, look again; on `Done` write that down. Nothing here knows what a step
//! does, and nothing is shown before the journal has it.

pub mod drive;
pub mod env;
pub mod forward;
pub mod gates;
pub mod refusal;
pub mod retry;
pub mod rollback;
pub mod run;
pub mod state_diff;
pub mod step;
pub mod step_turn;
pub mod stop;

#[cfg(test)]
mod back_tests;
#[cfg(test)]
mod gates_tests;
#[cfg(test)]
mod rollback_tests;
#[cfg(test)]
mod stop_tests;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;

pub use env::EngineEnv;
pub use gates::RunGates;
pub use refusal::{NextStep, StepRefusal};
pub use run::{Engine, EngineError, PauseAfter, PlannedStep, RunOutcome, RunSubject};
pub use step::{
    Decision, DynStep, RollbackHistory, RollbackPart, Step, StepError, StepHistory, UndoKind,
};
pub use stop::{StopHandle, StopSignal};
