//! The budget that a run adds to a NodePool. Pure.
//!
//! A budget of 0 for the reason Drifted keeps Karpenter from replacing nodes for a new version; others of the NodePool
//! hold beside it, and the smallest counts (KARP-2). The annotation says whose it is. One that is open has a second one
//! behind it, which is 0 from a time in the near future on: Karpenter does not go on while nobody watches (KARP-20).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde_json::{Value, json};

use crate::k8s::node_pools::NodePoolChange;
use crate::model::clock::signed_duration;
use crate::model::marks;
use crate::model::node_pool::NodePool;

/// How long a budget is open unless it is opened again.
pub const OPEN_TIME: Duration = Duration::from_secs(10 * 60);
/// How long the end of an open budget holds: less than a year, as its schedule comes round every year, and longer than a run.
const END_DURATION: &str = "8000h";

/// Whether a run's budget keeps the NodePool's nodes from being replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriftBudget {
    /// The run has none on it.
    Absent,
    /// Somebody, or a tool that keeps the cluster as Git has it, has taken it off; the annotation is still there.
    TakenOff,
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
    match split_budgets(pool).1.last() {
        Some(last) if *last == drift_budget("0") || *last == whole_budget() => DriftBudget::Held,
        Some(_) => DriftBudget::Open,
        None => DriftBudget::TakenOff,
    }
}

/// When the open budget of `run` ends by itself, or has ended; none where it is not open, or ends never.
pub fn open_until(pool: &NodePool, run: &str, now: Timestamp) -> Option<Timestamp> {
    if read_budget(pool, run) != DriftBudget::Open {
        return None;
    }
    let (_, added) = split_budgets(pool);
    read_end(added.last().filter(|last| is_end(last))?, now)
}

/// When a budget that is opened now ends: a schedule has whole minutes.
pub fn end_of_opening(now: Timestamp) -> Timestamp {
    let end = now + signed_duration(OPEN_TIME);
    let up = TimestampRound::new()
        .smallest(Unit::Minute)
        .mode(RoundMode::Ceil);
    end.round(up).unwrap_or(end)
}

/// What a run does with its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetChange<'a> {
    /// No node is replaced for a new version.
    Hold,
    /// No node is disrupted for any reason.
    HoldAll,
    /// As many nodes as the plan says, or as the NodePool's own budgets do; none from the time on.
    Open(Option<&'a str>, Timestamp),
    /// The NodePool as it was.
    Remove,
}

/// What changes the budget of `run` so.
pub fn change_budget(pool: &NodePool, run: &str, wanted: BudgetChange<'_>) -> NodePoolChange {
    let mut budgets = own_budgets(pool);
    // The annotations stay while the run is not done with the NodePool.
    let removes = wanted == BudgetChange::Remove;
    let kept = |value: String| (!removes).then_some(value);
    let mut annotations = BTreeMap::from([
        (marks::DRIFT_HELD.to_owned(), kept(run.to_owned())),
        (
            marks::BUDGETS_BEFORE.to_owned(),
            kept(json!(budgets).to_string()),
        ),
    ]);
    budgets.extend(match wanted {
        BudgetChange::Hold => vec![drift_budget("0")],
        BudgetChange::HoldAll => vec![whole_budget()],
        // There is always one of the run while the annotation is there: the last one of a user would be taken for it.
        BudgetChange::Open(nodes, until) => {
            vec![drift_budget(nodes.unwrap_or("100%")), end_budget(until)]
        }
        BudgetChange::Remove => Vec::new(),
    });
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

/// The budgets that no run added.
pub fn own_budgets(pool: &NodePool) -> Vec<Value> {
    split_budgets(pool).0
}

/// The budgets that no run added, and those of a run: the last ones. Whose run it is does not matter: a cluster has one, and
/// what an earlier one has left is taken over, as where the upgrade went on by another route.
fn split_budgets(pool: &NodePool) -> (Vec<Value>, Vec<Value>) {
    let mut budgets = pool.budgets();
    let held = pool.annotations.contains_key(marks::DRIFT_HELD);
    // One of a user may look like one of the run. Where the list is as it was before, the run's was taken off.
    let before = pool.annotations.get(marks::BUDGETS_BEFORE);
    let before = before.and_then(|text| serde_json::from_str::<Value>(text).ok());
    if !held || before.is_some_and(|before| before == json!(budgets)) {
        return (budgets, Vec::new());
    }
    let is_drift = |budget: &Value| {
        budget["nodes"]
            .as_str()
            .is_some_and(|nodes| *budget == drift_budget(nodes) || *budget == whole_budget())
    };
    let ends = usize::from(budgets.last().is_some_and(is_end));
    let rest = budgets.len() - ends;
    let begins = usize::from(budgets[..rest].last().is_some_and(is_drift));
    let added = budgets.split_off(rest - begins);
    (budgets, added)
}

/// Budgets of the NodePool itself that replace nothing for a new version, whenever they hold.
pub fn closed_by_itself(pool: &NodePool) -> bool {
    own_budgets(pool).iter().any(|budget| {
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

/// The end of an open budget: no node from `until` on.
fn end_budget(until: Timestamp) -> Value {
    let at = until.to_zoned(TimeZone::UTC);
    let (minute, hour, day, month) = (at.minute(), at.hour(), at.day(), at.month());
    let mut budget = drift_budget("0");
    budget["schedule"] = json!(format!("{minute} {hour} {day} {month} *"));
    budget["duration"] = json!(END_DURATION);
    budget
}

/// Who writes the object again may write a duration with minutes and seconds.
fn is_end(budget: &Value) -> bool {
    let duration = budget["duration"].as_str();
    budget["nodes"] == "0"
        && budget["reasons"] == json!(["Drifted"])
        && duration.is_some_and(|text| text.starts_with(END_DURATION))
}

/// The hit of its schedule, which has no year, that is nearest to `now`.
fn read_end(budget: &Value, now: Timestamp) -> Option<Timestamp> {
    let fields: Vec<i8> = budget["schedule"]
        .as_str()?
        .split(' ')
        .map_while(|field| field.parse().ok())
        .collect();
    let &[minute, hour, day, month] = fields.as_slice() else {
        return None;
    };
    let this_year = now.to_zoned(TimeZone::UTC).year();
    let hits = (this_year - 1..=this_year + 1).filter_map(|year| {
        let date = Date::new(year, month, day).ok()?;
        let hit = date.at(hour, minute, 0, 0).to_zoned(TimeZone::UTC).ok()?;
        Some(hit.timestamp())
    });
    hits.min_by_key(|hit| now.duration_since(*hit).abs())
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
                &change_budget(&held, "run", BudgetChange::Open(nodes, until())),
            );
            assert_eq!(read_budget(&open, "run"), DriftBudget::Open);
            assert_eq!(open_until(&open, "run", until()), Some(until()));
            let later = until() + jiff::SignedDuration::from_mins(5);
            let renewed = changed(
                &open,
                &change_budget(&open, "run", BudgetChange::Open(nodes, later)),
            );
            assert_eq!(renewed.budgets().len(), open.budgets().len());
            assert_eq!(open_until(&renewed, "run", until()), Some(later));
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

    fn until() -> Timestamp {
        "2026-12-31T23:58:00Z".parse().unwrap()
    }

    #[test]
    fn an_open_budget_ends_on_a_whole_minute_and_the_year_is_the_nearest() {
        let now = "2026-12-31T23:47:01Z".parse().unwrap();
        assert_eq!(end_of_opening(now), until());
        assert_eq!(
            end_of_opening("2026-12-31T23:48:00Z".parse().unwrap()),
            until()
        );
        let end = end_budget(until());
        assert_eq!(end["schedule"], "58 23 31 12 *");
        for now in ["2026-12-31T23:47:01Z", "2027-01-01T00:30:00Z"] {
            assert_eq!(read_end(&end, now.parse().unwrap()), Some(until()));
        }
        let leap = "2028-02-29T12:00:00Z".parse().unwrap();
        assert_eq!(read_end(&end_budget(leap), leap), Some(leap));
        let rewritten = json!({"nodes": "0", "reasons": ["Drifted"], "schedule": "58 23 31 12 *", "duration": "8000h0m0s"});
        assert!(is_end(&rewritten));
    }

    #[test]
    fn a_green_that_is_released_says_no_longer_how_many_nodes_it_is_to_have() {
        let mut green = pool(json!([{"nodes": "0"}]), Some("run"));
        (green.annotations).insert(marks::WANTED_NODES.to_owned(), "3".to_owned());
        (green.annotations).insert(marks::BUDGETS_BEFORE.to_owned(), "[]".to_owned());
        let open = changed(&green, &change_budget(&green, "run", BudgetChange::Remove));
        assert!(open.annotations.is_empty(), "{:?}", open.annotations);
        let held = changed(&green, &change_budget(&green, "run", BudgetChange::HoldAll));
        assert_eq!(held, green);
    }

    /// `kubectl apply` of the user's manifest in the middle of a run: the list is the user's, and the annotations stay.
    #[test]
    fn budgets_that_a_tool_set_back_are_all_the_users() {
        let own = json!([{"nodes": "10%"}, {"nodes": "1", "reasons": ["Drifted"]}]);
        let before = pool(own.clone(), None);
        let mut reset = changed(&before, &change_budget(&before, "run", BudgetChange::Hold));
        reset.spec["disruption"]["budgets"] = own;
        assert_eq!(read_budget(&reset, "run"), DriftBudget::TakenOff);
        let again = changed(&reset, &change_budget(&reset, "run", BudgetChange::Hold));
        assert_eq!(read_budget(&again, "run"), DriftBudget::Held);
        assert_eq!(again.budgets().len(), 3);
        for held in [&reset, &again] {
            assert_eq!(
                changed(held, &change_budget(held, "run", BudgetChange::Remove)),
                before
            );
        }
        // A user may add one of another kind meanwhile, before the run's or in their place.
        let mut other = reset.clone();
        other.spec["disruption"]["budgets"] = json!([{"nodes": "5"}]);
        assert_eq!(read_budget(&other, "run"), DriftBudget::TakenOff);
        assert_eq!(own_budgets(&other), other.budgets());
    }

    #[test]
    fn the_same_budget_of_somebody_else_stays_and_is_told_as_what_blocks() {
        let before = pool(json!([{"nodes": "0", "reasons": ["Drifted"]}]), None);
        assert!(closed_by_itself(&before));
        let held = changed(&before, &change_budget(&before, "run", BudgetChange::Hold));
        assert_eq!(held.budgets().len(), 2);
        assert!(closed_by_itself(&held));
        assert_eq!(
            changed(&held, &change_budget(&held, "run", BudgetChange::Remove)),
            before
        );
        let mine = pool(json!([{"nodes": "0", "reasons": ["Drifted"]}]), Some("run"));
        assert!(!closed_by_itself(&mine));
        let other = pool(
            json!([{"nodes": "0", "reasons": ["Drifted"]}]),
            Some("other"),
        );
        assert_eq!(read_budget(&other, "run"), DriftBudget::Absent);
    }

    /// The upgrade goes on by another route, which is another run.
    #[test]
    fn what_an_earlier_run_has_left_is_taken_over() {
        let before = pool(json!([{"nodes": "10%"}]), None);
        for wanted in [BudgetChange::Hold, BudgetChange::Open(Some("1"), until())] {
            let first = changed(&before, &change_budget(&before, "first", wanted));
            assert_eq!(read_budget(&first, "second"), DriftBudget::Absent);
            assert_eq!(open_until(&first, "second", until()), None);
            let second = changed(&first, &change_budget(&first, "second", BudgetChange::Hold));
            assert_eq!(read_budget(&second, "second"), DriftBudget::Held);
            assert_eq!(
                changed(
                    &second,
                    &change_budget(&second, "second", BudgetChange::Remove)
                ),
                before
            );
        }
    }
}
