//! Elastic Load Balancing's types to the model's, and the one change that is ever made to a rule.

use std::collections::BTreeMap;

use aws_sdk_elasticloadbalancingv2::types;
use serde_json::{Map, Value, json};

use super::elb::listener_of;
use crate::model::elb::{
    Listener, ListenerRule, LoadBalancer, TargetGroup, TargetHealth, WeightedTargetGroup,
};
use crate::model::{ApiError, ErrorClass};

type Tags = BTreeMap<String, String>;

pub fn to_load_balancer(
    lb: types::LoadBalancer,
    tags: &mut BTreeMap<String, Tags>,
) -> LoadBalancer {
    let arn = lb.load_balancer_arn.unwrap_or_default();
    LoadBalancer {
        name: lb.load_balancer_name.unwrap_or_default(),
        kind: lb.r#type.map(|t| t.as_str().to_owned()).unwrap_or_default(),
        dns_name: lb.dns_name,
        vpc: lb.vpc_id,
        zones: lb
            .availability_zones
            .unwrap_or_default()
            .into_iter()
            .filter_map(|z| z.zone_name)
            .collect(),
        tags: tags.remove(&arn).unwrap_or_default(),
        arn,
    }
}

pub fn to_listener(l: types::Listener, tags: &mut BTreeMap<String, Tags>) -> Listener {
    let arn = l.listener_arn.unwrap_or_default();
    Listener {
        load_balancer: l.load_balancer_arn.unwrap_or_default(),
        port: l.port,
        protocol: l.protocol.map(|p| p.as_str().to_owned()),
        tags: tags.remove(&arn).unwrap_or_default(),
        arn,
    }
}

pub fn to_rule(r: types::Rule, tags: &mut BTreeMap<String, Tags>) -> ListenerRule {
    let arn = r.rule_arn.unwrap_or_default();
    let conditions = r.conditions.unwrap_or_default();
    let actions = r.actions.unwrap_or_default();
    let transforms = r.transforms.unwrap_or_default();
    ListenerRule {
        listener: listener_of(&arn),
        priority: r.priority.unwrap_or_default(),
        is_default: r.is_default.unwrap_or(false),
        conditions: conditions.iter().map(condition_text).collect(),
        forward: forward_targets(&actions),
        stickiness_seconds: stickiness_seconds(&actions),
        rest: other_settings_json(&conditions, &actions, &transforms),
        tags: tags.remove(&arn).unwrap_or_default(),
        arn,
    }
}

/// A network load balancer's default action as a default rule.
pub fn to_default_rule(l: types::Listener, tags: &mut BTreeMap<String, Tags>) -> ListenerRule {
    let arn = l.listener_arn.unwrap_or_default();
    let actions = l.default_actions.unwrap_or_default();
    ListenerRule {
        listener: arn.clone(),
        priority: "default".to_owned(),
        is_default: true,
        conditions: Vec::new(),
        forward: forward_targets(&actions),
        stickiness_seconds: stickiness_seconds(&actions),
        rest: other_settings_json(&[], &actions, &[]),
        tags: tags.remove(&arn).unwrap_or_default(),
        arn,
    }
}

pub fn to_target_group(
    g: types::TargetGroup,
    attributes: &Tags,
    tags: &mut BTreeMap<String, Tags>,
) -> TargetGroup {
    let arn = g.target_group_arn.unwrap_or_default();
    TargetGroup {
        name: g.target_group_name.unwrap_or_default(),
        protocol: g.protocol.map(|p| p.as_str().to_owned()),
        port: g.port,
        target_type: g
            .target_type
            .map(|t| t.as_str().to_owned())
            .unwrap_or_default(),
        vpc: g.vpc_id,
        load_balancers: g.load_balancer_arns.unwrap_or_default(),
        // What is absent counts with ELB's defaults. The readiness checks compute from the interval and the threshold
        // how long a failing target still gets requests.
        health_check_interval_seconds: g.health_check_interval_seconds.unwrap_or(30),
        healthy_threshold: g.healthy_threshold_count.unwrap_or(5),
        unhealthy_threshold: g.unhealthy_threshold_count.unwrap_or(2),
        deregistration_delay_seconds: attributes
            .get("deregistration_delay.timeout_seconds")
            .and_then(|s| s.parse().ok())
            .unwrap_or(300),
        sticky: attributes
            .get("stickiness.enabled")
            .is_some_and(|s| s == "true"),
        tags: tags.remove(&arn).unwrap_or_default(),
        arn,
    }
}

pub fn to_target_health(t: types::TargetHealthDescription) -> TargetHealth {
    let (target, health) = (t.target, t.target_health);
    TargetHealth {
        id: target
            .as_ref()
            .and_then(|t| t.id.clone())
            .unwrap_or_default(),
        port: target.as_ref().and_then(|t| t.port),
        zone: target.and_then(|t| t.availability_zone),
        state: health
            .as_ref()
            .and_then(|h| h.state.as_ref())
            .map(|s| s.as_str().into())
            .unwrap_or_default(),
        reason: health.and_then(|h| h.reason).map(|r| r.as_str().to_owned()),
    }
}

/// The rule's actions with `forward` in the place of its target groups and all else as it was. Pure.
pub fn replace_forward(
    op: &str,
    rule: &str,
    mut actions: Vec<types::Action>,
    forward: &[WeightedTargetGroup],
) -> Result<Vec<types::Action>, ApiError> {
    let refused = |why: &str| {
        ApiError::new(
            op,
            ErrorClass::Invalid,
            format!("the weights of `{rule}` cannot be set: {why}"),
        )
    };
    // What is checked here is what ELB takes and would serve badly, or refuses without saying which weight it was.
    if forward.iter().all(|g| g.weight == 0) {
        return Err(refused(
            "at least one target group needs a weight above 0, else every request is answered 503",
        ));
    }
    if let Some(bad) = forward.iter().find(|g| !(0..=999).contains(&g.weight)) {
        return Err(refused(&format!(
            "weight {} of `{}` is not between 0 and 999",
            bad.weight, bad.arn
        )));
    }
    let Some(action) = actions.iter_mut().find(|a| is_forward(a)) else {
        return Err(refused("it has no forward action"));
    };
    let was = action.forward_config.take();
    let stickiness = was.and_then(|f| f.target_group_stickiness_config);
    // A network load balancer may not take the setting at all; where it is off there is nothing to keep.
    let application = rule.contains(":listener-rule/app/") || rule.contains(":listener/app/");
    let stickiness = stickiness.filter(|s| application || s.enabled == Some(true));
    let groups = forward
        .iter()
        .map(|g| {
            types::TargetGroupTuple::builder()
                .target_group_arn(&g.arn)
                .weight(g.weight)
                .build()
        })
        .collect();
    // With a `TargetGroupArn` beside it the configuration may name only that one group.
    action.target_group_arn = None;
    action.forward_config = Some(
        types::ForwardActionConfig::builder()
            .set_target_groups(Some(groups))
            .set_target_group_stickiness_config(stickiness)
            .build(),
    );
    for oidc in actions
        .iter_mut()
        .filter_map(|a| a.authenticate_oidc_config.as_mut())
    {
        // The secret is never given out, so it cannot be sent back.
        oidc.client_secret = None;
        oidc.use_existing_client_secret = Some(true);
    }
    Ok(actions)
}

fn is_forward(action: &types::Action) -> bool {
    action.r#type == Some(types::ActionTypeEnum::Forward)
}

/// Where the first forward action of a rule sends requests to.
pub fn forward_targets(actions: &[types::Action]) -> Vec<WeightedTargetGroup> {
    let Some(action) = actions.iter().find(|a| is_forward(a)) else {
        return Vec::new();
    };
    let groups = action
        .forward_config()
        .map(|f| f.target_groups())
        .unwrap_or_default();
    // The older form of an action names one group and no weight: all of the traffic.
    if groups.is_empty() {
        return action
            .target_group_arn()
            .map(|arn| WeightedTargetGroup {
                arn: arn.to_owned(),
                weight: 1,
            })
            .into_iter()
            .collect();
    }
    groups
        .iter()
        .filter_map(|g| {
            Some(WeightedTargetGroup {
                arn: g.target_group_arn.clone()?,
                weight: g.weight.unwrap_or(1),
            })
        })
        .collect()
}

fn stickiness_seconds(actions: &[types::Action]) -> Option<i32> {
    let config = actions
        .iter()
        .find(|a| is_forward(a))?
        .forward_config()?
        .target_group_stickiness_config()?;
    if config.enabled == Some(true) {
        Some(config.duration_seconds.unwrap_or(0))
    } else {
        None
    }
}

fn other_settings_json(
    conditions: &[types::RuleCondition],
    actions: &[types::Action],
    transforms: &[types::RuleTransform],
) -> Value {
    json!({
        "Conditions": conditions.iter().map(condition_json).collect::<Vec<_>>(),
        "Actions": actions.iter().map(action_json).collect::<Vec<_>>(),
        "Transforms": transforms.iter().map(transform_json).collect::<Vec<_>>(),
    })
}

/// Drops what is not there, as AWS leaves it out of its answers.
fn object_json<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Object(
        entries
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k.to_owned(), v))
            .collect::<Map<_, _>>(),
    )
}

fn list_json(values: &Option<Vec<String>>) -> Value {
    values
        .as_ref()
        .filter(|v| !v.is_empty())
        .map_or(Value::Null, |v| json!(v))
}

fn map_json(values: &Option<std::collections::HashMap<String, String>>) -> Value {
    values
        .as_ref()
        .filter(|v| !v.is_empty())
        .map_or(Value::Null, |v| json!(v.iter().collect::<BTreeMap<_, _>>()))
}

fn action_json(a: &types::Action) -> Value {
    object_json([
        // A type that this SDK does not know yet keeps its name.
        ("Type", json!(a.r#type.as_ref().map(|t| t.as_str()))),
        ("Order", json!(a.order)),
        // A forward without a configuration gets one with stickiness off, which is what ELB makes of it; weights are
        // kept apart.
        (
            "ForwardConfig",
            if is_forward(a) {
                forward_json(a.forward_config())
            } else {
                Value::Null
            },
        ),
        (
            "RedirectConfig",
            a.redirect_config().map_or(Value::Null, redirect_json),
        ),
        (
            "FixedResponseConfig",
            a.fixed_response_config()
                .map_or(Value::Null, fixed_response_json),
        ),
        (
            "AuthenticateOidcConfig",
            a.authenticate_oidc_config().map_or(Value::Null, oidc_json),
        ),
        (
            "AuthenticateCognitoConfig",
            a.authenticate_cognito_config()
                .map_or(Value::Null, cognito_json),
        ),
        (
            "JwtValidationConfig",
            a.jwt_validation_config().map_or(Value::Null, jwt_json),
        ),
    ])
}

/// The target groups are left out; a setting that was never made reads as the default that AWS fills in.
fn forward_json(f: Option<&types::ForwardActionConfig>) -> Value {
    let config = f.and_then(|f| f.target_group_stickiness_config());
    let enabled = config.and_then(|c| c.enabled).unwrap_or(false);
    let seconds = config.and_then(|c| c.duration_seconds).filter(|_| enabled);
    json!({ "TargetGroups": [], "TargetGroupStickinessConfig": object_json([("Enabled", json!(enabled)), ("DurationSeconds", json!(seconds))]) })
}

fn redirect_json(r: &types::RedirectActionConfig) -> Value {
    object_json([
        ("Protocol", json!(r.protocol)),
        ("Port", json!(r.port)),
        ("Host", json!(r.host)),
        ("Path", json!(r.path)),
        ("Query", json!(r.query)),
        (
            "StatusCode",
            json!(r.status_code.as_ref().map(|s| s.as_str())),
        ),
    ])
}

fn fixed_response_json(f: &types::FixedResponseActionConfig) -> Value {
    object_json([
        ("MessageBody", json!(f.message_body)),
        ("StatusCode", json!(f.status_code)),
        ("ContentType", json!(f.content_type)),
    ])
}

/// Without the client secret, which AWS never answers and some emulators do.
fn oidc_json(o: &types::AuthenticateOidcActionConfig) -> Value {
    object_json([
        ("Issuer", json!(o.issuer)),
        ("AuthorizationEndpoint", json!(o.authorization_endpoint)),
        ("TokenEndpoint", json!(o.token_endpoint)),
        ("UserInfoEndpoint", json!(o.user_info_endpoint)),
        ("ClientId", json!(o.client_id)),
        ("SessionCookieName", json!(o.session_cookie_name)),
        ("Scope", json!(o.scope)),
        ("SessionTimeout", json!(o.session_timeout)),
        (
            "AuthenticationRequestExtraParams",
            map_json(&o.authentication_request_extra_params),
        ),
        (
            "OnUnauthenticatedRequest",
            json!(o.on_unauthenticated_request.as_ref().map(|b| b.as_str())),
        ),
    ])
}

fn cognito_json(c: &types::AuthenticateCognitoActionConfig) -> Value {
    object_json([
        ("UserPoolArn", json!(c.user_pool_arn)),
        ("UserPoolClientId", json!(c.user_pool_client_id)),
        ("UserPoolDomain", json!(c.user_pool_domain)),
        ("SessionCookieName", json!(c.session_cookie_name)),
        ("Scope", json!(c.scope)),
        ("SessionTimeout", json!(c.session_timeout)),
        (
            "AuthenticationRequestExtraParams",
            map_json(&c.authentication_request_extra_params),
        ),
        (
            "OnUnauthenticatedRequest",
            json!(c.on_unauthenticated_request.as_ref().map(|b| b.as_str())),
        ),
    ])
}

fn jwt_json(j: &types::JwtValidationActionConfig) -> Value {
    let claims: Vec<Value> = j
        .additional_claims()
        .iter()
        .map(|c| {
            object_json([
                ("Format", json!(c.format.as_ref().map(|f| f.as_str()))),
                ("Name", json!(c.name)),
                ("Values", list_json(&c.values)),
            ])
        })
        .collect();
    object_json([
        ("JwksEndpoint", json!(j.jwks_endpoint)),
        ("Issuer", json!(j.issuer)),
        (
            "AdditionalClaims",
            if claims.is_empty() {
                Value::Null
            } else {
                json!(claims)
            },
        ),
    ])
}

fn condition_json(c: &types::RuleCondition) -> Value {
    let values_and_regex = |values: &Option<Vec<String>>, regex: &Option<Vec<String>>| {
        object_json([
            ("Values", list_json(values)),
            ("RegexValues", list_json(regex)),
        ])
    };
    object_json([
        ("Field", json!(c.field)),
        ("Values", list_json(&c.values)),
        ("RegexValues", list_json(&c.regex_values)),
        ("HostHeaderConfig", c.host_header_config().map_or(Value::Null, |h| values_and_regex(&h.values, &h.regex_values))),
        ("PathPatternConfig", c.path_pattern_config().map_or(Value::Null, |p| values_and_regex(&p.values, &p.regex_values))),
        (
            "HttpHeaderConfig",
            c.http_header_config().map_or(Value::Null, |h| object_json([("HttpHeaderName", json!(h.http_header_name)), ("Values", list_json(&h.values)), ("RegexValues", list_json(&h.regex_values))])),
        ),
        (
            "QueryStringConfig",
            c.query_string_config().map_or(Value::Null, |q| json!({ "Values": q.values().iter().map(|p| object_json([("Key", json!(p.key)), ("Value", json!(p.value))])).collect::<Vec<_>>() })),
        ),
        ("HttpRequestMethodConfig", c.http_request_method_config().map_or(Value::Null, |m| object_json([("Values", list_json(&m.values))]))),
        (
            "SourceIpConfig",
            c.source_ip_config().map_or(Value::Null, |s| object_json([("Values", list_json(&s.values)), ("IpAddressType", json!(s.ip_address_type.as_ref().map(|t| t.as_str())))])),
        ),
    ])
}

fn transform_json(t: &types::RuleTransform) -> Value {
    let rewrites = |rewrites: &[types::RewriteConfig]| json!({ "Rewrites": rewrites.iter().map(|r| object_json([("Regex", json!(r.regex)), ("Replace", json!(r.replace))])).collect::<Vec<_>>() });
    object_json([
        ("Type", json!(t.r#type.as_ref().map(|t| t.as_str()))),
        (
            "HostHeaderRewriteConfig",
            t.host_header_rewrite_config()
                .map_or(Value::Null, |h| rewrites(h.rewrites())),
        ),
        (
            "UrlRewriteConfig",
            t.url_rewrite_config()
                .map_or(Value::Null, |u| rewrites(u.rewrites())),
        ),
    ])
}

/// A condition for people and plans: `path-pattern=/api/*,/v2/*`, `http-header:X-Env=prod`, `query-string=a=b`.
fn condition_text(c: &types::RuleCondition) -> String {
    let field = c.field().unwrap_or_default();
    // A header condition is only told apart by the header's name.
    let name = match c.http_header_config().and_then(|h| h.http_header_name()) {
        Some(header) => format!("{field}:{header}"),
        None => field.to_owned(),
    };
    let mut values: Vec<String> = Vec::new();
    let mut regex: Vec<String> = Vec::new();
    let mut add = |plain: &[String], patterns: &[String]| {
        // AWS answers the same values in the old place and in the new one.
        values.extend(
            plain
                .iter()
                .filter(|v| !values.contains(v))
                .cloned()
                .collect::<Vec<_>>(),
        );
        regex.extend(
            patterns
                .iter()
                .filter(|v| !regex.contains(v))
                .cloned()
                .collect::<Vec<_>>(),
        );
    };
    // The old place first, then the one of the condition's own kind.
    add(c.values(), c.regex_values());
    if let Some(h) = c.host_header_config() {
        add(h.values(), h.regex_values());
    }
    if let Some(p) = c.path_pattern_config() {
        add(p.values(), p.regex_values());
    }
    if let Some(h) = c.http_header_config() {
        add(h.values(), h.regex_values());
    }
    if let Some(m) = c.http_request_method_config() {
        add(m.values(), &[]);
    }
    if let Some(s) = c.source_ip_config() {
        add(s.values(), &[]);
    }
    // A query string may match a value under any key.
    if let Some(q) = c.query_string_config() {
        let pairs: Vec<String> = q
            .values()
            .iter()
            .map(|p| {
                p.key().map_or_else(
                    || p.value().unwrap_or_default().to_owned(),
                    |k| format!("{k}={}", p.value().unwrap_or_default()),
                )
            })
            .collect();
        add(&pairs, &[]);
    }
    // AWS allows either values or patterns in one condition.
    if regex.is_empty() {
        format!("{name}={}", values.join(","))
    } else {
        format!("{name}~={}", regex.join(","))
    }
}
