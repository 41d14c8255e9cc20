//! Upgrades on which a workload does not come back on green: the run stops, says which and why, and is rolled back.

use eksup::engine::RunOutcome;
use eksup::model::kube::Pod;
use eksup::model::snapshot::Snapshot;
use eksup::twin::{fault, scenario};
use serde_json::json;

use super::EXPENSE;
use crate::support::process_rig::Rig;

/// expense-dev without any PodDisruptionBudget.
fn without_budgets() -> Snapshot {
    let mut snapshot = scenario::expense_dev();
    let budgets = "/apis/policy/v1/poddisruptionbudgets";
    let had = snapshot.kubernetes.insert(budgets.to_owned(), vec![]);
    assert!(had.is_some_and(|had| !had.is_empty()));
    snapshot
}

fn plan(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(EXPENSE.to_owned(), |plan, (was, is)| {
        assert!(plan.contains(was), "{was}");
        plan.replace(was, is)
    })
}

/// The image of expense/redis cannot be pulled any more from a moment of the drain on.
async fn stops_and_rolls_back(snapshot: &Snapshot, plan: &str, what: &str) {
    for seed in [1, 2] {
        let rig = Rig::new(snapshot, plan, seed);
        let rule = "image-missing:expense/redis@58m".parse().unwrap();
        rig.twin.with_world(|w| fault::add_rules(w, vec![rule]));
        let ended = rig.apply().await;
        let RunOutcome::Stuck { why, .. } = &ended else {
            panic!("{what}, seed {seed}: {ended:?}\n{}", rig.log());
        };
        assert!(
            why.contains("expense/redis") && why.contains("/redis:7.2\""),
            "{what}, seed {seed}: {why}"
        );
        let blue = rig.read().await;
        let group = blue.nodegroups.iter().find(|g| g.name == "expense-blue");
        assert!(group.is_some(), "{what}, seed {seed}: blue is gone");
        let mut back = rig.rollback().await.unwrap();
        // Where redis had to go back itself it cannot come up there either: that is said once, and then it is the end.
        if let RunOutcome::Stuck { why, .. } = &back {
            assert!(why.contains("expense/redis"), "{what}, seed {seed}: {why}");
            back = rig.rollback().await.unwrap();
        }
        assert!(
            matches!(back, RunOutcome::RolledBack { .. }),
            "{what}, seed {seed}: {back:?}\n{}",
            rig.log()
        );
    }
}

/// On green the image is gone, on blue it may be there: everything but redis is as before.
#[tokio::test(start_paused = true)]
async fn a_workload_whose_image_is_gone_stops_the_run() {
    stops_and_rolls_back(&scenario::expense_dev(), EXPENSE, "as it is").await;
}

#[tokio::test(start_paused = true)]
async fn it_stops_the_run_without_budgets_too() {
    stops_and_rolls_back(&without_budgets(), EXPENSE, "no budgets").await;
}

#[tokio::test(start_paused = true)]
async fn it_stops_the_run_where_three_nodes_are_emptied_at_once() {
    let plan = plan(&[("parallel: 1", "parallel: 3")]);
    stops_and_rolls_back(&scenario::expense_dev(), &plan, "parallel 3").await;
    stops_and_rolls_back(&without_budgets(), &plan, "parallel 3, no budgets").await;
}

#[tokio::test(start_paused = true)]
async fn it_stops_the_run_behind_a_canary() {
    let plan = plan(&[("strategy: blue-green", "strategy: canary")]);
    stops_and_rolls_back(&scenario::expense_dev(), &plan, "canary").await;
}

#[tokio::test(start_paused = true)]
async fn it_stops_the_run_where_the_plan_lets_pods_be_deleted() {
    let plan = plan(&[("onDeadline: stop", "onDeadline: delete")]);
    stops_and_rolls_back(&scenario::expense_dev(), &plan, "delete").await;
    stops_and_rolls_back(&without_budgets(), &plan, "delete, no budgets").await;
}

/// Only a person knows that a workload is meant to have fewer pods than when the run began.
#[tokio::test(start_paused = true)]
async fn a_workload_that_a_person_accepts_as_short_does_not_stop_the_run() {
    let mut rig = Rig::new(&scenario::expense_dev(), EXPENSE, 1);
    let rule = "image-missing:expense/redis@58m".parse().unwrap();
    rig.twin.with_world(|w| fault::add_rules(w, vec![rule]));
    let ended = rig.apply().await;
    assert!(matches!(ended, RunOutcome::Stuck { .. }), "{ended:?}");
    rig.accept_short = vec!["Deployment expense/redis".to_owned()];
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
}

/// A pod that tolerates everything would be bound to emptied nodes of blue again and again.
#[tokio::test(start_paused = true)]
async fn a_workload_that_tolerates_everything_is_left_to_the_end_and_ends_nothing() {
    let mut snapshot = scenario::expense_dev();
    let everything = json!([{"operator": "Exists"}]);
    let mut changed = 0;
    let mut tolerate = |list: &str, place: &str| {
        for object in snapshot.kubernetes.get_mut(list).unwrap() {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if name.starts_with("frontend") {
                object.pointer_mut(place).unwrap()["tolerations"] = everything.clone();
                changed += 1;
            }
        }
    };
    tolerate("/api/v1/pods", "/spec");
    tolerate("/apis/apps/v1/replicasets", "/spec/template/spec");
    tolerate("/apis/apps/v1/deployments", "/spec/template/spec");
    assert!(changed >= 3);
    let rig = Rig::new(&snapshot, EXPENSE, 3);
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let evictions = rig.count("POST", "/eviction");
    assert!(evictions <= 12, "{evictions} evictions");
    super::promised(&rig.read().await);
}

/// A pod that never gets Ready stops the run as well, and nodes that may be given up are no way around it.
#[tokio::test(start_paused = true)]
async fn it_stops_the_run_where_nodes_may_be_given_up() {
    let plan = plan(&[("onDeadline: stop", "onDeadline: skip")]);
    let rig = Rig::new(&scenario::expense_dev(), &plan, 1);
    let rule = "pod-never-ready:expense/frontend@58m".parse().unwrap();
    rig.twin.with_world(|w| fault::add_rules(w, vec![rule]));
    let ended = tokio::time::timeout(std::time::Duration::from_secs(24 * 3600), rig.apply()).await;
    let Ok(RunOutcome::Stuck { why, .. }) = &ended else {
        panic!("{ended:?}\n{}", rig.log());
    };
    assert!(why.contains("Deployment expense/frontend"), "{why}");
    let blue = rig.read().await;
    let drained = blue.nodes.iter().filter(|n| {
        let marks = &n.annotations;
        marks.contains_key(eksup::model::marks::DRAINING)
    });
    // Its two pods are on two nodes: the first moves and does not come back, and the third node is never begun.
    assert!(drained.count() <= 2, "{}", rig.log());
}

#[tokio::test(start_paused = true)]
async fn a_green_that_could_not_be_created_is_not_deleted_with_pods_on_it() {
    let rig = Rig::new(&scenario::expense_dev(), EXPENSE, 1);
    // Pods of a blue node that dies find no other node than those of green that did join.
    let faults = [
        "node-never-joins:1@40m",
        "cordon:2@49m",
        "cordon:3@49m",
        "kubelet-dies:1@50m",
    ];
    let rules = faults.map(|rule| rule.parse().unwrap());
    rig.twin.with_world(|w| fault::add_rules(w, rules.to_vec()));
    let ended = rig.apply().await;
    let log = rig.log();
    assert!(
        matches!(&ended, RunOutcome::Stuck { step, .. } if step == "green-expense-green"),
        "{ended:?}\n{log}"
    );
    let RunOutcome::Stuck { why, .. } = &ended else {
        unreachable!()
    };
    assert!(why.contains("NodeCreationFailure"), "{why}");
    assert!(!log.contains("DeleteNodegroup"), "{log}");
    let after = rig.read().await;
    let green: Vec<&str> = after
        .nodes_of("expense-green")
        .map(|n| n.name.as_str())
        .collect();
    let on_green = |p: &&Pod| {
        p.ready && !p.is_daemon_pod() && p.node.as_deref().is_some_and(|n| green.contains(&n))
    };
    assert!(after.pods.iter().any(|p| on_green(&p)), "{log}");
}
