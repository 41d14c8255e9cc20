//! What was not read, and what green does not join by itself.

use super::*;
use crate::model::elb::ClassicBalancer;
use crate::model::inventory::Unread;

#[test]
fn what_could_not_be_read_is_told_and_blocks_where_the_route_would_be_a_guess() {
    let unread = |op: &'static str| {
        move |i: &mut Inventory| {
            i.unread.push(Unread {
                op: op.to_owned(),
                why: "denied".to_owned(),
            });
        }
    };
    // What the route rests on where node groups move, whether or not the plan names rules.
    for op in [
        "list nodes",
        "list pods",
        "list poddisruptionbudgets",
        "eks:DescribeAddonVersions",
        "autoscaling:DescribeAutoScalingGroups",
        "elasticloadbalancing:DescribeLoadBalancers",
        "elasticloadbalancing:DescribeListeners",
        "elasticloadbalancing:DescribeRules",
        "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetGroupAttributes",
        "elasticloadbalancing:DescribeTargetHealth",
        "elasticloadbalancing:DescribeTags",
        "ec2:DescribeLaunchTemplateVersions",
        "list services",
        "list targetgroupbindings",
        "list persistentvolumes",
        "list volumeattachments",
        "list deployments",
        "list jobs",
        "eks:ListInsights",
    ] {
        for plan in [paired(""), plan("")] {
            only(
                &with(&plan, unread(op)),
                Code::Unread,
                Severity::Blocker,
                op,
            );
        }
    }
    // What the route does not rest on: a warning is enough.
    for op in [
        "eks:DescribeClusterVersions",
        "ec2:DescribeSubnets",
        "get /version",
    ] {
        only(
            &with(&paired(""), unread(op)),
            Code::Unread,
            Severity::Warning,
            op,
        );
    }
    // A plan whose insights do not block, and one that moves no node group.
    let warns = paired("controlPlane: {insights: warn}\n");
    let op = "eks:ListInsights";
    only(
        &with(&warns, unread(op)),
        Code::Unread,
        Severity::Warning,
        op,
    );
    let op = "elasticloadbalancing:DescribeTags";
    // Blue is at the target already, so no group moves.
    let still = |i: &mut Inventory| {
        i.nodegroups[0].version = Some(Minor::new(29));
        for node in &mut i.nodes {
            node.kubelet_version = "v1.29.0-eks".to_owned();
        }
        unread(op)(i);
    };
    only(&with(&plan(""), still), Code::Unread, Severity::Warning, op);
}

#[test]
fn a_classic_load_balancer_that_was_not_read_blocks_and_one_that_was_is_planned() {
    let attached = |i: &mut Inventory| {
        let asg = i.asgs.get_mut("eks-expense-blue").unwrap();
        asg.load_balancers.push("old".to_owned());
    };
    let name = "classic load balancer old";
    let unread = with(&paired(""), attached);
    only(&unread, Code::TargetGroupUnread, Severity::Blocker, name);
    let read = with(&paired(""), |i| {
        attached(i);
        i.classic_balancers.push(ClassicBalancer {
            name: "old".to_owned(),
            vpc: Some("vpc-1".to_owned()),
            zones: Vec::new(),
            instance_ports: vec![30080],
            tags: string_map([]),
        });
    });
    only(&read, Code::ClassicBalancer, Severity::Info, name);
}
