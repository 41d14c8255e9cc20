//! The twin asked by the real Rust SDK, in virtual time.

mod addons;
mod auto_mode;
mod cloudformation;
mod cloudformation_changes;
mod cloudformation_deletion;
mod cloudformation_nodes;
mod control_plane;
mod fargate;
mod faults;
mod group_states;
mod groups;
mod iam;
mod instances;
mod limits;
mod reads;
mod sdk;
mod self_managed;
mod target_owners;
mod traffic;
mod warm_pool;
mod windows;
