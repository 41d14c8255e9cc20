//! Self-managed groups with a warm pool: blue's is gone before blue is closed, green has the same one once blue is empty, and
//! nothing of either is left where it should not be.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use eksup::engine::RunOutcome;
use eksup::model::asg::Asg;
use eksup::model::snapshot::Snapshot;
use eksup::model::warm_pool::WarmPool;
use eksup::twin::k8s::cloud_hooks;
use eksup::twin::scenario;
use serde_json::{Value, json};

use crate::support::process_rig::{Rig, RunCommand};
use crate::warm_pool::{GROUP as BLUE, stopped, with_pool};

const PLAN: &str = "apiVersion: eksup.dev/v1\nkind: UpgradePlan\ncluster: self-managed\nto: 1.28\nautoScalingGroups:\n- {blue: web-blue, ami: auto}\n";
const GREEN: &str = "web-green";
/// How long a pool takes to fill and its nodes to fall silent.
const FILL_TIME: Duration = Duration::from_secs(10 * 60);

fn cluster() -> Snapshot {
    scenario::find_scenario("self-managed").unwrap()
}

/// The cluster, with user data that starts the kubelet only when the instance is taken into service.
fn joining_later(mut snapshot: Snapshot) -> Snapshot {
    let templates = snapshot.aws.get_mut("ec2:LaunchTemplates").unwrap();
    let mut templates = templates.iter_mut();
    let web = templates.find(|t| t["LaunchTemplateName"] == "web-nodes");
    let data = &mut web.unwrap()["Versions"][0]["LaunchTemplateData"]["UserData"];
    let text = STANDARD.decode(data.as_str().unwrap()).unwrap();
    let text = String::from_utf8(text).unwrap();
    // What a public script asks first, in the words that tell it.
    let asks = "# while LifecycleState is Warmed:* wait\n";
    *data = json!(STANDARD.encode(format!("{text}\n{asks}")));
    snapshot
}

async fn filled(pool: Value, plan: &str) -> Rig {
    filled_from(&with_pool(cluster(), pool), plan).await
}

async fn filled_from(snapshot: &Snapshot, plan: &str) -> Rig {
    let rig = Rig::new(snapshot, plan, 7);
    tokio::time::sleep(FILL_TIME).await;
    rig
}

fn as_model() -> WarmPool {
    WarmPool {
        min: 2,
        max_prepared: None,
        state: "Stopped".into(),
        reuse: true,
    }
}

async fn group(rig: &Rig, name: &str) -> Option<Asg> {
    rig.read().await.asgs.get(name).cloned()
}

async fn pool_of(rig: &Rig, name: &str) -> Option<WarmPool> {
    let group = group(rig, name).await;
    group.and_then(|g| g.warm_pool).map(|r| r.pool)
}

/// The states of a group's instances that still exist, those of its warm pool among them.
fn instances_of(rig: &Rig, name: &str) -> Vec<String> {
    rig.twin.with_world(|w| {
        let own = { w.cloud.instances.values() }.filter(|i| i.asg.as_deref() == Some(name));
        let states = own.map(|i| i.state.clone());
        states.filter(|s| s != "terminated").collect()
    })
}

/// Nodes of the cluster whose instance is stopped.
fn silent_nodes(rig: &Rig) -> usize {
    rig.twin.with_world(|w| {
        let stopped = { w.cloud.instances.values() }.filter(|i| i.state == "stopped");
        let ids: Vec<String> = stopped.map(|i| i.id.clone()).collect();
        let nodes = ids
            .iter()
            .filter_map(|id| cloud_hooks::node_of_instance(w, id));
        nodes.count()
    })
}

#[tokio::test(start_paused = true)]
async fn a_pool_moves_with_its_group_however_often_the_process_dies() {
    let rig = filled(stopped(), PLAN).await;
    assert_eq!(pool_of(&rig, BLUE).await, Some(as_model()));
    assert!(
        silent_nodes(&rig) > 0,
        "instances registered as they warmed"
    );
    // Every process dies one record later than the last, so that each call is once the last one.
    let (ended, _) = rig
        .die_at_every_record(8, || RunCommand::Forward(None))
        .await;
    assert_eq!(ended, RunOutcome::Done, "{}", rig.log());
    assert!(group(&rig, BLUE).await.is_none());
    assert_eq!(instances_of(&rig, BLUE), Vec::<String>::new());
    assert_eq!(pool_of(&rig, GREEN).await, Some(as_model()));
    tokio::time::sleep(FILL_TIME).await;
    let mut states = instances_of(&rig, GREEN);
    states.sort();
    let pooled = states.iter().filter(|s| *s == "stopped").count();
    assert_eq!((states.len() - pooled, pooled), (3, 3), "{states:?}");
}

#[tokio::test(start_paused = true)]
async fn neither_group_has_a_pool_while_pods_move() {
    let rig = filled(stopped(), PLAN).await;
    let until = rig.apply_until("green-web-green").await;
    assert!(matches!(until, RunOutcome::Paused { .. }), "{}", rig.log());
    // Green stands ready without it. Blue's nodes that stopped are gone before the first add-on would miss its pods there.
    assert_eq!(pool_of(&rig, GREEN).await, None);
    assert_eq!(pool_of(&rig, BLUE).await, None);
    let until = rig.apply_until("drain-web-blue").await;
    assert!(matches!(until, RunOutcome::Paused { .. }), "{}", rig.log());
    assert_eq!(pool_of(&rig, GREEN).await, None);
    assert_eq!(pool_of(&rig, BLUE).await, None);
    assert_eq!(silent_nodes(&rig), 0);
    assert_eq!(instances_of(&rig, BLUE), ["running"; 3]);
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    assert_eq!(pool_of(&rig, GREEN).await, Some(as_model()));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_gives_blue_its_pool_back_and_leaves_nothing_of_green() {
    for step in [
        "remove-warm-pool-web-blue",
        "cordon-web-blue",
        "add-warm-pool-web-green",
    ] {
        let rig = filled(stopped(), PLAN).await;
        let before = group(&rig, BLUE).await.unwrap();
        let until = rig.apply_until(step).await;
        assert!(matches!(until, RunOutcome::Paused { .. }), "{}", rig.log());
        let back = rig.rollback().await.unwrap();
        let rolled_back = matches!(back, RunOutcome::RolledBack { .. });
        assert!(rolled_back, "{step}: {back:?}\n{}", rig.log());
        let after = group(&rig, BLUE).await.unwrap();
        assert_eq!(after, before, "{step}");
        assert!(group(&rig, GREEN).await.is_none(), "{step}");
        assert_eq!(instances_of(&rig, GREEN), Vec::<String>::new(), "{step}");
        tokio::time::sleep(FILL_TIME).await;
        let states = instances_of(&rig, BLUE);
        let pooled = states.iter().filter(|s| *s == "stopped").count();
        assert_eq!((states.len(), pooled), (6, 3), "{step}: {states:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_dies_again_and_again_removes_greens_pool_all_the_same() {
    let rig = filled(stopped(), PLAN).await;
    let until = rig.apply_until("add-warm-pool-web-green").await;
    assert!(matches!(until, RunOutcome::Paused { .. }), "{}", rig.log());
    // Its instances have warmed and stopped meanwhile.
    tokio::time::sleep(FILL_TIME).await;
    assert_eq!(instances_of(&rig, GREEN).len(), 6);
    let back = || RunCommand::Rollback {
        control_plane: false,
    };
    let (ended, _) = rig.die_at_every_record(8, back).await;
    let rolled_back = matches!(ended, RunOutcome::RolledBack { .. });
    assert!(rolled_back, "{ended:?}\n{}", rig.log());
    assert!(group(&rig, GREEN).await.is_none());
    assert_eq!(instances_of(&rig, GREEN), Vec::<String>::new());
    assert_eq!(pool_of(&rig, BLUE).await, Some(as_model()));
}

#[tokio::test(start_paused = true)]
async fn a_blue_at_zero_keeps_no_instance_in_a_pool_and_gets_its_pool_back() {
    let plan = format!("{PLAN}retire: {{then: keep-at-zero}}\n");
    let rig = filled(stopped(), &plan).await;
    let until = rig.apply_until("retire-web-blue").await;
    assert!(matches!(until, RunOutcome::Paused { .. }), "{}", rig.log());
    let blue = group(&rig, BLUE).await.unwrap();
    assert_eq!((blue.desired, blue.warm_pool), (0, None));
    tokio::time::sleep(FILL_TIME).await;
    assert_eq!(instances_of(&rig, BLUE), Vec::<String>::new());
    let back = rig.rollback().await.unwrap();
    let rolled_back = matches!(back, RunOutcome::RolledBack { .. });
    assert!(rolled_back, "{back:?}\n{}", rig.log());
    tokio::time::sleep(FILL_TIME).await;
    assert_eq!(pool_of(&rig, BLUE).await, Some(as_model()));
    assert_eq!(instances_of(&rig, BLUE).len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_keeps_its_instances_running_goes_while_no_pod_is_on_them() {
    let running = json!({"MinSize": 1, "MaxGroupPreparedCapacity": 4, "PoolState": "Running"});
    let rig = filled(running, PLAN).await;
    assert_eq!(instances_of(&rig, BLUE), ["running"; 4]);
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    assert_eq!(instances_of(&rig, BLUE), Vec::<String>::new());
    let pool = pool_of(&rig, GREEN).await.unwrap();
    assert_eq!(
        (pool.state.as_str(), pool.max_prepared),
        ("Running", Some(4))
    );
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_instances_join_later_serves_blue_until_it_is_closed() {
    let snapshot = joining_later(with_pool(cluster(), stopped()));
    let rig = filled_from(&snapshot, PLAN).await;
    assert_eq!((instances_of(&rig, BLUE).len(), silent_nodes(&rig)), (6, 0));
    let until = rig.apply_until("green-web-green").await;
    assert!(matches!(until, RunOutcome::Paused { .. }), "{}", rig.log());
    assert_eq!(pool_of(&rig, BLUE).await, Some(as_model()));
    let until = rig.apply_until("cordon-web-blue").await;
    assert!(matches!(until, RunOutcome::Paused { .. }), "{}", rig.log());
    assert_eq!(pool_of(&rig, BLUE).await, None);
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    tokio::time::sleep(FILL_TIME).await;
    assert_eq!(pool_of(&rig, GREEN).await, Some(as_model()));
    assert_eq!(
        (instances_of(&rig, GREEN).len(), silent_nodes(&rig)),
        (6, 0)
    );
}
