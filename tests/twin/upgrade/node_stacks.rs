//! Blues whose stacks AWS's own template for self-managed nodes made: YAML, with an image of Parameter Store (CFN-26).

use eksup::engine::RunOutcome;
use eksup::twin::aws::CloudFormationStack;
use eksup::twin::scenario;
use eksup::twin::world::SimWorld;

use super::world::{stuck_in, whole};
use crate::support::process_rig::{Rig, RunCommand};

const STACK: &str = "web-nodes";
const STEP: &str = "delete-stack-web-blue";
const IMAGE: &str = "NodeImageIdSSMParam";

/// The bundled cluster `self-managed`, one of whose groups is of such a stack.
fn cluster() -> Rig {
    let mut snapshot = scenario::find_scenario("self-managed").unwrap();
    let groups = "autoscaling:DescribeAutoScalingGroups";
    let groups = snapshot.aws.get_mut(groups).unwrap().iter_mut();
    for group in groups.filter(|g| g["AutoScalingGroupName"] == "web-blue") {
        let tags = group["Tags"].as_array_mut().unwrap();
        for (key, value) in [
            ("aws:cloudformation:stack-name", STACK),
            ("aws:cloudformation:logical-id", "NodeGroup"),
        ] {
            tags.push(serde_json::json!({"Key": key, "Value": value, "PropagateAtLaunch": true}));
        }
    }
    let plan = include_str!("../../../plans/self-managed.yaml");
    let plan = plan.replacen(
        "blue: web-blue\n",
        "blue: web-blue\n    deleteOwned: stack\n",
        1,
    );
    let rig = Rig::new(&snapshot, &plan, 7);
    let template = rig
        .twin
        .with_world(|w| stack_of(w).unwrap().template.clone());
    assert!(template.contains("!Ref"), "{template}");
    rig
}

fn stack_of(w: &mut SimWorld) -> Option<&mut CloudFormationStack> {
    w.cloud.cloudformation.find_stack_mut(STACK)
}

#[tokio::test(start_paused = true)]
async fn a_self_managed_blue_goes_with_its_stack_and_greens_instances_keep_their_role() {
    let rig = cluster();
    let there = |w: &mut SimWorld| stack_of(w).is_some();
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    assert!(!rig.twin.with_world(there));
    let after = rig.read().await;
    assert!(!after.asgs.contains_key("web-blue"));
    whole(&after);
    let lost = rig
        .twin
        .with_world(|w| eksup::chaos::invariants::stacks::find_stack_losses(w, true));
    assert_eq!(lost, Vec::<String>::new());
    // Green still launches: one more node comes and is Ready.
    let aws = rig.reached().await.aws;
    let more = aws
        .asg
        .set_desired_capacity()
        .auto_scaling_group_name("web-green");
    let desired = after.asgs["web-green"].desired + 1;
    more.desired_capacity(desired).send().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(900)).await;
    let nodes = rig.read().await.nodes;
    assert!(nodes.iter().all(|n| n.is_ready()));
    assert_eq!(nodes.len(), after.nodes.len() + 1);
}

/// The run is killed after each record of the step, and rolled back: how often a template was changed by then, and how often it
/// was left so.
async fn roll_back_from_every_record(change: fn(&mut SimWorld)) -> (usize, usize) {
    let (mut changed, mut left) = (0, 0);
    let retired = cluster();
    retired.twin.with_world(change);
    let before = retired.twin.with_world(|w| stack_of(w).unwrap().clone());
    let until = retired.apply_until("retire-web-blue").await;
    assert!(matches!(until, RunOutcome::Paused { .. }), "{until:?}");
    for record in 1..30 {
        let rig = Rig::again(retired.twin.with_world(|w| w.clone()), &retired.plan, 7);
        let forward = RunCommand::Forward(Some(STEP.to_owned()));
        if rig.die_at_record(record, forward).await.is_some() {
            break;
        }
        // Absent where its deletion has begun.
        let at = rig.twin.with_world(|w| {
            let stack = stack_of(w)?;
            (!stack.status.starts_with("DELETE")).then(|| stack.template.clone())
        });
        let Some(at) = at else { break };
        let Ok(RunOutcome::RolledBack { .. }) = rig.rollback().await else {
            // Its deletion was asked for by then.
            break;
        };
        changed += usize::from(at != before.template);
        let after = rig.twin.with_world(|w| stack_of(w).unwrap().clone());
        assert!(rig.read().await.asgs.contains_key("web-blue"));
        if after.template.contains("eksup.dev") {
            assert!(
                rig.log().contains("keeps DeletionPolicy Retain"),
                "{}",
                rig.log()
            );
            left += 1;
            continue;
        }
        // What the image is called is as before, and it is the same image.
        assert_eq!(after.parameters, before.parameters, "record {record}");
        assert_eq!(after.resolved_parameters, before.resolved_parameters);
        let read = |text: &str| eksup::model::template_yaml::read_yaml(text).unwrap();
        assert_eq!(read(&after.template), read(&before.template));
    }
    (changed, left)
}

#[tokio::test(start_paused = true)]
async fn a_rollback_declares_a_parameter_of_parameter_store_again_where_it_means_the_same() {
    // What Parameter Store has is what the stack has.
    let (changed, left) = roll_back_from_every_record(|_| {}).await;
    assert!(changed > 0, "no template was changed");
    assert_eq!(left, 0);
    // A newer image would change the launch template.
    let (changed, left) = roll_back_from_every_record(|w| {
        let stack = stack_of(w).unwrap();
        let older = "ami-00000000000000000".to_owned();
        stack.resolved_parameters.insert(IMAGE.to_owned(), older);
    })
    .await;
    assert!(changed > 0 && left > 0, "{changed} changed, {left} left");
}

#[tokio::test(start_paused = true)]
async fn a_change_set_that_shows_more_is_not_carried_out_and_the_stack_stays() {
    let rig = cluster();
    rig.twin.with_world(|w| {
        let switches = &mut w.cloud.cloudformation.switches;
        switches.parameter_alone_is_change = true;
    });
    let why = stuck_in(&rig, STEP).await;
    assert!(
        why.contains("would also modify NodeLaunchTemplate"),
        "{why}"
    );
    let status = rig.twin.with_world(|w| stack_of(w).unwrap().status.clone());
    assert_eq!(status, "CREATE_COMPLETE");
}

#[tokio::test(start_paused = true)]
async fn what_only_follows_a_launch_template_whose_metadata_changes_does_no_harm() {
    let rig = cluster();
    rig.twin.with_world(|w| {
        let switches = &mut w.cloud.cloudformation.switches;
        switches.metadata_shows_dependents = true;
    });
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
}
