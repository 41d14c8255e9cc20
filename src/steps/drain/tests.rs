//! What a drain chooses, case by case.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::budget::tests::pdb;
use super::decide::{Act, decide};
use super::seen::{BlueNode, Seen};
use crate::engine::{Decision, Past};
use crate::model::kube::{Key, Node, Owner, Pod, Resources, Taint};
use crate::model::marks;
use crate::route::DrainSpec;
use crate::steps::evictable::tests::pod;

const RUN: &str = "run-1";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

fn spec() -> DrainSpec {
    DrainSpec {
        order: "easiest".into(),
        parallel: 1,
        pod_deadline: Duration::from_secs(600),
        node_deadline: Duration::from_secs(1800),
        on_deadline: "stop".into(),
        bare_pods: false,
        empty_dir: false,
        wait_for_jobs: true,
        single_replicas: "block".into(),
        skip_dead_kubelets: false,
        bake: Duration::ZERO,
        canary_bake: None,
        surge: None,
        leave_target_groups: vec![],
        deregister_from: vec![],
        downtime: false,
    }
}

fn node(name: &str, begun: Option<i64>) -> Node {
    let annotations = begun.map(|s| (marks::DRAINING.to_owned(), format!("{RUN}@{}", at(s))));
    Node {
        name: name.into(),
        uid: name.into(),
        resource_version: "1".into(),
        labels: Default::default(),
        annotations: annotations.into_iter().collect(),
        unschedulable: true,
        taints: vec![Taint {
            key: marks::BLUE_TAINT.into(),
            value: Some(RUN.into()),
            effect: "NoSchedule".into(),
        }],
        provider_id: None,
        ready: "True".into(),
        ready_since: None,
        kubelet_version: "v1.27.16".into(),
        allocatable: Resources::default(),
        created: None,
        deleting: false,
    }
}

fn blue(node: Node, pods: Vec<Pod>) -> BlueNode {
    let pods: Vec<Arc<Pod>> = pods.into_iter().map(Arc::new).collect();
    BlueNode::new(Arc::new(node), Arc::new(pods))
}

fn seen(nodes: Vec<BlueNode>) -> Seen {
    Seen {
        run: RUN.into(),
        nodes,
        ..Seen::default()
    }
}

/// Pods may take long to stop: the last node became empty only then.
fn with_emptied(mut seen: Seen, at: Timestamp) -> Seen {
    seen.emptied = Some(at);
    seen
}

fn with_budget(mut seen: Seen, allowed: i32) -> Seen {
    let budget = pdb("web", allowed, 2, 2 - allowed, 2);
    Arc::make_mut(&mut seen.snapshot.pdbs).insert(budget.key.clone(), budget);
    seen
}

fn evicted(decision: Decision<Act>) -> Vec<String> {
    match decision {
        Decision::Act(Act::Evict { pods }) => pods.into_iter().map(|p| p.key.name).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_that_was_born_after_the_shield_is_closed_first() {
    let mut late = node("late", None);
    late.unschedulable = false;
    let seen = seen(vec![
        blue(node("n1", None), vec![]),
        blue(late, vec![pod("p", "late")]),
    ]);
    let decision = decide(&spec(), &seen, &Past::default(), at(0));
    assert_eq!(
        decision,
        Decision::Act(Act::Shield {
            nodes: vec!["late".into()]
        })
    );
}

#[test]
fn nodes_are_begun_one_at_a_time_easiest_first() {
    let seen = seen(vec![
        blue(node("n1", None), vec![pod("a", "n1"), pod("b", "n1")]),
        blue(node("n2", None), vec![pod("c", "n2")]),
    ]);
    let Decision::Act(Act::Begin { nodes, .. }) = decide(&spec(), &seen, &Past::default(), at(0))
    else {
        panic!()
    };
    assert_eq!(nodes, ["n2"]);
}

#[test]
fn no_more_is_evicted_than_the_budget_allows_and_no_request_is_made_while_it_is_closed() {
    let pods = || vec![pod("a", "n1"), pod("b", "n1")];
    let open = with_budget(seen(vec![blue(node("n1", Some(0)), pods())]), 1);
    assert_eq!(
        evicted(decide(&spec(), &open, &Past::default(), at(1))),
        ["a"]
    );
    let closed = with_budget(seen(vec![blue(node("n1", Some(0)), pods())]), 0);
    let Decision::Wait { why, .. } = decide(&spec(), &closed, &Past::default(), at(250)) else {
        panic!()
    };
    assert!(
        why.contains("waiting 4m10s, PDB shop/web allows 0 of 2 (2 healthy, 2 needed), pod shop/a"),
        "{why}"
    );
}

#[test]
fn the_next_node_waits_for_replacements_volumes_and_the_bake() {
    let two = || {
        vec![
            blue(node("n1", Some(0)), vec![]),
            blue(node("n2", None), vec![pod("c", "n2")]),
        ]
    };
    let past = Past {
        last_act_at: Some(at(5)),
        acts: 2,
        ..Past::default()
    };
    let mut waiting = seen(two());
    waiting.unsettled = vec!["ReplicaSet shop/web-1 has 1 of 2 ready".into()];
    assert!(
        matches!(decide(&spec(), &waiting, &past, at(10)), Decision::Wait { why, .. } if why.contains("shop/web-1"))
    );
    let mut attached = seen(two());
    attached.attached = vec![("vol-1".into(), "n1".into())];
    assert!(
        matches!(decide(&spec(), &attached, &past, at(10)), Decision::Wait { why, .. } if why.contains("vol-1"))
    );
    let baking = DrainSpec {
        bake: Duration::from_secs(60),
        ..spec()
    };
    assert!(
        matches!(decide(&baking, &seen(two()), &past, at(10)), Decision::Wait { why, .. } if why.contains("baking"))
    );
    assert!(matches!(
        decide(&baking, &with_emptied(seen(two()), at(30)), &past, at(66)),
        Decision::Wait { .. }
    ));
    assert!(matches!(
        decide(&baking, &seen(two()), &past, at(66)),
        Decision::Act(Act::Begin { .. })
    ));
}

#[test]
fn a_blocked_pod_at_its_deadline_does_what_the_plan_says_and_names_the_budget() {
    let late = || {
        with_budget(
            seen(vec![blue(node("n1", Some(0)), vec![pod("a", "n1")])]),
            0,
        )
    };
    let now = at(601);
    assert!(
        matches!(decide(&spec(), &late(), &Past::default(), now), Decision::Refuse(why) if why.contains("PDB shop/web"))
    );
    let skip = DrainSpec {
        on_deadline: "skip".into(),
        ..spec()
    };
    assert!(matches!(
        decide(&skip, &late(), &Past::default(), now),
        Decision::Act(Act::Skip { .. })
    ));
    let delete = DrainSpec {
        on_deadline: "delete".into(),
        ..spec()
    };
    assert!(
        matches!(decide(&delete, &late(), &Past::default(), now), Decision::Act(Act::Delete { pods, .. }) if pods.len() == 1)
    );
}

#[test]
fn a_skipped_node_keeps_blue_from_being_retired() {
    let mut skipped = node("n1", Some(0));
    skipped
        .annotations
        .insert(marks::SKIPPED.into(), RUN.into());
    let seen = seen(vec![blue(skipped, vec![pod("a", "n1")])]);
    assert!(
        matches!(decide(&spec(), &seen, &Past::default(), at(1)), Decision::Refuse(why) if why.contains("n1"))
    );
}

#[test]
fn a_single_replica_is_surged_when_the_plan_says_so() {
    let mut state = seen(vec![blue(node("n1", Some(0)), vec![pod("a", "n1")])]);
    let budget = pdb("web", 0, 1, 1, 1);
    Arc::make_mut(&mut state.snapshot.pdbs).insert(budget.key.clone(), budget);
    state
        .restartable
        .insert("uid-a".into(), Ok(Key::new("shop", "web")));
    let surge = DrainSpec {
        single_replicas: "surge".into(),
        ..spec()
    };
    assert!(matches!(
        decide(&surge, &state, &Past::default(), at(1)),
        Decision::Act(Act::Restart { .. })
    ));
    assert!(matches!(
        decide(&spec(), &state, &Past::default(), at(1)),
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
    let state = seen(vec![blue(node("n1", Some(0)), vec![job])]);
    assert!(
        matches!(decide(&spec(), &state, &Past::default(), at(700)), Decision::Wait { why, .. } if why.contains("Jobs are running"))
    );
    assert!(matches!(
        decide(&spec(), &state, &Past::default(), at(1801)),
        Decision::Refuse(_)
    ));
}

#[test]
fn a_dead_kubelet_needs_consent() {
    let mut dead = node("n1", Some(0));
    dead.ready = "Unknown".into();
    let mut leaving = pod("a", "n1");
    leaving.deletion_timestamp = Some(at(1));
    let state = || {
        seen(vec![blue(
            dead.clone(),
            vec![pod("b", "n1"), leaving.clone()],
        )])
    };
    assert!(
        matches!(decide(&spec(), &state(), &Past::default(), at(70)), Decision::Refuse(why) if why.contains("deadKubelets"))
    );
    let skip = DrainSpec {
        skip_dead_kubelets: true,
        ..spec()
    };
    assert_eq!(
        evicted(decide(&skip, &state(), &Past::default(), at(70))),
        ["b"]
    );
    let empty = seen(vec![blue(dead, vec![leaving])]);
    assert!(matches!(
        decide(&skip, &empty, &Past::default(), at(70)),
        Decision::Done(_)
    ));
}

#[test]
fn a_canary_goes_alone_and_bakes_longer() {
    let canary = DrainSpec {
        parallel: 3,
        canary_bake: Some(Duration::from_secs(300)),
        ..spec()
    };
    let fresh = || {
        (2..5)
            .map(|i| blue(node(&format!("n{i}"), None), vec![]))
            .collect::<Vec<_>>()
    };
    let mut all = fresh();
    let Decision::Act(Act::Begin { nodes, .. }) =
        decide(&canary, &seen(all.clone()), &Past::default(), at(0))
    else {
        panic!()
    };
    assert_eq!(nodes.len(), 1);
    all.push(blue(node("n1", Some(0)), vec![]));
    let past = Past {
        last_act_at: Some(at(0)),
        acts: 1,
        ..Past::default()
    };
    assert!(matches!(
        decide(&canary, &seen(all.clone()), &past, at(299)),
        Decision::Wait { .. }
    ));
    let Decision::Act(Act::Begin { nodes, .. }) = decide(&canary, &seen(all), &past, at(300))
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
fn a_pod_that_was_just_asked_to_go_is_not_asked_again() {
    let mut state = seen(vec![blue(node("n1", Some(0)), vec![pod("a", "n1")])]);
    state.hushed.insert("uid-a".into());
    assert!(matches!(
        decide(&spec(), &state, &Past::default(), at(1)),
        Decision::Wait { .. }
    ));
}

#[test]
fn a_pod_that_never_stops_is_not_waited_for_for_ever() {
    let mut stuck = pod("a", "n1");
    stuck.deletion_timestamp = Some(at(0));
    let state = seen(vec![blue(node("n1", Some(0)), vec![stuck])]);
    let after = |s: i64| {
        decide(
            &spec(),
            &state,
            &Past::default(),
            at(0) + SignedDuration::from_secs(s),
        )
    };
    assert!(matches!(after(600), Decision::Wait { .. }));
    assert!(matches!(after(631), Decision::Refuse(why) if why.contains("shop/a")));
}

#[test]
fn a_new_try_that_has_done_nothing_yet_does_not_wait_for_ever_for_what_was_moved() {
    let mut state = seen(vec![
        blue(node("n1", Some(0)), vec![]),
        blue(node("n2", None), vec![pod("b", "n2")]),
    ]);
    state.unsettled = vec!["pod shop/a on no node".into()];
    // As after a stuck end: what the earlier try did does not count, and the run was just taken up again.
    let past = Past {
        started_at: Some(at(0)),
        resumed_at: Some(at(10_000)),
        ..Past::default()
    };
    let after = |s: i64| decide(&spec(), &state, &past, at(10_000 + s));
    assert!(matches!(after(1800), Decision::Wait { .. }));
    assert!(matches!(after(1801), Decision::Refuse(why) if why.contains("shop/a")));
}
