//! What was measured beside the real autoscaler, on the bundled cluster of three nodes.

use std::time::Duration;

use serde_json::json;

use super::super::json::{list_at_mut, set_at};
use super::super::kinds::NODES;
use super::super::store::ObjectKey;
use super::super::{cloud_hooks, run_in_cluster};
use super::{ScalingAction, find_node_annotation, scaling_actions};
use crate::model::Clock;
use crate::twin::world::SimWorld;
use crate::twin::{Twin, fault, scenario};

const BLUE: &str = "expense-blue";
const HELD: &str = "cluster-autoscaler.kubernetes.io/scale-down-disabled";

/// The bundled cluster with these fault rules.
fn twin(rules: &[&str]) -> Twin {
    let snapshot = scenario::expense_dev();
    let clock = Clock::starting_at(snapshot.inventory.taken_at);
    let mut world = scenario::load_world_at(&snapshot, 3, clock);
    fault::add_rules(
        &mut world,
        rules.iter().map(|r| r.parse().unwrap()).collect(),
    );
    Twin::start(world)
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn nodes(world: &SimWorld) -> Vec<String> {
    cloud_hooks::nodes_of_group(world, BLUE)
}

/// The node that the autoscaler's own pod runs on.
fn home(world: &SimWorld) -> String {
    let all = nodes(world);
    let here = |n: &&String| {
        cloud_hooks::pods_on(world, n)
            .iter()
            .any(|p| p.name.starts_with(super::AUTOSCALER_NAME))
    };
    all.iter().find(here).cloned().unwrap_or_default()
}

fn change(world: &mut SimWorld, node: &str, f: impl FnOnce(&mut serde_json::Value)) {
    run_in_cluster(world, |cluster| {
        cluster.change_object(&ObjectKey::new(NODES, "", node), f);
    });
}

fn cordon(world: &mut SimWorld) {
    for node in nodes(world) {
        change(world, &node, |n| set_at(n, "spec.unschedulable", true));
    }
}

fn taint(world: &mut SimWorld) {
    for node in nodes(world) {
        change(world, &node, |n| {
            let taint = json!({"key": "eksup.dev/blue", "value": "r", "effect": "NoSchedule"});
            list_at_mut(n, "spec.taints").push(taint);
        });
    }
}

/// Evicts the pods of a node that is not the autoscaler's, so that they look for another.
fn evict_one(world: &mut SimWorld) {
    let home = home(world);
    let other = nodes(world).into_iter().find(|n| *n != home);
    cloud_hooks::evict_node_pods(world, &other.unwrap());
}

fn ended(twin: &Twin) -> usize {
    twin.with_world(|world| {
        let ended = |d: &&ScalingAction| matches!(d, ScalingAction::Ended { .. });
        scaling_actions(world).iter().filter(ended).count()
    })
}

fn grown(twin: &Twin) -> i64 {
    twin.with_world(|world| {
        let by = scaling_actions(world).iter().map(|d| match d {
            ScalingAction::Grew { by, .. } => *by,
            _ => 0,
        });
        by.sum()
    })
}

#[tokio::test(start_paused = true)]
async fn a_group_at_its_smallest_size_is_never_shrunk() {
    let twin = twin(&["autoscaler:60s"]);
    pass(3600).await;
    assert_eq!(ended(&twin), 0);
    assert_eq!(twin.with_world(|w| nodes(w).len()), 3);
}

#[tokio::test(start_paused = true)]
async fn cordoned_nodes_go_down_to_the_smallest_size_and_held_ones_stay() {
    for hold in [false, true] {
        let twin = twin(&["autoscaler:60s", "min-size:expense-blue:1"]);
        pass(30).await;
        twin.with_world(|world| {
            for node in nodes(world).into_iter().filter(|_| hold) {
                change(world, &node, |n| {
                    n["metadata"]["annotations"][HELD] = json!("true");
                });
                assert_eq!(
                    run_in_cluster(world, |c| find_node_annotation(c, &node, HELD)).as_deref(),
                    Some("true")
                );
            }
        });
        pass(1800).await;
        let left = twin.with_world(|w| nodes(w).len());
        if hold {
            assert_eq!((ended(&twin), left), (0, 3));
        } else {
            // Its own node it cannot empty: a pod of the system without a budget runs there.
            assert!((1..3).contains(&left), "{left} of 3 nodes are left");
            assert_eq!(ended(&twin), 3 - left);
            let group = twin.with_world(|w| w.cloud.eks.clone().unwrap().nodegroups[BLUE].clone());
            assert_eq!(group.desired, left as i64, "EKS has come to show it");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_connections_drain_is_ended_once_and_what_cannot_go_stays() {
    let twin = twin(&["autoscaler:10s", "min-size:expense-blue:0"]);
    pass(3600).await;
    // The autoscaler's own node has a pod that may not go, and the volume's node is the only one of its zone.
    let left = twin.with_world(|w| nodes(w).len());
    assert!(left >= 2, "{left} nodes are left");
    assert_eq!(ended(&twin), 3 - left);
}

#[tokio::test(start_paused = true)]
async fn a_cordoned_group_grows_by_the_template_it_had_and_not_once_its_taint_was_seen_before_the_cordon()
 {
    // Only cordoned: the template is that of before.
    let only_cordoned = twin(&["autoscaler:600s"]);
    pass(60).await;
    only_cordoned.with_world(cordon);
    pass(30).await;
    only_cordoned.with_world(evict_one);
    pass(60).await;
    assert!(grown(&only_cordoned) > 0);

    // Tainted and cordoned between two rounds: the same, and what grows cannot be used.
    let at_once = twin(&["autoscaler:600s"]);
    pass(60).await;
    at_once.with_world(|w| {
        taint(w);
        cordon(w);
    });
    pass(30).await;
    at_once.with_world(evict_one);
    pass(60).await;
    assert!(grown(&at_once) > 0);

    // A round between taint and cordon.
    let seen = twin(&["autoscaler:600s"]);
    pass(60).await;
    seen.with_world(taint);
    pass(25).await;
    seen.with_world(cordon);
    pass(30).await;
    seen.with_world(evict_one);
    pass(600).await;
    assert_eq!(grown(&seen), 0);
}

#[tokio::test(start_paused = true)]
async fn an_evicted_autoscaler_comes_back_and_has_forgotten_what_it_knew() {
    let twin = twin(&["autoscaler:600s"]);
    pass(60).await;
    twin.with_world(|world| {
        let home = home(world);
        assert_ne!(home, "");
        cloud_hooks::evict_node_pods(world, &home);
    });
    pass(300).await;
    twin.with_world(|world| {
        assert!(
            scaling_actions(world).contains(&ScalingAction::Restarted),
            "{:?}",
            scaling_actions(world)
        );
    });
}
