//! EKS Auto Mode: EKS replaces its nodes once the control plane is newer, and the run waits, or leaves them.

use eksup::engine::RunOutcome;
use eksup::model::{Inventory, Minor};
use eksup::run::RunError;
use eksup::twin::scenario;

use super::world::{happen, no_marks, pools, replace_pods, stuck_in, whole};
use crate::support::process_rig::{Rig, RunCommand};

const PLAN: &str = include_str!("../../../plans/auto-mode.yaml");
const WAIT: &str = "wait-auto-mode-1.31";

fn rig_with(plan: &str) -> Rig {
    Rig::new(&scenario::find_scenario("auto-mode").unwrap(), plan, 5)
}

fn old_nodes(i: &Inventory) -> usize {
    let old = |kubelet: &str| Minor::from_reported(kubelet).unwrap() < Minor::new(31);
    let old = i.nodes.iter().filter(|n| old(&n.kubelet_version));
    old.count()
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_to_be_disrupted_stops_the_wait_and_is_named() {
    let rig = rig_with(PLAN);
    let pod = {
        let inventory = rig.read().await;
        let mut named = inventory
            .workloads
            .iter()
            .filter(|w| w.kind == "Deployment");
        named.next().unwrap().key.to_string()
    };
    happen(&rig, &[&format!("do-not-disrupt:{pod}")]);
    let why = stuck_in(&rig, WAIT).await;
    assert!(why.contains("karpenter.sh/do-not-disrupt"), "{why}");
    assert!(why.contains(&pod), "{why}");
    replace_pods(&rig, &format!("{pod}-")).await;
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let after = rig.read().await;
    assert_eq!(old_nodes(&after), 0);
    whole(&after);
}

/// EKS begins with a node, takes it back when no machine comes up, and begins again: each time looked like progress, and the
/// run waited for as long as there was no capacity.
#[tokio::test(start_paused = true)]
async fn machines_that_cannot_be_launched_stop_the_wait_and_are_named() {
    let rig = rig_with(PLAN);
    rig.apply_until("control-plane-1.31").await;
    happen(&rig, &["node-pool-capacity:general-purpose"]);
    let began = rig.clock.now();
    let why = stuck_in(&rig, WAIT).await;
    assert!(why.contains("machines were begun and are gone"), "{why}");
    assert!(rig.clock.now().duration_since(began).as_hours() < 3);
}

/// The run until after this step and back, with the control plane or without: how many nodes are of the old version.
async fn old_nodes_after_rollback(step: &str, control_plane: bool) -> (Inventory, usize) {
    let rig = rig_with(PLAN);
    let before = rig.read().await;
    let paused = rig.apply_until(step).await;
    assert!(matches!(paused, RunOutcome::Paused { .. }), "{paused:?}");
    let rollback = RunCommand::Rollback { control_plane };
    let ended: Result<RunOutcome, RunError> = rig.process(rollback).await;
    let rolled = matches!(ended, Ok(RunOutcome::RolledBack { .. }));
    assert!(rolled, "{step}: {ended:?}\n{}", rig.log());
    // EKS finishes what it has begun.
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    let after = rig.read().await;
    assert_eq!(pools(&after), pools(&before));
    no_marks(&after);
    whole(&after);
    let old = old_nodes(&after);
    (after, old)
}

const STEPS: [&str; 3] = ["control-plane-1.31", "bake-control-plane-1.31", WAIT];

#[tokio::test(start_paused = true)]
async fn a_rollback_from_every_step_leaves_eks_its_nodes() {
    for step in STEPS {
        let (after, old) = old_nodes_after_rollback(step, false).await;
        assert_eq!((after.cluster.version, old), (Minor::new(31), 0), "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_of_the_control_plane_from_every_step_takes_its_nodes_back() {
    for step in STEPS {
        let (after, old) = old_nodes_after_rollback(step, true).await;
        let of_old = (Minor::new(30), after.nodes.len());
        assert_eq!((after.cluster.version, old), of_old, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_of_auto_mode_that_the_plan_leaves_are_not_waited_for_and_are_told() {
    let rig = rig_with(&PLAN.replace("autoMode: wait", "autoMode: leave"));
    let route = eksup::route::build_route(&rig.plan, &rig.read().await).unwrap();
    let said = format!("{:?}", route.notes);
    assert!(said.contains("EKS Auto Mode replaces its"), "{said}");
    assert!(!route.steps.iter().any(|s| s.id == WAIT));
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    whole(&rig.read().await);
}
