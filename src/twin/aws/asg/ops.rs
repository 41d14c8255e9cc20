//! Auto Scaling's writes: tags, processes, sizes.

use serde_json::{Value, json};

use super::life;
use crate::twin::aws::call::Input;
use crate::twin::aws::eks;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::Asg;
use crate::twin::laws;
use crate::twin::world::World;

/// Every process a group has.
const PROCESSES: &[&str] = &[
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

fn group<'w>(world: &'w mut World, name: &str) -> Result<&'w mut Asg, AwsError> {
    world.cloud.asgs.get_mut(name).ok_or_else(|| {
        AwsError::validation(format!(
            "AutoScalingGroup name not found - no such group: {name}"
        ))
    })
}

/// The group a request names.
pub fn group_of<'w>(world: &'w mut World, input: Input) -> Result<&'w mut Asg, AwsError> {
    let name = input.need("AutoScalingGroupName")?.to_owned();
    group(world, &name)
}

/// CreateOrUpdateTags.
pub fn tag(world: &mut World, input: Input) -> Result<Value, AwsError> {
    for tag in input.list("Tags").iter().map(Input) {
        let key = tag.need("Key")?.to_owned();
        if key.starts_with("aws:") {
            return Err(AwsError::validation(
                "Tag keys starting with 'aws:' are reserved for internal use",
            ));
        }
        let value = (
            tag.text("Value").unwrap_or_default().to_owned(),
            tag.truth("PropagateAtLaunch").unwrap_or(false),
        );
        group(world, tag.need("ResourceId")?)?
            .tags
            .insert(key, value);
    }
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// DeleteTags.
pub fn untag(world: &mut World, input: Input) -> Result<Value, AwsError> {
    for tag in input.list("Tags").iter().map(Input) {
        let key = tag.need("Key")?.to_owned();
        group(world, tag.need("ResourceId")?)?.tags.remove(&key);
    }
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// The processes a request names; none means all.
fn processes(input: Input) -> Result<Vec<String>, AwsError> {
    let named = input.texts("ScalingProcesses");
    if let Some(unknown) = named.iter().find(|p| !PROCESSES.contains(&p.as_str())) {
        return Err(AwsError::validation(format!(
            "Invalid process type: {unknown}"
        )));
    }
    Ok(if named.is_empty() {
        PROCESSES.iter().map(|p| (*p).to_owned()).collect()
    } else {
        named
    })
}

/// SuspendProcesses.
pub fn suspend(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let processes = processes(input)?;
    group_of(world, input)?.suspended.extend(processes);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// ResumeProcesses.
pub fn resume(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let processes = processes(input)?;
    let group = group_of(world, input)?;
    group.suspended.retain(|p| !processes.contains(p));
    let name = group.name.clone();
    life::reconcile(world, &name);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// SetDesiredCapacity.
pub fn set_desired(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let wanted = input
        .number("DesiredCapacity")
        .ok_or_else(|| AwsError::missing("DesiredCapacity"))?;
    let group = group_of(world, input)?;
    if wanted > group.max {
        return Err(AwsError::validation(format!(
            "New SetDesiredCapacity value {wanted} is above max value {} for the AutoScalingGroup.",
            group.max
        )));
    }
    if wanted < group.min {
        return Err(AwsError::validation(format!(
            "New SetDesiredCapacity value {wanted} is below min value {} for the AutoScalingGroup.",
            group.min
        )));
    }
    let before = std::mem::replace(&mut group.desired, wanted);
    let (name, nodegroup) = (group.name.clone(), group.nodegroup.clone());
    laws::resized(world, &name, before, wanted);
    life::reconcile(world, &name);
    eks::sizes_follow(world, &nodegroup);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// UpdateAutoScalingGroup: the sizes. Desired is pulled between the others.
pub fn update(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let group = group_of(world, input)?;
    let min = input.number("MinSize").unwrap_or(group.min);
    let max = input.number("MaxSize").unwrap_or(group.max);
    let asked = input.number("DesiredCapacity");
    if min > max {
        return Err(AwsError::validation(
            "Min bound is larger than the max bound: MinSize must be less than or equal to MaxSize",
        ));
    }
    if let Some(asked) = asked.filter(|d| *d < min || *d > max) {
        return Err(AwsError::validation(format!(
            "Desired capacity:{asked} must be between the specified min size:{min} and max size:{max}"
        )));
    }
    (group.min, group.max) = (min, max);
    let wanted = asked.unwrap_or(group.desired).clamp(min, max);
    let before = std::mem::replace(&mut group.desired, wanted);
    let (name, nodegroup) = (group.name.clone(), group.nodegroup.clone());
    laws::resized(world, &name, before, wanted);
    life::reconcile(world, &name);
    eks::sizes_follow(world, &nodegroup);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// TerminateInstanceInAutoScalingGroup.
pub fn terminate(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let id = input.need("InstanceId")?;
    let asg = world.cloud.instances.get(id).and_then(|i| i.asg.clone());
    let asg = asg.ok_or_else(|| {
        AwsError::validation(format!(
            "Instance Id not found - No managed instance found for instance ID {id}"
        ))
    })?;
    let smaller = input.truth("ShouldDecrementDesiredCapacity") == Some(true);
    let at_min = world
        .cloud
        .asgs
        .get(&asg)
        .is_some_and(|a| a.desired <= a.min);
    if smaller && at_min {
        return Err(AwsError::validation(format!(
            "Currently, desiredSize equals minSize. Terminating instance without replacement will violate group's min size constraint: {asg}"
        )));
    }
    if smaller {
        laws::ended_by_name(world, id);
        life::end_one(world, &asg, id);
        if let Some(nodegroup) = world.cloud.asgs.get(&asg).map(|a| a.nodegroup.clone()) {
            eks::sizes_follow(world, &nodegroup);
        }
    } else {
        life::replace_one(world, &asg, id);
    }
    Ok(json!({"Activity": {
        "ActivityId": world.uuid(),
        "AutoScalingGroupName": asg,
        "Cause": format!("instance {id} was taken out of service in response to a user request."),
        "Description": format!("Terminating EC2 instance: {id}"),
        "StartTime": world.now().to_string(),
        "StatusCode": "InProgress",
        "Progress": 0,
    }}))
}
