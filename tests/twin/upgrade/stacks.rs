//! Blues that go with their CloudFormation stacks.

use std::collections::BTreeMap;

use eksup::engine::RunOutcome;
use eksup::ready::check_readiness;
use eksup::route::build_route;
use eksup::twin::aws::CloudFormationStack;
use eksup::twin::scenario;
use eksup::twin::world::SimWorld;

use super::world::{no_marks, whole};
use crate::support::process_rig::{Rig, RunCommand};

const PLAN: &str = include_str!("../../../plans/eksctl.yaml");
const STACK: &str = "eksctl-eksctl-nodegroup-apps";
const STEP: &str = "delete-stack-apps";

fn cluster() -> Rig {
    Rig::new(&scenario::find_scenario("eksctl").unwrap(), PLAN, 7)
}

fn with_stack<T>(rig: &Rig, f: impl FnOnce(&mut CloudFormationStack) -> T) -> T {
    rig.twin
        .with_world(|w| f(w.cloud.cloudformation.find_stack_mut(STACK).unwrap()))
}

/// What of the stack is there, by its name in the template.
fn kept(rig: &Rig, parts: &BTreeMap<String, String>) -> BTreeMap<String, bool> {
    rig.twin.with_world(|w: &mut SimWorld| {
        let there = |physical: &String| {
            let deleted = &w.cloud.deleted;
            let is_role = |arn: &String| arn.ends_with(&format!("/{physical}"));
            match physical.split_once('/') {
                Some((_, group)) => {
                    { w.cloud.eks.as_ref() }.is_some_and(|c| c.nodegroups.contains_key(group))
                }
                None if physical.starts_with("lt-") => w.cloud.templates.contains_key(physical),
                None => !deleted
                    .roles
                    .iter()
                    .chain(&deleted.stripped_roles)
                    .any(is_role),
            }
        };
        let parts = parts.iter();
        parts
            .map(|(id, physical)| (id.clone(), there(physical)))
            .collect()
    })
}

fn parts_of(stack: &CloudFormationStack) -> BTreeMap<String, String> {
    let resources = stack.resources.values();
    resources
        .map(|r| (r.logical_id.clone(), r.physical_id.clone()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn blue_goes_with_its_stack_and_all_that_green_has_of_it_stays_however_often_the_process_dies()
 {
    let rig = cluster();
    let parts = with_stack(&rig, |stack| parts_of(stack));
    let until = rig.apply_until("retire-apps").await;
    assert!(matches!(until, RunOutcome::Paused { .. }), "{}", rig.log());
    assert!(kept(&rig, &parts).values().all(|there| *there), "{parts:?}");
    let forward = || RunCommand::Forward(Some(STEP.to_owned()));
    let (ended, deaths) = rig.die_at_every_record(4, forward).await;
    assert!(
        matches!(ended, RunOutcome::Paused { .. }),
        "{ended:?}\n{}",
        rig.log()
    );
    assert!(deaths >= 8, "{deaths}");
    let gone: Vec<String> = kept(&rig, &parts)
        .into_iter()
        .filter_map(|(id, there)| (!there).then_some(id))
        .collect();
    assert_eq!(gone, ["ManagedNodeGroup"], "{parts:?}");
    let stack = rig
        .twin
        .with_world(|w| w.cloud.cloudformation.find_stack(STACK).cloned());
    assert!(stack.is_none(), "{stack:?}");
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let after = rig.read().await;
    no_marks(&after);
    whole(&after);
    assert!(after.find_nodegroup("apps").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_rollback_brings_the_template_of_the_stack_back() {
    // Killed after each record of the step: whatever was done by then is rolled back.
    let mut restored = 0;
    for record in 1..30 {
        let rig = cluster();
        let before = with_stack(&rig, |stack| stack.template.clone());
        let until = rig.apply_until("retire-apps").await;
        assert!(matches!(until, RunOutcome::Paused { .. }), "{}", rig.log());
        let forward = RunCommand::Forward(Some(STEP.to_owned()));
        if rig.die_at_record(record, forward).await.is_some() {
            break;
        }
        // Absent where its deletion has begun.
        let changed = rig.twin.with_world(|w| {
            let stack = w.cloud.cloudformation.find_stack(STACK)?;
            (!stack.status.starts_with("DELETE")).then(|| stack.template != before)
        });
        let Some(changed) = changed else { break };
        restored += usize::from(changed);
        match rig.rollback().await {
            Ok(RunOutcome::RolledBack { .. }) => {
                let (template, status) =
                    with_stack(&rig, |stack| (stack.template.clone(), stack.status.clone()));
                let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
                assert_eq!(read(&template), read(&before), "record {record}");
                assert!(status.ends_with("_COMPLETE"), "{status}");
                let sets = rig.twin.with_world(|w| {
                    let sets = w.cloud.cloudformation.change_sets.values();
                    sets.filter(|s| !s.is_past()).count()
                });
                assert_eq!(sets, 0, "record {record}");
                assert!(rig.read().await.find_nodegroup("apps").is_some());
            }
            // Its deletion was asked for by then.
            other => {
                assert!(changed, "{other:?}\n{}", rig.log());
                break;
            }
        }
    }
    assert!(restored > 0, "no template was changed");
}

#[tokio::test(start_paused = true)]
async fn what_speaks_against_a_stack_is_told_before_the_run() {
    type Change = fn(&mut CloudFormationStack);
    let cases: [(&str, Change); 4] = [
        ("protected from termination", |s| s.protected = true),
        ("its template is neither JSON nor YAML", |s| {
            s.template = "Resources: {\n".into();
        }),
        ("it also holds Bucket (AWS::S3::Bucket)", |s| {
            s.add_resource("Bucket", "AWS::S3::Bucket", "logs", serde_json::json!({}));
        }),
        ("importer imports its apps::Role", |s| {
            s.add_export("Role", "apps::Role", "role");
        }),
    ];
    for (expected, change) in cases {
        let rig = cluster();
        with_stack(&rig, change);
        rig.twin.with_world(|w| {
            w.cloud
                .cloudformation
                .add_importer("importer", "apps::Role");
        });
        let inventory = rig.read().await;
        let route = build_route(&rig.plan, &inventory);
        let findings = check_readiness(&rig.plan, &inventory, &route);
        let found: Vec<&str> = { findings.iter() }
            .filter(|f| f.code == "EKSUP-N018")
            .map(|f| f.detail.as_str())
            .collect();
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "{expected}: {found:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_fails_is_told_with_its_reason_and_goes_on_once_the_cause_is_gone() {
    let rig = cluster();
    let fails = |w: &mut SimWorld| {
        let fails = &mut w.cloud.cloudformation.switches;
        let why = "You cannot execute this change set".to_owned();
        fails.execution_fails.insert(STACK.to_owned(), why);
    };
    rig.twin.with_world(fails);
    let why = super::world::stuck_in(&rig, STEP).await;
    assert!(why.contains("You cannot execute this change set"), "{why}");
    // An execution fails once in the twin, as when somebody has set it right since; then the deletion itself.
    rig.twin.with_world(|w| {
        let fails = &mut w.cloud.cloudformation.switches.deletion_fails;
        let group = (STACK.to_owned(), "ManagedNodeGroup".to_owned());
        fails.insert(group, "Nodegroup is in use".to_owned());
    });
    let why = super::world::stuck_in(&rig, STEP).await;
    assert!(
        why.contains("DELETE_FAILED") && why.contains("aws cloudformation"),
        "{why}"
    );
    // The fault was for once, as when somebody has set it right: the same command deletes the stack.
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    assert!(rig.read().await.find_nodegroup("apps").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_rollback_after_a_deletion_that_failed_goes_to_the_blue_that_is_there() {
    let rig = cluster();
    let before = rig.read().await.find_nodegroup("apps").unwrap().scaling;
    rig.twin.with_world(|w| {
        let fails = &mut w.cloud.cloudformation.switches.deletion_fails;
        let group = (STACK.to_owned(), "ManagedNodeGroup".to_owned());
        fails.insert(group, "Nodegroup is in use".to_owned());
    });
    super::world::stuck_in(&rig, STEP).await;
    let back = rig.rollback().await.unwrap();
    let rolled_back = matches!(back, RunOutcome::RolledBack { .. });
    assert!(rolled_back, "{back:?}\n{}", rig.log());
    let after = rig.read().await;
    assert_eq!(after.find_nodegroup("apps").unwrap().scaling, before);
    whole(&after);
    no_marks(&after);
}

#[tokio::test(start_paused = true)]
async fn a_stack_that_is_known_by_its_name_alone_is_there_or_gone() {
    let rig = cluster();
    let aws = rig.reached().await.aws;
    assert!(aws.describe_stack(STACK).await.unwrap().is_some());
    assert_eq!(aws.read_stack("nobody").await.unwrap(), None);
}
