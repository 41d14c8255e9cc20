//! Instances and volumes.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::filter::{passes_filters, tag_set};
use super::images;
use super::types;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::Ec2Instance;
use crate::twin::world::SimWorld;

/// The id of a profile, made of its name.
pub fn profile_id(name: &str) -> String {
    let digits = hex::encode_upper(Sha256::digest(name));
    format!("AIPA{}", &digits[..17])
}

fn state_code(state: &str) -> i64 {
    match state {
        "pending" => 0,
        "running" => 16,
        "shutting-down" => 32,
        "terminated" => 48,
        _ => 80,
    }
}

fn show_instance(world: &SimWorld, instance: &Ec2Instance) -> Value {
    let subnet = world.cloud.subnets.get(&instance.subnet);
    // A terminated instance keeps its object for a while, but no address, no subnet and no network.
    let alive = instance.state != "terminated";
    let here = |text: &str| alive.then(|| text.to_owned());
    // A core of an ARM processor has one thread, others have two (EC2 User Guide, CPU options).
    // Cores and threads together give the vCPUs, which the quota counts (EC2-4).
    let arm = images::is_arm(&instance.instance_type);
    let threads = if arm || types::capacity_of(&instance.instance_type).cpus < 2 {
        1
    } else {
        2
    };
    let asg = instance.asg.as_ref().and_then(|n| world.cloud.asgs.get(n));
    let launch = asg
        .and_then(|a| a.find_member(&instance.id))
        .map(|m| &m.launch);
    let profile = launch.and_then(|l| l.profile.as_ref()).map(|name| {
        json!({
            "arn": format!("arn:aws:iam::{}:instance-profile/{name}", world.cloud.account),
            "id": profile_id(name),
        })
    });
    json!({
        "instanceId": instance.id,
        "instanceLifecycle": launch.filter(|l| l.spot).map(|_| "spot"),
        "iamInstanceProfile": profile,
        "imageId": instance.image,
        "instanceState": {"code": state_code(&instance.state), "name": instance.state},
        "privateDnsName": here(&instance.dns).unwrap_or_default(),
        "privateIpAddress": here(&instance.address),
        "instanceType": instance.instance_type,
        "launchTime": instance.launched.to_string(),
        "placement": {"availabilityZone": instance.zone, "groupName": "", "tenancy": "default"},
        "monitoring": {"state": "disabled"},
        "subnetId": here(&instance.subnet),
        "vpcId": subnet.filter(|_| alive).map(|s| s.vpc.clone()),
        "architecture": if images::is_arm(&instance.instance_type) { "arm64" } else { "x86_64" },
        "cpuOptions": {"coreCount": types::capacity_of(&instance.instance_type).cpus / threads, "threadsPerCore": threads},
        "rootDeviceType": "ebs",
        "rootDeviceName": "/dev/xvda",
        "amiLaunchIndex": 0,
        "ebsOptimized": false,
        // Instances of Auto Mode are operated by EKS (AUTO-2).
        "operator": if instance.is_auto_mode() {
            json!({"managed": true, "principal": "eks.amazonaws.com"})
        } else {
            json!({"managed": false})
        },
        "tagSet": tag_set(&instance.tags),
    })
}

/// DescribeInstances.
pub fn describe_instances(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let ids = input.get_text_list("InstanceId");
    if !ids.is_empty() && input.get_number("MaxResults").is_some() {
        return Err(AwsError::new(
            400,
            "InvalidParameterCombination",
            "The parameter instancesSet cannot be used with the parameter maxResults",
        ));
    }
    // An id that does not exist is an error, unlike a filter that finds nothing.
    let missing: Vec<&str> = ids
        .iter()
        .filter(|id| !world.cloud.instances.contains_key(*id))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        let (plural, verb) = if missing.len() > 1 {
            ("s", "do")
        } else {
            ("", "does")
        };
        return Err(AwsError::new(
            400,
            "InvalidInstanceID.NotFound",
            format!(
                "The instance ID{plural} '{}' {verb} not exist",
                missing.join(", ")
            ),
        ));
    }
    // Instances that have ended are still in the answer, in their state, until EC2 forgets them.
    let mut found = Vec::new();
    for instance in world
        .cloud
        .instances
        .values()
        .filter(|i| ids.is_empty() || ids.contains(&i.id))
    {
        let vpc = world
            .cloud
            .subnets
            .get(&instance.subnet)
            .map(|s| s.vpc.clone())
            .unwrap_or_default();
        let pass = passes_filters(input, &instance.tags, |name| {
            Some(vec![match name {
                "instance-id" => instance.id.clone(),
                "instance-state-name" => instance.state.clone(),
                "instance-type" => instance.instance_type.clone(),
                "availability-zone" => instance.zone.clone(),
                "subnet-id" => instance.subnet.clone(),
                "image-id" => instance.image.clone(),
                "private-dns-name" => instance.dns.clone(),
                "vpc-id" => vpc.clone(),
                _ => return None,
            }])
        })?;
        if pass {
            found.push(json!({
                "reservationId": format!("r-{}", instance.id.trim_start_matches("i-")),
                "ownerId": world.cloud.account,
                "groupSet": [],
                "instancesSet": [show_instance(world, instance)],
            }));
        }
    }
    let page = cut_page(
        found,
        input.get_text("NextToken"),
        input.get_number("MaxResults").unwrap_or(1000),
    )?;
    Ok(json!({"reservationSet": page.items, "nextToken": page.next}))
}

/// DescribeVolumes: the EBS volumes behind the cluster's persistent volumes.
pub fn describe_volumes(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let ids = input.get_text_list("VolumeId");
    // A volume that was deleted is an error rather than an empty answer.
    if let Some(missing) = ids.iter().find(|id| !world.cloud.volumes.contains_key(*id)) {
        return Err(AwsError::new(
            400,
            "InvalidVolume.NotFound",
            format!("The volume '{missing}' does not exist."),
        ));
    }
    let mut found = Vec::new();
    for (id, zone) in world
        .cloud
        .volumes
        .iter()
        .filter(|(id, _)| ids.is_empty() || ids.contains(id))
    {
        let pass = passes_filters(input, &BTreeMap::new(), |name| match name {
            "volume-id" => Some(vec![id.clone()]),
            "availability-zone" => Some(vec![zone.clone()]),
            "status" => Some(vec!["in-use".to_owned()]),
            _ => None,
        })?;
        if pass {
            found.push(json!({"volumeId": id, "availabilityZone": zone, "status": "in-use", "volumeType": "gp3", "size": 20, "attachmentSet": [], "tagSet": []}));
        }
    }
    let page = cut_page(
        found,
        input.get_text("NextToken"),
        input.get_number("MaxResults").unwrap_or(1000),
    )?;
    Ok(json!({"volumeSet": page.items, "nextToken": page.next}))
}
