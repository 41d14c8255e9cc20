//! What an upgrade is made of: one file a step.

use std::time::Duration;

pub mod addon;
pub mod addon_schema;
pub mod bake;
pub mod build;
pub mod control_plane;
pub mod drain;
pub mod evictable;
pub mod green;
pub mod hold;
pub mod launch_template;
pub mod nodes;
pub mod retire;
pub mod shield;
pub mod traffic;
pub mod updates;
pub mod world;

pub use build::build;
pub use world::World;

/// How long the watches may be behind a failure before a look fails: an API server that moves during a hop is away for
/// seconds to minutes.
pub const PATIENCE: Duration = Duration::from_secs(120);
