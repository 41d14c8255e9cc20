//! Pods on Fargate: replaced one workload at a time, one pod at a time where nothing may be had beyond the replicas, and
//! never against a budget.

use std::time::Duration;

use eksup::engine::RunOutcome;
use eksup::model::kube::Node;
use eksup::model::snapshot::Snapshot;
use eksup::model::{Inventory, Minor};
use eksup::twin::scenario;
use serde_json::{Value, json};

use super::world::{happen, stuck_in, whole};
use crate::support::process_rig::Rig;

const PLAN: &str = include_str!("../../../plans/fargate.yaml");
const RESTART: &str = "restart-fargate-1.29";

fn cluster() -> Snapshot {
    scenario::find_scenario("fargate").unwrap()
}

fn rig_on(snapshot: &Snapshot, plan: &str) -> Rig {
    Rig::new(snapshot, plan, 5)
}

/// Everything is done up to the step that replaces pods on Fargate.
async fn before_restart(snapshot: &Snapshot) -> Rig {
    let rig = rig_on(snapshot, PLAN);
    let route = eksup::route::build_route(&rig.plan, &rig.read().await).unwrap();
    let at = route.steps.iter().position(|s| s.id == RESTART).unwrap();
    let paused = rig.apply_until(&route.steps[at - 1].id).await;
    assert!(matches!(paused, RunOutcome::Paused { .. }), "{paused:?}");
    rig
}

fn old_nodes(i: &Inventory) -> usize {
    let old = |n: &&Node| {
        n.is_fargate() && Minor::from_reported(&n.kubelet_version).unwrap() < Minor::new(29)
    };
    i.nodes.iter().filter(old).count()
}

async fn is_done(rig: &Rig) {
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let after = rig.read().await;
    assert_eq!(old_nodes(&after), 0);
    whole(&after);
}

/// The object of the Deployment in the snapshot.
fn deployment<'a>(s: &'a mut Snapshot, name: &str) -> &'a mut Value {
    let path = "/apis/apps/v1/deployments";
    let all = s.kubernetes.get_mut(path).unwrap().iter_mut();
    let mut named = all.filter(|d| d["metadata"]["name"] == name);
    named.next().unwrap()
}

/// The least number of Ready pods that the workload has while `run` goes on.
async fn fewest_ready<T>(rig: &Rig, name: &str, run: impl Future<Output = T>) -> (T, i64) {
    let mut fewest = i64::MAX;
    let watched = async {
        let kube = rig.reached().await.kube;
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            for workload in kube.list_workloads().await.into_iter().flatten() {
                if workload.key.to_string() == name {
                    fewest = fewest.min(i64::from(workload.ready));
                }
            }
        }
    };
    let ended = tokio::select! {
        ended = run => ended,
        () = watched => unreachable!(),
    };
    (ended, fewest)
}

/// How often the run did something to a workload whose name begins like this.
fn acts(rig: &Rig, what: &str, name: &str) -> usize {
    let log = rig.log();
    let acts = log.lines().filter(|l| l.contains(what) && l.contains(name));
    acts.count()
}

#[tokio::test(start_paused = true)]
async fn a_deployment_without_surge_is_evicted_pod_by_pod_and_each_successor_is_ready_first() {
    let mut snapshot = cluster();
    deployment(&mut snapshot, "web")["spec"]["strategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
    let rig = before_restart(&snapshot).await;
    let (ended, fewest) = fewest_ready(&rig, "shop/web", rig.apply()).await;
    assert_eq!(ended, RunOutcome::Done, "{}", rig.log());
    assert_eq!(fewest, 2);
    let path = "POST /api/v1/namespaces/shop/pods/web-";
    assert_eq!(rig.count(path, "/eviction"), 3, "{}", rig.log());
    let restarts = "PATCH /apis/apps/v1/namespaces/shop/deployments/web";
    assert_eq!(rig.count(restarts, ""), 0);
    // One that may have more pods for a while is restarted, and no pod of it is evicted.
    let restarts = "PATCH /apis/apps/v1/namespaces/shop/deployments/cart";
    assert_eq!(rig.count(restarts, ""), 1);
    let path = "POST /api/v1/namespaces/shop/pods/cart-";
    assert_eq!(rig.count(path, "/eviction"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_is_restarted_never_has_fewer_ready_pods() {
    let rig = before_restart(&cluster()).await;
    let (ended, fewest) = fewest_ready(&rig, "shop/web", rig.apply()).await;
    assert_eq!((ended, fewest), (RunOutcome::Done, 3), "{}", rig.log());
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_lets_no_pod_on_fargate_go_holds_and_is_named() {
    let rig = before_restart(&cluster()).await;
    happen(&rig, &["budget:shop/queue:2"]);
    let (why, fewest) = fewest_ready(&rig, "shop/queue", stuck_in(&rig, RESTART)).await;
    assert!(why.contains("PDB shop/queue"), "{why}");
    assert_eq!(fewest, 2);
    happen(&rig, &["budget:shop/queue:1"]);
    is_done(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_get_no_fargate_node_for_a_while_are_waited_for() {
    let rig = before_restart(&cluster()).await;
    happen(&rig, &["fargate-capacity:10m"]);
    let (ended, fewest) = fewest_ready(&rig, "shop/web", rig.apply()).await;
    assert_eq!((ended, fewest), (RunOutcome::Done, 3), "{}", rig.log());
    let after = rig.read().await;
    assert_eq!(old_nodes(&after), 0);
    whole(&after);
}

#[tokio::test(start_paused = true)]
async fn pods_that_get_no_fargate_node_for_hours_stop_the_run_with_the_old_ones_ready() {
    let rig = before_restart(&cluster()).await;
    happen(&rig, &["fargate-capacity:9h"]);
    let (why, fewest) = fewest_ready(&rig, "shop/cart", stuck_in(&rig, RESTART)).await;
    assert!(why.contains("shop/cart"), "{why}");
    assert_eq!(fewest, 2);
    tokio::time::sleep(Duration::from_secs(9 * 3600)).await;
    is_done(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn pods_on_fargate_that_the_plan_leaves_stay_and_are_told() {
    let plan = PLAN.replace("fargate: restart", "fargate: leave");
    let rig = rig_on(&cluster(), &plan);
    let before = rig.read().await;
    let route = eksup::route::build_route(&rig.plan, &before).unwrap();
    let said = format!("{:?}", route.notes);
    assert!(said.contains("Fargate keeps its"), "{said}");
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    assert_eq!(acts(&rig, "restart", "shop/"), 0);
    let log = rig.log();
    assert!(
        log.contains("not replaced by the run, and older than 1.29") && log.contains("on Fargate"),
        "{log}"
    );
    let after = rig.read().await;
    assert_eq!(old_nodes(&after), old_nodes(&before));
    whole(&after);
}
