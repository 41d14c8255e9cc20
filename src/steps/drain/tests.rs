//! What a drain chooses, case by case.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::budget::tests::pdb;
use super::decide::{Act, decide};
use super::fixtures::{RUN, at, node, open_node, spec, volume_in};
use super::placement::PlacementFacts;
use super::seen::{BlueNode, Restart, Seen};
use crate::engine::{Decision, Past};
use crate::model::kube::{Key, Node, Owner, Pod};
use crate::model::marks;
use crate::route::DrainSpec;
use crate::steps::evictable::tests::pod;
use crate::steps::workload_health::{PodWorkload, ShortWorkload};

fn blue(node: Node, pods: Vec<Pod>) -> BlueNode {
    let pods: Vec<Arc<Pod>> = pods.into_iter().map(Arc::new).collect();
    BlueNode::new(Arc::new(node), Arc::new(pods))
}

/// A look at blue beside one green node that takes any pod.
fn seen(nodes: Vec<BlueNode>) -> Seen {
    let green = open_node("g1", "green", "1a");
    let mut seen = Seen {
        run: RUN.into(),
        group: "blue".into(),
        nodes,
        ..Seen::default()
    };
    Arc::make_mut(&mut seen.snapshot.nodes).insert(green.name.clone(), Arc::new(green));
    seen
}

/// The same look, where begun nodes were seen open for this long, and pods `refused` as long.
fn after(seconds: u64, mut seen: Seen, refused: &[&str]) -> Seen {
    let elapsed = Duration::from_secs(seconds);
    let begun = seen.nodes.iter().filter(|n| n.begun(RUN).is_some());
    seen.elapsed.open = begun.map(|n| (n.node.name.clone(), elapsed)).collect();
    seen.elapsed.still = seen.elapsed.open.clone();
    let uids = refused.iter().map(|p| (format!("uid-{p}"), elapsed));
    seen.elapsed.refused = uids.collect();
    seen.elapsed.waiting = elapsed;
    seen
}

fn short(name: &str) -> ShortWorkload {
    ShortWorkload {
        name: name.into(),
        ready: 1,
        needed: 2,
        why: "pod shop/web-x on g1: ImagePullBackOff".into(),
    }
}

/// `pods` belong to a workload that had `had` Ready pods and has `ready`.
fn with_workload(mut seen: Seen, pods: &[&str], had: u32, ready: u32) -> Seen {
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
    let closed = after(250, closed, &[]);
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
    waiting.short = vec![short("Deployment shop/web-1")];
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
        let seen = seen(vec![blue(node("n1", Some(0)), vec![pod("a", "n1")])]);
        after(601, with_budget(seen, 0), &["a"])
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
    // The API server is asked once more, and only what it refuses then is deleted.
    assert_eq!(
        evicted(decide(&delete, &late(), &Past::default(), now)),
        ["a"]
    );
    let mut refused = late();
    refused.refusals.insert("uid-a".into(), "no".into());
    refused.hushed.insert("uid-a".into());
    assert!(
        matches!(decide(&delete, &refused, &Past::default(), now), Decision::Act(Act::Delete { pods, .. }) if pods.len() == 1)
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
        .restarts
        .insert("uid-a".into(), Restart::Possible(Key::new("shop", "web")));
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
    let state = |s| {
        after(
            s,
            seen(vec![blue(node("n1", Some(0)), vec![job.clone()])]),
            &[],
        )
    };
    assert!(
        matches!(decide(&spec(), &state(700), &Past::default(), at(700)), Decision::Wait { why, .. } if why.contains("pods that run to an end are running"))
    );
    assert!(matches!(
        decide(&spec(), &state(1801), &Past::default(), at(1801)),
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
        let mut state = seen(vec![blue(
            dead.clone(),
            vec![pod("b", "n1"), leaving.clone()],
        )]);
        let unready = Duration::from_secs(70);
        state.elapsed.unready.insert("n1".into(), unready);
        state
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
fn a_refused_eviction_is_told_in_its_words_and_ends_at_the_pods_deadline() {
    let mut state = seen(vec![blue(node("n1", Some(0)), vec![pod("a", "n1")])]);
    state.hushed.insert("uid-a".into());
    let words = r#"admission webhook "keep" denied the request: not now"#;
    state.refusals.insert("uid-a".into(), words.into());
    let mut refused_for = |seconds: u64, on_deadline: &str| {
        let refused = Duration::from_secs(seconds);
        state.elapsed.refused.insert("uid-a".into(), refused);
        let mut spec = spec();
        spec.on_deadline = on_deadline.into();
        decide(&spec, &state, &Past::default(), at(1))
    };
    assert!(
        matches!(refused_for(600, "stop"), Decision::Wait { why, .. } if why.contains(words) && why.contains("shop/a") && !why.contains("stopping"))
    );
    assert!(matches!(refused_for(601, "stop"), Decision::Refuse(why) if why.contains(words)));
    assert!(matches!(
        refused_for(601, "delete"),
        Decision::Act(Act::Delete { .. })
    ));
}

#[test]
fn a_pod_that_never_stops_is_not_waited_for_for_ever() {
    let mut stuck = pod("a", "n1");
    stuck.deletion_timestamp = Some(at(0));
    let mut state = seen(vec![blue(node("n1", Some(0)), vec![stuck])]);
    let mut after = |s: u64| {
        let stopping = Duration::from_secs(s);
        state.elapsed.stopping.insert("uid-a".into(), stopping);
        decide(&spec(), &state, &Past::default(), at(0))
    };
    assert!(matches!(after(660), Decision::Wait { .. }));
    assert!(matches!(after(661), Decision::Refuse(why) if why.contains("shop/a")));
}

#[test]
fn workloads_that_stay_short_end_the_run_whatever_the_plan_says_at_deadlines() {
    for on_deadline in ["stop", "skip", "delete"] {
        let spec = DrainSpec {
            on_deadline: on_deadline.into(),
            ..spec()
        };
        let state = |s| {
            let mut state = after(
                s,
                seen(vec![
                    blue(node("n1", Some(0)), vec![]),
                    blue(node("n2", None), vec![pod("b", "n2")]),
                ]),
                &[],
            );
            state.short = vec![short("Deployment shop/web")];
            state
        };
        let decide = |s| decide(&spec, &state(s), &Past::default(), at(0));
        assert!(matches!(decide(1800), Decision::Wait { .. }));
        assert!(
            matches!(decide(1801), Decision::Refuse(why) if why.contains("ImagePullBackOff")),
            "{on_deadline}"
        );
    }
}

#[test]
fn the_last_node_is_not_the_end_while_a_workload_is_short() {
    let mut state = seen(vec![blue(node("n1", Some(0)), vec![])]);
    state.short = vec![short("Deployment shop/web")];
    assert!(matches!(
        decide(&spec(), &state, &Past::default(), at(1)),
        Decision::Wait { .. }
    ));
}

#[test]
fn what_can_be_evicted_is_evicted_before_a_deadline_counts() {
    let both = vec![pod("a", "n1"), pod("b", "n1")];
    let state = with_budget(seen(vec![blue(node("n1", Some(0)), both)]), 1);
    let delete = DrainSpec {
        on_deadline: "delete".into(),
        ..spec()
    };
    // Long past both deadlines, the budget is open for one of them.
    let state = after(5000, state, &["a", "b"]);
    assert_eq!(
        evicted(decide(&delete, &state, &Past::default(), at(0))),
        ["a"]
    );
}

#[test]
fn one_pod_of_a_workload_is_deleted_at_a_time_and_none_while_it_is_short() {
    let both = || vec![pod("a", "n1"), pod("b", "n1")];
    let delete = DrainSpec {
        on_deadline: "delete".into(),
        ..spec()
    };
    let state = |ready| {
        let seen = with_budget(seen(vec![blue(node("n1", Some(0)), both())]), 0);
        let mut seen = after(601, with_workload(seen, &["a", "b"], 3, ready), &["a", "b"]);
        for pod in ["uid-a", "uid-b"] {
            seen.refusals.insert(pod.into(), "no".into());
        }
        seen
    };
    let Decision::Act(Act::Delete { pods, .. }) =
        decide(&delete, &state(3), &Past::default(), at(0))
    else {
        panic!()
    };
    assert_eq!(pods.len(), 1);
    assert!(matches!(
        decide(&delete, &state(2), &Past::default(), at(0)),
        Decision::Wait { .. }
    ));
}

#[test]
fn a_workload_without_a_budget_keeps_its_last_ready_pod_until_another_is_ready() {
    let both = || vec![pod("a", "n1"), pod("b", "n1")];
    let state = with_workload(
        seen(vec![blue(node("n1", Some(0)), both())]),
        &["a", "b"],
        2,
        2,
    );
    assert_eq!(
        evicted(decide(&spec(), &state, &Past::default(), at(1))),
        ["a"]
    );
    let alone = seen(vec![blue(node("n1", Some(0)), vec![pod("b", "n1")])]);
    let alone = with_workload(alone, &["b"], 2, 1);
    assert!(
        matches!(decide(&spec(), &alone, &Past::default(), at(1)), Decision::Wait { why, .. } if why.contains("last Ready pod of Deployment shop/web"))
    );
    let back = with_workload(alone, &["b"], 2, 2);
    assert_eq!(
        evicted(decide(&spec(), &back, &Past::default(), at(1))),
        ["b"]
    );
}

#[test]
fn a_pod_whose_eviction_no_watch_has_told_of_yet_counts_as_gone() {
    // The last Ready pod stays, although the one that goes still reads Ready.
    let both = vec![pod("a", "n1"), pod("b", "n1")];
    let mut state = with_workload(
        seen(vec![blue(node("n1", Some(0)), both)]),
        &["a", "b"],
        2,
        2,
    );
    state.hushed = BTreeSet::from(["uid-a".to_owned()]);
    let decision = decide(&spec(), &state, &Past::default(), at(1));
    assert!(matches!(decision, Decision::Wait { .. }), "{decision:?}");

    // And no other node is begun after one that is finished.
    let two = DrainSpec {
        parallel: 2,
        ..spec()
    };
    let nodes = || {
        vec![
            blue(node("n1", Some(0)), vec![]),
            blue(node("n2", Some(0)), vec![pod("b", "n2")]),
            blue(node("n3", None), vec![pod("c", "n3")]),
        ]
    };
    let mut state = with_workload(seen(nodes()), &["b"], 3, 3);
    state.hushed = BTreeSet::from(["uid-b".to_owned()]);
    let decision = decide(&two, &state, &Past::default(), at(1));
    assert!(matches!(decision, Decision::Wait { .. }), "{decision:?}");
}

#[test]
fn a_finished_node_that_was_ended_lets_no_node_be_begun_before_an_eviction_is_seen() {
    let two = DrainSpec {
        parallel: 2,
        ..spec()
    };
    // The node that was begun beside n2 and emptied is gone: an autoscaler ended it.
    let nodes = vec![
        blue(node("n2", Some(0)), vec![pod("b", "n2")]),
        blue(node("n3", None), vec![pod("c", "n3")]),
    ];
    let mut state = with_workload(seen(nodes), &["b"], 3, 3);
    state.hushed = BTreeSet::from(["uid-b".to_owned()]);
    let decision = decide(&two, &state, &Past::default(), at(1));
    assert!(matches!(decision, Decision::Wait { .. }), "{decision:?}");

    // What was refused serves on, and holds up no other node.
    state.refusals.insert("uid-b".into(), "no".into());
    let decision = decide(&two, &state, &Past::default(), at(1));
    assert!(
        matches!(&decision, Decision::Act(Act::Begin { nodes, .. }) if nodes == &["n3"]),
        "{decision:?}"
    );
}

#[test]
fn a_single_replica_without_a_budget_is_surged_too() {
    let mut state = with_workload(
        seen(vec![blue(node("n1", Some(0)), vec![pod("a", "n1")])]),
        &["a"],
        1,
        1,
    );
    let surge = DrainSpec {
        single_replicas: "surge".into(),
        ..spec()
    };
    state
        .restarts
        .insert("uid-a".into(), Restart::Possible(Key::new("shop", "web")));
    assert!(matches!(
        decide(&surge, &state, &Past::default(), at(1)),
        Decision::Act(Act::Restart { .. })
    ));
    state
        .restarts
        .insert("uid-a".into(), Restart::Underway(Key::new("shop", "web")));
    assert!(matches!(
        decide(&surge, &state, &Past::default(), at(1)),
        Decision::Wait { .. }
    ));
}

#[test]
fn a_node_whose_pods_have_nowhere_to_go_is_not_begun_and_green_grows_first() {
    let mut stateful = pod("db-0", "n1");
    stateful.claims = vec!["data".into()];
    let mut state = seen(vec![blue(node("n1", None), vec![stateful])]);
    state.placement_facts = Arc::new(PlacementFacts {
        volumes: volume_in("1b"),
        namespaces: None,
    });
    (state.green_ready, state.green_desired, state.green_max) = (1, 1, 2);
    assert_eq!(
        decide(&spec(), &state, &Past::default(), at(1)),
        Decision::Act(Act::Grow {
            desired: 2,
            modified: None
        })
    );
    (state.green_ready, state.green_desired) = (2, 2);
    assert!(
        matches!(decide(&spec(), &state, &Past::default(), at(1)), Decision::Wait { why, .. } if why.contains("1b"))
    );
    let state = after(1801, state, &[]);
    assert!(
        matches!(decide(&spec(), &state, &Past::default(), at(1)), Decision::Refuse(why) if why.contains("1b"))
    );
}

#[test]
fn a_workload_that_always_comes_back_ends_the_run() {
    let mut state = seen(vec![blue(node("n1", Some(0)), vec![pod("a", "n1")])]);
    state.returning_workload = Some("Deployment shop/web".into());
    assert!(
        matches!(decide(&spec(), &state, &Past::default(), at(1)), Decision::Refuse(why) if why.contains("shop/web"))
    );
}
