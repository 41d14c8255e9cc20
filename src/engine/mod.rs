//! Steps forward and back, retries by error class, stop signals.
//!
//! The loop: look; on `Act` write it down, act, look again; on `Done` write that down. Nothing here knows what a step
//! does, and nothing is shown before the journal has it.

pub mod back;
pub mod drive;
pub mod forward;
pub mod gates;
pub mod ground;
pub mod retry;
pub mod run;
pub mod step;
pub mod stop;
pub mod three;
pub mod turn;

#[cfg(test)]
mod back_tests;
#[cfg(test)]
mod gates_tests;
#[cfg(test)]
mod rollback_tests;
#[cfg(test)]
mod stop_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod toy;

pub use gates::Gates;
pub use ground::Ground;
pub use run::{About, Ended, Engine, EngineError, Planned};
pub use step::{AnyStep, Decision, Past, RollbackPart, Step, StepError, Trail, Undo};
pub use stop::{Asker, Stop};
