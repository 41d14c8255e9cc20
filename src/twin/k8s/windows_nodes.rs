//! Nodes of Windows: their addresses for pods, which containers they can run, and what the VPC resource controller does for
//! them (WIN-1 to WIN-6).
//!
//! # Divergence
//! - The version of Windows that an image is made for is known by its tag (`ltsc2022`, `1809`); one without such a tag is
//!   taken to be of the host's. Images of Linux are not told from those of Windows.
//! - HostProcess pods are not known; pods with the host's network are taken to be such.

use serde_json::{Value, json};

use super::cluster::SimCluster;
use super::json::{as_object_mut, flag_at, list_at, list_at_mut, slot_at, text_at};
use super::kinds::{CONFIG_MAPS, NODES};
use super::store::{ObjectKey, ObjectName};
use super::typed_views::{NodeView, PodView};

/// The resource of which each pod takes one.
const ADDRESS_RESOURCE: &str = "vpc.amazonaws.com/PrivateIPv4Address";
/// The label with the host's build.
pub const BUILD_LABEL: &str = "node.kubernetes.io/windows-build";

/// The servers, and the tags of images that are made for them (WIN-3).
const SERVERS: &[(WindowsHost, &[&str])] = &[
    (
        WindowsHost {
            os_image: "Windows Server 2019 Datacenter",
            build: "10.0.17763",
        },
        &["ltsc2019", "1809"],
    ),
    (
        WindowsHost {
            os_image: "Windows Server 2022 Datacenter",
            build: "10.0.20348",
        },
        &["ltsc2022", "20h2"],
    ),
    (
        WindowsHost {
            os_image: "Windows Server 2025 Datacenter",
            build: "10.0.26100",
        },
        &["ltsc2025"],
    ),
];

/// A server of Windows: how its kubelet calls it, and its build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowsHost {
    os_image: &'static str,
    build: &'static str,
}

/// The server whose kubelet tells these words; None for any other system.
pub fn find_windows_host(os_image: &str) -> Option<&'static WindowsHost> {
    let mut known = SERVERS.iter().map(|(host, _)| host);
    known.find(|host| host.os_image == os_image)
}

/// Whether the node is of Windows.
pub fn is_windows(node: &NodeView) -> bool {
    node.label_value("kubernetes.io/os") == "windows"
}

/// Gives a node that joins what is Windows about it.
pub fn make_windows_node(node: &mut Value, host: &WindowsHost) {
    let labels = as_object_mut(slot_at(node, "metadata.labels"));
    for (key, value) in [
        ("beta.kubernetes.io/os", "windows"),
        ("kubernetes.io/os", "windows"),
        (BUILD_LABEL, host.build),
    ] {
        labels.insert(key.to_owned(), value.into());
    }
    let info = as_object_mut(slot_at(node, "status.nodeInfo"));
    for (field, value) in [
        ("operatingSystem", "windows".to_owned()),
        ("osImage", host.os_image.to_owned()),
        ("kernelVersion", format!("{}.2849", host.build)),
    ] {
        info.insert(field.to_owned(), value.into());
    }
}

/// Whether the resource controller gives addresses to Windows pods (WIN-4).
fn has_address_management(cluster: &SimCluster) -> bool {
    let name = ObjectName::new("kube-system", "amazon-vpc-cni");
    let map = cluster.store.find_object(CONFIG_MAPS, &name);
    map.is_some_and(|m| m["data"]["enable-windows-ipam"] == "true")
}

/// The controller's webhook: a new pod that selects Windows takes an address (WIN-4).
pub fn inject_address(cluster: &SimCluster, pod: &mut Value) {
    let selector = &pod["spec"]["nodeSelector"];
    let keys = ["kubernetes.io/os", "beta.kubernetes.io/os"];
    let wanted = keys.iter().any(|key| selector[*key] == "windows");
    if !wanted || flag_at(pod, "spec.hostNetwork") || !has_address_management(cluster) {
        return;
    }
    if let Some(first) = list_at_mut(pod, "spec.containers").first_mut() {
        for kind in ["limits", "requests"] {
            let amounts = as_object_mut(slot_at(first, &format!("resources.{kind}")));
            amounts.insert(ADDRESS_RESOURCE.to_owned(), "1".into());
        }
    }
}

/// The controller tells how many addresses each Windows node has; none without it (WIN-4).
pub fn show_addresses(cluster: &mut SimCluster) {
    let managed = has_address_management(cluster);
    let nodes = cluster.store.index.nodes.values();
    let nodes: Vec<String> = nodes
        .filter(|n| is_windows(n))
        .map(|n| n.name.clone())
        .collect();
    for node in nodes {
        let known = cluster.windows_addresses.get(&node).copied();
        let addresses = known.unwrap_or(DEFAULT_ADDRESSES);
        cluster.change_object(&ObjectKey::new(NODES, "", node), |n| {
            for place in ["status.allocatable", "status.capacity"] {
                let amounts = as_object_mut(slot_at(n, place));
                match managed {
                    true => amounts.insert(ADDRESS_RESOURCE.into(), addresses.to_string().into()),
                    false => amounts.remove(ADDRESS_RESOURCE),
                };
            }
        });
    }
}

/// Of a node whose instance type is not known: those of an m5.large.
const DEFAULT_ADDRESSES: i64 = 9;

/// Why no sandbox is made for a pod on a Windows node, in the CNI's words: nobody gave it an address (WIN-5).
pub fn sandbox_failure(cluster: &SimCluster, pod: &PodView) -> Option<String> {
    let node = cluster.store.index.nodes.get(&pod.node)?;
    let has_address = pod.others.contains_key(ADDRESS_RESOURCE);
    if !is_windows(node) || pod.host_network || has_address {
        return None;
    }
    Some(format!(
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \"{}\": plugin type=\"vpc-bridge\" name=\"vpc\" failed (add): failed to parse Kubernetes args: pod does not have label {ADDRESS_RESOURCE}",
        pod.uid.replace('-', "")
    ))
}

/// Why a container of the pod does not start on its Windows node: its image is made for another build (WIN-3).
pub fn start_failure(cluster: &SimCluster, object: &Value) -> Option<String> {
    let node = text_at(object, "spec.nodeName");
    let node = cluster.store.index.nodes.get(node)?;
    if !is_windows(node) {
        return None;
    }
    let host = build_number(node.label_value(BUILD_LABEL))?;
    let mut containers = list_at(object, "spec.containers").iter();
    let unfit = containers.find(|c| {
        let made_for = build_of_image(text_at(c, "image")).and_then(build_number);
        // From Server 2022 on a newer host runs older containers, down to that of 2022.
        made_for.is_some_and(|made| made != host && !(made >= 20348 && made < host))
    })?;
    Some(format!(
        "failed to create containerd task: failed to create shim task: hcs::CreateComputeSystem {}: The container operating system does not match the host operating system.: unknown",
        text_at(unfit, "name")
    ))
}

fn build_number(build: &str) -> Option<u32> {
    build.rsplit('.').next()?.parse().ok()
}

/// The build that an image is made for, by its tag.
fn build_of_image(image: &str) -> Option<&'static str> {
    let tag = image.rsplit_once(':')?.1.to_lowercase();
    let of = |(host, tags): &(WindowsHost, &[&str])| {
        tags.iter().any(|t| tag.contains(t)).then_some(host.build)
    };
    SERVERS.iter().find_map(of)
}

/// The state of a container that did not start.
pub fn failed_start_state(message: &str) -> Value {
    json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": message}})
}
