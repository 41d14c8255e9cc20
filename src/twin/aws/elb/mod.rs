//! Elastic Load Balancing: v2, and of classic load balancers what an Auto Scaling group has to do with them.

mod actions;
mod classic;
mod controller;
mod rules;
mod show;
mod targets;

use std::time::Duration;

use serde_json::Value;

use super::call::{Input, Service};
use super::error::AwsError;
use super::state::Elb;
use super::unknown;
use crate::twin::world::World;

pub use actions::{forwards, normal};
pub use classic::{attached, exists as classic_exists, forget as forget_classic};
pub use targets::{Visit, delay, deregister, forget, is_draining, is_healthy, register, visit};

/// Something that will happen in Elastic Load Balancing.
#[derive(Clone, Debug)]
pub enum Due {
    /// The health checks of a target group.
    Checked { group: String },
    /// A target's deregistration delay is over; `turn` is the registration that ended.
    Drained {
        group: String,
        target: (String, i64),
        turn: u64,
    },
    /// The load balancer controller looks at nodes.
    Synced,
    /// The load balancer controller writes its rule back.
    Reverted { rule: String },
}

/// Makes `due` happen.
pub fn happen(world: &mut World, due: Due) {
    match due {
        Due::Checked { group } => targets::checked(world, &group),
        Due::Drained {
            group,
            target,
            turn,
        } => targets::drained(world, &group, &target, turn),
        Due::Synced => controller::synced(world),
        Due::Reverted { rule } => controller::reverted(world, &rule),
    }
}

/// Begins health checks, and the controller's syncs where there is one.
pub fn start(world: &mut World) {
    targets::check_all(world);
    controller::start(world);
}

/// Answers for Elastic Load Balancing.
pub fn run(world: &mut World, op: &str, input: Input) -> Result<Value, AwsError> {
    if input.text("Version") == Some("2012-06-01") {
        return classic::run(world, op, input);
    }
    match op {
        "DescribeLoadBalancers" => show::balancers(world, input),
        "DescribeListeners" => show::listeners(world, input),
        "DescribeRules" => show::rules(world, input),
        "DescribeTargetGroups" => show::groups(world, input),
        "DescribeTargetGroupAttributes" => show::group_attributes(world, input),
        "DescribeLoadBalancerAttributes" => show::balancer_attributes(world, input),
        "DescribeTags" => show::tags(world, input),
        "AddTags" => rules::tag(world, input),
        "RemoveTags" => rules::untag(world, input),
        "DescribeTargetHealth" => targets::health(world, input),
        "RegisterTargets" => targets::register_all(world, input),
        "DeregisterTargets" => targets::deregister_all(world, input),
        "ModifyTargetGroupAttributes" => rules::modify_attributes(world, input),
        "ModifyRule" => rules::modify_rule(world, input),
        "ModifyListener" => rules::modify_listener(world, input),
        "SetRulePriorities" => rules::set_priorities(world, input),
        _ => Err(unknown(Service::Elb, op)),
    }
}

/// Target groups and weights of a rule or of a listener's default actions.
pub fn weights(world: &World, rule_or_listener: &str) -> Vec<(String, i64)> {
    let elb = &world.cloud.elb;
    let of_rule = elb.rules.get(rule_or_listener).map(|r| &r.actions);
    let actions = of_rule.or(elb.listeners.get(rule_or_listener).map(|l| &l.actions));
    actions.map(|a| forwards(a)).unwrap_or_default()
}

/// How many targets of a target group are healthy.
pub fn healthy(world: &World, group: &str) -> usize {
    let targets = world.cloud.elb.groups.get(group).map(|g| &g.targets);
    targets
        .into_iter()
        .flatten()
        .filter(|(_, t)| t.state == super::state::TargetState::Healthy)
        .count()
}

fn no_rule() -> AwsError {
    AwsError::new(400, "RuleNotFound", "One or more rules not found")
}

fn no_group() -> AwsError {
    AwsError::new(
        400,
        "TargetGroupNotFound",
        "One or more target groups not found",
    )
}

fn no_listener() -> AwsError {
    AwsError::new(400, "ListenerNotFound", "One or more listeners not found")
}

/// The load balancer whose rules or listeners name a target group; one at most.
pub fn balancer_of<'e>(elb: &'e Elb, group: &str) -> Option<&'e str> {
    let names = |actions: &[Value]| forwards(actions).iter().any(|(arn, _)| arn == group);
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
fn after(world: &mut World, wait: Duration, due: Due) {
    world.after(wait, crate::twin::world::Due::Cloud(super::Due::Elb(due)));
}
