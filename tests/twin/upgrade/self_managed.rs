//! Self-managed Auto Scaling groups: what green gets of blue, and what stands in the way of blue's end.

use std::time::Duration;

use eksup::engine::RunOutcome;
use eksup::model::asg::{Asg, GroupAutomation};
use eksup::model::marks;
use eksup::model::snapshot::Snapshot;
use eksup::twin::aws::Ec2LaunchTemplate;
use eksup::twin::scenario;
use eksup::twin::world::SimWorld;
use serde_json::{Value, json};

use crate::launch_configuration::{self, CONFIGURATION, GROUP};
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
    let mut snapshot = with_web(|web| {
        let suspended = ["AlarmNotification", "ReplaceUnhealthy"];
        let suspended =
            suspended.map(|p| json!({"ProcessName": p, "SuspensionReason": "User suspended"}));
        web["SuspendedProcesses"] = json!(suspended);
    });
    let evening = json!({"AutoScalingGroupName": "web-blue", "ScheduledActionName": "evening", "Recurrence": "0 20 * * *", "DesiredCapacity": 3});
    let schedules = "autoscaling:DescribeScheduledActions".to_owned();
    snapshot.aws.entry(schedules).or_default().push(evening);
    let rig = Rig::new(&snapshot, PLAN, 7);
    let acting = rig.read().await.group_automation;
    assert_eq!(acting["web-blue"].schedules, ["evening"]);
    assert_eq!(acting["data-blue"], GroupAutomation::default());
    let blue = group(&rig, "web-blue").await;
    let metrics = ["GroupDesiredCapacity", "GroupInServiceInstances"];
    assert_eq!(blue.metrics, metrics);
    // Every process dies one record later than the last, so that each call is once the last one.
    let step = || RunCommand::Forward(Some("green-web-green".to_owned()));
    let (ended, _) = rig.die_at_every_record(8, step).await;
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
    assert_eq!(
        blue.suspended,
        [
            "AZRebalance",
            "AlarmNotification",
            "Launch",
            "ReplaceUnhealthy"
        ]
    );
    let green = group(&rig, "web-green").await;
    assert_eq!(green.suspended, ["AlarmNotification", "ReplaceUnhealthy"]);
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
}

#[tokio::test(start_paused = true)]
async fn blue_gets_the_instances_back_that_it_lost_while_its_launch_was_suspended() {
    let snapshot = scenario::find_scenario("self-managed").unwrap();
    let rig = Rig::new(&snapshot, PLAN, 7);
    let before = group(&rig, "web-blue").await;
    let until = rig.apply_until("drain-web-blue").await;
    assert!(matches!(until, RunOutcome::Paused { .. }), "{}", rig.log());
    // An instance ends, as when its hardware fails: nothing new joins open while blue is emptied.
    let ended = before.instances[0].id.clone();
    let aws = rig.reached().await.aws;
    let end = aws.asg.terminate_instance_in_auto_scaling_group();
    let end = end
        .instance_id(ended)
        .should_decrement_desired_capacity(false);
    end.send().await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let emptied = group(&rig, "web-blue").await;
    assert_eq!((emptied.desired, emptied.instances.len()), (3, 2));
    assert!(emptied.suspended.contains(&"Launch".to_owned()));
    let back = rig.rollback().await.unwrap();
    assert!(
        matches!(back, RunOutcome::RolledBack { .. }),
        "{}",
        rig.log()
    );
    let after = group(&rig, "web-blue").await;
    assert_eq!((after.desired, after.instances.len()), (3, 3));
    assert_eq!(
        (after.suspended, after.tags),
        (before.suspended, before.tags)
    );
}

/// The launch templates that runs of eksup made, by name: their data as EC2 got it.
fn made_templates(rig: &Rig) -> Vec<(String, Value)> {
    rig.twin.with_world(|world| {
        let templates = world.cloud.templates.values();
        let made = templates.filter(|t| t.tags.contains_key(marks::RUN_TAG));
        let data = |t: &Ec2LaunchTemplate| Value::Object(t.versions.last().unwrap().data.clone());
        made.map(|t| (t.name.clone(), data(t))).collect()
    })
}

#[tokio::test(start_paused = true)]
async fn a_template_made_of_a_launch_configuration_is_made_once_and_goes_with_its_green() {
    let snapshot = launch_configuration::cluster();
    let rig = Rig::new(&snapshot, PLAN, 7);
    let before = group(&rig, GROUP).await;
    assert_eq!(before.launch.configuration.as_deref(), Some(CONFIGURATION));
    // As above: each call is once the last one of its process.
    let step = || RunCommand::Forward(Some("green-data-green".to_owned()));
    let (ended, _) = rig.die_at_every_record(8, step).await;
    assert!(
        matches!(ended, RunOutcome::Paused { .. }),
        "{ended:?}\n{}",
        rig.log()
    );
    let made = made_templates(&rig);
    let [(name, data)] = made.as_slice() else {
        panic!("{made:?}")
    };
    assert_eq!(name, "eksup-data-green");
    let green = group(&rig, "data-green").await;
    let launch = green.launch;
    assert_eq!(launch.configuration, None);
    assert_eq!(launch.template.unwrap().name.as_ref(), Some(name));
    // What the configuration says, in the words of a template.
    let op = "autoscaling:DescribeLaunchConfigurations";
    let told = &snapshot.aws[op][0];
    assert_eq!(data["UserData"], told["UserData"]);
    assert_eq!(data["InstanceType"], told["InstanceType"]);
    assert_ne!(data["ImageId"], told["ImageId"]);
    assert_eq!(
        data["IamInstanceProfile"]["Arn"],
        told["IamInstanceProfile"]
    );
    let interface = &data["NetworkInterface"][0];
    assert_eq!(
        interface["SecurityGroupId"], told["SecurityGroups"],
        "{data}"
    );
    // Another process takes all of it back, and the next run makes it again.
    let back = rig.rollback().await.unwrap();
    assert!(
        matches!(back, RunOutcome::RolledBack { .. }),
        "{}",
        rig.log()
    );
    assert_eq!(made_templates(&rig), []);
    assert_eq!(group(&rig, GROUP).await, before);
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    assert_eq!(made_templates(&rig).len(), 1);
    let inventory = rig.read().await;
    assert!(!inventory.asgs.contains_key(GROUP));
    let kept = |w: &mut SimWorld| w.cloud.launch_configurations.contains_key(CONFIGURATION);
    assert!(
        rig.twin.with_world(kept),
        "the configuration is not the run's"
    );
}
