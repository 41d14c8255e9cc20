//! The IAM policy.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::run::permissions::actions::{NODE_ACCESS, STACK_DELETION};
use crate::run::permissions::needs::PermissionNeeds;

/// One statement: id, actions, resources, and what must hold besides.
struct IamStatement {
    sid: &'static str,
    actions: Vec<&'static str>,
    resources: Vec<String>,
    /// Test, key and value.
    condition: Option<(&'static str, &'static str, &'static str)>,
}

/// EKS's own objects of one cluster, or of all.
fn eks_arns(needs: &PermissionNeeds) -> Vec<String> {
    let name = needs.cluster.as_deref().unwrap_or("*");
    ["cluster", "nodegroup", "addon"]
        .iter()
        .map(|kind| match *kind {
            "cluster" => format!("arn:*:eks:*:*:cluster/{name}"),
            kind => format!("arn:*:eks:*:*:{kind}/{name}/*"),
        })
        .collect()
}

fn build_statements(needs: &PermissionNeeds) -> Vec<IamStatement> {
    let all = || vec!["*".to_owned()];
    // What every plan needs of EKS. A group is deleted only where the plan says so.
    let mut change = vec![
        "eks:UpdateClusterVersion",
        "eks:CreateNodegroup",
        "eks:UpdateNodegroupConfig",
        "eks:UpdateAddon",
        "eks:TagResource",
    ];
    if needs.delete_groups {
        change.push("eks:DeleteNodegroup");
    }
    let mut statements = vec![
        // Most of these actions know no resource-level permissions, so they are allowed on all resources.
        IamStatement {
            sid: "Read",
            actions: vec![
                "eks:DescribeClusterVersions",
                "eks:DescribeAddonVersions",
                "eks:DescribeAddonConfiguration",
                "ec2:DescribeSubnets",
                "ec2:DescribeInstances",
                "ec2:DescribeInstanceTypes",
                "ec2:DescribeInstanceTypeOfferings",
                "ec2:DescribeImages",
                "ec2:DescribeVolumes",
                "ec2:DescribeLaunchTemplateVersions",
                "autoscaling:DescribeAutoScalingGroups",
                "autoscaling:DescribeLaunchConfigurations",
                "autoscaling:DescribeLifecycleHooks",
                "autoscaling:DescribeNotificationConfigurations",
                "autoscaling:DescribePolicies",
                "autoscaling:DescribeScalingActivities",
                "autoscaling:DescribeScheduledActions",
                "autoscaling:DescribeWarmPool",
                "servicequotas:GetServiceQuota",
                "elasticloadbalancing:DescribeLoadBalancers",
                "elasticloadbalancing:DescribeListeners",
                "elasticloadbalancing:DescribeRules",
                "elasticloadbalancing:DescribeTargetGroups",
                "elasticloadbalancing:DescribeTargetGroupAttributes",
                "elasticloadbalancing:DescribeTargetHealth",
                "elasticloadbalancing:DescribeTags",
                "elasticloadbalancing:DescribeInstanceHealth",
            ],
            resources: all(),
            condition: None,
        },
        IamStatement {
            sid: "ReadCluster",
            actions: vec![
                "eks:DescribeCluster",
                "eks:DescribeUpdate",
                "eks:ListUpdates",
                "eks:ListInsights",
                "eks:DescribeInsight",
                "eks:StartInsightsRefresh",
                "eks:DescribeInsightsRefresh",
                "eks:ListNodegroups",
                "eks:DescribeNodegroup",
                "eks:ListAddons",
                "eks:DescribeAddon",
                "eks:ListFargateProfiles",
                "eks:ListPodIdentityAssociations",
            ],
            resources: eks_arns(needs),
            condition: None,
        },
        IamStatement {
            sid: "ChangeCluster",
            actions: change,
            resources: eks_arns(needs),
            condition: None,
        },
        // EKS looks at the nodes' role and at its own service-linked role with the caller's rights before it makes a node
        // group (IAM-2, IAM-3). Which role that is the cluster knows, not the plan.
        IamStatement {
            sid: "SeeRoles",
            actions: vec!["iam:GetRole", "iam:ListAttachedRolePolicies"],
            resources: vec!["arn:*:iam::*:role/*".to_owned()],
            condition: None,
        },
        // Green's nodes get blue's role (IAM-1), and an add-on keeps its own (IAM-9).
        IamStatement {
            sid: "PassRoles",
            actions: vec!["iam:PassRole"],
            resources: vec!["arn:*:iam::*:role/*".to_owned()],
            condition: Some((
                "StringEqualsIfExists",
                "iam:PassedToService",
                "eks.amazonaws.com",
            )),
        },
        // Names of Auto Scaling groups that EKS creates begin with `eks-`, so the others of the account stay closed.
        IamStatement {
            sid: "AutoScaling",
            actions: vec![
                "autoscaling:CreateOrUpdateTags",
                "autoscaling:DeleteTags",
                "autoscaling:SuspendProcesses",
                "autoscaling:ResumeProcesses",
                "autoscaling:AttachLoadBalancerTargetGroups",
                "autoscaling:DetachLoadBalancerTargetGroups",
                "autoscaling:AttachLoadBalancers",
                "autoscaling:DetachLoadBalancers",
            ],
            resources: [
                "arn:*:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/eks-*".to_owned(),
            ]
            .into_iter()
            .chain(needs.self_managed.iter().cloned())
            .collect(),
            condition: None,
        },
        // With a template EKS tries out the launch with the caller's rights (IAM-4), and whether a group has one is the
        // cluster's to say: eksctl and Terraform's module give every group one.
        IamStatement {
            sid: "TryOutTheLaunch",
            actions: vec!["ec2:RunInstances", "ec2:CreateTags"],
            resources: all(),
            condition: None,
        },
    ];
    if !needs.self_managed.is_empty() {
        statements.extend(self_managed_statements(needs));
    }
    // Which role green's nodes get, the cluster's launch templates say, and an entry's ARN ends with an id of EKS's own.
    if needs.reads_node_access {
        let cluster = needs.cluster.as_deref().unwrap_or("*");
        statements.push(IamStatement {
            sid: "ReadNodeAccess",
            actions: NODE_ACCESS.to_vec(),
            resources: vec![
                "arn:*:iam::*:instance-profile/*".to_owned(),
                format!("arn:*:eks:*:*:access-entry/{cluster}/*"),
            ],
            condition: None,
        });
    }
    // Each kind of write to load balancers has a statement of its own: a balancer may serve others than this cluster,
    // and the resources that a run changes are known better for some kinds than for others.
    if !needs.target_groups.is_empty() {
        statements.push(IamStatement {
            sid: "Targets",
            actions: vec![
                "elasticloadbalancing:RegisterTargets",
                "elasticloadbalancing:DeregisterTargets",
            ],
            resources: needs.target_groups.iter().cloned().collect(),
            condition: None,
        });
    }
    if !needs.classic_balancers.is_empty() {
        statements.push(IamStatement {
            sid: "ClassicInstances",
            actions: vec![
                "elasticloadbalancing:RegisterInstancesWithLoadBalancer",
                "elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
            ],
            resources: needs.classic_balancers.iter().cloned().collect(),
            condition: None,
        });
    }
    if !needs.rules.is_empty() {
        statements.push(IamStatement {
            sid: "Rules",
            actions: vec!["elasticloadbalancing:ModifyRule"],
            resources: needs.rules.iter().cloned().collect(),
            condition: None,
        });
    }
    if !needs.listeners.is_empty() {
        statements.push(IamStatement {
            sid: "Listeners",
            actions: vec!["elasticloadbalancing:ModifyListener"],
            resources: needs.listeners.iter().cloned().collect(),
            condition: None,
        });
    }
    // The plan does not name templates, and the policy can be written before any cluster is read: all of them are
    // allowed.
    if needs.template_versions {
        statements.push(IamStatement {
            sid: "LaunchTemplates",
            actions: vec!["ec2:CreateLaunchTemplateVersion"],
            resources: vec!["arn:*:ec2:*:*:launch-template/*".to_owned()],
            condition: None,
        });
    }
    // A launch template's id is known only when it is made, and reads of templates know no resources.
    if needs.configuration_templates {
        statements.push(IamStatement {
            sid: "ReadLaunchTemplates",
            actions: vec!["ec2:DescribeLaunchTemplates"],
            resources: all(),
            condition: None,
        });
        statements.push(IamStatement {
            sid: "TemplatesOfConfigurations",
            actions: vec!["ec2:CreateLaunchTemplate", "ec2:DeleteLaunchTemplate"],
            resources: vec!["arn:*:ec2:*:*:launch-template/*".to_owned()],
            condition: None,
        });
    }
    // CloudFormation deletes the group with the caller's rights, which other statements give. Which stacks import an export
    // is a question about no stack.
    if !needs.stacks.is_empty() {
        statements.push(IamStatement {
            sid: "Stacks",
            actions: STACK_DELETION.to_vec(),
            resources: needs.stacks.iter().cloned().collect(),
            condition: None,
        });
        statements.push(IamStatement {
            sid: "ReadStackImports",
            actions: vec!["cloudformation:ListImports"],
            resources: all(),
            condition: None,
        });
        // CloudFormation reads a stack's parameters of Parameter Store with the caller's rights (CFN-25).
        statements.push(IamStatement {
            sid: "ReadStackParameters",
            actions: vec!["ssm:GetParameters"],
            resources: vec!["arn:*:ssm:*:*:parameter/*".to_owned()],
            condition: None,
        });
    }
    // The plan names its topics, so this statement allows nothing else.
    if !needs.topics.is_empty() {
        statements.push(IamStatement {
            sid: "Notify",
            actions: vec!["sns:Publish"],
            resources: needs.topics.clone(),
            condition: None,
        });
    }
    statements
}

/// What self-managed groups need beside: nobody but the caller makes, resizes and deletes them.
fn self_managed_statements(needs: &PermissionNeeds) -> [IamStatement; 3] {
    [
        IamStatement {
            sid: "SelfManagedGroups",
            actions: vec![
                "autoscaling:CreateAutoScalingGroup",
                "autoscaling:UpdateAutoScalingGroup",
                "autoscaling:DeleteAutoScalingGroup",
                "autoscaling:SetInstanceProtection",
                "autoscaling:EnableMetricsCollection",
                "autoscaling:PutWarmPool",
                "autoscaling:DeleteWarmPool",
            ],
            resources: needs.self_managed.iter().cloned().collect(),
            condition: None,
        },
        // The launch template names the nodes' instance profile, and Auto Scaling launches with the caller's consent.
        IamStatement {
            sid: "PassInstanceRoles",
            actions: vec!["iam:PassRole"],
            resources: vec!["arn:*:iam::*:role/*".to_owned()],
            condition: Some((
                "StringEqualsIfExists",
                "iam:PassedToService",
                "ec2.amazonaws.com",
            )),
        },
        // With `ami: auto`: where AWS publishes its images.
        IamStatement {
            sid: "ReadImages",
            actions: vec!["ssm:GetParameter"],
            resources: vec!["arn:*:ssm:*:*:parameter/aws/service/*".to_owned()],
            condition: None,
        },
    ]
}

/// The policy as AWS takes it.
pub fn render_json(needs: &PermissionNeeds) -> String {
    let statements: Vec<Value> = build_statements(needs)
        .into_iter()
        .map(|s| {
            let mut value =
                json!({"Sid": s.sid, "Effect": "Allow", "Action": s.actions, "Resource": s.resources});
            if let Some((test, key, wanted)) = s.condition {
                value["Condition"] = json!({test: {key: wanted}});
            }
            value
        })
        .collect();
    let policy = json!({"Version": "2012-10-17", "Statement": statements});
    format!("{policy:#}\n")
}

/// The policy as a Terraform data source.
pub fn render_terraform(needs: &PermissionNeeds) -> String {
    let mut out = "data \"aws_iam_policy_document\" \"eksup\" {\n".to_owned();
    let list = |items: &[String]| {
        items
            .iter()
            .map(|i| format!("\"{i}\""))
            .collect::<Vec<_>>()
            .join(", ")
    };
    for s in build_statements(needs) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  statement {{\n    sid       = \"{}\"", s.sid);
        let _ = writeln!(out, "    actions   = [");
        for action in &s.actions {
            let _ = writeln!(out, "      \"{action}\",");
        }
        let _ = writeln!(out, "    ]\n    resources = [{}]", list(&s.resources));
        if let Some((test, key, wanted)) = s.condition {
            let _ = writeln!(
                out,
                "    condition {{\n      test     = \"{test}\"\n      variable = \"{key}\"\n      values   = [\"{wanted}\"]\n    }}"
            );
        }
        out += "  }\n";
    }
    out + "}\n"
}
