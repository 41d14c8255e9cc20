//! Auto Scaling's reads.

use serde_json::{Value, json};

use super::{groups, health, launch_source};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{AutoScalingGroup, GroupMember};
use crate::twin::world::SimWorld;

/// What an instance was made of, as its group shows it.
fn show_launch(world: &SimWorld, member: &GroupMember) -> (&'static str, Value) {
    let launch = &member.launch;
    if let Some(name) = &launch.configuration {
        return ("LaunchConfigurationName", json!(name));
    }
    let template = world.cloud.templates.get(&launch.template);
    let name = template.map(|t| t.name.clone()).unwrap_or_default();
    (
        "LaunchTemplate",
        json!({"LaunchTemplateId": launch.template, "LaunchTemplateName": name, "Version": launch.version.to_string()}),
    )
}

pub(super) fn show_instance(world: &SimWorld, id: &str, member: &GroupMember) -> Value {
    let (source, launch) = show_launch(world, member);
    json!({
        "InstanceId": id,
        "InstanceType": world.cloud.instances.get(id).map(|i| i.instance_type.clone()),
        "AvailabilityZone": member.zone,
        "LifecycleState": member.lifecycle,
        "HealthStatus": "Healthy",
        source: launch,
        "ProtectedFromScaleIn": member.protected,
    })
}

fn show_tag(asg: &AutoScalingGroup, key: &str, value: &(String, bool)) -> Value {
    json!({"ResourceId": asg.name, "ResourceType": "auto-scaling-group", "Key": key, "Value": value.0, "PropagateAtLaunch": value.1})
}

fn show_group(world: &SimWorld, asg: &AutoScalingGroup) -> Value {
    let instances: Vec<Value> = asg
        .members
        .iter()
        .map(|(id, m)| show_instance(world, id, m))
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
    let (source, launch) = launch_source::show_source(&world.cloud, asg);
    let metrics = asg.settings.metrics.iter();
    let metrics: Vec<Value> = metrics
        .map(|m| json!({"Metric": m, "Granularity": "1Minute"}))
        .collect();
    let mut shown = json!({
        "AutoScalingGroupName": asg.name,
        "AutoScalingGroupARN": asg.arn,
        source: launch,
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
        "EnabledMetrics": metrics,
        "Tags": asg.tags.iter().map(|(k, v)| show_tag(asg, k, v)).collect::<Vec<_>>(),
        "TerminationPolicies": ["AllocationStrategy", "OldestLaunchTemplate", "OldestInstance"],
        "NewInstancesProtectedFromScaleIn": false,
        "CapacityRebalance": false,
    });
    // A group that somebody else made has its own defaults, and what it was given over them.
    if asg.nodegroup.is_none() {
        shown["HealthCheckGracePeriod"] = json!(health::DEFAULT_GRACE_SECONDS);
        shown["TerminationPolicies"] = json!(["Default"]);
        shown["ServiceLinkedRoleARN"] = json!(format!(
            "arn:aws:iam::{}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling",
            world.cloud.account
        ));
    }
    for (member, value) in &asg.settings.members {
        shown[member] = value.clone();
    }
    if let Some(pool) = &asg.settings.warm_pool {
        shown["WarmPoolConfiguration"] = pool.clone();
        shown["WarmPoolSize"] = json!(asg.pool.len());
    }
    if asg.deleting {
        shown["Status"] = json!("Delete in progress");
    }
    shown
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
        groups::page_size(input)?,
    )?;
    Ok(
        json!({"AutoScalingGroups": page.items.iter().map(|a| show_group(world, a)).collect::<Vec<_>>(), "NextToken": page.next}),
    )
}

/// DescribeAutoScalingInstances.
pub fn describe_instances(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let ids = input.get_text_list("InstanceIds");
    let all = world
        .cloud
        .asgs
        .values()
        .flat_map(|asg| asg.all_members().map(move |(id, m)| (asg, id, m)));
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
            let mut out = show_instance(world, id, member);
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
        groups::page_size(input)?,
    )?;
    Ok(json!({"Tags": page.items, "NextToken": page.next}))
}

/// DescribeLifecycleHooks: those EKS puts on its groups (ASG-6), and others.
pub fn describe_lifecycle_hooks(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    // The two hooks of EKS come first, then those that somebody else added.
    let names = input.get_text_list("LifecycleHookNames");
    let group = groups::requested_group(world, input)?;
    let (asg, others) = (group.name.clone(), group.hooks.clone());
    let managed = group.nodegroup.is_some();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
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
    .filter(|_| managed)
    .map(|(name, transition)| hook(name, transition))
    .chain(others)
    .filter(|h| wanted(h["LifecycleHookName"].as_str().unwrap_or_default()))
    .collect();
    Ok(json!({"LifecycleHooks": hooks}))
}
