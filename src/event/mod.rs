//! What a reporter sees: lifecycle events (each journaled before it is shown) and progress (lossy), one stream.

pub mod kinds;

pub use kinds::{Event, Kind, Progress};
