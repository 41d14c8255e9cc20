//! What the tools that own blue are told after a run: from the journal in the cluster and from what AWS answers.

use std::collections::BTreeMap;

use eksup::engine::RunOutcome;
use eksup::handback::GroupKind;
use eksup::handback::{
    BlueState, HandbackFacts, HandbackOptions, Reading, build_handback, moved_groups,
};
use eksup::model::group_owner::OwningTool;
use eksup::model::snapshot::Snapshot;
use eksup::route::{RouteStep, StepSpec};
use eksup::run::handback_facts::read_handback_facts;
use eksup::run::stored_run::{read_run_state, stored_route};
use eksup::twin::scenario;

use super::EXPENSE;
use crate::launch_configuration;
use crate::support::process_rig::{Rig, RunCommand};

/// The tags of a group that eksctl made.
const EKSCTL: [(&str, &str); 3] = [
    ("alpha.eksctl.io/nodegroup-name", "expense-blue"),
    (
        "aws:cloudformation:stack-name",
        "eksctl-expense-dev-nodegroup-expense-blue",
    ),
    ("team", "expense"),
];

fn owned_by_eksctl() -> Snapshot {
    let mut snapshot = scenario::expense_dev();
    let tags = EKSCTL.map(|(k, v)| (k.to_owned(), v.to_owned()));
    snapshot.inventory.nodegroups[0].tags = tags.into();
    snapshot
}

async fn facts(rig: &Rig) -> HandbackFacts {
    let reached = rig.reached().await;
    let state = read_run_state(&reached).await.unwrap().expect("a run");
    let route = stored_route(&state).unwrap();
    read_handback_facts(&reached, &state, &route).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn once_blue_is_gone_the_journal_still_says_whose_it_was_and_what_it_was_called_there() {
    let plan = EXPENSE.replace("    capacity: full", "    deleteOwned: true");
    let rig = Rig::new(&owned_by_eksctl(), &plan, 1);
    let ended = rig.process(RunCommand::Forward(None)).await.unwrap();
    assert_eq!(ended, RunOutcome::Done);
    let facts = facts(&rig).await;
    let [group] = facts.groups.as_slice() else {
        panic!("{facts:?}");
    };
    let owner = group.moved.owner.as_ref().expect("an owner");
    assert_eq!(owner.tool, OwningTool::Eksctl);
    assert_eq!(
        owner.stack(),
        Some("eksctl-expense-dev-nodegroup-expense-blue")
    );
    assert_eq!(group.blue, BlueState::Gone);
    let Reading::Known(green) = &group.green else {
        panic!("{group:?}");
    };
    assert_eq!(
        (green.name.as_str(), facts.version),
        ("expense-green", facts_version())
    );
    // Green does not say that it is eksctl's, and keeps what the team said of blue.
    assert_eq!(green.tags.get("team").map(String::as_str), Some("expense"));
    assert!(!green.tags.contains_key("alpha.eksctl.io/nodegroup-name"));
    let document = build_handback(&facts, &HandbackOptions::default());
    let text = document.render_text();
    assert!(text.contains("name: \"expense-green\"") && text.contains("version: \"1.29\""));
    assert!(text.contains("delete-stack --region us-east-1 --stack-name eksctl-expense-dev"));
}

#[tokio::test(start_paused = true)]
async fn each_group_of_a_cluster_that_eksctl_made_is_handed_back_with_its_own_stack() {
    let snapshot = scenario::find_scenario("eksctl").unwrap();
    let plan = include_str!("../../../plans/eksctl.yaml");
    let rig = Rig::new(&snapshot, plan, 1);
    let ended = rig.process(RunCommand::Forward(None)).await.unwrap();
    assert_eq!(ended, RunOutcome::Done);
    let facts = facts(&rig).await;
    let stacks: Vec<_> = (facts.groups.iter())
        .filter_map(|g| Some((g.moved.green.as_str(), g.moved.owner.as_ref()?.stack()?)))
        .collect();
    let wanted = [
        ("apps-green", "eksctl-eksctl-nodegroup-apps"),
        ("jobs-green", "eksctl-eksctl-nodegroup-jobs"),
    ];
    assert_eq!(stacks, wanted);
    // The stacks hold the role and the template that green has from blue, so that they may not go yet.
    let text = build_handback(&facts, &HandbackOptions::default()).render_text();
    for (green, stack) in wanted {
        assert!(text.contains(&format!("name: \"{green}\"")), "{text}");
        let kept = format!("role {stack}-NodeInstanceRole-");
        assert!(text.contains(&kept), "{text}");
        assert!(text.contains(&format!("launch template {stack}")));
    }
}

fn facts_version() -> eksup::model::Minor {
    "1.29".parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_rolled_back_has_no_group_to_hand_back() {
    let plan = EXPENSE.replace("    capacity: full", "    deleteOwned: true");
    let rig = Rig::new(&owned_by_eksctl(), &plan, 1);
    let until = RunCommand::Forward(Some("drain-expense-blue".to_owned()));
    assert!(matches!(
        rig.process(until).await.unwrap(),
        RunOutcome::Paused { .. }
    ));
    // Green is there before, and blue too.
    let before = facts(&rig).await;
    assert!(matches!(before.groups[0].blue, BlueState::There(_)));
    assert!(matches!(
        rig.rollback().await.unwrap(),
        RunOutcome::RolledBack { .. }
    ));
    let after = facts(&rig).await;
    assert!(after.groups.is_empty(), "{after:?}");
    // The control plane stays where it is, and a tool that is named is told.
    assert!(after.version != after.from && after.has_changed_versions());
}

#[test]
fn a_group_that_moves_twice_is_handed_back_once_from_the_first_to_the_last() {
    let plan = include_str!("../../../plans/multi-hop.yaml");
    let snapshot = scenario::find_scenario("multi-hop").unwrap();
    let plan = eksup::plan::parse_plan("p", plan).unwrap();
    let route = eksup::route::build_route(&plan, &snapshot.inventory).unwrap();
    let moves = moved_groups(&route, |_| true);
    let there: BTreeMap<&str, ()> = (snapshot.inventory.nodegroups.iter())
        .map(|g| (g.name.as_str(), ()))
        .collect();
    let makes_green = |s: &&RouteStep| matches!(s.spec, StepSpec::CreateGreen { .. });
    let made = route.steps.iter().filter(makes_green).count();
    assert!(made > moves.len(), "{made} greens, {moves:?}");
    for moved in &moves {
        assert!(there.contains_key(moved.blue.as_str()), "{moved:?}");
    }
    let mut blues: Vec<&str> = moves.iter().map(|m| m.blue.as_str()).collect();
    blues.dedup();
    assert_eq!(blues.len(), moves.len());
}

/// Nobody says of an Auto Scaling group whose it is, so a person does.
#[tokio::test(start_paused = true)]
async fn self_managed_groups_are_handed_back_with_what_auto_scaling_says_of_them() {
    let plan = include_str!("../../../plans/self-managed.yaml");
    let rig = Rig::new(&launch_configuration::cluster(), plan, 1);
    let ended = rig.process(RunCommand::Forward(None)).await.unwrap();
    assert_eq!(ended, RunOutcome::Done);
    let facts = facts(&rig).await;
    assert!(facts.groups.len() >= 2);
    let options = HandbackOptions {
        tool: Some(OwningTool::Terraform),
        ..HandbackOptions::default()
    };
    let nobody = build_handback(&facts, &HandbackOptions::default());
    assert!(nobody.tools.is_empty() && nobody.notes[0].contains("web-blue"));
    let told = build_handback(&facts, &options);
    let file = &told.tools[0].files[0].text;
    for group in &facts.groups {
        let green = &group.moved.green;
        let id = match group.moved.source {
            GroupKind::ManagedGroup => format!("self-managed:{green}"),
            GroupKind::AutoScalingGroup => green.clone(),
        };
        let is_read = matches!(group.asg, Some(Reading::Known(_)));
        assert_eq!(is_read, !group.moved.source.is_managed(), "{group:?}");
        assert!(file.contains(&format!("id = \"{id}\"")), "{file}");
    }
    assert!(file.contains("vpc_zone_identifier") && file.contains("image_id"));
    // One group has a version of blue's template, the other a template that was made of a configuration.
    assert!(
        file.contains("The run made version 2 of launch template lt-0a1b2c3d4e5f60718"),
        "{file}"
    );
    assert!(
        file.contains("The run made version 1 of launch template eksup-data-green"),
        "{file}"
    );
    let of_eksup = rig.twin.with_world(|world| {
        let mut templates = world.cloud.templates.values();
        templates
            .find(|t| t.name == "eksup-data-green")
            .unwrap()
            .id
            .clone()
    });
    assert!(file.contains(&format!("id = \"{of_eksup}\"")), "{file}");
}
