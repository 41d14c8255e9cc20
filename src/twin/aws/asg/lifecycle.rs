//! Lives of instances: launched across zones, joining the cluster, leaving it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::launch::{LaunchPurpose, active_members, count_members_by_zone, launch_instance};
use super::{
    AsgEvent, activities, hooks, pool_members, schedule_after, schedule_between, termination,
};
use crate::twin::aws::ec2::bootstrap;
use crate::twin::aws::state::AutoScalingGroup;
use crate::twin::aws::{eks, elb, kube};
use crate::twin::world::{SimWorld, WorldNotice};

/// When a group tries again to launch what it could not.
const LAUNCH_RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// When a kubelet tries again to register where its role is not let in.
const REGISTRATION_RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Lets every group look at its size.
pub fn reconcile_all_groups(world: &mut SimWorld) {
    let names: Vec<String> = world.cloud.asgs.keys().cloned().collect();
    for name in names {
        reconcile_group(world, &name);
    }
}

/// Brings a group to its desired size, its zones into balance, and its warm pool to the size that is left for it.
pub fn reconcile_group(world: &mut SimWorld, name: &str) {
    reconcile_members(world, name);
    reconcile_pool(world, name);
}

fn reconcile_members(world: &mut SimWorld, name: &str) {
    let Some(asg) = world.cloud.asgs.get(name) else {
        return;
    };
    let (have, want) = (active_members(asg).count() as i64, asg.desired);
    // A group that is being deleted launches nothing; its instances end by the deletion.
    if asg.deleting {
        return;
    }
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
            // What waits in the pool comes first.
            if !pool_members::take_instance(world, name)
                && !launch_instance(world, name, LaunchPurpose::Size)
            {
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
            let asg = world.cloud.asgs.get_mut(name);
            if let Some(member) = asg.and_then(|a| a.members.get_mut(&victim)) {
                member.leaves_for_size = true;
            }
            termination::begin_termination(world, name, &victim, false);
        }
    } else if have == want
        && !no_launch
        && !no_terminate
        && !no_balance
        && is_unbalanced(world, name)
    {
        // Rebalancing launches in the emptiest zone first; the instance too many is then ended by size (ASG-3).
        launch_instance(world, name, LaunchPurpose::Balance);
    }
}

/// Brings the pool to its size.
fn reconcile_pool(world: &mut SimWorld, name: &str) {
    let Some(asg) = world.cloud.asgs.get(name) else {
        return;
    };
    let want = pool_members::target_size(asg, asg.desired);
    // What leaves the group still counts, and may come back to the pool.
    let free = pool_members::target_size(asg, asg.desired.max(asg.members.len() as i64));
    let kept = || asg.pool.iter().filter(|(_, m)| pool_members::is_kept(m));
    let have = kept().count() as i64;
    // Launch adds instances to a pool too (ASG-18).
    if have < free && !asg.suspended.contains("Launch") {
        for _ in have..free {
            if !launch_instance(world, name, LaunchPurpose::WarmPool) {
                let asg = name.to_owned();
                schedule_after(world, LAUNCH_RETRY_INTERVAL, AsgEvent::Looked { asg });
                break;
            }
        }
    } else if have > want && !asg.suspended.contains("Terminate") {
        let mut newest: Vec<(u64, String)> = kept().map(|(id, m)| (m.number, id.clone())).collect();
        newest.sort();
        for _ in want..have {
            if let Some((_, id)) = newest.pop() {
                termination::end_pooled_instance(world, name, &id);
            }
        }
    }
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

/// The default termination policy, as far as it shows: the oldest member of the fullest zone that has one without
/// protection from scale-in (ASG-8). None where all are protected: the group stays too large.
fn choose_member_to_terminate(asg: &AutoScalingGroup) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, member) in active_members(asg) {
        *counts.entry(&member.zone).or_default() += 1;
    }
    let open = || active_members(asg).filter(|(_, m)| !m.protected);
    let fullest = open()
        .filter_map(|(_, m)| counts.get(m.zone.as_str()))
        .max()?;
    open()
        .filter(|(_, m)| counts.get(m.zone.as_str()) == Some(fullest))
        .min_by_key(|(_, m)| m.number)
        .map(|(id, _)| id.clone())
}

/// The instance runs: its kubelet starts, and its group registers it, unless a hook holds it back.
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
    if begin_warming(world, name, id) {
        return;
    }
    if !hooks::begin_waiting(world, name, id, hooks::LAUNCHING) {
        put_in_service(world, name, id);
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

/// An instance of the pool runs: whether `id` is one. Its kubelet starts like any other, unless its user data asks first.
fn begin_warming(world: &mut SimWorld, name: &str, id: &str) -> bool {
    let asg = world.cloud.asgs.get(name);
    let Some(member) = asg.and_then(|a| a.pool.get(id)) else {
        return false;
    };
    let defers = bootstrap::waits_for_service(&member.launch);
    let never = { world.cloud.instances.get(id) }.is_none_or(|i| i.never_joins);
    let instance = id.to_owned();
    if !never && !defers {
        let joined = AsgEvent::Joined {
            instance: instance.clone(),
        };
        schedule_between(world, 20, 60, joined);
    }
    // Without a hook nobody waits for what the instance does at its start (ASG-19).
    if !hooks::begin_waiting(world, name, id, hooks::LAUNCHING) {
        let asg = name.to_owned();
        schedule_between(world, 30, 90, AsgEvent::Warmed { asg, instance });
    }
    true
}

/// The group registers the instance with its target groups as soon as it is in service, before any node has joined
/// (ASG-1).
pub fn put_in_service(world: &mut SimWorld, name: &str, id: &str) {
    activities::finish(world, name, id, false);
    let (mut groups, now) = (Vec::new(), world.now());
    if let Some(asg) = world.cloud.asgs.get_mut(name) {
        let protected = asg.settings.protects_new();
        if let Some(member) = asg.members.get_mut(id) {
            member.lifecycle = "InService".into();
            member.in_service_since = Some(now);
            member.protected = protected;
        }
        // A group whose process is suspended leaves its instances out for good (ASG-10).
        if !asg.suspended.contains("AddToLoadBalancer") {
            let attached = asg.target_groups.iter();
            let attached = attached.filter(|(_, state)| *state != "Removing");
            groups = attached.map(|(arn, _)| arn.clone()).collect();
        }
    }
    for arn in groups {
        elb::register_target(world, &arn, id, None);
    }
}

/// The kubelet registers its node.
pub fn on_node_joined(world: &mut SimWorld, id: &str) {
    let running = world.cloud.instances.get(id);
    let running = running.filter(|i| i.state == "running" && !i.joined);
    let Some(name) = running.map(|i| i.asg.clone()) else {
        return;
    };
    let asg = name.as_ref().and_then(|name| world.cloud.asgs.get(name));
    let managed = asg.and_then(|a| a.nodegroup.clone());
    // A role that is gone, or has lost its policies, lets no kubelet register (CFN-15).
    if has_no_role(world, asg, id) {
        retry_registration(world, id);
        return;
    }
    // EKS lets the roles of its own groups in by itself. Any other role needs an access entry or a row of aws-auth;
    // until it has one the kubelet tries again, and nothing tells why the node does not come (SELF-3).
    if let (Some(asg), None) = (asg, &managed) {
        let launch = asg.find_member(id).map(|m| m.launch.clone());
        let role = launch.and_then(|launch| world.cloud.role_of(&launch));
        if !role.is_some_and(|role| eks::admits_role(world, &role)) {
            retry_registration(world, id);
            return;
        }
    }
    if let Some(instance) = world.cloud.instances.get_mut(id) {
        instance.joined = true;
    }
    kube::register_node(world, id);
    if let Some(group) = managed {
        eks::clear_degraded(world, &group);
    }
}

fn retry_registration(world: &mut SimWorld, id: &str) {
    let instance = id.to_owned();
    let due = AsgEvent::Joined { instance };
    schedule_after(world, REGISTRATION_RETRY_INTERVAL, due);
}

/// Whether the role of an instance was deleted, or has no policies any more.
fn has_no_role(world: &SimWorld, asg: Option<&AutoScalingGroup>, id: &str) -> bool {
    let Some(asg) = asg else { return false };
    let cloud = &world.cloud;
    let eks = cloud.eks.as_ref();
    let managed = asg.nodegroup.as_ref().and_then(|g| eks?.nodegroups.get(g));
    let of_group = managed.and_then(|g| Some(g.spec.get("nodeRole")?.as_str()?.to_owned()));
    let launch = asg.members.get(id).map(|m| &m.launch);
    let role = of_group.or_else(|| cloud.role_of(launch?));
    let gone =
        |role| cloud.deleted.roles.contains(&role) || cloud.deleted.stripped_roles.contains(&role);
    role.is_some_and(gone)
}
