//! Operators that are known: databases whose primary moves, Kafka pods that a webhook holds; and pods that read the
//! instance metadata service (CTL-1 to CTL-7).

use super::*;
use crate::twin::k8s::cloud_hooks;

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn owned_pod(bench: &Bench, name: &str, labels: Value, owner: Value, node: &str) {
    let mut spec = pod_spec();
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    let body = json!({"metadata": {"name": name, "labels": labels, "ownerReferences": [owner]}, "spec": spec});
    bench.make(PODS, body).await;
    bench.sleep(10.0).await;
}

fn database_owner() -> Value {
    json!({
        "apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "name": "db",
        "uid": "5f0d0b6e-0000-4000-8000-000000000002", "controller": true,
    })
}

async fn role(bench: &Bench, pod: &str) -> Value {
    let pod = bench.get(&format!("{PODS}/{pod}")).await;
    pod["metadata"]["labels"]["cnpg.io/instanceRole"].clone()
}

async fn cordon(bench: &Bench, node: &str) {
    let body = json!({"spec": {"unschedulable": true}});
    bench
        .patch(&format!("/api/v1/nodes/{node}"), STRATEGIC, body)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_primary_moves_off_a_closed_node_and_its_budget_lets_the_old_pod_go() {
    let bench = Bench::with_nodes(&["a", "b", "c"]).await;
    for (name, role, node) in [("db-1", "primary", "a"), ("db-2", "replica", "b")] {
        let labels = json!({"app": "db", "cnpg.io/cluster": "db", "cnpg.io/instanceRole": role});
        owned_pod(&bench, name, labels, database_owner(), node).await;
    }
    let path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let selector =
        json!({"matchLabels": {"cnpg.io/cluster": "db", "cnpg.io/instanceRole": "primary"}});
    let spec = json!({"minAvailable": 1, "selector": selector});
    bench
        .make(
            path,
            json!({"metadata": {"name": "db-primary"}, "spec": spec}),
        )
        .await;
    bench.sleep(1.0).await;
    assert_eq!(bench.evict("default", "db-1").await.0, 429);
    bench.sleep(60.0).await;
    assert_eq!(
        role(&bench, "db-1").await,
        "primary",
        "an open node changes nothing"
    );
    // While the replica's node is closed too there is nobody to switch to.
    cordon(&bench, "b").await;
    cordon(&bench, "a").await;
    bench.sleep(60.0).await;
    assert_eq!(role(&bench, "db-1").await, "primary");
    let open = json!({"spec": {"unschedulable": null}});
    bench.patch("/api/v1/nodes/b", MERGE, open).await;
    bench.sleep(30.0).await;
    assert_eq!(role(&bench, "db-1").await, "replica");
    assert_eq!(role(&bench, "db-2").await, "primary");
    assert_eq!(bench.evict("default", "db-1").await.0, 201);
}

#[tokio::test(start_paused = true)]
async fn a_kafka_pod_s_eviction_is_denied_and_its_operator_rolls_it_once_the_others_are_ready() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    bench
        .twin
        .with_world(|world| world.kube.knows_webhooks = false);
    let owner = json!({
        "apiVersion": "core.strimzi.io/v1beta2", "kind": "StrimziPodSet", "name": "events-broker",
        "uid": "5f0d0b6e-0000-4000-8000-000000000003", "controller": false,
    });
    let labels = json!({
        "app": "kafka", "strimzi.io/kind": "Kafka", "strimzi.io/name": "events-kafka", "strimzi.io/cluster": "events",
    });
    for (name, node) in [("broker-0", "a"), ("broker-1", "b")] {
        owned_pod(&bench, name, labels.clone(), owner.clone(), node).await;
    }
    // Without the budget that its documentation asks for nothing says that there is a drain cleaner.
    let (code, _) = bench
        .evict_as("default", "broker-0", "?dryRun=All", json!({}))
        .await;
    assert_eq!(code, 201);
    bench
        .budget("kafka", "kafka", json!({"maxUnavailable": 0}))
        .await;
    let uid = |pod: &Value| pod["metadata"]["uid"].clone();
    let before = bench.get(&format!("{PODS}/broker-0")).await;
    let (code, said) = bench
        .evict_as("default", "broker-0", "?dryRun=All", json!({}))
        .await;
    assert_eq!(code, 500);
    let why = "admission webhook \"strimzi-drain-cleaner.strimzi.io\" denied the request: The pod will be rolled by the Strimzi Cluster Operator";
    assert_eq!(said["message"], why);
    bench.sleep(300.0).await;
    let after = bench.get(&format!("{PODS}/broker-0")).await;
    assert_eq!(uid(&after), uid(&before), "a dry run rolls nothing");
    assert_eq!(bench.evict("default", "broker-0").await.0, 500);
    bench.sleep(200.0).await;
    let after = bench.get(&format!("{PODS}/broker-0")).await;
    assert_ne!(uid(&after), uid(&before));
    assert!(
        is_ready(&after),
        "its owner, though no controller, has made it again"
    );
    let note = &after["metadata"]["annotations"]["strimzi.io/manual-rolling-update"];
    assert!(note.is_null(), "{note}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_with_webhooks_and_no_drain_cleaner_has_none() {
    let bench = Bench::with_nodes(&["a"]).await;
    let labels =
        json!({"app": "kafka", "strimzi.io/kind": "Kafka", "strimzi.io/name": "events-kafka"});
    owned_pod(&bench, "broker-0", labels, database_owner(), "a").await;
    bench
        .budget("kafka", "kafka", json!({"maxUnavailable": 0}))
        .await;
    assert_eq!(bench.evict("default", "broker-0").await.0, 429);
}

#[tokio::test(start_paused = true)]
async fn a_budget_over_an_owner_without_scale_fails_to_sync_and_one_with_scale_does_not() {
    let bench = Bench::with_nodes(&["a"]).await;
    let labels = json!({"app": "db"});
    owned_pod(&bench, "db-1", labels, database_owner(), "a").await;
    let status = bench.budget("db", "db", json!({"maxUnavailable": 1})).await;
    let told = &status["conditions"][0];
    assert_eq!(told["reason"], "SyncFailed");
    let why = "clusters.postgresql.cnpg.io does not implement the scale subresource";
    assert_eq!(told["message"], why);
    assert_eq!(
        (&status["expectedPods"], &status["disruptionsAllowed"]),
        (&json!(0), &json!(0))
    );
    let (code, said) = bench.evict("default", "db-1").await;
    assert_eq!(code, 429);
    let cause = said["details"]["causes"][0]["message"].as_str().unwrap();
    assert!(cause.contains("still being processed"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn what_a_snapshot_shows_of_a_budget_says_whether_its_owners_have_a_scale() {
    for (expected, reason, allowed) in [(2, "SufficientPods", 1), (0, "SyncFailed", 0)] {
        let mut cluster = SimCluster::new_empty(Minor::new(29)).allow_anonymous();
        let pod = |n: u8| {
            json!({
                "metadata": {
                    "name": format!("db-{n}"), "namespace": "default", "labels": {"app": "db"},
                    "ownerReferences": [database_owner()],
                },
                "spec": {"nodeName": "a", "restartPolicy": "Always"},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            })
        };
        cluster.seed_list("/api/v1/pods", &[pod(1), pod(2)]);
        let told = json!([{"type": "DisruptionAllowed", "status": "True", "reason": reason, "message": "as it was"}]);
        let budget = json!({
            "metadata": {"name": "db", "namespace": "default", "generation": 1},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "db"}}},
            "status": {"expectedPods": expected, "observedGeneration": 1, "conditions": told},
        });
        cluster.seed_list("/apis/policy/v1/poddisruptionbudgets", &[budget]);
        let bench = Bench::of(cluster);
        bench.sleep(5.0).await;
        let status = bench.budget_status("db").await;
        assert_eq!(status["disruptionsAllowed"], allowed, "{status}");
        assert_eq!(status["conditions"][0]["reason"], reason);
        if reason == "SyncFailed" {
            assert_eq!(status["conditions"][0]["message"], "as it was");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_long_been_held_is_as_the_snapshot_shows_it() {
    let mut cluster = SimCluster::new_empty(Minor::new(29)).allow_anonymous();
    let node = json!({"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    cluster.seed_list("/api/v1/nodes", &[node]);
    let held = json!({
        "metadata": {
            "name": "held", "namespace": "default", "finalizers": ["example.com/cleanup"],
            "deletionTimestamp": "2026-11-18T08:15:00Z", "deletionGracePeriodSeconds": 30,
        },
        "spec": {"nodeName": "a"}, "status": {"phase": "Running"},
    });
    cluster.seed_list("/api/v1/pods", &[held]);
    let bench = Bench::of(cluster);
    bench.sleep(600.0).await;
    let pod = bench.get(&format!("{PODS}/held")).await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["metadata"]["deletionTimestamp"], "2026-11-18T08:15:00Z");
}

#[tokio::test(start_paused = true)]
async fn software_that_asks_the_metadata_service_does_not_start_where_pods_do_not_reach_it() {
    let bench = Bench::with_nodes(&["a"]).await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let make = |name: &str, image: &str, args: Value, env: Value, host: bool| {
        let mut body = deployment(name, 1, json!({}));
        let spec = &mut body["spec"]["template"]["spec"];
        spec["hostNetwork"] = json!(host);
        spec["serviceAccountName"] = json!(name);
        let container = &mut spec["containers"][0];
        container["image"] = json!(image);
        container["args"] = args;
        container["env"] = env;
        body
    };
    let balancer = "public.ecr.aws/eks/aws-load-balancer-controller:v2.8.0";
    let told = json!(["--aws-vpc-id=vpc-1", "--aws-region=us-east-1"]);
    let role = json!([{"name": "AWS_ROLE_ARN", "value": "arn:aws:iam::1:role/x"}]);
    let none = json!([]);
    let scaler = "registry.k8s.io/autoscaling/cluster-autoscaler:v1.29.0";
    let cases = [
        ("balancer-bare", balancer, &none, &none, false, false),
        ("balancer-told", balancer, &told, &none, false, false),
        ("balancer-whole", balancer, &told, &role, false, true),
        ("balancer-host", balancer, &none, &none, true, true),
        ("scaler-bare", scaler, &none, &none, false, false),
        ("scaler-role", scaler, &none, &role, false, true),
        ("other", "registry.local/app:1", &none, &none, false, true),
    ];
    bench
        .twin
        .with_world(|world| cloud_hooks::mark_short_hops(world, &["a".to_owned()]));
    for (name, image, args, env, host, runs) in cases {
        bench
            .make(path, make(name, image, args.clone(), env.clone(), host))
            .await;
        bench.sleep(10.0).await;
        let pods = bench.pods(name).await;
        assert_eq!(pods.iter().all(is_ready), runs, "{name}");
        if !runs {
            let state = &pods[0]["status"]["containerStatuses"][0]["state"];
            assert_eq!(state["waiting"]["reason"], "CrashLoopBackOff", "{name}");
        }
    }
    // Elsewhere they get their answers.
    bench.join("b", 1, "other");
    bench.sleep(30.0).await;
    cordon(&bench, "a").await;
    let pods = bench.pods("scaler-bare").await;
    bench.evict("default", name_of(&pods[0])).await;
    bench.sleep(15.0).await;
    assert!(bench.pods("scaler-bare").await.iter().all(is_ready));
}

#[tokio::test(start_paused = true)]
async fn startup_taints_come_off_when_the_node_s_agents_are_ready() {
    let bench = Bench::with_nodes(&["a"]).await;
    let mut agent = deployment("agent", 1, json!({"twin.eksup.dev/ready-after": "60s"}));
    agent["kind"] = json!("DaemonSet");
    agent["spec"].as_object_mut().unwrap().remove("replicas");
    agent["spec"]["template"]["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    bench
        .make("/apis/apps/v1/namespaces/default/daemonsets", agent)
        .await;
    bench.twin.with_world(|world| {
        let taint = |key: &str| (key.to_owned(), String::new(), "NoExecute".to_owned());
        let birth = cloud_hooks::JoiningNode {
            name: "b".into(),
            cpu_millis: 1930,
            memory_bytes: 7 << 30,
            max_pods: 35,
            taints: vec![taint("ebs.csi.aws.com/agent-not-ready"), taint("dedicated")],
            startup_taints: vec![("ebs.csi.aws.com/agent-not-ready".into(), "NoExecute".into())],
            ..Default::default()
        };
        cloud_hooks::join_node(world, birth);
    });
    let keys = |node: &Value| {
        let taints = node["spec"]["taints"].as_array().unwrap();
        let keys = taints.iter().map(|t| t["key"].as_str().unwrap().to_owned());
        keys.collect::<Vec<_>>()
    };
    bench.sleep(50.0).await;
    let node = bench.get("/api/v1/nodes/b").await;
    assert!(keys(&node).contains(&"ebs.csi.aws.com/agent-not-ready".to_owned()));
    bench.sleep(60.0).await;
    let node = bench.get("/api/v1/nodes/b").await;
    assert_eq!(keys(&node), ["dedicated"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_node_tells_of_the_devices_of_its_type_once_its_plugin_runs_unless_it_lacks_drivers()
{
    let mut cluster = SimCluster::new_empty(Minor::new(29)).allow_anonymous();
    let labels = json!({"node.kubernetes.io/instance-type": "g5.xlarge"});
    let room = json!({"cpu": "4", "memory": "16Gi", "pods": "58", "nvidia.com/gpu": "1"});
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let old = json!({
        "metadata": {"name": "old", "labels": labels}, "spec": {"unschedulable": true},
        "status": {"allocatable": room, "conditions": ready},
    });
    cluster.seed_list("/api/v1/nodes", &[old]);
    let bench = Bench::of(cluster);
    for (name, driverless) in [("new", false), ("bare", true)] {
        bench.twin.with_world(|world| {
            let birth = cloud_hooks::JoiningNode {
                name: name.to_owned(),
                instance_type: "g5.xlarge".into(),
                cpu_millis: 4000,
                memory_bytes: 16 << 30,
                max_pods: 58,
                driverless,
                ..Default::default()
            };
            cloud_hooks::join_node(world, birth);
        });
    }
    let gpus = |node: &Value| node["status"]["allocatable"]["nvidia.com/gpu"].clone();
    assert!(gpus(&bench.get("/api/v1/nodes/new").await).is_null());
    bench.sleep(60.0).await;
    assert_eq!(gpus(&bench.get("/api/v1/nodes/new").await), "1");
    assert!(gpus(&bench.get("/api/v1/nodes/bare").await).is_null());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_a_finalizer_holds_ends_and_keeps_only_its_object() {
    let bench = Bench::with_nodes(&["a"]).await;
    let mut spec = pod_spec();
    spec["containers"][0]["resources"]["requests"]["cpu"] = json!("1800m");
    let body = json!({"metadata": {"name": "held", "labels": {"app": "held"}, "finalizers": ["example.com/keep"]}, "spec": spec});
    bench.make(PODS, body).await;
    bench.sleep(10.0).await;
    assert_eq!(bench.evict("default", "held").await.0, 201);
    bench.sleep(600.0).await;
    let pod = bench.get(&format!("{PODS}/held")).await;
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
    assert!(!is_ready(&pod));
    // Its room is free.
    let mut next = deployment("next", 1, json!({}));
    next["spec"]["template"]["spec"] = json!({"containers": pod["spec"]["containers"]});
    bench
        .make("/apis/apps/v1/namespaces/default/deployments", next)
        .await;
    bench.sleep(10.0).await;
    assert!(bench.pods("next").await.iter().all(is_ready));
    let free = json!({"metadata": {"finalizers": null}});
    bench.patch(&format!("{PODS}/held"), MERGE, free).await;
    bench.sleep(1.0).await;
    assert!(bench.pods("held").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_s_critical_pod_takes_its_room_on_its_own_node() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    let mut full = deployment("web", 2, json!({}));
    full["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] =
        json!("1900m");
    let path = "/apis/apps/v1/namespaces/default";
    bench.make(&format!("{path}/deployments"), full).await;
    bench.sleep(5.0).await;
    let mut agent = deployment("agent", 1, json!({}));
    agent["kind"] = json!("DaemonSet");
    agent["spec"].as_object_mut().unwrap().remove("replicas");
    agent["spec"]["template"]["spec"]["priorityClassName"] = json!("system-node-critical");
    bench.make(&format!("{path}/daemonsets"), agent).await;
    bench.sleep(60.0).await;
    let agents = bench.pods("agent").await;
    assert!(
        agents.len() == 2 && agents.iter().all(is_ready),
        "{agents:?}"
    );
    let web = bench.pods("web").await;
    assert!(web.iter().all(|p| p["status"]["phase"] == "Pending"));
}
