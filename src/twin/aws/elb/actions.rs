//! Actions of rules: ELB's rules for them, and the form in which it answers them.

use serde_json::{Value, json};

use crate::twin::aws::call::{Input, parse_bool};
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::ElbState;

/// How many target groups an action may name.
const MAX_TARGET_GROUPS: usize = 5;
/// Action types that end a request's way; a rule has exactly one.
const ROUTING_ACTION_TYPES: &[&str] = &["forward", "redirect", "fixed-response"];

/// Target groups and weights the forward action among `actions` names.
pub fn forward_weights(actions: &[Value]) -> Vec<(String, i64)> {
    let mut out = Vec::new();
    for action in actions
        .iter()
        .map(Input)
        .filter(|a| a.get_text("Type") == Some("forward"))
    {
        // The weights stand in the action's list; the single ARN is its short form, with weight 1.
        let groups = action
            .get_input("ForwardConfig")
            .map(|f| f.get_list("TargetGroups"))
            .unwrap_or_default();
        for group in groups.iter().map(Input) {
            if let Some(arn) = group.get_text("TargetGroupArn") {
                out.push((arn.to_owned(), group.get_number("Weight").unwrap_or(1)));
            }
        }
        if let Some(arn) = action
            .get_text("TargetGroupArn")
            .filter(|_| groups.is_empty())
        {
            out.push((arn.to_owned(), 1));
        }
    }
    out
}

/// The form in which ELB answers actions: a forward always has a `ForwardConfig`, and with one target group also a
/// `TargetGroupArn`; secrets are not answered.
pub fn normalize_actions(actions: &[Value]) -> Vec<Value> {
    actions.iter().map(normalize_action).collect()
}

fn normalize_action(action: &Value) -> Value {
    let mut out = action.clone();
    let read = Input(action);
    // A secret is never shown: an action is written back without it (ELB-6).
    if let Some(config) = out
        .get_mut("AuthenticateOidcConfig")
        .and_then(Value::as_object_mut)
    {
        config.remove("ClientSecret");
        config.remove("UseExistingClientSecret");
    }
    // ELB answers each forward in both forms, the list and, for a single group, its ARN.
    if read.get_text("Type") == Some("forward") {
        let groups = forward_weights(std::slice::from_ref(action));
        let sticky = read
            .get_input("ForwardConfig")
            .and_then(|f| f.get_input("TargetGroupStickinessConfig"));
        let mut stickiness =
            json!({"Enabled": sticky.and_then(|s| s.get_bool("Enabled")).unwrap_or(false)});
        if let Some(seconds) = sticky.and_then(|s| s.get_number("DurationSeconds")) {
            stickiness["DurationSeconds"] = json!(seconds);
        }
        if let Some(out) = out.as_object_mut() {
            out.remove("TargetGroupArn");
            if let [(arn, _)] = groups.as_slice() {
                out.insert("TargetGroupArn".into(), json!(arn));
            }
            let groups: Vec<Value> = groups
                .iter()
                .map(|(arn, weight)| json!({"TargetGroupArn": arn, "Weight": weight}))
                .collect();
            out.insert(
                "ForwardConfig".into(),
                json!({"TargetGroups": groups, "TargetGroupStickinessConfig": stickiness}),
            );
        }
    }
    out
}

fn invalid_action(message: impl Into<String>) -> AwsError {
    AwsError::new(400, "InvalidLoadBalancerAction", message)
}

/// Checks actions as ELB does before it takes them for `balancer`; `before` are those they replace.
pub fn check_actions(
    elb: &ElbState,
    balancer: &str,
    actions: &[Value],
    before: &[Value],
) -> Result<(), AwsError> {
    if actions.is_empty() {
        return Err(AwsError::validation_error("An action must be specified"));
    }
    // One action of a rule decides where a request goes; others come before it, such as an authentication.
    let kinds: Vec<&str> = actions
        .iter()
        .map(|a| Input(a).get_text("Type").unwrap_or_default())
        .collect();
    if kinds
        .iter()
        .filter(|k| ROUTING_ACTION_TYPES.contains(k))
        .count()
        != 1
    {
        return Err(invalid_action(
            "A rule must have exactly one forward, redirect or fixed-response action",
        ));
    }
    // With several actions each needs its place, and the one that ends a request is the last.
    if actions.len() > 1
        && actions
            .iter()
            .any(|a| Input(a).get_number("Order").is_none())
    {
        return Err(invalid_action(
            "An order must be specified for each action when there is more than one",
        ));
    }
    let last = actions
        .iter()
        .max_by_key(|a| Input(a).get_number("Order").unwrap_or(1));
    if last.is_some_and(|a| {
        !ROUTING_ACTION_TYPES.contains(&Input(a).get_text("Type").unwrap_or_default())
    }) {
        return Err(invalid_action(
            "The forward, redirect or fixed-response action must be the last to be performed",
        ));
    }
    // Each type has rules of its own; the types that eksup never writes are taken as they are.
    for action in actions {
        match Input(action).get_text("Type") {
            Some("forward") => check_forward(elb, balancer, Input(action))?,
            Some("authenticate-oidc") => check_oidc(Input(action), before)?,
            Some("redirect" | "fixed-response" | "authenticate-cognito" | "jwt-validation") => {}
            Some(other) => {
                return Err(AwsError::validation_error(format!(
                    "'{other}' is not a valid action type"
                )));
            }
            None => return Err(AwsError::missing_member("Type")),
        }
    }
    Ok(())
}

fn check_forward(elb: &ElbState, balancer: &str, action: Input) -> Result<(), AwsError> {
    let config = action.get_input("ForwardConfig");
    let listed = config
        .map(|c| c.get_list("TargetGroups"))
        .unwrap_or_default();
    // The single form and the list may stand together only where they say the same.
    if let Some(single) = action
        .get_text("TargetGroupArn")
        .filter(|_| !listed.is_empty())
    {
        let same =
            listed.len() == 1 && Input(&listed[0]).get_text("TargetGroupArn") == Some(single);
        if !same {
            return Err(AwsError::validation_error(
                "You can specify both TargetGroupArn and ForwardConfig only if ForwardConfig has one target group and it is the same as TargetGroupArn",
            ));
        }
    }
    let groups = forward_weights(std::slice::from_ref(action.0));
    if groups.is_empty() {
        return Err(AwsError::validation_error(
            "A target group ARN must be specified",
        ));
    }
    // No more than five groups share a forward (ELB-4).
    if groups.len() > MAX_TARGET_GROUPS {
        return Err(AwsError::new(
            400,
            "TooManyUniqueTargetGroupsPerLoadBalancer",
            format!(
                "You cannot specify more than {MAX_TARGET_GROUPS} target groups in a forward action"
            ),
        ));
    }
    // A group may stand once, has to exist, and belongs to one balancer.
    for (i, (arn, weight)) in groups.iter().enumerate() {
        if !(0..=999).contains(weight) {
            return Err(AwsError::validation_error(format!(
                "Target group weight '{weight}' is not valid. Weights must be between 0 and 999"
            )));
        }
        if groups.iter().take(i).any(|(other, _)| other == arn) {
            return Err(AwsError::validation_error(format!(
                "Target group '{arn}' is specified more than once"
            )));
        }
        if !elb.groups.contains_key(arn) {
            return Err(super::group_not_found());
        }
        if super::balancer_of_group(elb, arn).is_some_and(|other| other != balancer) {
            return Err(AwsError::new(
                400,
                "TargetGroupAssociationLimit",
                format!(
                    "The following target groups cannot be associated with more than one load balancer: {arn}"
                ),
            ));
        }
    }
    // Weights that are all zero are refused here: what the real balancer does is not documented, so eksup must not
    // write them (ELB-4).
    if groups.iter().all(|(_, weight)| *weight == 0) {
        return Err(AwsError::validation_error(
            "At least one target group must have a weight greater than 0",
        ));
    }
    // Stickiness between groups needs a duration; stickiness inside a group needs it to be enabled on the action
    // (ELB-5).
    let sticky = config.and_then(|c| c.get_input("TargetGroupStickinessConfig"));
    let enabled = sticky.and_then(|s| s.get_bool("Enabled")) == Some(true);
    let seconds = sticky.and_then(|s| s.get_number("DurationSeconds"));
    if enabled && !seconds.is_some_and(|s| (1..=604_800).contains(&s)) {
        return Err(AwsError::validation_error(
            "Stickiness DurationSeconds must be between 1 and 604800 when stickiness is enabled",
        ));
    }
    let group_sticky = groups.iter().any(|(arn, _)| {
        elb.groups
            .get(arn)
            .and_then(|g| g.attributes.get("stickiness.enabled"))
            .is_some_and(|v| v == "true")
    });
    if group_sticky && groups.len() > 1 && !enabled {
        return Err(invalid_action(
            "You must enable group stickiness on the action when target stickiness is enabled on one of its target groups",
        ));
    }
    Ok(())
}

/// ELB does not answer a client secret, so a rule is written back with `UseExistingClientSecret`.
fn check_oidc(action: Input, before: &[Value]) -> Result<(), AwsError> {
    let config = action
        .get_input("AuthenticateOidcConfig")
        .ok_or_else(|| AwsError::missing_member("AuthenticateOidcConfig"))?;
    let existing = config
        .get_member("UseExistingClientSecret")
        .and_then(parse_bool)
        == Some(true);
    // An existing secret can only be used where the rule had one before (ELB-6).
    let had = before
        .iter()
        .any(|a| Input(a).get_text("Type") == Some("authenticate-oidc"));
    match (config.get_text("ClientSecret"), existing) {
        (Some(_), true) => Err(invalid_action(
            "You cannot specify both a client secret and UseExistingClientSecret",
        )),
        (None, false) => Err(invalid_action("A client secret must be specified")),
        (None, true) if !had => Err(invalid_action("There is no existing client secret to use")),
        (Some(_), false) | (None, true) => Ok(()),
    }
}
