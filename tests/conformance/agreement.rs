//! The product's evaluator (`eksup::scheduling`) against the twin's scheduler, which shares no code with it: over random
//! nodes and pods both say the same of every node, in the same words.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use eksup::inventory::with_volume_limits;
use eksup::k8s::convert;
use eksup::model::Minor;
use eksup::model::kube::{Node, Pod, Volume};
use eksup::scheduling::{ClusterView, volumes};
use eksup::twin::k8s::{SimCluster, ground_truth};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// A key or nothing, so that fields are absent as often as not.
fn maybe<S: Strategy<Value = Value> + 'static>(of: S) -> BoxedStrategy<Value> {
    prop_oneof![Just(Value::Null), of].boxed()
}

/// The same, more often than not.
fn often(of: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    prop_oneof![1 => Just(Value::Null), 4 => of].boxed()
}

/// Leaves out what is null, as a client does.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k, without_nulls(v)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn text(of: &'static [&'static str]) -> BoxedStrategy<Value> {
    select(of).prop_map(|t| json!(t)).boxed()
}

fn taint() -> BoxedStrategy<Value> {
    (
        select(&["dedicated", "old"][..]),
        maybe(text(&["x", "y"])),
        select(&["NoSchedule", "NoExecute", "PreferNoSchedule"][..]),
    )
        .prop_map(|(key, value, effect)| json!({"key": key, "value": value, "effect": effect}))
        .boxed()
}

const DRIVER: &str = "ebs.csi.aws.com";
/// A node's annotation in a scene: how many volumes of the driver its CSINode says it takes.
const VOLUME_LIMIT: &str = "scene/volumes";

fn node(i: usize) -> BoxedStrategy<Value> {
    let labels = (
        often(text(&["a", "b"])),
        often(text(&["x", "y"])),
        often(text(&["2", "8", "many"])),
    );
    let room = (800..4000i64, 2..5i64, 2..8i64, 0..3i64, 2..8i64);
    let taints = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(taint(), 1..3)];
    let volumes =
        prop_oneof![2 => Just(Value::Null), 1 => (1..3u8).prop_map(|n| json!(n.to_string()))];
    (labels, room, taints, prop::bool::weighted(0.1), volumes)
        .prop_map(move |((zone, pool, cpus), (cpu, memory, pods, gpus, disk), taints, closed, volumes)| {
            let name = format!("n{i}");
            json!({
                "metadata": {"name": name, "resourceVersion": "1", "annotations": {VOLUME_LIMIT: volumes},
                    "labels": {HOSTNAME: name, ZONE: zone, "pool": pool, "cpus": cpus}},
                "spec": {"taints": taints, "unschedulable": closed},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "allocatable": {"cpu": format!("{cpu}m"), "memory": format!("{memory}Gi"), "pods": pods.to_string(),
                        "nvidia.com/gpu": gpus.to_string(), "ephemeral-storage": format!("{disk}Gi")}}
            })
        })
        .boxed()
}

fn requirement() -> BoxedStrategy<Value> {
    let some = prop::collection::vec(select(&["x", "y"][..]), 1..3);
    prop_oneof![
        (select(&["In", "NotIn"][..]), some)
            .prop_map(|(op, values)| json!({"key": "pool", "operator": op, "values": values})),
        (
            select(&["Exists", "DoesNotExist"][..]),
            select(&["pool", "cpus"][..])
        )
            .prop_map(|(op, key)| json!({"key": key, "operator": op})),
        (select(&["Gt", "Lt"][..]), select(&["1", "4", "8"][..]))
            .prop_map(|(op, value)| json!({"key": "cpus", "operator": op, "values": [value]})),
    ]
    .boxed()
}

fn node_affinity() -> BoxedStrategy<Value> {
    let field = (select(&["In", "NotIn"][..]), select(&["n0", "n1"][..]))
        .prop_map(|(op, name)| json!([{"key": "metadata.name", "operator": op, "values": [name]}]));
    let expressions = prop::collection::vec(requirement(), 0..3).prop_map(|e| json!(e));
    let term = (expressions, prop_oneof![4 => Just(Value::Null), 1 => field]).prop_map(
        |(expressions, fields)| json!({"matchExpressions": expressions, "matchFields": fields}),
    );
    let terms = prop::collection::vec(term, 1..3);
    terms
        .prop_map(|terms| json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}))
        .boxed()
}

fn label_selector() -> BoxedStrategy<Value> {
    prop_oneof![
        text(&["web", "db"]).prop_map(|app| json!({"matchLabels": {"app": app}})),
        text(&["web", "db"]).prop_map(
            |app| json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [app]}]})
        ),
        Just(json!({})),
    ]
    .boxed()
}

fn keys() -> BoxedStrategy<Value> {
    prop_oneof![3 => Just(Value::Null), 1 => Just(json!(["hash"]))].boxed()
}

fn pod_term() -> BoxedStrategy<Value> {
    let namespaces = prop_oneof![
        3 => Just((Value::Null, Value::Null)),
        1 => Just((json!(["ops"]), Value::Null)),
        1 => Just((Value::Null, json!({}))),
        1 => Just((Value::Null, json!({"matchLabels": {"team": "a"}}))),
    ];
    (label_selector(), select(&[HOSTNAME, ZONE, "pool"][..]), namespaces, keys(), keys())
        .prop_map(|(selector, key, (names, by_labels), matching, mismatching)| {
            // The API server refuses a key in both.
            let mismatching = if matching.is_null() { mismatching } else { Value::Null };
            json!({"labelSelector": selector, "topologyKey": key, "namespaces": names, "namespaceSelector": by_labels,
                "matchLabelKeys": matching, "mismatchLabelKeys": mismatching})
        })
        .boxed()
}

fn terms() -> BoxedStrategy<Value> {
    let none = prop::collection::vec(pod_term(), 0..1);
    let some = prop::collection::vec(pod_term(), 1..3);
    prop_oneof![2 => none, 1 => some]
        .prop_map(|terms| match terms.is_empty() {
            true => Value::Null,
            false => json!({"requiredDuringSchedulingIgnoredDuringExecution": terms}),
        })
        .boxed()
}

fn spread() -> BoxedStrategy<Value> {
    let policy = || maybe(text(&["Honor", "Ignore"]));
    let domains = prop_oneof![3 => Just(Value::Null), 1 => (1..4).prop_map(|n| json!(n))];
    (
        label_selector(),
        select(&[HOSTNAME, ZONE, "pool"][..]),
        1..3,
        prop_oneof![4 => Just("DoNotSchedule"), 1 => Just("ScheduleAnyway")],
        (policy(), policy()),
        (domains, keys()),
    )
        .prop_map(|(selector, key, skew, when, (affinity, taints), (domains, keys))| {
            let domains = if when == "DoNotSchedule" { domains } else { Value::Null };
            json!({"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selector,
                "nodeAffinityPolicy": affinity, "nodeTaintsPolicy": taints, "minDomains": domains, "matchLabelKeys": keys})
        })
        .boxed()
}

fn container() -> BoxedStrategy<Value> {
    let port = (select(&["TCP", "UDP"][..]), maybe(text(&["127.0.0.1", "10.0.0.9"]))).prop_map(
        |(protocol, ip)| json!([{"containerPort": 80, "hostPort": 80, "protocol": protocol, "hostIP": ip}]),
    );
    let requests = (
        0..600i64,
        0..600i64,
        prop_oneof![6 => Just(0), 1 => 1..3i64],
        0..2i64,
    );
    (requests, prop_oneof![3 => Just(Value::Null), 1 => port])
        .prop_map(|((cpu, memory, gpus, disk), ports)| {
            let gpus = (gpus > 0).then(|| gpus.to_string());
            json!({"name": "c", "image": "i", "ports": ports,
                "resources": {"requests": {"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi"), "nvidia.com/gpu": gpus,
                    "ephemeral-storage": format!("{disk}Gi")}}})
        })
        .boxed()
}

/// Namespace, labels, containers and terms: what pods that are there and the one that comes have alike.
fn pod(name: String, on: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    let labels = (text(&["web", "db"]), maybe(text(&["1", "2"])));
    let init = prop_oneof![3 => Just(Value::Null), 1 => container().prop_map(|c| json!([c]))];
    let end = prop_oneof![5 => Just("Running"), 1 => Just("Succeeded")];
    (
        (select(&["shop", "ops"][..]), labels, end, prop::bool::weighted(0.15)),
        (container(), init, terms(), terms()),
        on,
    )
        .prop_map(move |((ns, (app, hash), phase, leaving), (container, init, near, away), node)| {
            let leaving = leaving && !node.is_null();
            json!({
                "metadata": {"name": name, "namespace": ns, "uid": name, "resourceVersion": "1",
                    "labels": {"app": app, "hash": hash},
                    "deletionTimestamp": leaving.then_some("2026-11-21T08:15:00Z"),
                    "deletionGracePeriodSeconds": leaving.then_some(30)},
                "spec": {"nodeName": node, "containers": [container], "initContainers": init, "schedulerName": "default-scheduler",
                    "affinity": {"podAffinity": near, "podAntiAffinity": away}},
                "status": {"phase": if node.is_null() { "Pending" } else { phase }}
            })
        })
        .boxed()
}

/// Volumes of one of the claims, or none.
fn claimed() -> BoxedStrategy<Value> {
    prop_oneof![4 => Just(Value::Null), 1 => select(&["zonal", "bound", "single"][..])
        .prop_map(|c| json!([{"name": "v", "persistentVolumeClaim": {"claimName": c}}]))]
    .boxed()
}

/// A pod that is there, with a volume or none.
fn placed_pod(name: String, on: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    (pod(name, on), claimed())
        .prop_map(|(mut pod, volumes)| {
            pod["spec"]["volumes"] = volumes;
            pod
        })
        .boxed()
}

/// The pod that comes, with what only it is asked about.
fn incoming() -> BoxedStrategy<Value> {
    let selector = prop_oneof![5 => Just(Value::Null), 1 => text(&["x", "y"]).prop_map(|v| json!({"pool": v}))];
    let tolerations = prop_oneof![
        2 => Just(json!([])),
        1 => Just(json!([{"operator": "Exists"}])),
        1 => Just(json!([{"key": "dedicated", "operator": "Equal", "value": "x", "effect": "NoSchedule"}])),
        1 => Just(json!([{"key": "old", "operator": "Exists"}, {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}])),
    ];
    (
        pod("incoming".into(), Just(Value::Null).boxed()),
        selector,
        tolerations,
        prop_oneof![2 => Just(Value::Null), 1 => node_affinity()],
        prop::collection::vec(spread(), 0..3),
        claimed(),
    )
        .prop_map(
            |(mut pod, selector, tolerations, affinity, spreads, volumes)| {
                pod["spec"]["nodeSelector"] = selector;
                pod["spec"]["tolerations"] = tolerations;
                pod["spec"]["affinity"]["nodeAffinity"] = affinity;
                pod["spec"]["topologySpreadConstraints"] = json!(spreads);
                pod["spec"]["volumes"] = volumes;
                pod
            },
        )
        .boxed()
}

/// Nodes, pods that are there, and the pod that comes.
fn scene() -> impl Strategy<Value = (Vec<Value>, Vec<Value>, Value)> {
    (1..5usize).prop_flat_map(|nodes| {
        let all: Vec<_> = (0..nodes).map(node).collect();
        let on = move || (0..nodes).prop_map(|n| json!(format!("n{n}"))).boxed();
        let pods = (0..9usize).prop_flat_map(move |count| {
            (0..count)
                .map(|i| placed_pod(format!("p{i}"), on()))
                .collect::<Vec<_>>()
        });
        (all, pods, incoming())
    })
}

/// A volume in zone a, one of node n0, and one for one pod; in both namespaces.
fn volumes_and_claims() -> (Vec<Value>, Vec<Value>) {
    let (mut volumes, mut claims) = (Vec::new(), Vec::new());
    for ns in ["shop", "ops"] {
        for (claim, key, value, mode) in [
            ("zonal", ZONE, "a", "ReadWriteOnce"),
            ("bound", HOSTNAME, "n0", "ReadWriteOnce"),
            ("single", "", "", "ReadWriteOncePod"),
        ] {
            let name = format!("{ns}-{claim}");
            let term =
                json!({"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]});
            let affinity =
                (!key.is_empty()).then(|| json!({"required": {"nodeSelectorTerms": [term]}}));
            volumes.push(json!({"metadata": {"name": name}, "spec": {"accessModes": [mode], "nodeAffinity": affinity,
                "csi": {"driver": DRIVER, "volumeHandle": name},
                "claimRef": {"namespace": ns, "name": claim}}, "status": {"phase": "Bound"}}));
            claims.push(json!({"metadata": {"name": claim, "namespace": ns}, "spec": {"accessModes": [mode], "volumeName": name},
                "status": {"phase": "Bound"}}));
        }
    }
    (volumes.into_iter().map(without_nulls).collect(), claims)
}

/// The CSINodes of the nodes that say how many volumes they take.
fn csi_nodes(nodes: &[Value]) -> Vec<Value> {
    let limited = nodes.iter().filter_map(|node| {
        let limit: u8 = node["metadata"]["annotations"][VOLUME_LIMIT].as_str()?.parse().unwrap();
        let name = &node["metadata"]["name"];
        let driver = json!({"name": DRIVER, "nodeID": name, "topologyKeys": [], "allocatable": {"count": limit}});
        Some(json!({"metadata": {"name": name, "resourceVersion": "1"}, "spec": {"drivers": [driver]}}))
    });
    limited.collect()
}

fn namespaces() -> Vec<Value> {
    let make = |name: &str, team: &str| json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, "team": team}}});
    vec![make("shop", "b"), make("ops", "a")]
}

/// What the twin's scheduler says of each node.
fn twin_says(nodes: &[Value], pods: &[Value], pod: &Value) -> BTreeMap<String, Vec<String>> {
    let mut cluster = SimCluster::new_empty(Minor::new(29));
    let (volumes, claims) = volumes_and_claims();
    cluster.seed_list("/api/v1/namespaces", &namespaces());
    cluster.seed_list("/api/v1/nodes", nodes);
    cluster.seed_list("/apis/storage.k8s.io/v1/csinodes", &csi_nodes(nodes));
    cluster.seed_list("/api/v1/persistentvolumes", &volumes);
    cluster.seed_list("/api/v1/persistentvolumeclaims", &claims);
    cluster.seed_list("/api/v1/pods", pods);
    cluster.seed_list("/api/v1/pods", std::slice::from_ref(pod));
    let namespace = pod["metadata"]["namespace"].as_str().unwrap();
    ground_truth::node_refusals(&cluster, namespace, "incoming")
}

/// The scheduler has changed its words for this one since.
fn in_words_of_1_29(words: String) -> String {
    match words.as_str() {
        "node(s) didn't match PersistentVolume's node affinity" => {
            "node(s) had volume node affinity conflict".to_owned()
        }
        _ => words,
    }
}

/// What the product says of each.
fn product_says(nodes: &[Value], pods: &[Value], pod: &Value) -> BTreeMap<String, Vec<String>> {
    let limits = csi_nodes(nodes);
    let limits = limits.iter().map(|n| convert::volume_limits(read(n)));
    let limits: BTreeMap<String, BTreeMap<String, i64>> = limits.collect();
    let nodes: Vec<Node> = nodes.iter().map(|n| convert::to_node(read(n))).collect();
    let nodes = with_volume_limits(nodes, &limits);
    let pods: Vec<Pod> = pods.iter().map(|p| convert::to_pod(read(p))).collect();
    let (all, _) = volumes_and_claims();
    let all: Vec<Volume> = all.iter().map(|v| convert::to_volume(read(v))).collect();
    let claims = volumes::index_by_claim(all);
    let namespaces = namespaces()
        .iter()
        .map(|n| convert::to_namespace_labels(read(n)))
        .collect();
    let pod: Pod = convert::to_pod(read(pod));
    let all = nodes.iter().map(|n| (n, true));
    let mut view = ClusterView::new(all, &claims, Some(&namespaces));
    pods.iter().for_each(|p| view.add_pod(p));
    let each = nodes.iter().enumerate().map(|(i, node)| {
        let refusals = view.node_refusals(&pod, i);
        let words = refusals.iter().map(ToString::to_string);
        let mut words: Vec<String> = words.map(in_words_of_1_29).collect();
        words.sort();
        (node.name.clone(), words)
    });
    each.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_product_and_the_twin_say_the_same_of_every_node((nodes, pods, pod) in scene()) {
        let nodes: Vec<Value> = nodes.into_iter().map(without_nulls).collect();
        let pods: Vec<Value> = pods.into_iter().map(without_nulls).collect();
        let pod = without_nulls(pod);
        prop_assert_eq!(
            product_says(&nodes, &pods, &pod),
            twin_says(&nodes, &pods, &pod),
            "nodes {}\npods {}\nincoming {}", json!(nodes), json!(pods), pod
        );
    }
}

#[test]
fn among_random_scenes_are_many_of_every_answer() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..600 {
        let (nodes, pods, pod) = scene().new_tree(&mut runner).unwrap().current();
        let nodes: Vec<Value> = nodes.into_iter().map(without_nulls).collect();
        let pods: Vec<Value> = pods.into_iter().map(without_nulls).collect();
        for words in product_says(&nodes, &pods, &without_nulls(pod)).into_values() {
            let word = words.first().cloned().unwrap_or("fits".to_owned());
            let word = word.split(" {").next().unwrap_or_default().to_owned();
            *seen.entry(word).or_default() += 1;
        }
    }
    for word in [
        "fits",
        "Insufficient cpu",
        "Too many pods",
        "node(s) were unschedulable",
        "node(s) had untolerated taint",
        "node(s) didn't match Pod's node affinity/selector",
        "node(s) didn't have free ports for the requested pod ports",
        "node(s) had volume node affinity conflict",
        "node(s) exceed max volume count",
        "node(s) didn't match pod topology spread constraints",
        "node(s) didn't match pod topology spread constraints (missing required label)",
        "node(s) didn't match pod affinity rules",
        "node(s) didn't match pod anti-affinity rules",
        "node(s) didn't satisfy existing pods anti-affinity rules",
    ] {
        assert!(seen.get(word).is_some_and(|n| *n >= 3), "{word}: {seen:?}");
    }
}
