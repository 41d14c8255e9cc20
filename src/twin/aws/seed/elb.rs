//! Load balancers and what hangs off them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::model::{Inventory, elb};
use crate::twin::aws::elb::normalize_actions;
use crate::twin::aws::state::*;

/// Fills in load balancers, listeners, rules and target groups.
pub fn seed_elb(cloud: &mut AwsAccount, inventory: &Inventory) {
    let out = &mut cloud.elb;
    for b in &inventory.load_balancers {
        let made = ElbBalancer {
            arn: b.arn.clone(),
            name: b.name.clone(),
            kind: b.kind.clone(),
            dns: b.dns_name.clone().unwrap_or_default(),
            vpc: b.vpc.clone().unwrap_or_default(),
            zones: b.zones.clone(),
        };
        out.balancers.insert(b.arn.clone(), made);
        out.tags.insert(b.arn.clone(), b.tags.clone());
    }
    for l in &inventory.listeners {
        let made = ElbListener {
            arn: l.arn.clone(),
            balancer: l.load_balancer.clone(),
            port: l.port.unwrap_or(80).into(),
            protocol: l.protocol.clone().unwrap_or_else(|| "HTTP".into()),
            actions: Vec::new(),
        };
        out.listeners.insert(l.arn.clone(), made);
        out.tags.insert(l.arn.clone(), l.tags.clone());
    }
    // Rules come after their listeners, because a default rule fills in its listener's actions.
    for rule in &inventory.rules {
        seed_rule(out, rule);
    }
    seed_classics(out, inventory);
    // Target groups keep the health that the snapshot saw, so a run does not begin with everything unhealthy.
    for group in &inventory.target_groups {
        let health = inventory
            .target_health
            .get(&group.arn)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let made = seed_target_group(group, health);
        out.tags.insert(group.arn.clone(), group.tags.clone());
        out.groups.insert(group.arn.clone(), made);
    }
}

/// Fills in classic load balancers. Whoever is registered and in no Auto Scaling group that fills it was registered one by
/// one.
fn seed_classics(out: &mut ElbState, inventory: &Inventory) {
    for classic in &inventory.classic_balancers {
        // What an Auto Scaling group registers is not registered by hand, and so is left out here.
        let filled = inventory
            .asgs
            .values()
            .filter(|a| a.registers_with(&classic.name));
        let filled = filled.flat_map(|a| a.instances.iter().map(|i| i.id.as_str()));
        let filled: BTreeSet<&str> = filled.collect();
        let targets = inventory.target_health.get(&classic.name);
        let targets = targets.into_iter().flatten();
        let by_hand = targets.filter(|t| !filled.contains(t.id.as_str()));
        let made = ClassicElb {
            vpc: classic.vpc.clone().unwrap_or_default(),
            zones: classic.zones.clone(),
            ports: (classic.instance_ports.iter())
                .filter_map(|p| u16::try_from(*p).ok())
                .collect(),
            registered: by_hand.map(|t| t.id.clone()).collect(),
            deregistered: BTreeSet::new(),
        };
        out.classics.insert(classic.name.clone(), made);
        out.tags.insert(classic.name.clone(), classic.tags.clone());
    }
}

/// The rule's actions with its target groups put back in.
fn complete_actions(rule: &elb::ListenerRule) -> Vec<Value> {
    // A snapshot keeps the target groups of a forward apart from its other settings, so they are put back together.
    let groups: Vec<Value> = rule
        .forward
        .iter()
        .map(|f| json!({"TargetGroupArn": f.arn, "Weight": f.weight}))
        .collect();
    let mut actions = rule
        .rest
        .get("Actions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    // Only one action forwards, and every other one is kept as it is.
    let forward = actions
        .iter_mut()
        .find(|a| a.get("Type").and_then(Value::as_str) == Some("forward"));
    match forward.and_then(Value::as_object_mut) {
        Some(forward) => {
            let config = forward.entry("ForwardConfig").or_insert_with(|| json!({}));
            config["TargetGroups"] = json!(groups);
        }
        // A rule without a forward of its own gets one, where the snapshot has weights for it.
        None if !groups.is_empty() => {
            actions.push(json!({"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}));
        }
        None => {}
    }
    normalize_actions(&actions)
}

fn seed_rule(out: &mut ElbState, rule: &elb::ListenerRule) {
    let (actions, list) = (complete_actions(rule), |member: &str| {
        rule.rest
            .get(member)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    });
    // The default rule's actions are the listener's.
    if rule.is_default {
        if let Some(listener) = out.listeners.get_mut(&rule.listener) {
            listener.actions = actions;
        }
        // A network load balancer's default action has no rule of its own.
        if rule.arn == rule.listener {
            return;
        }
        out.rules.insert(
            rule.arn.clone(),
            ElbRule {
                arn: rule.arn.clone(),
                listener: rule.listener.clone(),
                priority: "default".into(),
                conditions: Vec::new(),
                actions: Vec::new(),
                transforms: Vec::new(),
                default: true,
            },
        );
    } else {
        let made = ElbRule {
            arn: rule.arn.clone(),
            listener: rule.listener.clone(),
            priority: rule.priority.clone(),
            conditions: list("Conditions"),
            actions,
            transforms: list("Transforms"),
            default: false,
        };
        out.rules.insert(rule.arn.clone(), made);
    }
    out.tags.insert(rule.arn.clone(), rule.tags.clone());
}

fn seed_target_group(group: &elb::TargetGroup, health: &[elb::TargetHealth]) -> ElbTargetGroup {
    let port = i64::from(group.port.unwrap_or(80));
    let mut targets = BTreeMap::new();
    for target in health {
        let state = match target.state.as_str() {
            "healthy" => ElbTargetState::Healthy,
            "unhealthy" => ElbTargetState::Unhealthy("Target.FailedHealthChecks"),
            // A target that has no registration at all is left out, as nothing would ever remove it.
            "draining" | "unused" if target.reason.as_deref() == Some("Target.NotRegistered") => {
                continue;
            }
            "draining" => ElbTargetState::Draining,
            // A target in any other state begins as one that is being checked.
            _ => ElbTargetState::Initial,
        };
        targets.insert(
            (target.id.clone(), target.port.map_or(port, i64::from)),
            ElbTarget {
                state,
                ..ElbTarget::default()
            },
        );
    }
    // Attributes that the twin does not look at are there, so that a client may change them.
    let attributes = [
        (
            "deregistration_delay.timeout_seconds",
            group.deregistration_delay_seconds.to_string(),
        ),
        ("load_balancing.algorithm.type", "round_robin".to_owned()),
        (
            "load_balancing.cross_zone.enabled",
            "use_load_balancer_configuration".to_owned(),
        ),
        ("slow_start.duration_seconds", "0".to_owned()),
        ("stickiness.enabled", group.sticky.to_string()),
        ("stickiness.type", "lb_cookie".to_owned()),
        ("stickiness.lb_cookie.duration_seconds", "86400".to_owned()),
        (
            "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count",
            "1".to_owned(),
        ),
    ];
    ElbTargetGroup {
        arn: group.arn.clone(),
        name: group.name.clone(),
        protocol: group.protocol.clone().unwrap_or_else(|| "HTTP".into()),
        port,
        target_type: group.target_type.clone(),
        vpc: group.vpc.clone().unwrap_or_default(),
        interval: group.health_check_interval_seconds.into(),
        healthy_threshold: group.healthy_threshold.into(),
        unhealthy_threshold: group.unhealthy_threshold.into(),
        attributes: attributes
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect(),
        targets,
        checked: false,
    }
}
