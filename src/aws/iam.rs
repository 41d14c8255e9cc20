//! Whether the caller may do something, as IAM simulates it; and the roles of instance profiles.

use aws_sdk_iam::types::{ContextEntry, ContextKeyTypeEnum, PolicyEvaluationDecisionType};

use crate::aws::AwsApi;
use crate::clients::aws_error::classify_sdk_error as failed;
use crate::model::{ApiError, ErrorClass};

/// Actions on resources that are asked about together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimulatedCall {
    /// Actions by their IAM names, such as `eks:CreateNodegroup`.
    pub actions: Vec<&'static str>,
    /// ARNs of the resources that each of the actions is asked about.
    pub resources: Vec<String>,
    /// Keys of the request's context and their values.
    pub context: Vec<(&'static str, String)>,
}

/// What the simulation says of one action on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedDecision {
    pub action: String,
    pub resource: String,
    pub allowed: bool,
    /// Keys that the policies ask for and the simulation was not given: without them a refusal proves nothing.
    pub missing_keys: Vec<String>,
}

impl AwsApi {
    /// The ARN of an instance profile's role; none where the profile has none.
    ///
    /// # Errors
    /// Absent where there is no such profile; those of GetInstanceProfile.
    pub async fn read_profile_role(&self, profile: &str) -> Result<Option<String>, ApiError> {
        let op = "iam:GetInstanceProfile";
        let call = self.iam.get_instance_profile();
        let sent = call.instance_profile_name(profile).send().await;
        let found = sent.map_err(|e| failed(op, e))?.instance_profile;
        let found =
            found.ok_or_else(|| ApiError::new(op, ErrorClass::Transient, "the answer is empty"))?;
        // A profile has one role at most.
        Ok(found.roles.into_iter().next().map(|role| role.arn))
    }

    /// Simulates calls of the principal (a user or a role, by its IAM ARN), with its boundary and its organization's
    /// policies. A session's own policy and those of resources are not part of it.
    pub async fn simulate_principal_policy(
        &self,
        principal: &str,
        asked: &SimulatedCall,
    ) -> Result<Vec<SimulatedDecision>, ApiError> {
        // Without the context's keys a policy with conditions on them answers a denial, and a caller who may do
        // everything would be told that permissions are missing.
        let context = asked.context.iter().map(|(key, value)| {
            ContextEntry::builder()
                .context_key_name(*key)
                .context_key_values(value)
                .context_key_type(ContextKeyTypeEnum::String)
                .build()
        });
        let pages = self
            .iam
            .simulate_principal_policy()
            .policy_source_arn(principal)
            .set_action_names(Some(
                asked.actions.iter().map(ToString::to_string).collect(),
            ))
            .set_resource_arns(Some(asked.resources.clone()))
            .set_context_entries(Some(context.collect()))
            .into_paginator();
        let found: Result<Vec<_>, _> = pages.items().send().try_collect().await;
        let found = found.map_err(|e| failed("iam:SimulatePrincipalPolicy", e))?;
        let mut decisions = Vec::new();
        let allowed =
            |d: &PolicyEvaluationDecisionType| *d == PolicyEvaluationDecisionType::Allowed;
        for result in found {
            // With resources the result is the strictest of all of them; which one it is stands beside it.
            let each = result.resource_specific_results();
            if each.is_empty() {
                decisions.push(SimulatedDecision {
                    action: result.eval_action_name.clone(),
                    resource: asked.resources.join(", "),
                    allowed: allowed(&result.eval_decision),
                    missing_keys: result.missing_context_values().to_vec(),
                });
            }
            decisions.extend(each.iter().map(|one| SimulatedDecision {
                action: result.eval_action_name.clone(),
                resource: one.eval_resource_name.clone(),
                allowed: allowed(&one.eval_resource_decision),
                missing_keys: one.missing_context_values().to_vec(),
            }));
        }
        Ok(decisions)
    }
}
