//! Warm pools: instances that wait beside those of a group, taken into it when it grows (ASG-16 to ASG-19).

use std::time::Duration;

use serde_json::{Value, json};

use super::launch::{LaunchPurpose, count_members_by_zone, launch_instance};
use super::{
    AsgEvent, activities, groups, hooks, lifecycle, schedule_after, schedule_between, termination,
};
use crate::twin::aws::call::Input;
use crate::twin::aws::ec2::bootstrap;
use crate::twin::aws::elb;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::kube;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{AutoScalingGroup, GroupMember};
use crate::twin::world::SimWorld;

/// When a group tries again to launch into its pool what it could not.
const LAUNCH_RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// How many instances one DescribeWarmPool tells at most.
const INSTANCES_PER_PAGE: i64 = 50;
const POOL_STATES: [&str; 3] = ["Stopped", "Running", "Hibernated"];

/// How many instances the group's pool is to have beside `size` in the group: none where it has no pool, or one that is
/// deleted.
fn target_size(asg: &AutoScalingGroup, size: i64) -> i64 {
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

fn is_pending_delete(pool: &Value) -> bool {
    pool["Status"] == "PendingDelete"
}

/// An instance of the pool that is not on its way out.
fn is_kept(member: &GroupMember) -> bool {
    !member.lifecycle.starts_with("Warmed:Terminating")
}

/// An instance that can be taken into service.
fn is_ready(member: &GroupMember) -> bool {
    let state = member.lifecycle.strip_prefix("Warmed:");
    state.is_some_and(|state| POOL_STATES.contains(&state))
}

/// Brings the pool to its size.
pub fn reconcile_pool(world: &mut SimWorld, name: &str) {
    let Some(asg) = world.cloud.asgs.get(name) else {
        return;
    };
    let want = target_size(asg, asg.desired);
    // What leaves the group still counts, and may come back to the pool.
    let free = target_size(asg, asg.desired.max(asg.members.len() as i64));
    let kept = || asg.pool.iter().filter(|(_, m)| is_kept(m));
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
                end_instance(world, name, &id);
            }
        }
    }
}

/// An instance of the pool runs: whether `id` is one. Its kubelet starts like any other, unless its user data asks first.
pub fn on_launched(world: &mut SimWorld, name: &str, id: &str) -> bool {
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

/// Takes an instance that leaves the group for its size back into the pool, where that reuses them and has room; whether it
/// did.
pub fn take_back(world: &mut SimWorld, name: &str, id: &str) -> bool {
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

/// Ends an instance of the pool, once the hooks of its end are answered.
pub fn end_instance(world: &mut SimWorld, name: &str, id: &str) {
    let asg = world.cloud.asgs.get_mut(name);
    let Some(member) = asg.and_then(|a| a.pool.get_mut(id)).filter(|m| is_kept(m)) else {
        return;
    };
    member.waits.clear();
    member.lifecycle = "Warmed:Terminating".into();
    activities::record_termination(world, name, id);
    if !hooks::begin_waiting(world, name, id, hooks::TERMINATING) {
        termination::shut_down_instance(world, name, id);
    }
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

/// PutWarmPool: what a request leaves out of a pool that is there stays as it is (ASG-17).
pub fn put_warm_pool(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let group = groups::requested_group(world, input)?;
    let name = group.name.clone();
    let known = group.settings.warm_pool.clone().unwrap_or(Value::Null);
    if is_pending_delete(&known) {
        return Err(AwsError::validation_error(format!(
            "The warm pool of Auto Scaling group {name} is pending deletion."
        )));
    }
    let state = input.get_text("PoolState").or(known["PoolState"].as_str());
    let state = state.unwrap_or("Stopped").to_owned();
    if !POOL_STATES.contains(&state.as_str()) {
        return Err(AwsError::validation_error(format!(
            "Invalid warm pool state: {state}"
        )));
    }
    let number = |member: &str| input.get_number(member).or(known[member].as_i64());
    let (min, prepared) = (number("MinSize"), number("MaxGroupPreparedCapacity"));
    if min.is_some_and(|n| n < 0) || prepared.is_some_and(|n| n < -1) {
        return Err(AwsError::validation_error(
            "The sizes of a warm pool must not be negative.",
        ));
    }
    let reuse = input.get_input("InstanceReusePolicy");
    let reuse = reuse.and_then(|r| r.get_bool("ReuseOnScaleIn"));
    let policy = match reuse {
        Some(reuse) => json!({"ReuseOnScaleIn": reuse}),
        None => known["InstanceReusePolicy"].clone(),
    };
    let mut pool = json!({"MinSize": min.unwrap_or(0), "PoolState": state});
    if let Some(prepared) = prepared.filter(|n| *n >= 0) {
        pool["MaxGroupPreparedCapacity"] = json!(prepared);
    }
    if !policy.is_null() {
        pool["InstanceReusePolicy"] = policy;
    }
    group.settings.warm_pool = Some(pool);
    lifecycle::reconcile_group(world, &name);
    Ok(json!({}))
}

/// DeleteWarmPool: refused while it has instances, unless it is forced (ASG-18).
pub fn delete_warm_pool(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let force = input.get_bool("ForceDelete") == Some(true);
    let group = groups::requested_group(world, input)?;
    let name = group.name.clone();
    let Some(pool) = &mut group.settings.warm_pool else {
        return Err(AwsError::validation_error(format!(
            "No warm pool found for Auto Scaling group: {name}"
        )));
    };
    if !group.pool.is_empty() && !force {
        return Err(AwsError::new(
            400,
            "ResourceInUse",
            "You cannot delete a warm pool while there are instances still in the warm pool.",
        ));
    }
    pool["Status"] = json!("PendingDelete");
    shut_down_pool(world, &name);
    schedule_between(world, 3, 15, AsgEvent::PoolDeleted { asg: name });
    Ok(json!({}))
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
        termination::shut_down_instance(world, name, &id);
    }
}

/// DescribeWarmPool: a group without one is answered with no configuration.
pub fn describe_warm_pool(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let name = groups::requested_group(world, input)?.name.clone();
    let asked = input.get_number("MaxRecords").unwrap_or(INSTANCES_PER_PAGE);
    let Some(group) = world.cloud.asgs.get(&name) else {
        return Ok(json!({"Instances": []}));
    };
    let page = cut_page(
        group.pool.iter(),
        input.get_text("NextToken"),
        asked.min(INSTANCES_PER_PAGE),
    )?;
    let shown = page.items.iter();
    let shown: Vec<Value> = shown
        .map(|(id, member)| super::reads::show_instance(world, id, member))
        .collect();
    Ok(json!({
        "WarmPoolConfiguration": group.settings.warm_pool,
        "Instances": shown,
        "NextToken": page.next,
    }))
}
