//! The object of a node that joins.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::SimCluster;
use super::control::nodes::HEALTHY_CONDITIONS;
use super::discovered_labels::discovered_labels;
use super::json::as_object_mut;
use super::kinds::{CSI_NODES, NODES};
use super::store::ObjectName;
use super::windows_nodes::{find_windows_host, make_windows_node};

/// A node about to join.
#[derive(Clone, Debug, Default)]
pub struct JoiningNode {
    pub name: String,
    /// `aws:///us-east-1a/i-0123`.
    pub provider_id: String,
    pub zone: String,
    pub zone_id: String,
    pub region: String,
    pub instance_type: String,
    pub labels: BTreeMap<String, String>,
    /// Key, value and effect as Kubernetes spells it (`NoSchedule`).
    pub taints: Vec<(String, String, String)>,
    /// `v1.29.3-eks-adc7111`.
    pub kubelet_version: String,
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub max_pods: i64,
    /// In bytes.
    pub ephemeral_storage: i64,
    /// Answers of the instance metadata service do not reach pods.
    pub short_hop: bool,
    /// Its image has no drivers for the devices of its type.
    pub driverless: bool,
    /// Taints that somebody takes off once the node's agents run: key and effect.
    pub startup_taints: Vec<(String, String)>,
    pub internal_ip: String,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// As the kubelet tells it; a node whose words are those of a Windows server is one.
    pub os_image: String,
}

pub(super) fn build_node_object(cluster: &SimCluster, birth: &JoiningNode) -> Value {
    let stamp = cluster.timestamp_text();
    // The cloud's own labels are written last: nobody's node group can set another zone or architecture.
    let mut labels = discovered_labels(cluster, &birth.instance_type);
    labels.extend(birth.labels.clone());
    for (key, value) in [
        ("beta.kubernetes.io/arch", &birth.architecture),
        ("beta.kubernetes.io/instance-type", &birth.instance_type),
        ("beta.kubernetes.io/os", &"linux".to_owned()),
        ("failure-domain.beta.kubernetes.io/region", &birth.region),
        ("failure-domain.beta.kubernetes.io/zone", &birth.zone),
        ("kubernetes.io/arch", &birth.architecture),
        ("kubernetes.io/hostname", &birth.name),
        ("kubernetes.io/os", &"linux".to_owned()),
        ("node.kubernetes.io/instance-type", &birth.instance_type),
        ("topology.ebs.csi.aws.com/zone", &birth.zone),
        ("topology.k8s.aws/zone-id", &birth.zone_id),
        ("topology.kubernetes.io/region", &birth.region),
        ("topology.kubernetes.io/zone", &birth.zone),
    ] {
        labels.insert(key.to_owned(), value.clone());
    }
    let mut taints: Vec<Value> = birth
        .taints
        .iter()
        .map(|(key, value, effect)| json!({"key": key, "value": value, "effect": effect}))
        .collect();
    // A node joins with this taint and is not Ready; the taint goes when the CNI's pod serves.
    taints.push(json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}));
    let mut conditions: Vec<Value> = HEALTHY_CONDITIONS
        .iter()
        .map(|(kind, reason, message)| {
            json!({
                "type": kind, "status": "False", "reason": reason, "message": message,
                "lastHeartbeatTime": stamp, "lastTransitionTime": stamp,
            })
        })
        .collect();
    conditions.push(json!({
        "type": "Ready", "status": "False", "reason": "KubeletNotReady",
        "message": "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
                    message:Network plugin returns error: cni plugin not initialized",
        "lastHeartbeatTime": stamp, "lastTransitionTime": stamp,
    }));
    let memory = format!("{}Ki", birth.memory_bytes / 1024);
    let computed = json!({
        "cpu": format!("{}m", birth.cpu_millis), "memory": memory, "pods": birth.max_pods.to_string(),
        "ephemeral-storage": birth.ephemeral_storage.to_string(), "hugepages-1Gi": "0", "hugepages-2Mi": "0",
    });
    // The capacity is taken from a node of the same instance type where there is one, because a computed one is only
    // near the truth (EKS-NG-40).
    let room = capacity_like_sibling(cluster, &birth.instance_type, computed);
    let instance = birth.provider_id.rsplit('/').next().unwrap_or_default();
    let mut node = json!({
        "metadata": {
            "name": birth.name, "labels": labels,
            "annotations": {
                "alpha.kubernetes.io/provided-node-ip": birth.internal_ip,
                "node.alpha.kubernetes.io/ttl": "0",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
        },
        "spec": {"providerID": birth.provider_id, "taints": taints},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": birth.internal_ip},
                {"type": "InternalDNS", "address": birth.name},
                {"type": "Hostname", "address": birth.name},
            ],
            "allocatable": room, "capacity": room, "conditions": conditions,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            // The identifiers are the instance's, so that two nodes never share one.
            "nodeInfo": {
                "architecture": birth.architecture, "bootID": instance, "machineID": instance, "systemUUID": instance,
                "containerRuntimeVersion": "containerd://1.7.27", "kernelVersion": "6.1.134-152.225.amzn2023.x86_64",
                "kubeProxyVersion": birth.kubelet_version, "kubeletVersion": birth.kubelet_version,
                "operatingSystem": "linux", "osImage": birth.os_image,
            },
        },
    });
    if let Some(host) = find_windows_host(&birth.os_image) {
        make_windows_node(&mut node, host);
    }
    node
}

/// What a node offers at first: what another of its type has, as far as the kubelet itself measures it, else what was
/// computed. Devices are told by their plugins later.
fn capacity_like_sibling(cluster: &SimCluster, instance_type: &str, computed: Value) -> Value {
    let nodes = cluster.store.objects_of(NODES, "").map(|(_, n)| n);
    let mut like = nodes.filter(|n| instance_type_of(n) == instance_type);
    let Some(like) = like.next() else {
        return computed;
    };
    let mut room = computed;
    for (name, amount) in as_object_mut(&mut room) {
        if let Some(known) = like["status"]["allocatable"].get(name.as_str()) {
            *amount = known.clone();
        }
    }
    room
}

fn instance_type_of(node: &Value) -> &str {
    super::json::find_label(node, "node.kubernetes.io/instance-type").unwrap_or_default()
}

/// How many volumes a node takes, as its drivers tell: as many as another of its type. None where no node of it is known.
pub(super) fn csi_node_of_sibling(cluster: &SimCluster, birth: &JoiningNode) -> Option<Value> {
    let nodes = cluster.store.objects_of(NODES, "").map(|(_, n)| n);
    let mut like = nodes.filter(|n| instance_type_of(n) == birth.instance_type);
    let volumes = like.find_map(|n| {
        let name = super::json::text_at(n, "metadata.name");
        cluster
            .store
            .find_object(CSI_NODES, &ObjectName::new("", name))
    })?;
    Some(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
        "metadata": {"name": birth.name}, "spec": volumes["spec"],
    }))
}
