//! Nodes of Windows: what runs there and what does not.

use super::*;
use crate::twin::k8s::cloud_hooks;

const PODS: &str = "/api/v1/namespaces/legacy/pods";

fn pod(name: &str, image: &str, on_windows: bool) -> Value {
    let selector = match on_windows {
        true => json!({"kubernetes.io/os": "windows"}),
        false => json!({"eks.amazonaws.com/nodegroup": "iis-blue"}),
    };
    json!({
        "metadata": {"name": name},
        "spec": {"nodeSelector": selector, "containers": [{"name": "main", "image": image}]},
    })
}

async fn message_of(bench: &Bench, pod: &str) -> String {
    let events = bench.get("/api/v1/namespaces/legacy/events").await;
    let events = events["items"].as_array().unwrap().clone();
    let mut about = events.iter().filter(|e| e["involvedObject"]["name"] == pod);
    let message = about.next().map(|e| e["message"].as_str().unwrap());
    message.unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_windows_pod_takes_an_address_and_runs_on_windows() {
    let bench = Bench::of_scenario("windows");
    let image = "mcr.microsoft.com/windows/servercore:ltsc2022";
    let made = bench.make(PODS, pod("fits", image, true)).await;
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(
        resources["limits"]["vpc.amazonaws.com/PrivateIPv4Address"],
        "1"
    );
    bench.sleep(120.0).await;
    let pod = bench.get(&format!("{PODS}/fits")).await;
    assert!(is_ready(&pod), "{pod}");
    let node = pod["spec"]["nodeName"].as_str().unwrap();
    let node = bench.get(&format!("/api/v1/nodes/{node}")).await;
    assert_eq!(
        node["metadata"]["labels"]["node.kubernetes.io/windows-build"],
        "10.0.20348"
    );
}

#[tokio::test(start_paused = true)]
async fn an_image_for_another_build_does_not_start() {
    let bench = Bench::of_scenario("windows");
    let image = "mcr.microsoft.com/windows/nanoserver:1809";
    bench.make(PODS, pod("old", image, true)).await;
    bench.sleep(120.0).await;
    let pod = bench.get(&format!("{PODS}/old")).await;
    assert!(!is_ready(&pod));
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["state"]["waiting"]["reason"], "CrashLoopBackOff");
    let ended = &status["lastState"]["terminated"];
    assert_eq!(ended["reason"], "StartError");
    let words = "The container operating system does not match the host operating system.";
    assert!(ended["message"].as_str().unwrap().contains(words));
    assert!(message_of(&bench, "old").await.contains(words));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_select_windows_gets_no_sandbox_there() {
    let bench = Bench::of_scenario("windows");
    let image = "mcr.microsoft.com/windows/servercore:ltsc2022";
    bench.make(PODS, pod("stray", image, false)).await;
    bench.sleep(120.0).await;
    let pod = bench.get(&format!("{PODS}/stray")).await;
    assert_eq!(pod["status"]["phase"], "Pending");
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["state"]["waiting"]["reason"], "ContainerCreating");
    let why = message_of(&bench, "stray").await;
    assert!(
        why.ends_with("pod does not have label vpc.amazonaws.com/PrivateIPv4Address"),
        "{why}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_address_management_new_windows_pods_get_no_sandbox() {
    let bench = Bench::of_scenario("windows");
    let map = "/api/v1/namespaces/kube-system/configmaps/amazon-vpc-cni";
    let off = json!({"data": {"enable-windows-ipam": "false"}});
    bench.patch(map, MERGE, off).await;
    bench.sleep(1.0).await;
    let nodes = bench
        .get("/api/v1/nodes?labelSelector=kubernetes.io%2Fos%3Dwindows")
        .await;
    let nodes = nodes["items"].as_array().unwrap().clone();
    assert_eq!(nodes.len(), 2);
    for node in &nodes {
        assert!(node["status"]["allocatable"]["vpc.amazonaws.com/PrivateIPv4Address"].is_null());
    }
    let image = "mcr.microsoft.com/windows/servercore:ltsc2022";
    bench.make(PODS, pod("waits", image, true)).await;
    bench.sleep(60.0).await;
    assert!(!message_of(&bench, "waits").await.is_empty());
    // Addresses come back with the setting; a pod that was made without one has to be made again.
    let on = json!({"data": {"enable-windows-ipam": "true"}});
    bench.patch(map, MERGE, on).await;
    bench.make(PODS, pod("later", image, true)).await;
    bench.sleep(60.0).await;
    assert!(is_ready(&bench.get(&format!("{PODS}/later")).await));
    assert!(!is_ready(&bench.get(&format!("{PODS}/waits")).await));
}

#[tokio::test(start_paused = true)]
async fn no_daemon_of_linux_runs_on_windows_and_a_new_node_is_ready_without_one() {
    let bench = Bench::of_scenario("windows");
    let birth = cloud_hooks::JoiningNode {
        name: "win-3".to_owned(),
        provider_id: "aws:///us-east-1c/i-0123456789abcdef0".to_owned(),
        zone: "us-east-1c".to_owned(),
        region: "us-east-1".to_owned(),
        instance_type: "m5.large".to_owned(),
        kubelet_version: "v1.28.15-eks-7a1b2c3".to_owned(),
        cpu_millis: 1930,
        memory_bytes: 7 << 30,
        max_pods: 110,
        internal_ip: "10.0.64.99".to_owned(),
        architecture: "amd64".to_owned(),
        os_image: "Windows Server 2022 Datacenter".to_owned(),
        ..cloud_hooks::JoiningNode::default()
    };
    bench.twin.with_world(|w| {
        cloud_hooks::set_interface_addresses(w, "win-3", 10);
        cloud_hooks::join_node(w, birth);
    });
    bench.sleep(60.0).await;
    let node = bench.get("/api/v1/nodes/win-3").await;
    assert_eq!(
        node["status"]["nodeInfo"]["osImage"],
        "Windows Server 2022 Datacenter"
    );
    assert_eq!(
        node["status"]["allocatable"]["vpc.amazonaws.com/PrivateIPv4Address"],
        "9"
    );
    let (ready, pods) = bench.twin.with_world(|w| {
        (
            cloud_hooks::is_node_ready(w, "win-3"),
            cloud_hooks::pods_on(w, "win-3"),
        )
    });
    assert!(ready && pods.is_empty());
}
