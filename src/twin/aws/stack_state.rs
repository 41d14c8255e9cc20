//! What CloudFormation holds, and what of it is gone that others may still name.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

/// CloudFormation in the account's region.
#[derive(Clone, Debug, Default)]
pub struct CloudFormationState {
    /// By id. Deleted ones stay: they are found by their id only (CFN-1).
    pub stacks: BTreeMap<String, CloudFormationStack>,
    /// By ARN. Change sets of deleted stacks stay as well.
    pub change_sets: BTreeMap<String, StackChangeSet>,
    pub switches: StackSwitches,
    /// DescribeChangeSet and the lists answer so many items a page, where it is not 100.
    pub page_size: Option<i64>,
}

/// Where accounts differ, reports disagree, or things go wrong.
#[derive(Clone, Debug, Default)]
pub struct StackSwitches {
    /// A change of DeletionPolicy or UpdateReplacePolicy alone counts as a change (CFN-8).
    pub policy_alone_is_change: bool,
    /// A change of a resource's Metadata is shown with CreationPolicy and UpdatePolicy beside it (CFN-9).
    pub metadata_shows_other_policies: bool,
    /// A parameter with another value is shown at the properties that refer to it, though these stay the same (CFN-23).
    pub parameter_alone_is_change: bool,
    /// A resource whose Metadata changes is taken for one whose attributes may (CFN-20).
    pub metadata_shows_dependents: bool,
    /// Stack name -> why its next execution of a change set fails.
    pub execution_fails: BTreeMap<String, String>,
    /// Stack name and logical id -> why the next deletion of the resource fails.
    pub deletion_fails: BTreeMap<(String, String), String>,
}

/// A stack.
#[derive(Clone, Debug, Default)]
pub struct CloudFormationStack {
    pub id: String,
    pub name: String,
    /// JSON or YAML, as it was given.
    pub template: String,
    /// StackStatus of the API.
    pub status: String,
    pub status_reason: Option<String>,
    /// The values as they were given.
    pub parameters: BTreeMap<String, String>,
    /// What the parameters were resolved to whose values are names in Parameter Store (CFN-19).
    pub resolved_parameters: BTreeMap<String, String>,
    pub capabilities: Vec<String>,
    pub outputs: Vec<StackOutput>,
    /// Names of the exports that its template imports.
    pub imports: BTreeSet<String>,
    pub tags: BTreeMap<String, String>,
    /// ARN of the role that CloudFormation acts with; None: it acts with the caller's permissions.
    pub role: Option<String>,
    /// Termination protection is on.
    pub protected: bool,
    /// By logical id.
    pub resources: BTreeMap<String, StackResource>,
    /// The change set that was executed last.
    pub change_set: Option<String>,
    pub created: Timestamp,
    pub updated: Option<Timestamp>,
    pub deleted: Option<Timestamp>,
    /// The deletion that is running.
    pub deletion: Option<StackDeletion>,
}

/// An output of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackOutput {
    pub key: String,
    pub value: String,
    pub export: Option<String>,
}

/// A resource of a stack.
#[derive(Clone, Debug, Default)]
pub struct StackResource {
    pub logical_id: String,
    pub physical_id: String,
    /// Such as `AWS::IAM::Role`.
    pub kind: String,
    /// ResourceStatus of the API.
    pub status: String,
    pub status_reason: Option<String>,
    pub changed: Timestamp,
    /// When its deletion began.
    pub deleting_since: Option<Timestamp>,
}

/// A deletion of a stack, or of the resources that an update took out of its template.
#[derive(Clone, Debug)]
pub struct StackDeletion {
    /// The operation on whose account the resources go: DeleteStack or ExecuteChangeSet.
    pub operation: &'static str,
    /// Status before DeleteStack.
    pub status_before: String,
    /// The template that says what depends on what, and what is retained.
    pub template: Value,
    /// Logical ids of what is to go.
    pub resources: BTreeSet<String>,
    /// Logical ids that the request wants to be kept.
    pub retained: BTreeSet<String>,
}

/// A change set.
#[derive(Clone, Debug, Default)]
pub struct StackChangeSet {
    pub arn: String,
    pub name: String,
    /// The stack's id.
    pub stack: String,
    /// Status and ExecutionStatus of the API.
    pub status: String,
    pub status_reason: Option<String>,
    pub execution: String,
    pub description: Option<String>,
    pub token: Option<String>,
    /// The request, by which a repetition is told from another one.
    pub request: Value,
    pub template: String,
    pub parameters: BTreeMap<String, String>,
    /// As the stack's own.
    pub resolved_parameters: BTreeMap<String, String>,
    pub capabilities: Vec<String>,
    pub tags: Option<BTreeMap<String, String>>,
    pub role: Option<String>,
    /// As DescribeChangeSet shows them.
    pub changes: Vec<Value>,
    /// Outputs change.
    pub changes_outputs: bool,
    pub created: Timestamp,
    /// The token of the request that executed it.
    pub execution_token: Option<String>,
}

/// Resources that were deleted while launch templates or instances may still name them.
#[derive(Clone, Debug, Default)]
pub struct DeletedResources {
    /// Names of instance profiles.
    pub instance_profiles: BTreeSet<String>,
    /// ARNs of roles.
    pub roles: BTreeSet<String>,
    /// ARNs of roles that lost their policies and are still there (CFN-15).
    pub stripped_roles: BTreeSet<String>,
    /// Ids of security groups.
    pub security_groups: BTreeSet<String>,
}

impl CloudFormationState {
    /// The stack that an operation names: by name one that is not deleted, by id any.
    pub fn find_stack(&self, name_or_id: &str) -> Option<&CloudFormationStack> {
        let live = |s: &&CloudFormationStack| s.name == name_or_id && !s.is_deleted();
        let by_name = self.stacks.values().find(live);
        by_name.or_else(|| self.stacks.get(name_or_id))
    }

    /// The same, to be changed; tests set up stacks with it.
    pub fn find_stack_mut(&mut self, name_or_id: &str) -> Option<&mut CloudFormationStack> {
        let id = self.find_stack(name_or_id)?.id.clone();
        self.stacks.get_mut(&id)
    }

    /// Stacks that are not deleted.
    pub fn live_stacks(&self) -> impl Iterator<Item = &CloudFormationStack> {
        self.stacks.values().filter(|s| !s.is_deleted())
    }

    /// Adds a stack without resources that imports `export`.
    pub fn add_importer(&mut self, name: &str, export: &str) {
        let id = format!("arn:aws:cloudformation:us-east-1:123456789012:stack/{name}/importer");
        let stack = CloudFormationStack {
            id: id.clone(),
            name: name.to_owned(),
            template: json!({"Resources": {"Nothing": {"Type": "AWS::CloudFormation::WaitConditionHandle"}}, "Outputs": {"Value": {"Value": {"Fn::ImportValue": export}}}}).to_string(),
            status: "CREATE_COMPLETE".to_owned(),
            imports: BTreeSet::from([export.to_owned()]),
            ..CloudFormationStack::default()
        };
        self.stacks.insert(id, stack);
    }

    /// Names of the stacks that import `export`.
    pub fn importers_of(&self, export: &str) -> Vec<&str> {
        let importing = self.live_stacks().filter(|s| s.imports.contains(export));
        importing.map(|s| s.name.as_str()).collect()
    }
}

impl StackChangeSet {
    /// It was executed: it stays in the stack's history, and its name is free.
    pub fn is_past(&self) -> bool {
        matches!(
            self.execution.as_str(),
            "EXECUTE_COMPLETE" | "EXECUTE_FAILED"
        )
    }
}

impl CloudFormationStack {
    /// Adds a resource that is there, to the template too where that is in JSON.
    pub fn add_resource(&mut self, logical: &str, kind: &str, physical: &str, properties: Value) {
        self.change_template(|template| {
            template["Resources"][logical] = json!({"Type": kind, "Properties": properties});
        });
        let made = StackResource {
            logical_id: logical.to_owned(),
            physical_id: physical.to_owned(),
            kind: kind.to_owned(),
            status: "CREATE_COMPLETE".to_owned(),
            changed: self.created,
            ..StackResource::default()
        };
        self.resources.insert(logical.to_owned(), made);
    }

    /// Adds an output that is exported.
    pub fn add_export(&mut self, key: &str, export: &str, value: &str) {
        self.change_template(|template| {
            template["Outputs"][key] = json!({"Value": value, "Export": {"Name": export}});
        });
        self.outputs.push(StackOutput {
            key: key.to_owned(),
            value: value.to_owned(),
            export: Some(export.to_owned()),
        });
    }

    fn change_template(&mut self, change: impl FnOnce(&mut Value)) {
        if let Ok(mut template) = serde_json::from_str(&self.template) {
            change(&mut template);
            self.template = template.to_string();
        }
    }

    /// Nothing is left of it but its record.
    pub fn is_deleted(&self) -> bool {
        self.status == "DELETE_COMPLETE"
    }
}
