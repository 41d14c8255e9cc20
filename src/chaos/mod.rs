//! Chaos: a whole upgrade on the twin under a seed's schedule of faults (of services, other people's changes, deaths of the process), with the
//! twin's laws checked at every event, until it ends in one of its four ends. The processes are what `eksup apply` and
//! `eksup rollback` run, over a wire that can be cut.
//!
//! - [`invariants`]: what must hold at every moment of an upgrade
//! - [`twin_connection`]: real clients over a twin's wire
//! - [`fault_classes`]: what a tally counts, and what seeds can bring (pure)
//! - [`fault_schedule`]: what a seed brings (pure)
//! - [`fault_targets`]: what there is in a cluster that faults can be about
//! - `provided_faults`: what it does to nodes that somebody else makes (pure)
//! - `stack_faults`: what it does to the CloudFormation stacks that the plan deletes (pure)
//! - [`trial_speed`]: how fast it goes (pure)
//! - [`variation`]: how its plan and cluster differ from those that were given (pure)
//! - [`terms`]: what the upgrade may do, for the laws
//! - [`process`]: one process, and how it ends before its time
//! - [`trial`]: processes one after another, until the upgrade ends
//! - `trial_end`: whether it ended as it claims
//! - [`oracle`]: what a good end is (pure)
//! - [`batch`]: many seeds on all cores

pub mod batch;
pub mod fault_classes;
pub mod fault_schedule;
pub mod fault_targets;
pub mod invariants;
pub mod oracle;
pub mod process;
mod provided_faults;
mod stack_faults;
pub mod terms;
pub mod trial;
mod trial_end;
pub mod trial_speed;
pub mod twin_connection;
pub mod variation;

pub use fault_schedule::FaultSchedule;
pub use trial::{Trial, TrialReport};
pub use variation::Variation;
