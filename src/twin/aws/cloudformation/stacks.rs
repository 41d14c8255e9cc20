//! What is there: stacks, their resources and templates, exports and imports.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::template::read_template;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{AwsAccount, CloudFormationStack, StackResource};

/// Items on a page of every list.
const DEFAULT_PAGE_SIZE: i64 = 100;

/// How many items a page has.
pub fn page_size(cloud: &AwsAccount) -> i64 {
    cloud.cloudformation.page_size.unwrap_or(DEFAULT_PAGE_SIZE)
}

/// The stack that reads name (CFN-1).
fn read_stack<'c>(cloud: &'c AwsAccount, key: &str) -> Result<&'c CloudFormationStack, AwsError> {
    let found = cloud.cloudformation.find_stack(key);
    found.ok_or_else(|| AwsError::validation_error(format!("Stack with id {key} does not exist")))
}

/// DescribeStacks: by name or id, else all that are not deleted.
pub fn describe_stacks(cloud: &AwsAccount, input: Input) -> Result<Value, AwsError> {
    let found: Vec<&CloudFormationStack> = match input.get_text("StackName") {
        Some(key) => vec![read_stack(cloud, key)?],
        None => cloud.cloudformation.live_stacks().collect(),
    };
    let page = cut_page(found, input.get_text("NextToken"), page_size(cloud))?;
    let shown: Vec<Value> = page.items.into_iter().map(show_stack).collect();
    Ok(json!({"Stacks": shown, "NextToken": page.next}))
}

fn show_stack(stack: &CloudFormationStack) -> Value {
    let outputs: Vec<Value> = stack
        .outputs
        .iter()
        .map(|o| json!({"OutputKey": o.key, "OutputValue": o.value, "ExportName": o.export}))
        .collect();
    let description = read_template(&stack.template)
        .ok()
        .and_then(|t| t.get("Description")?.as_str().map(str::to_owned));
    json!({
        "StackId": stack.id,
        "StackName": stack.name,
        "ChangeSetId": stack.change_set,
        "Description": description,
        "Parameters": show_parameters(&stack.parameters, &stack.resolved_parameters),
        "CreationTime": stack.created.to_string(),
        "DeletionTime": stack.deleted.map(|at| at.to_string()),
        "LastUpdatedTime": stack.updated.map(|at| at.to_string()),
        "RollbackConfiguration": {},
        "StackStatus": stack.status,
        "StackStatusReason": stack.status_reason,
        "DisableRollback": false,
        "NotificationARNs": [],
        "Capabilities": absent_if_empty(stack.capabilities.iter().map(|c| json!(c)).collect()),
        "Outputs": absent_if_empty(outputs),
        "RoleARN": stack.role,
        "Tags": show_tags(&stack.tags),
        "EnableTerminationProtection": (!stack.is_deleted()).then_some(stack.protected),
        "DriftInformation": {"StackDriftStatus": "NOT_CHECKED"},
    })
}

/// Parameters as the API spells them; the member is absent where there are none.
pub fn show_parameters(
    given: &BTreeMap<String, String>,
    resolved: &BTreeMap<String, String>,
) -> Value {
    let all = given.iter();
    let shown = all.map(|(key, value)| {
        json!({"ParameterKey": key, "ParameterValue": value, "ResolvedValue": resolved.get(key)})
    });
    absent_if_empty(shown.collect())
}

fn absent_if_empty(items: Vec<Value>) -> Value {
    match items.is_empty() {
        true => Value::Null,
        false => Value::Array(items),
    }
}

/// Tags as the API spells them.
pub fn show_tags(tags: &BTreeMap<String, String>) -> Vec<Value> {
    let all = tags.iter();
    all.map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect()
}

/// DescribeStackResources: of a stack, or of the stack that a physical id is in.
pub fn describe_resources(cloud: &AwsAccount, input: Input) -> Result<Value, AwsError> {
    let physical = input.get_text("PhysicalResourceId");
    let stack = match (input.get_text("StackName"), physical) {
        (Some(key), None) => read_stack(cloud, key)?,
        (None, Some(id)) => {
            let has = |s: &&CloudFormationStack| s.resources.values().any(|r| r.physical_id == id);
            let found = cloud.cloudformation.live_stacks().find(has);
            found.ok_or_else(|| {
                AwsError::validation_error(format!("Stack for {id} does not exist"))
            })?
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(AwsError::validation_error(
                "You must specify either StackName or PhysicalResourceId, but not both.",
            ));
        }
    };
    let logical = input.get_text("LogicalResourceId");
    let wanted = |r: &&StackResource| logical.is_none_or(|id| r.logical_id == id);
    // Only the first hundred are answered.
    let found = stack.resources.values().filter(wanted).take(100);
    let shown = found.map(|resource| {
        let mut shown = show_resource(resource, "Timestamp");
        shown["StackId"] = json!(stack.id);
        shown["StackName"] = json!(stack.name);
        shown
    });
    Ok(json!({"StackResources": shown.collect::<Vec<_>>()}))
}

/// ListStackResources.
pub fn list_resources(cloud: &AwsAccount, input: Input) -> Result<Value, AwsError> {
    let stack = read_stack(cloud, input.require_text("StackName")?)?;
    let page = cut_page(
        stack.resources.values(),
        input.get_text("NextToken"),
        page_size(cloud),
    )?;
    let shown = page.items.into_iter();
    let shown: Vec<Value> = shown
        .map(|r| show_resource(r, "LastUpdatedTimestamp"))
        .collect();
    Ok(json!({"StackResourceSummaries": shown, "NextToken": page.next}))
}

fn show_resource(resource: &StackResource, changed: &str) -> Value {
    json!({
        "LogicalResourceId": resource.logical_id,
        "PhysicalResourceId": resource.physical_id,
        "ResourceType": resource.kind,
        changed: resource.changed.to_string(),
        "ResourceStatus": resource.status,
        "ResourceStatusReason": resource.status_reason,
        "DriftInformation": {"StackResourceDriftStatus": "NOT_CHECKED"},
    })
}

/// GetTemplate: the text as it was given, of a stack or of a change set. No transform acts, so both stages are the same.
pub fn get_template(cloud: &AwsAccount, input: Input) -> Result<Value, AwsError> {
    let stage = input.get_text("TemplateStage").unwrap_or("Processed");
    if !matches!(stage, "Original" | "Processed") {
        return Err(AwsError::validation_error(format!(
            "1 validation error detected: Value '{stage}' at 'templateStage' failed to satisfy constraint: Member must satisfy enum value set: [Original, Processed]"
        )));
    }
    let text = match input.get_text("ChangeSetName") {
        Some(_) => super::requested_change_set(cloud, input)?.template.clone(),
        None => read_stack(cloud, input.require_text("StackName")?)?
            .template
            .clone(),
    };
    Ok(json!({"TemplateBody": text, "StagesAvailable": ["Original", "Processed"]}))
}

/// ListExports: of all stacks that are not deleted.
pub fn list_exports(cloud: &AwsAccount, input: Input) -> Result<Value, AwsError> {
    let mut exports = Vec::new();
    for stack in cloud.cloudformation.live_stacks() {
        let named = stack
            .outputs
            .iter()
            .filter_map(|o| Some((o, o.export.as_ref()?)));
        exports.extend(named.map(|(output, name)| {
            json!({"ExportingStackId": stack.id, "Name": name, "Value": output.value})
        }));
    }
    let page = cut_page(exports, input.get_text("NextToken"), page_size(cloud))?;
    Ok(json!({"Exports": page.items, "NextToken": page.next}))
}

/// ListImports: an export that nothing imports is an error (CFN-13).
pub fn list_imports(cloud: &AwsAccount, input: Input) -> Result<Value, AwsError> {
    let name = input.require_text("ExportName")?;
    let importers = cloud.cloudformation.importers_of(name);
    if importers.is_empty() {
        return Err(AwsError::validation_error(format!(
            "Export '{name}' is not imported by any stack."
        )));
    }
    let page = cut_page(importers, input.get_text("NextToken"), page_size(cloud))?;
    Ok(json!({"Imports": page.items, "NextToken": page.next}))
}
