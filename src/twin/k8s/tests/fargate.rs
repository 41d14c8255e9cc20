//! Fargate: which pods it takes, their nodes, and restarts of workloads there.

use super::*;
use crate::twin::k8s::{cloud_hooks, fargate};

const PODS: &str = "/api/v1/namespaces/shop/pods";

async fn shop_pods(bench: &Bench, app: &str) -> Vec<Value> {
    let list = bench
        .get(&format!("{PODS}?labelSelector=app%3D{app}"))
        .await;
    list["items"].as_array().unwrap().clone()
}

fn node_of(pod: &Value) -> String {
    pod["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn name_of(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

fn fargate_nodes(bench: &Bench) -> Vec<String> {
    let names = bench.twin.with_world(|w| cloud_hooks::node_names(w));
    let names = names.into_iter().filter(|n| n.starts_with("fargate-"));
    names.collect()
}

fn is_serving(pod: &Value) -> bool {
    is_ready(pod) && pod["metadata"].get("deletionTimestamp").is_none()
}

async fn restart(bench: &Bench, path: &str) {
    let note = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}});
    bench.patch(path, STRATEGIC, note).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_pod_of_a_profile_gets_a_node_of_its_own_with_the_control_planes_kubelet() {
    let bench = Bench::of_scenario("fargate");
    let before = fargate_nodes(&bench);
    bench
        .twin
        .with_world(|w| cloud_hooks::set_server_version(w, Minor::new(29)));
    restart(&bench, "/apis/apps/v1/namespaces/shop/deployments/mailer").await;
    bench.sleep(2.0).await;
    let pods = shop_pods(&bench, "mailer").await;
    let new = pods.iter().find(|p| node_of(p).is_empty()).unwrap();
    let meta = &new["metadata"];
    assert_eq!(meta["labels"]["eks.amazonaws.com/fargate-profile"], "apps");
    assert_eq!(meta["annotations"]["CapacityProvisioned"], "0.25vCPU 0.5GB");
    assert_eq!(new["spec"]["schedulerName"], "fargate-scheduler");
    assert_eq!(new["spec"]["priorityClassName"], "system-node-critical");
    assert_eq!(new["spec"]["priority"], 2_000_001_000);
    assert_eq!(fargate_nodes(&bench).len(), before.len());
    bench.sleep(180.0).await;
    let pods = shop_pods(&bench, "mailer").await;
    assert_eq!(pods.len(), 1);
    assert!(is_ready(&pods[0]));
    let node = bench
        .get(&format!("/api/v1/nodes/{}", node_of(&pods[0])))
        .await;
    let ip = pods[0]["status"]["podIP"].as_str().unwrap();
    assert_eq!(
        node_of(&pods[0]),
        format!("fargate-ip-{}.ec2.internal", ip.replace('.', "-"))
    );
    assert_eq!(
        node["status"]["nodeInfo"]["kubeletVersion"],
        "v1.29.15-eks-113cf36"
    );
    assert_eq!(
        node["metadata"]["labels"]["eks.amazonaws.com/compute-type"],
        "fargate"
    );
    assert!(node["metadata"]["labels"]["node.kubernetes.io/instance-type"].is_null());
    assert_eq!(
        node["spec"]["taints"],
        json!([{"key": "eks.amazonaws.com/compute-type", "value": "fargate", "effect": "NoSchedule"}])
    );
    // The old pod's node is gone, and those of the others are as old as before.
    let after = fargate_nodes(&bench);
    assert_eq!(after.len(), before.len());
    assert_eq!(
        after.iter().filter(|n| before.contains(n)).count(),
        before.len() - 1
    );
    let on = bench
        .twin
        .with_world(|w| cloud_hooks::pods_on(w, &node_of(&pods[0])));
    assert_eq!(on.len(), 1, "no daemon runs there");
}

#[tokio::test(start_paused = true)]
async fn pods_of_other_namespaces_daemons_and_pods_that_ask_for_instances_are_not_taken() {
    let bench = Bench::of_scenario("fargate");
    let pod = |name: &str, notes: Value, labels: Value| {
        json!({
            "metadata": {"name": name, "annotations": notes, "labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]},
        })
    };
    let on_instances = json!({"eks.amazonaws.com/compute-type": "ec2"});
    let other = json!({"eks.amazonaws.com/fargate-profile": "others"});
    for (path, body, taken) in [
        (PODS, pod("plain", json!({}), json!({})), true),
        (PODS, pod("kept", on_instances, json!({})), false),
        (PODS, pod("named", json!({}), other), false),
        (
            "/api/v1/namespaces/expense/pods",
            pod("else", json!({}), json!({})),
            false,
        ),
    ] {
        let (code, made) = bench.call("POST", path, "application/json", body).await;
        assert_eq!(code, 201, "{made}");
        let scheduler = &made["spec"]["schedulerName"];
        assert_eq!(scheduler == "fargate-scheduler", taken, "{made}");
    }
    bench.sleep(120.0).await;
    let kept = bench.get(&format!("{PODS}/kept")).await;
    assert!(node_of(&kept).starts_with("ip-"), "{kept}");
}

#[tokio::test(start_paused = true)]
async fn an_eviction_of_a_fargate_pod_asks_its_budget() {
    let bench = Bench::of_scenario("fargate");
    let pods = shop_pods(&bench, "web").await;
    let evict = async |pod: &Value| {
        let name = name_of(pod);
        let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "shop"}});
        let path = format!("{PODS}/{name}/eviction");
        bench.call("POST", &path, "application/json", body).await.0
    };
    assert_eq!(evict(&pods[0]).await, 201);
    assert_eq!(evict(&pods[1]).await, 429);
    let old = node_of(&pods[0]);
    bench.sleep(150.0).await;
    assert!(!fargate_nodes(&bench).contains(&old));
    assert_eq!(
        shop_pods(&bench, "web")
            .await
            .iter()
            .filter(|p| is_ready(p))
            .count(),
        3
    );
    assert_eq!(evict(&pods[1]).await, 201);
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_capacity_waits_and_the_scheduler_tells_why() {
    let bench = Bench::of_scenario("fargate");
    bench.twin.with_world(|w| {
        assert!(fargate::set_no_capacity(w, Duration::from_secs(600)));
    });
    restart(&bench, "/apis/apps/v1/namespaces/shop/deployments/mailer").await;
    bench.sleep(500.0).await;
    let pods = shop_pods(&bench, "mailer").await;
    let new = pods.iter().find(|p| node_of(p).is_empty()).unwrap();
    assert_eq!(new["status"]["phase"], "Pending");
    // The old pod serves on, as the new one is a surge.
    assert!(pods.iter().any(is_serving));
    let events = bench.get("/api/v1/namespaces/shop/events").await;
    let told: Vec<&Value> = events["items"].as_array().unwrap().iter().collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["involvedObject"]["name"], new["metadata"]["name"]);
    assert_eq!(told[0]["source"]["component"], "fargate-scheduler");
    let why = told[0]["message"].as_str().unwrap();
    assert!(why.starts_with("Fargate capacity is unavailable"), "{why}");
    bench.sleep(300.0).await;
    let pods = shop_pods(&bench, "mailer").await;
    assert_eq!(pods.len(), 1);
    assert!(is_ready(&pods[0]));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fargate_cannot_run_stays_pending() {
    let bench = Bench::of_scenario("fargate");
    let pod = json!({
        "metadata": {"name": "root"},
        "spec": {"containers": [{"name": "c", "image": "i:1", "securityContext": {"privileged": true}}], "volumes": [
            {"name": "logs", "hostPath": {"path": "/var/log"}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "lost"}},
        ]},
    });
    bench.call("POST", PODS, "application/json", pod).await;
    bench.sleep(300.0).await;
    let pod = bench.get(&format!("{PODS}/root")).await;
    assert!(node_of(&pod).is_empty());
    let events = bench.get("/api/v1/namespaces/shop/events").await;
    assert_eq!(
        events["items"][0]["message"],
        "Pod not supported on Fargate: invalid SecurityContext fields: Privileged, volumes not supported: logs is of an unsupported volume Type, data not supported because: PVC lost not bound"
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_a_deployment_moves_every_pod_to_a_new_node_and_counts_generations() {
    let bench = Bench::of_scenario("fargate");
    let path = "/apis/apps/v1/namespaces/shop/deployments/web";
    let old: Vec<String> = shop_pods(&bench, "web").await.iter().map(node_of).collect();
    let generation = bench.get(path).await["metadata"]["generation"]
        .as_i64()
        .unwrap();
    restart(&bench, path).await;
    let now = bench.get(path).await;
    assert_eq!(now["metadata"]["generation"], generation + 1);
    let (mut least, mut most) = (usize::MAX, 0);
    for _ in 0..600 {
        let pods = shop_pods(&bench, "web").await;
        least = least.min(pods.iter().filter(|p| is_serving(p)).count());
        let alive = |p: &&Value| p["metadata"].get("deletionTimestamp").is_none();
        most = most.max(pods.iter().filter(alive).count());
        bench.sleep(1.0).await;
    }
    // A quarter of three rounds up to a surge of one and down to none that may be missing.
    assert_eq!((least, most), (3, 4));
    let now = bench.get(path).await;
    let status = &now["status"];
    assert_eq!(status["observedGeneration"], now["metadata"]["generation"]);
    assert_eq!(
        (&status["updatedReplicas"], &status["replicas"]),
        (&json!(3), &json!(3))
    );
    let pods = shop_pods(&bench, "web").await;
    assert!(
        pods.iter()
            .all(|p| is_ready(p) && !old.contains(&node_of(p)))
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_recreate_ends_the_old_pod_before_the_new_one_has_a_node() {
    let bench = Bench::of_scenario("fargate");
    restart(&bench, "/apis/apps/v1/namespaces/shop/deployments/ledger").await;
    let mut most = 0;
    for _ in 0..180 {
        let pods = shop_pods(&bench, "ledger").await;
        most = most.max(pods.len());
        bench.sleep(1.0).await;
    }
    assert_eq!(most, 1);
    assert!(is_ready(&shop_pods(&bench, "ledger").await[0]));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_a_stateful_set_goes_from_the_highest_ordinal_down_one_at_a_time() {
    let bench = Bench::of_scenario("fargate");
    let path = "/apis/apps/v1/namespaces/shop/statefulsets/queue";
    let before = bench.get(path).await["status"].clone();
    restart(&bench, path).await;
    bench.sleep(1.0).await;
    let during = bench.get(path).await["status"].clone();
    assert_eq!(during["currentRevision"], before["currentRevision"]);
    assert_ne!(during["updateRevision"], before["updateRevision"]);
    assert_eq!(during["observedGeneration"], 2);
    let mut order = Vec::new();
    for _ in 0..400 {
        let pods = shop_pods(&bench, "queue").await;
        let down: Vec<String> = ["queue-0", "queue-1"]
            .into_iter()
            .filter(|n| !pods.iter().any(|p| name_of(p) == *n && is_serving(p)))
            .map(str::to_owned)
            .collect();
        assert!(down.len() <= 1, "{down:?}");
        if let Some(down) = down.first().filter(|d| order.last() != Some(*d)) {
            order.push(down.clone());
        }
        bench.sleep(1.0).await;
    }
    assert_eq!(order, ["queue-1", "queue-0"]);
    let after = bench.get(path).await["status"].clone();
    assert_eq!(after["currentRevision"], after["updateRevision"]);
    assert_eq!(after["updatedReplicas"], 2);
    // With OnDelete nothing moves by itself.
    let on_delete =
        json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}});
    bench.patch(path, MERGE, on_delete).await;
    let uids: Vec<Value> = shop_pods(&bench, "queue")
        .await
        .iter()
        .map(|p| p["metadata"]["uid"].clone())
        .collect();
    let note = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "later"}}}}});
    bench.patch(path, STRATEGIC, note).await;
    bench.sleep(300.0).await;
    let now: Vec<Value> = shop_pods(&bench, "queue")
        .await
        .iter()
        .map(|p| p["metadata"]["uid"].clone())
        .collect();
    assert_eq!(now, uids);
}

#[tokio::test(start_paused = true)]
async fn the_node_of_a_completed_job_stays_until_its_pod_is_deleted() {
    let bench = Bench::of_scenario("fargate");
    let job = json!({
        "metadata": {"name": "once", "namespace": "shop"},
        "spec": {"template": {
            "metadata": {"labels": {"app": "once"}, "annotations": {"twin.eksup.dev/runs-for": "20s"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]},
        }},
    });
    let (code, made) = bench
        .call(
            "POST",
            "/apis/batch/v1/namespaces/shop/jobs",
            "application/json",
            job,
        )
        .await;
    assert_eq!(code, 201, "{made}");
    bench.sleep(600.0).await;
    let pod = shop_pods(&bench, "once").await.remove(0);
    assert_eq!(pod["status"]["phase"], "Succeeded");
    assert!(fargate_nodes(&bench).contains(&node_of(&pod)));
    let path = format!("{PODS}/{}", name_of(&pod));
    bench.call("DELETE", &path, "", Value::Null).await;
    bench.sleep(60.0).await;
    assert!(!fargate_nodes(&bench).contains(&node_of(&pod)));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_instances_rolls_its_dns_servers_over_on_fargate() {
    let bench = Bench::of_scenario("fargate-only");
    let path = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
    let names = bench.twin.with_world(|w| cloud_hooks::node_names(w));
    assert!(names.iter().all(|n| n.starts_with("fargate-")));
    restart(&bench, path).await;
    for _ in 0..300 {
        let status = bench.get(path).await["status"].clone();
        assert!(status["availableReplicas"].as_i64().unwrap_or(0) >= 1);
        bench.sleep(1.0).await;
    }
    let now = bench.twin.with_world(|w| cloud_hooks::node_names(w));
    assert_eq!(now.len(), names.len());
    assert_eq!(
        now.iter().filter(|n| names.contains(n)).count(),
        names.len() - 2
    );
    // The daemons are on no node, and so wholly rolled out.
    let rolled = bench.twin.with_world(|w| {
        cloud_hooks::is_rolled_out(
            w,
            cloud_hooks::AddonWorkload::DaemonSet,
            "kube-system",
            "kube-proxy",
        )
    });
    assert!(rolled);
}
