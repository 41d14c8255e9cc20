//! CloudFormation: the stacks of node groups, as far as a deletion and a change of their templates go.

mod seed;
mod seed_groups;
mod stacks;
mod template;

use serde_json::Value;

use super::call::{AwsService, Input};
use super::error::AwsError;
use super::state::{AwsAccount, StackChangeSet};
use super::unknown_operation;
use crate::twin::world::SimWorld;

pub use seed::seed;

/// Answers for CloudFormation.
pub fn run_operation(world: &mut SimWorld, op: &str, input: Input) -> Result<Value, AwsError> {
    match op {
        "DescribeStacks" => stacks::describe_stacks(&world.cloud, input),
        "DescribeStackResources" => stacks::describe_resources(&world.cloud, input),
        "ListStackResources" => stacks::list_resources(&world.cloud, input),
        "GetTemplate" => stacks::get_template(&world.cloud, input),
        "ListExports" => stacks::list_exports(&world.cloud, input),
        "ListImports" => stacks::list_imports(&world.cloud, input),
        _ => Err(unknown_operation(AwsService::CloudFormation, op)),
    }
}

/// The change set that a request names: by ARN, or by name with its stack.
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
    let mut sets = state.change_sets.values();
    sets.find(|set| set.stack == stack.id && set.name == key && set.execution != "OBSOLETE")
        .ok_or_else(missing)
}
