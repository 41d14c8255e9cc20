//! More nodes: copies of those that are there, one zone after the other.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::model::snapshot::Snapshot;

/// A hexadecimal text made of `of`; the same text gives the same one.
pub fn derive_hash(of: &str, digits: usize) -> String {
    hex::encode(Sha256::digest(of))[..digits.min(64)].to_owned()
}

/// A UUID made of `of`.
pub fn derive_uid(of: &str) -> String {
    let h = derive_hash(of, 32);
    format!(
        "{}-{}-4{}-8{}-{}",
        &h[..8],
        &h[8..12],
        &h[13..16],
        &h[17..20],
        &h[20..]
    )
}

/// The objects of a list.
pub fn list_mut<'s>(snapshot: &'s mut Snapshot, path: &str) -> &'s mut Vec<Value> {
    snapshot.kubernetes.entry(path.to_owned()).or_default()
}

/// The text at a JSON pointer.
pub fn text_at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Grows the first node group to `nodes` nodes, each with the pods of every daemon set, in the cloud and in the cluster.
pub fn grow_to(snapshot: &mut Snapshot, nodes: usize) {
    let originals: Vec<Value> = list_mut(snapshot, "/api/v1/nodes").clone();
    // The nodes take turns as models, so that the zones stay balanced.
    for number in originals.len()..nodes {
        let original = &originals[number % originals.len()];
        add_node_copy(snapshot, original, number);
    }
    let size = i32::try_from(nodes).unwrap_or(i32::MAX);
    let inventory = &mut snapshot.inventory;
    // The first group takes all nodes, and its sizes leave room to grow.
    for group in inventory.nodegroups.iter_mut().take(1) {
        (group.scaling.min, group.scaling.desired, group.scaling.max) =
            (size, size, size.saturating_mul(2));
    }
    for asg in inventory.asgs.values_mut().take(1) {
        (asg.min, asg.desired, asg.max) = (size, size, size.saturating_mul(2));
    }
    // A DaemonSet has a pod on each node, which the copies bring with them.
    count_daemons(snapshot, nodes);
}

/// Says in each DaemonSet's status that it has a pod on each of so many nodes.
pub fn count_daemons(snapshot: &mut Snapshot, nodes: usize) {
    for set in list_mut(snapshot, "/apis/apps/v1/daemonsets") {
        for member in [
            "currentNumberScheduled",
            "desiredNumberScheduled",
            "numberAvailable",
            "numberReady",
            "updatedNumberScheduled",
        ] {
            set["status"][member] = json!(nodes);
        }
    }
}

/// A copy of a node, and the instance that it was copied from.
pub struct NodeCopy {
    pub name: String,
    pub address: String,
    pub instance: String,
    pub zone: String,
    model_instance: String,
}

/// Adds a copy of a node that is in the same group and target groups.
fn add_node_copy(snapshot: &mut Snapshot, original: &Value, number: usize) {
    let copy = copy_node(snapshot, original, number);
    let inventory = &mut snapshot.inventory;
    for asg in inventory.asgs.values_mut() {
        let mut instances = asg.instances.iter();
        if let Some(mut member) = instances.find(|i| i.id == copy.model_instance).cloned() {
            member.id.clone_from(&copy.instance);
            asg.instances.push(member);
        }
    }
    for targets in inventory.target_health.values_mut() {
        if let Some(mut target) = targets
            .iter()
            .find(|t| t.id == copy.model_instance)
            .cloned()
        {
            target.id.clone_from(&copy.instance);
            targets.push(target);
        }
    }
}

/// Copies a node with its instance and its daemons' pods, in no group yet.
pub fn copy_node(snapshot: &mut Snapshot, original: &Value, number: usize) -> NodeCopy {
    let old_instance = text_at(original, "/spec/providerID")
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let old_name = text_at(original, "/metadata/name").to_owned();
    let zone = text_at(original, "/metadata/labels/topology.kubernetes.io~1zone").to_owned();
    // The address decides the name, and the name decides the instance and the UID, so the same number gives the same
    // node.
    let address = next_address(text_at(original, "/status/addresses/0/address"), number);
    let name = format!("ip-{}.ec2.internal", address.replace('.', "-"));
    let instance = format!("i-{}", derive_hash(&name, 17));
    let mut node = original.clone();
    node["metadata"]["name"] = json!(name);
    node["metadata"]["uid"] = json!(derive_uid(&name));
    node["metadata"]["labels"]["kubernetes.io/hostname"] = json!(name);
    node["metadata"]["annotations"]["alpha.kubernetes.io/provided-node-ip"] = json!(address);
    node["spec"]["providerID"] = json!(format!("aws:///{zone}/{instance}"));
    node["status"]["addresses"] = json!([
        {"address": address, "type": "InternalIP"}, {"address": name, "type": "InternalDNS"}, {"address": name, "type": "Hostname"},
    ]);
    list_mut(snapshot, "/api/v1/nodes").push(node);

    // The instance follows the node.
    let inventory = &mut snapshot.inventory;
    if let Some(mut copy) = inventory
        .instances
        .iter()
        .find(|i| i.id == old_instance)
        .cloned()
    {
        copy.id.clone_from(&instance);
        copy.private_dns = Some(name.clone());
        inventory.instances.push(copy);
    }
    // The pods of DaemonSets are copied too; the others stay where they are.
    let pods = list_mut(snapshot, "/api/v1/pods");
    let daemons: Vec<Value> = pods
        .iter()
        .filter(|p| {
            text_at(p, "/spec/nodeName") == old_name
                && text_at(p, "/metadata/ownerReferences/0/kind") == "DaemonSet"
        })
        .cloned()
        .collect();
    for pod in daemons {
        pods.push(copy_daemon_pod(pod, &name, &address));
    }
    NodeCopy {
        name,
        address,
        instance,
        zone,
        model_instance: old_instance,
    }
}

/// A copy of a daemon's pod on another node.
fn copy_daemon_pod(mut pod: Value, node: &str, address: &str) -> Value {
    let name = format!(
        "{}-{}",
        text_at(&pod, "/metadata/ownerReferences/0/name"),
        derive_hash(&format!("{}{node}", text_at(&pod, "/metadata/name")), 5)
    );
    pod["metadata"]["uid"] = json!(derive_uid(&format!("{name}{node}")));
    pod["metadata"]["name"] = json!(name);
    pod["spec"]["nodeName"] = json!(node);
    // A daemon's pod names its node in its affinity, which has to follow.
    if let Some(values) = pod.pointer_mut("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values") {
        *values = json!([node]);
    }
    pod["status"]["hostIP"] = json!(address);
    pod["status"]["hostIPs"] = json!([{"ip": address}]);
    if pod["spec"]["hostNetwork"] == json!(true) {
        pod["status"]["podIP"] = json!(address);
        pod["status"]["podIPs"] = json!([{"ip": address}]);
    }
    pod
}

/// The address `number` after `first`, which has the lowest of its subnet.
fn next_address(first: &str, number: usize) -> String {
    let base = first
        .parse::<std::net::Ipv4Addr>()
        .map_or(0x0a00_0004, u32::from);
    std::net::Ipv4Addr::from(base.wrapping_add(u32::try_from(number).unwrap_or(1))).to_string()
}
