//! Volumes and the scheduler: who holds them, how many a node takes, where they can be reached (K8S-SCHED-5, K8S-VOL-1).

use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A bound claim `data` of a volume of these modes and driver, in the zone.
async fn claim(bench: &Bench, name: &str, mode: &str, driver: &str, zone: Option<&str>) {
    let mut volume = json!({
        "metadata": {"name": format!("pv-{name}")},
        "spec": {
            "accessModes": [mode], "capacity": {"storage": "1Gi"}, "storageClassName": "gp3",
            "claimRef": {"namespace": "default", "name": name},
            "csi": {"driver": driver, "volumeHandle": format!("vol-{name}")},
        },
    });
    if let Some(zone) = zone {
        volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]},
        ]}]}});
    }
    bench.make("/api/v1/persistentvolumes", volume).await;
    bench
        .make(
            "/api/v1/namespaces/default/persistentvolumeclaims",
            json!({
                "metadata": {"name": name},
                "spec": {"accessModes": [mode], "volumeName": format!("pv-{name}"), "storageClassName": "gp3"},
            }),
        )
        .await;
}

/// A pod that uses the claim; on a node by name where one is given.
async fn pod(bench: &Bench, name: &str, claim: &str, node: &str) -> Value {
    let mut spec = pod_spec();
    spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    if !node.is_empty() {
        spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    }
    bench
        .make(PODS, json!({"metadata": {"name": name}, "spec": spec}))
        .await;
    bench.sleep(20.0).await;
    bench.get(&format!("{PODS}/{name}")).await
}

fn message(pod: &Value) -> &str {
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let told = conditions.iter().find(|c| c["type"] == "PodScheduled");
    told.and_then(|c| c["message"].as_str()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_one_node_holds_a_second_pod_in_container_creating_until_the_first_is_gone() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    claim(&bench, "data", "ReadWriteOnce", "ebs.csi.aws.com", None).await;
    assert!(is_ready(&pod(&bench, "first", "data", "a").await));
    let second = pod(&bench, "second", "data", "b").await;
    // The scheduler has nothing against it; the attachment does.
    assert_eq!(second["spec"]["nodeName"], "b");
    let waiting = &second["status"]["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(waiting["reason"], "ContainerCreating");
    assert!(!is_ready(&second));
    bench.evict("default", "first").await;
    bench.sleep(30.0).await;
    assert!(is_ready(&bench.get(&format!("{PODS}/second")).await));
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_many_nodes_is_used_on_two_at_once() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    claim(&bench, "shared", "ReadWriteMany", "efs.csi.aws.com", None).await;
    assert!(is_ready(&pod(&bench, "first", "shared", "a").await));
    assert!(is_ready(&pod(&bench, "second", "shared", "b").await));
    let attachments = "/apis/storage.k8s.io/v1/volumeattachments";
    let list = bench.get(attachments).await["items"].clone();
    assert!(list.as_array().unwrap().is_empty(), "EFS attaches nothing");
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_one_pod_is_refused_to_a_second_by_the_scheduler() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    claim(&bench, "data", "ReadWriteOncePod", "ebs.csi.aws.com", None).await;
    assert!(is_ready(&pod(&bench, "first", "data", "").await));
    let second = pod(&bench, "second", "data", "").await;
    let why = "2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    assert!(message(&second).contains(why), "{}", message(&second));
}

#[tokio::test(start_paused = true)]
async fn a_node_takes_as_many_volumes_as_its_csi_node_says() {
    let bench = Bench::with_nodes(&["a"]).await;
    bench
        .make(
            "/apis/storage.k8s.io/v1/csinodes",
            json!({"metadata": {"name": "a"}, "spec": {"drivers": [
                {"name": "ebs.csi.aws.com", "nodeID": "i-a", "allocatable": {"count": 2}},
            ]}}),
        )
        .await;
    for name in ["one", "two", "three"] {
        claim(&bench, name, "ReadWriteOnce", "ebs.csi.aws.com", None).await;
    }
    assert!(is_ready(&pod(&bench, "p1", "one", "").await));
    assert!(is_ready(&pod(&bench, "p2", "two", "").await));
    // A volume that is there already counts once.
    assert!(is_ready(&pod(&bench, "p2b", "two", "").await));
    let third = pod(&bench, "p3", "three", "").await;
    let why = "1 node(s) exceed max volume count";
    assert!(message(&third).contains(why), "{}", message(&third));
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_reached_by_any_key_of_its_affinity_and_by_its_zone_label() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    let zone = Some("us-east-1b");
    claim(&bench, "zonal", "ReadWriteOnce", "ebs.csi.aws.com", zone).await;
    let there = pod(&bench, "there", "zonal", "").await;
    assert_eq!(there["spec"]["nodeName"], "b");
    let elsewhere = pod(&bench, "elsewhere", "zonal", "a").await;
    let why = "1 node(s) had volume node affinity conflict";
    assert!(message(&elsewhere).contains(why), "{}", message(&elsewhere));
    claim(&bench, "labelled", "ReadWriteOnce", "ebs.csi.aws.com", None).await;
    let labels = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "us-east-1a"}}});
    bench
        .patch("/api/v1/persistentvolumes/pv-labelled", MERGE, labels)
        .await;
    let labelled = pod(&bench, "labelled", "labelled", "b").await;
    let why = "1 node(s) had no available volume zone";
    assert!(message(&labelled).contains(why), "{}", message(&labelled));
}

#[tokio::test(start_paused = true)]
async fn a_claim_on_nodes_own_disks_takes_a_volume_that_is_there() {
    let bench = Bench::with_nodes(&["a", "b"]).await;
    bench
        .make(
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({"metadata": {"name": "local"}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}),
        )
        .await;
    bench
        .make(
            "/api/v1/namespaces/default/persistentvolumeclaims",
            json!({
                "metadata": {"name": "disk"},
                "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}},
            }),
        )
        .await;
    let waits = pod(&bench, "p", "disk", "").await;
    let why = "2 node(s) didn't find available persistent volumes to bind";
    assert!(message(&waits).contains(why), "{}", message(&waits));
    bench
        .make(
            "/api/v1/persistentvolumes",
            json!({
                "metadata": {"name": "disk-b"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "5Gi"}, "storageClassName": "local",
                    "local": {"path": "/mnt/disk"},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]},
                    ]}]}},
                },
            }),
        )
        .await;
    bench.sleep(20.0).await;
    let placed = bench.get(&format!("{PODS}/p")).await;
    assert_eq!(
        (&placed["spec"]["nodeName"], is_ready(&placed)),
        (&json!("b"), true)
    );
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims/disk";
    assert_eq!(bench.get(claims).await["spec"]["volumeName"], "disk-b");
}
