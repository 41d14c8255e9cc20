//! All judges over one case.

use super::codes::Code;
use super::input::{ReadinessCheck, ReadinessInput};
use super::workloads::name_workloads;
use super::{
    Finding, Severity, addons, admission, autoscaler, budgets, cluster, losses, nodes, pods,
    quotas, replacements, traffic, unhealthy, volumes, webhooks,
};
use crate::model::Inventory;
use crate::model::inventory::Unread;
use crate::plan::{Insights, Plan};
use crate::route::{Route, RouteProblem};

const READINESS_CHECKS: &[ReadinessCheck] = &[
    cluster::check_control_plane,
    nodes::check_node_groups,
    autoscaler::check_autoscalers,
    addons::check_addons,
    budgets::check_budgets,
    losses::check_losses,
    pods::check_pods,
    unhealthy::check_unhealthy,
    replacements::check_replacements,
    admission::check_admission,
    quotas::check_quotas,
    volumes::check_volumes,
    traffic::check_traffic,
    webhooks::check_webhooks,
    report_unread,
];

/// Everything a reader should know before the upgrade starts, the heaviest first. Pure.
pub fn check_readiness(
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
        let case = ReadinessInput::new(plan, inventory, route.as_ref().ok());
        for judge in READINESS_CHECKS {
            judge(&case, &mut findings);
        }
        name_workloads(inventory, &case.workloads, &mut findings);
    }
    findings.sort();
    findings.dedup();
    findings
}

/// A reading that failed is never silent, and never taken for an empty answer by what rests on it.
fn report_unread(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for Unread { op, why } in &case.inventory.unread {
        let finding = Finding::new(
            Code::Unread,
            op,
            why,
            "allow the call (`eksup policy` prints what is needed), or make sure by hand of what it would have said",
        );
        let rests = REQUIRED_READINGS.iter().find(|r| r.is_of(op));
        out.push(match rests {
            Some(reading) if reading.is_blocking(case) => Finding {
                detail: format!("{why}. {} on it", reading.rests),
                fix: reading.fix_text().to_owned(),
                ..finding.with_severity(Severity::Blocker)
            },
            Some(_) | None => finding.with_severity(Severity::Warning),
        });
    }
}

/// When a plan cannot do without a reading.
#[derive(Clone, Copy)]
enum ReadingNeed {
    Always,
    /// Where node groups move.
    ToMoveNodes,
    /// Where the control plane moves and the plan lets an insight block.
    ForInsights,
}

/// A reading that something rests on. What is not in [`REQUIRED_READINGS`] only warns: dates of support, Fargate profiles, free
/// addresses (EKS refuses by itself what does not fit), instances, what the API server says of its version.
struct RequiredReading {
    /// The operation, or what it begins with.
    op: &'static str,
    needed: ReadingNeed,
    /// What rests, as the beginning of a sentence.
    rests: &'static str,
}

const fn required_reading(
    op: &'static str,
    needed: ReadingNeed,
    rests: &'static str,
) -> RequiredReading {
    RequiredReading { op, needed, rests }
}

/// `docs/findings.md` shows the same table.
const REQUIRED_READINGS: &[RequiredReading] = &[
    required_reading(
        "eks:DescribeNodegroup",
        ReadingNeed::Always,
        "The whole route rests",
    ),
    required_reading(
        "eks:ListNodegroups",
        ReadingNeed::Always,
        "The whole route rests",
    ),
    required_reading(
        "eks:DescribeAddon",
        ReadingNeed::Always,
        "The add-ons' order and versions rest",
    ),
    required_reading(
        "eks:ListAddons",
        ReadingNeed::Always,
        "The add-ons' order and versions rest",
    ),
    required_reading(
        "eks:DescribeAddonVersions",
        ReadingNeed::Always,
        "The add-ons' order and versions rest",
    ),
    // Asked for only where an add-on has a configuration.
    required_reading(
        "eks:DescribeAddonConfiguration",
        ReadingNeed::Always,
        "Whether add-ons' configuration suits their next versions rests",
    ),
    required_reading("list nodes", ReadingNeed::Always, "The whole route rests"),
    required_reading("list pods", ReadingNeed::Always, "The whole route rests"),
    required_reading(
        "list poddisruptionbudgets",
        ReadingNeed::Always,
        "What the drain may evict rests",
    ),
    required_reading(
        "list deployments",
        ReadingNeed::Always,
        "Add-ons that EKS does not manage, and the drain, rest",
    ),
    required_reading(
        "list daemonsets",
        ReadingNeed::Always,
        "Add-ons that EKS does not manage, and green's readiness, rest",
    ),
    required_reading(
        "autoscaling:DescribeAutoScalingGroups",
        ReadingNeed::Always,
        "Green's size and the target groups that it joins rest",
    ),
    required_reading(
        "elasticloadbalancing:",
        ReadingNeed::ToMoveNodes,
        "The target groups that green joins and blue leaves rest",
    ),
    required_reading(
        "ec2:DescribeLaunchTemplateVersions",
        ReadingNeed::ToMoveNodes,
        "Green's image and user data rest",
    ),
    required_reading(
        "list services",
        ReadingNeed::ToMoveNodes,
        "The order of traffic and drain rests",
    ),
    required_reading(
        "list targetgroupbindings",
        ReadingNeed::ToMoveNodes,
        "Which target groups may be edited rests",
    ),
    required_reading(
        "list persistentvolumes",
        ReadingNeed::ToMoveNodes,
        "The zones that green needs rest",
    ),
    required_reading(
        "list volumeattachments",
        ReadingNeed::ToMoveNodes,
        "The proof that blue is empty rests",
    ),
    required_reading(
        "list replicasets",
        ReadingNeed::ToMoveNodes,
        "The drain rests",
    ),
    required_reading(
        "list statefulsets",
        ReadingNeed::ToMoveNodes,
        "The drain rests",
    ),
    required_reading("list jobs", ReadingNeed::ToMoveNodes, "The drain rests"),
    required_reading(
        "eks:ListInsights",
        ReadingNeed::ForInsights,
        "Whether an insight blocks rests",
    ),
    required_reading(
        "eks:DescribeInsight",
        ReadingNeed::ForInsights,
        "Whether an insight blocks rests",
    ),
];

impl RequiredReading {
    fn is_of(&self, op: &str) -> bool {
        let rest = op.strip_prefix(self.op);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || self.op.ends_with(':'))
    }

    fn is_blocking(&self, case: &ReadinessInput<'_>) -> bool {
        match self.needed {
            ReadingNeed::Always => true,
            ReadingNeed::ToMoveNodes => !case.blues.is_empty(),
            ReadingNeed::ForInsights => {
                case.plan.control_plane.insights == Insights::Block
                    && case.minors_ahead().next().is_some()
            }
        }
    }

    fn fix_text(&self) -> &'static str {
        match self.needed {
            ReadingNeed::Always | ReadingNeed::ToMoveNodes => {
                "allow the call (`eksup policy` prints what is needed), then run the same command again"
            }
            ReadingNeed::ForInsights => {
                "allow the call (`eksup policy` prints what is needed), or set `controlPlane.insights: warn` in the plan"
            }
        }
    }
}
