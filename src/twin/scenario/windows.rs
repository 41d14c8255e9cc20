//! A managed group of Windows Server 2022 beside the captured one of Linux.

use serde_json::{Value, json};

use super::grow::{copy_node, derive_uid, list_mut, text_at};
use super::running::{PodOwner, PodPlace, RunningWorkload, add_workload};
use super::{groups, grow, variants, versions};
use crate::model::Minor;
use crate::model::snapshot::Snapshot;
use crate::twin::aws;

const CLUSTER: &str = "windows";
const MINOR: u16 = 28;
const KIND: &str = "WINDOWS_CORE_2022_x86_64";
const BUILD: &str = "10.0.20348";
/// Of an m5.large: one interface's, less its own.
const ADDRESSES: &str = "9";

/// The system and the shop on Linux, an old application on two nodes of Windows.
pub fn windows_group() -> Snapshot {
    let mut s = variants::rename_cluster(CLUSTER);
    versions::move_to_minor(&mut s, MINOR);
    keep_workloads_on_linux(&mut s);
    let linux = list_mut(&mut s, "/api/v1/nodes").len();
    add_windows_group(&mut s, linux);
    grow::count_daemons(&mut s, linux);
    variants::rename_instances(s, CLUSTER)
}

/// Adds `iis-blue` with two nodes and the application on them; the cluster has so many `nodes` of instances.
pub(super) fn add_windows_group(s: &mut Snapshot, nodes: usize) {
    let originals = list_mut(s, "/api/v1/nodes").clone();
    let copies: Vec<_> = (0..2)
        .map(|n| copy_node(s, &originals[n], nodes + n))
        .collect();
    groups::add_group(s, "iis", false, &copies);
    let names: Vec<String> = copies.iter().map(|c| c.name.clone()).collect();
    set_windows_group(s);
    for node in list_mut(s, "/api/v1/nodes") {
        if names.contains(&text_at(node, "/metadata/name").to_owned()) {
            set_windows_node(node);
        }
    }
    // No daemon of Linux is on the new nodes.
    let on_windows = |pod: &Value| names.iter().any(|n| n == text_at(pod, "/spec/nodeName"));
    list_mut(s, "/api/v1/pods").retain(|p| !on_windows(p));
    enable_address_management(s);
    let app = RunningWorkload {
        namespace: "legacy",
        name: "intranet",
        owner: PodOwner::Deployment,
        budget: Some(("minAvailable", 1)),
        served: true,
        spec: json!({"nodeSelector": {"kubernetes.io/os": "windows"}}),
        requests: ("500m", "512Mi"),
        tag: "4.8-windowsservercore-ltsc2022",
    };
    let places: Vec<PodPlace> = copies
        .iter()
        .enumerate()
        .map(|(n, copy)| PodPlace {
            node: copy.name.clone(),
            node_ip: copy.address.clone(),
            pod_ip: format!("100.64.9.{}", n + 1),
            zone: copy.zone.clone(),
        })
        .collect();
    // The resource controller gave each pod its address when it was made.
    add_workload(s, &app, &places, |pod| {
        let resources = &mut pod["spec"]["containers"][0]["resources"];
        for kind in ["limits", "requests"] {
            resources[kind]["vpc.amazonaws.com/PrivateIPv4Address"] = json!("1");
        }
    });
}

/// Whoever runs Windows beside Linux selects the operating system for every workload, as EKS does for its add-ons.
pub(super) fn keep_workloads_on_linux(s: &mut Snapshot) {
    for path in [
        "/apis/apps/v1/daemonsets",
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/replicasets",
        "/apis/apps/v1/statefulsets",
    ] {
        for set in list_mut(s, path) {
            set["spec"]["template"]["spec"]["nodeSelector"]["kubernetes.io/os"] = json!("linux");
        }
    }
    // The pods that run were made of these templates.
    for pod in list_mut(s, "/api/v1/pods") {
        pod["spec"]["nodeSelector"]["kubernetes.io/os"] = json!("linux");
    }
}

fn set_windows_group(s: &mut Snapshot) {
    let image = aws::published_image_id(Minor::new(MINOR), KIND);
    let i = &mut s.inventory;
    for group in i.nodegroups.iter_mut().filter(|g| g.name == "iis-blue") {
        group.ami_type = Some(KIND.to_owned());
        group.release_version = Some(format!("1.{MINOR}-2025.06.20"));
        group.instance_types = vec!["m5.large".to_owned()];
        group.disk_size = Some(50);
    }
    for instance in &mut i.instances {
        let group = instance.tags.get("eks:nodegroup-name");
        if group.is_some_and(|g| g == "iis-blue") {
            instance.image = Some(image.clone());
            instance.instance_type = "m5.large".to_owned();
        }
    }
}

fn set_windows_node(node: &mut Value) {
    let image = aws::published_image_id(Minor::new(MINOR), KIND);
    let labels = &mut node["metadata"]["labels"];
    for (key, value) in [
        ("beta.kubernetes.io/os", "windows"),
        ("kubernetes.io/os", "windows"),
        ("node.kubernetes.io/windows-build", BUILD),
        ("beta.kubernetes.io/instance-type", "m5.large"),
        ("node.kubernetes.io/instance-type", "m5.large"),
        ("eks.amazonaws.com/nodegroup-image", &image),
    ] {
        labels[key] = json!(value);
    }
    if let Some(labels) = labels.as_object_mut() {
        labels.remove("topology.ebs.csi.aws.com/zone");
    }
    let info = &mut node["status"]["nodeInfo"];
    info["operatingSystem"] = json!("windows");
    info["osImage"] = json!("Windows Server 2022 Datacenter");
    info["kernelVersion"] = json!(format!("{BUILD}.2849"));
    for place in ["allocatable", "capacity"] {
        node["status"][place]["pods"] = json!("110");
        node["status"][place]["vpc.amazonaws.com/PrivateIPv4Address"] = json!(ADDRESSES);
    }
}

/// The ConfigMap that lets the resource controller give addresses to Windows pods.
fn enable_address_management(s: &mut Snapshot) {
    list_mut(s, "/api/v1/configmaps").push(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": "amazon-vpc-cni", "namespace": "kube-system", "uid": derive_uid("amazon-vpc-cni"), "resourceVersion": "310",
            "creationTimestamp": "2026-11-21T08:15:00Z",
        },
        "data": {"enable-windows-ipam": "true"},
    }));
}
