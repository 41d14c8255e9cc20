//! Nodes: cordons, deaths, departures, and what the cloud does.

use super::*;
use crate::twin::k8s::cloud_hooks::{self, NodePortHealth};

async fn node(bench: &Bench, name: &str) -> Value {
    bench.get(&format!("/api/v1/nodes/{name}")).await
}

fn taints(node: &Value) -> Vec<String> {
    let taints = node["spec"]["taints"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    taints
        .iter()
        .map(|t| {
            format!(
                "{}:{}",
                t["key"].as_str().unwrap(),
                t["effect"].as_str().unwrap()
            )
        })
        .collect()
}

fn ready_status(node: &Value) -> String {
    let ready = node["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == "Ready")
        .unwrap();
    ready["status"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_node_joins_not_ready_and_is_ready_when_its_network_runs() {
    let bench = Bench::expense();
    bench.join("green-a", 0, "green");
    bench.sleep(1.0).await;
    let new = node(&bench, "green-a").await;
    assert_eq!(ready_status(&new), "False");
    assert!(taints(&new).contains(&"node.kubernetes.io/not-ready:NoSchedule".to_owned()));
    bench.sleep(40.0).await;
    let new = node(&bench, "green-a").await;
    assert_eq!(
        (ready_status(&new), taints(&new)),
        ("True".to_owned(), Vec::new())
    );
    let mut daemons: Vec<String> = bench
        .twin
        .with_world(|w| cloud_hooks::pods_on(w, "green-a"))
        .iter()
        .filter(|p| p.ready && p.daemon)
        .map(|p| p.ns.clone())
        .collect();
    daemons.sort();
    assert_eq!(daemons, ["expense", "kube-system", "kube-system"]);
    assert_eq!(
        bench
            .twin
            .with_world(|w| cloud_hooks::nodes_of_group(w, "green")),
        ["green-a"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_cordon_taints_within_a_second_and_an_uncordon_takes_the_taint_away() {
    let bench = Bench::with_nodes(&["a"]).await;
    bench
        .patch(
            "/api/v1/nodes/a",
            STRATEGIC,
            json!({"spec": {"unschedulable": true}}),
        )
        .await;
    bench.sleep(1.0).await;
    assert_eq!(
        taints(&node(&bench, "a").await),
        ["node.kubernetes.io/unschedulable:NoSchedule"]
    );
    bench
        .patch(
            "/api/v1/nodes/a",
            STRATEGIC,
            json!({"spec": {"unschedulable": null}}),
        )
        .await;
    bench.sleep(1.0).await;
    assert!(taints(&node(&bench, "a").await).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_dead_kubelet_s_pods_are_marked_after_six_minutes_and_stay() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    bench.deploy("web", 2, json!({})).await;
    bench.twin.with_world(|w| cloud_hooks::stop_kubelet(w, "a"));
    bench.sleep(38.0).await;
    assert_eq!(ready_status(&node(&bench, "a").await), "True");
    bench.sleep(8.0).await;
    assert_eq!(ready_status(&node(&bench, "a").await), "Unknown");
    let on_a = async || bench.twin.with_world(|w| cloud_hooks::pods_on(w, "a"));
    assert!(on_a().await.iter().all(|p| !p.ready && !p.deleting));
    bench.sleep(310.0).await;
    assert!(on_a().await.iter().all(|p| p.deleting) && !on_a().await.is_empty());
    bench.sleep(3600.0).await;
    assert!(!on_a().await.is_empty(), "nobody is there to end them");
    assert_eq!(
        bench
            .pods("web")
            .await
            .iter()
            .filter(|p| is_ready(p))
            .count(),
        2,
        "replaced on b"
    );
    bench
        .twin
        .with_world(|w| cloud_hooks::revive_kubelet(w, "a"));
    bench.sleep(40.0).await;
    assert!(on_a().await.is_empty());
    assert_eq!(
        (
            ready_status(&node(&bench, "a").await),
            taints(&node(&bench, "a").await)
        ),
        ("True".to_owned(), Vec::new())
    );
}

#[tokio::test(start_paused = true)]
async fn the_pods_of_an_instance_that_ended_linger_running_until_they_are_collected() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    bench.deploy("web", 2, json!({})).await;
    bench
        .twin
        .with_world(|w| cloud_hooks::remove_instance(w, "i-a"));
    bench.sleep(5.0).await;
    assert_eq!(
        bench
            .call("GET", "/api/v1/nodes/a", "", Value::Null)
            .await
            .0,
        404
    );
    bench.sleep(35.0).await;
    let pods = bench.pods("web").await;
    assert!(
        pods.iter()
            .any(|p| p["spec"]["nodeName"] == "a" && is_ready(p)),
        "still listed as ready"
    );
    bench.sleep(25.0).await;
    let pods = bench.pods("web").await;
    assert!(
        pods.len() == 2
            && pods
                .iter()
                .all(|p| p["spec"]["nodeName"] == "b" && is_ready(p))
    );
}

#[tokio::test(start_paused = true)]
async fn a_no_execute_taint_ends_pods_without_asking_their_budget() {
    let bench = Bench::with_nodes(&["a"]).await;
    bench.deploy("web", 1, json!({})).await;
    bench.budget("web", "web", json!({"minAvailable": 1})).await;
    let taint = [("eksup".to_owned(), "x".to_owned(), "NoExecute".to_owned())];
    bench.twin.with_world(|w| {
        cloud_hooks::set_group_marks(
            w,
            "blue",
            &taint,
            &[],
            &BTreeMap::from([("k".into(), "v".into())]),
            &[],
        );
    });
    bench.sleep(3.0).await;
    assert!(
        bench
            .pods("web")
            .await
            .iter()
            .all(|p| p["status"]["phase"] == "Pending")
    );
    assert_eq!(node(&bench, "a").await["metadata"]["labels"]["k"], "v");
    bench.twin.with_world(|w| {
        cloud_hooks::set_group_marks(w, "blue", &[], &taint, &BTreeMap::new(), &["k".into()]);
    });
    bench.sleep(5.0).await;
    assert!(bench.pods("web").await.iter().all(is_ready));
    assert!(
        node(&bench, "a").await["metadata"]["labels"]
            .get("k")
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn a_custom_no_schedule_taint_keeps_daemon_pods_but_lets_no_new_one_in() {
    let bench = Bench::with_nodes(&["a"]).await;
    let set = json!({"metadata": {"name": "agent"}, "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": {"metadata": {"labels": {"app": "agent"}}, "spec": pod_spec()}}});
    bench
        .make("/apis/apps/v1/namespaces/default/daemonsets", set)
        .await;
    bench.sleep(5.0).await;
    let taint = json!({"spec": {"taints": [{"key": "eksup", "effect": "NoSchedule"}]}});
    bench.patch("/api/v1/nodes/a", STRATEGIC, taint).await;
    bench.sleep(10.0).await;
    let pods = bench.pods("agent").await;
    assert_eq!(pods.len(), 1);
    bench.evict("default", name_of(&pods[0])).await;
    bench.sleep(10.0).await;
    assert!(bench.pods("agent").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_port_serves_as_the_service_s_traffic_policy_says() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    bench.deploy("web", 1, json!({})).await;
    for (name, policy, port) in [("any", "Cluster", 30080), ("local", "Local", 30081)] {
        let spec = json!({"type": "NodePort", "selector": {"app": "web"}, "externalTrafficPolicy": policy, "ports": [{"port": 80, "nodePort": port}]});
        bench
            .make(
                "/api/v1/namespaces/default/services",
                json!({"metadata": {"name": name}, "spec": spec}),
            )
            .await;
    }
    bench.sleep(1.0).await;
    let home = bench.pods("web").await[0]["spec"]["nodeName"]
        .as_str()
        .unwrap()
        .to_owned();
    let other = if home == "a" { "b" } else { "a" };
    let at = |node: &str, port: u16| {
        bench
            .twin
            .with_world(|w| cloud_hooks::probe_node_port(w, &format!("i-{node}"), port))
    };
    assert_eq!(
        (at(&home, 30080), at(other, 30080)),
        (NodePortHealth::Ready, NodePortHealth::Ready)
    );
    assert_eq!(
        (at(&home, 30081), at(other, 30081)),
        (NodePortHealth::Ready, NodePortHealth::NoReadyEndpoint)
    );
    assert_eq!(
        (at("none", 30080), at(&home, 31999)),
        (NodePortHealth::NoNode, NodePortHealth::NoReadyEndpoint)
    );
    assert_eq!(
        bench
            .twin
            .with_world(|w| cloud_hooks::ready_pod_ips(w, "default", "any"))
            .len(),
        1
    );
    bench
        .twin
        .with_world(|w| cloud_hooks::stop_kubelet(w, &home));
    bench.sleep(60.0).await;
    assert_eq!(at(&home, 30080), NodePortHealth::NodeNotReady);
    assert_eq!(at(other, 30080), NodePortHealth::NoReadyEndpoint);
}

#[tokio::test(start_paused = true)]
async fn a_node_group_s_end_heeds_budgets_for_five_minutes_and_then_no_more() {
    let bench = Bench::with_nodes(&["a"]).await;
    bench.deploy("web", 1, json!({})).await;
    bench.budget("web", "web", json!({"minAvailable": 1})).await;
    bench
        .twin
        .with_world(|w| cloud_hooks::evict_node_pods(w, "a"));
    bench.sleep(290.0).await;
    assert!(is_ready(&bench.pods("web").await[0]));
    bench.sleep(20.0).await;
    assert_eq!(bench.pods("web").await[0]["status"]["phase"], "Pending");
    assert_eq!(node(&bench, "a").await["spec"]["unschedulable"], true);
}

#[tokio::test(start_paused = true)]
async fn the_server_s_version_is_what_it_is_set_to() {
    let bench = Bench::expense();
    assert!(
        bench.get("/version").await["gitVersion"]
            .as_str()
            .unwrap()
            .starts_with("v1.27.")
    );
    bench
        .twin
        .with_world(|w| cloud_hooks::set_server_version(w, Minor::new(28)));
    assert!(
        bench.get("/version").await["gitVersion"]
            .as_str()
            .unwrap()
            .starts_with("v1.28.")
    );
}
