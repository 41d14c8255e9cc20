//! Plan and inventory to steps: version hops, add-on order, node-group order, points of no return. Pure.

mod acts;
mod addons;
mod build;
mod clone;
mod draft;
mod estimate;
mod fleet;
pub mod gates;
mod migrate;
mod naming;
mod problem;
mod registered;
mod served;
mod traffic;
pub mod types;
mod user_data;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

pub use addons::{SelfManaged, offers, self_managed};
pub use build::{build, replan_for_matching_nodes};
pub use clone::{green_types, live_size, owner, subnet_zones, volume_zones};
pub use fleet::{
    custom_image, moves_itself, oldest_allowed, oldest_kubelet, template, template_of_green,
};
pub use problem::{Obstacle, RouteProblem};
pub use registered::{registration, taints_beside_group};
pub use served::{
    LocalBackend, behind, controlled, daemon_backends, local_backend, registered_by_hand,
};
pub use types::*;
pub use user_data::{Misfit, blue_system, green_system, misfits};
