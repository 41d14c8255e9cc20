//! Actions of rules: ELB's rules for them, and the form in which it answers them.

use serde_json::{Value, json};

use crate::twin::aws::call::{Input, as_truth};
use crate::twin::aws::error::AwsError;
use crate::twin::aws::state::Elb;

/// How many target groups an action may name.
const MOST_GROUPS: usize = 5;
/// Action types that end a request's way; a rule has exactly one.
const ROUTING: &[&str] = &["forward", "redirect", "fixed-response"];

/// Target groups and weights the forward action among `actions` names.
pub fn forwards(actions: &[Value]) -> Vec<(String, i64)> {
    let mut out = Vec::new();
    for action in actions
        .iter()
        .map(Input)
        .filter(|a| a.text("Type") == Some("forward"))
    {
        let groups = action
            .inner("ForwardConfig")
            .map(|f| f.list("TargetGroups"))
            .unwrap_or_default();
        for group in groups.iter().map(Input) {
            if let Some(arn) = group.text("TargetGroupArn") {
                out.push((arn.to_owned(), group.number("Weight").unwrap_or(1)));
            }
        }
        if let Some(arn) = action.text("TargetGroupArn").filter(|_| groups.is_empty()) {
            out.push((arn.to_owned(), 1));
        }
    }
    out
}

/// The form in which ELB answers actions: a forward always has a `ForwardConfig`, and with one target group also a
/// `TargetGroupArn`; secrets are not answered.
pub fn normal(actions: &[Value]) -> Vec<Value> {
    actions.iter().map(normal_one).collect()
}

fn normal_one(action: &Value) -> Value {
    let mut out = action.clone();
    let read = Input(action);
    if let Some(config) = out
        .get_mut("AuthenticateOidcConfig")
        .and_then(Value::as_object_mut)
    {
        config.remove("ClientSecret");
        config.remove("UseExistingClientSecret");
    }
    if read.text("Type") == Some("forward") {
        let groups = forwards(std::slice::from_ref(action));
        let sticky = read
            .inner("ForwardConfig")
            .and_then(|f| f.inner("TargetGroupStickinessConfig"));
        let mut stickiness =
            json!({"Enabled": sticky.and_then(|s| s.truth("Enabled")).unwrap_or(false)});
        if let Some(seconds) = sticky.and_then(|s| s.number("DurationSeconds")) {
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

fn bad(message: impl Into<String>) -> AwsError {
    AwsError::new(400, "InvalidLoadBalancerAction", message)
}

/// Checks actions as ELB does before it takes them for `balancer`; `before` are those they replace.
pub fn check(
    elb: &Elb,
    balancer: &str,
    actions: &[Value],
    before: &[Value],
) -> Result<(), AwsError> {
    if actions.is_empty() {
        return Err(AwsError::validation("An action must be specified"));
    }
    let kinds: Vec<&str> = actions
        .iter()
        .map(|a| Input(a).text("Type").unwrap_or_default())
        .collect();
    if kinds.iter().filter(|k| ROUTING.contains(k)).count() != 1 {
        return Err(bad(
            "A rule must have exactly one forward, redirect or fixed-response action",
        ));
    }
    if actions.len() > 1 && actions.iter().any(|a| Input(a).number("Order").is_none()) {
        return Err(bad(
            "An order must be specified for each action when there is more than one",
        ));
    }
    let last = actions
        .iter()
        .max_by_key(|a| Input(a).number("Order").unwrap_or(1));
    if last.is_some_and(|a| !ROUTING.contains(&Input(a).text("Type").unwrap_or_default())) {
        return Err(bad(
            "The forward, redirect or fixed-response action must be the last to be performed",
        ));
    }
    for action in actions {
        match Input(action).text("Type") {
            Some("forward") => check_forward(elb, balancer, Input(action))?,
            Some("authenticate-oidc") => check_oidc(Input(action), before)?,
            Some("redirect" | "fixed-response" | "authenticate-cognito" | "jwt-validation") => {}
            Some(other) => {
                return Err(AwsError::validation(format!(
                    "'{other}' is not a valid action type"
                )));
            }
            None => return Err(AwsError::missing("Type")),
        }
    }
    Ok(())
}

fn check_forward(elb: &Elb, balancer: &str, action: Input) -> Result<(), AwsError> {
    let config = action.inner("ForwardConfig");
    let listed = config.map(|c| c.list("TargetGroups")).unwrap_or_default();
    if let Some(single) = action.text("TargetGroupArn").filter(|_| !listed.is_empty()) {
        let same = listed.len() == 1 && Input(&listed[0]).text("TargetGroupArn") == Some(single);
        if !same {
            return Err(AwsError::validation(
                "You can specify both TargetGroupArn and ForwardConfig only if ForwardConfig has one target group and it is the same as TargetGroupArn",
            ));
        }
    }
    let groups = forwards(std::slice::from_ref(action.0));
    if groups.is_empty() {
        return Err(AwsError::validation("A target group ARN must be specified"));
    }
    if groups.len() > MOST_GROUPS {
        return Err(AwsError::new(
            400,
            "TooManyUniqueTargetGroupsPerLoadBalancer",
            format!("You cannot specify more than {MOST_GROUPS} target groups in a forward action"),
        ));
    }
    for (i, (arn, weight)) in groups.iter().enumerate() {
        if !(0..=999).contains(weight) {
            return Err(AwsError::validation(format!(
                "Target group weight '{weight}' is not valid. Weights must be between 0 and 999"
            )));
        }
        if groups.iter().take(i).any(|(other, _)| other == arn) {
            return Err(AwsError::validation(format!(
                "Target group '{arn}' is specified more than once"
            )));
        }
        if !elb.groups.contains_key(arn) {
            return Err(super::no_group());
        }
        if super::balancer_of(elb, arn).is_some_and(|other| other != balancer) {
            return Err(AwsError::new(
                400,
                "TargetGroupAssociationLimit",
                format!(
                    "The following target groups cannot be associated with more than one load balancer: {arn}"
                ),
            ));
        }
    }
    if groups.iter().all(|(_, weight)| *weight == 0) {
        return Err(AwsError::validation(
            "At least one target group must have a weight greater than 0",
        ));
    }
    let sticky = config.and_then(|c| c.inner("TargetGroupStickinessConfig"));
    let enabled = sticky.and_then(|s| s.truth("Enabled")) == Some(true);
    let seconds = sticky.and_then(|s| s.number("DurationSeconds"));
    if enabled && !seconds.is_some_and(|s| (1..=604_800).contains(&s)) {
        return Err(AwsError::validation(
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
        return Err(bad(
            "You must enable group stickiness on the action when target stickiness is enabled on one of its target groups",
        ));
    }
    Ok(())
}

/// ELB does not answer a client secret, so a rule is written back with `UseExistingClientSecret`.
fn check_oidc(action: Input, before: &[Value]) -> Result<(), AwsError> {
    let config = action
        .inner("AuthenticateOidcConfig")
        .ok_or_else(|| AwsError::missing("AuthenticateOidcConfig"))?;
    let existing = config.get("UseExistingClientSecret").and_then(as_truth) == Some(true);
    let had = before
        .iter()
        .any(|a| Input(a).text("Type") == Some("authenticate-oidc"));
    match (config.text("ClientSecret"), existing) {
        (Some(_), true) => Err(bad(
            "You cannot specify both a client secret and UseExistingClientSecret",
        )),
        (None, false) => Err(bad("A client secret must be specified")),
        (None, true) if !had => Err(bad("There is no existing client secret to use")),
        (Some(_), false) | (None, true) => Ok(()),
    }
}
