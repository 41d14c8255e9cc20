//! What a drain chooses where workloads are short, or pods come back.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::act::DrainStepAct;
use super::decide::decide_drain;
use super::fixtures::{closed_node, default_drain_spec, time_at, volume_in};
use super::observation::ReplicaRestart;
use super::placement::PlacementFacts;
use crate::engine::{Decision, StepHistory};
use crate::model::kube::NamespacedName;
use crate::plan::{OnDeadline, SingleReplicas};
use crate::route::DrainSpec;
use crate::steps::evictable::tests::pod;

use super::tests::*;

#[test]
fn workloads_that_stay_short_end_the_run_whatever_the_plan_says_at_deadlines() {
    for on_deadline in [OnDeadline::Stop, OnDeadline::Skip, OnDeadline::Delete] {
        let spec = DrainSpec {
            on_deadline,
            ..default_drain_spec()
        };
        let state = |s| {
            let mut state = after(
                s,
                seen(vec![
                    blue(closed_node("n1", Some(0)), vec![]),
                    blue(closed_node("n2", None), vec![pod("b", "n2")]),
                ]),
                &[],
            );
            state.short = vec![short("Deployment shop/web")];
            state
        };
        let decide = |s| decide_drain(&spec, &state(s), &StepHistory::default(), time_at(0));
        assert!(matches!(decide(1800), Decision::Wait { .. }));
        assert!(
            matches!(decide(1801), Decision::Refuse(why) if why.to_string().contains("ImagePullBackOff")),
            "{on_deadline:?}"
        );
    }
}

#[test]
fn the_last_node_is_not_the_end_while_a_workload_is_short() {
    let mut state = seen(vec![blue(closed_node("n1", Some(0)), vec![])]);
    state.short = vec![short("Deployment shop/web")];
    assert!(matches!(
        decide_drain(
            &default_drain_spec(),
            &state,
            &StepHistory::default(),
            time_at(1)
        ),
        Decision::Wait { .. }
    ));
}

#[test]
fn what_can_be_evicted_is_evicted_before_a_deadline_counts() {
    let both = vec![pod("a", "n1"), pod("b", "n1")];
    let state = with_budget(seen(vec![blue(closed_node("n1", Some(0)), both)]), 1);
    let delete = DrainSpec {
        on_deadline: OnDeadline::Delete,
        ..default_drain_spec()
    };
    // Long past both deadlines, the budget is open for one of them.
    let state = after(5000, state, &["a", "b"]);
    assert_eq!(
        evicted(decide_drain(
            &delete,
            &state,
            &StepHistory::default(),
            time_at(0)
        )),
        ["a"]
    );
}

#[test]
fn one_pod_of_a_workload_is_deleted_at_a_time_and_none_while_it_is_short() {
    let both = || vec![pod("a", "n1"), pod("b", "n1")];
    let delete = DrainSpec {
        on_deadline: OnDeadline::Delete,
        ..default_drain_spec()
    };
    let state = |ready| {
        let seen = with_budget(seen(vec![blue(closed_node("n1", Some(0)), both())]), 0);
        let mut seen = after(601, with_workload(seen, &["a", "b"], 3, ready), &["a", "b"]);
        for pod in ["uid-a", "uid-b"] {
            seen.refusals.insert(pod.into(), "no".into());
        }
        seen
    };
    let Decision::Act(DrainStepAct::Delete { pods, .. }) =
        decide_drain(&delete, &state(3), &StepHistory::default(), time_at(0))
    else {
        panic!()
    };
    assert_eq!(pods.len(), 1);
    assert!(matches!(
        decide_drain(&delete, &state(2), &StepHistory::default(), time_at(0)),
        Decision::Wait { .. }
    ));
}

#[test]
fn a_workload_without_a_budget_keeps_its_last_ready_pod_until_another_is_ready() {
    let both = || vec![pod("a", "n1"), pod("b", "n1")];
    let state = with_workload(
        seen(vec![blue(closed_node("n1", Some(0)), both())]),
        &["a", "b"],
        2,
        2,
    );
    assert_eq!(
        evicted(decide_drain(
            &default_drain_spec(),
            &state,
            &StepHistory::default(),
            time_at(1)
        )),
        ["a"]
    );
    let alone = seen(vec![blue(closed_node("n1", Some(0)), vec![pod("b", "n1")])]);
    let alone = with_workload(alone, &["b"], 2, 1);
    assert!(
        matches!(decide_drain(&default_drain_spec(), &alone, &StepHistory::default(), time_at(1)), Decision::Wait { why, .. } if why.contains("last Ready pod of Deployment shop/web"))
    );
    let back = with_workload(alone, &["b"], 2, 2);
    assert_eq!(
        evicted(decide_drain(
            &default_drain_spec(),
            &back,
            &StepHistory::default(),
            time_at(1)
        )),
        ["b"]
    );
}

#[test]
fn a_pod_whose_eviction_no_watch_has_told_of_yet_counts_as_gone() {
    // The last Ready pod stays, although the one that goes still reads Ready.
    let both = vec![pod("a", "n1"), pod("b", "n1")];
    let mut state = with_workload(
        seen(vec![blue(closed_node("n1", Some(0)), both)]),
        &["a", "b"],
        2,
        2,
    );
    state.paused_pods = BTreeSet::from(["uid-a".to_owned()]);
    let decision = decide_drain(
        &default_drain_spec(),
        &state,
        &StepHistory::default(),
        time_at(1),
    );
    assert!(matches!(decision, Decision::Wait { .. }), "{decision:?}");

    // And no other node is begun after one that is finished.
    let two = DrainSpec {
        parallel: 2,
        ..default_drain_spec()
    };
    let nodes = || {
        vec![
            blue(closed_node("n1", Some(0)), vec![]),
            blue(closed_node("n2", Some(0)), vec![pod("b", "n2")]),
            blue(closed_node("n3", None), vec![pod("c", "n3")]),
        ]
    };
    let mut state = with_workload(seen(nodes()), &["b"], 3, 3);
    state.paused_pods = BTreeSet::from(["uid-b".to_owned()]);
    let decision = decide_drain(&two, &state, &StepHistory::default(), time_at(1));
    assert!(matches!(decision, Decision::Wait { .. }), "{decision:?}");
}

#[test]
fn a_finished_node_that_was_ended_lets_no_node_be_begun_before_an_eviction_is_seen() {
    let two = DrainSpec {
        parallel: 2,
        ..default_drain_spec()
    };
    // The node that was begun beside n2 and emptied is gone: an autoscaler ended it.
    let nodes = vec![
        blue(closed_node("n2", Some(0)), vec![pod("b", "n2")]),
        blue(closed_node("n3", None), vec![pod("c", "n3")]),
    ];
    let mut state = with_workload(seen(nodes), &["b"], 3, 3);
    state.paused_pods = BTreeSet::from(["uid-b".to_owned()]);
    let decision = decide_drain(&two, &state, &StepHistory::default(), time_at(1));
    assert!(matches!(decision, Decision::Wait { .. }), "{decision:?}");

    // What was refused serves on, and holds up no other node.
    state.refusals.insert("uid-b".into(), "no".into());
    let decision = decide_drain(&two, &state, &StepHistory::default(), time_at(1));
    assert!(
        matches!(&decision, Decision::Act(DrainStepAct::Begin { nodes, .. }) if nodes == &["n3"]),
        "{decision:?}"
    );
}

#[test]
fn a_single_replica_without_a_budget_is_surged_too() {
    let mut state = with_workload(
        seen(vec![blue(closed_node("n1", Some(0)), vec![pod("a", "n1")])]),
        &["a"],
        1,
        1,
    );
    let surge = DrainSpec {
        single_replicas: SingleReplicas::Surge,
        ..default_drain_spec()
    };
    state.restarts.insert(
        "uid-a".into(),
        ReplicaRestart::Possible(NamespacedName::new("shop", "web")),
    );
    // A process that does not know of the restart asks for the very same one, which changes nothing.
    for now in [1, 500] {
        let decision = decide_drain(&surge, &state, &StepHistory::default(), time_at(now));
        let deployment = NamespacedName::new("shop", "web");
        let at = time_at(0);
        assert_eq!(
            decision,
            Decision::Act(DrainStepAct::Restart { deployment, at })
        );
    }
    state.restarts.insert(
        "uid-a".into(),
        ReplicaRestart::Underway(NamespacedName::new("shop", "web")),
    );
    assert!(matches!(
        decide_drain(&surge, &state, &StepHistory::default(), time_at(1)),
        Decision::Wait { .. }
    ));
}

#[test]
fn a_node_whose_pods_have_nowhere_to_go_is_not_begun_and_green_grows_first() {
    let mut stateful = pod("db-0", "n1");
    stateful.claims = vec!["data".into()];
    let mut state = seen(vec![blue(closed_node("n1", None), vec![stateful])]);
    state.placement_facts = Arc::new(PlacementFacts {
        volumes: volume_in("1b"),
        namespaces: None,
    });
    (state.green_ready, state.green_desired, state.green_max) = (1, 1, 2);
    assert_eq!(
        decide_drain(
            &default_drain_spec(),
            &state,
            &StepHistory::default(),
            time_at(1)
        ),
        Decision::Act(DrainStepAct::Grow {
            desired: 2,
            request: Default::default()
        })
    );
    (state.green_ready, state.green_desired) = (2, 2);
    assert!(
        matches!(decide_drain(&default_drain_spec(), &state, &StepHistory::default(), time_at(1)), Decision::Wait { why, .. } if why.contains("1b"))
    );
    let state = after(1801, state, &[]);
    assert!(
        matches!(decide_drain(&default_drain_spec(), &state, &StepHistory::default(), time_at(1)), Decision::Refuse(why) if why.to_string().contains("1b"))
    );
}

#[test]
fn a_workload_that_always_comes_back_ends_the_run() {
    let mut state = seen(vec![blue(closed_node("n1", Some(0)), vec![pod("a", "n1")])]);
    state.returning_workload = Some("Deployment shop/web".into());
    assert!(
        matches!(decide_drain(&default_drain_spec(), &state, &StepHistory::default(), time_at(1)), Decision::Refuse(why) if why.to_string().contains("shop/web"))
    );
}
