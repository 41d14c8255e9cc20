//! What a drain chooses, case by case.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::act::DrainStepAct;
use super::budget::tests::pdb;
use super::decide::decide_drain;
use super::fixtures::{TEST_RUN_ID, closed_node, default_drain_spec, open_node, time_at};
use super::observation::{BlueNode, DrainObservation, ReplicaRestart};
use crate::engine::{Decision, StepHistory};
use crate::model::kube::{NamespacedName, Node, Owner, Pod};
use crate::model::marks;
use crate::plan::{OnDeadline, SingleReplicas};
use crate::route::DrainSpec;
use crate::steps::evictable::tests::pod;
use crate::steps::workload_health::{PodWorkload, ShortWorkload};

pub(super) fn blue(node: Node, pods: Vec<Pod>) -> BlueNode {
    let pods: Vec<Arc<Pod>> = pods.into_iter().map(Arc::new).collect();
    BlueNode::new(Arc::new(node), Arc::new(pods))
}

/// A look at blue beside one green node that takes any pod.
pub(super) fn seen(nodes: Vec<BlueNode>) -> DrainObservation {
    let green = open_node("g1", "green", "1a");
    let mut seen = DrainObservation {
        run: TEST_RUN_ID.into(),
        group: "blue".into(),
        nodes,
        ..DrainObservation::default()
    };
    Arc::make_mut(&mut seen.snapshot.nodes).insert(green.name.clone(), Arc::new(green));
    seen
}

/// The same look, where begun nodes were seen open for this long, and pods `refused` as long.
pub(super) fn after(
    seconds: u64,
    mut seen: DrainObservation,
    refused: &[&str],
) -> DrainObservation {
    let elapsed = Duration::from_secs(seconds);
    let begun = seen
        .nodes
        .iter()
        .filter(|n| n.begun_at(TEST_RUN_ID).is_some());
    seen.elapsed.open = begun.map(|n| (n.node.name.clone(), elapsed)).collect();
    seen.elapsed.still = seen.elapsed.open.clone();
    let uids = refused.iter().map(|p| (format!("uid-{p}"), elapsed));
    seen.elapsed.refused = uids.collect();
    seen.elapsed.waiting = elapsed;
    seen
}

pub(super) fn short(name: &str) -> ShortWorkload {
    ShortWorkload {
        name: name.into(),
        ready: 1,
        needed: 2,
        why: "pod shop/web-x on g1: ImagePullBackOff".into(),
    }
}

/// `pods` belong to a workload that had `had` Ready pods and has `ready`.
pub(super) fn with_workload(
    mut seen: DrainObservation,
    pods: &[&str],
    had: u32,
    ready: u32,
) -> DrainObservation {
    for pod in pods {
        let workload = PodWorkload {
            name: "Deployment shop/web".into(),
            had,
            ready,
        };
        seen.workloads.insert(format!("uid-{pod}"), workload);
    }
    seen
}

/// Pods may take long to stop: the last node became empty only then.
pub(super) fn with_emptied(mut seen: DrainObservation, at: Timestamp) -> DrainObservation {
    seen.emptied = Some(at);
    seen
}

pub(super) fn with_budget(mut seen: DrainObservation, allowed: i32) -> DrainObservation {
    let budget = pdb("web", allowed, 2, 2 - allowed, 2);
    Arc::make_mut(&mut seen.snapshot.pdbs).insert(budget.key.clone(), budget);
    seen
}

pub(super) fn evicted(decision: Decision<DrainStepAct>) -> Vec<String> {
    match decision {
        Decision::Act(DrainStepAct::Evict { pods }) => {
            pods.into_iter().map(|p| p.key.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nodes_are_begun_one_at_a_time_easiest_first() {
    let seen = seen(vec![
        blue(
            closed_node("n1", None),
            vec![pod("a", "n1"), pod("b", "n1")],
        ),
        blue(closed_node("n2", None), vec![pod("c", "n2")]),
    ]);
    let Decision::Act(DrainStepAct::Begin { nodes, .. }) = decide_drain(
        &default_drain_spec(),
        &seen,
        &StepHistory::default(),
        time_at(0),
    ) else {
        panic!()
    };
    assert_eq!(nodes, ["n2"]);
}

#[test]
fn no_more_is_evicted_than_the_budget_allows_and_no_request_is_made_while_it_is_closed() {
    let pods = || vec![pod("a", "n1"), pod("b", "n1")];
    let open = with_budget(seen(vec![blue(closed_node("n1", Some(0)), pods())]), 1);
    assert_eq!(
        evicted(decide_drain(
            &default_drain_spec(),
            &open,
            &StepHistory::default(),
            time_at(1)
        )),
        ["a"]
    );
    let closed = with_budget(seen(vec![blue(closed_node("n1", Some(0)), pods())]), 0);
    let closed = after(250, closed, &[]);
    let Decision::Wait { why, .. } = decide_drain(
        &default_drain_spec(),
        &closed,
        &StepHistory::default(),
        time_at(250),
    ) else {
        panic!()
    };
    assert!(
        why.contains("waiting 4m10s, PDB shop/web allows 0 of 2 (2 healthy, 2 needed), pod shop/a"),
        "{why}"
    );
}

#[test]
fn the_next_node_waits_for_replacements_volumes_and_the_bake() {
    // The first node is empty, and the second one would be next.
    let two = || {
        vec![
            blue(closed_node("n1", Some(0)), vec![]),
            blue(closed_node("n2", None), vec![pod("c", "n2")]),
        ]
    };
    let past = StepHistory {
        last_act_at: Some(time_at(5)),
        acts: 2,
        ..StepHistory::default()
    };
    // The evicted pod's replacement is not Ready yet.
    let mut waiting = seen(two());
    waiting.short = vec![short("Deployment shop/web-1")];
    assert!(
        matches!(decide_drain(&default_drain_spec(), &waiting, &past, time_at(10)), Decision::Wait { why, .. } if why.contains("shop/web-1"))
    );
    // A volume is still attached to the emptied node: its pod cannot start elsewhere.
    let mut attached = seen(two());
    attached.attached = vec![("vol-1".into(), "n1".into())];
    assert!(
        matches!(decide_drain(&default_drain_spec(), &attached, &past, time_at(10)), Decision::Wait { why, .. } if why.contains("vol-1"))
    );
    let baking = DrainSpec {
        bake: Duration::from_secs(60),
        ..default_drain_spec()
    };
    assert!(
        matches!(decide_drain(&baking, &seen(two()), &past, time_at(10)), Decision::Wait { why, .. } if why.contains("baking"))
    );
    // The bake counts from when the node was empty, if that was later than the last act.
    assert!(matches!(
        decide_drain(
            &baking,
            &with_emptied(seen(two()), time_at(30)),
            &past,
            time_at(66)
        ),
        Decision::Wait { .. }
    ));
    assert!(matches!(
        decide_drain(&baking, &seen(two()), &past, time_at(66)),
        Decision::Act(DrainStepAct::Begin { .. })
    ));
}

#[test]
fn a_blocked_pod_at_its_deadline_does_what_the_plan_says_and_names_the_budget() {
    let late = || {
        let seen = seen(vec![blue(closed_node("n1", Some(0)), vec![pod("a", "n1")])]);
        after(601, with_budget(seen, 0), &["a"])
    };
    let now = time_at(601);
    assert!(
        matches!(decide_drain(&default_drain_spec(), &late(), &StepHistory::default(), now), Decision::Refuse(why) if why.to_string().contains("PDB shop/web"))
    );
    let skip = DrainSpec {
        on_deadline: OnDeadline::Skip,
        ..default_drain_spec()
    };
    assert!(matches!(
        decide_drain(&skip, &late(), &StepHistory::default(), now),
        Decision::Act(DrainStepAct::Skip { .. })
    ));
    let delete = DrainSpec {
        on_deadline: OnDeadline::Delete,
        ..default_drain_spec()
    };
    // The API server is asked once more, and only what it refuses then is deleted.
    assert_eq!(
        evicted(decide_drain(&delete, &late(), &StepHistory::default(), now)),
        ["a"]
    );
    let mut refused = late();
    refused.refusals.insert("uid-a".into(), "no".into());
    refused.paused_pods.insert("uid-a".into());
    assert!(
        matches!(decide_drain(&delete, &refused, &StepHistory::default(), now), Decision::Act(DrainStepAct::Delete { pods, .. }) if pods.len() == 1)
    );
}

#[test]
fn a_skipped_node_keeps_blue_from_being_retired() {
    let mut skipped = closed_node("n1", Some(0));
    skipped
        .annotations
        .insert(marks::SKIPPED.into(), TEST_RUN_ID.into());
    let seen = seen(vec![blue(skipped, vec![pod("a", "n1")])]);
    assert!(
        matches!(decide_drain(&default_drain_spec(), &seen, &StepHistory::default(), time_at(1)), Decision::Refuse(why) if why.to_string().contains("n1"))
    );
}

#[test]
fn a_single_replica_is_surged_when_the_plan_says_so() {
    let mut state = seen(vec![blue(closed_node("n1", Some(0)), vec![pod("a", "n1")])]);
    let budget = pdb("web", 0, 1, 1, 1);
    Arc::make_mut(&mut state.snapshot.pdbs).insert(budget.key.clone(), budget);
    state.restarts.insert(
        "uid-a".into(),
        ReplicaRestart::Possible(NamespacedName::new("shop", "web")),
    );
    let surge = DrainSpec {
        single_replicas: SingleReplicas::Surge,
        ..default_drain_spec()
    };
    assert!(matches!(
        decide_drain(&surge, &state, &StepHistory::default(), time_at(1)),
        Decision::Act(DrainStepAct::Restart { .. })
    ));
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
fn a_running_job_is_waited_for_and_then_stops_the_run() {
    let mut job = pod("job", "n1");
    job.owner = Some(Owner {
        kind: "Job".into(),
        name: "j".into(),
        uid: "j".into(),
    });
    let state = |s| {
        after(
            s,
            seen(vec![blue(closed_node("n1", Some(0)), vec![job.clone()])]),
            &[],
        )
    };
    assert!(
        matches!(decide_drain(&default_drain_spec(), &state(700), &StepHistory::default(), time_at(700)), Decision::Wait { why, .. } if why.contains("pods that run to completion are still running"))
    );
    assert!(matches!(
        decide_drain(
            &default_drain_spec(),
            &state(1801),
            &StepHistory::default(),
            time_at(1801)
        ),
        Decision::Refuse(_)
    ));
}

#[test]
fn a_dead_kubelet_needs_consent() {
    // Its kubelet is silent: whether its pods have stopped nobody knows.
    let mut dead = closed_node("n1", Some(0));
    dead.ready = "Unknown".into();
    let mut leaving = pod("a", "n1");
    leaving.deletion_timestamp = Some(time_at(1));
    let state = || {
        let mut state = seen(vec![blue(
            dead.clone(),
            vec![pod("b", "n1"), leaving.clone()],
        )]);
        let unready = Duration::from_secs(70);
        state.elapsed.unready.insert("n1".into(), unready);
        state
    };
    // Without consent the drain stops: the pods may still run there, unseen.
    assert!(
        matches!(decide_drain(&default_drain_spec(), &state(), &StepHistory::default(), time_at(70)), Decision::Refuse(why) if why.to_string().contains("deadKubelets"))
    );
    let skip = DrainSpec {
        skip_dead_kubelets: true,
        ..default_drain_spec()
    };
    assert_eq!(
        evicted(decide_drain(
            &skip,
            &state(),
            &StepHistory::default(),
            time_at(70)
        )),
        ["b"]
    );
    // A pod that was asked to go is left: with consent it is not waited for.
    let empty = seen(vec![blue(dead, vec![leaving])]);
    assert!(matches!(
        decide_drain(&skip, &empty, &StepHistory::default(), time_at(70)),
        Decision::Done(_)
    ));
}

#[test]
fn a_canary_goes_alone_and_bakes_longer() {
    let canary = DrainSpec {
        parallel: 3,
        canary_bake: Some(Duration::from_secs(300)),
        ..default_drain_spec()
    };
    let fresh = || {
        (2..5)
            .map(|i| blue(closed_node(&format!("n{i}"), None), vec![]))
            .collect::<Vec<_>>()
    };
    // Three at a time are allowed, and the first goes alone.
    let mut all = fresh();
    let Decision::Act(DrainStepAct::Begin { nodes, .. }) = decide_drain(
        &canary,
        &seen(all.clone()),
        &StepHistory::default(),
        time_at(0),
    ) else {
        panic!()
    };
    assert_eq!(nodes.len(), 1);
    all.push(blue(closed_node("n1", Some(0)), vec![]));
    let past = StepHistory {
        last_act_at: Some(time_at(0)),
        acts: 1,
        ..StepHistory::default()
    };
    // One that bakes keeps the others waiting to the last second.
    assert!(matches!(
        decide_drain(&canary, &seen(all.clone()), &past, time_at(299)),
        Decision::Wait { .. }
    ));
    let Decision::Act(DrainStepAct::Begin { nodes, .. }) =
        decide_drain(&canary, &seen(all), &past, time_at(300))
    else {
        panic!()
    };
    assert_eq!(
        nodes.len(),
        1,
        "parallel begins with the second batch: {nodes:?}"
    );
}

#[test]
fn a_new_attempt_bakes_before_it_begins_with_another_node() {
    let canary = DrainSpec {
        canary_bake: Some(Duration::from_secs(300)),
        bake: Duration::from_secs(60),
        ..default_drain_spec()
    };
    let retried = StepHistory {
        started_at: Some(time_at(0)),
        attempt: 1,
        ..StepHistory::default()
    };
    let empty = |name| blue(closed_node(name, Some(-900)), vec![]);
    let fresh = || blue(closed_node("n3", None), vec![]);
    for (nodes, bake) in [
        (vec![empty("n1"), fresh()], 300),
        (vec![empty("n1"), empty("n2"), fresh()], 60),
    ] {
        let decide = |now| decide_drain(&canary, &seen(nodes.clone()), &retried, time_at(now));
        assert!(matches!(decide(bake - 1), Decision::Wait { .. }));
        assert!(matches!(
            decide(bake),
            Decision::Act(DrainStepAct::Begin { .. })
        ));
    }
}

#[test]
fn a_pod_that_was_just_asked_to_go_is_not_asked_again() {
    let mut state = seen(vec![blue(closed_node("n1", Some(0)), vec![pod("a", "n1")])]);
    state.paused_pods.insert("uid-a".into());
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
fn a_refused_eviction_is_told_in_its_words_and_ends_at_the_pods_deadline() {
    let mut state = seen(vec![blue(closed_node("n1", Some(0)), vec![pod("a", "n1")])]);
    state.paused_pods.insert("uid-a".into());
    let words = r#"admission webhook "keep" denied the request: not now"#;
    state.refusals.insert("uid-a".into(), words.into());
    let mut refused_for = |seconds: u64, on_deadline: OnDeadline| {
        let refused = Duration::from_secs(seconds);
        state.elapsed.refused.insert("uid-a".into(), refused);
        let mut spec = default_drain_spec();
        spec.on_deadline = on_deadline;
        decide_drain(&spec, &state, &StepHistory::default(), time_at(1))
    };
    assert!(
        matches!(refused_for(600, OnDeadline::Stop), Decision::Wait { why, .. } if why.contains(words) && why.contains("shop/a") && !why.contains("stopping"))
    );
    assert!(
        matches!(refused_for(601, OnDeadline::Stop), Decision::Refuse(why) if why.to_string().contains(words))
    );
    assert!(matches!(
        refused_for(601, OnDeadline::Delete),
        Decision::Act(DrainStepAct::Delete { .. })
    ));
}

#[test]
fn a_pod_that_never_stops_is_not_waited_for_forever() {
    let mut stuck = pod("a", "n1");
    stuck.deletion_timestamp = Some(time_at(0));
    let mut state = seen(vec![blue(closed_node("n1", Some(0)), vec![stuck])]);
    let mut after = |s: u64| {
        let stopping = Duration::from_secs(s);
        state.elapsed.stopping.insert("uid-a".into(), stopping);
        decide_drain(
            &default_drain_spec(),
            &state,
            &StepHistory::default(),
            time_at(0),
        )
    };
    assert!(matches!(after(660), Decision::Wait { .. }));
    assert!(matches!(after(661), Decision::Refuse(why) if why.to_string().contains("shop/a")));
}
