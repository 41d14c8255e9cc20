//! CreateAutoScalingGroup and DeleteAutoScalingGroup.

use std::collections::BTreeMap;

use serde_json::Value;

use super::group_request::{read_members, read_sizes, read_subnets};
use super::launch_source::read_source;
use super::{groups, health, hooks, lifecycle, termination, traffic_sources};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::AutoScalingGroup;
use crate::twin::aws::{elb, quotas};
use crate::twin::world::SimWorld;

/// CreateAutoScalingGroup.
pub fn create(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let name = input.require_text("AutoScalingGroupName")?.to_owned();
    if name.contains(':') || name.len() > 255 {
        return Err(AwsError::validation_error(
            "The name of an Auto Scaling group must not contain a colon and has at most 255 characters.",
        ));
    }
    for member in ["MinSize", "MaxSize"] {
        if input.get_number(member).is_none() {
            return Err(AwsError::missing_member(member));
        }
    }
    if world.cloud.asgs.contains_key(&name) {
        return Err(AwsError::new(
            400,
            "AlreadyExists",
            format!(
                "AutoScalingGroup by this name already exists - A group with the name {name} already exists"
            ),
        ));
    }
    let most = quotas::quota_value(&world.cloud, quotas::SCALING_GROUPS_QUOTA);
    if world.cloud.asgs.len() as f64 >= most {
        return Err(AwsError::new(
            400,
            "LimitExceeded",
            "You have reached your limit of Auto Scaling groups for this account.",
        ));
    }
    let source = read_source(&world.cloud, input)?.ok_or_else(|| {
        AwsError::validation_error(
            "Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy parameter.",
        )
    })?;
    let subnets = read_subnets(world, input)?.unwrap_or_default();
    if subnets.is_empty() {
        return Err(AwsError::validation_error(
            "At least one Availability Zone or VPC Subnet is required.",
        ));
    }
    let (min, max, desired) = read_sizes(input, (0, 0, None))?;
    let members = read_members(input)?;
    let (target_groups, balancers) = read_balancers(world, input)?;
    let mut tags = BTreeMap::new();
    for tag in input.get_list("Tags").iter().map(Input) {
        let key = groups::checked_tag_key(tag)?;
        let value = tag.get_text("Value").unwrap_or_default().to_owned();
        let propagate = tag.get_bool("PropagateAtLaunch").unwrap_or(true);
        tags.insert(key, (value, propagate));
    }
    let specifications = input.get_list("LifecycleHookSpecificationList").iter();
    let hooks: Result<Vec<Value>, AwsError> = specifications
        .map(|h| hooks::build_hook(&name, Input(h)))
        .collect();
    let id = world.new_uuid();
    let mut made = AutoScalingGroup {
        arn: format!(
            "arn:aws:autoscaling:{}:{}:autoScalingGroup:{id}:autoScalingGroupName/{name}",
            world.cloud.region, world.cloud.account
        ),
        name: name.clone(),
        min,
        max,
        desired,
        subnets,
        source,
        target_groups: target_groups
            .into_iter()
            .map(|arn| (arn, "Added".to_owned()))
            .collect(),
        load_balancers: balancers.into_iter().collect(),
        tags,
        hooks: hooks?,
        created: world.now(),
        ..AutoScalingGroup::default()
    };
    made.settings.members = members;
    world.cloud.asgs.insert(name.clone(), made);
    health::start_checks(world, &name);
    lifecycle::reconcile_group(world, &name);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// The target groups and classic load balancers that a new group is attached to.
fn read_balancers(world: &SimWorld, input: Input) -> Result<(Vec<String>, Vec<String>), AwsError> {
    let mut target_groups = input.get_text_list("TargetGroupARNs");
    target_groups.extend(traffic_sources::traffic_source_arns(input)?);
    let known = |arn: &String| world.cloud.elb.groups.contains_key(arn);
    if let Some(missing) = target_groups.iter().find(|arn| !known(arn)) {
        return Err(AwsError::validation_error(format!(
            "Provided Target Groups may not be valid. Please ensure they exist and try again. ({missing})"
        )));
    }
    let classics = input.get_text_list("LoadBalancerNames");
    let known = |name: &String| elb::classic_exists(&world.cloud, name);
    if let Some(missing) = classics.iter().find(|name| !known(name)) {
        return Err(AwsError::validation_error(format!(
            "Provided Load Balancers may not be valid. Please ensure they exist and try again. ({missing})"
        )));
    }
    Ok((target_groups, classics))
}

/// DeleteAutoScalingGroup: refused while there are instances, unless it is forced (ASG-7).
pub fn delete(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let force = input.get_bool("ForceDelete") == Some(true);
    let group = groups::requested_group(world, input)?;
    let name = group.name.clone();
    if group.nodegroup.is_some() {
        return Err(AwsError::validation_error(
            "The twin does not delete the Auto Scaling group of a managed node group behind EKS.",
        ));
    }
    if !group.members.is_empty() && !force {
        return Err(AwsError::new(
            400,
            "ResourceInUse",
            "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still in the group.",
        ));
    }
    // A pool goes only with a group that is deleted by force (ASG-18).
    if group.settings.warm_pool.is_some() && !force {
        return Err(AwsError::new(
            400,
            "ResourceInUse",
            "You cannot delete an AutoScalingGroup while there is a warm pool in the group.",
        ));
    }
    // Every instance goes at once, protected or not, whatever waits for it.
    (group.min, group.max, group.desired, group.deleting) = (0, 0, 0, true);
    let members: Vec<(String, bool)> = group
        .members
        .iter()
        .map(|(id, m)| (id.clone(), m.is_active()))
        .collect();
    if members.is_empty() && group.pool.is_empty() {
        world.cloud.asgs.remove(&name);
    }
    termination::shut_down_pool(world, &name);
    for (id, active) in members {
        match active {
            true => termination::begin_termination(world, &name, &id, false),
            false => termination::shut_down_instance(world, &name, &id),
        }
    }
    // The model gives this operation no output.
    Ok(Value::Null)
}
