//! What a plan consents to for the budget that holds a pod. Pure.

use crate::k8s::cache::CacheSnapshot;
use crate::model::kube::Pdb;
use crate::model::operator_budgets::run_by;
use crate::plan::{BudgetConsent, SingleReplicas};
use crate::route::DrainSpec;

/// What may be done about a closed budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetRule {
    /// Nothing is asked while it is closed; what `onDeadline` says at the deadline.
    AsAtDeadlines,
    /// Evictions are tried all the same, at intervals, until the deadline.
    Ask,
    /// A person is asked as for [`Self::Ask`]; with consent, its pods are deleted at the deadline.
    AskThenDelete,
    /// A single replica: an eviction is tried, then it is deleted.
    EndAtOnce,
}

impl BudgetRule {
    /// Whether an eviction is tried although the budget is closed.
    pub fn asks_while_closed(self) -> bool {
        self != Self::AsAtDeadlines
    }
}

/// Reads what `spec` says of `budget`: of this one, of its namespace, of single replicas, of operators' budgets.
/// `single`: whether it holds a single replica that it never lets go.
pub fn budget_rule(
    spec: &DrainSpec,
    budget: &Pdb,
    snapshot: &CacheSnapshot,
    single: impl FnOnce() -> bool,
) -> BudgetRule {
    // The narrower consent goes before the wider one: this budget, its namespace, then what is said of all.
    let of_one = spec.budgets.get(&budget.key.to_string());
    let of_namespace = || spec.budgets.get(&format!("{}/*", budget.key.namespace));
    match of_one.or_else(of_namespace) {
        Some(BudgetConsent::Wait) => return BudgetRule::Ask,
        Some(BudgetConsent::Delete) => return BudgetRule::AskThenDelete,
        Some(BudgetConsent::Block) => return BudgetRule::AsAtDeadlines,
        None => {}
    }
    // Whether an operator runs the budget's pods takes a search through all of them, so it is asked last.
    let pods = snapshot.pods.values().map(AsRef::as_ref);
    let by_operator = || run_by(budget, pods).is_some();
    if spec.single_replicas == SingleReplicas::Evict && single() {
        BudgetRule::EndAtOnce
    } else if spec.wait_for_operators && budget.sync_failed.is_none() && by_operator() {
        BudgetRule::Ask
    } else {
        BudgetRule::AsAtDeadlines
    }
}
