//! One reading of a cluster.
//!
//! [`connect()`] finds the cluster and proves that it is the right one, [`read()`] reads everything a route or a finding is
//! decided from, and [`snapshot`] puts a cluster into a file.

mod balancers;
pub mod connect;
mod for_plan;
mod insights;
mod limits;
mod read;
pub mod scrub;
pub mod snapshot;
#[cfg(test)]
mod snapshot_tests;

pub use connect::connect;
pub use for_plan::{read_for_plan, read_schemas};
pub use insights::refresh_insights;
pub use read::read;
