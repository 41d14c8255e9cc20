//! What Elastic Load Balancing says of load balancers, listeners, rules and target groups.

use super::aws_status::TargetState;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A load balancer of the second API, as DescribeLoadBalancers answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LoadBalancer {
    pub arn: String,
    pub name: String,
    /// application, network or gateway.
    pub kind: String,
    pub dns_name: Option<String>,
    pub vpc: Option<String>,
    pub zones: Vec<String>,
    pub tags: BTreeMap<String, String>,
}

/// DescribeListeners, one listener. Its default action is in [`ListenerRule`] form, with `is_default`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listener {
    pub arn: String,
    pub load_balancer: String,
    pub port: Option<i32>,
    pub protocol: Option<String>,
    pub tags: BTreeMap<String, String>,
}

/// DescribeRules, one rule; for a network load balancer the listener's default action stands as a default rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListenerRule {
    /// For a network load balancer's default action: the listener's ARN.
    pub arn: String,
    pub listener: String,
    /// `default` or a number.
    pub priority: String,
    pub is_default: bool,
    /// Conditions as text, such as `path-pattern=/api/*`, for people and for matching a plan.
    pub conditions: Vec<String>,
    /// Where the rule forwards to, with weights; a single target group has weight 1 unless it says otherwise.
    pub forward: Vec<WeightedTargetGroup>,
    /// Whether the rule's target-group stickiness is on, and for how many seconds.
    pub stickiness_seconds: Option<i32>,
    /// Everything that a change of weights must leave as it is: `{"Conditions": [...], "Actions": [...],
    /// "Transforms": [...]}` as AWS spells them, with the forward action's `TargetGroups` emptied and its
    /// `TargetGroupArn` left out. What differs after a write was not preserved.
    pub rest: Value,
    pub tags: BTreeMap<String, String>,
}

/// A target group's share in a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WeightedTargetGroup {
    pub arn: String,
    pub weight: i32,
}

/// DescribeTargetGroups, one target group, with its attributes and tags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TargetGroup {
    pub arn: String,
    pub name: String,
    pub protocol: Option<String>,
    pub port: Option<i32>,
    /// instance, ip, lambda or alb.
    pub target_type: String,
    pub vpc: Option<String>,
    pub load_balancers: Vec<String>,
    pub health_check_interval_seconds: i32,
    pub healthy_threshold: i32,
    pub unhealthy_threshold: i32,
    /// `deregistration_delay.timeout_seconds`, 300 when unset.
    pub deregistration_delay_seconds: i32,
    /// `stickiness.enabled` of the target group itself.
    pub sticky: bool,
    pub tags: BTreeMap<String, String>,
}

/// One target of a target group and its health, as DescribeTargetHealth answers it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TargetHealth {
    pub id: String,
    pub port: Option<i32>,
    pub zone: Option<String>,
    /// initial healthy unhealthy unused draining unavailable unhealthy.draining.
    pub state: TargetState,
    pub reason: Option<String>,
}

/// An instance as it is registered in a target group: the same instance may be there at several ports, and is deregistered
/// at the port at which it was registered (ELB-15).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisteredTarget {
    pub instance: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

impl RegisteredTarget {
    /// Returns the instance and port by which `target` is registered.
    pub fn of_target(target: &TargetHealth) -> Self {
        Self {
            instance: target.id.clone(),
            port: target.port,
        }
    }
}

/// A classic load balancer, which only the older API knows. It has no ARN: its name tells it apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClassicBalancer {
    pub name: String,
    pub vpc: Option<String>,
    pub zones: Vec<String>,
    /// The ports of instances that its listeners send traffic to.
    pub instance_ports: Vec<i32>,
    pub tags: BTreeMap<String, String>,
}

/// Whether what instances serve is a classic load balancer, given by its name; target groups are given by ARN.
pub fn is_classic(served: &str) -> bool {
    !served.starts_with("arn:")
}

/// What instances serve, for people: `target group web` or `classic load balancer web`.
pub fn served_text(served: &str) -> String {
    match is_classic(served) {
        true => format!("classic load balancer {served}"),
        false => format!("target group {}", short_name(served)),
    }
}

/// Tag keys that say a load balancer controller owns the object and will write it back: those of the AWS Load Balancer
/// Controller (LBC-1), of EKS Auto Mode (LBC-8) and of the cloud provider (LBC-7).
pub const CONTROLLER_TAGS: &[&str] = &[
    "elbv2.k8s.aws/cluster",
    "ingress.k8s.aws/cluster",
    "ingress.k8s.aws/stack",
    "service.k8s.aws/stack",
    "gateway.k8s.aws/stack",
    "ingress.eks.amazonaws.com/stack",
    "ingress.eks.amazonaws.com/resource",
    "service.eks.amazonaws.com/stack",
    "service.eks.amazonaws.com/resource",
    "kubernetes.io/service-name",
    "kubernetes.io/ingress-name",
];

/// Whether the tags only say that the object belongs to a cluster: a controller's objects have such tags, and so can those
/// of somebody who tags all that a cluster uses.
pub fn cluster_owned(tags: &BTreeMap<String, String>) -> bool {
    let owned = |(key, value): (&String, &String)| {
        key == "eks:eks-cluster-name"
            || (key.starts_with("kubernetes.io/cluster/") && value == "owned")
    };
    tags.iter().any(owned)
}

/// Whether the tags are those of a load balancer controller.
pub fn controller_owned(tags: &BTreeMap<String, String>) -> bool {
    tags.keys()
        .any(|k| CONTROLLER_TAGS.contains(&k.as_str()) || k.starts_with("gateway.k8s.aws"))
}

/// The name in a target group's or load balancer's ARN, for people.
pub fn short_name(arn: &str) -> &str {
    let after = |kind: &str| arn.split(kind).nth(1);
    let rest = after(":targetgroup/")
        .or_else(|| after(":loadbalancer/app/"))
        .or_else(|| after(":loadbalancer/net/"));
    rest.and_then(|rest| rest.split('/').next()).unwrap_or(arn)
}

/// A rule's or listener's ARN cut to what tells it apart: the load balancer's name and its own id.
pub fn short_rule(arn: &str) -> String {
    let mut parts = arn.split('/');
    let name = parts.nth(2);
    match (name, parts.next_back()) {
        (Some(name), Some(id)) => format!("{name}/{id}"),
        _ => arn.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_are_cut_to_what_tells_them_apart() {
        let base = "arn:aws:elasticloadbalancing:us-east-1:123456789012";
        assert_eq!(
            short_name(&format!(
                "{base}:targetgroup/expense-blue-tg/f059f255316f351e"
            )),
            "expense-blue-tg"
        );
        assert_eq!(
            short_name(&format!("{base}:loadbalancer/app/web/09e6")),
            "web"
        );
        assert_eq!(
            short_rule(&format!("{base}:listener-rule/app/web/09e6/1a5a/77d8")),
            "web/77d8"
        );
        assert_eq!(short_rule("odd"), "odd");
    }
}
