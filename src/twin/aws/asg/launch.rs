//! Launches: the zone, the subnet, the instance, or why there can be none.

use std::collections::BTreeMap;

use super::{AsgEvent, activities, launch_source, schedule_between};
use crate::twin::aws::state::{
    AutoScalingGroup, AwsAccount, Ec2Instance, GroupMember, InstanceLaunch, VpcSubnet,
};
use crate::twin::aws::{ec2, quotas};
use crate::twin::world::SimWorld;

/// Addresses a node takes of its subnet: its own, and the CNI's for pods.
pub const ADDRESSES_PER_NODE: i64 = 12;

/// What an instance is launched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchPurpose {
    Size,
    /// Only the emptiest zones will do.
    Balance,
    WarmPool,
}

/// Launches one instance in the emptiest zone that can take it.
pub fn launch_instance(world: &mut SimWorld, name: &str, purpose: LaunchPurpose) -> bool {
    let Some(asg) = world.cloud.asgs.get(name).cloned() else {
        return false;
    };
    // A target group that was deleted stops every launch of the group (ASG-4), as does a template that is gone.
    let groups = &world.cloud.elb.groups;
    let mut attached = asg.target_groups.keys();
    let missing = attached.find(|arn| !groups.contains_key(*arn));
    let launches = launch_source::next_launches(&world.cloud, &asg);
    let failed = match (missing, &launches) {
        (Some(missing), _) => Some(format!(
            "One or more target groups not found. Validating load balancer configuration failed. ({missing})"
        )),
        (None, Err(why)) => Some(format!("{why} Launching EC2 instance failed.")),
        (None, Ok(_)) => None,
    };
    let launches = launches.unwrap_or_default();
    if let Some(failure) = failed {
        activities::record_failure(world, name, failure.clone());
        if let Some(asg) = world.cloud.asgs.get_mut(name) {
            asg.failed_launch = Some(failure);
        }
        return false;
    }
    // The emptiest zone is tried first, so zones stay balanced without a rebalancing.
    let mut by_count: Vec<(usize, String)> = count_members_by_zone(world, &asg)
        .into_iter()
        .map(|(zone, n)| (n, zone))
        .collect();
    by_count.sort();
    if purpose == LaunchPurpose::Balance {
        let least = by_count.first().map_or(0, |(n, _)| *n);
        by_count.retain(|(n, _)| *n == least);
    }
    let mut failure = None;
    // Each zone that fails is an activity of its own, with EC2's reason; the next zone is tried (EKS-NG-32, EC2-5).
    for (_, zone) in by_count {
        let mut why_not = None;
        for launch in &launches {
            match find_subnet(world, &asg, launch, &zone) {
                Ok(subnet) => {
                    create_instance(world, &asg, (launch, purpose), (&subnet, &zone));
                    return true;
                }
                Err(why) => {
                    why_not.get_or_insert(why);
                }
            }
        }
        if let Some(why) = why_not {
            activities::record_failure(world, name, why.clone());
            failure = Some(why);
        }
    }
    // The last reason is kept for EKS, which shows it as the node group's health issue.
    if let Some(asg) = world.cloud.asgs.get_mut(name) {
        asg.failed_launch = failure;
    }
    false
}

/// The subnet of a zone that an instance can be launched in; else EC2's reason why not.
fn find_subnet(
    world: &SimWorld,
    asg: &AutoScalingGroup,
    launch: &InstanceLaunch,
    zone: &str,
) -> Result<String, String> {
    match find_launch_subnet(world, &asg.subnets, &launch.instance_type, zone) {
        Ok(subnet) => Ok(subnet),
        Err(why) if why.is_empty() => Err(format!("The group has no subnet in {zone}.")),
        Err(why) => {
            let (code, why) = why.split_once(": ").unwrap_or(("", &why));
            Err(format!(
                "Could not launch On-Demand Instances. {code} - {why} Launching EC2 instance failed."
            ))
        }
    }
}

/// The subnet of a zone that an instance of this type can be launched in; else EC2's code and reason why not, which is empty
/// where none of the subnets is in the zone.
pub fn find_launch_subnet(
    world: &SimWorld,
    subnets: &[String],
    instance_type: &str,
    zone: &str,
) -> Result<String, String> {
    let cloud = &world.cloud;
    let could_not = |code: &str, why: String| format!("{code}: {why}");
    // The order of the checks is from the account to the zone: the quota counts everywhere (EC2-4), the other reasons
    // in one zone.
    if let Some(why) = quota_failure(cloud, instance_type) {
        return Err(could_not("VcpuLimitExceeded", why));
    }
    if cloud
        .not_offered
        .contains(&(instance_type.to_owned(), zone.to_owned()))
    {
        let why = format!(
            "Your requested instance type ({instance_type}) is not supported in your requested Availability Zone ({zone}). Please retry your request by not specifying an Availability Zone or choosing another one."
        );
        return Err(could_not("Unsupported", why));
    }
    if cloud.switches.no_capacity.contains(zone) {
        let why = format!(
            "We currently do not have sufficient {instance_type} capacity in the Availability Zone you requested ({zone}). Our system will be working on provisioning additional capacity."
        );
        return Err(could_not("InsufficientInstanceCapacity", why));
    }
    let subnets = subnets.iter().filter_map(|s| cloud.subnets.get(s));
    let roomiest = subnets.filter(|s| s.zone == zone).max_by_key(|s| s.free);
    match roomiest {
        Some(subnet) if subnet.free > 0 => Ok(subnet.id.clone()),
        Some(subnet) => Err(could_not(
            "InsufficientFreeAddressesInSubnet",
            format!(
                "There are not enough free addresses in subnet '{}' to satisfy the requested number of instances.",
                subnet.id
            ),
        )),
        None => Err(String::new()),
    }
}

/// EC2's reason where one more instance would be beyond the account's vCPU quota.
fn quota_failure(cloud: &AwsAccount, instance_type: &str) -> Option<String> {
    let cpus = |instance_type: &str| ec2::types::capacity_of(instance_type).cpus;
    let mine = quotas::cpu_quota(instance_type)?;
    let limit = quotas::quota_value(cloud, &mine);
    let running = cloud.instances.values().filter(|i| {
        matches!(i.state.as_str(), "pending" | "running")
            && quotas::cpu_quota(&i.instance_type).as_ref() == Some(&mine)
    });
    let used: i64 = running.map(|i| cpus(&i.instance_type)).sum();
    let others = cloud.other_cpus.get(&mine).copied().unwrap_or(0);
    let wanted = others + used + cpus(instance_type);
    (wanted as f64 > limit).then(|| {
        format!(
            "You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance bucket that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."
        )
    })
}

fn create_instance(
    world: &mut SimWorld,
    asg: &AutoScalingGroup,
    (launch, purpose): (&InstanceLaunch, LaunchPurpose),
    (subnet, zone): (&str, &str),
) {
    let (id, now) = (world.new_ec2_id("i-"), world.now());
    ec2::images::learn_image(&mut world.cloud, launch);
    // An image whose user data starts no kubelet gives an instance that runs and never joins (EKS-NG-8), as does the
    // switch of a fault.
    let unfit = !ec2::bootstrap::starts_kubelet(&world.cloud, launch, asg.nodegroup.is_some());
    let never_joins = unfit || world.cloud.switches.never_join > 0;
    world.cloud.switches.never_join = world.cloud.switches.never_join.saturating_sub(1);
    if !world.cloud.subnets.contains_key(subnet) {
        return;
    }
    let (address, dns) = take_address(world, subnet);
    let instance = Ec2Instance {
        id: id.clone(),
        instance_type: launch.instance_type.clone(),
        zone: zone.to_owned(),
        subnet: subnet.to_owned(),
        image: launch.image.clone(),
        state: "pending".into(),
        address,
        dns,
        tags: instance_tags(&world.cloud, asg, launch),
        launched: now,
        asg: Some(asg.name.clone()),
        never_joins,
        joined: false,
    };
    world.cloud.instances.insert(id.clone(), instance);
    let number = world.cloud.next_number();
    if let Some(asg) = world.cloud.asgs.get_mut(&asg.name) {
        asg.launch.clone_from(launch);
        let mut member = GroupMember {
            zone: zone.to_owned(),
            lifecycle: "Pending".into(),
            number,
            launch: launch.clone(),
            ..GroupMember::default()
        };
        if purpose == LaunchPurpose::WarmPool {
            member.lifecycle = "Warmed:Pending".into();
            asg.pool.insert(id.clone(), member);
        } else {
            asg.members.insert(id.clone(), member);
        }
        asg.failed_launch = None;
    }
    activities::record_launch(world, &asg.name, &id);
    schedule_between(
        world,
        20,
        60,
        AsgEvent::Launched {
            asg: asg.name.clone(),
            instance: id,
        },
    );
}

/// Takes an address of a subnet for a node: the address, and the name that goes with it.
pub fn take_address(world: &mut SimWorld, subnet: &str) -> (String, String) {
    let region = world.cloud.region.clone();
    let Some(subnet) = world.cloud.subnets.get_mut(subnet) else {
        return (String::new(), String::new());
    };
    // A node takes more addresses than its own, since the CNI keeps a spare interface (EC2-2).
    subnet.free = (subnet.free - ADDRESSES_PER_NODE).max(0);
    subnet.given += 1;
    let address = next_address(subnet);
    let dashed = address.replace('.', "-");
    let dns = if region == "us-east-1" {
        format!("ip-{dashed}.ec2.internal")
    } else {
        format!("ip-{dashed}.{region}.compute.internal")
    };
    (address, dns)
}

/// The tags of a new instance: the template's, over them the group's that propagate, and Auto Scaling's own.
fn instance_tags(
    cloud: &AwsAccount,
    asg: &AutoScalingGroup,
    launch: &InstanceLaunch,
) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    let template = cloud.templates.get(&launch.template);
    let version = template.and_then(|t| t.versions.iter().find(|v| v.number == launch.version));
    if let Some(version) = version.filter(|_| asg.nodegroup.is_none()) {
        tags.extend(ec2::templates::instance_tags(version));
    }
    let propagated = asg.tags.iter().filter(|(_, (_, propagate))| *propagate);
    tags.extend(propagated.map(|(k, (v, _))| (k.clone(), v.clone())));
    tags.insert("aws:autoscaling:groupName".into(), asg.name.clone());
    if !launch.template.is_empty() {
        tags.insert("aws:ec2launchtemplate:id".into(), launch.template.clone());
        tags.insert(
            "aws:ec2launchtemplate:version".into(),
            launch.version.to_string(),
        );
    }
    tags
}

/// The instances that count towards the size.
pub fn active_members(asg: &AutoScalingGroup) -> impl Iterator<Item = (&String, &GroupMember)> {
    asg.members.iter().filter(|(_, m)| m.is_active())
}

/// Members per zone, for every zone the group's subnets are in.
pub fn count_members_by_zone(world: &SimWorld, asg: &AutoScalingGroup) -> BTreeMap<String, usize> {
    let mut zones: BTreeMap<String, usize> = asg
        .subnets
        .iter()
        .filter_map(|s| Some((world.cloud.subnets.get(s)?.zone.clone(), 0)))
        .collect();
    for (_, member) in active_members(asg) {
        *zones.entry(member.zone.clone()).or_default() += 1;
    }
    zones
}

/// The next address of a subnet; the first four are AWS's.
fn next_address(subnet: &VpcSubnet) -> String {
    let base = subnet.cidr.split('/').next().unwrap_or("10.0.0.0");
    let base: u32 = base
        .parse::<std::net::Ipv4Addr>()
        .map_or(0x0a00_0000, u32::from);
    std::net::Ipv4Addr::from(base.wrapping_add(3 + subnet.given)).to_string()
}
