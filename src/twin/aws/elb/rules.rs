//! Writes to rules, listeners, attributes and tags.

use serde_json::{Value, json};

use super::actions::{check_actions, forward_weights, normalize_actions};
use super::{group_not_found, listener_not_found, reads, rule_not_found, targets};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::world::SimWorld;

/// ModifyRule: what is given replaces what was there; default rules are changed through their listener.
pub fn modify_rule(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let arn = input.require_text("RuleArn")?;
    let elb = &world.cloud.elb;
    let rule = elb.rules.get(arn).ok_or_else(rule_not_found)?;
    // The default rule is changed through its listener (ELB-1).
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
        input.get_list("Actions").to_vec(),
        input.get_list("Conditions").to_vec(),
    );
    // The actions are checked against the balancer that the rule belongs to; what is left out stays as it is.
    if input.get_member("Actions").is_some() {
        check_actions(elb, &balancer, &actions, &rule.actions)?;
    }
    if input.get_bool("ResetTransforms") == Some(true) && input.get_member("Transforms").is_some() {
        return Err(AwsError::validation_error(
            "You cannot specify both Transforms and ResetTransforms",
        ));
    }
    // Groups that a rule begins or ends to name change their health checks (ELB-2).
    let touched: Vec<String> = forward_weights(&rule.actions)
        .into_iter()
        .chain(forward_weights(&actions))
        .map(|(arn, _)| arn)
        .collect();
    // Each part that is given replaces what was there as a whole (ELB-1).
    if let Some(rule) = world.cloud.elb.rules.get_mut(arn) {
        if input.get_member("Actions").is_some() {
            rule.actions = normalize_actions(&actions);
        }
        if input.get_member("Conditions").is_some() {
            rule.conditions = conditions;
        }
        if input.get_member("Transforms").is_some() {
            rule.transforms = input.get_list("Transforms").to_vec();
        } else if input.get_bool("ResetTransforms") == Some(true) {
            rule.transforms.clear();
        }
    }
    targets::update_health_checks(world, &touched);
    let elb = &world.cloud.elb;
    let shown: Vec<Value> = elb
        .rules
        .get(arn)
        .map(|rule| reads::show_rule(elb, rule))
        .into_iter()
        .collect();
    Ok(json!({"Rules": shown}))
}

/// ModifyListener: the default actions.
pub fn modify_listener(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let arn = input.require_text("ListenerArn")?;
    let elb = &world.cloud.elb;
    let listener = elb.listeners.get(arn).ok_or_else(listener_not_found)?;
    let actions = input.get_list("DefaultActions").to_vec();
    // The groups of the old and of the new actions are both touched.
    let mut touched: Vec<String> = forward_weights(&listener.actions)
        .into_iter()
        .map(|(arn, _)| arn)
        .collect();
    if input.get_member("DefaultActions").is_some() {
        check_actions(elb, &listener.balancer, &actions, &listener.actions)?;
        // A network balancer forwards and nothing else.
        let network = elb
            .balancers
            .get(&listener.balancer)
            .is_some_and(|b| b.kind == "network");
        if network
            && actions
                .iter()
                .any(|a| Input(a).get_text("Type") != Some("forward"))
        {
            return Err(AwsError::new(
                400,
                "InvalidLoadBalancerAction",
                "Network load balancers support forward actions only",
            ));
        }
        touched.extend(forward_weights(&actions).into_iter().map(|(arn, _)| arn));
    }
    if let Some(listener) = world.cloud.elb.listeners.get_mut(arn) {
        if input.get_member("DefaultActions").is_some() {
            listener.actions = normalize_actions(&actions);
        }
        if let Some(port) = input.get_number("Port") {
            listener.port = port;
        }
        if let Some(protocol) = input.get_text("Protocol") {
            listener.protocol = protocol.to_owned();
        }
    }
    // Health checks follow what the listener names now (ELB-2).
    targets::update_health_checks(world, &touched);
    let shown: Vec<Value> = world
        .cloud
        .elb
        .listeners
        .get(arn)
        .map(reads::show_listener)
        .into_iter()
        .collect();
    Ok(json!({"Listeners": shown}))
}

/// SetRulePriorities.
pub fn set_priorities(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let wanted: Vec<(String, i64)> = input
        .get_list("RulePriorities")
        .iter()
        .map(Input)
        .filter_map(|p| Some((p.get_text("RuleArn")?.to_owned(), p.get_number("Priority")?)))
        .collect();
    // All priorities are checked together, because they are usually exchanged with one another.
    for (arn, priority) in &wanted {
        let rule = world.cloud.elb.rules.get(arn).ok_or_else(rule_not_found)?;
        if rule.default {
            return Err(AwsError::new(
                400,
                "OperationNotPermitted",
                format!("Default rule '{arn}' cannot be modified"),
            ));
        }
        // A priority is taken only by a rule that is not part of the same request.
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
        shown.extend(elb.rules.get(arn).map(|rule| reads::show_rule(elb, rule)));
    }
    Ok(json!({"Rules": shown}))
}

/// ModifyTargetGroupAttributes.
pub fn modify_attributes(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let group = world
        .cloud
        .elb
        .groups
        .get_mut(input.require_text("TargetGroupArn")?)
        .ok_or_else(group_not_found)?;
    // Attributes are changed on a copy, so that one that is refused changes none of the others.
    let mut changed = group.attributes.clone();
    for attribute in input.get_list("Attributes").iter().map(Input) {
        let (key, value) = (
            attribute.require_text("Key")?,
            attribute.get_text("Value").unwrap_or_default(),
        );
        // Only attributes that a group has can be changed.
        if !changed.contains_key(key) {
            return Err(AwsError::new(
                400,
                "InvalidConfigurationRequest",
                format!("Target group attribute key '{key}' is not recognized"),
            ));
        }
        let in_range =
            |from: i64, to: i64| value.parse::<i64>().is_ok_and(|v| (from..=to).contains(&v));
        // The bounds are those of the API; attributes without bounds are taken as they are.
        let good = match key {
            "deregistration_delay.timeout_seconds" => in_range(0, 3600),
            "slow_start.duration_seconds" => value == "0" || in_range(30, 900),
            "stickiness.enabled" => value == "true" || value == "false",
            _ => true,
        };
        if !good {
            return Err(AwsError::validation_error(format!(
                "'{value}' is not a valid value for the target group attribute '{key}'"
            )));
        }
        changed.insert(key.to_owned(), value.to_owned());
    }
    group.attributes = changed;
    Ok(json!({"Attributes": reads::show_attributes(&group.attributes)}))
}

/// AddTags.
pub fn add_tags(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    for arn in input.get_text_list("ResourceArns") {
        reads::check_exists(&world.cloud.elb, &arn)?;
        let tags = world.cloud.elb.tags.entry(arn).or_default();
        for tag in input.get_list("Tags").iter().map(Input) {
            tags.insert(
                tag.require_text("Key")?.to_owned(),
                tag.get_text("Value").unwrap_or_default().to_owned(),
            );
        }
    }
    Ok(json!({}))
}

/// RemoveTags.
pub fn remove_tags(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    for arn in input.get_text_list("ResourceArns") {
        reads::check_exists(&world.cloud.elb, &arn)?;
        if let Some(tags) = world.cloud.elb.tags.get_mut(&arn) {
            for key in input.get_text_list("TagKeys") {
                tags.remove(&key);
            }
        }
    }
    Ok(json!({}))
}
