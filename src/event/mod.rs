//! What a reporter sees: lifecycle events (each journaled before it is shown) and progress (lossy), one stream.

pub mod bus;
pub mod facts;
pub mod kinds;
pub mod outline;

pub use bus::{BusMessage, EventBus, open_event_bus};
pub use kinds::{EventKind, RunEvent, StepProgress, StepTitle};
