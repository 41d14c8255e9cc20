//! Elastic Load Balancing: v2, and of classic load balancers what an Auto Scaling group has to do with them.

mod actions;
mod classic;
mod controller;
mod reads;
mod rules;
mod targets;
#[cfg(test)]
pub(super) mod test_support;

use std::time::Duration;

use serde_json::Value;

use super::call::{AwsService, Input};
use super::error::AwsError;
use super::state::ElbState;
use super::unknown_operation;
use crate::twin::world::SimWorld;

pub use actions::{forward_weights, normalize_actions};
pub use classic::{
    balancer_exists as classic_exists, forget_instance as forget_classic, on_group_attached,
};
pub use targets::{
    deregister_target, deregistration_delay, forget_instance, is_draining, is_healthy,
    is_unhealthy, register_target,
};

/// Something that will happen in Elastic Load Balancing.
#[derive(Clone, Debug)]
pub enum ElbEvent {
    /// The health checks of a target group.
    HealthChecked { group: String },
    /// A target's deregistration delay is over; `turn` is the registration that ended.
    Drained {
        group: String,
        target: (String, i64),
        turn: u64,
    },
    /// The load balancer controller looks at the cluster.
    Synced,
}

/// Makes `due` happen.
pub fn handle_event(world: &mut SimWorld, due: ElbEvent) {
    match due {
        ElbEvent::HealthChecked { group } => targets::run_health_check(world, &group),
        ElbEvent::Drained {
            group,
            target,
            turn,
        } => targets::finish_draining(world, &group, &target, turn),
        ElbEvent::Synced => controller::sync_targets(world),
    }
}

/// Begins health checks, and the controller's syncs where there is one.
pub fn start_checks_and_syncs(world: &mut SimWorld) {
    targets::start_health_checks(world);
    controller::start_syncs(world);
}

/// Answers for Elastic Load Balancing.
pub fn run_operation(world: &mut SimWorld, op: &str, input: Input) -> Result<Value, AwsError> {
    // Classic balancers have operations of the same names, which are told apart by the version of the API.
    if input.get_text("Version") == Some("2012-06-01") {
        return classic::run_operation(world, op, input);
    }
    match op {
        "DescribeLoadBalancers" => reads::describe_balancers(world, input),
        "DescribeListeners" => reads::describe_listeners(world, input),
        "DescribeRules" => reads::describe_rules(world, input),
        "DescribeTargetGroups" => reads::describe_groups(world, input),
        "DescribeTargetGroupAttributes" => reads::describe_group_attributes(world, input),
        "DescribeLoadBalancerAttributes" => reads::describe_balancer_attributes(world, input),
        "DescribeTags" => reads::describe_tags(world, input),
        "AddTags" => rules::add_tags(world, input),
        "RemoveTags" => rules::remove_tags(world, input),
        "DescribeTargetHealth" => targets::describe_health(world, input),
        "RegisterTargets" => targets::register_targets(world, input),
        "DeregisterTargets" => targets::deregister_targets(world, input),
        "ModifyTargetGroupAttributes" => rules::modify_attributes(world, input),
        "ModifyRule" => rules::modify_rule(world, input),
        "ModifyListener" => rules::modify_listener(world, input),
        "SetRulePriorities" => rules::set_priorities(world, input),
        _ => Err(unknown_operation(AwsService::Elb, op)),
    }
}

/// Target groups and weights of a rule or of a listener's default actions.
pub fn target_weights(world: &SimWorld, rule_or_listener: &str) -> Vec<(String, i64)> {
    let elb = &world.cloud.elb;
    let of_rule = elb.rules.get(rule_or_listener).map(|r| &r.actions);
    let actions = of_rule.or(elb.listeners.get(rule_or_listener).map(|l| &l.actions));
    actions.map(|a| forward_weights(a)).unwrap_or_default()
}

/// How many targets of a target group are healthy.
pub fn count_healthy_targets(world: &SimWorld, group: &str) -> usize {
    let targets = world.cloud.elb.groups.get(group).map(|g| &g.targets);
    targets
        .into_iter()
        .flatten()
        .filter(|(_, t)| t.state == super::state::ElbTargetState::Healthy)
        .count()
}

fn rule_not_found() -> AwsError {
    AwsError::new(400, "RuleNotFound", "One or more rules not found")
}

fn group_not_found() -> AwsError {
    AwsError::new(
        400,
        "TargetGroupNotFound",
        "One or more target groups not found",
    )
}

fn listener_not_found() -> AwsError {
    AwsError::new(400, "ListenerNotFound", "One or more listeners not found")
}

/// The load balancer whose rules or listeners name a target group; one at most.
pub fn balancer_of_group<'e>(elb: &'e ElbState, group: &str) -> Option<&'e str> {
    let names = |actions: &[Value]| forward_weights(actions).iter().any(|(arn, _)| arn == group);
    let listener = elb
        .rules
        .values()
        .find(|rule| !rule.default && names(&rule.actions))
        .and_then(|rule| elb.listeners.get(&rule.listener))
        .or_else(|| {
            elb.listeners
                .values()
                .find(|listener| names(&listener.actions))
        })?;
    Some(&listener.balancer)
}

/// Lets `due` happen after `wait`.
fn schedule_after(world: &mut SimWorld, wait: Duration, due: ElbEvent) {
    world.schedule_after(
        wait,
        crate::twin::world::ScheduledEvent::Cloud(super::CloudEvent::Elb(due)),
    );
}
