//! Targets: registered, checked, drained (ELB-2, ELB-7, ELB-8).

use std::time::Duration;

use serde_json::{Value, json};

use super::{Due, after, balancer_of, forwards, no_group};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::kube::{self, Probe};
use crate::twin::aws::state::{Elb, Target, TargetGroup, TargetState};
use crate::twin::world::World;

/// Registers a target; a draining one is registered anew.
pub fn register(world: &mut World, group: &str, id: &str, port: Option<i64>) {
    let turn = world.cloud.next_number();
    let Some(found) = world.cloud.elb.groups.get_mut(group) else {
        return;
    };
    let key = (id.to_owned(), port.unwrap_or(found.port));
    match found.targets.get(&key) {
        Some(target) if target.state != TargetState::Draining => {}
        Some(_) | None => {
            found.targets.insert(
                key,
                Target {
                    turn,
                    ..Target::default()
                },
            );
        }
    }
    recheck(world, &[group.to_owned()]);
}

/// Deregisters a target: it drains for the group's delay, or goes at once where no rule uses the group (ELB-7).
pub fn deregister(world: &mut World, group: &str, id: &str, port: Option<i64>) {
    let used = balancer_of(&world.cloud.elb, group).is_some();
    let delay = delay(world, group);
    let Some(found) = world.cloud.elb.groups.get_mut(group) else {
        return;
    };
    let keys: Vec<(String, i64)> = found
        .targets
        .keys()
        .filter(|(i, p)| i == id && port.is_none_or(|port| port == *p))
        .cloned()
        .collect();
    for key in keys {
        let Some(found) = world.cloud.elb.groups.get_mut(group) else {
            return;
        };
        let Some(target) = found
            .targets
            .get_mut(&key)
            .filter(|t| t.state != TargetState::Draining)
        else {
            continue;
        };
        if !used || delay.is_zero() {
            found.targets.remove(&key);
            continue;
        }
        target.state = TargetState::Draining;
        let turn = target.turn;
        after(
            world,
            delay,
            Due::Drained {
                group: group.to_owned(),
                target: key,
                turn,
            },
        );
    }
}

/// The attribute that says how long a target that goes may end its connections, in seconds.
const DELAY: &str = "deregistration_delay.timeout_seconds";

/// The group's deregistration delay.
pub fn delay(world: &World, group: &str) -> Duration {
    let group = world.cloud.elb.groups.get(group);
    let seconds = group.and_then(|g| g.attributes.get(DELAY)?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(300))
}

impl Elb {
    /// Every group's deregistration delay is so many times shorter.
    pub fn hasten(&mut self, times: u32) {
        for group in self.groups.values_mut() {
            if let Some(delay) = group.attributes.get_mut(DELAY)
                && let Ok(seconds) = delay.parse::<u32>()
            {
                *delay = (seconds / times).to_string();
            }
        }
    }
}

/// The delay is over.
pub fn drained(world: &mut World, group: &str, key: &(String, i64), turn: u64) {
    let Some(group) = world.cloud.elb.groups.get_mut(group) else {
        return;
    };
    if group
        .targets
        .get(key)
        .is_some_and(|t| t.turn == turn && t.state == TargetState::Draining)
    {
        group.targets.remove(key);
    }
}

/// The instance is no more: no group knows it.
pub fn forget(world: &mut World, id: &str) {
    for group in world.cloud.elb.groups.values_mut() {
        group.targets.retain(|(i, _), _| i != id);
    }
    super::forget_classic(world, id);
}

fn states<'w>(world: &'w World, group: &str, id: &'w str) -> impl Iterator<Item = &'w TargetState> {
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
pub fn is_draining(world: &World, group: &str, id: &str) -> bool {
    states(world, group, id).any(|s| *s == TargetState::Draining)
}

/// Whether the instance is healthy in the group.
pub fn is_healthy(world: &World, group: &str, id: &str) -> bool {
    states(world, group, id).any(|s| *s == TargetState::Healthy)
}

/// Begins health checks wherever a rule uses a group.
pub fn check_all(world: &mut World) {
    let groups: Vec<String> = world.cloud.elb.groups.keys().cloned().collect();
    recheck(world, &groups);
}

/// Begins or ends the health checks of groups whose rules or targets have changed.
pub fn recheck(world: &mut World, groups: &[String]) {
    for arn in groups {
        let used = balancer_of(&world.cloud.elb, arn).is_some();
        let Some(group) = world.cloud.elb.groups.get_mut(arn) else {
            continue;
        };
        if !used {
            for target in group
                .targets
                .values_mut()
                .filter(|t| t.state != TargetState::Draining)
            {
                *target = Target {
                    turn: target.turn,
                    ..Target::default()
                };
            }
        } else if !group.checked && !group.targets.is_empty() {
            group.checked = true;
            let interval = interval(group);
            after(world, interval, Due::Checked { group: arn.clone() });
        }
    }
}

fn interval(group: &TargetGroup) -> Duration {
    Duration::from_secs(u64::try_from(group.interval).unwrap_or(30).max(5))
}

/// One round of health checks; they stop when no rule uses the group or nothing is left to check.
pub fn checked(world: &mut World, arn: &str) {
    let used = balancer_of(&world.cloud.elb, arn).is_some();
    let Some(group) = world.cloud.elb.groups.get_mut(arn) else {
        return;
    };
    if !used || group.targets.is_empty() {
        group.checked = false;
        return;
    }
    let (healthy_after, unhealthy_after) = (group.healthy_threshold, group.unhealthy_threshold);
    let (by_instance, interval) = (group.target_type == "instance", interval(group));
    let keys: Vec<(String, i64)> = group
        .targets
        .iter()
        .filter(|(_, t)| t.state != TargetState::Draining)
        .map(|(k, _)| k.clone())
        .collect();
    for key in keys {
        let probe = if world.cloud.elb.unreachable.contains(&key.0) {
            Probe::NoAnswer
        } else if by_instance {
            kube::probe(world, &key.0, key.1)
        } else {
            Probe::Answers
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
        count(target, probe, healthy_after, unhealthy_after);
    }
    after(
        world,
        interval,
        Due::Checked {
            group: arn.to_owned(),
        },
    );
}

fn count(target: &mut Target, probe: Probe, healthy_after: i64, unhealthy_after: i64) {
    let reason = match probe {
        Probe::Answers => {
            (target.passes, target.fails) = (target.passes + 1, 0);
            if target.passes >= healthy_after {
                target.state = TargetState::Healthy;
            }
            return;
        }
        Probe::NoAnswer => "Target.Timeout",
        Probe::Refuses => "Target.FailedHealthChecks",
    };
    (target.passes, target.fails) = (0, target.fails + 1);
    if target.fails >= unhealthy_after {
        target.state = TargetState::Unhealthy(reason);
    }
}

/// A target's state, reason and description as DescribeTargetHealth says them.
fn shown(world: &World, group: &TargetGroup, id: &str, target: Option<&Target>) -> Value {
    let say = |state: &str, reason: &str, description: &str| json!({"State": state, "Reason": reason, "Description": description});
    let Some(target) = target else {
        return say(
            "unused",
            "Target.NotRegistered",
            "Target is not registered to the target group",
        );
    };
    if target.state == TargetState::Draining {
        return say(
            "draining",
            "Target.DeregistrationInProgress",
            "Target deregistration is in progress",
        );
    }
    let Some(balancer) = balancer_of(&world.cloud.elb, &group.arn)
        .and_then(|arn| world.cloud.elb.balancers.get(arn))
    else {
        return say(
            "unused",
            "Target.NotInUse",
            "Target group is not configured to receive traffic from the load balancer",
        );
    };
    if let Some(instance) = world.cloud.instances.get(id) {
        if !balancer.zones.contains(&instance.zone) {
            return say(
                "unused",
                "Target.NotInUse",
                "Target is in an Availability Zone that is not enabled for the load balancer",
            );
        }
        if instance.state != "running" && instance.state != "pending" {
            return say(
                "unused",
                "Target.InvalidState",
                "Target is in the stopped or terminated state",
            );
        }
    }
    match target.state {
        TargetState::Initial if target.passes + target.fails == 0 => say(
            "initial",
            "Elb.RegistrationInProgress",
            "Target registration is in progress",
        ),
        TargetState::Initial => say(
            "initial",
            "Elb.InitialHealthChecking",
            "Initial health checks in progress",
        ),
        TargetState::Healthy => json!({"State": "healthy"}),
        TargetState::Unhealthy("Target.Timeout") => {
            say("unhealthy", "Target.Timeout", "Request timed out")
        }
        TargetState::Unhealthy(reason) => say("unhealthy", reason, "Health checks failed"),
        TargetState::Draining => say(
            "draining",
            "Target.DeregistrationInProgress",
            "Target deregistration is in progress",
        ),
    }
}

/// DescribeTargetHealth.
pub fn health(world: &World, input: Input) -> Result<Value, AwsError> {
    let group = world
        .cloud
        .elb
        .groups
        .get(input.need("TargetGroupArn")?)
        .ok_or_else(no_group)?;
    let mut keys: Vec<(String, i64)> = asked(input, group).collect();
    if keys.is_empty() {
        keys = group.targets.keys().cloned().collect();
    }
    let described: Vec<Value> = keys
        .iter()
        .map(|(id, port)| {
            json!({
                "Target": {"Id": id, "Port": port},
                "HealthCheckPort": port.to_string(),
                "TargetHealth": shown(world, group, id, group.targets.get(&(id.clone(), *port))),
            })
        })
        .collect();
    Ok(json!({"TargetHealthDescriptions": described}))
}

/// The targets a request names.
fn asked(input: Input, group: &TargetGroup) -> impl Iterator<Item = (String, i64)> {
    input.list("Targets").iter().map(Input).filter_map(|t| {
        Some((
            t.text("Id")?.to_owned(),
            t.number("Port").unwrap_or(group.port),
        ))
    })
}

/// RegisterTargets.
pub fn register_all(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let arn = input.need("TargetGroupArn")?;
    let group = world.cloud.elb.groups.get(arn).ok_or_else(no_group)?;
    let wanted: Vec<(String, i64)> = asked(input, group).collect();
    if wanted.is_empty() {
        return Err(AwsError::validation(
            "At least one target must be specified",
        ));
    }
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
    for (id, port) in wanted {
        register(world, arn, &id, Some(port));
    }
    Ok(json!({}))
}

/// DeregisterTargets: one that is not registered is no error. One that was registered with a port of its own is known by it
/// only (ELB-15).
pub fn deregister_all(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let arn = input.need("TargetGroupArn")?;
    let group = world.cloud.elb.groups.get(arn).ok_or_else(no_group)?;
    let named: Vec<(String, i64)> = asked(input, group).collect();
    for (id, port) in named {
        deregister(world, arn, &id, Some(port));
    }
    Ok(json!({}))
}

/// What somebody gets who asks for something behind a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visit {
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
pub fn visit(world: &mut World, rule: &str) -> Visit {
    let Some((group, id, port)) = pick(world, rule) else {
        return Visit::Nowhere;
    };
    match kube::probe(world, &id, port) {
        Probe::Answers => Visit::Answered(group),
        Probe::Refuses => Visit::Refused(group),
        Probe::NoAnswer => Visit::TimedOut(group),
    }
}

/// Where a request that meets `rule` goes: group, instance and port. None when the balancer has nowhere to send it.
/// Without a healthy target the balancer fails open and takes any.
fn pick(world: &mut World, rule: &str) -> Option<(String, String, i64)> {
    let elb = &world.cloud.elb;
    let found = elb.rules.get(rule)?;
    let actions = if found.default {
        &elb.listeners.get(&found.listener)?.actions
    } else {
        &found.actions
    };
    let groups = forwards(actions);
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
                    t.state == TargetState::Healthy
                } else {
                    t.state != TargetState::Draining
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
