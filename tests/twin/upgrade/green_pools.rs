//! A green NodePool beside blue whose machines do not come: the run stops and names why, and is rolled back whole.

use std::time::Duration;

use eksup::engine::RunOutcome;
use eksup::twin::scenario;

use super::world::{classes, differences, happen, stuck_in};
use crate::support::process_rig::Rig;

const PLAN: &str = include_str!("../../../plans/karpenter-blue-green.yaml");

fn rig_with(plan: &str) -> Rig {
    let snapshot = scenario::find_scenario("karpenter-blue-green").unwrap();
    Rig::new(&snapshot, plan, 5)
}

/// The run stops while it makes `general-green` and says so in these words; its rollback leaves the world as it was.
async fn stops_and_rolls_back(rig: &Rig, rule: &str, words: &[&str]) {
    let before = rig.read().await;
    // The hop itself needs no machine.
    let paused = rig.apply_until("bake-control-plane-1.29").await;
    assert!(matches!(paused, RunOutcome::Paused { .. }), "{paused:?}");
    happen(rig, &[rule]);
    let why = stuck_in(rig, "green-general-green").await;
    for word in words {
        assert!(why.contains(word), "{word}: {why}");
    }
    let ended = rig.rollback().await;
    let rolled = matches!(ended, Ok(RunOutcome::RolledBack { .. }));
    assert!(rolled, "{ended:?}\n{}", rig.log());
    // The API server collects what a NodePool owned in the background. The control plane keeps its version, so that
    // Karpenter begins to replace blue's nodes once it is let go.
    happen(rig, &["karpenter-down"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let after = rig.read().await;
    let claims = |pool: &str| {
        let claims = after.karpenter.iter().flat_map(|k| &k.claims);
        let of = claims.filter(|c| c.pool.as_deref() == Some(pool));
        of.count()
    };
    assert_eq!((claims("general-green"), claims("batch-green")), (0, 0));
    let found = differences(&before, &after);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_green_node_pool_whose_machines_cannot_be_launched_is_rolled_back_whole() {
    let rule = "node-pool-capacity:general-green";
    stops_and_rolls_back(&rig_with(PLAN), rule, &["general-green"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_class_that_is_not_ready_is_named_while_green_is_made() {
    let rule = "nodeclass-not-ready:default";
    let words = ["EC2NodeClass default is not Ready"];
    stops_and_rolls_back(&rig_with(PLAN), rule, &words).await;
}

#[tokio::test(start_paused = true)]
async fn a_karpenter_that_does_nothing_leaves_green_unmade() {
    stops_and_rolls_back(&rig_with(PLAN), "karpenter-down", &["general-green"]).await;
}

/// The class is a copy of blue's, and goes with green.
#[tokio::test(start_paused = true)]
async fn a_green_node_pool_has_a_node_class_of_its_own_for_another_image() {
    let plan = PLAN.replace(
        "    capacity: full",
        "    capacity: full\n    ami: bottlerocket@latest",
    );
    let rig = rig_with(&plan);
    let before = rig.read().await;
    let paused = rig.apply_until("green-general-green").await;
    assert!(
        matches!(paused, RunOutcome::Paused { .. }),
        "{paused:?}\n{}",
        rig.log()
    );
    let made = rig.read().await;
    let own = classes(&made).remove("general-green").unwrap();
    assert!(own.contains("bottlerocket@latest"), "{own}");
    let ended = rig.rollback().await;
    assert!(
        matches!(ended, Ok(RunOutcome::RolledBack { .. })),
        "{ended:?}\n{}",
        rig.log()
    );
    let found = differences(&before, &rig.read().await);
    assert!(found.is_empty(), "{}", found.join("\n"));
}
