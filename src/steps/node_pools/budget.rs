//! The budget that a run adds to a NodePool. Pure.
//!
//! A budget of 0 for the reason Drifted keeps Karpenter from replacing nodes for a new version; others of the NodePool
//! hold beside it, and the smallest counts (KARP-2). The annotation says whose it is.

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
        Some(last) if *last == drift_budget("0") => DriftBudget::Held,
        Some(_) | None => DriftBudget::Open,
    }
}

/// What sets the budget of `run`: none is the NodePool as it was.
pub fn set_budget(pool: &NodePool, run: &str, nodes: Option<&str>) -> NodePoolChange {
    let mut budgets = foreign_budgets(pool, run);
    budgets.extend(nodes.map(drift_budget));
    let ours = nodes.map(|_| run.to_owned());
    NodePoolChange {
        budgets: Some(budgets),
        annotations: [(marks::DRIFT_HELD.to_owned(), ours)].into(),
        ..NodePoolChange::default()
    }
}

/// What lets Karpenter replace nodes: as many as the plan says, or as the NodePool's own budgets do.
pub fn open_budget(pool: &NodePool, run: &str, nodes: Option<&str>) -> NodePoolChange {
    let mut change = set_budget(pool, run, nodes);
    // The annotation stays, as the run is not done with the NodePool.
    change
        .annotations
        .insert(marks::DRIFT_HELD.to_owned(), Some(run.to_owned()));
    change
}

/// The budgets that the run did not add. Its own is the last one, and for the reason Drifted alone.
fn foreign_budgets(pool: &NodePool, run: &str) -> Vec<Value> {
    let mut budgets = pool.budgets();
    let ours = pool.annotations.get(marks::DRIFT_HELD).map(String::as_str) == Some(run);
    let is_drift = |budget: &Value| {
        budget["nodes"]
            .as_str()
            .is_some_and(|nodes| *budget == drift_budget(nodes))
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
        let own = json!([{"nodes": "10%"}, {"nodes": "0", "reasons": ["Empty"], "schedule": "@daily", "duration": "8h"}]);
        let before = pool(own, None);
        assert_eq!(read_budget(&before, "run"), DriftBudget::Absent);
        let held = changed(&before, &set_budget(&before, "run", Some("0")));
        assert_eq!(read_budget(&held, "run"), DriftBudget::Held);
        for nodes in [None, Some("2")] {
            let open = changed(&held, &open_budget(&held, "run", nodes));
            assert_eq!(read_budget(&open, "run"), DriftBudget::Open);
            let again = changed(&open, &set_budget(&open, "run", Some("0")));
            assert_eq!(again, held);
            assert_eq!(changed(&open, &set_budget(&open, "run", None)), before);
        }
    }

    #[test]
    fn the_same_budget_of_somebody_else_stays_and_is_told_as_what_blocks() {
        let before = pool(json!([{"nodes": "0", "reasons": ["Drifted"]}]), None);
        assert!(closed_by_itself(&before, "run"));
        let held = changed(&before, &set_budget(&before, "run", Some("0")));
        assert_eq!(held.budgets().len(), 2);
        assert!(closed_by_itself(&held, "run"));
        assert_eq!(changed(&held, &set_budget(&held, "run", None)), before);
        let mine = pool(json!([{"nodes": "0", "reasons": ["Drifted"]}]), Some("run"));
        assert!(!closed_by_itself(&mine, "run"));
        let other = pool(
            json!([{"nodes": "0", "reasons": ["Drifted"]}]),
            Some("other"),
        );
        assert_eq!(read_budget(&other, "run"), DriftBudget::Absent);
    }
}
