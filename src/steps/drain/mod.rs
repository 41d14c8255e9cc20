//! Emptying blue, node by node, through the Eviction API.
//!
//! Everything a restart must know stands on the nodes themselves: a node whose emptying has begun carries
//! [`crate::model::marks::DRAINING`] with the run and the time. What is kept in memory only spares requests.

pub mod act;
pub mod budget;
pub mod consent;
#[cfg(test)]
mod consent_tests;
mod controller_filled;
pub mod deadlines;
pub mod decide;
pub mod eviction_plan;
#[cfg(test)]
pub mod fixtures;
pub mod late_nodes;
pub mod movement;
pub mod next_nodes;
pub mod node_changes;
pub mod observation;
pub mod placement;
pub mod reading;
pub mod replacements;
pub mod rollback;
pub mod step;
#[cfg(test)]
mod tests;
pub mod timers;
pub mod unready;
#[cfg(test)]
mod workload_tests;

pub use act::DrainStepAct;
pub use observation::GreenDrainObservation;
pub use rollback::GreenDrain;
pub use step::DrainStep;
