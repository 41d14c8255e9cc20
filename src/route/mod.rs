//! Plan and inventory to steps: version hops, add-on order, node-group order, points of no return. Pure.

mod addons;
mod build;
mod draft;
mod drain_terms;
mod estimate;
mod green_group;
mod group_move;
mod migration;
mod naming;
mod node_groups;
mod node_registration;
mod other_node_kinds;
mod other_nodes;
mod problem;
mod served_targets;
mod stack_deletion;
pub mod step_gates;
mod step_parts;
pub mod step_patterns;
mod step_specs;
mod traffic;
pub mod types;
mod unmoved_nodes;
mod user_data;
mod warm_pools;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;

pub use addons::{SelfManagedAddon, find_self_managed, offers_on_minor};
pub use build::{build_route, replan_for_matching_nodes};
pub use green_group::{
    green_instance_types, live_node_count, owning_tool, subnet_zones, volume_zones,
};
pub use node_groups::{
    has_custom_image, is_replaced_by_provisioner, launch_template_of, launch_template_of_green,
    oldest_allowed_kubelet, oldest_kubelet,
};
pub use node_registration::{green_registration, taints_beside_group};
pub use problem::{Obstacle, RouteProblem};
pub use served_targets::{
    LocalBackend, find_daemon_backends, find_local_backend, is_controlled, manually_registered,
    targets_by_group,
};
pub use types::*;
pub use user_data::{
    UserDataMisfit, blue_os_family, blue_windows_release, find_misfits, green_os_family,
    green_windows_release,
};
