//! The node that Fargate makes for a pod.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::fargate_state::COMPUTE_TYPE;
use super::super::joining_node::{JoiningNode, build_node_object};
use super::super::json::{list_at_mut, set_at, set_condition, slot_at, text_at};
use super::super::typed_views::PodView;
use crate::twin::aws::FargateHost;

/// What a node offers at least, whatever its pod asks for: vCPUs and bytes.
const LEAST_CPU: i64 = 2;
const LEAST_MEMORY: i64 = 4 << 30;

/// The node of a pod, ready from the start (FARG-5, FARG-7).
pub fn build_node(
    cluster: &SimCluster,
    object: &Value,
    pod: &PodView,
    host: &FargateHost,
) -> Value {
    let name = host.node_name();
    let address = host.address.to_string();
    // The machine has an id of Fargate's, which follows from the pod's.
    let id = text_at(object, "metadata.uid").replace('-', "");
    let birth = JoiningNode {
        name: name.clone(),
        provider_id: format!(
            "aws:///{}/{}-{}/{name}",
            host.zone,
            &id[..10.min(id.len())],
            id
        ),
        zone: host.zone.clone(),
        zone_id: host.zone_id.clone(),
        region: host.region.clone(),
        labels: BTreeMap::from([(COMPUTE_TYPE.to_owned(), "fargate".to_owned())]),
        taints: vec![(
            COMPUTE_TYPE.to_owned(),
            "fargate".to_owned(),
            "NoSchedule".to_owned(),
        )],
        kubelet_version: host.kubelet_version.clone(),
        internal_ip: address,
        architecture: "amd64".to_owned(),
        os_image: "Amazon Linux 2".to_owned(),
        ..JoiningNode::default()
    };
    let mut node = build_node_object(cluster, &birth);
    // It is no instance, so it has no type and no volumes of EBS; the network is there before it registers.
    if let Some(labels) = slot_at(&mut node, "metadata.labels").as_object_mut() {
        labels.retain(|key, value| {
            value != ""
                && key != "topology.ebs.csi.aws.com/zone"
                && key != "topology.k8s.aws/zone-id"
        });
    }
    list_at_mut(&mut node, "spec.taints").retain(|t| text_at(t, "key") == COMPUTE_TYPE);
    let stamp = cluster.timestamp_text();
    set_condition(
        &mut node,
        json!({
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status",
            "lastHeartbeatTime": stamp, "lastTransitionTime": stamp,
        }),
    );
    let room = json!({
        "cpu": LEAST_CPU.max((pod.cpu + 999) / 1000).to_string(),
        "memory": format!("{}Ki", LEAST_MEMORY.max(pod.memory + (1 << 30)) / 1024),
        "ephemeral-storage": "30787492Ki", "hugepages-1Gi": "0", "hugepages-2Mi": "0", "pods": "1",
    });
    set_at(&mut node, "status.allocatable", room.clone());
    set_at(&mut node, "status.capacity", room);
    node
}
