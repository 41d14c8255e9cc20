//! What a group keeps beside its instances: protection, metrics, policies, schedules, notifications.

use serde_json::{Value, json};

use super::{groups, lifecycle};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::AutoScalingGroup;
use crate::twin::world::SimWorld;

/// How many instances one request may protect.
const MAX_PROTECTED_AT_ONCE: usize = 50;
/// Every metric of a group.
const GROUP_METRICS: &[&str] = &[
    "GroupAndWarmPoolDesiredCapacity",
    "GroupAndWarmPoolTotalCapacity",
    "GroupDesiredCapacity",
    "GroupInServiceCapacity",
    "GroupInServiceInstances",
    "GroupMaxSize",
    "GroupMinSize",
    "GroupPendingCapacity",
    "GroupPendingInstances",
    "GroupStandbyCapacity",
    "GroupStandbyInstances",
    "GroupTerminatingCapacity",
    "GroupTerminatingInstances",
    "GroupTotalCapacity",
    "GroupTotalInstances",
    "WarmPoolDesiredCapacity",
    "WarmPoolMinSize",
    "WarmPoolPendingCapacity",
    "WarmPoolTerminatingCapacity",
    "WarmPoolTotalCapacity",
    "WarmPoolWarmedCapacity",
];

/// SetInstanceProtection.
pub fn set_instance_protection(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let ids = input.get_text_list("InstanceIds");
    let protected = input
        .get_bool("ProtectedFromScaleIn")
        .ok_or_else(|| AwsError::missing_member("ProtectedFromScaleIn"))?;
    if ids.len() > MAX_PROTECTED_AT_ONCE {
        return Err(AwsError::validation_error(
            "The number of instance IDs must be at most 50.",
        ));
    }
    let group = groups::requested_group(world, input)?;
    let name = group.name.clone();
    // All or none: what cannot be protected is found before anything changes.
    for id in &ids {
        let member = group.members.get(id).ok_or_else(|| {
            AwsError::validation_error(format!(
                "The instance {id} is not part of Auto Scaling group {name}."
            ))
        })?;
        if member.lifecycle != "InService" {
            return Err(AwsError::validation_error(format!(
                "The instance {id} is not in InService or EnteringStandby or Standby."
            )));
        }
    }
    for id in &ids {
        if let Some(member) = group.members.get_mut(id) {
            member.protected = protected;
        }
    }
    // A group that was too large only by its protected instances shrinks now.
    lifecycle::reconcile_group(world, &name);
    Ok(json!({}))
}

/// EnableMetricsCollection; without names all of them.
pub fn enable_metrics(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let metrics = requested_metrics(input)?;
    if input.require_text("Granularity")? != "1Minute" {
        return Err(AwsError::validation_error(
            "Unknown granularity; the only valid value is 1Minute",
        ));
    }
    let group = groups::requested_group(world, input)?;
    group.settings.metrics.extend(metrics);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// DisableMetricsCollection; without names all of them.
pub fn disable_metrics(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let metrics = requested_metrics(input)?;
    let group = groups::requested_group(world, input)?;
    group.settings.metrics.retain(|m| !metrics.contains(m));
    // The model gives this operation no output.
    Ok(Value::Null)
}

fn requested_metrics(input: Input) -> Result<Vec<String>, AwsError> {
    let named = input.get_text_list("Metrics");
    if let Some(unknown) = named.iter().find(|m| !GROUP_METRICS.contains(&m.as_str())) {
        return Err(AwsError::validation_error(format!(
            "Invalid metric type: {unknown}"
        )));
    }
    Ok(match named.is_empty() {
        true => GROUP_METRICS.iter().map(|m| (*m).to_owned()).collect(),
        false => named,
    })
}

/// One kind of what is kept by name in a group.
struct KeptKind {
    /// The member of the answer, and the member that names an item.
    list: &'static str,
    name: &'static str,
    /// The member of the request that filters by names.
    names: &'static str,
    of: fn(&mut AutoScalingGroup) -> &mut Vec<Value>,
}

const POLICIES: KeptKind = KeptKind {
    list: "ScalingPolicies",
    name: "PolicyName",
    names: "PolicyNames",
    of: |g| &mut g.settings.policies,
};
const SCHEDULES: KeptKind = KeptKind {
    list: "ScheduledUpdateGroupActions",
    name: "ScheduledActionName",
    names: "ScheduledActionNames",
    of: |g| &mut g.settings.schedules,
};

/// DescribePolicies.
pub fn describe_policies(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    describe_kept(world, input, &POLICIES)
}

/// DescribeScheduledActions.
pub fn describe_schedules(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    describe_kept(world, input, &SCHEDULES)
}

fn describe_kept(world: &mut SimWorld, input: Input, kind: &KeptKind) -> Result<Value, AwsError> {
    if input.get_text("AutoScalingGroupName").is_some() {
        groups::requested_group(world, input)?;
    }
    let (group, names) = (
        input.get_text("AutoScalingGroupName"),
        input.get_text_list(kind.names),
    );
    let groups = world.cloud.asgs.values_mut();
    let groups = groups.filter(|g| group.is_none_or(|asked| asked == g.name));
    let all = groups.flat_map(|g| (kind.of)(g).clone());
    let wanted = |item: &Value| {
        names.is_empty()
            || item[kind.name]
                .as_str()
                .is_some_and(|n| names.iter().any(|a| a == n))
    };
    let page = cut_page(
        all.filter(wanted),
        input.get_text("NextToken"),
        groups::page_size(input)?,
    )?;
    Ok(json!({kind.list: page.items, "NextToken": page.next}))
}

fn put_kept(group: &mut AutoScalingGroup, kind: &KeptKind, made: Value) {
    let list = (kind.of)(group);
    list.retain(|item| item[kind.name] != made[kind.name]);
    list.push(made);
}

fn delete_kept(world: &mut SimWorld, input: Input, kind: &KeptKind) -> Result<Value, AwsError> {
    let name = input.require_text(kind.name)?;
    let list = (kind.of)(groups::requested_group(world, input)?);
    let before = list.len();
    list.retain(|item| item[kind.name] != *name && item["PolicyARN"] != *name);
    if list.len() == before {
        return Err(AwsError::validation_error(format!("{name} not found")));
    }
    // The model gives these operations no output.
    Ok(Value::Null)
}

/// DeletePolicy.
pub fn delete_policy(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    delete_kept(world, input, &POLICIES)
}

/// DeleteScheduledAction.
pub fn delete_schedule(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    delete_kept(world, input, &SCHEDULES)
}

/// PutScalingPolicy. It is kept and never acts: no alarm rings here.
pub fn put_policy(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let name = input.require_text("PolicyName")?.to_owned();
    let id = world.new_uuid();
    let (region, account) = (world.cloud.region.clone(), world.cloud.account.clone());
    let group = groups::requested_group(world, input)?;
    let arn = format!(
        "arn:aws:autoscaling:{region}:{account}:scalingPolicy:{id}:autoScalingGroupName/{}:policyName/{name}",
        group.name
    );
    let mut made = json!({
        "AutoScalingGroupName": group.name,
        "PolicyName": name,
        "PolicyARN": arn,
        "PolicyType": input.get_text("PolicyType").unwrap_or("SimpleScaling"),
        "AdjustmentType": input.get_text("AdjustmentType"),
        "ScalingAdjustment": input.get_number("ScalingAdjustment"),
        "Cooldown": input.get_number("Cooldown"),
        "EstimatedInstanceWarmup": input.get_number("EstimatedInstanceWarmup"),
        "Enabled": input.get_bool("Enabled").unwrap_or(true),
        "Alarms": [],
    });
    for nested in [
        "StepAdjustments",
        "TargetTrackingConfiguration",
        "PredictiveScalingConfiguration",
    ] {
        if let Some(value) = input.get_member(nested) {
            made[nested] = value.clone();
        }
    }
    put_kept(group, &POLICIES, made);
    Ok(json!({"PolicyARN": arn, "Alarms": []}))
}

/// PutScheduledUpdateGroupAction. It is kept and never acts.
pub fn put_schedule(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let name = input.require_text("ScheduledActionName")?.to_owned();
    let id = world.new_uuid();
    let (region, account) = (world.cloud.region.clone(), world.cloud.account.clone());
    let group = groups::requested_group(world, input)?;
    let made = json!({
        "AutoScalingGroupName": group.name,
        "ScheduledActionName": name,
        "ScheduledActionARN": format!(
            "arn:aws:autoscaling:{region}:{account}:scheduledUpdateGroupAction:{id}:autoScalingGroupName/{}:scheduledActionName/{name}",
            group.name
        ),
        "StartTime": input.get_text("StartTime"),
        "EndTime": input.get_text("EndTime"),
        "Recurrence": input.get_text("Recurrence"),
        "MinSize": input.get_number("MinSize"),
        "MaxSize": input.get_number("MaxSize"),
        "DesiredCapacity": input.get_number("DesiredCapacity"),
        "TimeZone": input.get_text("TimeZone"),
    });
    put_kept(group, &SCHEDULES, made);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// PutNotificationConfiguration: replaces what the topic was told before.
pub fn put_notifications(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let topic = input.require_text("TopicARN")?.to_owned();
    let types = input.get_text_list("NotificationTypes");
    let group = groups::requested_group(world, input)?;
    let name = group.name.clone();
    let kept = &mut group.settings.notifications;
    kept.retain(|n| n["TopicARN"] != *topic);
    kept.extend(types.into_iter().map(
        |kind| json!({"AutoScalingGroupName": name, "TopicARN": topic, "NotificationType": kind}),
    ));
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// DeleteNotificationConfiguration.
pub fn delete_notifications(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let topic = input.require_text("TopicARN")?;
    let group = groups::requested_group(world, input)?;
    group
        .settings
        .notifications
        .retain(|n| n["TopicARN"] != *topic);
    // The model gives this operation no output.
    Ok(Value::Null)
}

/// DescribeNotificationConfigurations.
pub fn describe_notifications(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let names = input.get_text_list("AutoScalingGroupNames");
    let groups = world.cloud.asgs.values();
    let groups = groups.filter(|g| names.is_empty() || names.contains(&g.name));
    let page = cut_page(
        groups.flat_map(|g| g.settings.notifications.iter().cloned()),
        input.get_text("NextToken"),
        groups::page_size(input)?,
    )?;
    Ok(json!({"NotificationConfigurations": page.items, "NextToken": page.next}))
}

/// DescribeLaunchConfigurations.
pub fn describe_launch_configurations(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let names = input.get_text_list("LaunchConfigurationNames");
    let all = world.cloud.launch_configurations.iter();
    let all = all.filter(|(name, _)| names.is_empty() || names.contains(name));
    let shown = all.map(|(name, data)| {
        let mut shown = data.clone();
        shown.insert("LaunchConfigurationName".into(), json!(name));
        // These are there, empty, where nothing is set (CLI reference, describe-launch-configurations).
        for member in ["KernelId", "RamdiskId", "UserData"] {
            shown.entry(member.to_owned()).or_insert_with(|| json!(""));
        }
        shown
            .entry("CreatedTime".to_owned())
            .or_insert_with(|| json!("2024-03-01T08:00:00Z"));
        Value::Object(shown)
    });
    let page = cut_page(
        shown,
        input.get_text("NextToken"),
        groups::page_size(input)?,
    )?;
    Ok(json!({"LaunchConfigurations": page.items, "NextToken": page.next}))
}

/// DeleteLaunchConfiguration: refused while a group uses it.
pub fn delete_launch_configuration(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let name = input.require_text("LaunchConfigurationName")?;
    let uses = |g: &AutoScalingGroup| matches!(&g.source, crate::twin::aws::state::LaunchSource::Configuration(n) if n == name);
    if world.cloud.asgs.values().any(uses) {
        return Err(AwsError::new(
            400,
            "ResourceInUse",
            format!(
                "Cannot delete launch configuration {name} because it is attached to an AutoScalingGroup"
            ),
        ));
    }
    match world.cloud.launch_configurations.remove(name) {
        Some(_) => Ok(Value::Null),
        None => Err(AwsError::validation_error(format!(
            "Launch configuration name not found - Launch configuration {name} not found"
        ))),
    }
}
