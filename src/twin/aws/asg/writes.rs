//! Auto Scaling's writes: tags, processes, sizes.

use serde_json::{Value, json};

use super::{lifecycle, termination};
use crate::twin::aws::call::Input;
use crate::twin::aws::eks;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::AutoScalingGroup;
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

fn find_group<'w>(
    world: &'w mut SimWorld,
    name: &str,
) -> Result<&'w mut AutoScalingGroup, AwsError> {
    world.cloud.asgs.get_mut(name).ok_or_else(|| {
        AwsError::validation_error(format!(
            "AutoScalingGroup name not found - no such group: {name}"
        ))
    })
}

/// The group a request names.
pub fn requested_group<'w>(
    world: &'w mut SimWorld,
    input: Input,
) -> Result<&'w mut AutoScalingGroup, AwsError> {
    let name = input.require_text("AutoScalingGroupName")?.to_owned();
    find_group(world, &name)
}

/// CreateOrUpdateTags.
pub fn create_or_update_tags(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    for tag in input.get_list("Tags").iter().map(Input) {
        let key = tag.require_text("Key")?.to_owned();
        if key.starts_with("aws:") {
            return Err(AwsError::validation_error(
                "Tag keys starting with 'aws:' are reserved for internal use",
            ));
        }
        let value = (
            tag.get_text("Value").unwrap_or_default().to_owned(),
            tag.get_bool("PropagateAtLaunch").unwrap_or(false),
        );
        find_group(world, tag.require_text("ResourceId")?)?
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
        find_group(world, tag.require_text("ResourceId")?)?
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
    requested_group(world, input)?.suspended.extend(processes);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// ResumeProcesses.
pub fn resume_processes(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let processes = requested_processes(input)?;
    let group = requested_group(world, input)?;
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
    let group = requested_group(world, input)?;
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
    let (name, nodegroup) = (group.name.clone(), group.nodegroup.clone());
    world.notify_observer(WorldNotice::GroupResized {
        asg: &name,
        from: before,
        to: wanted,
    });
    lifecycle::reconcile_group(world, &name);
    eks::schedule_size_sync(world, &nodegroup);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// UpdateAutoScalingGroup: the sizes. Desired is pulled between the others.
pub fn update_group(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let group = requested_group(world, input)?;
    // What the request leaves out stays as it is.
    let min = input.get_number("MinSize").unwrap_or(group.min);
    let max = input.get_number("MaxSize").unwrap_or(group.max);
    let asked = input.get_number("DesiredCapacity");
    if min > max {
        return Err(AwsError::validation_error(
            "Min bound is larger than the max bound: MinSize must be less than or equal to MaxSize",
        ));
    }
    if let Some(asked) = asked.filter(|d| *d < min || *d > max) {
        return Err(AwsError::validation_error(format!(
            "Desired capacity:{asked} must be between the specified min size:{min} and max size:{max}"
        )));
    }
    // A desired size that nobody asked for is pulled between the bounds, and instances may end by it (EKS-NG-14).
    (group.min, group.max) = (min, max);
    let wanted = asked.unwrap_or(group.desired).clamp(min, max);
    let before = std::mem::replace(&mut group.desired, wanted);
    let (name, nodegroup) = (group.name.clone(), group.nodegroup.clone());
    world.notify_observer(WorldNotice::GroupResized {
        asg: &name,
        from: before,
        to: wanted,
    });
    lifecycle::reconcile_group(world, &name);
    eks::schedule_size_sync(world, &nodegroup);
    // The model gives this operation no output.
    Ok(Value::Null)
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
        if let Some(nodegroup) = world.cloud.asgs.get(&asg).map(|a| a.nodegroup.clone()) {
            eks::schedule_size_sync(world, &nodegroup);
        }
    } else {
        termination::terminate_and_replace(world, &asg, id);
    }
    Ok(json!({"Activity": {
        "ActivityId": world.new_uuid(),
        "AutoScalingGroupName": asg,
        "Cause": format!("instance {id} was taken out of service in response to a user request."),
        "Description": format!("Terminating EC2 instance: {id}"),
        "StartTime": world.now().to_string(),
        "StatusCode": "InProgress",
        "Progress": 0,
    }}))
}
