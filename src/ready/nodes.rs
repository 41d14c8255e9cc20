//! Node groups and their greens: state, owners, addresses, and whether blue's pods fit.

use super::codes::Code;
use super::input::{ReadinessInput, name_some};
use super::placement::{self, NodeRequirements};
use super::{
    Finding, Severity, addresses, capacity_fit, green_nodes, image_fit, limits, operating_system,
    stacks, unhealthy, warm_pools,
};
use crate::model::Minor;
use crate::model::aws_status::NodegroupStatus;
use crate::model::eks::Nodegroup;
use crate::model::group_owner::GroupOwner;
use crate::model::inventory::Unread;
use crate::model::kube::{Node, Taint};
use crate::model::node_pool::pool_of;
use crate::model::node_source::NodeSource;
use crate::plan::{AutoModeNodes, FargatePods, PoolStrategy, RetireHow};
use crate::route;
use crate::scheduling::{reserved_labels, tolerations};

/// Judges node groups and nodes.
pub fn check_node_groups(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for name in &case.blues {
        let Some(group) = case.inventory.find_nodegroup(name) else {
            continue;
        };
        let subject = format!("{} {name}", group.source.group_words());
        // EKS refuses to change or delete a group while another change of it is in progress.
        match &group.status {
            NodegroupStatus::Active => {}
            NodegroupStatus::Degraded => {} // its health issues say why, below
            other @ (NodegroupStatus::Creating
            | NodegroupStatus::Updating
            | NodegroupStatus::Deleting
            | NodegroupStatus::CreateFailed
            | NodegroupStatus::DeleteFailed
            | NodegroupStatus::Other(_)) => out.push(Finding::new(
                Code::GroupNotActive,
                &subject,
                format!("its status is {other}"),
                "wait until its status is ACTIVE, or fix what failed",
            )),
        }
        // What keeps a clone of it from working, then what keeps it from being deleted.
        check_self_managed(case, group, out);
        warm_pools::check_warm_pool(case, group, out);
        health(case, group, &subject, out);
        subnets(case, group, &subject, out);
        // A tool that owns blue would create it again, or fail at its next run, if eksup deleted it.
        let consent = case.plan.node_group(name).delete_owned.is_consent();
        if case.plan.retire.then == RetireHow::Delete
            && !consent
            && let Some(owner) = GroupOwner::from_tags(&group.tags)
        {
            let (owner, in_stack) = (owner.tool, owner.stack().is_some());
            out.push(Finding::new(
                Code::GroupOwned,
                subject,
                format!("its tags say that {owner} owns it. If eksup deletes it, {owner} still expects this group and \
                     does not know green"),
                format!("set `deleteOwned: true` for the group and tell {owner} after the upgrade, as `eksup handback` prints it{}; \
                     or set `retire.then: keep-at-zero`", match in_stack { true => ", or `deleteOwned: stack` where CloudFormation made it for this group alone", false => "" }),
            ));
        }
    }
    // Nodes and groups beside those that move, then whether green can take blue's place.
    unhealthy::check_unready_nodes(case, out);
    check_unmoved_groups(case, out);
    check_other_nodes(case, out);
    stacks::check_stacks(case, out);
    addresses::check_addresses(case, out);
    check_daemon_sets(case, out);
    check_taints(case, out);
    capacity_fit::check_capacity(case, out);
    operating_system::check_operating_systems(case, out);
    image_fit::check_images(case, out);
    limits::check_quotas(case, out);
}

/// What EKS says is wrong with a group.
fn health(case: &ReadinessInput<'_>, group: &Nodegroup, subject: &str, out: &mut Vec<Finding>) {
    let degraded = group.status == NodegroupStatus::Degraded;
    // Without nodes EKS does not look again, so that it stays so; and green, which is as empty, is not held up by it.
    let empty = group.scaling.desired == 0;
    let accepted = case.plan.node_group(&group.name).accept_degraded;
    let (severity, fix) = match (degraded, empty) {
        (_, true) => (
            Severity::Warning,
            "nothing to do: the group has no nodes, and green does not have to be healthier than blue",
        ),
        (true, false) if accepted => (
            Severity::Warning,
            "nothing to do: the plan has `acceptDegraded: true`, and green does not have to be healthier than blue",
        ),
        (true, false) => (
            Severity::Blocker,
            "fix it before the upgrade: green is cloned from it, and what stops blue from launching nodes stops green \
             too. If the cause is gone (EKS checks again only when the group launches a node), set `acceptDegraded: true` \
             for the group under `nodeGroups`",
        ),
        (false, false) => (
            Severity::Warning,
            "fix it before the upgrade: green is cloned from it",
        ),
    };
    // Each issue by itself, with EKS's code, which is what its documentation explains.
    let mut details: Vec<String> = group
        .health
        .iter()
        .map(|issue| format!("{}: {}", issue.code, issue.message))
        .collect();
    if details.is_empty() && degraded {
        details.push("its status is DEGRADED, and EKS gives no reason".to_owned());
    }
    for detail in details {
        out.push(Finding::new(Code::GroupHealth, subject, detail, fix).with_severity(severity));
    }
}

/// Subnets of a group that are not there any more.
fn subnets(case: &ReadinessInput<'_>, group: &Nodegroup, subject: &str, out: &mut Vec<Finding>) {
    let inventory = case.inventory;
    let unread = |u: &Unread| u.op.starts_with("ec2:DescribeSubnets");
    // Where subnets could not be read, none of them is known to be gone.
    if inventory.unread.iter().any(unread) {
        return;
    }
    let there = |id: &String| inventory.subnets.iter().any(|s| s.id == *id);
    let gone: Vec<&str> = group
        .subnets
        .iter()
        .filter(|id| !there(id))
        .map(String::as_str)
        .collect();
    if gone.is_empty() {
        return;
    }
    out.push(Finding::new(
        Code::SubnetGone,
        subject,
        format!(
            "{} of its subnets do not exist: {}. Green is created in blue's subnets, and EKS refuses a node group in a \
             subnet that does not exist",
            gone.len(),
            gone.join(", ")
        ),
        "the subnets of a node group cannot be changed: replace this group by hand with one in subnets that exist, or leave it out of \
         `nodeGroups`",
    ));
}

/// What of a self-managed blue keeps it from being emptied and deleted.
fn check_self_managed(case: &ReadinessInput<'_>, group: &Nodegroup, out: &mut Vec<Finding>) {
    if group.source.is_managed() {
        return;
    }
    let Some(asg) = case.inventory.asgs.get(&group.name) else {
        return;
    };
    let name = &group.name;
    let mut told = |detail: &str, fix: String| {
        let subject = format!("Auto Scaling group {name}");
        out.push(Finding::new(Code::CannotBeEmptied, subject, detail, fix));
    };
    if asg.suspended.iter().any(|p| p == "Terminate") {
        told(
            "its process Terminate is suspended, so it would not end its instances when it is scaled to zero",
            format!(
                "resume it: `aws autoscaling resume-processes --auto-scaling-group-name {name} --scaling-processes Terminate`"
            ),
        );
    }
    if case.plan.retire.then == RetireHow::Delete && asg.deletion_protected {
        told(
            "its deletion protection refuses its deletion",
            format!(
                "switch it off (`aws autoscaling update-auto-scaling-group --auto-scaling-group-name {name} --deletion-protection none`), or set `retire.then: keep-at-zero`"
            ),
        );
    }
}

/// Groups with a custom AMI that the route leaves as they are.
fn check_unmoved_groups(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for group in &case.inventory.nodegroups {
        let kubelet = route::oldest_kubelet(case.inventory, group);
        let left = case.route.is_some() && !case.blues.contains(group.name.as_str());
        if left && kubelet < case.plan.to && route::has_custom_image(case.inventory, group) {
            out.push(Finding::new(
                Code::ImageStays,
                format!("{} {}", group.source.group_words(), group.name),
                format!("it has a custom AMI and stays at kubelet {kubelet}"),
                match group.source {
                    NodeSource::ManagedGroup => {
                        "to upgrade it too, set `nodeGroups[].ami` or `launchTemplateVersion` for it"
                    }
                    NodeSource::AutoScalingGroup => {
                        "to upgrade it too, list it under `autoScalingGroups`, with `ami: auto` or an image"
                    }
                    NodeSource::NodePool => "to upgrade it too, list it under `karpenter`",
                },
            ));
        }
    }
}

fn check_other_nodes(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let mut own = Vec::new();
    let mut moving = Vec::new();
    let mut fargate = Vec::new();
    let mut hybrid = Vec::new();
    // Old nodes of no managed group: who replaces them decides what there is to do.
    for node in &case.inventory.nodes {
        // A kubelet that tells no version may be old.
        let old = !Minor::from_reported(&node.kubelet_version).is_ok_and(|k| k >= case.plan.to);
        let grouped = node.nodegroup_name().or(case.inventory.pool_group_of(node));
        if grouped.is_some() || !old {
            continue;
        }
        // A Fargate pod is a node of its own, and its kubelet is that of the day on which it was created.
        if node.is_fargate() {
            if case.plan.fargate == FargatePods::Leave {
                fargate.push(node.name.clone());
            }
        } else if route::is_replaced_by_provisioner(node) {
            if is_left_to_provisioner(case, node) {
                moving.push(node.name.clone());
            }
        } else if node.is_hybrid() {
            hybrid.push(node.name.clone());
        } else {
            own.push(node.name.clone());
        }
    }
    let subject = format!("cluster {}", case.plan.cluster);
    // Nobody replaces these, and EKS's skew insight counts them as well.
    if !own.is_empty() {
        out.push(Finding::new(
            Code::UnmanagedNodes,
            &subject,
            format!("{} belong to no managed node group, so eksup does not replace them", name_some(&own)),
            "replace them by hand. They have access to the cluster as long as their IAM role is mapped; green uses blue's \
             role too, so EKS keeps its mapping",
        ));
    }
    if !hybrid.is_empty() {
        out.push(Finding::new(
            Code::UnmanagedNodes,
            &subject,
            format!("{} are hybrid nodes, which stand outside AWS: eksup does not replace them", name_some(&hybrid)),
            format!("after the upgrade run `nodeadm upgrade {} --config-source file://NODECONFIG` on each, one after another", case.plan.to),
        ));
    }
    if !fargate.is_empty() {
        out.push(Finding::new(
            Code::Fargate,
            &subject,
            format!(
                "{} keep their kubelet version until their pods are recreated",
                name_some(&fargate)
            ),
            "restart these workloads after the upgrade, or write `fargate: restart`: new Fargate pods get the cluster's version",
        ));
    }
    // Two replacements at a time take nodes from the same workloads, and only budgets hold both back.
    if !moving.is_empty() {
        out.push(Finding::new(
            Code::SelfMoving,
            &subject,
            format!("Karpenter or Auto Mode replaces {} after the control plane is upgraded, at the same time as this \
                 upgrade replaces node groups", name_some(&moving)),
            "set disruption budgets on the NodePools if these are too many nodes at the same time; or list the NodePools under `karpenter`, and the run holds them and lets them go one by one",
        ));
    }
}

/// Whether the plan leaves a node of Karpenter or Auto Mode to them, or could not read whose it is.
fn is_left_to_provisioner(case: &ReadinessInput<'_>, node: &Node) -> bool {
    if node.is_auto_mode() {
        return case.plan.auto_mode == AutoModeNodes::Leave;
    }
    let read = case.inventory.karpenter.as_ref();
    let pool = pool_of(node).filter(|name| read.is_some_and(|k| k.find_pool(name).is_some()));
    let entry = pool.and_then(|name| case.plan.karpenter_pool(name));
    entry.is_none_or(|entry| entry.strategy == PoolStrategy::Leave)
}

/// DaemonSets that run on blue and will not run on green.
fn check_daemon_sets(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let greens = placement::green_candidates(case);
    let sets = case.inventory.workloads.iter();
    for daemon in sets.filter(|w| w.kind == "DaemonSet") {
        let wants = NodeRequirements {
            node_selector: &daemon.node_selector,
            affinity: daemon.template.scheduling.node_affinity.as_ref(),
            tolerations: &daemon.tolerations,
        };
        let tolerates = |node: &Node| {
            tolerations::first_untolerated_by_daemon(&node.taints, &daemon.tolerations).is_none()
        };
        for (change, green) in case.changes.iter().zip(&greens) {
            // It runs on blue, and no kind of node that green may have suits it.
            let mut blue = case.inventory.nodes_of(&change.blue.name);
            let on_blue = blue.any(|n| wants.missing_on(n).is_empty() && tolerates(n));
            let belongs = |n: &Node| wants.missing_on(n).is_empty() && tolerates(n);
            if !on_blue || green.kinds.iter().any(belongs) {
                continue;
            }
            // The kind of node that lacks least tells best what to change.
            let least = green.kinds.iter().map(|n| (wants.missing_on(n), n));
            let Some((lacks, node)) = least.min_by_key(|(lacks, _)| lacks.len()) else {
                continue;
            };
            let subject = format!("DaemonSet {}", daemon.key);
            // Its selector is met, so that a taint keeps it off.
            if lacks.is_empty() {
                let taint =
                    tolerations::first_untolerated_by_daemon(&node.taints, &daemon.tolerations);
                let key = taint.map(|t| t.key.as_str()).unwrap_or_default();
                out.push(Finding::new(
                    Code::DaemonOnBlueOnly,
                    subject,
                    format!(
                        "nodes of {} have the taint {key}, which it does not tolerate",
                        green.name
                    ),
                    "add a toleration to it, or take the taint out of the plan",
                ));
                continue;
            }
            let texts: Vec<&str> = lacks.iter().map(|l| l.text.as_str()).collect();
            let keys: Vec<&str> = lacks.iter().map(|l| l.key.as_str()).collect();
            out.push(Finding::new(
                Code::DaemonOnBlueOnly,
                subject,
                format!(
                    "it requires {}, which no node of {} has",
                    texts.join(", "),
                    green.name
                ),
                placement::suggest_label_fix(&keys, green.registration_known),
            ));
        }
    }
}

/// Taints that blue's nodes have and green's will not.
fn check_taints(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for change in &case.changes {
        // Green's taints come from the group and from user data, which may not have been read.
        let registered = green_nodes::green_registration(case, change);
        let known = registered.is_some();
        let registered = registered.unwrap_or_default().taints;
        let given = change
            .green
            .taints
            .iter()
            .map(green_nodes::to_kubernetes_taint);
        let given: Vec<Taint> = given.chain(registered).collect();
        let lost = route::taints_beside_group(case.inventory, change.blue);
        // Compared with key, value and effect: another effect keeps other pods away.
        let lost: Vec<Taint> = lost.into_iter().filter(|t| !given.contains(t)).collect();
        if lost.is_empty() {
            continue;
        }
        let texts = lost.iter().map(|t| {
            let value = t.value.as_ref().map(|v| format!("={v}"));
            format!("{}{}:{}", t.key, value.unwrap_or_default(), t.effect)
        });
        let texts: Vec<String> = texts.collect();
        let mut detail = format!(
            "its nodes have {}, which the node group does not set: nodes of {} will not have it, and will take pods that \
             it keeps away",
            texts.join(", "),
            change.green.name
        );
        if !known {
            detail += ", unless the launch template's user data sets it, which could not be read";
        }
        // A taint that a node group may not have cannot simply be set in the plan.
        let refused = lost
            .iter()
            .any(|t| reserved_labels::is_reserved_domain(&t.key));
        let fix = if refused {
            "EKS accepts no taint of that domain for a node group: use a key of your own, set it under \
             `nodeGroups[].taints`, and add a toleration to the pods"
        } else {
            "if green's nodes need it too, set it under `nodeGroups[].taints`"
        };
        out.push(Finding::new(
            Code::HandMadeTaint,
            change.blue_words(),
            detail,
            fix,
        ));
    }
}
