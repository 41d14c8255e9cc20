//! ELB's reads.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{balancer_of_group, group_not_found, listener_not_found, rule_not_found};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{ElbBalancer, ElbListener, ElbRule, ElbState, ElbTargetGroup};
use crate::twin::world::SimWorld;

fn page_size(input: Input) -> Result<i64, AwsError> {
    match input.get_number("PageSize") {
        None => Ok(400),
        Some(n) if (1..=400).contains(&n) => Ok(n),
        Some(n) => Err(AwsError::validation_error(format!(
            "1 validation error detected: Value '{n}' at 'pageSize' failed to satisfy constraint: Member must have value less than or equal to 400"
        ))),
    }
}

fn balancer_not_found(arn: &str) -> AwsError {
    AwsError::new(
        400,
        "LoadBalancerNotFound",
        format!("Load balancers '[{arn}]' not found"),
    )
}

fn show_balancer(world: &SimWorld, balancer: &ElbBalancer) -> Value {
    // A balancer's zone has the subnet that its VPC has there.
    let zones: Vec<Value> = balancer
        .zones
        .iter()
        .map(|zone| {
            let subnet = world
                .cloud
                .subnets
                .values()
                .find(|s| s.zone == *zone && s.vpc == balancer.vpc)
                .map(|s| s.id.clone());
            json!({"ZoneName": zone, "SubnetId": subnet, "LoadBalancerAddresses": []})
        })
        .collect();
    json!({
        "LoadBalancerArn": balancer.arn,
        "DNSName": balancer.dns,
        "CanonicalHostedZoneId": "Z35SXDOTRQ7X7K",
        "CreatedTime": world.cloud.eks.as_ref().map(|eks| eks.created.to_string()),
        "LoadBalancerName": balancer.name,
        "Scheme": "internet-facing",
        "VpcId": balancer.vpc,
        "State": {"Code": "active"},
        "Type": balancer.kind,
        "AvailabilityZones": zones,
        "SecurityGroups": [],
        "IpAddressType": "ipv4",
    })
}

/// DescribeLoadBalancers.
pub fn describe_balancers(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let (arns, names) = (
        input.get_text_list("LoadBalancerArns"),
        input.get_text_list("Names"),
    );
    let elb = &world.cloud.elb;
    // Names that do not exist are errors, as are ARNs.
    if let Some(missing) = arns.iter().find(|arn| !elb.balancers.contains_key(*arn)) {
        return Err(balancer_not_found(missing));
    }
    if let Some(missing) = names
        .iter()
        .find(|name| !elb.balancers.values().any(|b| b.name == **name))
    {
        return Err(balancer_not_found(missing));
    }
    let wanted = elb.balancers.values().filter(|b| {
        (arns.is_empty() && names.is_empty()) || arns.contains(&b.arn) || names.contains(&b.name)
    });
    let page = cut_page(wanted, input.get_text("Marker"), page_size(input)?)?;
    Ok(
        json!({"LoadBalancers": page.items.iter().map(|b| show_balancer(world, b)).collect::<Vec<_>>(), "NextMarker": page.next}),
    )
}

/// A listener as ELB answers it.
pub fn show_listener(listener: &ElbListener) -> Value {
    json!({
        "ListenerArn": listener.arn,
        "LoadBalancerArn": listener.balancer,
        "Port": listener.port,
        "Protocol": listener.protocol,
        "DefaultActions": super::normalize_actions(&listener.actions),
    })
}

/// DescribeListeners.
pub fn describe_listeners(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let (arns, of) = (
        input.get_text_list("ListenerArns"),
        input.get_text("LoadBalancerArn"),
    );
    let elb = &world.cloud.elb;
    // A list of everything is not offered: the caller names listeners, or the balancer that they belong to.
    if arns.is_empty() && of.is_none() {
        return Err(AwsError::validation_error(
            "You must specify either listener ARNs or a load balancer ARN",
        ));
    }
    if arns.iter().any(|arn| !elb.listeners.contains_key(arn)) {
        return Err(listener_not_found());
    }
    if let Some(missing) = of.filter(|arn| !elb.balancers.contains_key(*arn)) {
        return Err(balancer_not_found(missing));
    }
    let wanted = elb
        .listeners
        .values()
        .filter(|l| arns.contains(&l.arn) || of == Some(&l.balancer));
    let page = cut_page(wanted, input.get_text("Marker"), page_size(input)?)?;
    Ok(
        json!({"Listeners": page.items.into_iter().map(show_listener).collect::<Vec<_>>(), "NextMarker": page.next}),
    )
}

/// A condition with both spellings of its values, as ELB answers it.
fn show_condition(condition: &Value) -> Value {
    let mut out = condition.clone();
    let config = match Input(condition).get_text("Field") {
        Some("path-pattern") => "PathPatternConfig",
        Some("host-header") => "HostHeaderConfig",
        Some(_) | None => return out,
    };
    let values = Input(condition).get_list("Values").to_vec();
    let values = if values.is_empty() {
        Input(condition)
            .get_input(config)
            .map(|c| c.get_list("Values").to_vec())
            .unwrap_or_default()
    } else {
        values
    };
    out["Values"] = json!(values);
    out[config] = json!({"Values": values});
    out
}

/// A rule as ELB answers it; a default rule shows its listener's actions.
pub fn show_rule(elb: &ElbState, rule: &ElbRule) -> Value {
    let actions = match elb.listeners.get(&rule.listener).filter(|_| rule.default) {
        Some(listener) => &listener.actions,
        None => &rule.actions,
    };
    json!({
        "RuleArn": rule.arn,
        "Priority": rule.priority,
        "Conditions": rule.conditions.iter().map(show_condition).collect::<Vec<_>>(),
        "Actions": super::normalize_actions(actions),
        "IsDefault": rule.default,
        "Transforms": rule.transforms,
    })
}

/// DescribeRules: by priority, the default last.
pub fn describe_rules(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let (arns, of) = (
        input.get_text_list("RuleArns"),
        input.get_text("ListenerArn"),
    );
    let elb = &world.cloud.elb;
    if arns.is_empty() && of.is_none() {
        return Err(AwsError::validation_error(
            "You must specify either listener rule ARNs or a listener ARN",
        ));
    }
    if arns.iter().any(|arn| !elb.rules.contains_key(arn)) {
        return Err(rule_not_found());
    }
    if of.is_some_and(|arn| !elb.listeners.contains_key(arn)) {
        return Err(listener_not_found());
    }
    let mut wanted: Vec<&ElbRule> = elb
        .rules
        .values()
        .filter(|r| arns.contains(&r.arn) || of == Some(&r.listener))
        .collect();
    // The default rule has no number, and is last.
    wanted.sort_by_key(|r| r.priority.parse::<i64>().unwrap_or(i64::MAX));
    let page = cut_page(wanted, input.get_text("Marker"), page_size(input)?)?;
    Ok(
        json!({"Rules": page.items.iter().map(|r| show_rule(elb, r)).collect::<Vec<_>>(), "NextMarker": page.next}),
    )
}

fn show_group(elb: &ElbState, group: &ElbTargetGroup) -> Value {
    json!({
        "TargetGroupArn": group.arn,
        "TargetGroupName": group.name,
        "Protocol": group.protocol,
        "Port": group.port,
        "VpcId": group.vpc,
        "HealthCheckProtocol": if group.protocol.starts_with("HTTP") { "HTTP" } else { "TCP" },
        "HealthCheckPort": "traffic-port",
        "HealthCheckEnabled": true,
        "HealthCheckIntervalSeconds": group.interval,
        "HealthCheckTimeoutSeconds": 5,
        "HealthyThresholdCount": group.healthy_threshold,
        "UnhealthyThresholdCount": group.unhealthy_threshold,
        "HealthCheckPath": "/healthz",
        "Matcher": {"HttpCode": "200"},
        // A target group belongs to the balancer whose rules name it, so this changes with the rules (ELB-2).
        "LoadBalancerArns": balancer_of_group(elb, &group.arn).into_iter().collect::<Vec<_>>(),
        "TargetType": group.target_type,
        "ProtocolVersion": "HTTP1",
        "IpAddressType": "ipv4",
    })
}

/// DescribeTargetGroups.
pub fn describe_groups(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let (arns, names, of) = (
        input.get_text_list("TargetGroupArns"),
        input.get_text_list("Names"),
        input.get_text("LoadBalancerArn"),
    );
    let elb = &world.cloud.elb;
    if arns.iter().any(|arn| !elb.groups.contains_key(arn))
        || names
            .iter()
            .any(|name| !elb.groups.values().any(|g| g.name == *name))
    {
        return Err(group_not_found());
    }
    if let Some(missing) = of.filter(|arn| !elb.balancers.contains_key(*arn)) {
        return Err(balancer_not_found(missing));
    }
    // Without any filter all target groups are shown; the filters themselves are alternatives.
    let all = arns.is_empty() && names.is_empty() && of.is_none();
    let wanted = elb.groups.values().filter(|g| {
        all || arns.contains(&g.arn)
            || names.contains(&g.name)
            || of.is_some_and(|of| balancer_of_group(elb, &g.arn) == Some(of))
    });
    let page = cut_page(wanted, input.get_text("Marker"), page_size(input)?)?;
    Ok(
        json!({"TargetGroups": page.items.iter().map(|g| show_group(elb, g)).collect::<Vec<_>>(), "NextMarker": page.next}),
    )
}

/// `Attributes`.
pub fn show_attributes(attributes: &BTreeMap<String, String>) -> Value {
    attributes
        .iter()
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect()
}

/// DescribeTargetGroupAttributes.
pub fn describe_group_attributes(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let group = world
        .cloud
        .elb
        .groups
        .get(input.require_text("TargetGroupArn")?)
        .ok_or_else(group_not_found)?;
    Ok(json!({"Attributes": show_attributes(&group.attributes)}))
}

/// DescribeLoadBalancerAttributes.
pub fn describe_balancer_attributes(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let arn = input.require_text("LoadBalancerArn")?;
    let balancer = world
        .cloud
        .elb
        .balancers
        .get(arn)
        .ok_or_else(|| balancer_not_found(arn))?;
    // An application balancer balances across zones unless it is told otherwise, a network one does not.
    let crosses = if balancer.kind == "application" {
        "true"
    } else {
        "false"
    };
    let all = BTreeMap::from([
        (
            "load_balancing.cross_zone.enabled".to_owned(),
            crosses.to_owned(),
        ),
        ("deletion_protection.enabled".to_owned(), "false".to_owned()),
        ("idle_timeout.timeout_seconds".to_owned(), "60".to_owned()),
    ]);
    Ok(json!({"Attributes": show_attributes(&all)}))
}

/// Refuses an ARN that names nothing, in the words for its kind.
pub fn check_exists(elb: &ElbState, arn: &str) -> Result<(), AwsError> {
    let found = elb.balancers.contains_key(arn)
        || elb.listeners.contains_key(arn)
        || elb.rules.contains_key(arn)
        || elb.groups.contains_key(arn);
    if found {
        return Ok(());
    }
    Err(
        match arn.split(':').nth(5).unwrap_or_default().split('/').next() {
            Some("targetgroup") => group_not_found(),
            Some("listener") => listener_not_found(),
            Some("listener-rule") => rule_not_found(),
            Some(_) | None => balancer_not_found(arn),
        },
    )
}

/// DescribeTags: at most twenty ARNs a call.
pub fn describe_tags(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let arns = input.get_text_list("ResourceArns");
    if arns.is_empty() || arns.len() > 20 {
        return Err(AwsError::validation_error(
            "1 validation error detected: Value at 'resourceArns' failed to satisfy constraint: Member must have length less than or equal to 20",
        ));
    }
    let mut shown = Vec::new();
    for arn in arns {
        // One ARN that does not exist fails the call for all (ELB-12).
        check_exists(&world.cloud.elb, &arn)?;
        let tags = world
            .cloud
            .elb
            .tags
            .get(&arn)
            .map_or_else(|| json!([]), show_attributes);
        shown.push(json!({"ResourceArn": arn, "Tags": tags}));
    }
    Ok(json!({"TagDescriptions": shown}))
}
