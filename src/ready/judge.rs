//! All judges over one case.

use super::case::{Case, Judge};
use super::codes::Code;
use super::workloads::name_workloads;
use super::{
    Finding, Severity, addons, autoscaler, budgets, cluster, losses, nodes, pods, replacements,
    sick, traffic, volumes, webhooks,
};
use crate::model::Inventory;
use crate::model::inventory::Unread;
use crate::plan::{Insights, Plan};
use crate::route::{Route, RouteProblem};

const JUDGES: &[Judge] = &[
    cluster::judge,
    nodes::judge,
    autoscaler::judge,
    addons::judge,
    budgets::judge,
    losses::judge,
    pods::judge,
    sick::judge,
    replacements::judge,
    volumes::judge,
    traffic::judge,
    webhooks::judge,
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
        name_workloads(inventory, &case.workloads, &mut findings);
    }
    findings.sort();
    findings.dedup();
    findings
}

/// A reading that failed is never silent, and never taken for an empty answer by what rests on it.
fn unread(case: &Case<'_>, out: &mut Vec<Finding>) {
    for Unread { op, why } in &case.inventory.unread {
        let finding = Finding::new(
            Code::Unread,
            op,
            why,
            "allow the call (`eksup policy` prints what is needed), or make sure by hand of what it would have said",
        );
        let rests = READINGS.iter().find(|r| r.is_of(op));
        out.push(match rests {
            Some(reading) if reading.blocks(case) => Finding {
                detail: format!("{why}. {} on it", reading.rests),
                fix: reading.fix().to_owned(),
                ..finding.weighing(Severity::Blocker)
            },
            Some(_) | None => finding.weighing(Severity::Warning),
        });
    }
}

/// When a plan cannot do without a reading.
#[derive(Clone, Copy)]
enum Needed {
    Always,
    /// Where node groups move.
    ToMoveNodes,
    /// Where the control plane moves and the plan lets an insight block.
    ForInsights,
}

/// A reading that something rests on. What is not in [`READINGS`] only warns: dates of support, Fargate profiles, free
/// addresses (EKS refuses by itself what does not fit), instances, what the API server says of its version.
struct Reading {
    /// The operation, or what it begins with.
    op: &'static str,
    needed: Needed,
    /// What rests, as the beginning of a sentence.
    rests: &'static str,
}

const fn reading(op: &'static str, needed: Needed, rests: &'static str) -> Reading {
    Reading { op, needed, rests }
}

/// `docs/findings.md` shows the same table.
const READINGS: &[Reading] = &[
    reading(
        "eks:DescribeNodegroup",
        Needed::Always,
        "The whole route rests",
    ),
    reading(
        "eks:ListNodegroups",
        Needed::Always,
        "The whole route rests",
    ),
    reading(
        "eks:DescribeAddon",
        Needed::Always,
        "The add-ons' order and versions rest",
    ),
    reading(
        "eks:ListAddons",
        Needed::Always,
        "The add-ons' order and versions rest",
    ),
    reading(
        "eks:DescribeAddonVersions",
        Needed::Always,
        "The add-ons' order and versions rest",
    ),
    // Asked for only where an add-on has a configuration.
    reading(
        "eks:DescribeAddonConfiguration",
        Needed::Always,
        "Whether add-ons' configuration suits their next versions rests",
    ),
    reading("list nodes", Needed::Always, "The whole route rests"),
    reading("list pods", Needed::Always, "The whole route rests"),
    reading(
        "list poddisruptionbudgets",
        Needed::Always,
        "What the drain may evict rests",
    ),
    reading(
        "list deployments",
        Needed::Always,
        "Add-ons that EKS does not manage, and the drain, rest",
    ),
    reading(
        "list daemonsets",
        Needed::Always,
        "Add-ons that EKS does not manage, and green's readiness, rest",
    ),
    reading(
        "autoscaling:DescribeAutoScalingGroups",
        Needed::Always,
        "Green's size and the target groups that it joins rest",
    ),
    reading(
        "elasticloadbalancing:",
        Needed::ToMoveNodes,
        "The target groups that green joins and blue leaves rest",
    ),
    reading(
        "ec2:DescribeLaunchTemplateVersions",
        Needed::ToMoveNodes,
        "Green's image and user data rest",
    ),
    reading(
        "list services",
        Needed::ToMoveNodes,
        "The order of traffic and drain rests",
    ),
    reading(
        "list targetgroupbindings",
        Needed::ToMoveNodes,
        "Which target groups may be edited rests",
    ),
    reading(
        "list persistentvolumes",
        Needed::ToMoveNodes,
        "The zones that green needs rest",
    ),
    reading(
        "list volumeattachments",
        Needed::ToMoveNodes,
        "The proof that blue is empty rests",
    ),
    reading("list replicasets", Needed::ToMoveNodes, "The drain rests"),
    reading("list statefulsets", Needed::ToMoveNodes, "The drain rests"),
    reading("list jobs", Needed::ToMoveNodes, "The drain rests"),
    reading(
        "eks:ListInsights",
        Needed::ForInsights,
        "Whether an insight blocks rests",
    ),
    reading(
        "eks:DescribeInsight",
        Needed::ForInsights,
        "Whether an insight blocks rests",
    ),
];

impl Reading {
    fn is_of(&self, op: &str) -> bool {
        let rest = op.strip_prefix(self.op);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || self.op.ends_with(':'))
    }

    fn blocks(&self, case: &Case<'_>) -> bool {
        match self.needed {
            Needed::Always => true,
            Needed::ToMoveNodes => !case.blues.is_empty(),
            Needed::ForInsights => {
                case.plan.control_plane.insights == Insights::Block
                    && case.minors().next().is_some()
            }
        }
    }

    fn fix(&self) -> &'static str {
        match self.needed {
            Needed::Always | Needed::ToMoveNodes => {
                "allow the call (`eksup policy` prints what is needed), then give the same command again"
            }
            Needed::ForInsights => {
                "allow the call (`eksup policy` prints what is needed), or set `controlPlane.insights: warn` in the plan"
            }
        }
    }
}
