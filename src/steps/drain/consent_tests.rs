//! What a drain does about a closed budget that the plan says something of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::act::DrainStepAct;
use super::budget::tests::pdb;
use super::decide::decide_drain;
use super::fixtures::{TEST_RUN_ID, closed_node, default_drain_spec, open_node, time_at};
use super::observation::{BlueNode, DrainObservation};
use crate::engine::{Decision, StepHistory};
use crate::model::kube::Pod;
use crate::plan::{BudgetConsent, SingleReplicas};
use crate::route::DrainSpec;
use crate::steps::evictable::tests::pod;
use crate::steps::workload_health::PodWorkload;

/// A begun node with pod `a` under a closed budget `shop/web`, beside a green node.
fn closed(change: impl FnOnce(&mut Pod)) -> DrainObservation {
    let mut a = pod("a", "n1");
    change(&mut a);
    let a = Arc::new(a);
    let blue = BlueNode::new(
        Arc::new(closed_node("n1", Some(0))),
        Arc::new(vec![a.clone()]),
    );
    let mut seen = DrainObservation {
        run: TEST_RUN_ID.into(),
        group: "blue".into(),
        nodes: vec![blue],
        ..DrainObservation::default()
    };
    let green = open_node("g1", "green", "1a");
    Arc::make_mut(&mut seen.snapshot.nodes).insert(green.name.clone(), Arc::new(green));
    Arc::make_mut(&mut seen.snapshot.pods).put_pod(a);
    let budget = pdb("web", 0, 1, 1, 1);
    Arc::make_mut(&mut seen.snapshot.pdbs).insert(budget.key.clone(), budget);
    seen
}

/// The same once its eviction was refused, for so long.
fn refused(mut seen: DrainObservation, seconds: u64) -> DrainObservation {
    seen.refusals.insert("uid-a".into(), "not now".into());
    seen.paused_pods = BTreeSet::from(["uid-a".to_owned()]);
    seen.attempts.insert("uid-a".into(), 1);
    let elapsed = Duration::from_secs(seconds);
    seen.elapsed.refused.insert("uid-a".into(), elapsed);
    seen.elapsed.open.insert("n1".into(), elapsed);
    seen.elapsed.still.insert("n1".into(), elapsed);
    seen
}

fn custom(pod: &mut Pod) {
    pod.owner.as_mut().unwrap().kind = "StrimziPodSet".into();
}

fn next(spec: &DrainSpec, seen: &DrainObservation) -> Decision<DrainStepAct> {
    decide_drain(spec, seen, &StepHistory::default(), time_at(1))
}

fn asks(decision: &Decision<DrainStepAct>) -> bool {
    matches!(decision, Decision::Act(DrainStepAct::Evict { pods }) if pods.len() == 1)
}

fn with_budget(consent: BudgetConsent) -> DrainSpec {
    DrainSpec {
        budgets: [("shop/web".to_owned(), consent)].into(),
        ..default_drain_spec()
    }
}

#[test]
fn an_eviction_is_tried_under_an_operators_closed_budget_with_the_plans_consent_and_not_without() {
    let waits = |spec: &DrainSpec, seen: &DrainObservation| {
        matches!(next(spec, seen), Decision::Wait { .. })
    };
    let consents = DrainSpec {
        wait_for_operators: true,
        ..default_drain_spec()
    };
    assert!(waits(&default_drain_spec(), &closed(custom)));
    assert!(asks(&next(&consents, &closed(custom))));
    // A chart's budget is no operator's.
    assert!(waits(&consents, &closed(|_| {})));
    // What is said of one budget counts more than what is said of all.
    let but_this = DrainSpec {
        wait_for_operators: true,
        ..with_budget(BudgetConsent::Block)
    };
    assert!(waits(&but_this, &closed(custom)));
    assert!(asks(&next(
        &with_budget(BudgetConsent::Wait),
        &closed(|_| {})
    )));
    let of_namespace = DrainSpec {
        budgets: [("shop/*".to_owned(), BudgetConsent::Wait)].into(),
        ..default_drain_spec()
    };
    assert!(asks(&next(&of_namespace, &closed(|_| {}))));
}

#[test]
fn a_refused_one_is_told_in_its_words_and_is_another_act_when_it_is_tried_again() {
    let seen = refused(closed(custom), 30);
    assert!(
        matches!(next(&with_budget(BudgetConsent::Wait), &seen), Decision::Wait { why, .. } if why.contains("not now"))
    );
    let mut again = refused(closed(custom), 30);
    (again.refusals, again.paused_pods) = Default::default();
    let Decision::Act(DrainStepAct::Evict { pods }) =
        next(&with_budget(BudgetConsent::Wait), &again)
    else {
        panic!()
    };
    assert_eq!(pods[0].attempt, 1);
}

#[test]
fn at_the_deadline_one_budgets_consent_deletes_its_pods_although_the_plan_stops_for_others() {
    let late = || refused(closed(|_| {}), 601);
    assert!(
        matches!(next(&with_budget(BudgetConsent::Wait), &late()), Decision::Refuse(why) if why.to_string().contains("not now"))
    );
    assert!(matches!(
        next(&with_budget(BudgetConsent::Delete), &late()),
        Decision::Act(DrainStepAct::Delete { pods, .. }) if pods.len() == 1
    ));
    let early = refused(closed(|_| {}), 599);
    assert!(matches!(
        next(&with_budget(BudgetConsent::Delete), &early),
        Decision::Wait { .. }
    ));
}

#[test]
fn a_single_replica_that_may_be_down_is_deleted_once_its_budget_has_refused() {
    let evict = DrainSpec {
        single_replicas: SingleReplicas::Evict,
        ..default_drain_spec()
    };
    let single = |had| {
        let mut seen = closed(|_| {});
        let name = "Deployment shop/web".to_owned();
        let workload = PodWorkload {
            name,
            had,
            ready: had,
        };
        seen.workloads.insert("uid-a".into(), workload);
        seen
    };
    assert!(asks(&next(&evict, &single(1))));
    assert!(matches!(
        next(&evict, &refused(single(1), 1)),
        Decision::Act(DrainStepAct::Delete { .. })
    ));
    // One of several is no single replica, though its budget selects it alone.
    assert!(matches!(next(&evict, &single(3)), Decision::Wait { .. }));
}

#[test]
fn a_pod_behind_a_finalizer_is_told_with_since_when_and_which() {
    let seen = closed(|pod| {
        pod.deletion_timestamp = Some(time_at(-3600));
        pod.finalizers = vec!["example.com/cleanup".into()];
    });
    let Decision::Wait { why, .. } = next(&default_drain_spec(), &seen) else {
        panic!()
    };
    assert!(
        why.contains("is Terminating (its grace period ends at ")
            && why.contains("example.com/cleanup"),
        "{why}"
    );
}
