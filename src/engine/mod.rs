//! Steps forward and back, retries by error class, stop signals.

pub mod step;
pub mod stop;

pub use step::{AnyStep, Decision, Past, Step, StepError, Undo};
pub use stop::Stop;
