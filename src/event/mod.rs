//! What a reporter sees: lifecycle events (each journaled before it is shown) and progress (lossy), one stream.

pub mod bus;
pub mod kinds;

pub use bus::{Bus, Message, bus};
pub use kinds::{Event, Kind, Progress, StepTitle};
