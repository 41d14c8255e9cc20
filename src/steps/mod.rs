//! What an upgrade is made of: one file a step.

use std::time::Duration;

pub mod accepted_losses;
pub mod addon;
pub mod attempts;
pub mod bake;
pub mod blue_capacity;
pub mod blue_protection;
pub mod build;
pub mod closing;
pub mod configuration_template;
pub mod control_plane;
mod cordon_act;
pub mod cordon_blue;
mod departing_pods;
pub mod drain;
pub mod empty_proof;
pub mod evictable;
pub mod fargate;
pub mod green;
pub mod green_baseline;
mod green_daemons;
mod green_launches;
pub mod green_protection;
pub mod green_scaling;
pub mod launch_template;
pub mod node_pools;
pub mod node_source;
pub mod nodes;
pub mod pod_problems;
pub mod pool_source;
pub mod retire;
pub mod retire_record;
pub mod stack_deletion;
mod suspension;
pub mod traffic;
pub mod updates;
pub mod warm_pool;
pub mod workload_gate;
pub mod workload_health;
pub mod world;

pub use build::{build_step, build_steps};
pub use world::StepWorld;

/// How long the watches may be behind a failure before a look fails: an API server that moves during a hop is away for
/// seconds to minutes.
pub const WATCH_STALENESS_LIMIT: Duration = Duration::from_secs(120);

/// How long the rollback waits for something that moves by itself before a person is asked.
pub const ROLLBACK_WAIT_LIMIT: Duration = Duration::from_secs(30 * 60);
