//! How long a step takes, from what is known. An estimate is for people: nothing is decided from it.

use std::time::Duration;

use super::DrainSpec;
use crate::plan::TrafficSettings;

/// Returns `n` minutes.
const fn from_minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// Reports name 10 to 20 minutes a minor.
pub const CONTROL_PLANE: Duration = from_minutes(15);
/// A DaemonSet's or a Deployment's rollout, and EKS's own polling.
pub const ADDON: Duration = from_minutes(3);
/// One call to EC2.
pub const LAUNCH_TEMPLATE: Duration = Duration::from_secs(5);
/// Instances start and join within about three minutes; EKS says ACTIVE a little later.
pub const GREEN: Duration = from_minutes(5);
/// One patch a node.
pub const HOLD: Duration = Duration::from_secs(10);
/// Stopped instances end within a minute or so, unless a lifecycle hook holds them.
pub const REMOVE_WARM_POOL: Duration = from_minutes(2);
/// One call; the pool fills by itself.
pub const ADD_WARM_POOL: Duration = Duration::from_secs(10);
/// By default a target is healthy after five checks, 30 s apart.
pub const ATTACH: Duration = Duration::from_secs(150);
/// EKS takes a minute or so to change a group's taints; the autoscaler is given two rounds to see them.
pub const CORDON: Duration = from_minutes(2);
/// The deregistration delay is five minutes unless somebody set it.
pub const DETACH: Duration = from_minutes(5);
/// Deleting an empty group: its instances end one after the other.
pub const RETIRE: Duration = from_minutes(5);
/// A change of its template, and the deletion itself.
pub const STACK: Duration = from_minutes(8);
/// Evicting a node's pods and waiting for their replacements.
pub const NODE: Duration = from_minutes(4);

/// A Fargate node takes about a minute to start.
pub const FARGATE_POD: Duration = from_minutes(2);

/// A drain of `nodes` nodes.
pub fn estimate_drain(nodes: usize, drain: &DrainSpec) -> Duration {
    let rounds = nodes.div_ceil(drain.parallel.max(1) as usize) as u32;
    (NODE + drain.bake) * rounds + drain.canary_bake.unwrap_or_default()
}

/// Estimates how long a shift of weights takes: its bakes, and half a minute for each share.
pub fn estimate_shift(traffic: &TrafficSettings) -> Duration {
    (traffic.bake + Duration::from_secs(30)) * traffic.steps.len() as u32
}
