//! Emptying blue, node by node, through the Eviction API.
//!
//! Everything a restart must know stands on the nodes themselves: a node whose emptying has begun carries
//! [`crate::model::marks::DRAINING`] with the run and the time. What is kept in memory only spares requests.

pub mod budget;
pub mod decide;
pub mod leave;
pub mod rest;
pub mod seen;
pub mod settle;
pub mod step;
#[cfg(test)]
mod tests;

pub use decide::Act;
pub use leave::leaving;
pub use step::Drain;
