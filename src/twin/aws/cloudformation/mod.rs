//! CloudFormation: the stacks of node groups, as far as a deletion and a change of their templates go.

mod change_sets;
mod changes;
mod deletion;
mod deletion_effects;
mod format;
mod outputs;
mod parameters;
mod references;
mod scope;
mod seed;
mod seed_groups;
mod seed_nodes;
mod stacks;
mod template;
mod yaml;

use std::time::Duration;

use serde_json::Value;

use super::call::{AwsService, Input};
use super::error::AwsError;
use super::state::{AwsAccount, StackChangeSet};
use super::unknown_operation;
use crate::twin::world::{ScheduledEvent, SimWorld};

pub use seed::seed;

/// Something that will happen in CloudFormation.
#[derive(Clone, Debug)]
pub enum StackEvent {
    /// A change set begins to be made.
    ChangeSetBegun { arn: String },
    /// A change set is made.
    ChangeSetMade { arn: String },
    /// The changes of a change set that is executed are made.
    ChangesApplied { arn: String },
    /// The rollback of a failed update is over.
    RolledBack { stack: String },
    /// A look at what of a stack is to go.
    DeletionContinued { stack: String },
}

/// Makes `due` happen.
pub fn handle_event(world: &mut SimWorld, due: StackEvent) {
    match due {
        StackEvent::ChangeSetBegun { arn } => change_sets::begin_creation(world, &arn),
        StackEvent::ChangeSetMade { arn } => change_sets::finish_creation(world, &arn),
        StackEvent::ChangesApplied { arn } => change_sets::apply_changes(world, &arn),
        StackEvent::RolledBack { stack } => change_sets::finish_rollback(world, &stack),
        StackEvent::DeletionContinued { stack } => deletion::continue_deletion(world, &stack),
    }
}

/// Answers for CloudFormation.
pub fn run_operation(world: &mut SimWorld, op: &str, input: Input) -> Result<Value, AwsError> {
    match op {
        "DescribeStacks" => stacks::describe_stacks(&world.cloud, input),
        "DescribeStackResources" => stacks::describe_resources(&world.cloud, input),
        "ListStackResources" => stacks::list_resources(&world.cloud, input),
        "GetTemplate" => stacks::get_template(&world.cloud, input),
        "ListExports" => stacks::list_exports(&world.cloud, input),
        "ListImports" => stacks::list_imports(&world.cloud, input),
        "CreateChangeSet" => change_sets::create(world, input),
        "DescribeChangeSet" => change_sets::describe(world, input),
        "ExecuteChangeSet" => change_sets::execute(world, input),
        "DeleteChangeSet" => change_sets::delete(world, input),
        "DeleteStack" => deletion::delete_stack(world, input),
        _ => Err(unknown_operation(AwsService::CloudFormation, op)),
    }
}

/// The change set that a request names: by ARN, or by name with its stack. By name one that was executed is found last.
fn requested_change_set<'c>(
    cloud: &'c AwsAccount,
    input: Input,
) -> Result<&'c StackChangeSet, AwsError> {
    let key = input.require_text("ChangeSetName")?;
    let state = &cloud.cloudformation;
    let missing = || {
        let message = format!("ChangeSet [{key}] does not exist");
        AwsError::new(404, "ChangeSetNotFound", message)
    };
    if key.starts_with("arn:") {
        return state.change_sets.get(key).ok_or_else(missing);
    }
    let stack = input.get_text("StackName").ok_or_else(|| {
        AwsError::validation_error(
            "StackName must be specified if ChangeSetName is not specified as an ARN.",
        )
    })?;
    let stack = state
        .find_stack(stack)
        .ok_or_else(|| AwsError::validation_error(format!("Stack [{stack}] does not exist")))?;
    let sets = state.change_sets.values();
    let of_name = sets.filter(|set| set.stack == stack.id && set.name == key);
    of_name
        .max_by_key(|set| (!set.is_past(), set.created))
        .ok_or_else(missing)
}

/// Lets `due` happen after `wait`.
fn schedule_after(world: &mut SimWorld, wait: Duration, due: StackEvent) {
    let due = super::CloudEvent::Stack(due);
    world.schedule_after(wait, ScheduledEvent::Cloud(due));
}

/// Lets `due` happen between `from` and `to` seconds from now.
fn schedule_between(world: &mut SimWorld, from: u64, to: u64, due: StackEvent) {
    let wait = world.random_duration(Duration::from_secs(from), Duration::from_secs(to));
    schedule_after(world, wait, due);
}
