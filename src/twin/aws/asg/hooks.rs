//! Lifecycle hooks: what holds an instance between its launch and its service, and between its service and its end
//! (ASG-9). EKS answers its own two hooks of a managed group itself; they are not waited for here.

use std::time::Duration;

use serde_json::{Value, json};

use super::{AsgEvent, groups, lifecycle, pool_members, schedule_after, termination};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::world::SimWorld;

/// The transition of a launch.
pub const LAUNCHING: &str = "autoscaling:EC2_INSTANCE_LAUNCHING";
/// The transition of a termination.
pub const TERMINATING: &str = "autoscaling:EC2_INSTANCE_TERMINATING";
/// Waits end after 48 hours, or a hundred heartbeats, whichever is shorter.
const MAX_WAIT_SECONDS: i64 = 172_800;
/// How many hooks a group may have.
const MAX_HOOKS: usize = 50;

/// A hook as DescribeLifecycleHooks shows it.
pub fn build_hook(group: &str, input: Input) -> Result<Value, AwsError> {
    let name = input.require_text("LifecycleHookName")?;
    let transition = input.get_text("LifecycleTransition");
    let transition = transition.ok_or_else(|| {
        AwsError::validation_error(
            "When creating a new Lifecycle Hook, you must specify a LifecycleTransition.",
        )
    })?;
    if ![LAUNCHING, TERMINATING].contains(&transition) {
        return Err(AwsError::validation_error(format!(
            "Invalid LifecycleTransition value: {transition}"
        )));
    }
    let result = input.get_text("DefaultResult").unwrap_or("ABANDON");
    if !["CONTINUE", "ABANDON"].contains(&result) {
        return Err(AwsError::validation_error(
            "The lifecycle action result must be either CONTINUE or ABANDON.",
        ));
    }
    let heartbeat = input.get_number("HeartbeatTimeout").unwrap_or(3600);
    if !(30..=7200).contains(&heartbeat) {
        return Err(AwsError::validation_error(
            "Heartbeat Timeout must be between 30 and 7200 seconds.",
        ));
    }
    Ok(json!({
        "LifecycleHookName": name,
        "AutoScalingGroupName": group,
        "LifecycleTransition": transition,
        "HeartbeatTimeout": heartbeat,
        "GlobalTimeout": (heartbeat * 100).min(MAX_WAIT_SECONDS),
        "DefaultResult": result,
        "NotificationTargetARN": input.get_text("NotificationTargetARN").filter(|t| !t.is_empty()),
        "RoleARN": input.get_text("RoleARN"),
        "NotificationMetadata": input.get_text("NotificationMetadata"),
    }))
}

/// PutLifecycleHook: what a request leaves out of a hook that is there stays as it is.
pub fn put_hook(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let group = groups::requested_group(world, input)?;
    let name = input.require_text("LifecycleHookName")?;
    let known = group
        .hooks
        .iter()
        .position(|h| h["LifecycleHookName"] == *name);
    let mut whole = known
        .and_then(|at| group.hooks[at].as_object().cloned())
        .unwrap_or_default();
    whole.retain(|_, value| !value.is_null());
    if let Some(given) = input.0.as_object() {
        whole.extend(given.clone());
    }
    let made = build_hook(&group.name, Input(&Value::Object(whole)))?;
    match known {
        Some(at) => group.hooks[at] = made,
        None if group.hooks.len() >= MAX_HOOKS => {
            return Err(AwsError::new(
                400,
                "LimitExceeded",
                "The maximum number of lifecycle hooks for the group has been reached.",
            ));
        }
        None => group.hooks.push(made),
    }
    Ok(json!({}))
}

/// DeleteLifecycleHook: what waits for it goes on.
pub fn delete_hook(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let group = groups::requested_group(world, input)?;
    let (name, hook) = (group.name.clone(), input.require_text("LifecycleHookName")?);
    let Some(at) = group
        .hooks
        .iter()
        .position(|h| h["LifecycleHookName"] == *hook)
    else {
        return Err(AwsError::validation_error(format!(
            "No Lifecycle Hook found with name: {hook}"
        )));
    };
    group.hooks.remove(at);
    let waiting: Vec<(String, String)> = waits_of(world, &name, hook);
    for (instance, token) in waiting {
        finish_wait(world, &name, &instance, &token, "CONTINUE");
    }
    Ok(json!({}))
}

/// Instances of a group that wait for a hook, with the token of the action.
fn waits_of(world: &SimWorld, group: &str, hook: &str) -> Vec<(String, String)> {
    let group = world.cloud.asgs.get(group);
    let waits = group.into_iter().flat_map(|g| g.all_members());
    let waits = waits.flat_map(|(id, m)| m.waits.iter().map(move |w| (id, w)));
    waits
        .filter(|(_, (name, _))| name == hook)
        .map(|(id, (_, token))| (id.clone(), token.clone()))
        .collect()
}

/// CompleteLifecycleAction.
pub fn complete_action(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let result = input.require_text("LifecycleActionResult")?.to_owned();
    if !["CONTINUE", "ABANDON"].contains(&result.as_str()) {
        return Err(AwsError::validation_error(
            "The lifecycle action result must be either CONTINUE or ABANDON.",
        ));
    }
    let (group, instance, token) = requested_action(world, input)?;
    finish_wait(world, &group, &instance, &token, &result);
    Ok(json!({}))
}

/// RecordLifecycleActionHeartbeat: the wait begins again.
pub fn record_heartbeat(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let (group, instance, old) = requested_action(world, input)?;
    // Another token makes the timeout that is queued pass over.
    let token = world.new_uuid();
    let hook = input.require_text("LifecycleHookName")?.to_owned();
    if let Some(asg) = world.cloud.asgs.get_mut(&group)
        && let Some(member) = asg.find_member_mut(&instance)
        && let Some(wait) = member.waits.iter_mut().find(|(_, t)| *t == old)
    {
        wait.1.clone_from(&token);
    }
    schedule_timeout(world, &group, &instance, &hook, token);
    Ok(json!({}))
}

/// The action that a request names: by its token, or by hook and instance.
fn requested_action(
    world: &mut SimWorld,
    input: Input,
) -> Result<(String, String, String), AwsError> {
    let group = groups::requested_group(world, input)?.name.clone();
    let hook = input.require_text("LifecycleHookName")?;
    let (instance, token) = (
        input.get_text("InstanceId"),
        input.get_text("LifecycleActionToken"),
    );
    let mut waits = waits_of(world, &group, hook).into_iter();
    let found = waits.find(|(i, t)| {
        instance.is_none_or(|asked| asked == i) && token.is_none_or(|asked| asked == t)
    });
    match found.filter(|_| instance.is_some() || token.is_some()) {
        Some((instance, token)) => Ok((group, instance, token)),
        None => Err(AwsError::validation_error(match instance {
            Some(id) => format!("No active Lifecycle Action found with instance ID {id}"),
            None => format!(
                "No active Lifecycle Action found with token {}",
                token.unwrap_or_default()
            ),
        })),
    }
}

/// Holds an instance until every hook of the transition is answered; whether there is any. All of them wait at once.
pub fn begin_waiting(world: &mut SimWorld, name: &str, id: &str, transition: &str) -> bool {
    let hooks = world.cloud.asgs.get(name).map(|g| g.hooks.clone());
    let hooks = hooks.unwrap_or_default();
    let names = hooks
        .iter()
        .filter(|h| h["LifecycleTransition"] == *transition);
    let names: Vec<String> = names
        .filter_map(|h| h["LifecycleHookName"].as_str().map(str::to_owned))
        .collect();
    // A managed group's own hooks are not among them.
    if names.is_empty() {
        return false;
    }
    let waits: Vec<(String, String)> = names
        .into_iter()
        .map(|hook| (hook, world.new_uuid()))
        .collect();
    if let Some(asg) = world.cloud.asgs.get_mut(name)
        && let Some(member) = asg.find_member_mut(id)
    {
        let pooled = member.lifecycle.starts_with("Warmed:");
        member.lifecycle = match (transition, pooled) {
            (LAUNCHING, false) => "Pending:Wait",
            (LAUNCHING, true) => "Warmed:Pending:Wait",
            (_, false) => "Terminating:Wait",
            (_, true) => "Warmed:Terminating:Wait",
        }
        .into();
        member.waits.clone_from(&waits);
    }
    for (hook, token) in waits {
        schedule_timeout(world, name, id, &hook, token);
    }
    true
}

fn schedule_timeout(world: &mut SimWorld, group: &str, id: &str, hook: &str, token: String) {
    let asg = world.cloud.asgs.get(group);
    let known = asg.and_then(|g| g.hooks.iter().find(|h| h["LifecycleHookName"] == *hook));
    let seconds = known.and_then(|h| h["HeartbeatTimeout"].as_u64());
    schedule_after(
        world,
        Duration::from_secs(seconds.unwrap_or(3600)),
        AsgEvent::HookTimedOut {
            asg: group.to_owned(),
            instance: id.to_owned(),
            token,
        },
    );
}

/// Nobody has answered in time: the hook's own result counts.
pub fn on_timeout(world: &mut SimWorld, name: &str, id: &str, token: &str) {
    let Some(asg) = world.cloud.asgs.get(name) else {
        return;
    };
    let waits = asg.find_member(id).map(|m| m.waits.as_slice());
    let Some((hook, _)) = waits.unwrap_or_default().iter().find(|(_, t)| t == token) else {
        return;
    };
    let known = asg.hooks.iter().find(|h| h["LifecycleHookName"] == **hook);
    let result = known.and_then(|h| h["DefaultResult"].as_str());
    let result = result.unwrap_or("ABANDON").to_owned();
    finish_wait(world, name, id, token, &result);
}

/// One hook is answered: the instance goes on after the last one, or at once where a launch is abandoned.
fn finish_wait(world: &mut SimWorld, name: &str, id: &str, token: &str, result: &str) {
    let Some(asg) = world.cloud.asgs.get_mut(name) else {
        return;
    };
    let Some(member) = asg.find_member_mut(id) else {
        return;
    };
    member.waits.retain(|(_, t)| t != token);
    let state = member.lifecycle.strip_prefix("Warmed:");
    let pooled = state.is_some();
    let launching = state.unwrap_or(&member.lifecycle).starts_with("Pending");
    // An abandoned termination stops the other hooks too, and the instance ends all the same (ASG-9).
    if result == "ABANDON" {
        member.waits.clear();
    }
    if !member.waits.is_empty() {
        return;
    }
    match (launching, result) {
        (true, "ABANDON") if pooled => {
            member.lifecycle = "Warmed:Terminating".into();
            termination::shut_down_instance(world, name, id);
            lifecycle::reconcile_group(world, name);
        }
        (true, _) if pooled => {
            member.lifecycle = "Warmed:Pending:Proceed".into();
            pool_members::on_warmed(world, name, id);
        }
        (false, _) if pooled => {
            member.lifecycle = "Warmed:Terminating:Proceed".into();
            termination::shut_down_instance(world, name, id);
        }
        (true, "ABANDON") => {
            termination::shut_down_instance(world, name, id);
            lifecycle::reconcile_group(world, name);
        }
        (true, _) => {
            member.lifecycle = "Pending:Proceed".into();
            lifecycle::put_in_service(world, name, id);
            lifecycle::reconcile_group(world, name);
        }
        (false, _) => {
            member.lifecycle = "Terminating:Proceed".into();
            termination::end_or_return(world, name, id);
        }
    }
}
