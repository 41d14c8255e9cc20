//! Owners that are no built-in kinds, preemption, pods that crash until somebody fixes them, and the API's whole seconds.

use super::*;
use crate::twin::k8s::external_actors;

/// A Ready pod of a StrimziPodSet on `node`.
async fn kafka_pod(bench: &Bench, name: &str) -> Value {
    let mut spec = pod_spec();
    spec["restartPolicy"] = json!("Always");
    let pod = bench
        .make(
            "/api/v1/namespaces/default/pods",
            json!({
                "metadata": {
                    "name": name, "labels": {"app": "kafka"},
                    "ownerReferences": [{
                        "apiVersion": "core.strimzi.io/v1beta2", "kind": "StrimziPodSet", "name": "kafka",
                        "uid": "5f0d0b6e-0000-4000-8000-000000000001", "controller": true,
                    }],
                },
                "spec": spec,
            }),
        )
        .await;
    bench.sleep(10.0).await;
    pod
}

#[tokio::test(start_paused = true)]
async fn an_operators_pod_is_made_again_under_its_own_name_unless_the_operator_is_down() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    let first = kafka_pod(&bench, "kafka-0").await;
    assert_eq!(bench.evict("default", "kafka-0").await.0, 201);
    bench.sleep(20.0).await;
    let [second] = bench.pods("kafka").await.try_into().unwrap();
    assert!(is_ready(&second) && name_of(&second) == "kafka-0");
    assert_ne!(second["metadata"]["uid"], first["metadata"]["uid"]);
    assert_eq!(
        second["metadata"]["ownerReferences"],
        first["metadata"]["ownerReferences"]
    );

    let stop = |world: &mut SimWorld| external_actors::stop_operator(world, "StrimziPodSet");
    assert!(bench.twin.with_world(stop));
    assert_eq!(bench.evict("default", "kafka-0").await.0, 201);
    bench.sleep(600.0).await;
    assert!(bench.pods("kafka").await.is_empty());
    let start = |world: &mut SimWorld| external_actors::start_operator(world, "StrimziPodSet");
    assert!(bench.twin.with_world(start));
    bench.sleep(20.0).await;
    assert!(bench.pods("kafka").await.iter().all(is_ready));
    assert_eq!(bench.pods("kafka").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_takes_its_room_from_a_lesser_one() {
    let bench = Bench::with_nodes(&["a"]).await;
    let mut full = deployment("web", 1, json!({}));
    full["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] =
        json!("1900m");
    let path = "/apis/apps/v1/namespaces/default/deployments";
    bench.make(path, full.clone()).await;
    bench.sleep(5.0).await;
    assert!(bench.pods("web").await.iter().all(is_ready));
    // A pod of the same priority waits.
    full["metadata"]["name"] = json!("other");
    full["spec"]["selector"]["matchLabels"]["app"] = json!("other");
    full["spec"]["template"]["metadata"]["labels"]["app"] = json!("other");
    bench.make(path, full).await;
    bench.sleep(60.0).await;
    assert!(!bench.pods("other").await.iter().any(is_ready));
    assert!(bench.pods("web").await.iter().all(is_ready));

    let mut agent = deployment("agent", 1, json!({}));
    agent["spec"]["template"]["spec"]["priorityClassName"] = json!("system-node-critical");
    bench.make(path, agent).await;
    bench.sleep(10.0).await;
    assert!(bench.pods("agent").await.iter().all(is_ready));
    let web = bench.pods("web").await;
    assert!(!web.iter().any(is_ready), "{web:?}");
    assert_eq!(web[0]["status"]["phase"], "Pending");
}

#[tokio::test(start_paused = true)]
async fn room_is_taken_from_pods_without_a_budget_before_others() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    for (name, node) in [("kept", "a"), ("free", "b")] {
        let mut full = deployment(name, 1, json!({}));
        let spec = &mut full["spec"]["template"]["spec"];
        spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        spec["containers"][0]["resources"]["requests"]["cpu"] = json!("1900m");
        bench.make(path, full).await;
    }
    let budget = json!({
        "metadata": {"name": "kept"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "kept"}}},
    });
    bench
        .make(
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets",
            budget,
        )
        .await;
    bench.sleep(10.0).await;
    let mut agent = deployment("agent", 1, json!({}));
    agent["spec"]["template"]["spec"]["priorityClassName"] = json!("system-node-critical");
    bench.make(path, agent).await;
    bench.sleep(10.0).await;
    assert!(bench.pods("agent").await.iter().all(is_ready));
    assert!(bench.pods("kept").await.iter().all(is_ready));
    assert!(!bench.pods("free").await.iter().any(is_ready));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_crashes_again_and_again_is_ready_once_somebody_has_fixed_it() {
    let bench = Bench::with_nodes(&["a"]).await;
    bench.deploy("web", 1, json!({})).await;
    let broken = |world: &mut SimWorld| external_actors::make_crash_loop(world, "default", "web");
    assert!(bench.twin.with_world(broken));
    assert!(
        bench.pods("web").await.iter().all(is_ready),
        "what runs goes on"
    );
    let old = bench.pods("web").await;
    bench.evict("default", name_of(&old[0])).await;
    bench.sleep(60.0).await;
    let [pod] = bench.pods("web").await.try_into().unwrap();
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert!(!is_ready(&pod) && status["restartCount"].as_i64().unwrap() > 1);

    let fixed = |world: &mut SimWorld| external_actors::fix_workload(world, "default", "web");
    assert!(bench.twin.with_world(fixed));
    bench.sleep(320.0).await;
    let [pod] = bench.pods("web").await.try_into().unwrap();
    assert!(is_ready(&pod), "{pod}");
    assert!(pod["status"]["containerStatuses"][0]["state"]["running"].is_object());
}

#[tokio::test(start_paused = true)]
async fn every_time_in_an_object_has_whole_seconds() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    bench.sleep(0.617).await;
    let pods = bench.deploy("web", 3, json!({})).await;
    bench.budget("web", "web", json!({"minAvailable": 2})).await;
    bench.sleep(0.277).await;
    bench.evict("default", name_of(&pods[0])).await;
    let mut times = 0;
    for path in [
        "/api/v1/pods",
        "/api/v1/nodes",
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/replicasets",
        "/apis/policy/v1/poddisruptionbudgets",
    ] {
        let list = bench.get(path).await;
        let mut todo = vec![&list];
        while let Some(value) = todo.pop() {
            match value {
                Value::Object(map) => todo.extend(map.values()),
                Value::Array(all) => todo.extend(all),
                Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => {
                    assert!(!text.contains('.'), "{path}: {text}");
                    times += 1;
                }
                _ => {}
            }
        }
    }
    assert!(times > 30, "{times} times were seen");
}

#[tokio::test(start_paused = true)]
async fn an_eviction_that_gets_no_further_than_its_budget_spends_it_for_two_minutes() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    let pods = bench.deploy("web", 2, json!({})).await;
    bench.budget("web", "web", json!({"minAvailable": 1})).await;
    assert!(
        bench
            .twin
            .with_world(|world| external_actors::set_half_evictions(world, 1))
    );
    let path = format!(
        "{HOST}/api/v1/namespaces/default/pods/{}/eviction",
        name_of(&pods[0])
    );
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name_of(&pods[0])}});
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(Bytes::from(body.to_string()))
        .unwrap();
    let answer = bench.wire.clone().oneshot(request).await;
    assert!(answer.is_err(), "the connection breaks");
    bench.sleep(1.0).await;
    assert!(bench.pods("web").await.iter().all(is_ready), "no pod goes");
    let status = bench.budget_status("web").await;
    assert_eq!(status["disruptionsAllowed"], 0);
    assert!(status["disruptedPods"][name_of(&pods[0])].is_string());
    assert_eq!(bench.evict("default", name_of(&pods[1])).await.0, 429);
    bench.sleep(118.0).await;
    assert_eq!(bench.budget_status("web").await["disruptionsAllowed"], 0);
    bench.sleep(3.0).await;
    assert_eq!(bench.budget_status("web").await["disruptionsAllowed"], 1);
}
