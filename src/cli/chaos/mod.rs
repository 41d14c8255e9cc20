//! Chaos: a whole upgrade on the twin in a seed's weather (faults, other people's hands, deaths of the process), with the
//! twin's laws checked at every event, until it ends in one of its four ends. The processes are what `eksup apply` and
//! `eksup rollback` run, over a wire that can be cut.
//!
//! - [`weather`]: what a seed brings (pure)
//! - [`variation`]: how its plan and cluster differ from those that were given (pure)
//! - [`terms`]: what the upgrade may do, for the laws
//! - [`process`]: one process, and how it ends before its time
//! - [`trial`]: processes one after another, until the upgrade ends
//! - [`judge`]: whether the end is a good one
//! - [`many`]: many seeds on all cores

pub mod judge;
pub mod many;
pub mod process;
pub mod terms;
pub mod trial;
pub mod variation;
pub mod weather;

pub use trial::{Trial, Verdict};
pub use variation::Variation;
pub use weather::Weather;
