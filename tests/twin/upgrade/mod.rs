//! Whole upgrades through the twin, in virtual time: the engine's own code, end to end.

mod adopt;
mod auto_mode;
mod autoscaler;
mod back;
mod drift;
mod fargate;
mod generated;
mod green_pools;
mod handback;
mod last_proof;
mod multi_group;
mod node_access;
mod node_stacks;
mod outage;
mod ownership;
mod remaining_targets;
mod reroute;
mod rollback_outage;
mod screens;
mod second_run;
mod self_managed;
mod stacks;
mod version_back;
mod warm_pool;
mod world;

use std::time::Duration;

use crate::support::process_rig::{Rig, RunCommand};
use eksup::engine::{NextStep, RunOutcome};
use eksup::model::eks::Nodegroup;
use eksup::model::node_source::NodeSource;
use eksup::model::{Inventory, Minor};
use eksup::twin::{fault, scenario};
use world::{no_marks, pools, weights, whole};

const EXPENSE: &str = include_str!("../../../plans/expense-dev.yaml");

fn expense(seed: u64) -> Rig {
    Rig::new(&scenario::expense_dev(), EXPENSE, seed)
}

/// The state expense-dev's plan promises.
fn promised(after: &Inventory) {
    assert_eq!(after.cluster.version, Minor::new(29));
    assert_eq!(after.server_version, Some(Minor::new(29)));
    let groups: Vec<&str> = after.nodegroups.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(groups, ["expense-green"]);
    assert_eq!(after.nodes.len(), 3);
    for node in &after.nodes {
        assert!(
            node.is_ready() && node.kubelet_version.starts_with("v1.29."),
            "{node:?}"
        );
    }
    no_marks(after);
    whole(after);
    let weights = weights(after);
    assert_eq!(
        weights,
        [
            ("expense-blue-tg".to_owned(), 0),
            ("expense-green-tg".to_owned(), 100)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn expense_dev_goes_from_1_27_to_1_29_and_nothing_of_the_run_is_left() {
    let rig = expense(7);
    let before = rig.read().await;
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let after = rig.read().await;
    promised(&after);
    // Everything in the rule but its target groups is as it was.
    assert_eq!(before.rules[0].rest, after.rules[0].rest);
    let volume = |i: &Inventory| i.volumes.clone();
    assert_eq!(volume(&before), volume(&after));
}

#[tokio::test(start_paused = true)]
async fn while_a_hop_goes_on_eks_is_asked_about_its_update_alone() {
    let rig = expense(7);
    rig.apply_until("control-plane-1.28").await;
    let cluster = "GET /clusters/expense-dev";
    let updates = rig.count(&format!("{cluster}/updates/"), "");
    let clusters = rig.count(cluster, "/expense-dev");
    assert!(updates >= 20, "{updates}");
    // To find it, to begin, and to see that it is done.
    assert!(clusters <= 5, "{clusters} beside {updates}");
}

#[tokio::test(start_paused = true)]
async fn a_second_apply_finds_nothing_to_do() {
    let rig = expense(7);
    assert_eq!(rig.apply().await, RunOutcome::Done);
    let route = eksup::route::build_route(&rig.plan, &rig.read().await).unwrap();
    let ids: Vec<&str> = route.steps.iter().map(|s| s.id.as_str()).collect();
    assert!(ids.is_empty(), "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_after_the_drain_brings_blue_and_its_traffic_back() {
    let rig = expense(3);
    let before = rig.read().await;
    let paused = rig.apply_until("drain-expense-blue").await;
    assert!(
        matches!(paused, RunOutcome::Paused { .. }),
        "{paused:?}\n{}",
        rig.log()
    );
    let ended = rig.rollback().await;
    assert!(
        matches!(ended, Ok(RunOutcome::RolledBack { .. })),
        "{ended:?}\n{}",
        rig.log()
    );
    let after = rig.read().await;
    let groups: Vec<&str> = after.nodegroups.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(groups, ["expense-blue"]);
    assert_eq!(weights(&after), weights(&before));
    assert_eq!(after.nodegroups[0].scaling, before.nodegroups[0].scaling);
    assert_eq!(after.nodegroups[0].taints, before.nodegroups[0].taints);
    no_marks(&after);
    whole(&after);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_again_and_again_leaves_the_same_end() {
    let rig = expense(11);
    let mut deaths = 0;
    // Each process dies a little later than the last; together they pass every stage of the run.
    let ended = loop {
        match rig
            .die_after(60 + deaths * 7, RunCommand::Forward(None))
            .await
        {
            Some(ended) => break ended.unwrap(),
            None => deaths += 1,
        }
        assert!(deaths < 200, "no end\n{}", rig.log());
    };
    assert_eq!(ended, RunOutcome::Done, "{}", rig.log());
    assert!(deaths >= 3, "only {deaths} deaths");
    promised(&rig.read().await);
}

#[tokio::test(start_paused = true)]
async fn blue_is_kept_when_somebody_deletes_green_while_blue_stands_empty() {
    let rig = expense(7);
    let paused = rig.apply_until("drain-expense-blue").await;
    assert!(matches!(paused, RunOutcome::Paused { .. }), "{paused:?}");
    let somebody = vec!["delete-group:expense-green".parse().unwrap()];
    rig.twin
        .with_world(|world| fault::add_rules(world, somebody));
    let ended = rig.apply().await;
    let RunOutcome::Stuck {
        step, why, next, ..
    } = &ended
    else {
        panic!("{ended:?}\n{}", rig.log())
    };
    assert_eq!(
        (step.as_str(), *next),
        ("soak-expense-blue", NextStep::Rollback)
    );
    assert!(why.contains("expense-green"), "{why}");
    let after = rig.read().await;
    assert!(
        after
            .find_nodegroup("expense-blue")
            .is_some_and(|g| g.status.as_str() == "ACTIVE")
    );
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_a_controller_takes_over_while_traffic_bakes_is_not_written_any_more() {
    // A look notices it in a long bake; a short one is over before anybody looks again, and the write itself notices.
    for bake in ["bake: 5m", "bake: 20s"] {
        let plan = EXPENSE.replace("bake: 5m", bake);
        let rig = Rig::new(&scenario::expense_dev(), &plan, 7);
        let taken = async {
            while !rig.log().contains("50% on green") {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            rig.twin.with_world(|world| {
                let rules: Vec<String> = world.cloud.elb.rules.keys().cloned().collect();
                for rule in rules {
                    let tags = world.cloud.elb.tags.entry(rule).or_default();
                    tags.insert("elbv2.k8s.aws/cluster".into(), "expense-dev".into());
                }
            });
        };
        let (ended, ()) = tokio::join!(rig.apply(), taken);
        let RunOutcome::Stuck { step, why, .. } = &ended else {
            panic!("{ended:?}\n{}", rig.log())
        };
        assert_eq!(step, "shift-expense-green-tg");
        assert!(
            why.contains("belongs to a load balancer controller"),
            "{why}"
        );
        let weights = weights(&rig.read().await);
        assert!(
            weights.iter().any(|(_, weight)| *weight == 50),
            "{weights:?}"
        );
    }
}

/// Rehearses the plan in `plans/` on the bundled cluster of its name, and holds the end against what the plan says.
async fn rehearse(name: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("plans/{name}.yaml"));
    let text = std::fs::read_to_string(path).unwrap();
    let snapshot = scenario::find_scenario(name).unwrap();
    let rig = Rig::new(&snapshot, &text, 5);
    let before = rig.read().await;
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let after = rig.read().await;
    assert_eq!(after.cluster.version, rig.plan.to);
    // NodePools that the plan names are read as groups too; those are counted below.
    let groups = |i: &Inventory| -> Vec<Nodegroup> {
        let groups = i.nodegroups.iter();
        let groups = groups.filter(|g| g.source != NodeSource::NodePool);
        groups.cloned().collect()
    };
    assert_eq!(groups(&after).len(), groups(&before).len());
    for group in groups(&after) {
        assert!(
            before
                .find_nodegroup(&group.name)
                .is_none_or(|g| g.arn != group.arn),
            "{} was not replaced",
            group.name
        );
    }
    assert_eq!(pools(&after).len(), pools(&before).len());
    for node in &after.nodes {
        let kubelet = Minor::from_reported(&node.kubelet_version).unwrap();
        assert!(
            node.is_ready() && kubelet == rig.plan.to,
            "{} has {kubelet}",
            node.name
        );
    }
    assert_eq!(after.volumes, before.volumes);
    no_marks(&after);
    whole(&after);
    let route = eksup::route::build_route(&rig.plan, &after);
    // A plan that names its blue by hand is for one upgrade; the next names the other.
    if let Ok(route) = route {
        assert!(
            route.steps.is_empty(),
            "{:?}",
            route.steps.iter().map(|s| &s.id).collect::<Vec<_>>()
        );
    }
}

macro_rules! rehearsed {
    ($($test:ident: $plan:literal),* $(,)?) => {$(
        #[tokio::test(start_paused = true)]
        async fn $test() {
            rehearse($plan).await;
        }
    )*};
}

rehearsed!(
    the_plan_minimal_ends_as_promised: "minimal",
    the_plan_multi_hop_ends_as_promised: "multi-hop",
    the_plan_custom_ami_ends_as_promised: "custom-ami",
    the_plan_controller_ingress_ends_as_promised: "controller-ingress",
    the_plan_local_policy_ends_as_promised: "local-policy",
    the_plan_canary_ends_as_promised: "canary",
    the_plan_self_managed_ends_as_promised: "self-managed",
    the_plan_multi_group_ends_as_promised: "multi-group",
    the_plan_karpenter_drift_ends_as_promised: "karpenter-drift",
    the_plan_karpenter_blue_green_ends_as_promised: "karpenter-blue-green",
    the_plan_fargate_ends_as_promised: "fargate",
    the_plan_auto_mode_ends_as_promised: "auto-mode",
    the_plan_windows_ends_as_promised: "windows",
    the_plan_fargate_only_ends_as_promised: "fargate-only",
    the_plan_eksctl_ends_as_promised: "eksctl",
    the_plan_mixed_ends_as_promised: "mixed",
);

#[test]
fn every_plan_is_rehearsed() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| {
            e.unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "auto-mode",
            "canary",
            "controller-ingress",
            "custom-ami",
            "eksctl",
            "expense-dev",
            "fargate",
            "fargate-only",
            "karpenter-blue-green",
            "karpenter-drift",
            "local-policy",
            "minimal",
            "mixed",
            "multi-group",
            "multi-hop",
            "self-managed",
            "windows",
        ]
    );
}
