//! The scheduler against what Kubernetes documents: spreading, pod affinity, ports, resources (K8S-SCHED-1 to K8S-SCHED-7).

use super::*;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A deployment whose pods have these fields in their spec.
fn with_spec(name: &str, replicas: i64, fields: Value) -> Value {
    let mut body = deployment(name, replicas, json!({}));
    let spec = body["spec"]["template"]["spec"].as_object_mut().unwrap();
    spec.extend(fields.as_object().unwrap().clone());
    body
}

fn spread_over_nodes(more: Value) -> Value {
    let mut constraint = json!({
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    });
    let fields = constraint.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    json!({"topologySpreadConstraints": [constraint]})
}

async fn close(bench: &Bench, node: &str) {
    let taints = json!([{"key": "leaving", "effect": "NoSchedule"}]);
    let path = format!("/api/v1/nodes/{node}");
    let body = json!({"spec": {"unschedulable": true, "taints": taints}});
    bench.patch(&path, STRATEGIC, body).await;
}

fn placed(pods: &[Value]) -> usize {
    let on_node = |p: &&Value| p["spec"]["nodeName"].is_string();
    pods.iter().filter(on_node).count()
}

/// The scheduler's message of the pod that waits.
fn message(pods: &[Value]) -> String {
    let waits = |p: &&Value| p["spec"].get("nodeName").is_none();
    let pod = pods.iter().find(waits).expect("no pod waits");
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let told = conditions.iter().find(|c| c["type"] == "PodScheduled");
    told.unwrap()["message"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn closed_nodes_are_places_of_a_spread_unless_its_taints_policy_is_honor() {
    for (policy, expected) in [(json!({}), 2), (json!({"nodeTaintsPolicy": "Honor"}), 4)] {
        let bench = Bench::with_nodes(&["old-a", "old-b", "new-a", "new-b"]).await;
        close(&bench, "old-a").await;
        close(&bench, "old-b").await;
        bench.sleep(1.0).await;
        bench
            .make(DEPLOYMENTS, with_spec("web", 4, spread_over_nodes(policy)))
            .await;
        bench.sleep(10.0).await;
        let pods = bench.pods("web").await;
        assert_eq!(placed(&pods), expected);
        if expected == 2 {
            let told = message(&pods);
            assert!(
                told.contains("2 node(s) didn't match pod topology spread constraints"),
                "{told}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_affinity_policy_of_ignore_counts_nodes_the_pod_may_not_be_on() {
    let selector = json!({"nodeSelector": {"eks.amazonaws.com/nodegroup": "green"}});
    for (policy, expected) in [(json!({}), 2), (json!({"nodeAffinityPolicy": "Ignore"}), 1)] {
        let bench = Bench::with_nodes(&["a", "b"]).await;
        bench.join("c", 2, "green");
        bench.sleep(30.0).await;
        let mut fields = spread_over_nodes(policy);
        fields
            .as_object_mut()
            .unwrap()
            .extend(selector.as_object().unwrap().clone());
        bench.make(DEPLOYMENTS, with_spec("web", 2, fields)).await;
        bench.sleep(10.0).await;
        assert_eq!(placed(&bench.pods("web").await), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn with_fewer_places_than_min_domains_the_emptiest_counts_as_empty() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    let fields = spread_over_nodes(json!({"minDomains": 3}));
    bench.make(DEPLOYMENTS, with_spec("web", 4, fields)).await;
    bench.sleep(10.0).await;
    assert_eq!(placed(&bench.pods("web").await), 2, "one on each node");
    bench.join("c", 2, "blue");
    bench.sleep(30.0).await;
    assert_eq!(placed(&bench.pods("web").await), 4);
}

#[tokio::test(start_paused = true)]
async fn a_spread_with_an_empty_selector_counts_no_pod() {
    for (selector, expected) in [(json!({"matchLabels": {"app": "web"}}), 1), (json!({}), 3)] {
        let bench = Bench::with_nodes(&["a", "b"]).await;
        let mut fields =
            spread_over_nodes(json!({"labelSelector": selector, "nodeAffinityPolicy": "Ignore"}));
        fields["nodeSelector"] = json!({"kubernetes.io/hostname": "a"});
        bench.make(DEPLOYMENTS, with_spec("web", 3, fields)).await;
        bench.sleep(10.0).await;
        assert_eq!(placed(&bench.pods("web").await), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn match_label_keys_spread_each_revision_by_itself() {
    for (keys, expected) in [(json!([]), 3), (json!(["release"]), 4)] {
        let bench = Bench::with_nodes(&["a", "b"]).await;
        for (release, node) in [("1", "a"), ("1", "a"), ("2", ""), ("2", "")] {
            let mut spec = pod_spec();
            let fields = spread_over_nodes(json!({"matchLabelKeys": keys}));
            let fields = fields.as_object().unwrap().clone();
            spec.as_object_mut().unwrap().extend(fields);
            if !node.is_empty() {
                spec["nodeName"] = json!(node);
            }
            let metadata =
                json!({"generateName": "web-", "labels": {"app": "web", "release": release}});
            bench
                .make(PODS, json!({"metadata": metadata, "spec": spec}))
                .await;
            bench.sleep(5.0).await;
        }
        let pods = bench.pods("web").await;
        let new = pods
            .iter()
            .filter(|p| p["metadata"]["labels"]["release"] == "2");
        let on_a = new.filter(|p| p["spec"]["nodeName"] == "a").count();
        // Taken together, node a has two of the old already: both of the new are on b.
        assert_eq!(placed(&pods), 4);
        assert_eq!(on_a, expected - 3, "{keys}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_there_keeps_away_who_it_must_not_be_near() {
    let bench = Bench::with_nodes(&["a"]).await;
    let alone = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {}},
    ]}}});
    bench
        .make(DEPLOYMENTS, with_spec("database", 1, alone))
        .await;
    bench.sleep(5.0).await;
    let pods = bench.deploy("web", 1, json!({})).await;
    assert_eq!(
        message(&pods),
        "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules. \
         preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    );
    bench
        .patch(
            &format!("{DEPLOYMENTS}/database"),
            MERGE,
            json!({"spec": {"replicas": 0}}),
        )
        .await;
    bench.sleep(10.0).await;
    assert_eq!(placed(&bench.pods("web").await), 1);
}

#[tokio::test(start_paused = true)]
async fn pod_affinity_needs_all_terms_and_the_node_s_label() {
    let near = |app: &str| {
        json!({
            "topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchExpressions": [
                {"key": "app", "operator": "In", "values": [app]},
            ]},
        })
    };
    let terms = |terms: Value| json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}});
    let bench = Bench::with_nodes(&["a", "b"]).await;
    // The first of a group that wants to be together is near to itself; the others follow.
    bench
        .make(
            DEPLOYMENTS,
            with_spec("web", 3, terms(json!([near("web")]))),
        )
        .await;
    bench.sleep(10.0).await;
    let pods = bench.pods("web").await;
    assert_eq!(placed(&pods), 3);
    assert!(
        pods.iter()
            .all(|p| p["spec"]["nodeName"] == pods[0]["spec"]["nodeName"])
    );
    // No pod matches both terms.
    let both = terms(json!([near("web"), near("other")]));
    bench.make(DEPLOYMENTS, with_spec("other", 1, both)).await;
    bench.sleep(10.0).await;
    let told = message(&bench.pods("other").await);
    assert!(
        told.contains("2 node(s) didn't match pod affinity rules"),
        "{told}"
    );
    assert!(
        told.contains("2 Preemption is not helpful for scheduling"),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn ports_of_the_host_are_taken_by_protocol_and_address() {
    let port = |protocol: &str, ip: &str| {
        json!({"containers": [{"name": "main", "image": "registry.local/app:1", "ports": [
            {"containerPort": 53, "hostPort": 53, "protocol": protocol, "hostIP": ip},
        ]}]})
    };
    let bench = Bench::with_nodes(&["a"]).await;
    for (name, protocol, ip) in [
        ("one", "UDP", "10.0.0.4"),
        ("two", "TCP", ""),
        ("three", "UDP", "127.0.0.1"),
    ] {
        bench
            .make(DEPLOYMENTS, with_spec(name, 1, port(protocol, ip)))
            .await;
        bench.sleep(5.0).await;
        assert_eq!(placed(&bench.pods(name).await), 1, "{name}");
    }
    bench
        .make(DEPLOYMENTS, with_spec("four", 1, port("UDP", "")))
        .await;
    bench.sleep(5.0).await;
    let told = message(&bench.pods("four").await);
    assert!(
        told.contains("1 node(s) didn't have free ports for the requested pod ports"),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn resources_of_every_kind_are_counted_and_named() {
    let bench = Bench::with_nodes(&["a"]).await;
    let asks = |name: &str, amount: &str| json!({"containers": [{"name": "main", "image": "registry.local/app:1", "resources": {"limits": {name: amount}}}]});
    for (app, name, amount) in [
        ("gpu", "nvidia.com/gpu", "1"),
        ("disk", "ephemeral-storage", "500Gi"),
    ] {
        bench
            .make(DEPLOYMENTS, with_spec(app, 1, asks(name, amount)))
            .await;
        bench.sleep(5.0).await;
        assert_eq!(
            message(&bench.pods(app).await),
            format!(
                "0/1 nodes are available: 1 Insufficient {name}. \
                 preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
            )
        );
    }
    let more = json!({"status": {"allocatable": {"nvidia.com/gpu": "1"}}});
    bench.patch("/api/v1/nodes/a/status", MERGE, more).await;
    bench.sleep(5.0).await;
    assert_eq!(placed(&bench.pods("gpu").await), 1);
    bench
        .patch(
            &format!("{DEPLOYMENTS}/gpu"),
            MERGE,
            json!({"spec": {"replicas": 2}}),
        )
        .await;
    bench.sleep(5.0).await;
    let told = message(&bench.pods("gpu").await);
    assert!(told.contains("1 No preemption victims found"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_bound_by_name_goes_to_its_kubelet_past_cordons_and_is_rejected_where_it_does_not_fit()
 {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    close(&bench, "a").await;
    bench.sleep(1.0).await;
    let pod = |name: &str, cpu: &str| {
        let mut spec = pod_spec();
        spec["nodeName"] = json!("a");
        spec["containers"][0]["resources"]["requests"]["cpu"] = json!(cpu);
        json!({"metadata": {"name": name, "labels": {"app": "fixed"}}, "spec": spec})
    };
    bench.make(PODS, pod("small", "100m")).await;
    bench.make(PODS, pod("big", "1900m")).await;
    bench.sleep(5.0).await;
    let small = bench.get(&format!("{PODS}/small")).await;
    assert!(is_ready(&small), "a cordon does not concern the kubelet");
    let big = bench.get(&format!("{PODS}/big")).await["status"].clone();
    assert_eq!(
        (&big["phase"], &big["reason"]),
        (&json!("Failed"), &json!("OutOfcpu"))
    );
    assert_eq!(
        big["message"],
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 1900, used: 100, capacity: 1930"
    );
    let mut windows = pod("windows", "100m");
    windows["spec"]["os"] = json!({"name": "windows"});
    bench.make(PODS, windows).await;
    bench.sleep(5.0).await;
    let windows = bench.get(&format!("{PODS}/windows")).await["status"].clone();
    assert_eq!(windows["reason"], "PodOSNotSupported");
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_a_scheduling_gate_is_not_looked_at() {
    let bench = Bench::with_nodes(&["a"]).await;
    let gated = json!({"schedulingGates": [{"name": "example.com/wait"}]});
    bench.make(DEPLOYMENTS, with_spec("web", 1, gated)).await;
    bench.sleep(5.0).await;
    let pods = bench.pods("web").await;
    let condition = &pods[0]["status"]["conditions"][0];
    assert_eq!(condition["reason"], "SchedulingGated");
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_is_where_its_affinity_and_node_name_let_it_be() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    bench.join("c", 2, "green");
    bench.sleep(30.0).await;
    let set = |name: &str, fields: Value| {
        let mut body = with_spec(name, 1, fields);
        body["kind"] = json!("DaemonSet");
        let spec = body["spec"].as_object_mut().unwrap();
        spec.remove("replicas");
        body
    };
    let path = "/apis/apps/v1/namespaces/default/daemonsets";
    let affinity = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "absent", "operator": "Exists"}]},
        {"matchExpressions": [{"key": "eks.amazonaws.com/nodegroup", "operator": "NotIn", "values": ["blue"]}]},
    ]}}}});
    bench.make(path, set("agent", affinity)).await;
    bench
        .make(path, set("single", json!({"nodeName": "b"})))
        .await;
    bench.sleep(10.0).await;
    for (name, node) in [("agent", "c"), ("single", "b")] {
        let pods = bench.pods(name).await;
        let on: Vec<&Value> = pods.iter().map(|p| &p["spec"]["nodeName"]).collect();
        assert_eq!(on, [node], "{name}");
    }
}
