//! Where pods may go, over nodes and pods of all kinds.

use std::collections::BTreeMap;

use super::volumes::{self, ClaimVolumes};
use super::*;
use crate::model::kube::{NamespacedName, Node, Pod, Resources, Selector, Taint, Volume};
use crate::model::scheduling::{HostPort, PodAffinityTerm, TopologySpread};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    pairs.collect()
}

fn node(name: &str, zone: &str) -> Node {
    let json = serde_json::json!({
        "name": name, "uid": name, "resourceVersion": "1", "annotations": {}, "unschedulable": false, "taints": [],
        "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone},
        "providerId": null, "ready": "True", "readySince": null, "kubeletVersion": "v1.30.0", "created": null, "deleting": false,
        "allocatable": {"cpuMillis": 2000, "memoryBytes": 4_i64 << 30, "pods": 10},
        "otherAllocatable": {"nvidia.com/gpu": 1}
    });
    serde_json::from_value(json).unwrap()
}

fn closed(name: &str, zone: &str) -> Node {
    Node {
        unschedulable: true,
        taints: vec![Taint {
            key: "closed".into(),
            value: None,
            effect: "NoSchedule".into(),
        }],
        ..node(name, zone)
    }
}

fn pod(name: &str, app: &str, on: Option<&str>) -> Pod {
    let json = serde_json::json!({
        "key": {"namespace": "shop", "name": name}, "uid": name, "labels": {"app": app}, "annotations": {}, "node": on,
        "owner": {"kind": "ReplicaSet", "name": app, "uid": app}, "phase": "Running", "ready": true, "readySince": null,
        "deletionTimestamp": null, "graceSeconds": 30, "finalizers": [], "priority": 0, "priorityClass": null,
        "tolerations": [], "nodeSelector": {}, "requests": {"cpuMillis": 100, "memoryBytes": 1 << 20, "pods": 0},
        "emptyDir": false, "claims": [], "hostPath": false, "mirror": false, "waiting": null, "created": null
    });
    serde_json::from_value(json).unwrap()
}

fn app(name: &str) -> Option<Selector> {
    Some(Selector {
        match_labels: labels(&[("app", name)]),
        expressions: vec![],
    })
}

fn spread(key: &str, app_name: &str, taints: Option<&str>) -> TopologySpread {
    TopologySpread {
        max_skew: 1,
        topology_key: key.into(),
        when_unsatisfiable: "DoNotSchedule".into(),
        selector: app(app_name),
        min_domains: None,
        node_affinity_policy: None,
        node_taints_policy: taints.map(str::to_owned),
        match_label_keys: vec![],
    }
}

fn term(key: &str, app_name: &str) -> PodAffinityTerm {
    PodAffinityTerm {
        selector: app(app_name),
        namespaces: vec![],
        namespace_selector: None,
        topology_key: key.into(),
        match_label_keys: vec![],
        mismatch_label_keys: vec![],
    }
}

/// Places pods on nodes that hold `there`; gives the nodes' names, or the scheduler's words.
fn placed(nodes: &[Node], there: &[Pod], pods: &[Pod]) -> Vec<String> {
    placed_with(nodes, there, pods, &ClaimVolumes::new())
}

fn placed_with(nodes: &[Node], there: &[Pod], pods: &[Pod], claims: &ClaimVolumes) -> Vec<String> {
    let mut view = ClusterView::new(nodes.iter().map(|n| (n, !n.unschedulable)), claims, None);
    there.iter().for_each(|p| view.add_pod(p));
    let mut place = |pod| match view.place_pod(pod) {
        Ok(node) => view.nodes()[node].node.name.clone(),
        Err(no) => no.to_string(),
    };
    pods.iter().map(&mut place).collect()
}

#[test]
fn closed_nodes_count_in_a_spread_unless_taints_are_honoured() {
    let nodes = [closed("b1", "a"), node("g1", "a"), node("g2", "a")];
    let pods = |policy: Option<&str>| -> Vec<Pod> {
        let make = |i: i32| {
            let mut pod = pod(&format!("p{i}"), "api", None);
            let over_hosts = spread(refusal::HOSTNAME_LABEL, "api", policy);
            pod.scheduling.topology_spread = vec![over_hosts];
            pod
        };
        (0..3).map(make).collect()
    };
    let ignored = placed(&nodes, &[], &pods(None));
    assert_eq!(
        ignored[2],
        "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints"
    );
    let honoured = placed(&nodes, &[], &pods(Some("Honor")));
    assert!(honoured.iter().all(|n| n.starts_with('g')), "{honoured:?}");
}

#[test]
fn a_spread_counts_its_own_pods_and_too_few_domains_count_as_an_empty_one() {
    let nodes = [node("n1", "a"), node("n2", "b")];
    let mut third = pod("p", "api", None);
    third.scheduling.topology_spread = vec![spread("topology.kubernetes.io/zone", "api", None)];
    let there = [
        pod("x", "api", Some("n1")),
        pod("y", "other", Some("n2")),
        pod("z", "other", Some("n2")),
    ];
    assert_eq!(placed(&nodes, &there, &[third.clone()]), ["n2"]);
    third.scheduling.topology_spread[0].min_domains = Some(3);
    let both = [pod("x", "api", Some("n1")), pod("y", "api", Some("n2"))];
    assert!(
        placed(&nodes, &both, &[third.clone()])[0].contains("2 node(s) didn't match pod topology")
    );
    third.scheduling.topology_spread[0].match_label_keys = vec!["hash".into()];
    third.labels.insert("hash".into(), "new".into());
    assert!(placed(&nodes, &both, &[third])[0].starts_with('n'));
}

#[test]
fn a_spread_with_an_empty_selector_counts_no_pod() {
    let nodes = [node("n1", "a"), node("n2", "b")];
    let there = [pod("x", "api", Some("n1")), pod("y", "api", Some("n1"))];
    let mut next = pod("p", "api", None);
    next.node_selector = labels(&[(refusal::HOSTNAME_LABEL, "n1")]);
    let mut constraint = spread(refusal::HOSTNAME_LABEL, "api", None);
    constraint.node_affinity_policy = Some("Ignore".into());
    next.scheduling.topology_spread = vec![constraint];
    assert!(placed(&nodes, &there, &[next.clone()])[0].contains("topology spread"));
    next.scheduling.topology_spread[0].selector = Some(Selector::default());
    assert_eq!(placed(&nodes, &there, &[next]), ["n1"]);
}

#[test]
fn pods_that_want_no_other_near_are_kept_apart_both_ways() {
    let nodes = [node("n1", "a"), node("n2", "a")];
    let mut lonely = pod("l", "lonely", None);
    lonely.scheduling.pod_anti_affinity = vec![term(refusal::HOSTNAME_LABEL, "web")];
    let web = pod("w", "web", Some("n1"));
    assert_eq!(
        placed(
            &nodes,
            std::slice::from_ref(&web),
            std::slice::from_ref(&lonely)
        ),
        ["n2"]
    );
    // The other way round: the one that is there does not want it.
    lonely.node = Some("n2".into());
    let mut another = pod("v", "web", None);
    assert_eq!(
        placed(&nodes, &[lonely.clone()], &[another.clone()]),
        ["n1"]
    );
    another.key = NamespacedName::new("elsewhere", "v");
    let there = [lonely, pod("f", "full", Some("n1"))];
    assert_eq!(placed(&nodes, &there[..1], &[another]), ["n1"]);
}

#[test]
fn the_first_of_a_group_that_wants_to_be_together_goes_anywhere_and_the_others_to_it() {
    let nodes = [node("n1", "a"), node("n2", "b")];
    let with = |name: &str| {
        let mut pod = pod(name, "team", None);
        pod.scheduling.pod_affinity = vec![term("topology.kubernetes.io/zone", "team")];
        pod
    };
    let at = placed(&nodes, &[], &[with("p1"), with("p2"), with("p3")]);
    assert!(at[0] == at[1] && at[1] == at[2], "{at:?}");
    let mut alone = pod("alone", "other", None);
    alone.scheduling.pod_affinity = vec![term("topology.kubernetes.io/zone", "team")];
    assert_eq!(
        placed(&nodes, &[], &[alone]),
        ["0/2 nodes are available: 2 node(s) didn't match pod affinity rules"]
    );
}

#[test]
fn room_is_counted_for_every_resource_and_for_ports_by_protocol_and_address() {
    let nodes = [node("n1", "a")];
    let mut gpu = pod("gpu", "gpu", None);
    gpu.scheduling.other_requests = [("nvidia.com/gpu".to_owned(), 1)].into();
    let mut big = pod("big", "big", None);
    big.requests = Resources {
        cpu_millis: 3000,
        memory_bytes: 8 << 30,
        pods: 0,
    };
    let at = placed(&nodes, &[], &[gpu.clone(), gpu, big]);
    assert_eq!(
        at,
        [
            "n1",
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu",
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory"
        ]
    );
    let port = |protocol: &str, ip: &str| {
        let mut pod = pod(&format!("{protocol}{ip}"), "port", None);
        pod.scheduling.host_ports = vec![HostPort {
            port: 80,
            protocol: protocol.into(),
            ip: ip.into(),
        }];
        pod
    };
    let pods = [
        port("TCP", "127.0.0.1"),
        port("UDP", "0.0.0.0"),
        port("TCP", "10.0.0.1"),
        port("TCP", "0.0.0.0"),
    ];
    let at = placed(&nodes, &[], &pods);
    assert_eq!(&at[..3], ["n1", "n1", "n1"]);
    assert!(at[3].contains("didn't have free ports"), "{at:?}");
}

#[test]
fn volumes_bind_pods_to_their_zone_and_one_claim_may_be_for_one_pod() {
    let nodes = [node("n1", "a"), node("n2", "b")];
    let volume = |claim: &str, zones: &[&str], mode: &str| Volume {
        name: claim.into(),
        claim: Some(NamespacedName::new("shop", claim)),
        driver: None,
        handle: None,
        zones: zones.iter().map(|z| (*z).to_owned()).collect(),
        nodes: vec![],
        node_affinity: None,
        access_modes: vec![mode.into()],
    };
    let claims = volumes::index_by_claim([
        volume("b", &["b"], "ReadWriteOnce"),
        volume("c", &["c"], "ReadWriteOnce"),
        volume("one", &[], "ReadWriteOncePod"),
    ]);
    let with = |name: &str, claim: &str| {
        let mut pod = pod(name, name, None);
        pod.claims = vec![claim.into()];
        pod
    };
    let pods = [
        with("p1", "b"),
        with("p2", "c"),
        with("p3", "one"),
        with("p4", "one"),
    ];
    let at = placed_with(&nodes, &[], &pods, &claims);
    assert_eq!(at[0], "n2");
    assert!(
        at[1].contains("2 node(s) didn't match PersistentVolume's node affinity"),
        "{at:?}"
    );
    assert!(
        at[2].starts_with('n') && at[3].contains("ReadWriteOncePod"),
        "{at:?}"
    );
}

#[test]
fn what_was_placed_is_undone_whole() {
    let nodes = [node("n1", "a"), node("n2", "a")];
    let claims = ClaimVolumes::new();
    let there = pod("there", "web", Some("n1"));
    let mut lonely = pod("l", "lonely", None);
    lonely.scheduling.pod_anti_affinity = vec![term(refusal::HOSTNAME_LABEL, "web")];
    let mut view = ClusterView::new(nodes.iter().map(|n| (n, true)), &claims, None);
    view.add_pod(&there);
    let before = view.nodes()[0].load.clone();
    let checkpoint = view.take_checkpoint();
    assert_eq!(view.place_pod(&lonely), Ok(1));
    assert!(view.remove_pod(&there));
    assert!(view.node_refusals(&lonely, 0).is_empty());
    view.rollback_to(checkpoint);
    assert_eq!(view.nodes()[0].load, before);
    assert_eq!(view.nodes()[1].load.requests.pods, 0);
    assert_eq!(
        view.node_refusals(&lonely, 0),
        [Refusal::PodAntiAffinity {
            key: refusal::HOSTNAME_LABEL.into()
        }]
    );
}
