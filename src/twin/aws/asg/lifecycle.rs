//! Lives of instances: launched across zones, joining the cluster, leaving it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{AsgEvent, schedule_after, schedule_between, termination};
use crate::twin::aws::state::{
    AutoScalingGroup, AwsAccount, Ec2Instance, GroupMember, ScalingActivity, VpcSubnet,
};
use crate::twin::aws::{ec2, eks, elb, kube, quotas};
use crate::twin::world::{SimWorld, WorldNotice};

/// When a group tries again to launch what it could not.
const LAUNCH_RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// Addresses a node takes of its subnet: its own, and the CNI's for pods.
pub const ADDRESSES_PER_NODE: i64 = 12;

/// Lets every group look at its size.
pub fn reconcile_all_groups(world: &mut SimWorld) {
    let names: Vec<String> = world.cloud.asgs.keys().cloned().collect();
    for name in names {
        reconcile_group(world, &name);
    }
}

fn active_members(asg: &AutoScalingGroup) -> impl Iterator<Item = (&String, &GroupMember)> {
    asg.members
        .iter()
        .filter(|(_, m)| matches!(m.lifecycle.as_str(), "Pending" | "InService"))
}

/// Brings a group to its desired size, and its zones into balance.
pub fn reconcile_group(world: &mut SimWorld, name: &str) {
    let Some(asg) = world.cloud.asgs.get(name) else {
        return;
    };
    let (have, want) = (active_members(asg).count() as i64, asg.desired);
    // Processes can be suspended one by one; each of the three stops one of the branches below.
    let suspended = |process: &str| asg.suspended.contains(process);
    let (no_launch, no_terminate, no_balance) = (
        suspended("Launch"),
        suspended("Terminate"),
        suspended("AZRebalance"),
    );
    if have <= want {
        world.notify_observer(WorldNotice::GroupAtSize { asg: name });
    }
    // One failed launch ends this round, as all zones were tried; the group is looked at again later.
    if have < want && !no_launch {
        for _ in have..want {
            if !launch_instance(world, name, false) {
                schedule_after(
                    world,
                    LAUNCH_RETRY_INTERVAL,
                    AsgEvent::Looked {
                        asg: name.to_owned(),
                    },
                );
                break;
            }
        }
    } else if have > want && !no_terminate {
        // Instances beyond the size end at once, whatever budgets say (EKS-NG-14).
        for _ in want..have {
            let Some(victim) = world
                .cloud
                .asgs
                .get(name)
                .and_then(choose_member_to_terminate)
            else {
                break;
            };
            world.notify_observer(WorldNotice::EndedForSize {
                asg: name,
                instance: &victim,
            });
            termination::begin_termination(world, name, &victim, false);
        }
    } else if have == want
        && !no_launch
        && !no_terminate
        && !no_balance
        && is_unbalanced(world, name)
    {
        // Rebalancing launches in the emptiest zone first; the instance too many is then ended by size (ASG-3).
        launch_instance(world, name, true);
    }
}

/// Members per zone, for every zone the group's subnets are in.
fn count_members_by_zone(world: &SimWorld, asg: &AutoScalingGroup) -> BTreeMap<String, usize> {
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

/// Whether one zone has two members more than another that could take one.
fn is_unbalanced(world: &SimWorld, name: &str) -> bool {
    let Some(asg) = world.cloud.asgs.get(name) else {
        return false;
    };
    if asg.members.values().any(|m| m.lifecycle != "InService") {
        return false;
    }
    let zones = count_members_by_zone(world, asg);
    let least = zones
        .iter()
        .filter(|(zone, _)| !world.cloud.switches.no_capacity.contains(*zone))
        .map(|(_, n)| *n)
        .min();
    least.is_some_and(|least| zones.values().max().is_some_and(|most| *most > least + 1))
}

/// The default termination policy, as far as it shows: the oldest member of the fullest zone.
fn choose_member_to_terminate(asg: &AutoScalingGroup) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, member) in active_members(asg) {
        *counts.entry(&member.zone).or_default() += 1;
    }
    let fullest = counts.values().copied().max()?;
    active_members(asg)
        .filter(|(_, m)| counts.get(m.zone.as_str()) == Some(&fullest))
        .min_by_key(|(_, m)| m.number)
        .map(|(id, _)| id.clone())
}

/// Launches one instance in the emptiest zone that can take it; `balancing` in no other than the emptiest ones.
fn launch_instance(world: &mut SimWorld, name: &str, balancing: bool) -> bool {
    let Some(asg) = world.cloud.asgs.get(name).cloned() else {
        return false;
    };
    // ASG-4.
    let groups = &world.cloud.elb.groups;
    // A target group that was deleted stops every launch of the group.
    if let Some(missing) = asg
        .target_groups
        .keys()
        .find(|arn| !groups.contains_key(*arn))
    {
        let failure = format!(
            "One or more target groups not found. Validating load balancer configuration failed. ({missing})"
        );
        let id = world.new_uuid();
        record_activity(world, name, id, None, failure.clone());
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
    if balancing {
        let least = by_count.first().map_or(0, |(n, _)| *n);
        by_count.retain(|(n, _)| *n == least);
    }
    let mut failure = None;
    // Each zone that fails is an activity of its own, with EC2's reason; the next zone is tried (EKS-NG-32, EC2-5).
    for (_, zone) in by_count {
        match find_subnet(world, &asg, &zone) {
            Ok(subnet) => {
                create_instance(world, &asg, &subnet, &zone);
                return true;
            }
            Err(why) => {
                let id = world.new_uuid();
                record_activity(world, name, id, None, why.clone());
                failure = Some(why);
            }
        }
    }
    // The last reason is kept for EKS, which shows it as the node group's health issue.
    if let Some(asg) = world.cloud.asgs.get_mut(name) {
        asg.failed_launch = failure;
    }
    false
}

/// How many activities of a group are kept.
const MAX_ACTIVITIES_KEPT: usize = 100;

/// Writes an activity down.
fn record_activity(
    world: &mut SimWorld,
    name: &str,
    id: String,
    instance: Option<String>,
    message: String,
) {
    let began = world.now();
    let Some(asg) = world.cloud.asgs.get_mut(name) else {
        return;
    };
    // A group that fails to launch for hours would fill its list, so the oldest activities go.
    if asg.activities.len() >= MAX_ACTIVITIES_KEPT {
        asg.activities.remove(0);
    }
    asg.activities.push(ScalingActivity {
        id,
        began,
        instance,
        message,
    });
}

/// The subnet of a zone that an instance can be launched in; else EC2's reason why not.
fn find_subnet(world: &SimWorld, asg: &AutoScalingGroup, zone: &str) -> Result<String, String> {
    let cloud = &world.cloud;
    let instance_type = &asg.launch.instance_type;
    let could_not = |code: &str, why: String| {
        format!(
            "Could not launch On-Demand Instances. {code} - {why} Launching EC2 instance failed."
        )
    };
    // The order of the checks is from the account to the zone: the quota counts everywhere (EC2-4), the other reasons
    // in one zone.
    if let Some(why) = quota_failure(cloud, asg) {
        return Err(could_not("VcpuLimitExceeded", why));
    }
    if cloud
        .not_offered
        .contains(&(instance_type.clone(), zone.to_owned()))
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
    let subnets = asg.subnets.iter().filter_map(|s| cloud.subnets.get(s));
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
        None => Err(format!("The group has no subnet in {zone}.")),
    }
}

/// EC2's reason where one more instance would be beyond the account's vCPU quota.
fn quota_failure(cloud: &AwsAccount, asg: &AutoScalingGroup) -> Option<String> {
    let cpus = |instance_type: &str| ec2::types::capacity_of(instance_type).cpus;
    let mine = quotas::cpu_quota(&asg.launch.instance_type)?;
    let limit = quotas::quota_value(cloud, &mine);
    let running = cloud.instances.values().filter(|i| {
        matches!(i.state.as_str(), "pending" | "running")
            && quotas::cpu_quota(&i.instance_type).as_ref() == Some(&mine)
    });
    let used: i64 = running.map(|i| cpus(&i.instance_type)).sum();
    let others = cloud.other_cpus.get(&mine).copied().unwrap_or(0);
    let wanted = others + used + cpus(&asg.launch.instance_type);
    (wanted as f64 > limit).then(|| {
        format!(
            "You have requested more vCPU capacity than your current vCPU limit of {limit} allows for the instance bucket that the specified instance type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."
        )
    })
}

fn create_instance(world: &mut SimWorld, asg: &AutoScalingGroup, subnet: &str, zone: &str) {
    let (id, now) = (world.new_ec2_id("i-"), world.now());
    let region = world.cloud.region.clone();
    // An image whose user data starts no kubelet gives an instance that runs and never joins (EKS-NG-8), as does the
    // switch of a fault.
    let unfit = !ec2::user_data::starts_kubelet(&world.cloud, &asg.launch);
    let never_joins = unfit || world.cloud.switches.never_join > 0;
    world.cloud.switches.never_join = world.cloud.switches.never_join.saturating_sub(1);
    let Some(subnet) = world.cloud.subnets.get_mut(subnet) else {
        return;
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
    let mut tags: BTreeMap<String, String> = asg
        .tags
        .iter()
        .filter(|(_, (_, propagate))| *propagate)
        .map(|(k, (v, _))| (k.clone(), v.clone()))
        .collect();
    tags.insert("aws:autoscaling:groupName".into(), asg.name.clone());
    tags.insert(
        "aws:ec2launchtemplate:id".into(),
        asg.launch.template.clone(),
    );
    tags.insert(
        "aws:ec2launchtemplate:version".into(),
        asg.launch.version.to_string(),
    );
    let instance = Ec2Instance {
        id: id.clone(),
        instance_type: asg.launch.instance_type.clone(),
        zone: zone.to_owned(),
        subnet: subnet.id.clone(),
        image: asg.launch.image.clone(),
        state: "pending".into(),
        address,
        dns,
        tags,
        launched: now,
        asg: Some(asg.name.clone()),
        never_joins,
        joined: false,
    };
    world.cloud.instances.insert(id.clone(), instance);
    let number = world.cloud.next_number();
    if let Some(asg) = world.cloud.asgs.get_mut(&asg.name) {
        asg.members.insert(
            id.clone(),
            GroupMember {
                zone: zone.to_owned(),
                lifecycle: "Pending".into(),
                number,
            },
        );
        asg.failed_launch = None;
    }
    let activity = world.new_uuid();
    record_activity(world, &asg.name, activity, Some(id.clone()), String::new());
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

/// The next address of a subnet; the first four are AWS's.
fn next_address(subnet: &VpcSubnet) -> String {
    let base = subnet.cidr.split('/').next().unwrap_or("10.0.0.0");
    let base: u32 = base
        .parse::<std::net::Ipv4Addr>()
        .map_or(0x0a00_0000, u32::from);
    std::net::Ipv4Addr::from(base.wrapping_add(3 + subnet.given)).to_string()
}

/// The instance runs: its group registers it, and its kubelet starts.
pub fn launched(world: &mut SimWorld, name: &str, id: &str) {
    // The instance may have been ended while it was pending.
    let Some(instance) = world
        .cloud
        .instances
        .get_mut(id)
        .filter(|i| i.state == "pending")
    else {
        return;
    };
    instance.state = "running".into();
    let never = instance.never_joins;
    // The group registers the instance with its target groups as soon as it runs, before any node has joined (ASG-1).
    let mut groups = Vec::new();
    if let Some(asg) = world.cloud.asgs.get_mut(name) {
        if let Some(member) = asg.members.get_mut(id) {
            member.lifecycle = "InService".into();
        }
        groups = asg
            .target_groups
            .iter()
            .filter(|(_, state)| *state != "Removing")
            .map(|(arn, _)| arn.clone())
            .collect();
    }
    for arn in groups {
        elb::register_target(world, &arn, id, None);
    }
    // An instance that never joins still counts as in service for its group: Auto Scaling looks at EC2's health only.
    if !never {
        schedule_between(
            world,
            20,
            60,
            AsgEvent::Joined {
                instance: id.to_owned(),
            },
        );
    }
    reconcile_group(world, name);
}

/// The kubelet registers its node.
pub fn on_node_joined(world: &mut SimWorld, id: &str) {
    let Some(instance) = world
        .cloud
        .instances
        .get_mut(id)
        .filter(|i| i.state == "running")
    else {
        return;
    };
    instance.joined = true;
    let asg = instance.asg.clone();
    kube::join_node(world, id);
    let asg = asg.and_then(|name| world.cloud.asgs.get(&name));
    if let Some(group) = asg.map(|a| a.nodegroup.clone()) {
        eks::clear_degraded(world, &group);
    }
}
