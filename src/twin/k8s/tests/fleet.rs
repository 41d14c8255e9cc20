//! A drain as a person does it, and a large cluster.

use super::*;
use crate::twin::k8s::cloud_hooks;

/// Evicts everything from a node that is not a daemon set's, as `kubectl drain` does: again every 5 s when a budget
/// refuses. Returns how often one did.
async fn drain(bench: &Bench, node: &str) -> usize {
    bench
        .patch(
            &format!("/api/v1/nodes/{node}"),
            STRATEGIC,
            json!({"spec": {"unschedulable": true}}),
        )
        .await;
    let mut refused = 0;
    for _ in 0..200 {
        let pods: Vec<_> = bench
            .twin
            .with_world(|w| cloud_hooks::pods_on(w, node))
            .into_iter()
            .filter(|p| !p.daemon)
            .collect();
        if pods.is_empty() {
            return refused;
        }
        for pod in pods.iter().filter(|p| !p.deleting) {
            let (code, answer) = bench.evict(&pod.ns, &pod.name).await;
            assert!(matches!(code, 201 | 429), "{answer}");
            refused += usize::from(code == 429);
        }
        bench.sleep(5.0).await;
    }
    panic!("{node} never got empty");
}

#[tokio::test(start_paused = true)]
async fn the_captured_cluster_moves_from_blue_to_green_and_keeps_its_budgets() {
    let bench = Bench::expense();
    for n in 0..3 {
        bench.join(&format!("green-{n}"), n, "green");
    }
    bench.sleep(60.0).await;
    let blue = bench
        .twin
        .with_world(|w| cloud_hooks::nodes_of_group(w, "expense-blue"));
    for node in &blue {
        let body = json!({"spec": {"unschedulable": true}});
        bench
            .patch(&format!("/api/v1/nodes/{node}"), STRATEGIC, body)
            .await;
    }
    // Redis is alone behind no budget; mysql and the rest have theirs.
    for node in &blue {
        drain(&bench, node).await;
        for path in [
            "expense/poddisruptionbudgets/backend",
            "expense/poddisruptionbudgets/frontend",
            "kube-system/poddisruptionbudgets/coredns",
        ] {
            let budget = bench
                .get(&format!("/apis/policy/v1/namespaces/{path}"))
                .await;
            let status = &budget["status"];
            assert!(
                status["currentHealthy"].as_i64() >= status["desiredHealthy"].as_i64(),
                "{path}: {status}"
            );
        }
    }
    bench.sleep(30.0).await;
    let pods = bench.get("/api/v1/pods").await;
    for pod in pods["items"].as_array().unwrap() {
        let on_blue = blue.iter().any(|n| pod["spec"]["nodeName"] == n.as_str());
        let daemon = pod["metadata"]["ownerReferences"][0]["kind"] == "DaemonSet";
        assert!(is_ready(pod) && (daemon || !on_blue), "{}", name_of(pod));
    }
    for node in &blue {
        let id = bench.get(&format!("/api/v1/nodes/{node}")).await["spec"]["providerID"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned();
        bench
            .twin
            .with_world(|w| cloud_hooks::remove_instance(w, &id));
    }
    bench.sleep(70.0).await;
    assert_eq!(
        bench.get("/api/v1/nodes").await["items"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(
        bench.get("/api/v1/pods").await["items"]
            .as_array()
            .unwrap()
            .len(),
        18
    );
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_history() {
    let run = async || {
        let bench = Bench::expense();
        bench.join("green-0", 0, "green");
        bench.sleep(40.0).await;
        drain(&bench, "ip-10-0-32-4.ec2.internal").await;
        bench.get("/api/v1/pods").await.to_string()
    };
    assert_eq!(run().await, run().await);
}

/// Half blue, half green, twenty pods for each node in groups of a hundred with a budget of a tenth; then a few blue nodes are
/// emptied. How long that takes is measured in the bench of scale.
#[tokio::test(start_paused = true)]
async fn two_hundred_nodes_and_four_thousand_pods_settle_and_drain() {
    let (nodes, drained) = (200, 10);
    let pace = KubeletTimings {
        pull: (0, 0),
        ..KubeletTimings::default()
    };
    let cluster = SimCluster::new_empty(Minor::new(29)).allow_anonymous();
    let bench = Bench::of(cluster.with_pace(pace));
    for n in 0..nodes {
        let group = if n < nodes / 2 { "blue" } else { "green" };
        bench.join(&format!("n{n:04}"), n, group);
    }
    bench.sleep(30.0).await;
    for app in 0..nodes / 5 {
        let name = format!("app-{app:03}");
        let path = "/apis/apps/v1/namespaces/default/deployments";
        bench.make(path, deployment(&name, 100, json!({}))).await;
        let budget = json!({"maxUnavailable": "10%"});
        bench.budget(&name, &name, budget).await;
    }
    let ready = || {
        let count = |w: &mut SimWorld| w.kube.store.index.pods.values().filter(|p| p.ready).count();
        bench.twin.with_world(count)
    };
    bench.sleep(30.0).await;
    assert_eq!(ready(), nodes * 20);
    let blue = bench
        .twin
        .with_world(|w| cloud_hooks::nodes_of_group(w, "blue"));
    for node in blue.iter().take(drained) {
        drain(&bench, node).await;
    }
    bench.sleep(30.0).await;
    assert_eq!(ready(), nodes * 20);
}
