//! Upgrades beside a cluster autoscaler that may shrink blue.

use std::collections::BTreeSet;
use std::time::Duration;

use eksup::engine::RunOutcome;
use eksup::model::Inventory;
use eksup::twin::fault;
use eksup::twin::k8s::autoscaler::{ScalingAction, scaling_actions};

use super::world::{no_marks, weights, whole};
use super::{expense, promised};
use crate::support::process_rig::Rig;

fn add(rig: &Rig, rules: &[&str]) {
    let rules = rules.iter().map(|r| r.parse().unwrap()).collect();
    rig.twin.with_world(|world| fault::add_rules(world, rules));
}

/// The nodes of blue.
fn blue(read: &Inventory) -> BTreeSet<String> {
    let nodes = read.nodes_of("expense-blue");
    nodes.map(|n| n.name.clone()).collect()
}

fn taken_from_blue(rig: &Rig) -> Vec<String> {
    rig.twin.with_world(|world| {
        let taken = scaling_actions(world)
            .iter()
            .filter_map(|action| match action {
                ScalingAction::Ended { nodegroup, node } if nodegroup == "expense-blue" => {
                    Some(node.clone())
                }
                _ => None,
            });
        taken.collect()
    })
}

/// Pauses the run, without shortening its way.
async fn until(rig: &Rig, step: &str) {
    let ended = rig.apply_until(step).await;
    assert!(
        matches!(ended, RunOutcome::Paused { .. }),
        "{step}: {ended:?}\n{}",
        rig.log()
    );
}

#[tokio::test(start_paused = true)]
async fn blue_keeps_its_nodes_until_it_is_retired_whatever_an_autoscaler_thinks_of_them() {
    for seed in [7, 8] {
        let rig = expense(seed);
        until(&rig, "hold-expense-blue").await;
        let before = blue(&rig.read().await);
        assert_eq!(before.len(), 3);
        add(&rig, &["autoscaler:60s", "min-size:expense-blue:1"]);
        until(&rig, "drain-expense-blue").await;
        // Empty and cordoned for far longer than the autoscaler bears.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        until(&rig, "soak-expense-blue").await;
        assert_eq!(taken_from_blue(&rig), Vec::<String>::new(), "{}", rig.log());
        assert_eq!(blue(&rig.read().await), before);
        // Its own pod was on blue: the drain has evicted it, and the next one began with nothing.
        let actions = rig.twin.with_world(|world| scaling_actions(world).to_vec());
        assert!(actions.contains(&ScalingAction::Restarted), "{actions:?}");
        let log = rig.log();
        let told = "expense-blue still has 3 nodes Ready and could carry the";
        assert!(log.contains(told), "{log}");
        assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
        promised(&rig.read().await);
    }
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_that_has_just_made_blue_smaller_does_not_stop_the_cordon() {
    let rig = expense(7);
    until(&rig, "register-expense-green-tg").await;
    // EKS goes on showing the old size for a while.
    add(&rig, &["min-size:expense-blue:1", "scale:expense-blue:-1"]);
    until(&rig, "cordon-expense-blue").await;
    let rig_log = rig.log();
    assert!(
        rig_log.contains("a cluster autoscaler has to see the taint of expense-blue before"),
        "{rig_log}"
    );
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
}

#[tokio::test(start_paused = true)]
async fn a_rollback_makes_blue_as_large_as_it_was_before_traffic_or_pods_go_back_to_it() {
    let rig = expense(7);
    let before = rig.read().await;
    until(&rig, "drain-expense-blue").await;
    add(&rig, &["min-size:expense-blue:1", "scale:expense-blue:-2"]);
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(blue(&rig.read().await).len(), 1);
    let ended = rig.rollback().await;
    let log = rig.log();
    assert!(
        matches!(ended, Ok(RunOutcome::RolledBack { .. })),
        "{ended:?}\n{log}"
    );
    let place = |text: &str| {
        let at = log.rfind(text);
        at.unwrap_or_else(|| panic!("`{text}` is not in\n{log}"))
    };
    let grown = place("scale expense-blue up to 3 nodes again");
    assert!(grown < place("0% on green"), "{log}");
    assert!(grown < place("untaint and uncordon"), "{log}");
    tokio::time::sleep(Duration::from_secs(300)).await;
    let after = rig.read().await;
    assert_eq!(blue(&after).len(), 3);
    assert_eq!(weights(&after), weights(&before));
    no_marks(&after);
    whole(&after);
}

#[tokio::test(start_paused = true)]
async fn nodes_of_green_that_have_joined_are_kept_while_another_one_is_waited_for() {
    let rig = expense(7);
    until(&rig, "hold-expense-blue").await;
    add(
        &rig,
        &[
            "autoscaler:60s",
            "min-size:expense-blue:1",
            "node-never-joins:1",
        ],
    );
    // Less than EKS waits for the node that does not come, and far longer than the autoscaler bears idle ones.
    let waiting = tokio::time::timeout(Duration::from_secs(600), rig.apply()).await;
    assert!(waiting.is_err(), "{waiting:?}\n{}", rig.log());
    let actions = rig.twin.with_world(|world| scaling_actions(world).to_vec());
    let of_green = |a: &&ScalingAction| matches!(a, ScalingAction::Ended { nodegroup, .. } if nodegroup == "expense-green");
    let ended: Vec<_> = actions.iter().filter(of_green).collect();
    assert!(ended.is_empty(), "{ended:?}\n{}", rig.log());
    let there = rig.read().await.nodes_of("expense-green").count();
    assert_eq!(there, 2, "{}", rig.log());
}
