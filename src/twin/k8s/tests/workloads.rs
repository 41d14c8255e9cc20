//! Controllers and the scheduler.

use super::*;
use crate::twin::k8s::cloud_hooks::{self, AddonWorkload};

const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";

#[tokio::test(start_paused = true)]
async fn the_captured_cluster_stays_as_it_is_when_nothing_happens() {
    let bench = Bench::expense();
    let mut before = BTreeMap::new();
    let lists = [
        "/api/v1/pods",
        "/api/v1/nodes",
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/daemonsets",
        "/apis/apps/v1/statefulsets",
        "/apis/apps/v1/replicasets",
        "/apis/policy/v1/poddisruptionbudgets",
        "/apis/discovery.k8s.io/v1/endpointslices",
        "/apis/storage.k8s.io/v1/volumeattachments",
    ];
    for path in lists {
        before.insert(path, bench.get(path).await["items"].clone());
    }
    bench.sleep(3600.0).await;
    for path in lists {
        let after = bench.get(path).await["items"].clone();
        for (a, b) in before[path]
            .as_array()
            .unwrap()
            .iter()
            .zip(after.as_array().unwrap())
        {
            assert_eq!(a, b, "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_surges_first_and_never_serves_with_too_few() {
    let bench = Bench::with_nodes(&["a", "b", "c"]).await;
    let old = bench.deploy("web", 4, json!({})).await;
    let note = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}});
    bench.patch(WEB, STRATEGIC, note).await;
    let (mut least, mut most) = (usize::MAX, 0);
    for _ in 0..400 {
        let pods = bench.pods("web").await;
        least = least.min(
            pods.iter()
                .filter(|p| is_ready(p) && p["metadata"].get("deletionTimestamp").is_none())
                .count(),
        );
        most = most.max(
            pods.iter()
                .filter(|p| p["metadata"].get("deletionTimestamp").is_none())
                .count(),
        );
        bench.sleep(0.02).await;
    }
    assert_eq!((least, most), (3, 5), "25% of 4 either way");
    let new = bench.pods("web").await;
    assert!(
        new.len() == 4
            && !new
                .iter()
                .any(|p| old.iter().any(|o| name_of(o) == name_of(p)))
    );
    let status = bench.get(WEB).await;
    assert_eq!(
        status["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "2"
    );
    assert_eq!(
        status["status"]["conditions"][1]["reason"],
        "NewReplicaSetAvailable"
    );
    assert_eq!(status["status"]["updatedReplicas"], 4);
    // Back to the first template: its set is taken up again.
    let undo = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": null}}}}});
    bench.patch(WEB, MERGE, undo).await;
    bench.sleep(20.0).await;
    assert_eq!(
        bench.get("/apis/apps/v1/replicasets").await["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        bench.get(WEB).await["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "3"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lone_replica_is_moved_without_a_gap_and_past_its_budget() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    let old = bench.deploy("web", 1, json!({})).await;
    bench.budget("web", "web", json!({"minAvailable": 1})).await;
    let node = old[0]["spec"]["nodeName"].as_str().unwrap();
    bench
        .patch(
            &format!("/api/v1/nodes/{node}"),
            STRATEGIC,
            json!({"spec": {"unschedulable": true}}),
        )
        .await;
    bench
        .patch(
            WEB,
            STRATEGIC,
            json!({"spec": {"template": {"metadata": {"annotations": {"x": "1"}}}}}),
        )
        .await;
    for _ in 0..200 {
        assert!(bench.pods("web").await.iter().any(is_ready));
        bench.sleep(0.05).await;
    }
    let now = bench.pods("web").await;
    assert!(now.len() == 1 && now[0]["spec"]["nodeName"] != node);
}

#[tokio::test(start_paused = true)]
async fn a_template_that_never_gets_ready_stops_the_rollout_and_misses_its_deadline() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    bench.deploy("web", 4, json!({})).await;
    let bad = json!({"spec": {"template": {"metadata": {"annotations": {"twin.eksup.dev/never-ready": "1"}}}}});
    bench.patch(WEB, STRATEGIC, bad).await;
    bench.sleep(60.0).await;
    let ready = bench
        .pods("web")
        .await
        .iter()
        .filter(|p| is_ready(p))
        .count();
    assert_eq!(ready, 3);
    bench.sleep(600.0).await;
    let conditions = bench.get(WEB).await["status"]["conditions"].clone();
    let progressing = conditions
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == "Progressing")
        .unwrap()
        .clone();
    assert_eq!(
        (&progressing["status"], &progressing["reason"]),
        (&json!("False"), &json!("ProgressDeadlineExceeded"))
    );
    assert!(!bench.twin.with_world(|w| cloud_hooks::is_rolled_out(
        w,
        AddonWorkload::Deployment,
        "default",
        "web"
    )));
}

#[tokio::test(start_paused = true)]
async fn recreate_ends_the_old_before_it_starts_the_new() {
    let bench = Bench::with_nodes(&["a"]).await;
    let mut body = deployment("web", 2, json!({}));
    body["spec"]["strategy"] = json!({"type": "Recreate"});
    bench
        .make("/apis/apps/v1/namespaces/default/deployments", body)
        .await;
    bench.sleep(5.0).await;
    bench
        .patch(
            WEB,
            STRATEGIC,
            json!({"spec": {"template": {"metadata": {"annotations": {"x": "1"}}}}}),
        )
        .await;
    let mut gap = false;
    for _ in 0..200 {
        let pods = bench.pods("web").await;
        let hashes: std::collections::BTreeSet<_> = pods
            .iter()
            .map(|p| p["metadata"]["labels"]["pod-template-hash"].to_string())
            .collect();
        assert!(hashes.len() < 2, "old and new at once");
        gap |= !pods.iter().any(is_ready);
        bench.sleep(0.05).await;
    }
    assert!(gap);
    assert_eq!(
        bench
            .pods("web")
            .await
            .iter()
            .filter(|p| is_ready(p))
            .count(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_does_not_roll() {
    let bench = Bench::with_nodes(&["a"]).await;
    let old = bench.deploy("web", 1, json!({})).await;
    let change =
        json!({"spec": {"paused": true, "template": {"metadata": {"annotations": {"x": "1"}}}}});
    bench.patch(WEB, STRATEGIC, change).await;
    bench.sleep(30.0).await;
    assert_eq!(bench.pods("web").await, old);
}

#[tokio::test(start_paused = true)]
async fn an_add_on_s_image_rolls_through_its_daemon_set_node_by_node() {
    let bench = Bench::expense();
    let rolled = |bench: &Bench| {
        bench.twin.with_world(|w| {
            cloud_hooks::is_rolled_out(w, AddonWorkload::DaemonSet, "kube-system", "kube-proxy")
        })
    };
    assert!(rolled(&bench));
    let found = bench.twin.with_world(|w| {
        cloud_hooks::set_image_version(
            w,
            AddonWorkload::DaemonSet,
            "kube-system",
            "kube-proxy",
            "kube-proxy",
            "v1.28.8-eksbuild.2",
        )
    });
    assert!(found && !rolled(&bench));
    let mut most_away = 0;
    for _ in 0..600 {
        let pods = bench
            .get("/api/v1/namespaces/kube-system/pods?labelSelector=app%3Dkube-proxy")
            .await;
        let ready = pods["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| is_ready(p) && p["metadata"].get("deletionTimestamp").is_none())
            .count();
        most_away = most_away.max(3 - ready);
        bench.sleep(0.1).await;
    }
    assert_eq!(most_away, 1);
    assert!(rolled(&bench));
    let image = bench.twin.with_world(|w| {
        cloud_hooks::container_image(
            w,
            AddonWorkload::DaemonSet,
            "kube-system",
            "kube-proxy",
            "kube-proxy",
        )
    });
    assert!(image.unwrap().ends_with(":v1.28.8-eksbuild.2"));
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_rolls_from_the_last_to_the_first_one_at_a_time() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    let set = json!({
        "metadata": {"name": "db"},
        "spec": {
            "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod_spec()},
        },
    });
    bench
        .make("/apis/apps/v1/namespaces/default/statefulsets", set)
        .await;
    bench.sleep(1.8).await;
    assert_eq!(
        bench.pods("db").await.len(),
        2,
        "the second comes when the first is ready"
    );
    bench.sleep(10.0).await;
    let path = "/apis/apps/v1/namespaces/default/statefulsets/db";
    let before: BTreeMap<String, String> = uids(&bench.pods("db").await);
    bench
        .patch(
            path,
            STRATEGIC,
            json!({"spec": {"template": {"metadata": {"annotations": {"x": "1"}}}}}),
        )
        .await;
    let mut order = Vec::new();
    for _ in 0..400 {
        for (name, uid) in uids(&bench.pods("db").await) {
            if before[&name] != uid && !order.contains(&name) {
                order.push(name);
            }
        }
        bench.sleep(0.05).await;
    }
    assert_eq!(order, ["db-2", "db-1", "db-0"]);
    let status = bench.get(path).await["status"].clone();
    assert_eq!(
        (&status["updatedReplicas"], &status["currentRevision"]),
        (&json!(3), &status["updateRevision"])
    );
}

fn uids(pods: &[Value]) -> BTreeMap<String, String> {
    pods.iter()
        .map(|p| (name_of(p).to_owned(), p["metadata"]["uid"].to_string()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_job_replaces_an_evicted_pod_and_completes() {
    let bench = Bench::with_nodes(&["a"]).await;
    let mut spec = pod_spec();
    spec["restartPolicy"] = json!("Never");
    let template = json!({"metadata": {"labels": {"app": "job"}, "annotations": {"twin.eksup.dev/runs-for": "20s"}}, "spec": spec});
    bench
        .make(
            "/apis/batch/v1/namespaces/default/jobs",
            json!({"metadata": {"name": "job"}, "spec": {"template": template}}),
        )
        .await;
    bench.sleep(5.0).await;
    let first = bench.pods("job").await;
    assert_eq!(bench.evict("default", name_of(&first[0])).await.0, 201);
    bench.sleep(5.0).await;
    let second = bench.pods("job").await;
    assert!(second.len() == 1 && name_of(&second[0]) != name_of(&first[0]));
    bench.sleep(30.0).await;
    let status = bench
        .get("/apis/batch/v1/namespaces/default/jobs/job")
        .await["status"]
        .clone();
    assert_eq!(
        (&status["succeeded"], &status["failed"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(status["conditions"][0]["type"], "Complete");
}

#[tokio::test(start_paused = true)]
async fn a_pod_no_node_will_do_for_says_why_in_the_scheduler_s_words() {
    let bench = Bench::with_nodes(&["a", "b", "c"]).await;
    bench
        .patch(
            "/api/v1/nodes/a",
            STRATEGIC,
            json!({"spec": {"unschedulable": true}}),
        )
        .await;
    let taint =
        json!({"spec": {"taints": [{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]}});
    bench.patch("/api/v1/nodes/b", STRATEGIC, taint).await;
    bench.sleep(1.0).await;
    let mut big = deployment("big", 1, json!({}));
    big["spec"]["template"]["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "64"}});
    bench
        .make("/apis/apps/v1/namespaces/default/deployments", big)
        .await;
    bench.sleep(1.0).await;
    let pod = bench.pods("big").await.remove(0);
    let condition = &pod["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["reason"]),
        (&json!("PodScheduled"), &json!("Unschedulable"))
    );
    let message = "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {dedicated: db}, 1 node(s) were unschedulable. \
                   preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.";
    assert_eq!(condition["message"], message);
    let small = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "1"}}}]}}}});
    bench
        .patch(
            "/apis/apps/v1/namespaces/default/deployments/big",
            STRATEGIC,
            small,
        )
        .await;
    bench.sleep(10.0).await;
    assert!(
        bench
            .pods("big")
            .await
            .iter()
            .any(|p| p["spec"]["nodeName"] == "c")
    );
}

#[tokio::test(start_paused = true)]
async fn pods_wait_for_a_node_and_are_tried_again_when_one_comes() {
    let bench = Bench::with_nodes(&["a"]).await;
    bench
        .patch(
            "/api/v1/nodes/a",
            STRATEGIC,
            json!({"spec": {"unschedulable": true}}),
        )
        .await;
    bench.sleep(1.0).await;
    let pods = bench.deploy("web", 3, json!({})).await;
    assert!(pods.iter().all(|p| p["status"]["phase"] == "Pending"));
    bench.join("b", 1, "green");
    bench.sleep(30.0).await;
    assert!(
        bench
            .pods("web")
            .await
            .iter()
            .all(|p| is_ready(p) && p["spec"]["nodeName"] == "b")
    );
}

#[tokio::test(start_paused = true)]
async fn hard_spreading_and_anti_affinity_are_kept() {
    let bench = Bench::with_nodes(&["a", "b", "c"]).await;
    let mut spread = deployment("spread", 4, json!({}));
    spread["spec"]["template"]["spec"]["topologySpreadConstraints"] = json!([{
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "spread"}},
    }]);
    bench
        .make("/apis/apps/v1/namespaces/default/deployments", spread)
        .await;
    let mut apart = deployment("apart", 4, json!({}));
    apart["spec"]["template"]["spec"]["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "apart"}}},
    ]}});
    bench
        .make("/apis/apps/v1/namespaces/default/deployments", apart)
        .await;
    bench.sleep(10.0).await;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for pod in bench.pods("spread").await {
        *counts
            .entry(pod["spec"]["nodeName"].to_string())
            .or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 1, 2]);
    let apart = bench.pods("apart").await;
    assert_eq!(
        apart
            .iter()
            .filter(|p| p["spec"]["nodeName"].is_string())
            .count(),
        3
    );
    let waits = apart
        .iter()
        .find(|p| p["spec"].get("nodeName").is_none())
        .unwrap();
    assert!(
        waits["status"]["conditions"][0]["message"]
            .as_str()
            .unwrap()
            .contains("3 node(s) didn't match pod anti-affinity rules")
    );
}

#[tokio::test(start_paused = true)]
async fn a_volume_holds_its_pod_in_its_zone_and_moves_after_it() {
    let bench = Bench::expense();
    let old = "ip-10-0-0-4.ec2.internal";
    bench
        .patch(
            &format!("/api/v1/nodes/{old}"),
            STRATEGIC,
            json!({"spec": {"unschedulable": true}}),
        )
        .await;
    bench.evict("expense", "mysql-0").await;
    bench.sleep(20.0).await;
    let pod = bench.get("/api/v1/namespaces/expense/pods/mysql-0").await;
    let message = pod["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("2 node(s) had volume node affinity conflict"),
        "{message}"
    );
    let attachments = "/apis/storage.k8s.io/v1/volumeattachments";
    assert!(
        bench.get(attachments).await["items"]
            .as_array()
            .unwrap()
            .is_empty(),
        "detached once its pod was gone"
    );
    bench.join("green-a", 0, "green");
    bench.sleep(60.0).await;
    let pod = bench.get("/api/v1/namespaces/expense/pods/mysql-0").await;
    assert_eq!(
        (&pod["spec"]["nodeName"], is_ready(&pod)),
        (&json!("green-a"), true)
    );
    assert_eq!(
        bench.get(attachments).await["items"][0]["spec"]["nodeName"],
        "green-a"
    );
}
