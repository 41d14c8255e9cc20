//! Auto Scaling's reads.

use serde_json::{Value, json};

use super::writes;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{AutoScalingGroup, GroupMember, ScalingActivity};
use crate::twin::world::SimWorld;

fn show_launch_template(asg: &AutoScalingGroup, world: &SimWorld) -> Value {
    let name = world
        .cloud
        .templates
        .get(&asg.launch.template)
        .map(|t| t.name.clone())
        .unwrap_or_default();
    json!({"LaunchTemplateId": asg.launch.template, "LaunchTemplateName": name, "Version": asg.launch.version})
}

fn show_instance(
    world: &SimWorld,
    asg: &AutoScalingGroup,
    id: &str,
    member: &GroupMember,
) -> Value {
    json!({
        "InstanceId": id,
        "InstanceType": world.cloud.instances.get(id).map(|i| i.instance_type.clone()),
        "AvailabilityZone": member.zone,
        "LifecycleState": member.lifecycle,
        "HealthStatus": "Healthy",
        "LaunchTemplate": show_launch_template(asg, world),
        "ProtectedFromScaleIn": false,
    })
}

fn show_tag(asg: &AutoScalingGroup, key: &str, value: &(String, bool)) -> Value {
    json!({"ResourceId": asg.name, "ResourceType": "auto-scaling-group", "Key": key, "Value": value.0, "PropagateAtLaunch": value.1})
}

fn show_group(world: &SimWorld, asg: &AutoScalingGroup) -> Value {
    let instances: Vec<Value> = asg
        .members
        .iter()
        .map(|(id, m)| show_instance(world, asg, id, m))
        .collect();
    // The zones are those of the subnets, since a group has no list of its own.
    let mut zones: Vec<&str> = asg
        .subnets
        .iter()
        .filter_map(|s| Some(world.cloud.subnets.get(s)?.zone.as_str()))
        .collect();
    zones.sort_unstable();
    zones.dedup();
    let suspended: Vec<Value> = asg
        .suspended
        .iter()
        .map(|p| json!({"ProcessName": p, "SuspensionReason": "User suspended"}))
        .collect();
    // A target group that is being detached is shown no more, though its targets still drain.
    let attached: Vec<&String> = asg
        .target_groups
        .iter()
        .filter(|(_, state)| *state != "Removing")
        .map(|(arn, _)| arn)
        .collect();
    // Classic load balancers are listed by name beside target groups, under one list of sources.
    let classics = asg.load_balancers.iter();
    let sources: Vec<Value> = attached
        .iter()
        .map(|arn| json!({"Identifier": arn, "Type": "elbv2"}))
        .chain(classics.map(|name| json!({"Identifier": name, "Type": "elb"})))
        .collect();
    json!({
        "AutoScalingGroupName": asg.name,
        "AutoScalingGroupARN": asg.arn,
        "LaunchTemplate": show_launch_template(asg, world),
        "MinSize": asg.min,
        "MaxSize": asg.max,
        "DesiredCapacity": asg.desired,
        "DefaultCooldown": 300,
        "AvailabilityZones": zones,
        "LoadBalancerNames": asg.load_balancers,
        "TargetGroupARNs": attached,
        "TrafficSources": sources,
        "HealthCheckType": "EC2",
        "HealthCheckGracePeriod": 300,
        "Instances": instances,
        "CreatedTime": asg.created.to_string(),
        "SuspendedProcesses": suspended,
        "VPCZoneIdentifier": asg.subnets.join(","),
        "EnabledMetrics": [],
        "Tags": asg.tags.iter().map(|(k, v)| show_tag(asg, k, v)).collect::<Vec<_>>(),
        "TerminationPolicies": ["AllocationStrategy", "OldestLaunchTemplate", "OldestInstance"],
        "NewInstancesProtectedFromScaleIn": false,
        "CapacityRebalance": false,
    })
}

/// DescribeAutoScalingGroups: a name that does not exist is absent from the answer.
pub fn describe_groups(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let names = input.get_text_list("AutoScalingGroupNames");
    // A filter by tag wants the key with one of the values; a filter that is not known matches nothing.
    let wanted = |asg: &&AutoScalingGroup| {
        (names.is_empty() || names.contains(&asg.name))
            && input.get_list("Filters").iter().map(Input).all(|filter| {
                let (name, values) = (
                    filter.get_text("Name").unwrap_or_default(),
                    filter.get_text_list("Values"),
                );
                match (name, name.strip_prefix("tag:")) {
                    (_, Some(key)) => asg
                        .tags
                        .get(key)
                        .is_some_and(|(value, _)| values.contains(value)),
                    ("tag-key", None) => asg.tags.keys().any(|key| values.contains(key)),
                    ("tag-value", None) => {
                        asg.tags.values().any(|(value, _)| values.contains(value))
                    }
                    _ => false,
                }
            })
    };
    let page = cut_page(
        world.cloud.asgs.values().filter(wanted),
        input.get_text("NextToken"),
        page_size(input)?,
    )?;
    Ok(
        json!({"AutoScalingGroups": page.items.iter().map(|a| show_group(world, a)).collect::<Vec<_>>(), "NextToken": page.next}),
    )
}

/// How many records a page may have.
fn page_size(input: Input) -> Result<i64, AwsError> {
    match input.get_number("MaxRecords") {
        None => Ok(50),
        Some(n) if (1..=100).contains(&n) => Ok(n),
        Some(_) => Err(AwsError::validation_error(
            "The number of records must be between 1 and 100.",
        )),
    }
}

/// DescribeAutoScalingInstances.
pub fn describe_instances(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let ids = input.get_text_list("InstanceIds");
    let all = world
        .cloud
        .asgs
        .values()
        .flat_map(|asg| asg.members.iter().map(move |(id, m)| (asg, id, m)));
    // A page is cut from all groups together, in the order of their names.
    let page = cut_page(
        all.filter(|(_, id, _)| ids.is_empty() || ids.contains(id)),
        input.get_text("NextToken"),
        input.get_number("MaxRecords").unwrap_or(50).min(50),
    )?;
    let shown: Vec<Value> = page
        .items
        .iter()
        .map(|(asg, id, member)| {
            let mut out = show_instance(world, asg, id, member);
            out["AutoScalingGroupName"] = json!(asg.name);
            out["HealthStatus"] = json!("HEALTHY");
            out
        })
        .collect();
    Ok(json!({"AutoScalingInstances": shown, "NextToken": page.next}))
}

/// DescribeTags.
pub fn describe_tags(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let all = world
        .cloud
        .asgs
        .values()
        .flat_map(|asg| asg.tags.iter().map(move |(k, v)| show_tag(asg, k, v)));
    // A filter that is not known matches no tag.
    let wanted = |tag: &Value| {
        input.get_list("Filters").iter().map(Input).all(|filter| {
            let values = filter.get_text_list("Values");
            let member = match filter.get_text("Name") {
                Some("auto-scaling-group") => "ResourceId",
                Some("key") => "Key",
                Some("value") => "Value",
                Some("propagate-at-launch") => "PropagateAtLaunch",
                Some(_) | None => return false,
            };
            values.contains(
                &tag[member]
                    .as_str()
                    .map_or_else(|| tag[member].to_string(), str::to_owned),
            )
        })
    };
    let page = cut_page(
        all.filter(wanted),
        input.get_text("NextToken"),
        page_size(input)?,
    )?;
    Ok(json!({"Tags": page.items, "NextToken": page.next}))
}

/// DescribeLifecycleHooks: those EKS puts on its groups (ASG-6), and others.
pub fn describe_lifecycle_hooks(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    // The two hooks of EKS come first, then those that somebody else added.
    let names = input.get_text_list("LifecycleHookNames");
    let group = writes::requested_group(world, input)?;
    let (asg, others) = (group.name.clone(), group.hooks.clone());
    let hook = |name: &str, transition: &str| {
        json!({
            "LifecycleHookName": name,
            "AutoScalingGroupName": asg,
            "LifecycleTransition": format!("autoscaling:EC2_INSTANCE_{transition}"),
            "HeartbeatTimeout": 1800,
            "GlobalTimeout": 172_800,
            "DefaultResult": "CONTINUE",
        })
    };
    let hooks: Vec<Value> = [
        ("Launch-LC-Hook", "LAUNCHING"),
        ("Terminate-LC-Hook", "TERMINATING"),
    ]
    .into_iter()
    .filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name))
    .map(|(name, transition)| hook(name, transition))
    .chain(others)
    .collect();
    Ok(json!({"LifecycleHooks": hooks}))
}

/// DescribeScalingActivities: newest first.
pub fn describe_activities(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let name = input.get_text("AutoScalingGroupName");
    let ids = input.get_text_list("ActivityIds");
    let groups = world.cloud.asgs.values();
    // Without a name the activities of all groups are shown.
    let mut all: Vec<(&AutoScalingGroup, &ScalingActivity)> = groups
        .filter(|asg| name.is_none_or(|n| n == asg.name))
        .flat_map(|asg| asg.activities.iter().map(move |a| (asg, a)))
        .filter(|(_, a)| ids.is_empty() || ids.contains(&a.id))
        .collect();
    all.sort_by_key(|(_, a)| std::cmp::Reverse(a.began));
    let page = cut_page(all, input.get_text("NextToken"), page_size(input)?)?;
    let shown: Vec<Value> = page
        .items
        .iter()
        .map(|(asg, a)| show_activity(asg, a))
        .collect();
    Ok(json!({"Activities": shown, "NextToken": page.next}))
}

fn show_activity(asg: &AutoScalingGroup, activity: &ScalingActivity) -> Value {
    let at = activity.began.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut shown = json!({
        "ActivityId": activity.id,
        "AutoScalingGroupName": asg.name,
        "Cause": format!(
            "At {at} an instance was started in response to a difference between desired and actual capacity."
        ),
        "StartTime": at,
        "EndTime": at,
        "Progress": 100,
        "Details": "{}",
        "AutoScalingGroupARN": asg.arn,
    });
    // An activity without an instance is a failed launch, and its message is where the reason is found (EKS-NG-32).
    match &activity.instance {
        Some(instance) => {
            shown["Description"] = json!(format!("Launching a new EC2 instance: {instance}"));
            shown["StatusCode"] = json!("Successful");
        }
        None => {
            let message = &activity.message;
            shown["Description"] = json!(format!(
                "Launching a new EC2 instance.  Status Reason: {message}"
            ));
            shown["StatusCode"] = json!("Failed");
            shown["StatusMessage"] = json!(message);
        }
    }
    shown
}
