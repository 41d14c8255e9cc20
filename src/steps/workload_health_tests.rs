//! What counts as short, case by case.

use std::sync::Arc;

use super::*;
use crate::k8s::pods::PodsByNode;
use crate::model::kube::Node;
use crate::model::marks;
use crate::steps::drain::fixtures::{closed_node, shop_workload};
use crate::steps::evictable::tests::pod;

fn snapshot(pods: Vec<Pod>, nodes: &[&str]) -> CacheSnapshot {
    let mut all = PodsByNode::default();
    for pod in pods {
        all.put_pod(Arc::new(pod));
    }
    let nodes = nodes.iter().map(|n| {
        let node: Node = closed_node(n, None);
        ((*n).to_owned(), Arc::new(node))
    });
    CacheSnapshot {
        nodes: Arc::new(nodes.collect()),
        pods: Arc::new(all),
        ..CacheSnapshot::default()
    }
}

fn owned(name: &str, kind: &str, owner: &str) -> Pod {
    let mut pod = pod(name, "n1");
    pod.owner = Some(Owner {
        kind: kind.into(),
        name: owner.into(),
        uid: format!("uid-{owner}"),
    });
    pod
}

fn sets() -> HashMap<String, String> {
    HashMap::from([("rs".to_owned(), "Deployment shop/web".to_owned())])
}

fn counts(of: &[(&str, u32)]) -> ReadyCounts {
    of.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect()
}

#[test]
fn a_pod_counts_only_while_it_is_ready_is_not_being_deleted_and_its_node_exists() {
    let ready = pod("a", "n1");
    let mut starting = pod("b", "n1");
    starting.ready = false;
    let mut ending = pod("c", "n1");
    ending.deletion_timestamp = Some("2026-11-21T08:00:00Z".parse().unwrap());
    let orphan = pod("d", "gone");
    let seen = snapshot(vec![ready, starting, ending, orphan], &["n1"]);
    assert_eq!(
        count_ready(&seen, &sets()),
        counts(&[("Deployment shop/web", 1)])
    );
}

#[test]
fn a_pod_that_another_step_has_just_sent_away_is_missing_before_the_watch_tells_of_it() {
    let monitor = WorkloadMonitor::new(counts(&[("Deployment shop/web", 2)]));
    let (a, b) = (pod("a", "n1"), pod("b", "n1"));
    let seen = snapshot(vec![a.clone(), b.clone()], &["n1"]);
    let serving = |seen: &CacheSnapshot| monitor.count_serving(seen, &sets());
    assert_eq!(serving(&seen), counts(&[("Deployment shop/web", 2)]));
    monitor.departing.note_departure(&a.uid);
    assert_eq!(serving(&seen), counts(&[("Deployment shop/web", 1)]));
    // Once it is shown as going it is no more counted in the first place.
    let mut going = a;
    going.deletion_timestamp = Some("2026-11-21T08:00:00Z".parse().unwrap());
    let later = snapshot(vec![going, b], &["n1"]);
    assert_eq!(serving(&later), counts(&[("Deployment shop/web", 1)]));
    let whole = snapshot(vec![pod("b", "n1"), pod("c", "n1")], &["n1"]);
    assert_eq!(serving(&whole), counts(&[("Deployment shop/web", 2)]));
}

#[test]
fn pods_of_a_custom_resource_count_and_those_that_run_to_completion_do_not() {
    let broker = owned("kafka-0", "StrimziPodSet", "kafka");
    let mut task = owned("task", "TaskRun", "build");
    task.restart_always = false;
    let job = owned("job", "Job", "nightly");
    let daemon = owned("agent", "DaemonSet", "agent");
    let seen = snapshot(vec![broker, task, job, daemon], &["n1"]);
    assert_eq!(
        count_ready(&seen, &sets()),
        counts(&[("StrimziPodSet shop/kafka", 1)])
    );
}

#[test]
fn what_was_short_before_is_asked_for_what_it_had_and_what_was_scaled_down_for_what_it_wants() {
    let had = counts(&[
        ("Deployment shop/web", 2),
        ("Deployment shop/api", 3),
        ("Deployment shop/gone", 1),
        ("StatefulSet shop/db", 1),
        ("StrimziPodSet shop/kafka", 3),
    ]);
    let now = counts(&[
        ("Deployment shop/web", 2),
        ("Deployment shop/api", 1),
        ("StrimziPodSet shop/kafka", 2),
    ]);
    let wanted = counts(&[
        // It wanted three already when two were Ready.
        ("Deployment shop/web", 3),
        // Scaled down meanwhile.
        ("Deployment shop/api", 1),
        ("StatefulSet shop/db", 1),
    ]);
    let short: Vec<(String, u32, u32)> = find_short_workloads(&had, &now, Some(&wanted))
        .into_iter()
        .map(|w| (w.name, w.ready, w.needed))
        .collect();
    assert_eq!(
        short,
        [
            ("StatefulSet shop/db".to_owned(), 0, 1),
            ("StrimziPodSet shop/kafka".to_owned(), 2, 3),
        ]
    );
}

#[test]
fn a_deployment_in_a_rollout_wants_what_its_sets_want_together() {
    let monitor = WorkloadMonitor::default();
    let listed = [
        shop_workload("ReplicaSet", "web-1", Some("web"), 2),
        shop_workload("ReplicaSet", "web-2", Some("web"), 1),
        shop_workload("StatefulSet", "db", None, 1),
    ];
    monitor.learn_replica_sets(&listed);
    assert_eq!(
        wanted_counts(&listed, &monitor.known_replica_sets()),
        counts(&[("Deployment shop/web", 3), ("StatefulSet shop/db", 1)])
    );
}

#[test]
fn a_short_workload_names_the_pod_its_node_and_the_cause() {
    let mut sick = pod("web-x", "n1");
    sick.ready = false;
    sick.waiting = Some("ImagePullBackOff: Back-off pulling image \"web:9\"".into());
    let explained = |pods: Vec<Pod>| {
        let seen = snapshot(pods, &["n1"]);
        let baseline = counts(&[("Deployment shop/web", 1)]);
        let mut short = find_short_workloads(&baseline, &ReadyCounts::new(), None);
        StartingPods::find(&seen, &sets()).explain_shortages(&mut short);
        short.remove(0).why
    };
    assert_eq!(
        explained(vec![sick]),
        "pod shop/web-x on n1: ImagePullBackOff: Back-off pulling image \"web:9\""
    );
    assert_eq!(explained(vec![]), "no other pod of it is starting");
}

#[test]
fn what_has_become_more_before_the_first_pod_is_moved_counts_too() {
    let monitor = WorkloadMonitor::new(counts(&[("Deployment shop/web", 1)]));
    monitor.newer.lock().unwrap().extend(counts(&[
        ("Deployment shop/web", 3),
        ("Deployment shop/new", 2),
    ]));
    let expected = counts(&[("Deployment shop/new", 2), ("Deployment shop/web", 3)]);
    assert_eq!(monitor.expected_counts(), expected);
    assert_eq!(monitor.raised_count("Deployment shop/web"), 3);
}

#[test]
fn what_was_not_ready_when_the_run_began_is_known_and_nothing_is_short_of_it() {
    let mut daemon = owned("agent-1", "DaemonSet", "agent");
    daemon.ready = false;
    let mut dead: Node = closed_node("n1", None);
    dead.ready = "Unknown".into();
    let label = crate::model::marks::NODEGROUP_LABEL.to_owned();
    dead.labels.insert(label, "blue".into());
    let mut seen = snapshot(vec![daemon], &[]);
    Arc::make_mut(&mut seen.nodes).insert("n1".into(), Arc::new(dead.clone()));
    let baseline = not_ready_now(&seen);
    assert_eq!(
        find_short_workloads(&baseline, &ReadyCounts::new(), None),
        []
    );
    let monitor = WorkloadMonitor::new(baseline);
    assert!(monitor.was_not_ready(&dead));
    assert!(!monitor.was_not_ready(&Node {
        name: "n2".into(),
        ..dead.clone()
    }));
    // Once it has recovered, it is like any other.
    assert!(!monitor.was_not_ready(&Node {
        ready: "True".into(),
        ..dead
    }));
    assert!(monitor.daemon_set_was_down(&NamespacedName::new("shop", "agent")));
    assert!(!monitor.daemon_set_was_down(&NamespacedName::new("shop", "agent-2")));
}

#[test]
fn a_daemon_set_with_a_ready_pod_on_the_group_was_not_down() {
    let mut second = owned("agent-2", "DaemonSet", "agent");
    second.ready = false;
    let label = crate::model::marks::NODEGROUP_LABEL.to_owned();
    let mut of_blue: Node = closed_node("n1", None);
    of_blue.labels.insert(label, "blue".into());
    let mut seen = snapshot(vec![owned("agent-1", "DaemonSet", "agent"), second], &[]);
    Arc::make_mut(&mut seen.nodes).insert("n1".into(), Arc::new(of_blue));
    let monitor = WorkloadMonitor::new(not_ready_now(&seen));
    assert!(!monitor.daemon_set_was_down(&NamespacedName::new("shop", "agent")));
}

#[test]
fn the_pod_that_holds_the_volume_of_one_that_waits_for_it_is_named() {
    let mut starting = pod("new", "g1");
    starting.ready = false;
    starting.waiting = Some("ContainerCreating".into());
    starting.claims = vec!["media".into()];
    let mut sibling = pod("old", "n1");
    sibling.claims = vec!["media".into()];
    let seen = |starting: &Pod| snapshot(vec![starting.clone(), sibling.clone()], &["n1", "g1"]);
    let held = |starting: &Pod| volume_holder(&seen(starting), starting);
    let (claim, holder) = held(&starting).unwrap();
    assert_eq!(
        (claim, holder.as_str()),
        (NamespacedName::new("shop", "media"), "pod shop/old on n1")
    );
    // What has its volume waits for something else.
    starting.waiting = Some("ImagePullBackOff".into());
    assert_eq!(held(&starting), None);
}

#[test]
fn a_workload_that_the_plan_gives_up_is_short_for_any_other_reason_than_the_foretold_one() {
    let losses = AcceptedLosses::from([(
        "Deployment shop/web".to_owned(),
        BTreeSet::from(["blue".to_owned()]),
    )]);
    let lost = |group: &str, change: &dyn Fn(&mut Pod)| {
        let mut failing = pod("a", "n1");
        failing.ready = false;
        failing.waiting = Some("CrashLoopBackOff: back-off, exit code 1".into());
        change(&mut failing);
        let mut seen = snapshot(vec![failing], &[]);
        let mut node: Node = closed_node("n1", None);
        node.labels
            .insert(marks::NODEGROUP_LABEL.into(), group.into());
        seen.nodes = Arc::new(BTreeMap::from([("n1".to_owned(), Arc::new(node))]));
        let lost = accepted_losses::count_lost(&seen, &sets(), &losses);
        lost.get("Deployment shop/web").copied().unwrap_or(0)
    };
    assert_eq!(lost("green", &|_| ()), 1, "it crashes on green");
    assert_eq!(
        lost("green", &|p| p.waiting = None),
        1,
        "it runs and is not Ready"
    );
    assert_eq!(lost("blue", &|_| ()), 0, "it crashes where it worked");
    assert_eq!(lost("green", &|p| p.ready = true), 0, "it is Ready");
    assert_eq!(lost("green", &|p| p.node = None), 0, "it finds no node");
    assert_eq!(
        lost("green", &|p| p.waiting =
            Some("ImagePullBackOff: no such image".into())),
        0,
        "it has no image"
    );
    assert_eq!(
        lost("green", &|p| p.phase = "Pending".into()),
        0,
        "it is on its way"
    );
}

#[test]
fn a_workload_whose_new_pods_the_api_server_refuses_says_why() {
    let mut inventory = crate::route::fixture::expense_dev();
    inventory.workloads.retain(|w| w.kind == "ReplicaSet");
    let mut sets = inventory.workloads;
    let refusal = "pods \"web-1\" is forbidden: exceeded quota: pods";
    sets[0].pod_refusal = Some(refusal.to_owned());
    let name = "Deployment shop/web".to_owned();
    let known = HashMap::from([(sets[0].uid.clone(), name.clone())]);
    let mut short = find_short_workloads(&counts(&[(&name, 1)]), &ReadyCounts::new(), None);
    short[0].why = NOTHING_STARTS.to_owned();
    explain_refusals(&sets, &known, &mut short);
    assert_eq!(short[0].why, format!("its new pods are refused: {refusal}"));
    // A pod that is there tells more than an earlier refusal.
    short[0].why = "pod shop/web-x on n1: Pending".to_owned();
    explain_refusals(&sets, &known, &mut short);
    assert_eq!(short[0].why, "pod shop/web-x on n1: Pending");
}
