//! Karpenter replaces its own nodes under the run's budget: what holds it back is named, and a run that stops leaves the
//! budget closed.

use std::collections::BTreeSet;
use std::time::Duration;

use eksup::engine::RunOutcome;
use eksup::model::kube::Node;
use eksup::model::node_pool::{KarpenterObjects, pool_of};
use eksup::model::{Inventory, Minor};
use eksup::twin::scenario;
use serde_json::{Value, json};

use super::world::{happen, no_marks, pools, replace_pods, stuck_in, whole};
use crate::support::process_rig::{Rig, RunCommand};

const PLAN: &str = include_str!("../../../plans/karpenter-drift.yaml");
/// The last step before Karpenter may replace a node.
const BEFORE_DRIFT: &str = "soak-expense-blue";
/// NodePools come one after another.
const BATCH: &str = "drift-pool-batch";
const GENERAL: &str = "drift-pool-general";

fn rig_with(plan: &str) -> Rig {
    let snapshot = scenario::find_scenario("karpenter-drift").unwrap();
    Rig::new(&snapshot, plan, 5)
}

/// Everything is done but what Karpenter does.
async fn before_drift(plan: &str) -> Rig {
    let rig = rig_with(plan);
    let paused = rig.apply_until(BEFORE_DRIFT).await;
    let at_rest = matches!(paused, RunOutcome::Paused { .. });
    assert!(at_rest, "{paused:?}\n{}", rig.log());
    rig
}

/// What Karpenter has; none while the API server restarts.
async fn objects(rig: &Rig) -> Option<KarpenterObjects> {
    rig.reached().await.kube.list_karpenter().await.ok()
}

/// Names of the pool's machines.
fn machines(objects: &KarpenterObjects, pool: &str) -> Vec<String> {
    let claims = objects.claims.iter();
    let claims = claims.filter(|c| c.pool.as_deref() == Some(pool));
    claims.map(|c| c.name.clone()).collect()
}

/// The run's budget, the last one of the pool.
fn last_budget(objects: &KarpenterObjects, pool: &str) -> Option<Value> {
    objects.find_pool(pool)?.budgets().pop()
}

fn closed() -> Option<Value> {
    Some(json!({"nodes": "0", "reasons": ["Drifted"]}))
}

fn nodes_at(after: &Inventory, pool: &str, minor: u16) -> usize {
    let of = |n: &&Node| {
        pool_of(n) == Some(pool)
            && Minor::from_reported(&n.kubelet_version).unwrap() == Minor::new(minor)
    };
    after.nodes.iter().filter(of).count()
}

/// The run stops in this drift and says why in these words; the budgets are closed then.
async fn stops_saying(rig: &Rig, step: &str, words: &[&str]) {
    let why = stuck_in(rig, step).await;
    for word in words {
        assert!(why.contains(word), "{word}: {why}");
    }
    let objects = objects(rig).await.unwrap();
    assert_eq!(last_budget(&objects, "general"), closed(), "{why}");
    assert_eq!(last_budget(&objects, "batch"), closed(), "{why}");
}

async fn is_done(rig: &Rig) {
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let after = rig.read().await;
    assert_eq!(nodes_at(&after, "general", 28), 0);
    assert_eq!(nodes_at(&after, "batch", 28), 0);
    no_marks(&after);
    whole(&after);
}

/// The control plane is new, Karpenter calls every machine drifted, and replaces none until the run lets it.
#[tokio::test(start_paused = true)]
async fn karpenter_touches_no_node_while_the_control_plane_moves() {
    let rig = rig_with(PLAN);
    let before = objects(&rig).await.unwrap();
    let mut drifted = 0;
    let watched = async {
        loop {
            tokio::time::sleep(Duration::from_secs(20)).await;
            let Some(now) = objects(&rig).await else {
                continue;
            };
            for pool in ["general", "batch"] {
                assert_eq!(machines(&now, pool), machines(&before, pool));
            }
            let open = now.claims.iter().filter(|c| c.has_condition("Drifted"));
            drifted = drifted.max(open.count());
        }
    };
    let paused = tokio::select! {
        paused = rig.apply_until(BEFORE_DRIFT) => paused,
        () = watched => unreachable!(),
    };
    assert!(matches!(paused, RunOutcome::Paused { .. }), "{paused:?}");
    // Or nothing would have been held back.
    assert_eq!(drifted, 4);
    is_done(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_to_be_disrupted_stops_a_drift_and_is_named() {
    let rig = before_drift(PLAN).await;
    happen(&rig, &["do-not-disrupt:expense/backend"]);
    let said = ["expense/backend-", "karpenter.sh/do-not-disrupt"];
    stops_saying(&rig, GENERAL, &said).await;
    assert_eq!(nodes_at(&rig.read().await, "general", 28), 3);
    // Pods that are made again have no annotation.
    replace_pods(&rig, "expense/backend-").await;
    is_done(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_lets_no_pod_go_stops_a_drift_and_is_named() {
    let rig = before_drift(PLAN).await;
    happen(&rig, &["budget:expense/backend:3"]);
    stops_saying(&rig, GENERAL, &["PodDisruptionBudget expense/backend"]).await;
    happen(&rig, &["budget:expense/backend:2"]);
    is_done(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_class_that_is_not_ready_stops_a_drift_and_is_named() {
    let rig = before_drift(PLAN).await;
    happen(&rig, &["nodeclass-not-ready:default"]);
    stops_saying(&rig, BATCH, &["EC2NodeClass default is not Ready"]).await;
    assert_eq!(nodes_at(&rig.read().await, "general", 28), 3);
}

#[tokio::test(start_paused = true)]
async fn machines_that_cannot_be_launched_stop_a_drift_and_are_named() {
    let rig = before_drift(PLAN).await;
    happen(&rig, &["node-pool-capacity:general"]);
    stops_saying(
        &rig,
        GENERAL,
        &["NodePool general", "replaces no further node"],
    )
    .await;
    let after = rig.read().await;
    assert_eq!(nodes_at(&after, "general", 28), 3);
    whole(&after);
}

#[tokio::test(start_paused = true)]
async fn a_karpenter_that_does_nothing_stops_a_drift() {
    let rig = before_drift(PLAN).await;
    happen(&rig, &["karpenter-down"]);
    stops_saying(&rig, BATCH, &["Karpenter replaces no further node"]).await;
}

/// The first node has gone, and its pod does not become Ready on the new one.
#[tokio::test(start_paused = true)]
async fn a_workload_that_is_short_holds_the_next_node_back() {
    let rig = before_drift(PLAN).await;
    happen(&rig, &["pod-never-ready:expense/backend"]);
    stops_saying(&rig, GENERAL, &["expense/backend"]).await;
    let after = rig.read().await;
    assert_eq!(nodes_at(&after, "general", 28), 2);
    assert_eq!(nodes_at(&after, "general", 29), 1);
    happen(&rig, &["workload-fixed:expense/backend"]);
    is_done(&rig).await;
}

/// The budget of the pool is open, with a time at which it ends.
async fn is_open(rig: &Rig, pool: &str) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let last = objects(rig).await.and_then(|now| last_budget(&now, pool));
        if last.is_some_and(|last| last["schedule"].is_string()) {
            return;
        }
    }
}

/// Nothing may go yet when it dies; the way is free later, and nobody looks.
#[tokio::test(start_paused = true)]
async fn a_process_that_dies_leaves_karpenter_minutes_only() {
    for (minutes, goes_on) in [(2, true), (12, false)] {
        let rig = before_drift(PLAN).await;
        happen(&rig, &["budget:expense/backend:3"]);
        tokio::select! {
            ended = Box::pin(rig.apply()) => panic!("{ended:?}\n{}", rig.log()),
            () = is_open(&rig, "general") => {}
        }
        tokio::time::sleep(Duration::from_secs(minutes * 60)).await;
        happen(&rig, &["budget:expense/backend:2"]);
        let before = objects(&rig).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let after = objects(&rig).await.unwrap();
        let same = machines(&before, "general") == machines(&after, "general");
        assert_eq!(same, !goes_on, "after {minutes} minutes");
        is_done(&rig).await;
    }
}

/// A PodDisruptionBudget lets nothing go for longer than one opening lasts.
#[tokio::test(start_paused = true)]
async fn a_process_that_watches_keeps_the_budget_open() {
    let rig = before_drift(PLAN).await;
    happen(&rig, &["budget:expense/backend:3"]);
    let fixed_later = async {
        is_open(&rig, "general").await;
        tokio::time::sleep(Duration::from_secs(25 * 60)).await;
        happen(&rig, &["budget:expense/backend:2"]);
    };
    let (ended, ()) = tokio::join!(Box::pin(rig.apply()), fixed_later);
    assert_eq!(ended, RunOutcome::Done, "{}", rig.log());
    no_marks(&rig.read().await);
}

/// Every node is a part of its own, and between two of them the budget is closed.
#[tokio::test(start_paused = true)]
async fn outside_its_windows_a_drift_pauses_between_nodes_with_the_budget_closed() {
    let from = before_drift(PLAN).await.clock.now();
    // `batch` takes three minutes with its watch, and so does the first node of `general`: the second does not begin any more.
    let at = |minutes: i64| {
        let at = from + jiff::SignedDuration::from_mins(minutes);
        at.strftime("%H:%M").to_string()
    };
    let windows = format!(
        "windows:\n  - {{from: \"{}\", to: \"{}\"}}\n",
        at(-5 * 60),
        at(4)
    );
    let mut rig = rig_with(&format!("{PLAN}\n{windows}"));
    rig.apply_until(BEFORE_DRIFT).await;
    rig.live = true;
    let paused = rig.apply().await;
    let RunOutcome::Paused { why, planned, .. } = &paused else {
        panic!("{paused:?}\n{}", rig.log())
    };
    assert!(*planned && why.contains("window"), "{why}");
    let after = rig.read().await;
    assert_eq!(nodes_at(&after, "general", 28), 2, "{}", rig.log());
    assert_eq!(nodes_at(&after, "general", 29), 1);
    whole(&after);
    let now = objects(&rig).await.unwrap();
    assert_eq!(last_budget(&now, "general"), closed());
    // Nothing goes on while nobody looks.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let later = objects(&rig).await.unwrap();
    assert_eq!(machines(&later, "general"), machines(&now, "general"));
    rig.live = false;
    is_done(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_after_a_drift_keeps_the_nodes_and_takes_the_budget_off() {
    let rig = rig_with(PLAN);
    let before = rig.read().await;
    let paused = rig.apply_until(GENERAL).await;
    assert!(matches!(paused, RunOutcome::Paused { .. }), "{paused:?}");
    let replaced = rig.read().await;
    assert_eq!(nodes_at(&replaced, "general", 29), 3);
    let ended = rig.rollback().await;
    let rolled = matches!(ended, Ok(RunOutcome::RolledBack { .. }));
    assert!(rolled, "{ended:?}\n{}", rig.log());
    let after = rig.read().await;
    let names = |i: &Inventory| -> Vec<String> {
        let of = i.nodes.iter().filter(|n| pool_of(n) == Some("general"));
        of.map(|n| n.name.clone()).collect()
    };
    assert_eq!(names(&after), names(&replaced));
    assert_eq!(pools(&after).len(), pools(&before).len());
    no_marks(&after);
    whole(&after);
}

/// The budget lies before the hop that is rolled back: it was kept with what came before it, and Karpenter was held for good.
#[tokio::test(start_paused = true)]
async fn a_rollback_of_the_control_plane_takes_the_budget_off() {
    let rig = rig_with(PLAN);
    let before = objects(&rig).await.unwrap();
    rig.apply_until(BEFORE_DRIFT).await;
    let back = RunCommand::Rollback {
        control_plane: true,
    };
    let ended = rig.process(back).await;
    let rolled = matches!(ended, Ok(RunOutcome::RolledBack { .. }));
    assert!(rolled, "{ended:?}\n{}", rig.log());
    // Once for all NodePools.
    let log = rig.log();
    let late = log
        .lines()
        .filter(|l| l.contains("may still read the version"));
    let late: BTreeSet<&str> = late
        .filter_map(|l| l.split(": ").next()?.split_whitespace().last())
        .collect();
    assert_eq!(late.len(), 1, "{late:?}");
    // Karpenter has read the newer version, and reads the older one some minutes later only.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let after = rig.read().await;
    assert_eq!(after.cluster.version, Minor::new(28));
    for pool in ["general", "batch"] {
        assert_eq!(
            machines(&objects(&rig).await.unwrap(), pool),
            machines(&before, pool)
        );
    }
    no_marks(&after);
    whole(&after);
}

/// EKS was asked to roll the control plane back, and the process died. The command that continues it was refused until EKS had
/// ended; the one without the flag let Karpenter go meanwhile, and its new nodes were newer than the control plane.
#[tokio::test(start_paused = true)]
async fn a_rollback_that_eks_is_at_goes_on_with_the_flag_and_without() {
    for control_plane in [true, false] {
        let rig = rig_with(PLAN);
        let before = objects(&rig).await.unwrap();
        rig.apply_until("bake-control-plane-1.29").await;
        let asked = async {
            while rig.count("POST /clusters/karpenter-drift/updates", "") < 2 {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        };
        let back = RunCommand::Rollback {
            control_plane: true,
        };
        tokio::select! {
            ended = rig.process(back) => panic!("{ended:?}\n{}", rig.log()),
            () = asked => {}
        }
        let ended = rig.process(RunCommand::Rollback { control_plane }).await;
        let rolled = matches!(&ended, Ok(RunOutcome::RolledBack { kept }) if kept.is_empty());
        assert!(rolled, "{control_plane}: {ended:?}\n{}", rig.log());
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let after = rig.read().await;
        assert_eq!(after.cluster.version, Minor::new(28));
        for pool in ["general", "batch"] {
            let now = objects(&rig).await.unwrap();
            assert_eq!(machines(&now, pool), machines(&before, pool));
        }
        no_marks(&after);
        whole(&after);
    }
}

/// EKS asks for another order of hops and node groups: the second route holds the same NodePools, in a run of its own.
#[tokio::test(start_paused = true)]
async fn another_route_takes_the_first_ones_budgets_over() {
    let rig = rig_with(&PLAN.replace("to: 1.29", "to: 1.30"));
    rig.twin
        .with_world(|world| world.cloud.switches.node_groups_must_match = true);
    let before = rig.read().await;
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    assert!(rig.log().contains("another route is needed"));
    let after = rig.read().await;
    no_marks(&after);
    whole(&after);
    let budgets =
        |i: &Inventory| -> Vec<Vec<Value>> { i.node_pools().map(|p| p.budgets()).collect() };
    assert_eq!(budgets(&after), budgets(&before));
}

#[tokio::test(start_paused = true)]
async fn node_pools_that_the_plan_leaves_are_neither_held_nor_waited_for() {
    let plan = PLAN
        .replace("strategy: drift", "strategy: leave")
        .replace("    budget: \"1\"\n", "");
    let rig = rig_with(&plan);
    let route = eksup::route::build_route(&rig.plan, &rig.read().await).unwrap();
    let steps: Vec<&str> = route.steps.iter().map(|s| s.id.as_str()).collect();
    assert!(!steps.iter().any(|s| s.contains("pool")), "{steps:?}");
    let said = format!("{:?}", route.notes);
    for pool in ["general", "batch"] {
        assert!(said.contains(&format!("NodePool {pool}")), "{said}");
    }
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    assert_eq!(rig.count("PATCH /apis/karpenter.sh/", ""), 0);
}
