//! SimulatePrincipalPolicy: what the caller's policy says of calls that nobody makes.
//!
//! One result for each action; with resources, one more inside for each of them, and the outer one is the strictest. The
//! twin knows one principal, the caller, and of context keys those that its policies can name.

use serde_json::{Value, json};

use super::document::Keys;
use super::{Iam, caller};
use crate::twin::aws::call::{Input, Service};
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::Cloud;
use crate::twin::aws::unknown;

/// Answers for IAM.
pub fn run(cloud: &Cloud, op: &str, input: Input) -> Result<Value, AwsError> {
    match op {
        "SimulatePrincipalPolicy" => simulate(cloud, input),
        _ => Err(unknown(Service::Iam, op)),
    }
}

fn simulate(cloud: &Cloud, input: Input) -> Result<Value, AwsError> {
    let principal = input.need("PolicySourceArn")?;
    if principal != caller(&cloud.account) {
        return Err(AwsError::new(
            404,
            "NoSuchEntity",
            format!("No principal with the ARN {principal} was found"),
        ));
    }
    let mut resources = input.texts("ResourceArns");
    if resources.is_empty() {
        resources.push("*".to_owned());
    }
    let keys = keys(input);
    let results: Vec<Value> = input
        .texts("ActionNames")
        .iter()
        .map(|action| result(cloud.iam.as_ref(), action, &resources, &keys))
        .collect();
    Ok(json!({"EvaluationResults": results, "IsTruncated": false}))
}

fn result(iam: Option<&Iam>, action: &str, resources: &[String], keys: &Keys) -> Value {
    let allows =
        |resource: &str| iam.is_none_or(|iam| iam.policy.allows(action, resource, keys).is_some());
    let decision = |allowed: bool| match allowed {
        true => "allowed",
        false => "implicitDeny",
    };
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
fn keys(input: Input) -> Keys {
    const KNOWN: &[&str] = &["iam:PassedToService"];
    let entries = input.list("ContextEntries").iter().map(Input);
    let known = entries.filter_map(|entry| {
        let name = entry.text("ContextKeyName")?;
        let key = KNOWN.iter().find(|k| k.eq_ignore_ascii_case(name))?;
        let value = entry.texts("ContextKeyValues").into_iter().next()?;
        Some((*key, value))
    });
    known.collect()
}
