//! Targets: registered, checked, drained (ELB-2, ELB-7, ELB-8).

use std::time::Duration;

use serde_json::{Value, json};

use super::{ElbEvent, balancer_of_group, group_not_found, schedule_after};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::kube::{self, ProbeResult};
use crate::twin::aws::state::{ElbState, ElbTarget, ElbTargetGroup, ElbTargetState};
use crate::twin::world::SimWorld;

/// Registers a target; a draining one is registered again.
pub fn register_target(world: &mut SimWorld, group: &str, id: &str, port: Option<i64>) {
    let turn = world.cloud.next_number();
    let Some(found) = world.cloud.elb.groups.get_mut(group) else {
        return;
    };
    let key = (id.to_owned(), port.unwrap_or(found.port));
    // A target that drains begins again as a new one, with another turn, so that the end of its draining is passed
    // over.
    match found.targets.get(&key) {
        Some(target) if target.state != ElbTargetState::Draining => {}
        Some(_) | None => {
            found.targets.insert(
                key,
                ElbTarget {
                    turn,
                    ..ElbTarget::default()
                },
            );
        }
    }
    update_health_checks(world, &[group.to_owned()]);
}

/// Deregisters a target: it drains for the group's delay, or goes at once where no rule uses the group (ELB-7).
pub fn deregister_target(world: &mut SimWorld, group: &str, id: &str, port: Option<i64>) {
    // A group that no rule names has no connections to wait for, so its target goes at once (ELB-7).
    let used = balancer_of_group(&world.cloud.elb, group).is_some();
    let delay = deregistration_delay(world, group);
    let Some(found) = world.cloud.elb.groups.get_mut(group) else {
        return;
    };
    // Without a port the group's own is meant (ELB-15).
    let key = (id.to_owned(), port.unwrap_or(found.port));
    let Some(target) = found
        .targets
        .get_mut(&key)
        .filter(|t| t.state != ElbTargetState::Draining)
    else {
        return;
    };
    if !used || delay.is_zero() {
        found.targets.remove(&key);
        return;
    }
    // The turn tells the event below from a later registration under the same name.
    target.state = ElbTargetState::Draining;
    let turn = target.turn;
    schedule_after(
        world,
        delay,
        ElbEvent::Drained {
            group: group.to_owned(),
            target: key,
            turn,
        },
    );
}

/// The attribute that says how long a target that goes may end its connections, in seconds.
const DEREGISTRATION_DELAY_KEY: &str = "deregistration_delay.timeout_seconds";

/// The group's deregistration delay.
pub fn deregistration_delay(world: &SimWorld, group: &str) -> Duration {
    let group = world.cloud.elb.groups.get(group);
    let seconds = group.and_then(|g| g.attributes.get(DEREGISTRATION_DELAY_KEY)?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(300))
}

impl ElbState {
    /// Every group's deregistration delay is so many times shorter.
    pub fn shorten_deregistration_delays(&mut self, times: u32) {
        for group in self.groups.values_mut() {
            if let Some(delay) = group.attributes.get_mut(DEREGISTRATION_DELAY_KEY)
                && let Ok(seconds) = delay.parse::<u32>()
            {
                *delay = (seconds / times).to_string();
            }
        }
    }
}

/// The delay is over.
pub fn finish_draining(world: &mut SimWorld, group: &str, key: &(String, i64), turn: u64) {
    let Some(group) = world.cloud.elb.groups.get_mut(group) else {
        return;
    };
    if group
        .targets
        .get(key)
        .is_some_and(|t| t.turn == turn && t.state == ElbTargetState::Draining)
    {
        group.targets.remove(key);
    }
}

/// The instance is no more: no group knows it.
pub fn forget_instance(world: &mut SimWorld, id: &str) {
    for group in world.cloud.elb.groups.values_mut() {
        group.targets.retain(|(i, _), _| i != id);
    }
    super::forget_classic(world, id);
}

fn target_states<'w>(
    world: &'w SimWorld,
    group: &str,
    id: &'w str,
) -> impl Iterator<Item = &'w ElbTargetState> {
    world
        .cloud
        .elb
        .groups
        .get(group)
        .into_iter()
        .flat_map(|g| &g.targets)
        .filter(move |((i, _), _)| i == id)
        .map(|(_, t)| &t.state)
}

/// Whether the instance still drains in the group.
pub fn is_draining(world: &SimWorld, group: &str, id: &str) -> bool {
    target_states(world, group, id).any(|s| *s == ElbTargetState::Draining)
}

/// Whether the instance is healthy in the group.
pub fn is_healthy(world: &SimWorld, group: &str, id: &str) -> bool {
    target_states(world, group, id).any(|s| *s == ElbTargetState::Healthy)
}

/// Whether the instance fails the group's health checks.
pub fn is_unhealthy(world: &SimWorld, group: &str, id: &str) -> bool {
    target_states(world, group, id).any(|s| matches!(s, ElbTargetState::Unhealthy { .. }))
}

/// Begins health checks wherever a rule uses a group.
pub fn start_health_checks(world: &mut SimWorld) {
    let groups: Vec<String> = world.cloud.elb.groups.keys().cloned().collect();
    update_health_checks(world, &groups);
}

/// Begins or ends the health checks of groups whose rules or targets have changed.
pub fn update_health_checks(world: &mut SimWorld, groups: &[String]) {
    for arn in groups {
        let used = balancer_of_group(&world.cloud.elb, arn).is_some();
        let Some(group) = world.cloud.elb.groups.get_mut(arn) else {
            continue;
        };
        // The checks stop with the last rule, and the targets begin again as unused (ELB-2).
        if !used {
            for target in group
                .targets
                .values_mut()
                .filter(|t| t.state != ElbTargetState::Draining)
            {
                *target = ElbTarget {
                    turn: target.turn,
                    ..ElbTarget::default()
                };
            }
        } else if !group.checked && !group.targets.is_empty() {
            // One round of checks is enough for the group, however many rules name it.
            group.checked = true;
            let interval = check_interval(group);
            schedule_after(
                world,
                interval,
                ElbEvent::HealthChecked { group: arn.clone() },
            );
        }
    }
}

fn check_interval(group: &ElbTargetGroup) -> Duration {
    Duration::from_secs(u64::try_from(group.interval).unwrap_or(30).max(5))
}

/// One round of health checks; they stop when no rule uses the group or nothing is left to check.
pub fn run_health_check(world: &mut SimWorld, arn: &str) {
    let used = balancer_of_group(&world.cloud.elb, arn).is_some();
    let Some(group) = world.cloud.elb.groups.get_mut(arn) else {
        return;
    };
    // Without targets or without a rule there is nothing to check; the checks begin again when either appears.
    if !used || group.targets.is_empty() {
        group.checked = false;
        return;
    }
    let (healthy_after, unhealthy_after) = (group.healthy_threshold, group.unhealthy_threshold);
    let (by_instance, interval) = (group.target_type == "instance", check_interval(group));
    // A target that drains is checked no more.
    let keys: Vec<(String, i64)> = group
        .targets
        .iter()
        .filter(|(_, t)| t.state != ElbTargetState::Draining)
        .map(|(k, _)| k.clone())
        .collect();
    // An instance that a fault makes unreachable does not answer; ip targets are taken to answer.
    for key in keys {
        let probe = if world.cloud.elb.unreachable.contains(&key.0) {
            ProbeResult::NoAnswer
        } else if by_instance {
            kube::probe_node_port(world, &key.0, key.1)
        } else {
            ProbeResult::Answers
        };
        let Some(target) = world
            .cloud
            .elb
            .groups
            .get_mut(arn)
            .and_then(|g| g.targets.get_mut(&key))
        else {
            continue;
        };
        // Only so many answers in a row change a target's state (ELB-8).
        count_probe(target, probe, healthy_after, unhealthy_after);
    }
    schedule_after(
        world,
        interval,
        ElbEvent::HealthChecked {
            group: arn.to_owned(),
        },
    );
}

fn count_probe(
    target: &mut ElbTarget,
    probe: ProbeResult,
    healthy_after: i64,
    unhealthy_after: i64,
) {
    // Both counts start over with each change, as the thresholds are about answers in a row.
    let reason = match probe {
        ProbeResult::Answers => {
            (target.passes, target.fails) = (target.passes + 1, 0);
            if target.passes >= healthy_after {
                target.state = ElbTargetState::Healthy;
            }
            return;
        }
        ProbeResult::NoAnswer => "Target.Timeout",
        ProbeResult::Refuses => "Target.FailedHealthChecks",
    };
    (target.passes, target.fails) = (0, target.fails + 1);
    if target.fails >= unhealthy_after {
        target.state = ElbTargetState::Unhealthy(reason);
    }
}

/// A target's state, reason and description as DescribeTargetHealth says them.
fn show_target_health(
    world: &SimWorld,
    group: &ElbTargetGroup,
    id: &str,
    target: Option<&ElbTarget>,
) -> Value {
    // The order of the checks is ELB's: registration first, then use, then the zone and the instance, and the health
    // last.
    let say = |state: &str, reason: &str, description: &str| json!({"State": state, "Reason": reason, "Description": description});
    let Some(target) = target else {
        return say(
            "unused",
            "Target.NotRegistered",
            "Target is not registered to the target group",
        );
    };
    // A target that drains is shown as draining whatever its health is (ELB-7).
    if target.state == ElbTargetState::Draining {
        return say(
            "draining",
            "Target.DeregistrationInProgress",
            "Target deregistration is in progress",
        );
    }
    let Some(balancer) = balancer_of_group(&world.cloud.elb, &group.arn)
        .and_then(|arn| world.cloud.elb.balancers.get(arn))
    else {
        return say(
            "unused",
            "Target.NotInUse",
            "Target group is not configured to receive traffic from the load balancer",
        );
    };
    // A target in a zone that the balancer does not use is never checked.
    if let Some(instance) = world.cloud.instances.get(id) {
        if !balancer.zones.contains(&instance.zone) {
            return say(
                "unused",
                "Target.NotInUse",
                "Target is in an Availability Zone that is not enabled for the load balancer",
            );
        }
        // An instance that has ended cannot become healthy, and is shown as unused.
        if instance.state != "running" && instance.state != "pending" {
            return say(
                "unused",
                "Target.InvalidState",
                "Target is in the stopped or terminated state",
            );
        }
    }
    // Before the first answer a target is being registered; from then on its checks run (ELB-8).
    match target.state {
        ElbTargetState::Initial if target.passes + target.fails == 0 => say(
            "initial",
            "Elb.RegistrationInProgress",
            "Target registration is in progress",
        ),
        ElbTargetState::Initial => say(
            "initial",
            "Elb.InitialHealthChecking",
            "Initial health checks in progress",
        ),
        ElbTargetState::Healthy => json!({"State": "healthy"}),
        ElbTargetState::Unhealthy("Target.Timeout") => {
            say("unhealthy", "Target.Timeout", "Request timed out")
        }
        ElbTargetState::Unhealthy(reason) => say("unhealthy", reason, "Health checks failed"),
        ElbTargetState::Draining => say(
            "draining",
            "Target.DeregistrationInProgress",
            "Target deregistration is in progress",
        ),
    }
}

/// DescribeTargetHealth.
pub fn describe_health(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let group = world
        .cloud
        .elb
        .groups
        .get(input.require_text("TargetGroupArn")?)
        .ok_or_else(group_not_found)?;
    // A target that is asked for by name is answered even when it is not registered.
    let mut keys: Vec<(String, i64)> = requested_targets(input, group).collect();
    if keys.is_empty() {
        keys = group.targets.keys().cloned().collect();
    }
    let described: Vec<Value> = keys
        .iter()
        .map(|(id, port)| {
            json!({
                "Target": {"Id": id, "Port": port},
                "HealthCheckPort": port.to_string(),
                "TargetHealth": show_target_health(world, group, id, group.targets.get(&(id.clone(), *port))),
            })
        })
        .collect();
    Ok(json!({"TargetHealthDescriptions": described}))
}

/// The targets a request names.
fn requested_targets(input: Input, group: &ElbTargetGroup) -> impl Iterator<Item = (String, i64)> {
    input.get_list("Targets").iter().map(Input).filter_map(|t| {
        Some((
            t.get_text("Id")?.to_owned(),
            t.get_number("Port").unwrap_or(group.port),
        ))
    })
}

/// RegisterTargets.
pub fn register_targets(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let arn = input.require_text("TargetGroupArn")?;
    let group = world
        .cloud
        .elb
        .groups
        .get(arn)
        .ok_or_else(group_not_found)?;
    // Ports come from the request, or are the group's own.
    let wanted: Vec<(String, i64)> = requested_targets(input, group).collect();
    if wanted.is_empty() {
        return Err(AwsError::validation_error(
            "At least one target must be specified",
        ));
    }
    // An instance that is not running cannot be registered (ELB-13).
    if group.target_type == "instance" {
        for (id, _) in &wanted {
            match world.cloud.instances.get(id) {
                None => {
                    return Err(AwsError::new(
                        400,
                        "InvalidTarget",
                        format!("The following targets are not valid instances: '{id}'"),
                    ));
                }
                Some(i) if i.state != "running" => {
                    return Err(AwsError::new(
                        400,
                        "InvalidTarget",
                        format!(
                            "The following targets are not in a running state and cannot be registered: '{id}'"
                        ),
                    ));
                }
                Some(_) => {}
            }
        }
    }
    // The checks above hold for all of them, so that no target is registered when another is refused.
    for (id, port) in wanted {
        register_target(world, arn, &id, Some(port));
    }
    Ok(json!({}))
}

/// DeregisterTargets: one that is not registered is no error. One that was registered with a port of its own is known by it
/// only (ELB-15).
pub fn deregister_targets(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let arn = input.require_text("TargetGroupArn")?;
    let group = world
        .cloud
        .elb
        .groups
        .get(arn)
        .ok_or_else(group_not_found)?;
    let named: Vec<(String, i64)> = requested_targets(input, group).collect();
    for (id, port) in named {
        deregister_target(world, arn, &id, Some(port));
    }
    Ok(json!({}))
}
