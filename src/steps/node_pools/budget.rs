//! The budget that a run adds to a NodePool. Pure.
//!
//! A budget of 0 for the reason Drifted keeps Karpenter from replacing nodes for a new version; others of the NodePool
//! hold beside it, and the smallest counts (KARP-2). The annotation says whose it is.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::k8s::node_pools::NodePoolChange;
use crate::model::marks;
use crate::model::node_pool::NodePool;

/// Whether a run's budget keeps the NodePool's nodes from being replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriftBudget {
    /// The run has none on it.
    Absent,
    /// Nothing is replaced.
    Held,
    /// As many as the plan says.
    Open,
}

/// The budget of `run` on `pool`, as it is now.
pub fn read_budget(pool: &NodePool, run: &str) -> DriftBudget {
    if pool.annotations.get(marks::DRIFT_HELD).map(String::as_str) != Some(run) {
        return DriftBudget::Absent;
    }
    match pool.budgets().last() {
        Some(last) if *last == drift_budget("0") || *last == whole_budget() => DriftBudget::Held,
        Some(_) | None => DriftBudget::Open,
    }
}

/// What a run does with its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetChange<'a> {
    /// No node is replaced for a new version.
    Hold,
    /// No node is disrupted for any reason.
    HoldAll,
    /// As many nodes as the plan says, or as the NodePool's own budgets do.
    Open(Option<&'a str>),
    /// The NodePool as it was.
    Remove,
}

/// What changes the budget of `run` so.
pub fn change_budget(pool: &NodePool, run: &str, wanted: BudgetChange<'_>) -> NodePoolChange {
    let mut budgets = foreign_budgets(pool, run);
    budgets.extend(match wanted {
        BudgetChange::Hold => Some(drift_budget("0")),
        BudgetChange::HoldAll => Some(whole_budget()),
        // There is always one of the run while the annotation is there: the last one of a user would be taken for it.
        BudgetChange::Open(nodes) => Some(drift_budget(nodes.unwrap_or("100%"))),
        BudgetChange::Remove => None,
    });
    // The annotation stays while the run is not done with the NodePool.
    let removes = wanted == BudgetChange::Remove;
    let ours = (!removes).then(|| run.to_owned());
    let mut annotations = BTreeMap::from([(marks::DRIFT_HELD.to_owned(), ours)]);
    // From then on it has as many nodes as Karpenter makes.
    if removes && pool.annotations.contains_key(marks::WANTED_NODES) {
        annotations.insert(marks::WANTED_NODES.to_owned(), None);
    }
    NodePoolChange {
        budgets: Some(budgets),
        annotations,
        ..NodePoolChange::default()
    }
}

/// The budgets that the run did not add. Its own is the last one, and for the reason Drifted alone.
fn foreign_budgets(pool: &NodePool, run: &str) -> Vec<Value> {
    let mut budgets = pool.budgets();
    let ours = pool.annotations.get(marks::DRIFT_HELD).map(String::as_str) == Some(run);
    let is_drift = |budget: &Value| {
        budget["nodes"]
            .as_str()
            .is_some_and(|nodes| *budget == drift_budget(nodes) || *budget == whole_budget())
    };
    if ours && budgets.last().is_some_and(is_drift) {
        budgets.pop();
    }
    budgets
}

/// Budgets of the NodePool itself that replace nothing for a new version, whenever they hold.
pub fn closed_by_itself(pool: &NodePool, run: &str) -> bool {
    foreign_budgets(pool, run).iter().any(|budget| {
        let reasons = budget["reasons"].as_array();
        let for_drift =
            reasons.is_none_or(|reasons| reasons.iter().any(|reason| reason == "Drifted"));
        let none = matches!(budget["nodes"].as_str(), Some("0" | "0%"));
        for_drift && none && budget.get("schedule").is_none()
    })
}

fn whole_budget() -> Value {
    json!({"nodes": "0"})
}

fn drift_budget(nodes: &str) -> Value {
    json!({"nodes": nodes, "reasons": ["Drifted"]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(budgets: Value, held_by: Option<&str>) -> NodePool {
        let mark = held_by.map(|run| (marks::DRIFT_HELD.to_owned(), run.to_owned()));
        NodePool {
            name: "general".into(),
            spec: json!({"disruption": {"budgets": budgets}}),
            annotations: mark.into_iter().collect(),
            ..NodePool::default()
        }
    }

    /// The NodePool as the change leaves it.
    fn changed(pool: &NodePool, change: &NodePoolChange) -> NodePool {
        let mut pool = pool.clone();
        if let Some(budgets) = &change.budgets {
            pool.spec["disruption"]["budgets"] = json!(budgets);
        }
        for (key, value) in &change.annotations {
            match value {
                Some(value) => drop(pool.annotations.insert(key.clone(), value.clone())),
                None => drop(pool.annotations.remove(key)),
            }
        }
        pool
    }

    #[test]
    fn a_node_pool_that_is_held_opened_and_released_is_as_it_was() {
        for own in [
            json!([{"nodes": "10%"}, {"nodes": "0", "reasons": ["Empty"], "schedule": "@daily", "duration": "8h"}]),
            json!([{"nodes": "100%"}, {"nodes": "1", "reasons": ["Drifted"]}]),
            json!([{"nodes": "0"}]),
            json!([]),
        ] {
            check_round_trip(own);
        }
    }

    fn check_round_trip(own: Value) {
        let before = pool(own, None);
        assert_eq!(read_budget(&before, "run"), DriftBudget::Absent);
        let held = changed(&before, &change_budget(&before, "run", BudgetChange::Hold));
        assert_eq!(read_budget(&held, "run"), DriftBudget::Held);
        for nodes in [None, Some("2")] {
            let open = changed(
                &held,
                &change_budget(&held, "run", BudgetChange::Open(nodes)),
            );
            assert_eq!(read_budget(&open, "run"), DriftBudget::Open);
            let again = changed(&open, &change_budget(&open, "run", BudgetChange::Hold));
            assert_eq!(again, held);
            assert_eq!(
                changed(&open, &change_budget(&open, "run", BudgetChange::Remove)),
                before
            );
        }
        let all = changed(
            &before,
            &change_budget(&before, "run", BudgetChange::HoldAll),
        );
        assert_eq!(read_budget(&all, "run"), DriftBudget::Held);
        assert_eq!(
            changed(&all, &change_budget(&all, "run", BudgetChange::Remove)),
            before
        );
    }

    #[test]
    fn a_green_that_is_released_says_no_longer_how_many_nodes_it_is_to_have() {
        let mut green = pool(json!([{"nodes": "0"}]), Some("run"));
        (green.annotations).insert(marks::WANTED_NODES.to_owned(), "3".to_owned());
        let open = changed(&green, &change_budget(&green, "run", BudgetChange::Remove));
        assert!(open.annotations.is_empty(), "{:?}", open.annotations);
        let held = changed(&green, &change_budget(&green, "run", BudgetChange::HoldAll));
        assert_eq!(held, green);
    }

    #[test]
    fn the_same_budget_of_somebody_else_stays_and_is_told_as_what_blocks() {
        let before = pool(json!([{"nodes": "0", "reasons": ["Drifted"]}]), None);
        assert!(closed_by_itself(&before, "run"));
        let held = changed(&before, &change_budget(&before, "run", BudgetChange::Hold));
        assert_eq!(held.budgets().len(), 2);
        assert!(closed_by_itself(&held, "run"));
        assert_eq!(
            changed(&held, &change_budget(&held, "run", BudgetChange::Remove)),
            before
        );
        let mine = pool(json!([{"nodes": "0", "reasons": ["Drifted"]}]), Some("run"));
        assert!(!closed_by_itself(&mine, "run"));
        let other = pool(
            json!([{"nodes": "0", "reasons": ["Drifted"]}]),
            Some("other"),
        );
        assert_eq!(read_budget(&other, "run"), DriftBudget::Absent);
    }
}
