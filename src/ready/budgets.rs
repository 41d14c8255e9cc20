//! PodDisruptionBudgets that would stop a drain.

use super::case::{Case, some};
use super::codes::Code;
use super::{Finding, Severity};
use crate::model::Inventory;
use crate::model::kube::{Pdb, Pod, Workload};
use crate::plan::{OnDeadline, SingleReplicas, Strategy};

/// Judges budgets over pods that move.
pub fn judge(case: &Case<'_>, out: &mut Vec<Finding>) {
    let pods = case.moving();
    let selects = |pdb: &Pdb, pod: &Pod| {
        pdb.key.namespace == pod.key.namespace
            && pdb
                .selector
                .as_ref()
                .is_some_and(|s| s.matches(&pod.labels))
    };
    for pod in &pods {
        let budgets: Vec<String> = case
            .inventory
            .pdbs
            .iter()
            .filter(|b| selects(b, pod))
            .map(|b| b.key.to_string())
            .collect();
        if budgets.len() > 1 {
            out.push(Finding::new(
                Code::TwoBudgets,
                format!("pod {}", pod.key),
                format!(
                    "{} select it, and the API server refuses such an eviction for ever",
                    budgets.join(" and ")
                ),
                "delete one of the budgets or narrow its selector",
            ));
        }
    }
    if case.plan.strategy == Strategy::Recreate {
        return;
    }
    for pdb in &case.inventory.pdbs {
        let held: Vec<&Pod> = pods.iter().copied().filter(|p| selects(pdb, p)).collect();
        if held.is_empty() || pdb.allowed > 0 {
            continue;
        }
        let subject = format!("PodDisruptionBudget {}", pdb.key);
        let names: Vec<String> = held.iter().map(|p| p.key.to_string()).collect();
        if never(pdb) {
            out.push(never_allows(case, pdb, &held, subject, &names));
            continue;
        }
        let sick: Vec<String> = held
            .iter()
            .filter(|p| !p.ready && p.phase == "Running")
            .map(|p| p.key.to_string())
            .collect();
        let always = pdb.unhealthy_policy.as_deref() == Some("AlwaysAllow");
        if !sick.is_empty() && !always && pdb.current_healthy < pdb.desired_healthy {
            out.push(Finding::new(
                Code::SickUnderBudget,
                subject,
                format!(
                    "{} are not Ready, and the budget lets a sick pod go only while {} are healthy ({} are)",
                    some(&sick), pdb.desired_healthy, pdb.current_healthy
                ),
                format!("mend the pods, or: kubectl -n {} patch pdb {} -p '{{\"spec\":{{\"unhealthyPodEvictionPolicy\":\"AlwaysAllow\"}}}}'", pdb.key.namespace, pdb.key.name),
            ));
        } else {
            out.push(Finding::new(
                Code::BudgetShort,
                subject,
                format!(
                    "it allows 0 of {} ({} healthy, {} needed): {} would wait",
                    pdb.expected,
                    pdb.current_healthy,
                    pdb.desired_healthy,
                    some(&names)
                ),
                "make sure that all its pods are Ready before the upgrade",
            ));
        }
    }
}

/// Whether the budget allows nothing even when every pod is healthy.
fn never(pdb: &Pdb) -> bool {
    let zero = matches!(pdb.max_unavailable.as_deref(), Some("0" | "0%"));
    zero || (pdb.expected > 0 && pdb.desired_healthy >= pdb.expected)
        || matches!(pdb.min_available.as_deref(), Some("100%"))
}

fn never_allows(
    case: &Case<'_>,
    pdb: &Pdb,
    held: &[&Pod],
    subject: String,
    names: &[String],
) -> Finding {
    let rule = match (&pdb.min_available, &pdb.max_unavailable) {
        (Some(min), _) => format!("minAvailable {min} of {} pods", pdb.expected),
        (None, Some(max)) => format!("maxUnavailable {max}"),
        (None, None) => "its rule".to_owned(),
    };
    let one = pdb.expected == 1;
    let restartable = held.iter().all(|p| {
        deployment_of(case.inventory, p).is_some_and(|d| restarts(d) && p.claims.is_empty())
    });
    let (severity, fix) = match (case.plan.drain.single_replicas, case.plan.drain.on_deadline) {
        (SingleReplicas::Surge, _) if restartable => (
            Severity::Info,
            "its Deployment is restarted, so that the new pod is Ready on green before the old one goes".to_owned(),
        ),
        (_, OnDeadline::Delete) => (
            Severity::Warning,
            "at `podDeadline` its pods are deleted past the budget, as the plan consents to".to_owned(),
        ),
        (SingleReplicas::Block | SingleReplicas::Surge | SingleReplicas::Evict, OnDeadline::Stop | OnDeadline::Skip) => {
            let surge = if restartable {
                "set `drain.singleReplicas: surge` (a restart brings up the new pod first), "
            } else {
                ""
            };
            let more = if one { "run a second replica, " } else { "" };
            (
                Severity::Blocker,
                format!("{surge}{more}or relax the budget for the upgrade: kubectl -n {} edit pdb {}", pdb.key.namespace, pdb.key.name),
            )
        }
    };
    let detail = format!(
        "{rule} never lets a pod go: {} would block the drain",
        some(names)
    );
    Finding::new(Code::BudgetNever, subject, detail, fix).weighing(severity)
}

/// The Deployment behind a pod.
pub fn deployment_of<'a>(inventory: &'a Inventory, pod: &Pod) -> Option<&'a Workload> {
    let owner = pod.owner.as_ref().filter(|o| o.kind == "ReplicaSet")?;
    let of = |w: &&Workload, kind: &str, name: &str| {
        w.kind == kind && w.key.namespace == pod.key.namespace && w.key.name == name
    };
    let set = inventory
        .workloads
        .iter()
        .find(|w| of(w, "ReplicaSet", &owner.name))?;
    let top = set.owner.as_ref().filter(|o| o.kind == "Deployment")?;
    inventory
        .workloads
        .iter()
        .find(|w| of(w, "Deployment", &top.name))
}

/// Whether a restart brings up the new pod before it takes the old one.
fn restarts(deployment: &Workload) -> bool {
    deployment.strategy.as_deref() != Some("Recreate")
        && !deployment.paused
        && !matches!(deployment.max_surge.as_deref(), Some("0" | "0%"))
}
