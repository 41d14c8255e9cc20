//! All judges over one case.

use super::case::{Case, Judge};
use super::codes::Code;
use super::{Finding, Severity, addons, autoscaler, budgets, cluster, nodes, pods, traffic};
use crate::model::Inventory;
use crate::model::inventory::Unread;
use crate::plan::Plan;
use crate::route::{Route, RouteProblem};

const JUDGES: &[Judge] = &[
    cluster::judge,
    nodes::judge,
    autoscaler::judge,
    addons::judge,
    budgets::judge,
    pods::judge,
    traffic::judge,
    unread,
];

/// Everything a reader should know before the upgrade starts, the heaviest first. Pure.
pub fn judge(
    plan: &Plan,
    inventory: &Inventory,
    route: &Result<Route, Vec<RouteProblem>>,
) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for problem in route.as_ref().err().into_iter().flatten() {
        findings.push(Finding {
            severity: Severity::Blocker,
            code: problem.what.code().to_owned(),
            subject: problem.subject.clone(),
            detail: problem.detail.clone(),
            fix: problem.fix.clone(),
        });
    }
    // A route without steps changes nothing: there is nothing to be ready for.
    if !route.as_ref().is_ok_and(|r| r.steps.is_empty()) {
        let case = Case::new(plan, inventory, route.as_ref().ok());
        for judge in JUDGES {
            judge(&case, &mut findings);
        }
    }
    findings.sort();
    findings.dedup();
    findings
}

/// A reading that failed is never silent.
fn unread(case: &Case<'_>, out: &mut Vec<Finding>) {
    for Unread { op, why } in &case.inventory.unread {
        let finding = Finding::new(
            Code::Unread,
            op,
            why,
            "allow the call (`eksup policy` prints what is needed), or make sure by hand of what it would have said",
        );
        let severity = if essential(case, op) {
            Severity::Blocker
        } else {
            Severity::Warning
        };
        out.push(finding.weighing(severity));
    }
}

/// Without these the route itself would be a guess.
fn essential(case: &Case<'_>, op: &str) -> bool {
    const ALWAYS: &[&str] = &[
        "eks:DescribeNodegroup",
        "eks:ListNodegroups",
        "eks:DescribeAddon",
        "eks:ListAddons",
        "eks:DescribeAddonVersions",
        "autoscaling:DescribeAutoScalingGroups",
        "list nodes",
        "list pods",
        "list poddisruptionbudgets",
    ];
    let traffic = !case.plan.traffic.routes.is_empty() && op.starts_with("elasticloadbalancing:");
    ALWAYS
        .iter()
        .any(|a| op == *a || op.starts_with(&format!("{a}.")))
        || traffic
}
