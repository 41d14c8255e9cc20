//! All judges over one case.

use super::codes::Code;
use super::input::{ReadinessCheck, ReadinessInput};
use super::workloads::name_workloads;
use super::{
    Finding, Severity, addons, admission, autoscaler, budgets, cluster, losses, node_access, nodes,
    other_nodes, pods, quotas, replacements, traffic, unhealthy, volumes, webhooks, windows,
};
use crate::model::Inventory;
use crate::model::inventory::Unread;
use crate::plan::{Insights, Plan};
use crate::route::{Route, RouteProblem};

const READINESS_CHECKS: &[ReadinessCheck] = &[
    cluster::check_control_plane,
    nodes::check_node_groups,
    node_access::check_node_access,
    other_nodes::check_other_nodes,
    windows::check_windows,
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
    // Problems of the route are findings too, and everything else is still checked.
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

/// A reading that failed is never silent, and never taken for an empty answer.
fn report_unread(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for Unread { op, why } in &case.inventory.unread {
        let finding = Finding::new(
            Code::Unread,
            op,
            why,
            "allow the call (`eksup policy` prints what is needed), or check by hand what it would have returned",
        );
        // A reading on which other checks depend blocks: without it they would pass unseen.
        let required = REQUIRED_READINGS.iter().find(|r| r.is_of(op));
        out.push(match required {
            Some(reading) if reading.is_blocking(case) => Finding {
                detail: format!(
                    "{why}. Without it, eksup cannot determine {}",
                    reading.determines
                ),
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

/// A reading that the upgrade depends on. What is not in [`REQUIRED_READINGS`] only warns: dates of support, Fargate profiles, free
/// addresses (EKS refuses by itself what does not fit), instances, what the API server says of its version.
struct RequiredReading {
    /// The operation, or what it begins with.
    op: &'static str,
    needed: ReadingNeed,
    /// What cannot be determined without it, as the end of a sentence.
    determines: &'static str,
}

const fn required_reading(
    op: &'static str,
    needed: ReadingNeed,
    determines: &'static str,
) -> RequiredReading {
    RequiredReading {
        op,
        needed,
        determines,
    }
}

/// `docs/findings.md` shows the same table.
const REQUIRED_READINGS: &[RequiredReading] = &[
    required_reading("eks:DescribeNodegroup", ReadingNeed::Always, "the route"),
    required_reading("eks:ListNodegroups", ReadingNeed::Always, "the route"),
    required_reading(
        "eks:DescribeAddon",
        ReadingNeed::Always,
        "the order and the versions of the add-ons",
    ),
    required_reading(
        "eks:ListAddons",
        ReadingNeed::Always,
        "the order and the versions of the add-ons",
    ),
    required_reading(
        "eks:DescribeAddonVersions",
        ReadingNeed::Always,
        "the order and the versions of the add-ons",
    ),
    // Asked for only where an add-on has a configuration.
    required_reading(
        "eks:DescribeAddonConfiguration",
        ReadingNeed::Always,
        "whether the add-ons' configuration suits their next versions",
    ),
    required_reading("list nodes", ReadingNeed::Always, "the route"),
    required_reading("list pods", ReadingNeed::Always, "the route"),
    required_reading(
        "list poddisruptionbudgets",
        ReadingNeed::Always,
        "what the drain may evict",
    ),
    required_reading(
        "list deployments",
        ReadingNeed::Always,
        "which add-ons EKS does not manage, and what the drain may evict",
    ),
    required_reading(
        "list daemonsets",
        ReadingNeed::Always,
        "which add-ons EKS does not manage, and whether green is ready",
    ),
    required_reading(
        "autoscaling:DescribeAutoScalingGroups",
        ReadingNeed::Always,
        "green's size and the target groups that it joins",
    ),
    required_reading(
        "elasticloadbalancing:",
        ReadingNeed::ToMoveNodes,
        "the target groups that green joins and blue leaves",
    ),
    required_reading(
        "ec2:DescribeLaunchTemplateVersions",
        ReadingNeed::ToMoveNodes,
        "green's image and user data",
    ),
    required_reading(
        "list services",
        ReadingNeed::ToMoveNodes,
        "the order of traffic and drain",
    ),
    required_reading(
        "list targetgroupbindings",
        ReadingNeed::ToMoveNodes,
        "which target groups it may edit",
    ),
    required_reading(
        "list persistentvolumes",
        ReadingNeed::ToMoveNodes,
        "the zones in which green needs nodes",
    ),
    required_reading(
        "list volumeattachments",
        ReadingNeed::ToMoveNodes,
        "whether blue is empty",
    ),
    required_reading(
        "list replicasets",
        ReadingNeed::ToMoveNodes,
        "what the drain may evict",
    ),
    required_reading(
        "list statefulsets",
        ReadingNeed::ToMoveNodes,
        "what the drain may evict",
    ),
    required_reading(
        "list jobs",
        ReadingNeed::ToMoveNodes,
        "what the drain may evict",
    ),
    required_reading(
        "eks:ListInsights",
        ReadingNeed::ForInsights,
        "whether an insight blocks the upgrade",
    ),
    required_reading(
        "eks:DescribeInsight",
        ReadingNeed::ForInsights,
        "whether an insight blocks the upgrade",
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
