//! Requests through a balancer, for tests of where they go.

use super::forward_weights;
use crate::twin::aws::kube::{self, ProbeResult};
use crate::twin::aws::state::ElbTargetState;
use crate::twin::world::SimWorld;

/// What somebody gets who asks for something behind a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// A pod answered, through this target group.
    Answered(String),
    /// 502: the target refused the connection, nothing ready being behind its port.
    Refused(String),
    /// 504: the target did not answer.
    TimedOut(String),
    /// 503: the balancer had nowhere to send it.
    Nowhere,
}

/// One request through the balancer, as it would go now.
pub fn send_request(world: &mut SimWorld, rule: &str) -> RequestOutcome {
    let Some((group, id, port)) = pick_target(world, rule) else {
        return RequestOutcome::Nowhere;
    };
    match kube::probe_node_port(world, &id, port) {
        ProbeResult::Answers => RequestOutcome::Answered(group),
        ProbeResult::Refuses => RequestOutcome::Refused(group),
        ProbeResult::NoAnswer => RequestOutcome::TimedOut(group),
    }
}

/// Where a request that meets `rule` goes: group, instance and port. None when the balancer has nowhere to send it.
/// Without a healthy target the balancer fails open and takes any.
fn pick_target(world: &mut SimWorld, rule: &str) -> Option<(String, String, i64)> {
    let elb = &world.cloud.elb;
    let found = elb.rules.get(rule)?;
    let actions = if found.default {
        &elb.listeners.get(&found.listener)?.actions
    } else {
        &found.actions
    };
    let groups = forward_weights(actions);
    let total: i64 = groups.iter().map(|(_, weight)| *weight).sum();
    if total <= 0 {
        return None;
    }
    let mut at = world.rng.i64(0..total);
    let (arn, _) = groups.into_iter().find(|(_, weight)| {
        at -= weight;
        at < 0
    })?;
    let group = world.cloud.elb.groups.get(&arn)?;
    let of = |healthy: bool| -> Vec<(String, i64)> {
        group
            .targets
            .iter()
            .filter(|(_, t)| {
                if healthy {
                    t.state == ElbTargetState::Healthy
                } else {
                    t.state != ElbTargetState::Draining
                }
            })
            .map(|(k, _)| k.clone())
            .collect()
    };
    let mut targets = of(true);
    if targets.is_empty() {
        targets = of(false);
    }
    if targets.is_empty() {
        return None;
    }
    let (id, port) = targets.swap_remove(world.rng.usize(0..targets.len()));
    Some((arn, id, port))
}
