//! Health checks of load balancers, where a group heeds them: an instance that fails them is replaced (ASG-11).

use std::time::Duration;

use jiff::SignedDuration;

use super::{AsgEvent, schedule_after, termination};
use crate::twin::aws::elb;
use crate::twin::aws::state::GroupMember;
use crate::twin::world::SimWorld;

const HEALTH_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// By the API; the console gives new groups another one.
pub const DEFAULT_GRACE_SECONDS: i64 = 0;

/// Lets begin the checks of a group that heeds load balancers.
pub fn start_checks(world: &mut SimWorld, name: &str) {
    let asg = world.cloud.asgs.get(name);
    if asg.is_some_and(|g| g.settings.heeds_balancers()) {
        let asg = name.to_owned();
        schedule_after(
            world,
            HEALTH_CHECK_INTERVAL,
            AsgEvent::HealthChecked { asg },
        );
    }
}

/// Lets begin the checks of every such group.
pub fn start_all_checks(world: &mut SimWorld) {
    let names: Vec<String> = world.cloud.asgs.keys().cloned().collect();
    for name in names {
        start_checks(world, &name);
    }
}

/// One look at the instances that are in service beyond their grace period.
pub fn check_group(world: &mut SimWorld, name: &str) {
    let Some(asg) = world.cloud.asgs.get(name) else {
        return;
    };
    if !asg.settings.heeds_balancers() {
        return;
    }
    let grace = asg.settings.members.get("HealthCheckGracePeriod");
    let grace = grace.and_then(serde_json::Value::as_i64);
    let grace = SignedDuration::from_secs(grace.unwrap_or(DEFAULT_GRACE_SECONDS));
    let stopped = ["HealthCheck", "ReplaceUnhealthy", "Terminate"];
    let stopped = stopped.iter().any(|p| asg.suspended.contains(*p));
    let (now, created) = (world.now(), asg.created);
    // Only a target that a check has failed counts: one that is unused, initial or draining is not unhealthy.
    let failed = |id: &String| {
        let mut groups = asg.target_groups.keys();
        groups.any(|arn| elb::is_unhealthy(world, arn, id))
    };
    let old_enough = |m: &GroupMember| {
        let since = m.in_service_since.unwrap_or(created);
        m.lifecycle == "InService" && now.duration_since(since) >= grace
    };
    let unhealthy: Vec<String> = asg
        .members
        .iter()
        .filter(|(id, m)| !stopped && !asg.deleting && old_enough(m) && failed(id))
        .map(|(id, _)| id.clone())
        .collect();
    for id in unhealthy {
        termination::terminate_and_replace(world, name, &id);
    }
    start_checks(world, name);
}
