//! Node groups and their greens: state, owners, addresses, and whether blue's pods fit.

use super::case::{Case, some};
use super::codes::Code;
use super::traffic::green_labels;
use super::{Finding, Severity, addresses, fit, image_fit, limits, operating_system, sick};
use crate::model::Minor;
use crate::plan::RetireHow;
use crate::route;

/// Judges node groups and nodes.
pub fn judge(case: &Case<'_>, out: &mut Vec<Finding>) {
    for name in &case.blues {
        let Some(group) = case.inventory.nodegroup(name) else {
            continue;
        };
        let subject = format!("node group {name}");
        match group.status.as_str() {
            "ACTIVE" => {}
            "DEGRADED" => {} // its health issues say why, below
            other => out.push(Finding::new(
                Code::GroupNotActive,
                &subject,
                format!("its status is {other}"),
                "wait until EKS says ACTIVE, or mend what failed",
            )),
        }
        for issue in &group.health {
            // Without nodes EKS does not look again, so that it stays so; and green, which is as empty, is not held up by it.
            let empty = group.scaling.desired == 0;
            let severity = if group.status == "DEGRADED" && !empty {
                Severity::Blocker
            } else {
                Severity::Warning
            };
            let detail = format!("{}: {}", issue.code, issue.message);
            let fix = if empty {
                "nothing to do for the upgrade: it has no nodes, and green is not asked to be better"
            } else {
                "fix it first: green is cloned from it"
            };
            let finding = Finding::new(Code::GroupHealth, &subject, detail, fix);
            out.push(finding.weighing(severity));
        }
        let consent = case.plan.node_group(name).delete_owned;
        if case.plan.retire.then == RetireHow::Delete
            && !consent
            && let Some(owner) = route::owner(group)
        {
            out.push(Finding::new(
                Code::GroupOwned,
                subject,
                format!("its tags say that {owner} owns it; deleting it behind its back leaves {owner} with a group that is not there, and green outside of it"),
                format!("set `deleteOwned: true` for it and bring {owner} up to date afterwards, or set `retire.then: keep-at-zero`"),
            ));
        }
    }
    sick::nodes(case, out);
    stays(case, out);
    others(case, out);
    addresses::judge(case, out);
    daemons(case, out);
    fit::judge(case, out);
    operating_system::judge(case, out);
    image_fit::judge(case, out);
    limits::judge(case, out);
}

/// Groups with an image of their own that the route leaves as they are.
fn stays(case: &Case<'_>, out: &mut Vec<Finding>) {
    for group in &case.inventory.nodegroups {
        let kubelet = route::oldest_kubelet(case.inventory, group);
        let left = case.route.is_some() && !case.blues.contains(group.name.as_str());
        if left && kubelet < case.plan.to && route::custom_image(case.inventory, group) {
            out.push(Finding::new(
                Code::ImageStays,
                format!("node group {}", group.name),
                format!("it has an image of its own and stays at kubelet {kubelet}"),
                "set `nodeGroups[].ami` or `launchTemplateVersion` for it to move it too",
            ));
        }
    }
}

fn others(case: &Case<'_>, out: &mut Vec<Finding>) {
    let mut own = Vec::new();
    let mut moving = Vec::new();
    let mut fargate = Vec::new();
    for node in &case.inventory.nodes {
        let old = Minor::from_reported(&node.kubelet_version).is_ok_and(|k| k < case.plan.to);
        let kind = node.labels.get("eks.amazonaws.com/compute-type");
        if node.nodegroup().is_some() || !old {
            continue;
        }
        if kind.is_some_and(|k| k == "fargate") {
            fargate.push(node.name.clone());
        } else if route::moves_itself(node) {
            moving.push(node.name.clone());
        } else {
            own.push(node.name.clone());
        }
    }
    let subject = format!("cluster {}", case.plan.cluster);
    if !own.is_empty() {
        out.push(Finding::new(
            Code::UnmanagedNodes,
            &subject,
            format!("{} stay as they are", some(&own)),
            "replace them yourself; they keep their access as long as their IAM role is mapped, and green keeps blue's role in use",
        ));
    }
    if !fargate.is_empty() {
        out.push(Finding::new(
            Code::Fargate,
            &subject,
            format!("{} keep their kubelet", some(&fargate)),
            "restart these workloads after the upgrade: new pods come up with the cluster's version",
        ));
    }
    if !moving.is_empty() {
        out.push(Finding::new(
            Code::SelfMoving,
            &subject,
            format!("{} are replaced by whoever runs them once the control plane moves, at the same time as this upgrade", some(&moving)),
            "set disruption budgets on the NodePools if that is too much at once",
        ));
    }
}

fn daemons(case: &Case<'_>, out: &mut Vec<Finding>) {
    for daemon in case
        .inventory
        .workloads
        .iter()
        .filter(|w| w.kind == "DaemonSet" && !w.node_selector.is_empty())
    {
        for change in &case.changes {
            let labels = green_labels(change);
            let blue = case.inventory.nodes_of(&change.blue.name).any(|n| {
                daemon
                    .node_selector
                    .iter()
                    .all(|(k, v)| n.labels.get(k) == Some(v))
            });
            let lost: Vec<String> = daemon
                .node_selector
                .iter()
                .filter(|(k, v)| !given_by_cluster(k) && labels.get(*k) != Some(v))
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            if blue && !lost.is_empty() {
                out.push(Finding::new(
                    Code::DaemonOnBlueOnly,
                    format!("DaemonSet {}", daemon.key),
                    format!(
                        "it selects {}, which nodes of {} do not have",
                        lost.join(", "),
                        change.green.name
                    ),
                    "set the label under `nodeGroups[].labels`, or widen its nodeSelector",
                ));
            }
        }
    }
}

/// Labels that kubelets and cloud controllers set, much the same on green as on blue.
pub fn given_by_cluster(key: &str) -> bool {
    key != "kubernetes.io/hostname"
        && (key.starts_with("kubernetes.io/")
            || key.starts_with("beta.kubernetes.io/")
            || key.starts_with("topology.")
            || key.starts_with("failure-domain.")
            || key.starts_with("node.kubernetes.io/")
            || key == "eks.amazonaws.com/capacityType")
}
