//! The instances of a group's warm pool: how many there are to be, how they stop, and how they come and go (ASG-16, ASG-19).

use serde_json::Value;

use super::launch::count_members_by_zone;
use super::{AsgEvent, activities, schedule_between};
use crate::twin::aws::state::{AutoScalingGroup, GroupMember};
use crate::twin::aws::{elb, kube};
use crate::twin::world::SimWorld;

/// What a pool may keep its instances in.
pub const POOL_STATES: [&str; 3] = ["Stopped", "Running", "Hibernated"];

impl AutoScalingGroup {
    /// An instance of the group or of its warm pool.
    pub fn find_member(&self, id: &str) -> Option<&GroupMember> {
        self.members.get(id).or_else(|| self.pool.get(id))
    }

    /// The same, to be changed.
    pub fn find_member_mut(&mut self, id: &str) -> Option<&mut GroupMember> {
        match self.members.get_mut(id) {
            Some(member) => Some(member),
            None => self.pool.get_mut(id),
        }
    }

    /// All instances of the group and of its warm pool.
    pub fn all_members(&self) -> impl Iterator<Item = (&String, &GroupMember)> {
        self.members.iter().chain(&self.pool)
    }
}

/// How many instances the group's pool is to have beside `size` in the group: none where it has no pool, or one that is
/// deleted.
pub fn target_size(asg: &AutoScalingGroup, size: i64) -> i64 {
    let Some(pool) = &asg.settings.warm_pool else {
        return 0;
    };
    if is_pending_delete(pool) || asg.deleting {
        return 0;
    }
    let number = |member: &str| pool[member].as_i64();
    let prepared = number("MaxGroupPreparedCapacity").filter(|n| *n >= 0);
    let beside = prepared.unwrap_or(asg.max) - size;
    beside.max(number("MinSize").unwrap_or(0)).max(0)
}

pub fn is_pending_delete(pool: &Value) -> bool {
    pool["Status"] == "PendingDelete"
}

/// An instance of the pool that is not on its way out.
pub fn is_kept(member: &GroupMember) -> bool {
    !member.lifecycle.starts_with("Warmed:Terminating")
}

/// An instance that can be taken into service.
fn is_ready(member: &GroupMember) -> bool {
    let state = member.lifecycle.strip_prefix("Warmed:");
    state.is_some_and(|state| POOL_STATES.contains(&state))
}

/// The instance has warmed: it stops, unless its pool keeps it running.
pub fn on_warmed(world: &mut SimWorld, name: &str, id: &str) {
    let Some(asg) = world.cloud.asgs.get_mut(name) else {
        return;
    };
    let state = asg.settings.warm_pool.as_ref();
    let state = state
        .and_then(|p| p["PoolState"].as_str())
        .unwrap_or("Stopped");
    let state = state.to_owned();
    let Some(member) = asg.pool.get_mut(id).filter(|m| is_kept(m)) else {
        return;
    };
    member.lifecycle = format!("Warmed:{state}");
    activities::finish(world, name, id, false);
    if state == "Running" {
        return;
    }
    if let Some(instance) = world.cloud.instances.get_mut(id) {
        instance.state = "stopped".into();
        instance.joined = false;
    }
    // A node that it registered stays, and nothing is heard of it any more (ASG-19).
    kube::silence_node(world, id);
}

/// Takes an instance of the pool into the group, from the zone that has fewest; whether there was one.
pub fn take_instance(world: &mut SimWorld, name: &str) -> bool {
    let Some(asg) = world.cloud.asgs.get(name) else {
        return false;
    };
    let zones = count_members_by_zone(world, asg);
    let ready = asg.pool.iter().filter(|(_, m)| is_ready(m));
    let in_zone = |m: &GroupMember| zones.get(&m.zone).copied().unwrap_or(0);
    let first = ready.min_by_key(|(_, m)| (in_zone(m), m.number));
    let Some(id) = first.map(|(id, _)| id.clone()) else {
        return false;
    };
    let Some(asg) = world.cloud.asgs.get_mut(name) else {
        return false;
    };
    let Some(mut member) = asg.pool.remove(&id) else {
        return false;
    };
    member.lifecycle = "Pending".into();
    asg.members.insert(id.clone(), member);
    activities::record_launch(world, name, &id);
    if let Some(instance) = world.cloud.instances.get_mut(&id) {
        instance.state = "pending".into();
    }
    let launched = AsgEvent::Launched {
        asg: name.to_owned(),
        instance: id,
    };
    schedule_between(world, 8, 25, launched);
    true
}

/// Gives an instance that leaves the group for its size to the pool, where that reuses them and has room; whether it did.
pub fn reuse_instance(world: &mut SimWorld, name: &str, id: &str) -> bool {
    let Some(asg) = world.cloud.asgs.get_mut(name) else {
        return false;
    };
    let reuses = |p: &Value| p["InstanceReusePolicy"]["ReuseOnScaleIn"] == true;
    let room =
        (asg.pool.values().filter(|m| is_kept(m)).count() as i64) < target_size(asg, asg.desired);
    let leaves = asg.members.get(id).is_some_and(|m| m.leaves_for_size);
    if !leaves || !room || !asg.settings.warm_pool.as_ref().is_some_and(reuses) {
        return false;
    }
    let Some(mut member) = asg.members.remove(id) else {
        return false;
    };
    member.lifecycle = "Warmed:Pending".into();
    (member.leaves_for_size, member.in_service_since) = (false, None);
    asg.pool.insert(id.to_owned(), member);
    activities::finish(world, name, id, true);
    elb::forget_instance(world, id);
    let (asg, instance) = (name.to_owned(), id.to_owned());
    schedule_between(world, 5, 20, AsgEvent::Warmed { asg, instance });
    true
}

/// An instance of the pool has ended: a pool that is deleted goes with its last one.
pub fn on_pool_changed(world: &mut SimWorld, name: &str) {
    let Some(asg) = world.cloud.asgs.get_mut(name) else {
        return;
    };
    let pool = asg.settings.warm_pool.as_ref();
    if asg.pool.is_empty() && pool.is_some_and(is_pending_delete) {
        asg.settings.warm_pool = None;
    }
}
