//! PodDisruptionBudgets that would stop a drain.

use std::collections::HashMap;

use super::codes::Code;
use super::input::{ReadinessInput, name_some};
use super::{Finding, Severity};
use crate::model::kube::{NamespacedName, Pdb, Pod};
use crate::model::operator_budgets::{is_custom_owner, run_by};
use crate::model::restarts::no_restart;
use crate::plan::{
    BudgetConsent, Drain, OnDeadline, OperatorBudgets, SingleReplicas, Strategy, duration,
};

/// Judges budgets over pods that move.
pub fn check_budgets(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    // Pods under two budgets: no state of the budgets ever allows their eviction.
    let mut over: HashMap<&NamespacedName, Vec<String>> = HashMap::new();
    for budget in &case.inventory.pdbs {
        for pod in held_pods(case, budget) {
            over.entry(&pod.key)
                .or_default()
                .push(budget.key.to_string());
        }
    }
    for pod in case.evicted_pods() {
        if let Some(budgets) = over.get(&pod.key).filter(|b| b.len() > 1) {
            out.push(Finding::new(
                Code::TwoBudgets,
                format!("pod {}", pod.key),
                format!(
                    "{} select it, and the API server always refuses to evict a pod that several budgets select",
                    budgets.join(" and ")
                ),
                "delete one of the budgets, or narrow its selector",
            ));
        }
    }
    // With `recreate` the drain passes over budgets.
    if case.plan.strategy == Strategy::Recreate {
        return;
    }
    for pdb in &case.inventory.pdbs {
        let held = held_pods(case, pdb);
        if held.is_empty() || pdb.allowed > 0 {
            continue;
        }
        let subject = format!("PodDisruptionBudget {}", pdb.key);
        let names: Vec<String> = held.iter().map(|p| p.key.to_string()).collect();
        // Closed for good: it takes a consent or a change.
        if allows_nothing(pdb) {
            out.push(blocking_finding(case, pdb, &held, subject, &names));
            continue;
        }
        // Closed today. Pods that are not Ready can keep it closed, as their own eviction needs it open.
        if holds_unready(pdb, &held) {
            let sick: Vec<String> = unready_pods(&held).map(|p| p.key.to_string()).collect();
            out.push(Finding::new(
                Code::SickUnderBudget,
                subject,
                format!(
                    "{} are not Ready, and the budget allows the eviction of a pod that is not Ready only while {} pods \
                     are healthy ({} are)",
                    name_some(&sick), pdb.desired_healthy, pdb.current_healthy
                ),
                format!("fix the pods, or allow their eviction: kubectl -n {} patch pdb {} -p '{{\"spec\":{{\"unhealthyPodEvictionPolicy\":\"AlwaysAllow\"}}}}'", pdb.key.namespace, pdb.key.name),
            ));
        } else {
            out.push(Finding::new(
                Code::BudgetShort,
                subject,
                format!(
                    "it allows no eviction at present: of its {} pods {} are healthy, and {} must be. The drain would \
                     wait for {}",
                    pdb.expected,
                    pdb.current_healthy,
                    pdb.desired_healthy,
                    name_some(&names)
                ),
                "make sure that all its pods are Ready before the upgrade",
            ));
        }
    }
}

/// Pods that run and are not Ready: the API server evicts a Pending one whatever its budget says.
fn unready_pods<'a>(held: &[&'a Pod]) -> impl Iterator<Item = &'a Pod> {
    let running = held.iter().filter(|p| !p.ready && p.phase == "Running");
    running.copied()
}

/// Whether a budget stays closed because of pods of its own that are not Ready and that it does not let go either.
pub fn holds_unready(pdb: &Pdb, held: &[&Pod]) -> bool {
    let always = pdb.unhealthy_policy.as_deref() == Some("AlwaysAllow");
    !always && pdb.current_healthy < pdb.desired_healthy && unready_pods(held).next().is_some()
}

/// Whether the budget allows nothing even when every pod is healthy.
pub fn allows_nothing(pdb: &Pdb) -> bool {
    let zero = matches!(pdb.max_unavailable.as_deref(), Some("0" | "0%"));
    zero || pdb.sync_failed.is_some()
        || (pdb.expected > 0 && pdb.desired_healthy >= pdb.expected)
        || matches!(pdb.min_available.as_deref(), Some("100%"))
}

/// A budget that never opens by itself, with what a finding says of it.
struct BlockingBudget<'a> {
    pdb: &'a Pdb,
    held: &'a [&'a Pod],
    /// How it shows that an operator runs it.
    operator: Option<String>,
    /// Pods that keep data on their node's disk, and whose owner nobody but an operator knows.
    data: Vec<&'a Pod>,
    /// Whether each of its pods is all that its workload runs.
    single: bool,
    /// Whether a restart of its Deployment brings the new pod up first.
    restartable: bool,
}

impl<'a> BlockingBudget<'a> {
    fn for_budget(case: &'a ReadinessInput<'_>, pdb: &'a Pdb, held: &'a [&'a Pod]) -> Self {
        let alone = |pod: &&Pod| {
            let siblings = |o| case.pods.of_owner(o).filter(|p| !p.is_finished());
            pod.owner.as_ref().is_some_and(|o| siblings(o).count() == 1)
        };
        let keeps_data = |p: &&&Pod| {
            p.host_paths_with_data().next().is_some()
                && p.owner.as_ref().is_some_and(is_custom_owner)
        };
        Self {
            pdb,
            held,
            operator: run_by(pdb, case.pods.with_siblings(pdb).into_iter()),
            data: held.iter().filter(keeps_data).copied().collect(),
            single: held.iter().all(alone),
            restartable: held.iter().all(|p| surge_refusal(case, p).is_none()),
        }
    }

    /// What the plan consents to for the groups of all its pods, and how that goes on; where groups differ, the
    /// worst (the least in the order of severities).
    fn consented_outcome(&self, case: &ReadinessInput<'_>) -> Option<(Severity, String)> {
        let mut drains: Vec<&Drain> = Vec::new();
        for pod in self.held {
            let drain = case.drain_of_pod(pod);
            if !drains.contains(&drain) {
                drains.push(drain);
            }
        }
        let outcomes = drains.into_iter().map(|d| self.outcome_under(d));
        let outcomes: Option<Vec<(Severity, String)>> = outcomes.collect();
        outcomes?.into_iter().min_by_key(|(severity, _)| *severity)
    }

    /// The same of one way to drain.
    fn outcome_under(&self, drain: &Drain) -> Option<(Severity, String)> {
        let (namespace, name) = (&self.pdb.key.namespace, &self.pdb.key.name);
        let then = match drain.on_deadline {
            OnDeadline::Stop => "the run stops",
            OnDeadline::Skip => "the drain skips the node",
            OnDeadline::Delete => "the pods are deleted despite the budget",
        };
        let deadline = duration::format_duration(drain.pod_deadline);
        let tried = format!(
            "the plan consents: evictions are tried although the budget allows none, and its owner has {deadline} \
             (`podDeadline`) to allow them; then {then}"
        );
        let deleted = format!(
            "the plan consents: its pods are deleted despite the budget after their eviction was refused for {deadline} \
             (`podDeadline`)"
        );
        // A consent for this very budget counts before all others, in both directions.
        match drain.budget_consent(namespace, name) {
            Some(BudgetConsent::Delete) => return Some((Severity::Warning, deleted)),
            Some(BudgetConsent::Wait) => return Some((Severity::Warning, tried)),
            Some(BudgetConsent::Block) => return None,
            None => {}
        }
        // What is said of all budgets is no consent to lose data.
        if !self.data.is_empty() {
            return None;
        }
        // The gentlest first: no downtime, then a short one, then whatever the deadline does.
        if drain.single_replicas == SingleReplicas::Surge && self.restartable {
            let surge = "nothing to do: `drain.singleReplicas: surge` restarts its Deployment, so that the new pod is \
                 Ready on green before the old one ends";
            return Some((Severity::Info, surge.to_owned()));
        }
        if drain.single_replicas == SingleReplicas::Evict && self.single {
            let evict = "the plan consents: its only pod is deleted despite the budget, and the workload is down until \
                 the replacement is Ready";
            return Some((Severity::Warning, evict.to_owned()));
        }
        let opens = self.operator.is_some() && self.pdb.sync_failed.is_none();
        if drain.operator_budgets == OperatorBudgets::Wait && opens {
            return Some((Severity::Warning, tried));
        }
        (drain.on_deadline == OnDeadline::Delete).then_some((Severity::Warning, deleted))
    }

    /// What can be done about it, the best first.
    fn suggest_fixes(&self) -> Vec<String> {
        let key = &self.pdb.key;
        let (namespace, name) = (&key.namespace, &key.name);
        // The narrowest consent: for this budget alone.
        let wait = format!("`drain.budgets: {{\"{key}\": wait}}`");
        // Where data would be lost nothing quicker is offered.
        if !self.data.is_empty() {
            return vec![
                "have its operator move the data off these nodes before the upgrade, and do not relax or delete the \
                 budget before that is done"
                    .to_owned(),
                format!("set {wait}, so that the drain waits until the operator allows the eviction (`{namespace}/*` for \
                     all budgets of the namespace)"),
            ];
        }
        let mut ways = Vec::new();
        // A budget that cannot be computed stays closed whatever its pods do, so that no wait helps.
        if self.pdb.sync_failed.is_some() {
            let selected = self.held.len();
            match self.pdb.owner.as_ref() {
                Some(owner) => ways.push(format!(
                    "configure {} {}, which creates the budget, to set minAvailable as a number or to create no budget",
                    owner.kind, owner.name
                )),
                None => ways.push(format!(
                    "set minAvailable as a number: kubectl -n {namespace} patch pdb {name} --type merge -p \
                     '{{\"spec\":{{\"maxUnavailable\":null,\"minAvailable\":{}}}}}'",
                    selected.saturating_sub(1).max(1)
                )),
            }
            ways.push(format!(
                "delete the budget for the upgrade: kubectl -n {namespace} delete pdb {name}"
            ));
            return ways;
        }
        // An operator would restore what is edited by hand.
        if self.operator.is_some() {
            ways.push(format!(
                "set `drain.operatorBudgets: wait` ({wait} for this budget alone), so that evictions are tried and the \
                 operator has until `podDeadline` to move its pods"
            ));
            ways.push(format!(
                "configure the operator to create no budget during the upgrade. Do not edit the budget by hand, because \
                 the operator restores it (kubectl -n {namespace} get pdb {name} -o yaml shows its owner)"
            ));
            return ways;
        }
        // A budget of the user's own: what costs least comes first.
        if self.restartable {
            ways.push(
                "set `drain.singleReplicas: surge` (a restart starts the new pod before the old one ends)"
                    .to_owned(),
            );
        }
        if self.single {
            ways.push(
                "set `drain.singleReplicas: evict` if the workload may be down for a moment"
                    .to_owned(),
            );
            ways.push("run a second replica".to_owned());
        }
        ways.push(format!(
            "relax the budget for the upgrade: kubectl -n {namespace} edit pdb {name}"
        ));
        ways
    }

    /// What is wrong with it.
    fn describe_problem(&self, names: &[String]) -> String {
        let pdb = self.pdb;
        // The rule as it is written in the object, so that a reader finds it there.
        let rule = match (&pdb.min_available, &pdb.max_unavailable) {
            (Some(min), _) => format!("minAvailable {min} of {} pods", pdb.expected),
            (None, Some(max)) => format!("maxUnavailable {max}"),
            (None, None) => "its rule".to_owned(),
        };
        let mut detail = match &pdb.sync_failed {
            Some(why) => format!(
                "the disruption controller cannot compute {rule} (SyncFailed: {why}), so the budget allows no eviction: \
                 {} would block the drain",
                name_some(names)
            ),
            None => format!(
                "{rule} never allows an eviction: {} would block the drain",
                name_some(names)
            ),
        };
        // Why the usual fixes are not offered.
        if let Some(operator) = &self.operator {
            detail += &format!(". An operator controls it: {operator}");
        }
        if let Some(pod) = self.data.first() {
            let owner = pod.owner.as_ref();
            let owner = owner
                .map(|o| format!("{} {}", o.kind, o.name))
                .unwrap_or_default();
            detail += &format!(
                ". Pod {}, which {owner} creates, keeps data on its node's disk (hostPath). The data is lost when the \
                 node is deleted, so it is lost if the budget is relaxed",
                pod.key
            );
        }
        detail
    }
}

fn blocking_finding(
    case: &ReadinessInput<'_>,
    pdb: &Pdb,
    held: &[&Pod],
    subject: String,
    names: &[String],
) -> Finding {
    let closed = BlockingBudget::for_budget(case, pdb, held);
    // A restart asks no budget.
    if closed.restartable && held.iter().all(|p| case.is_restarted(p)) {
        return Finding::new(
            Code::BudgetNever,
            subject,
            closed.describe_problem(names),
            "nothing to do: the Deployment is restarted, so that new pods are Ready before the old ones end",
        )
        .with_severity(Severity::Info);
    }
    let detail = closed.describe_problem(names);
    let (severity, fix) = closed
        .consented_outcome(case)
        .unwrap_or_else(|| (Severity::Blocker, closed.suggest_fixes().join("; or ")));
    Finding::new(Code::BudgetNever, subject, detail, fix).with_severity(severity)
}

/// Why a restart does not move a pod without a gap, where it does not.
pub fn surge_refusal(case: &ReadinessInput<'_>, pod: &Pod) -> Option<String> {
    let Some(deployment) = case.workloads.deployment_of(pod) else {
        let kind = pod.owner.as_ref().map_or("no controller", |o| &o.kind);
        return Some(format!(
            "it belongs to {kind}, and only a Deployment starts the new pod before the old one ends"
        ));
    };
    // On Fargate the restart comes first whatever volumes there are: none of them is one node's.
    let has_claims = !pod.claims.is_empty() && !case.is_restarted(pod);
    no_restart(deployment, has_claims)
}

/// The pods that the run evicts and that a budget selects.
pub fn held_pods<'a>(case: &ReadinessInput<'a>, budget: &Pdb) -> Vec<&'a Pod> {
    case.evicted_among(case.pods.selected_by(budget))
}
