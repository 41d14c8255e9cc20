//! Auto Scaling's writes: tags, processes, sizes.

use serde_json::{Value, json};

use super::{group_request, groups, health, launch_source, lifecycle, termination};
use crate::twin::aws::call::Input;
use crate::twin::aws::eks;
use crate::twin::aws::error::AwsError;
use crate::twin::world::{SimWorld, WorldNotice};

/// Every process a group has.
const SCALING_PROCESSES: &[&str] = &[
    "AddToLoadBalancer",
    "AlarmNotification",
    "AZRebalance",
    "HealthCheck",
    "InstanceRefresh",
    "Launch",
    "ReplaceUnhealthy",
    "ScheduledActions",
    "Terminate",
];

/// CreateOrUpdateTags.
pub fn create_or_update_tags(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    for tag in input.get_list("Tags").iter().map(Input) {
        let key = groups::checked_tag_key(tag)?;
        let value = (
            tag.get_text("Value").unwrap_or_default().to_owned(),
            tag.get_bool("PropagateAtLaunch").unwrap_or(false),
        );
        groups::find_group(world, tag.require_text("ResourceId")?)?
            .tags
            .insert(key, value);
    }
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// DeleteTags.
pub fn delete_tags(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    for tag in input.get_list("Tags").iter().map(Input) {
        let key = tag.require_text("Key")?.to_owned();
        groups::find_group(world, tag.require_text("ResourceId")?)?
            .tags
            .remove(&key);
    }
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// The processes a request names; none means all.
fn requested_processes(input: Input) -> Result<Vec<String>, AwsError> {
    let named = input.get_text_list("ScalingProcesses");
    if let Some(unknown) = named
        .iter()
        .find(|p| !SCALING_PROCESSES.contains(&p.as_str()))
    {
        return Err(AwsError::validation_error(format!(
            "Invalid process type: {unknown}"
        )));
    }
    Ok(if named.is_empty() {
        SCALING_PROCESSES.iter().map(|p| (*p).to_owned()).collect()
    } else {
        named
    })
}

/// SuspendProcesses.
pub fn suspend_processes(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let processes = requested_processes(input)?;
    groups::requested_group(world, input)?
        .suspended
        .extend(processes);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// ResumeProcesses.
pub fn resume_processes(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let processes = requested_processes(input)?;
    let group = groups::requested_group(world, input)?;
    group.suspended.retain(|p| !processes.contains(p));
    let name = group.name.clone();
    lifecycle::reconcile_group(world, &name);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// SetDesiredCapacity.
pub fn set_desired_capacity(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let wanted = input
        .get_number("DesiredCapacity")
        .ok_or_else(|| AwsError::missing_member("DesiredCapacity"))?;
    // The bounds are checked against the current minimum and maximum, which EKS and others can change at any time.
    let group = groups::requested_group(world, input)?;
    if wanted > group.max {
        return Err(AwsError::validation_error(format!(
            "New SetDesiredCapacity value {wanted} is above max value {} for the AutoScalingGroup.",
            group.max
        )));
    }
    if wanted < group.min {
        return Err(AwsError::validation_error(format!(
            "New SetDesiredCapacity value {wanted} is below min value {} for the AutoScalingGroup.",
            group.min
        )));
    }
    // Whoever sets the size, EKS hears of it later (EKS-NG-15).
    let before = std::mem::replace(&mut group.desired, wanted);
    let name = group.name.clone();
    on_resized(world, &name, before, wanted);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// UpdateAutoScalingGroup: what a request leaves out stays. Desired is pulled between the other sizes.
pub fn update_group(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    // Everything is checked before anything changes.
    let source = launch_source::read_source(&world.cloud, input)?;
    let subnets = group_request::read_subnets(world, input)?;
    let members = group_request::read_members(input)?;
    let group = groups::requested_group(world, input)?;
    let (min, max, wanted) =
        group_request::read_sizes(input, (group.min, group.max, Some(group.desired)))?;
    if let Some(source) = source {
        if group.nodegroup.is_some() {
            return Err(AwsError::validation_error(
                "The twin does not change the launch template of a managed node group behind EKS.",
            ));
        }
        // Instances that run are not replaced; the next one is made of it.
        group.source = source;
    }
    if let Some(subnets) = subnets {
        group.subnets = subnets;
    }
    let heeded = group.settings.heeds_balancers();
    group.settings.members.extend(members);
    let begins = !heeded && group.settings.heeds_balancers();
    (group.min, group.max) = (min, max);
    let before = std::mem::replace(&mut group.desired, wanted);
    let name = group.name.clone();
    if begins {
        health::start_checks(world, &name);
    }
    on_resized(world, &name, before, wanted);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// The desired size was changed: the group follows, and EKS hears of it later (EKS-NG-15).
fn on_resized(world: &mut SimWorld, name: &str, from: i64, to: i64) {
    world.notify_observer(WorldNotice::GroupResized {
        asg: name,
        from,
        to,
    });
    lifecycle::reconcile_group(world, name);
    let nodegroup = world.cloud.asgs.get(name).and_then(|a| a.nodegroup.clone());
    if let Some(nodegroup) = nodegroup {
        eks::schedule_size_sync(world, &nodegroup);
    }
}

/// TerminateInstanceInAutoScalingGroup.
pub fn terminate_instance(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let id = input.require_text("InstanceId")?;
    let asg = world.cloud.instances.get(id).and_then(|i| i.asg.clone());
    let asg = asg.ok_or_else(|| {
        AwsError::validation_error(format!(
            "Instance Id not found - No managed instance found for instance ID {id}"
        ))
    })?;
    // One that waits in a warm pool is none of the group's size, and the pool is filled again.
    let pooled = world
        .cloud
        .asgs
        .get(&asg)
        .is_some_and(|a| a.pool.contains_key(id));
    if pooled {
        termination::end_pooled_instance(world, &asg, id);
        lifecycle::reconcile_group(world, &asg);
        return Ok(show_termination(world, &asg, id));
    }
    // The caller says whether the group shrinks by the instance or replaces it.
    let smaller = input.get_bool("ShouldDecrementDesiredCapacity") == Some(true);
    let at_min = world
        .cloud
        .asgs
        .get(&asg)
        .is_some_and(|a| a.desired <= a.min);
    // The autoscaler is refused here when its reading of the minimum is out of date (CA-2).
    if smaller && at_min {
        return Err(AwsError::validation_error(format!(
            "Currently, desiredSize equals minSize. Terminating instance without replacement will violate group's min size constraint: {asg}"
        )));
    }
    // Shrinking changes the desired size, of which EKS hears later.
    if smaller {
        world.notify_observer(WorldNotice::EndedByName { instance: id });
        termination::terminate_and_shrink(world, &asg, id);
        let nodegroup = world.cloud.asgs.get(&asg).and_then(|a| a.nodegroup.clone());
        if let Some(nodegroup) = nodegroup {
            eks::schedule_size_sync(world, &nodegroup);
        }
    } else {
        termination::terminate_and_replace(world, &asg, id);
    }
    Ok(show_termination(world, &asg, id))
}

/// The activity that ends an instance at somebody's request.
fn show_termination(world: &mut SimWorld, asg: &str, id: &str) -> Value {
    json!({"Activity": {
        "ActivityId": world.new_uuid(),
        "AutoScalingGroupName": asg,
        "Cause": format!("instance {id} was taken out of service in response to a user request."),
        "Description": format!("Terminating EC2 instance: {id}"),
        "StartTime": world.now().to_string(),
        "StatusCode": "InProgress",
        "Progress": 0,
    }})
}
