//! Actions that go together.

use crate::model::elb::is_classic;

/// What changes the template of a stack and deletes the stack.
pub const STACK_DELETION: [&str; 8] = [
    "cloudformation:DescribeStacks",
    "cloudformation:ListStackResources",
    "cloudformation:GetTemplate",
    "cloudformation:CreateChangeSet",
    "cloudformation:DescribeChangeSet",
    "cloudformation:ExecuteChangeSet",
    "cloudformation:DeleteChangeSet",
    "cloudformation:DeleteStack",
];

/// What tells whether the nodes of an instance profile may join.
pub const NODE_ACCESS: [&str; 2] = ["iam:GetInstanceProfile", "eks:DescribeAccessEntry"];

/// What makes a self-managed green, and in a rollback ends it.
pub const SELF_MANAGED_GREEN: [&str; 6] = [
    "autoscaling:CreateAutoScalingGroup",
    "autoscaling:CreateOrUpdateTags",
    "autoscaling:EnableMetricsCollection",
    "autoscaling:UpdateAutoScalingGroup",
    "autoscaling:SetInstanceProtection",
    "autoscaling:DeleteAutoScalingGroup",
];

/// What attaches an Auto Scaling group, and detaches it.
pub fn attach_actions(served: &str) -> [&'static str; 2] {
    match is_classic(served) {
        true => [
            "autoscaling:AttachLoadBalancers",
            "autoscaling:DetachLoadBalancers",
        ],
        false => [
            "autoscaling:AttachLoadBalancerTargetGroups",
            "autoscaling:DetachLoadBalancerTargetGroups",
        ],
    }
}

/// What registers instances one by one, and deregisters them.
pub fn register_actions(served: &str) -> [&'static str; 2] {
    match is_classic(served) {
        true => [
            "elasticloadbalancing:RegisterInstancesWithLoadBalancer",
            "elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
        ],
        false => [
            "elasticloadbalancing:RegisterTargets",
            "elasticloadbalancing:DeregisterTargets",
        ],
    }
}
