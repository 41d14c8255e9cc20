//! Self-managed Auto Scaling groups: what green gets of blue, and what stands in the way of blue's end.

use eksup::engine::RunOutcome;
use eksup::model::asg::Asg;
use eksup::model::snapshot::Snapshot;
use eksup::twin::scenario;
use serde_json::{Value, json};

use crate::support::process_rig::{Rig, RunCommand};

const PLAN: &str = include_str!("../../../plans/self-managed.yaml");

/// The bundled cluster, with its group `web-blue` changed.
fn with_web(change: impl FnOnce(&mut Value)) -> Snapshot {
    let mut snapshot = scenario::find_scenario("self-managed").unwrap();
    let groups = snapshot
        .aws
        .get_mut("autoscaling:DescribeAutoScalingGroups")
        .unwrap();
    let web = groups
        .iter_mut()
        .find(|g| g["AutoScalingGroupName"] == "web-blue");
    change(web.unwrap());
    snapshot
}

async fn group(rig: &Rig, name: &str) -> Asg {
    rig.read().await.asgs.get(name).unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn green_has_blues_metrics_and_suspended_processes_however_often_the_process_dies() {
    let snapshot = with_web(|web| {
        let suspended = ["AlarmNotification", "ReplaceUnhealthy"];
        let suspended =
            suspended.map(|p| json!({"ProcessName": p, "SuspensionReason": "User suspended"}));
        web["SuspendedProcesses"] = json!(suspended);
    });
    let rig = Rig::new(&snapshot, PLAN, 7);
    let blue = group(&rig, "web-blue").await;
    let metrics = ["GroupDesiredCapacity", "GroupInServiceInstances"];
    assert_eq!(blue.metrics, metrics);
    // Every process dies one record later than the last, so that each call is once the last one.
    let (mut deaths, step) = (0, "green-web-green".to_owned());
    let ended = loop {
        let forward = RunCommand::Forward(Some(step.clone()));
        match rig.die_at_record(1 + deaths / 8, forward).await {
            Some(ended) => break ended.unwrap(),
            None => deaths += 1,
        }
        assert!(deaths < 200, "no end\n{}", rig.log());
    };
    assert!(
        matches!(ended, RunOutcome::Paused { .. }),
        "{ended:?}\n{}",
        rig.log()
    );
    let green = group(&rig, "web-green").await;
    assert_eq!(green.metrics, metrics);
    assert_eq!(green.suspended, ["AlarmNotification", "ReplaceUnhealthy"]);
    // What blue has of the run itself is no setting of blue's.
    let until = rig.apply_until("drain-web-blue").await;
    assert!(matches!(until, RunOutcome::Paused { .. }), "{}", rig.log());
    let blue = group(&rig, "web-blue").await;
    assert!(
        blue.suspended.contains(&"AZRebalance".to_owned()),
        "{blue:?}"
    );
    let green = group(&rig, "web-green").await;
    assert_eq!(green.suspended, ["AlarmNotification", "ReplaceUnhealthy"]);
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
}
