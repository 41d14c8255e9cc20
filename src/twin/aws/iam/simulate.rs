//! SimulatePrincipalPolicy: what the caller's policy says of calls that nobody makes.
//!
//! One result for each action; with resources, one more inside for each of them, and the outer one is the strictest. The
//! twin knows one principal, the caller, and of context keys those that its policies can name.

use serde_json::{Value, json};

use super::document::ContextKeys;
use super::{IamAuthorizer, caller_arn, profiles};
use crate::twin::aws::call::{AwsService, Input};
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::AwsAccount;
use crate::twin::aws::unknown_operation;

/// Answers for IAM.
pub fn run_operation(cloud: &AwsAccount, op: &str, input: Input) -> Result<Value, AwsError> {
    match op {
        "SimulatePrincipalPolicy" => simulate_policy(cloud, input),
        "GetInstanceProfile" => profiles::get_profile(cloud, input),
        _ => Err(unknown_operation(AwsService::Iam, op)),
    }
}

fn simulate_policy(cloud: &AwsAccount, input: Input) -> Result<Value, AwsError> {
    let principal = input.require_text("PolicySourceArn")?;
    if principal != caller_arn(&cloud.account) {
        return Err(AwsError::new(
            404,
            "NoSuchEntity",
            format!("No principal with the ARN {principal} was found"),
        ));
    }
    // Without resources every action is asked on all of them.
    let mut resources = input.get_text_list("ResourceArns");
    if resources.is_empty() {
        resources.push("*".to_owned());
    }
    let keys = read_context_keys(input);
    let results: Vec<Value> = input
        .get_text_list("ActionNames")
        .iter()
        .map(|action| evaluate_action(cloud.iam.as_ref(), action, &resources, &keys))
        .collect();
    Ok(json!({"EvaluationResults": results, "IsTruncated": false}))
}

fn evaluate_action(
    iam: Option<&IamAuthorizer>,
    action: &str,
    resources: &[String],
    keys: &ContextKeys,
) -> Value {
    // Without a policy everything is allowed, so that a world without roles is not in the way.
    let allows = |resource: &str| {
        iam.is_none_or(|iam| iam.policy.matching_action(action, resource, keys).is_some())
    };
    let decision = |allowed: bool| match allowed {
        true => "allowed",
        false => "implicitDeny",
    };
    // Each resource has a result, and the outer one is the strictest of them.
    let each: Vec<Value> = resources
        .iter()
        .map(|resource| {
            json!({
                "EvalResourceName": resource,
                "EvalResourceDecision": decision(allows(resource)),
                "MatchedStatements": [],
                "MissingContextValues": [],
            })
        })
        .collect();
    json!({
        "EvalActionName": action,
        "EvalResourceName": "*",
        "EvalDecision": decision(resources.iter().all(|r| allows(r))),
        "MatchedStatements": [],
        "MissingContextValues": [],
        "ResourceSpecificResults": each,
    })
}

/// The request's context, as far as a policy that the twin enforces can ask for it.
fn read_context_keys(input: Input) -> ContextKeys {
    const SUPPORTED_CONTEXT_KEYS: &[&str] = &["iam:PassedToService"];
    let entries = input.get_list("ContextEntries").iter().map(Input);
    let known = entries.filter_map(|entry| {
        let name = entry.get_text("ContextKeyName")?;
        let key = SUPPORTED_CONTEXT_KEYS
            .iter()
            .find(|k| k.eq_ignore_ascii_case(name))?;
        let value = entry.get_text_list("ContextKeyValues").into_iter().next()?;
        Some((*key, value))
    });
    known.collect()
}
