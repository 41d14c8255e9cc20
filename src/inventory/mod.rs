//! One reading of a cluster.
//!
//! [`connect_cluster()`] finds the cluster and proves that it is the right one, [`read_inventory()`] reads everything a route or a finding is
//! decided from, and [`snapshot`] puts a cluster into a file.

mod account_limits;
pub mod connect;
mod for_plan;
mod insights;
mod load_balancers;
mod node_access;
mod read;
pub mod scrub;
pub mod snapshot;
#[cfg(test)]
mod snapshot_tests;

pub use connect::connect_cluster;
pub use for_plan::{read_addon_schemas, read_for_plan};
pub use insights::refresh_insights;
pub use node_access::read_node_access;
pub use read::{read_inventory, with_volume_limits};
