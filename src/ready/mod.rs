//! Readiness: what stands in the way of an upgrade, and what a reader should know. Pure; see `docs/findings.md`.

mod addon_config;
mod addons;
mod addresses;
mod admission;
mod autoscaler;
mod budgets;
mod capacity_fit;
mod checks;
mod cluster;
mod cni_addresses;
mod codes;
mod finding;
pub mod finding_groups;
mod green_nodes;
mod image_fit;
mod input;
mod limits;
mod losses;
mod metadata_access;
mod node_access;
mod nodes;
mod operating_system;
mod other_nodes;
mod placement;
mod pod_search;
mod pods;
mod quotas;
mod replacements;
mod stacks;
mod storage;
mod storage_systems;
mod traffic;
mod unhealthy;
mod volume_nodes;
mod volumes;
mod warm_pools;
mod webhooks;
mod windows;
mod workloads;

#[cfg(test)]
mod address_tests;
#[cfg(test)]
mod admission_tests;
#[cfg(test)]
mod image_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod operator_tests;
#[cfg(test)]
mod other_node_tests;
#[cfg(test)]
mod placement_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traffic_tests;
#[cfg(test)]
mod unknown_tests;
#[cfg(test)]
mod webhook_tests;
#[cfg(test)]
mod windows_tests;

pub use addon_config::configured_versions;
pub use checks::check_readiness;
pub use codes::Code;
pub use finding::{Finding, Severity};
pub use metadata_access::accepted_losses;
pub use node_access::unproved_profiles;
