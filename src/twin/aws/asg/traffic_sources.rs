//! Target groups attached to Auto Scaling groups, by either API.

use std::time::Duration;

use serde_json::{Value, json};

use super::{AsgEvent, groups, schedule_after};
use crate::twin::aws::call::Input;
use crate::twin::aws::elb;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::AutoScalingGroup;
use crate::twin::world::SimWorld;

/// AttachLoadBalancers: additive, as of target groups (CLB-1).
pub fn attach_load_balancers(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let names = input.get_text_list("LoadBalancerNames");
    let missing = |n: &&String| !elb::classic_exists(&world.cloud, n);
    if let Some(missing) = names.iter().find(missing) {
        return Err(AwsError::validation_error(format!(
            "Provided Load Balancers may not be valid. Please ensure they exist and try again. ({missing})"
        )));
    }
    let group = groups::requested_group(world, input)?;
    group.load_balancers.extend(names.iter().cloned());
    let members: Vec<String> = group.members.keys().cloned().collect();
    for name in &names {
        elb::on_group_attached(world, name, &members);
    }
    Ok(json!({}))
}

/// DetachLoadBalancers: the instances are deregistered.
pub fn detach_load_balancers(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let names = input.get_text_list("LoadBalancerNames");
    let group = groups::requested_group(world, input)?;
    if let Some(missing) = names.iter().find(|n| !group.load_balancers.contains(*n)) {
        return Err(AwsError::validation_error(format!(
            "Trying to remove Load Balancers that are not part of the group: {missing}"
        )));
    }
    for name in &names {
        group.load_balancers.remove(name);
    }
    Ok(json!({}))
}

/// The target groups among a request's traffic sources.
pub fn traffic_source_arns(input: Input) -> Result<Vec<String>, AwsError> {
    let sources = input.get_list("TrafficSources");
    if sources
        .iter()
        .map(Input)
        .any(|s| s.get_text("Type").is_some_and(|t| t != "elbv2"))
    {
        return Err(AwsError::validation_error(
            "The twin attaches traffic sources of type elbv2 only.",
        ));
    }
    Ok(sources
        .iter()
        .filter_map(|s| Input(s).get_text("Identifier").map(str::to_owned))
        .collect())
}

/// AttachLoadBalancerTargetGroups, AttachTrafficSources: additive; every instance in service is registered.
pub fn attach_target_groups(
    world: &mut SimWorld,
    input: Input,
    arns: Vec<String>,
) -> Result<Value, AwsError> {
    // The target groups are checked before the Auto Scaling group is touched.
    if let Some(missing) = arns
        .iter()
        .find(|arn| !world.cloud.elb.groups.contains_key(*arn))
    {
        return Err(AwsError::validation_error(format!(
            "Invalid Target Group ARN(s): {missing}. One or more target groups not found"
        )));
    }
    let group = groups::requested_group(world, input)?;
    // Instances that are not in service yet are registered when they come into service.
    let members: Vec<String> = group
        .members
        .iter()
        .filter(|(_, m)| m.lifecycle == "InService")
        .map(|(id, _)| id.clone())
        .collect();
    // A process that is suspended keeps the group's instances out, while the attachment itself is noted.
    let skipped = group.suspended.contains("AddToLoadBalancer");
    for arn in &arns {
        group.target_groups.insert(arn.clone(), "Added".into());
    }
    for arn in arns.iter().filter(|_| !skipped) {
        for id in &members {
            elb::register_target(world, arn, id, None);
        }
    }
    Ok(json!({}))
}

/// DetachLoadBalancerTargetGroups, DetachTrafficSources: the instances are deregistered and drained (ASG-1).
pub fn detach_target_groups(
    world: &mut SimWorld,
    input: Input,
    arns: Vec<String>,
) -> Result<Value, AwsError> {
    let group = groups::requested_group(world, input)?;
    // Unlike in a deregistration of targets, a target group that is not attached is an error.
    if let Some(missing) = arns
        .iter()
        .find(|arn| !group.target_groups.contains_key(*arn))
    {
        return Err(AwsError::validation_error(format!(
            "Trying to remove Target Groups that are not part of the group: {missing}"
        )));
    }
    let (name, members): (String, Vec<String>) =
        (group.name.clone(), group.members.keys().cloned().collect());
    // The attachment is in state Removing until its targets have drained, and then gone.
    for arn in arns {
        let group = groups::requested_group(world, input)?;
        group.target_groups.insert(arn.clone(), "Removing".into());
        for id in &members {
            elb::deregister_target(world, &arn, id, None);
        }
        let delay = elb::deregistration_delay(world, &arn).saturating_add(Duration::from_secs(1));
        schedule_after(
            world,
            delay,
            AsgEvent::Detached {
                asg: name.clone(),
                target_group: arn,
            },
        );
    }
    Ok(json!({}))
}

/// The target group is gone from the group, unless it was attached again.
pub fn on_target_group_detached(world: &mut SimWorld, name: &str, arn: &str) {
    if let Some(asg) = world
        .cloud
        .asgs
        .get_mut(name)
        .filter(|a| a.target_groups.get(arn).is_some_and(|s| s == "Removing"))
    {
        asg.target_groups.remove(arn);
    }
}

/// The state of an attached target group: in service once one instance is healthy there.
fn attachment_state(world: &SimWorld, asg: &AutoScalingGroup, arn: &str, stored: &str) -> String {
    if stored == "Removing" {
        return stored.to_owned();
    }
    let healthy = asg.members.keys().any(|id| elb::is_healthy(world, arn, id));
    if healthy {
        "InService".to_owned()
    } else {
        "Added".to_owned()
    }
}

fn list_attachment_states(
    world: &mut SimWorld,
    input: Input,
) -> Result<Vec<(String, String)>, AwsError> {
    let asg = groups::requested_group(world, input)?.clone();
    Ok(asg
        .target_groups
        .iter()
        .map(|(arn, stored)| (arn.clone(), attachment_state(world, &asg, arn, stored)))
        .collect())
}

/// DescribeTrafficSources.
pub fn describe_traffic_sources(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let page = cut_page(
        list_attachment_states(world, input)?,
        input.get_text("NextToken"),
        input.get_number("MaxRecords").unwrap_or(50),
    )?;
    let shown: Vec<Value> = page.items.iter().map(|(arn, state)| json!({"TrafficSource": arn, "Identifier": arn, "Type": "elbv2", "State": state})).collect();
    Ok(json!({"TrafficSources": shown, "NextToken": page.next}))
}

/// DescribeLoadBalancerTargetGroups.
pub fn describe_target_groups(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let page = cut_page(
        list_attachment_states(world, input)?,
        input.get_text("NextToken"),
        input.get_number("MaxRecords").unwrap_or(100),
    )?;
    let shown: Vec<Value> = page
        .items
        .iter()
        .map(|(arn, state)| json!({"LoadBalancerTargetGroupARN": arn, "State": state}))
        .collect();
    Ok(json!({"LoadBalancerTargetGroups": shown, "NextToken": page.next}))
}
