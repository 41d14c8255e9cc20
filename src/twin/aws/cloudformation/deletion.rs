//! DeleteStack, and how the resources of a stack go: each after what depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::changes::is_retained;
use super::deletion_effects::{DeletionProgress, begin_deletion, look_at_deletion};
use super::format::resources_of;
use super::references::dependencies_of;
use super::template::read_template;
use super::{StackEvent, schedule_after};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::{CloudFormationStack, StackDeletion, StackResource};
use crate::twin::world::SimWorld;

/// DeleteStack: what is not there is deleted already (CFN-12).
pub fn delete_stack(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let key = input.require_text("StackName")?;
    let Some(stack) = world.cloud.cloudformation.find_stack_mut(key) else {
        return Ok(Value::Null);
    };
    if stack.is_deleted() || stack.status == "DELETE_IN_PROGRESS" {
        return Ok(Value::Null);
    }
    if stack.protected {
        return Err(AwsError::validation_error(format!(
            "Stack [{}] cannot be deleted while TerminationProtection is enabled",
            stack.name
        )));
    }
    if stack.status.ends_with("_IN_PROGRESS") && stack.status != "REVIEW_IN_PROGRESS" {
        return Err(AwsError::validation_error(format!(
            "Stack [{}] cannot be deleted while in status {}",
            stack.name, stack.status
        )));
    }
    let retained: BTreeSet<String> = input.get_text_list("RetainResources").into_iter().collect();
    if !retained.is_empty() && stack.status != "DELETE_FAILED" {
        return Err(AwsError::validation_error(format!(
            "Invalid operation on stack [{}]. When you delete a stack, specify which resources to retain only when the stack is in the DELETE_FAILED state.",
            stack.id
        )));
    }
    if let Some(role) = input.get_text("RoleARN") {
        stack.role = Some(role.to_owned());
    }
    // A template that cannot be read says nothing of what depends on what.
    stack.deletion = Some(StackDeletion {
        operation: "DeleteStack",
        status_before: stack.status.clone(),
        template: read_template(&stack.template).unwrap_or_default(),
        resources: stack.resources.keys().cloned().collect(),
        retained,
    });
    stack.status = "DELETE_IN_PROGRESS".to_owned();
    stack.status_reason = None;
    // What an earlier deletion could not delete is tried again.
    for resource in stack.resources.values_mut() {
        if resource.status == "DELETE_FAILED" {
            resource.status = "UPDATE_COMPLETE".to_owned();
            resource.status_reason = None;
            resource.deleting_since = None;
        }
    }
    let id = stack.id.clone();
    schedule_step(world, &id, Duration::from_secs(2));
    Ok(Value::Null)
}

/// Lets the deletion of a stack's resources go on after `wait`.
pub fn schedule_step(world: &mut SimWorld, id: &str, wait: Duration) {
    let stack = id.to_owned();
    schedule_after(world, wait, StackEvent::DeletionContinued { stack });
}

/// One round: what has gone is noted, and what nothing depends on any more begins to go.
pub fn continue_deletion(world: &mut SimWorld, id: &str) {
    let Some(stack) = world.cloud.cloudformation.stacks.get(id).cloned() else {
        return;
    };
    let Some(deletion) = stack.deletion.clone() else {
        return;
    };
    if let Some(why) = export_in_use(world, &stack, &deletion) {
        set_status(world, id, &deletion.status_before, Some(why));
        return;
    }
    for name in &deletion.resources {
        let Some(resource) = stack.resources.get(name) else {
            continue;
        };
        if resource.status == "DELETE_IN_PROGRESS" {
            let progress = look_at_deletion(world, resource);
            note_progress(world, id, name, progress);
        }
    }
    for name in ready_resources(world, id, &deletion) {
        start_resource(world, id, &name, &deletion);
    }
    let Some(stack) = world.cloud.cloudformation.stacks.get(id) else {
        return;
    };
    let mut going = deletion
        .resources
        .iter()
        .filter_map(|n| stack.resources.get(n));
    if going.any(|r| r.status == "DELETE_IN_PROGRESS")
        || !ready_resources(world, id, &deletion).is_empty()
    {
        let wait = world.random_duration(Duration::from_secs(2), Duration::from_secs(6));
        schedule_step(world, id, wait);
        return;
    }
    finish(world, id, &deletion);
}

/// Why the stack stays as it is, where another one imports an export of it (CFN-13).
fn export_in_use(
    world: &SimWorld,
    stack: &CloudFormationStack,
    deletion: &StackDeletion,
) -> Option<String> {
    let begun = stack
        .resources
        .values()
        .any(|r| r.status.starts_with("DELETE_"));
    if deletion.operation != "DeleteStack" || begun {
        return None;
    }
    let mut exports = stack.outputs.iter().filter_map(|o| o.export.as_ref());
    exports.find_map(|export| {
        let importers = world.cloud.cloudformation.importers_of(export);
        let other = importers.into_iter().find(|name| *name != stack.name)?;
        Some(format!(
            "Cannot delete export {export} as it is in use by {other}."
        ))
    })
}

fn is_done(resource: Option<&StackResource>) -> bool {
    resource.is_none_or(|r| matches!(r.status.as_str(), "DELETE_COMPLETE" | "DELETE_SKIPPED"))
}

/// Resources whose deletion has not begun and that nothing depends on any more.
fn ready_resources(world: &SimWorld, id: &str, deletion: &StackDeletion) -> Vec<String> {
    let Some(stack) = world.cloud.cloudformation.stacks.get(id) else {
        return Vec::new();
    };
    let dependencies: BTreeMap<String, BTreeSet<String>> = resources_of(&deletion.template)
        .iter()
        .map(|(name, resource)| (name.clone(), dependencies_of(resource)))
        .collect();
    let waits = |name: &String| {
        let mut dependents = deletion
            .resources
            .iter()
            .filter(|other| dependencies.get(*other).is_some_and(|d| d.contains(name)));
        dependents.any(|other| !is_done(stack.resources.get(other)))
    };
    let pending = deletion.resources.iter().filter(|name| {
        let resource = stack.resources.get(*name);
        resource.is_some_and(|r| !r.status.starts_with("DELETE_"))
    });
    pending.filter(|name| !waits(name)).cloned().collect()
}

fn start_resource(world: &mut SimWorld, id: &str, name: &str, deletion: &StackDeletion) {
    let resource = deletion.template.pointer(&format!("/Resources/{name}"));
    if deletion.retained.contains(name) || resource.is_some_and(is_retained) {
        note_progress(world, id, name, DeletionProgress::Skipped);
        return;
    }
    let Some(stack) = world.cloud.cloudformation.stacks.get(id).cloned() else {
        return;
    };
    let injected = (stack.name.clone(), name.to_owned());
    let switches = &mut world.cloud.cloudformation.switches;
    let progress = match switches.deletion_fails.remove(&injected) {
        Some(why) => DeletionProgress::Failed(why),
        None => match stack.resources.get(name) {
            Some(resource) => begin_deletion(world, &stack, resource, deletion.operation),
            None => return,
        },
    };
    note_progress(world, id, name, progress);
}

fn note_progress(world: &mut SimWorld, id: &str, name: &str, progress: DeletionProgress) {
    let now = world.now();
    let stack = world.cloud.cloudformation.stacks.get_mut(id);
    let Some(resource) = stack.and_then(|s| s.resources.get_mut(name)) else {
        return;
    };
    let (status, why) = match progress {
        DeletionProgress::Going => ("DELETE_IN_PROGRESS", None),
        DeletionProgress::Gone => ("DELETE_COMPLETE", None),
        DeletionProgress::Skipped => ("DELETE_SKIPPED", None),
        DeletionProgress::Failed(why) => ("DELETE_FAILED", Some(why)),
    };
    resource.deleting_since.get_or_insert(now);
    if resource.status != status {
        resource.changed = now;
    }
    resource.status = status.to_owned();
    resource.status_reason = why;
}

fn set_status(world: &mut SimWorld, id: &str, status: &str, why: Option<String>) {
    if let Some(stack) = world.cloud.cloudformation.stacks.get_mut(id) {
        status.clone_into(&mut stack.status);
        stack.status_reason = why;
        stack.deletion = None;
    }
}

/// Nothing more can go: the stack is deleted, or it failed with what is still there.
fn finish(world: &mut SimWorld, id: &str, deletion: &StackDeletion) {
    let now = world.now();
    let Some(stack) = world.cloud.cloudformation.stacks.get_mut(id) else {
        return;
    };
    if deletion.operation == "ExecuteChangeSet" {
        // What an update took out of the template is no resource of the stack any more, whether it could be deleted or not.
        for name in &deletion.resources {
            stack.resources.remove(name);
        }
        set_status(world, id, "UPDATE_COMPLETE", None);
        return;
    }
    let failed: Vec<&str> = stack
        .resources
        .values()
        .filter(|r| r.status == "DELETE_FAILED")
        .map(|r| r.logical_id.as_str())
        .collect();
    if !failed.is_empty() {
        let why = format!(
            "The following resource(s) failed to delete: [{}]. ",
            failed.join(", ")
        );
        set_status(world, id, "DELETE_FAILED", Some(why));
        return;
    }
    stack.deleted = Some(now);
    set_status(world, id, "DELETE_COMPLETE", None);
}
