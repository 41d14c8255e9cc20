//! Writes to rules, listeners, attributes and tags.

use serde_json::{Value, json};

use super::actions::{check, forwards, normal};
use super::{controller, no_group, no_listener, no_rule, show, targets};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::world::World;

/// ModifyRule: what is given replaces what was there; default rules are changed through their listener.
pub fn modify_rule(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let arn = input.need("RuleArn")?;
    let elb = &world.cloud.elb;
    let rule = elb.rules.get(arn).ok_or_else(no_rule)?;
    if rule.default {
        return Err(AwsError::new(
            400,
            "OperationNotPermitted",
            format!("Default rule '{arn}' cannot be modified"),
        ));
    }
    let balancer = elb
        .listeners
        .get(&rule.listener)
        .map(|l| l.balancer.clone())
        .unwrap_or_default();
    let (actions, conditions) = (
        input.list("Actions").to_vec(),
        input.list("Conditions").to_vec(),
    );
    if input.get("Actions").is_some() {
        check(elb, &balancer, &actions, &rule.actions)?;
    }
    if input.truth("ResetTransforms") == Some(true) && input.get("Transforms").is_some() {
        return Err(AwsError::validation(
            "You cannot specify both Transforms and ResetTransforms",
        ));
    }
    let touched: Vec<String> = forwards(&rule.actions)
        .into_iter()
        .chain(forwards(&actions))
        .map(|(arn, _)| arn)
        .collect();
    if let Some(rule) = world.cloud.elb.rules.get_mut(arn) {
        if input.get("Actions").is_some() {
            rule.actions = normal(&actions);
        }
        if input.get("Conditions").is_some() {
            rule.conditions = conditions;
        }
        if input.get("Transforms").is_some() {
            rule.transforms = input.list("Transforms").to_vec();
        } else if input.truth("ResetTransforms") == Some(true) {
            rule.transforms.clear();
        }
    }
    targets::recheck(world, &touched);
    controller::edited(world, arn);
    let elb = &world.cloud.elb;
    let shown: Vec<Value> = elb
        .rules
        .get(arn)
        .map(|rule| show::rule(elb, rule))
        .into_iter()
        .collect();
    Ok(json!({"Rules": shown}))
}

/// ModifyListener: the default actions.
pub fn modify_listener(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let arn = input.need("ListenerArn")?;
    let elb = &world.cloud.elb;
    let listener = elb.listeners.get(arn).ok_or_else(no_listener)?;
    let actions = input.list("DefaultActions").to_vec();
    let mut touched: Vec<String> = forwards(&listener.actions)
        .into_iter()
        .map(|(arn, _)| arn)
        .collect();
    if input.get("DefaultActions").is_some() {
        check(elb, &listener.balancer, &actions, &listener.actions)?;
        let network = elb
            .balancers
            .get(&listener.balancer)
            .is_some_and(|b| b.kind == "network");
        if network
            && actions
                .iter()
                .any(|a| Input(a).text("Type") != Some("forward"))
        {
            return Err(AwsError::new(
                400,
                "InvalidLoadBalancerAction",
                "Network load balancers support forward actions only",
            ));
        }
        touched.extend(forwards(&actions).into_iter().map(|(arn, _)| arn));
    }
    if let Some(listener) = world.cloud.elb.listeners.get_mut(arn) {
        if input.get("DefaultActions").is_some() {
            listener.actions = normal(&actions);
        }
        if let Some(port) = input.number("Port") {
            listener.port = port;
        }
        if let Some(protocol) = input.text("Protocol") {
            listener.protocol = protocol.to_owned();
        }
    }
    targets::recheck(world, &touched);
    let shown: Vec<Value> = world
        .cloud
        .elb
        .listeners
        .get(arn)
        .map(show::listener)
        .into_iter()
        .collect();
    Ok(json!({"Listeners": shown}))
}

/// SetRulePriorities.
pub fn set_priorities(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let wanted: Vec<(String, i64)> = input
        .list("RulePriorities")
        .iter()
        .map(Input)
        .filter_map(|p| Some((p.text("RuleArn")?.to_owned(), p.number("Priority")?)))
        .collect();
    for (arn, priority) in &wanted {
        let rule = world.cloud.elb.rules.get(arn).ok_or_else(no_rule)?;
        if rule.default {
            return Err(AwsError::new(
                400,
                "OperationNotPermitted",
                format!("Default rule '{arn}' cannot be modified"),
            ));
        }
        let text = priority.to_string();
        let taken = world.cloud.elb.rules.values().any(|r| {
            r.listener == rule.listener
                && r.priority == text
                && !wanted.iter().any(|(a, _)| *a == r.arn)
        });
        if taken {
            return Err(AwsError::new(
                400,
                "PriorityInUse",
                format!("Priority '{priority}' is currently in use"),
            ));
        }
    }
    let mut shown = Vec::new();
    for (arn, priority) in &wanted {
        if let Some(rule) = world.cloud.elb.rules.get_mut(arn) {
            rule.priority = priority.to_string();
        }
        let elb = &world.cloud.elb;
        shown.extend(elb.rules.get(arn).map(|rule| show::rule(elb, rule)));
    }
    Ok(json!({"Rules": shown}))
}

/// ModifyTargetGroupAttributes.
pub fn modify_attributes(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let group = world
        .cloud
        .elb
        .groups
        .get_mut(input.need("TargetGroupArn")?)
        .ok_or_else(no_group)?;
    let mut changed = group.attributes.clone();
    for attribute in input.list("Attributes").iter().map(Input) {
        let (key, value) = (
            attribute.need("Key")?,
            attribute.text("Value").unwrap_or_default(),
        );
        if !changed.contains_key(key) {
            return Err(AwsError::new(
                400,
                "InvalidConfigurationRequest",
                format!("Target group attribute key '{key}' is not recognized"),
            ));
        }
        let in_range =
            |from: i64, to: i64| value.parse::<i64>().is_ok_and(|v| (from..=to).contains(&v));
        let good = match key {
            "deregistration_delay.timeout_seconds" => in_range(0, 3600),
            "slow_start.duration_seconds" => value == "0" || in_range(30, 900),
            "stickiness.enabled" => value == "true" || value == "false",
            _ => true,
        };
        if !good {
            return Err(AwsError::validation(format!(
                "'{value}' is not a valid value for the target group attribute '{key}'"
            )));
        }
        changed.insert(key.to_owned(), value.to_owned());
    }
    group.attributes = changed;
    Ok(json!({"Attributes": show::attributes(&group.attributes)}))
}

/// AddTags.
pub fn tag(world: &mut World, input: Input) -> Result<Value, AwsError> {
    for arn in input.texts("ResourceArns") {
        show::check_exists(&world.cloud.elb, &arn)?;
        let tags = world.cloud.elb.tags.entry(arn).or_default();
        for tag in input.list("Tags").iter().map(Input) {
            tags.insert(
                tag.need("Key")?.to_owned(),
                tag.text("Value").unwrap_or_default().to_owned(),
            );
        }
    }
    Ok(json!({}))
}

/// RemoveTags.
pub fn untag(world: &mut World, input: Input) -> Result<Value, AwsError> {
    for arn in input.texts("ResourceArns") {
        show::check_exists(&world.cloud.elb, &arn)?;
        if let Some(tags) = world.cloud.elb.tags.get_mut(&arn) {
            for key in input.texts("TagKeys") {
                tags.remove(&key);
            }
        }
    }
    Ok(json!({}))
}
