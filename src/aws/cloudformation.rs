//! CloudFormation: the stacks that own groups of nodes.

use std::collections::BTreeMap;

use aws_sdk_cloudformation::types as cfn;

use super::AwsApi;
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::stack::{
    ChangeSet, ResolvedParameter, Stack, StackChange, StackReading, StackResource,
};
use crate::model::{ApiError, ErrorClass, absent_is_none};

type Result<T> = std::result::Result<T, ApiError>;

/// A change set that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewChangeSet<'a> {
    /// The stack's name or ARN.
    pub stack: &'a str,
    pub name: &'a str,
    pub template: &'a str,
    /// Names of the stack's parameters, whose values stay but for those that are given.
    pub parameters: &'a [String],
    pub values: &'a BTreeMap<String, String>,
}

impl AwsApi {
    /// A stack by name or ARN; none where there is none, and where it is deleted.
    ///
    /// # Errors
    /// Those of DescribeStacks.
    pub async fn describe_stack(&self, stack: &str) -> Result<Option<Stack>> {
        let call = self.cloudformation.describe_stacks().stack_name(stack);
        let sent = call.send().await;
        let sent = sent.map_err(|e| failed("cloudformation:DescribeStacks", e));
        let found = absent_is_none(sent)?.and_then(|out| out.stacks);
        let found = found.unwrap_or_default().into_iter().next().map(to_stack);
        Ok(found.filter(|s| s.status != "DELETE_COMPLETE"))
    }

    /// The resources of a stack; those that are deleted are left out.
    ///
    /// # Errors
    /// Absent where there is no such stack; those of ListStackResources.
    pub async fn list_stack_resources(&self, stack: &str) -> Result<Vec<StackResource>> {
        let call = self.cloudformation.list_stack_resources().stack_name(stack);
        let pages = call.into_paginator().items().send();
        let found: std::result::Result<Vec<_>, _> = pages.try_collect().await;
        let found = found.map_err(|e| failed("cloudformation:ListStackResources", e))?;
        let gone = |r: &cfn::StackResourceSummary| {
            r.resource_status == Some(cfn::ResourceStatus::DeleteComplete)
        };
        let there = found.into_iter().filter(|r| !gone(r));
        Ok(there.map(to_resource).collect())
    }

    /// A stack's template as it was given.
    ///
    /// # Errors
    /// Absent where there is no such stack; those of GetTemplate.
    pub async fn read_stack_template(&self, stack: &str) -> Result<String> {
        let call = self.cloudformation.get_template().stack_name(stack);
        let call = call.template_stage(cfn::TemplateStage::Original);
        let sent = call.send().await;
        let sent = sent.map_err(|e| failed("cloudformation:GetTemplate", e))?;
        Ok(sent.template_body.unwrap_or_default())
    }

    /// What decides whether a stack may be deleted; none where there is none.
    ///
    /// # Errors
    /// Those of DescribeStacks, ListStackResources, GetTemplate and ListImports.
    pub async fn read_stack(&self, stack: &str) -> Result<Option<StackReading>> {
        let Some(stack) = self.describe_stack(stack).await? else {
            return Ok(None);
        };
        let (resources, template) = futures::try_join!(
            self.list_stack_resources(&stack.id),
            self.read_stack_template(&stack.id)
        )?;
        let mut imported = BTreeMap::new();
        for export in &stack.exports {
            let importers = self.list_importers(export).await?;
            if !importers.is_empty() {
                imported.insert(export.clone(), importers);
            }
        }
        let read = StackReading::new(stack, resources, template, imported);
        Ok(Some(read))
    }

    /// The stacks that import an export.
    async fn list_importers(&self, export: &str) -> Result<Vec<String>> {
        let call = self.cloudformation.list_imports().export_name(export);
        let pages = call.into_paginator().items().send();
        let found: std::result::Result<Vec<_>, _> = pages.try_collect().await;
        // CloudFormation has no empty answer here, but an error without a code of its own (CFN-13).
        match found.map_err(|e| failed("cloudformation:ListImports", e)) {
            Err(e) if e.class == ErrorClass::Invalid && e.message.contains("not imported") => {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    /// Asks for a change set of a template. One of that name is no error.
    ///
    /// # Errors
    /// Those of CreateChangeSet.
    pub async fn create_change_set(&self, asked: NewChangeSet<'_>, token: &str) -> Result<()> {
        let filled = |name: &String| {
            let parameter = cfn::Parameter::builder().parameter_key(name);
            match asked.values.get(name) {
                Some(value) => parameter.parameter_value(value).build(),
                None => parameter.use_previous_value(true).build(),
            }
        };
        let sent = self
            .cloudformation
            .create_change_set()
            .stack_name(asked.stack)
            .change_set_name(asked.name)
            .change_set_type(cfn::ChangeSetType::Update)
            .template_body(asked.template)
            .set_parameters(Some(asked.parameters.iter().map(filled).collect()))
            .capabilities(cfn::Capability::CapabilityIam)
            .capabilities(cfn::Capability::CapabilityNamedIam)
            .client_token(token)
            .send()
            .await
            .map_err(|e| failed("cloudformation:CreateChangeSet", e));
        match sent {
            Err(e) if e.class != ErrorClass::Conflict => Err(e),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// A change set with all its changes; none where there is none.
    ///
    /// # Errors
    /// Those of DescribeChangeSet.
    pub async fn describe_change_set(&self, stack: &str, name: &str) -> Result<Option<ChangeSet>> {
        let mut whole: Option<ChangeSet> = None;
        let mut next = None;
        loop {
            let call = self.cloudformation.describe_change_set().stack_name(stack);
            // With values CloudFormation says of more that it stays (CFN-20).
            let call = call.change_set_name(name).include_property_values(true);
            let call = call.set_next_token(next);
            let sent = call.send().await;
            let sent = sent.map_err(|e| failed("cloudformation:DescribeChangeSet", e));
            let Some(page) = absent_is_none(sent)? else {
                return Ok(None);
            };
            let changes = page.changes.unwrap_or_default().into_iter();
            let changes = changes.filter_map(|c| c.resource_change).map(to_change);
            let known = whole.get_or_insert(ChangeSet {
                status: text_of(page.status),
                status_reason: page.status_reason,
                execution_status: text_of(page.execution_status),
                changes: Vec::new(),
            });
            known.changes.extend(changes);
            next = page.next_token;
            if next.is_none() {
                return Ok(whole);
            }
        }
    }

    /// Has a change set carried out.
    ///
    /// # Errors
    /// Those of ExecuteChangeSet.
    pub async fn execute_change_set(&self, stack: &str, name: &str, token: &str) -> Result<()> {
        let call = self.cloudformation.execute_change_set().stack_name(stack);
        let call = call.change_set_name(name).client_request_token(token);
        let sent = call.send().await;
        sent.map_err(|e| failed("cloudformation:ExecuteChangeSet", e))?;
        Ok(())
    }

    /// Deletes a change set that was not carried out; one that is gone is no error.
    ///
    /// # Errors
    /// Those of DeleteChangeSet.
    pub async fn delete_change_set(&self, stack: &str, name: &str) -> Result<()> {
        let call = self.cloudformation.delete_change_set().stack_name(stack);
        let sent = call.change_set_name(name).send().await;
        absent_is_none(sent.map_err(|e| failed("cloudformation:DeleteChangeSet", e)))?;
        Ok(())
    }

    /// Has a stack deleted; one that is gone is no error.
    ///
    /// # Errors
    /// Those of DeleteStack.
    pub async fn delete_stack(&self, stack: &str, token: &str) -> Result<()> {
        let call = self.cloudformation.delete_stack().stack_name(stack);
        let sent = call.client_request_token(token).send().await;
        absent_is_none(sent.map_err(|e| failed("cloudformation:DeleteStack", e)))?;
        Ok(())
    }
}

fn text_of(value: Option<impl ToString>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

fn to_stack(stack: cfn::Stack) -> Stack {
    let parameters = stack.parameters.unwrap_or_default();
    // A value that came from Parameter Store is resolved with each update (CFN-19).
    let resolved = |p: &cfn::Parameter| {
        Some(ResolvedParameter {
            name: p.parameter_key.clone()?,
            source: p.parameter_value.clone()?,
            value: p.resolved_value.clone()?,
        })
    };
    Stack {
        id: stack.stack_id.unwrap_or_default(),
        name: stack.stack_name.unwrap_or_default(),
        status: text_of(stack.stack_status),
        status_reason: stack.stack_status_reason,
        termination_protection: stack.enable_termination_protection.unwrap_or_default(),
        nested: stack.root_id.is_some() || stack.parent_id.is_some(),
        resolved_parameters: parameters.iter().filter_map(resolved).collect(),
        exports: { stack.outputs.unwrap_or_default().into_iter() }
            .filter_map(|o| o.export_name)
            .collect(),
        parameters: { parameters.into_iter() }
            .filter_map(|p| p.parameter_key)
            .collect(),
    }
}

fn to_resource(resource: cfn::StackResourceSummary) -> StackResource {
    StackResource {
        logical_id: resource.logical_resource_id.unwrap_or_default(),
        physical_id: resource.physical_resource_id.unwrap_or_default(),
        kind: resource.resource_type.unwrap_or_default(),
    }
}

fn to_change(change: cfn::ResourceChange) -> StackChange {
    let follows = follows_another(change.details());
    StackChange {
        follows,
        logical_id: change.logical_resource_id.unwrap_or_default(),
        action: text_of(change.action),
        scope: { change.scope.unwrap_or_default().into_iter() }
            .map(|part| part.to_string())
            .collect(),
        replacement: change.replacement.map(|r| r.to_string()),
    }
}

/// Values may be cut off where they are long, so that two long ones are not known to be the same.
const MAX_COMPARED_VALUE: usize = 128;

/// Whether all that is said of properties is said only because of a reference to another resource (CFN-20), or to a parameter
/// whose value was spelled otherwise (CFN-23).
fn follows_another(details: &[cfn::ResourceChangeDetail]) -> bool {
    let of_properties = |d: &&cfn::ResourceChangeDetail| {
        let what = d.target().and_then(|t| t.attribute());
        // Policies and metadata change nothing that runs; what is not known may.
        what.is_none_or(|what| {
            let what = what.as_str();
            what != "Metadata" && !what.ends_with("Policy")
        })
    };
    let stays = |d: &cfn::ResourceChangeDetail| {
        let target = d.target();
        let before = target.and_then(|t| t.before_value());
        let after = target.and_then(|t| t.after_value());
        before.is_some_and(|b| b.len() < MAX_COMPARED_VALUE) && before == after
    };
    let refers = |d: &cfn::ResourceChangeDetail| {
        d.evaluation() == Some(&cfn::EvaluationType::Dynamic)
            && matches!(
                d.change_source(),
                Some(cfn::ChangeSource::ResourceReference | cfn::ChangeSource::ResourceAttribute)
            )
    };
    let mut said = details.iter().filter(of_properties).peekable();
    said.peek().is_some() && said.all(|d| refers(d) || stays(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_by_reference_follows_another() {
        let detail = |what, how, source| {
            let target = cfn::ResourceTargetDefinition::builder()
                .attribute(what)
                .build();
            let detail = cfn::ResourceChangeDetail::builder().target(target);
            detail.evaluation(how).change_source(source).build()
        };
        use cfn::{ChangeSource, EvaluationType, ResourceAttribute};
        let metadata = detail(
            ResourceAttribute::Metadata,
            EvaluationType::Static,
            ChangeSource::DirectModification,
        );
        let referring = detail(
            ResourceAttribute::Properties,
            EvaluationType::Dynamic,
            ChangeSource::ResourceAttribute,
        );
        let written = detail(
            ResourceAttribute::Properties,
            EvaluationType::Static,
            ChangeSource::DirectModification,
        );
        assert!(follows_another(&[metadata.clone(), referring.clone()]));
        assert!(!follows_another(&[referring, written]));
        assert!(!follows_another(&[metadata]));
        // A parameter that is spelled otherwise changes nothing where the value is known to be the same.
        let spelled = |before: &str, after: &str| {
            let target = cfn::ResourceTargetDefinition::builder()
                .attribute(ResourceAttribute::Properties)
                .before_value(before)
                .after_value(after)
                .build();
            cfn::ResourceChangeDetail::builder()
                .target(target)
                .evaluation(EvaluationType::Static)
                .change_source(ChangeSource::ParameterReference)
                .build()
        };
        let long = "x".repeat(MAX_COMPARED_VALUE);
        assert!(follows_another(&[spelled("ami-1", "ami-1")]));
        assert!(!follows_another(&[spelled("ami-1", "ami-2")]));
        assert!(!follows_another(&[spelled(&long, &long)]));
        assert!(!follows_another(&[]));
    }
}
