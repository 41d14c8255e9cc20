//! Change sets: made, read, executed and deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::changes::{names_with_action, outputs_differ, resource_changes};
use super::outputs::outputs_of;
use super::parameters::{requested_parameters, resolve_stored};
use super::references::imports_of;
use super::scope::{ParameterValues, TemplateScope, pseudo_parameters};
use super::stacks::{page_size, show_parameters, show_tags};
use super::template::{check_active, read_submitted, read_template, required_capability};
use super::{StackEvent, deletion, requested_change_set, schedule_between};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{CloudFormationStack, StackChangeSet, StackDeletion};
use crate::twin::world::SimWorld;

const NO_CHANGES: &str = "The submitted information didn't contain changes. Submit different information to create a change set.";

/// Statuses in which a stack can be updated.
const UPDATABLE_STATUSES: &[&str] = &[
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_COMPLETE",
    "IMPORT_ROLLBACK_COMPLETE",
];

fn check_updatable(stack: &CloudFormationStack) -> Result<(), AwsError> {
    if UPDATABLE_STATUSES.contains(&stack.status.as_str()) {
        return Ok(());
    }
    Err(AwsError::validation_error(format!(
        "Stack:{} is in {} state and can not be updated.",
        stack.id, stack.status
    )))
}

/// CreateChangeSet, for a stack that is there.
pub fn create(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let key = input.require_text("StackName")?;
    let name = input.require_text("ChangeSetName")?.to_owned();
    let stack = world.cloud.cloudformation.find_stack(key);
    let stack = stack
        .ok_or_else(|| AwsError::validation_error(format!("Stack [{key}] does not exist")))?
        .clone();
    check_kind(input, &stack, &name)?;
    // A repeated request is answered with what it made (CFN-6); another one of the name is refused.
    let mut sets = world.cloud.cloudformation.change_sets.values();
    let token = input.get_text("ClientToken").map(str::to_owned);
    let repeated = |s: &StackChangeSet| token.is_some() && s.token == token;
    let known =
        sets.find(|s| s.stack == stack.id && s.name == name && (!s.is_past() || repeated(s)));
    if let Some(known) = known {
        return match repeated(known) && known.request == *input.0 {
            true => Ok(json!({"Id": known.arn, "StackId": stack.id})),
            false => Err(AwsError::new(
                400,
                "AlreadyExistsException",
                format!("ChangeSet {name} already exists"),
            )),
        };
    }
    check_updatable(&stack)?;
    let text = requested_template(input, &stack)?;
    let template = read_submitted(&text)?;
    let parameters = requested_parameters(input, &stack, &template)?;
    check_capabilities(input, &template)?;
    let resolved = resolve_stored(&mut world.cloud, &template, &parameters)?;
    let before = read_template(&stack.template)?;
    let values = ParameterValues {
        given: &parameters,
        resolved: &resolved,
    };
    let old = TemplateScope::of_stack(&world.cloud, &stack, &before);
    let new = TemplateScope::new(&template, values, pseudo_parameters(&world.cloud, &stack));
    check_active(&new)?;
    let tags = requested_tags(input);
    let retagged = tags.as_ref().is_some_and(|tags| *tags != stack.tags);
    let switches = &world.cloud.cloudformation.switches;
    let (region, account) = (&world.cloud.region, &world.cloud.account);
    let base = format!("arn:aws:cloudformation:{region}:{account}:changeSet/{name}");
    let mut made = StackChangeSet {
        name,
        stack: stack.id.clone(),
        status: "CREATE_PENDING".to_owned(),
        execution: "UNAVAILABLE".to_owned(),
        description: input.get_text("Description").map(str::to_owned),
        token,
        request: input.0.clone(),
        changes: resource_changes(&stack, switches, &old, &new, retagged),
        changes_outputs: outputs_differ(&old, &new),
        template: text,
        parameters: parameters.clone(),
        resolved_parameters: resolved.clone(),
        capabilities: input.get_text_list("Capabilities"),
        tags,
        role: input.get_text("RoleARN").map(str::to_owned),
        created: world.now(),
        ..StackChangeSet::default()
    };
    made.arn = format!("{base}/{}", world.new_uuid());
    let arn = made.arn.clone();
    let state = &mut world.cloud.cloudformation;
    state.change_sets.insert(arn.clone(), made);
    schedule_between(world, 0, 1, StackEvent::ChangeSetBegun { arn: arn.clone() });
    Ok(json!({"Id": arn, "StackId": stack.id}))
}

fn check_kind(input: Input, stack: &CloudFormationStack, set: &str) -> Result<(), AwsError> {
    match input.get_text("ChangeSetType").unwrap_or("UPDATE") {
        "UPDATE" => Ok(()),
        "CREATE" => Err(AwsError::validation_error(format!(
            "Stack [{}] already exists and cannot be created again with the changeSet [{set}].",
            stack.name
        ))),
        other => Err(AwsError::validation_error(format!(
            "The twin makes no change set of type {other}."
        ))),
    }
}

/// The text of the template that a request is for: exactly one source may be given.
fn requested_template(input: Input, stack: &CloudFormationStack) -> Result<String, AwsError> {
    let previous = input.get_bool("UsePreviousTemplate") == Some(true);
    match (
        input.get_text("TemplateBody"),
        input.get_text("TemplateURL"),
        previous,
    ) {
        (Some(body), None, false) => Ok(body.to_owned()),
        (None, None, true) => Ok(stack.template.clone()),
        (None, Some(_), false) => Err(AwsError::validation_error(
            "The twin reads no template from S3: send it as TemplateBody.",
        )),
        (None, None, false) => Err(AwsError::validation_error(
            "Either Template URL or Template Body must be specified.",
        )),
        _ => Err(AwsError::validation_error(
            "You cannot specify more than one of TemplateBody, TemplateURL and UsePreviousTemplate.",
        )),
    }
}

fn check_capabilities(input: Input, template: &Value) -> Result<(), AwsError> {
    let Some(needed) = required_capability(template) else {
        return Ok(());
    };
    let given = input.get_text_list("Capabilities");
    let enough = |c: &String| c == needed || c == "CAPABILITY_NAMED_IAM";
    match given.iter().any(enough) {
        true => Ok(()),
        false => Err(AwsError::new(
            400,
            "InsufficientCapabilitiesException",
            format!("Requires capabilities : [{needed}]"),
        )),
    }
}

fn requested_tags(input: Input) -> Option<BTreeMap<String, String>> {
    input.get_member("Tags")?;
    let tags = input.get_list("Tags").iter().map(Input);
    let tags = tags.filter_map(|t| {
        let value = t.get_text("Value").unwrap_or_default();
        Some((t.get_text("Key")?.to_owned(), value.to_owned()))
    });
    Some(tags.collect())
}

/// CloudFormation works at the change set.
pub fn begin_creation(world: &mut SimWorld, arn: &str) {
    let Some(set) = world.cloud.cloudformation.change_sets.get_mut(arn) else {
        return;
    };
    set.status = "CREATE_IN_PROGRESS".to_owned();
    let arn = arn.to_owned();
    schedule_between(world, 2, 8, StackEvent::ChangeSetMade { arn });
}

/// The change set can be executed, unless it changes nothing (CFN-8).
pub fn finish_creation(world: &mut SimWorld, arn: &str) {
    let Some(set) = world.cloud.cloudformation.change_sets.get_mut(arn) else {
        return;
    };
    if set.changes.is_empty() && !set.changes_outputs {
        set.status = "FAILED".to_owned();
        set.status_reason = Some(NO_CHANGES.to_owned());
        return;
    }
    set.status = "CREATE_COMPLETE".to_owned();
    set.execution = "AVAILABLE".to_owned();
}

/// DescribeChangeSet: a page of its changes.
pub fn describe(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let set = requested_change_set(&world.cloud, input)?;
    let stack = world.cloud.cloudformation.stacks.get(&set.stack);
    // Changes are there as soon as the change set is made.
    let made = set.status == "CREATE_COMPLETE";
    let changes = set.changes.iter().filter(|_| made);
    let page = cut_page(
        changes,
        input.get_text("NextToken"),
        page_size(&world.cloud),
    )?;
    Ok(json!({
        "ChangeSetName": set.name,
        "ChangeSetId": set.arn,
        "StackId": set.stack,
        "StackName": stack.map(|s| s.name.as_str()),
        "Description": set.description,
        "Parameters": show_parameters(&set.parameters, &set.resolved_parameters),
        "CreationTime": set.created.to_string(),
        "ExecutionStatus": set.execution,
        "Status": set.status,
        "StatusReason": set.status_reason,
        "NotificationARNs": [],
        "RollbackConfiguration": {},
        "Capabilities": set.capabilities,
        "Tags": set.tags.as_ref().map(show_tags),
        "Changes": page.items,
        "NextToken": page.next,
        "IncludeNestedStacks": false,
    }))
}

/// ExecuteChangeSet: the stack becomes what the change set says; its other change sets go (CFN-11).
pub fn execute(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let set = requested_change_set(&world.cloud, input)?.clone();
    let token = input.get_text("ClientRequestToken").map(str::to_owned);
    // The same request again is the same execution.
    if token.is_some() && set.execution_token == token {
        return Ok(json!({}));
    }
    if set.execution != "AVAILABLE" {
        // One that was made is told by what has become of it.
        let message = match set.status.as_str() {
            "CREATE_COMPLETE" => format!(
                "ChangeSet [{}] cannot be executed in its current execution status of [{}]",
                set.arn, set.execution
            ),
            status => format!(
                "ChangeSet [{}] cannot be executed in its current status of [{status}]",
                set.arn
            ),
        };
        return Err(AwsError::new(400, "InvalidChangeSetStatus", message));
    }
    let now = world.now();
    let state = &mut world.cloud.cloudformation;
    let Some(stack) = state.stacks.get_mut(&set.stack) else {
        return Err(AwsError::validation_error(format!(
            "Stack [{}] does not exist",
            set.stack
        )));
    };
    check_updatable(stack)?;
    stack.status = "UPDATE_IN_PROGRESS".to_owned();
    stack.status_reason = Some("User Initiated".to_owned());
    stack.updated = Some(now);
    stack.change_set = Some(set.arn.clone());
    if set.role.is_some() {
        stack.role.clone_from(&set.role);
    }
    for name in names_with_action(&set.changes, "Modify") {
        if let Some(resource) = stack.resources.get_mut(&name) {
            resource.status = "UPDATE_IN_PROGRESS".to_owned();
            resource.changed = now;
        }
    }
    state
        .change_sets
        .retain(|arn, other| other.stack != set.stack || *arn == set.arn || other.is_past());
    if let Some(set) = state.change_sets.get_mut(&set.arn) {
        set.execution = "EXECUTE_IN_PROGRESS".to_owned();
        set.execution_token = token;
    }
    schedule_between(world, 10, 40, StackEvent::ChangesApplied { arn: set.arn });
    Ok(json!({}))
}

/// Why a change set cannot be carried out, where it cannot.
fn execution_failure(world: &mut SimWorld, set: &StackChangeSet) -> Option<String> {
    let state = &mut world.cloud.cloudformation;
    let stack = state.stacks.get(&set.stack)?.clone();
    if let Some(why) = state.switches.execution_fails.remove(&stack.name) {
        return Some(why);
    }
    let added = names_with_action(&set.changes, "Add");
    if !added.is_empty() {
        return Some(format!(
            "The twin makes no resources of a template: [{}]",
            added.join(", ")
        ));
    }
    let replaced: Vec<&Value> = set
        .changes
        .iter()
        .map(|c| &c["ResourceChange"])
        .filter(|c| c["Replacement"] == "True")
        .collect();
    if !replaced.is_empty() {
        return Some("The twin replaces no resources of a stack.".to_owned());
    }
    // An export that another stack imports cannot go (CFN-13).
    let template = read_template(&set.template).ok()?;
    let outputs = outputs_of(&world.cloud, &stack, &template);
    let kept: BTreeSet<&String> = outputs.iter().filter_map(|o| o.export.as_ref()).collect();
    let mut gone = stack.outputs.iter().filter_map(|o| o.export.as_ref());
    let state = &world.cloud.cloudformation;
    gone.find_map(|export| {
        let importer = state.importers_of(export).into_iter().next()?;
        (!kept.contains(export))
            .then(|| format!("Export {export} cannot be deleted as it is in use by {importer}"))
    })
}

/// The changes are made: the template is the new one, and what is not in it any more goes.
pub fn apply_changes(world: &mut SimWorld, arn: &str) {
    let Some(set) = world.cloud.cloudformation.change_sets.get(arn).cloned() else {
        return;
    };
    if let Some(why) = execution_failure(world, &set) {
        begin_rollback(world, &set, why);
        return;
    }
    let now = world.now();
    let removed = names_with_action(&set.changes, "Remove");
    let Some(stack) = world.cloud.cloudformation.stacks.get(&set.stack) else {
        return;
    };
    let mut stack = stack.clone();
    let before = read_template(&stack.template).unwrap_or_default();
    let after = read_template(&set.template).unwrap_or_default();
    stack.template.clone_from(&set.template);
    stack.parameters.clone_from(&set.parameters);
    let resolved = &set.resolved_parameters;
    stack.resolved_parameters.clone_from(resolved);
    stack.capabilities.clone_from(&set.capabilities);
    if let Some(tags) = &set.tags {
        stack.tags.clone_from(tags);
    }
    stack.imports = imports_of(&after);
    stack.outputs = outputs_of(&world.cloud, &stack, &after);
    for resource in stack.resources.values_mut() {
        if resource.status == "UPDATE_IN_PROGRESS" {
            resource.status = "UPDATE_COMPLETE".to_owned();
            resource.changed = now;
        }
    }
    stack.status = "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS".to_owned();
    stack.status_reason = None;
    stack.deletion = Some(StackDeletion {
        operation: "ExecuteChangeSet",
        status_before: "UPDATE_COMPLETE".to_owned(),
        template: before,
        resources: removed.into_iter().collect(),
        retained: BTreeSet::new(),
    });
    let id = stack.id.clone();
    let state = &mut world.cloud.cloudformation;
    state.stacks.insert(id.clone(), stack);
    if let Some(set) = state.change_sets.get_mut(arn) {
        set.execution = "EXECUTE_COMPLETE".to_owned();
    }
    deletion::schedule_step(world, &id, Duration::from_secs(2));
}

fn begin_rollback(world: &mut SimWorld, set: &StackChangeSet, why: String) {
    let state = &mut world.cloud.cloudformation;
    if let Some(stack) = state.stacks.get_mut(&set.stack) {
        stack.status = "UPDATE_ROLLBACK_IN_PROGRESS".to_owned();
        stack.status_reason = Some(why);
    }
    if let Some(set) = state.change_sets.get_mut(&set.arn) {
        set.execution = "EXECUTE_FAILED".to_owned();
    }
    let stack = set.stack.clone();
    schedule_between(world, 5, 20, StackEvent::RolledBack { stack });
}

/// The stack is as it was before its update.
pub fn finish_rollback(world: &mut SimWorld, id: &str) {
    let now = world.now();
    let Some(stack) = world.cloud.cloudformation.stacks.get_mut(id) else {
        return;
    };
    stack.status = "UPDATE_ROLLBACK_COMPLETE".to_owned();
    for resource in stack.resources.values_mut() {
        if resource.status == "UPDATE_IN_PROGRESS" {
            resource.status = "UPDATE_COMPLETE".to_owned();
            resource.changed = now;
        }
    }
}

/// DeleteChangeSet: one that is not there is deleted already.
pub fn delete(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let set = match requested_change_set(&world.cloud, input) {
        Ok(set) => set,
        Err(error) if error.code == "ChangeSetNotFound" => return Ok(json!({})),
        Err(error) => return Err(error),
    };
    if set.execution == "EXECUTE_IN_PROGRESS" {
        return Err(AwsError::new(
            400,
            "InvalidChangeSetStatus",
            format!(
                "ChangeSet [{}] cannot be deleted in its current execution status of [{}]",
                set.arn, set.execution
            ),
        ));
    }
    let arn = set.arn.clone();
    world.cloud.cloudformation.change_sets.remove(&arn);
    Ok(json!({}))
}
