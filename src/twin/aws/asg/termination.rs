//! How an instance leaves its group: deregistered and drained, its pods evicted by EKS, ended.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{
    AsgEvent, activities, hooks, launch, lifecycle, pool_members, schedule_after, schedule_between,
};
use crate::twin::aws::{eks, elb, kube};
use crate::twin::world::{SimWorld, WorldNotice};

/// How long EKS lets pods of a deleted group resist before it ends the instance all the same (EKS-NG-16).
const GROUP_EVICTION_TIMEOUT: SignedDuration = SignedDuration::from_mins(5);
const DRAIN_RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Lets an instance leave: deregistered now, ended when it is drained; with `evict` EKS evicts its pods meanwhile.
pub fn begin_termination(world: &mut SimWorld, name: &str, id: &str, evict: bool) {
    let Some(asg) = world.cloud.asgs.get_mut(name) else {
        return;
    };
    // An instance that is on its way out already goes on as it does.
    let Some(member) = asg.members.get_mut(id).filter(|m| m.is_active()) else {
        return;
    };
    member.waits.clear();
    // An instance that waits for the hook of EKS shows so in its state (ASG-6).
    member.lifecycle = if evict {
        "Terminating:Wait"
    } else {
        "Terminating"
    }
    .into();
    // Deregistration and the evictions begin together here; AWS does one after the other.
    let groups: Vec<String> = asg.target_groups.keys().cloned().collect();
    for arn in groups {
        elb::deregister_target(world, &arn, id, None);
    }
    if evict {
        kube::evict_node_pods(world, id);
    }
    activities::record_termination(world, name, id);
    // The first look comes soon, because a group without targets and pods can end its instance at once.
    let began = world.now();
    schedule_after(
        world,
        Duration::from_secs(1),
        AsgEvent::Leaving {
            asg: name.to_owned(),
            instance: id.to_owned(),
            began,
            evict,
        },
    );
}

/// A look whether the instance may end.
pub fn continue_termination(
    world: &mut SimWorld,
    name: &str,
    id: &str,
    began: Timestamp,
    evict: bool,
) {
    // The instance ends when its targets have drained and its pods have left, or when the time for evictions is over
    // (EKS-NG-16).
    let groups: Vec<String> = world
        .cloud
        .asgs
        .get(name)
        .map(|a| a.target_groups.keys().cloned().collect())
        .unwrap_or_default();
    let draining = groups.iter().any(|arn| elb::is_draining(world, arn, id));
    let busy = evict
        && world.now().duration_since(began) < GROUP_EVICTION_TIMEOUT
        && kube::has_evictable_pods(world, id);
    if !draining && !busy {
        // Hooks hold the instance once its connections have drained (ASG-9); a forced deletion waits for none (ASG-7).
        let forced = world.cloud.asgs.get(name).is_some_and(|a| a.deleting);
        if forced || !hooks::begin_waiting(world, name, id, hooks::TERMINATING) {
            end_or_return(world, name, id);
        }
        return;
    }
    schedule_after(
        world,
        DRAIN_RECHECK_INTERVAL,
        AsgEvent::Leaving {
            asg: name.to_owned(),
            instance: id.to_owned(),
            began,
            evict,
        },
    );
}

/// The instance has left its group: it ends, unless it left for the group's size and its warm pool reuses it.
pub fn end_or_return(world: &mut SimWorld, name: &str, id: &str) {
    if pool_members::reuse_instance(world, name, id) {
        lifecycle::reconcile_group(world, name);
    } else {
        shut_down_instance(world, name, id);
    }
}

/// The instance shuts down, with whatever is on it: nobody drains the node of a self-managed group (SELF-4).
pub fn shut_down_instance(world: &mut SimWorld, name: &str, id: &str) {
    let members = world.cloud.asgs.get_mut(name).map(|a| &mut a.members);
    if let Some(member) = members
        .and_then(|m| m.get_mut(id))
        .filter(|m| m.is_active())
    {
        member.lifecycle = "Terminating".into();
    }
    let Some(instance) = world
        .cloud
        .instances
        .get_mut(id)
        .filter(|i| matches!(i.state.as_str(), "pending" | "running" | "stopped"))
    else {
        return;
    };
    // The node of a stopped one is still listed.
    let stopped = instance.state == "stopped";
    // Its node is gone from here on, though the instance ends a little later.
    instance.state = "shutting-down".into();
    let joined = std::mem::take(&mut instance.joined);
    if joined || stopped {
        kube::remove_node(world, id);
    }
    schedule_between(
        world,
        15,
        40,
        AsgEvent::Ended {
            instance: id.to_owned(),
        },
    );
}

/// Ends an instance of the pool, once the hooks of its end are answered.
pub fn end_pooled_instance(world: &mut SimWorld, name: &str, id: &str) {
    let asg = world.cloud.asgs.get_mut(name);
    let Some(member) = asg
        .and_then(|a| a.pool.get_mut(id))
        .filter(|m| pool_members::is_kept(m))
    else {
        return;
    };
    member.waits.clear();
    member.lifecycle = "Warmed:Terminating".into();
    activities::record_termination(world, name, id);
    if !hooks::begin_waiting(world, name, id, hooks::TERMINATING) {
        shut_down_instance(world, name, id);
    }
}

/// Ends all instances of the pool at once, whatever waits for them.
pub fn shut_down_pool(world: &mut SimWorld, name: &str) {
    let pool = world.cloud.asgs.get(name).map(|a| &a.pool);
    let ids: Vec<String> = pool.into_iter().flat_map(|p| p.keys().cloned()).collect();
    for id in ids {
        let asg = world.cloud.asgs.get_mut(name);
        if let Some(member) = asg.and_then(|a| a.pool.get_mut(&id)) {
            member.waits.clear();
            member.lifecycle = "Warmed:Terminating".into();
        }
        activities::record_termination(world, name, &id);
        shut_down_instance(world, name, &id);
    }
}

/// The instance is no more; its group looks at its size.
pub fn on_instance_terminated(world: &mut SimWorld, id: &str) {
    let Some(instance) = world.cloud.instances.get_mut(id) else {
        return;
    };
    instance.state = "terminated".into();
    let (subnet, asg) = (instance.subnet.clone(), instance.asg.clone());
    // The addresses are free again only now, which is what delays a replacement in a full subnet (EC2-5).
    if let Some(subnet) = world.cloud.subnets.get_mut(&subnet) {
        subnet.free += launch::ADDRESSES_PER_NODE;
    }
    elb::forget_instance(world, id);
    let Some(name) = asg else { return };
    activities::finish(world, &name, id, true);
    let Some(asg) = world.cloud.asgs.get_mut(&name) else {
        return;
    };
    asg.members.remove(id);
    let pooled = asg.pool.remove(id).is_some();
    let (empty, nodegroup) = (asg.members.is_empty(), asg.nodegroup.clone());
    if empty && asg.pool.is_empty() && asg.deleting {
        world.cloud.asgs.remove(&name);
        return;
    }
    if pooled {
        pool_members::on_pool_changed(world, &name);
    }
    // EKS waits for the last instance before it deletes the group (EKS-NG-16).
    if let Some(nodegroup) = nodegroup.filter(|_| empty) {
        eks::on_instances_gone(world, &nodegroup);
    }
    lifecycle::reconcile_group(world, &name);
}

/// Ends one instance and makes its group smaller by one.
pub fn terminate_and_shrink(world: &mut SimWorld, name: &str, id: &str) {
    if let Some(asg) = world.cloud.asgs.get_mut(name) {
        asg.desired = (asg.desired - 1).max(0);
        asg.min = asg.min.min(asg.desired);
    }
    begin_termination(world, name, id, false);
}

/// Ends one instance that its group replaces.
pub fn terminate_and_replace(world: &mut SimWorld, name: &str, id: &str) {
    world.notify_observer(WorldNotice::EndedByName { instance: id });
    begin_termination(world, name, id, false);
    lifecycle::reconcile_group(world, name);
}

/// EKS deletes the group: all instances at once, their pods evicted for five minutes at most (EKS-NG-16).
pub fn delete_group(world: &mut SimWorld, name: &str) {
    let Some(asg) = world.cloud.asgs.get_mut(name) else {
        return;
    };
    (asg.min, asg.max, asg.desired) = (0, 0, 0);
    let members: Vec<String> = asg.members.keys().cloned().collect();
    let nodegroup = asg.nodegroup.clone().unwrap_or_default();
    // A group without instances has nothing that would report its end.
    if members.is_empty() {
        eks::on_instances_gone(world, &nodegroup);
    }
    for id in members {
        let waiting = world
            .cloud
            .asgs
            .get(name)
            .and_then(|a| a.members.get(&id))
            .is_some_and(|m| m.is_active());
        if waiting {
            begin_termination(world, name, &id, true);
        }
    }
}
