//! ELB's reads.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{balancer_of, no_group, no_listener, no_rule};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::page;
use crate::twin::aws::state::{Balancer, Elb, Listener, Rule, TargetGroup};
use crate::twin::world::World;

fn size(input: Input) -> Result<i64, AwsError> {
    match input.number("PageSize") {
        None => Ok(400),
        Some(n) if (1..=400).contains(&n) => Ok(n),
        Some(n) => Err(AwsError::validation(format!(
            "1 validation error detected: Value '{n}' at 'pageSize' failed to satisfy constraint: Member must have value less than or equal to 400"
        ))),
    }
}

fn no_balancer(arn: &str) -> AwsError {
    AwsError::new(
        400,
        "LoadBalancerNotFound",
        format!("Load balancers '[{arn}]' not found"),
    )
}

fn balancer(world: &World, balancer: &Balancer) -> Value {
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
pub fn balancers(world: &World, input: Input) -> Result<Value, AwsError> {
    let (arns, names) = (input.texts("LoadBalancerArns"), input.texts("Names"));
    let elb = &world.cloud.elb;
    if let Some(missing) = arns.iter().find(|arn| !elb.balancers.contains_key(*arn)) {
        return Err(no_balancer(missing));
    }
    if let Some(missing) = names
        .iter()
        .find(|name| !elb.balancers.values().any(|b| b.name == **name))
    {
        return Err(no_balancer(missing));
    }
    let wanted = elb.balancers.values().filter(|b| {
        (arns.is_empty() && names.is_empty()) || arns.contains(&b.arn) || names.contains(&b.name)
    });
    let page = page(wanted, input.text("Marker"), size(input)?)?;
    Ok(
        json!({"LoadBalancers": page.items.iter().map(|b| balancer(world, b)).collect::<Vec<_>>(), "NextMarker": page.next}),
    )
}

/// A listener as ELB answers it.
pub fn listener(listener: &Listener) -> Value {
    json!({
        "ListenerArn": listener.arn,
        "LoadBalancerArn": listener.balancer,
        "Port": listener.port,
        "Protocol": listener.protocol,
        "DefaultActions": super::normal(&listener.actions),
    })
}

/// DescribeListeners.
pub fn listeners(world: &World, input: Input) -> Result<Value, AwsError> {
    let (arns, of) = (input.texts("ListenerArns"), input.text("LoadBalancerArn"));
    let elb = &world.cloud.elb;
    if arns.is_empty() && of.is_none() {
        return Err(AwsError::validation(
            "You must specify either listener ARNs or a load balancer ARN",
        ));
    }
    if arns.iter().any(|arn| !elb.listeners.contains_key(arn)) {
        return Err(no_listener());
    }
    if let Some(missing) = of.filter(|arn| !elb.balancers.contains_key(*arn)) {
        return Err(no_balancer(missing));
    }
    let wanted = elb
        .listeners
        .values()
        .filter(|l| arns.contains(&l.arn) || of == Some(&l.balancer));
    let page = page(wanted, input.text("Marker"), size(input)?)?;
    Ok(
        json!({"Listeners": page.items.into_iter().map(listener).collect::<Vec<_>>(), "NextMarker": page.next}),
    )
}

/// A condition with both spellings of its values, as ELB answers it.
fn condition(condition: &Value) -> Value {
    let mut out = condition.clone();
    let config = match Input(condition).text("Field") {
        Some("path-pattern") => "PathPatternConfig",
        Some("host-header") => "HostHeaderConfig",
        Some(_) | None => return out,
    };
    let values = Input(condition).list("Values").to_vec();
    let values = if values.is_empty() {
        Input(condition)
            .inner(config)
            .map(|c| c.list("Values").to_vec())
            .unwrap_or_default()
    } else {
        values
    };
    out["Values"] = json!(values);
    out[config] = json!({"Values": values});
    out
}

/// A rule as ELB answers it; a default rule shows its listener's actions.
pub fn rule(elb: &Elb, rule: &Rule) -> Value {
    let actions = match elb.listeners.get(&rule.listener).filter(|_| rule.default) {
        Some(listener) => &listener.actions,
        None => &rule.actions,
    };
    json!({
        "RuleArn": rule.arn,
        "Priority": rule.priority,
        "Conditions": rule.conditions.iter().map(condition).collect::<Vec<_>>(),
        "Actions": super::normal(actions),
        "IsDefault": rule.default,
        "Transforms": rule.transforms,
    })
}

/// DescribeRules: by priority, the default last.
pub fn rules(world: &World, input: Input) -> Result<Value, AwsError> {
    let (arns, of) = (input.texts("RuleArns"), input.text("ListenerArn"));
    let elb = &world.cloud.elb;
    if arns.is_empty() && of.is_none() {
        return Err(AwsError::validation(
            "You must specify either listener rule ARNs or a listener ARN",
        ));
    }
    if arns.iter().any(|arn| !elb.rules.contains_key(arn)) {
        return Err(no_rule());
    }
    if of.is_some_and(|arn| !elb.listeners.contains_key(arn)) {
        return Err(no_listener());
    }
    let mut wanted: Vec<&Rule> = elb
        .rules
        .values()
        .filter(|r| arns.contains(&r.arn) || of == Some(&r.listener))
        .collect();
    wanted.sort_by_key(|r| r.priority.parse::<i64>().unwrap_or(i64::MAX));
    let page = page(wanted, input.text("Marker"), size(input)?)?;
    Ok(
        json!({"Rules": page.items.iter().map(|r| rule(elb, r)).collect::<Vec<_>>(), "NextMarker": page.next}),
    )
}

fn group(elb: &Elb, group: &TargetGroup) -> Value {
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
        "LoadBalancerArns": balancer_of(elb, &group.arn).into_iter().collect::<Vec<_>>(),
        "TargetType": group.target_type,
        "ProtocolVersion": "HTTP1",
        "IpAddressType": "ipv4",
    })
}

/// DescribeTargetGroups.
pub fn groups(world: &World, input: Input) -> Result<Value, AwsError> {
    let (arns, names, of) = (
        input.texts("TargetGroupArns"),
        input.texts("Names"),
        input.text("LoadBalancerArn"),
    );
    let elb = &world.cloud.elb;
    if arns.iter().any(|arn| !elb.groups.contains_key(arn))
        || names
            .iter()
            .any(|name| !elb.groups.values().any(|g| g.name == *name))
    {
        return Err(no_group());
    }
    if let Some(missing) = of.filter(|arn| !elb.balancers.contains_key(*arn)) {
        return Err(no_balancer(missing));
    }
    let all = arns.is_empty() && names.is_empty() && of.is_none();
    let wanted = elb.groups.values().filter(|g| {
        all || arns.contains(&g.arn)
            || names.contains(&g.name)
            || of.is_some_and(|of| balancer_of(elb, &g.arn) == Some(of))
    });
    let page = page(wanted, input.text("Marker"), size(input)?)?;
    Ok(
        json!({"TargetGroups": page.items.iter().map(|g| group(elb, g)).collect::<Vec<_>>(), "NextMarker": page.next}),
    )
}

/// `Attributes`.
pub fn attributes(attributes: &BTreeMap<String, String>) -> Value {
    attributes
        .iter()
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect()
}

/// DescribeTargetGroupAttributes.
pub fn group_attributes(world: &World, input: Input) -> Result<Value, AwsError> {
    let group = world
        .cloud
        .elb
        .groups
        .get(input.need("TargetGroupArn")?)
        .ok_or_else(no_group)?;
    Ok(json!({"Attributes": attributes(&group.attributes)}))
}

/// DescribeLoadBalancerAttributes.
pub fn balancer_attributes(world: &World, input: Input) -> Result<Value, AwsError> {
    let arn = input.need("LoadBalancerArn")?;
    let balancer = world
        .cloud
        .elb
        .balancers
        .get(arn)
        .ok_or_else(|| no_balancer(arn))?;
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
    Ok(json!({"Attributes": attributes(&all)}))
}

/// Refuses an ARN that names nothing, in the words for its kind.
pub fn check_exists(elb: &Elb, arn: &str) -> Result<(), AwsError> {
    let found = elb.balancers.contains_key(arn)
        || elb.listeners.contains_key(arn)
        || elb.rules.contains_key(arn)
        || elb.groups.contains_key(arn);
    if found {
        return Ok(());
    }
    Err(
        match arn.split(':').nth(5).unwrap_or_default().split('/').next() {
            Some("targetgroup") => no_group(),
            Some("listener") => no_listener(),
            Some("listener-rule") => no_rule(),
            Some(_) | None => no_balancer(arn),
        },
    )
}

/// DescribeTags: at most twenty ARNs a call.
pub fn tags(world: &World, input: Input) -> Result<Value, AwsError> {
    let arns = input.texts("ResourceArns");
    if arns.is_empty() || arns.len() > 20 {
        return Err(AwsError::validation(
            "1 validation error detected: Value at 'resourceArns' failed to satisfy constraint: Member must have length less than or equal to 20",
        ));
    }
    let mut shown = Vec::new();
    for arn in arns {
        check_exists(&world.cloud.elb, &arn)?;
        let tags = world
            .cloud
            .elb
            .tags
            .get(&arn)
            .map(attributes)
            .unwrap_or_else(|| json!([]));
        shown.push(json!({"ResourceArn": arn, "Tags": tags}));
    }
    Ok(json!({"TagDescriptions": shown}))
}
