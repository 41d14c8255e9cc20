//! Chaos: a whole upgrade on the twin in a seed's weather (faults, other people's hands, deaths of the process), with the
//! twin's laws checked at every event, until it ends in one of its four ends. The processes are what `eksup apply` and
//! `eksup rollback` run, over a wire that can be cut.
//!
//! - [`weather`]: what a seed brings (pure)
//! - [`process`]: one process, and how it ends before its time
//! - [`trial`]: processes one after another, until the upgrade ends
//! - [`judge`]: whether the end is a good one
//! - [`many`]: many seeds on all cores

pub mod judge;
pub mod many;
pub mod process;
pub mod trial;
pub mod weather;

pub use trial::{Trial, Verdict};
pub use weather::Weather;
