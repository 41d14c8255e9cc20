//! Nodes as green will have them: their labels, taints and room, from what is known of blue's nodes, of the plan, and of
//! instance types.

use std::collections::{BTreeMap, BTreeSet};

use super::input::{BlueGreenPair, ReadinessInput};
use crate::model::ec2::InstanceSize;
use crate::model::eks::NodegroupTaint;
use crate::model::image::{ami_type_is_arm, is_arm};
use crate::model::kube::{Node, Resources, Taint};
use crate::model::marks::NODEGROUP_LABEL;
use crate::model::node_registration::NodeRegistration;
use crate::route;
use crate::scheduling::reserved_labels;

/// Labels that kubelets and cloud controllers give every node, by what it is.
const GIVEN_LABELS: [&str; 9] = [
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "kubernetes.io/hostname",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
    "k8s.io/cloud-provider-aws",
];
/// And where a node is.
const GIVEN_PREFIXES: [&str; 2] = ["topology.", "failure-domain."];
/// Those of them that name the zone.
const ZONE_LABELS: [&str; 3] = [
    "topology.kubernetes.io/zone",
    "topology.ebs.csi.aws.com/zone",
    "failure-domain.beta.kubernetes.io/zone",
];
const CAPACITY_LABEL: &str = "eks.amazonaws.com/capacityType";

/// What images and the kubelet keep for themselves of an instance (EKS-NG-40).
const HYPERVISOR_SHARE: f64 = 0.075;
const EVICTION_MIB: i64 = 100;
const KUBELET_MIB: i64 = 255;
const KUBELET_MIB_PER_POD: i64 = 11;

/// Whether kubelets and cloud controllers give every node this label.
pub fn given_by_cluster(key: &str) -> bool {
    GIVEN_LABELS.contains(&key)
        || key == CAPACITY_LABEL
        || GIVEN_PREFIXES.iter().any(|p| key.starts_with(p))
}

/// One of green's nodes.
#[derive(Clone)]
pub struct GreenNode {
    pub node: Node,
    /// The instance type whose size could not be read, so that blue's is taken.
    pub unknown_size: Option<String>,
}

/// Every kind of node that green may have: one in each zone of each type, and of each set of labels that programs in the
/// cluster give nodes.
pub fn possible_nodes(case: &ReadinessInput<'_>, change: &BlueGreenPair<'_>) -> Vec<Node> {
    let mut kinds = Vec::new();
    for discovered in discovered_labels(case, change) {
        for zone in green_zones(case, change) {
            for instance_type in instance_types(case, change) {
                let mut node = make_node(case, change, &zone, &instance_type, "green").node;
                node.labels.extend(discovered.clone());
                kinds.push(node);
            }
        }
    }
    kinds
}

/// As many nodes as green has when it stands, spread over its zones, those first in which it must have a node; each as
/// small as the smallest of its types.
pub fn initial_nodes(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
    size: i32,
) -> Vec<GreenNode> {
    let zones = green_zones(case, change);
    let discovered = discovered_labels(case, change);
    let types = instance_types(case, change);
    // Auto Scaling may choose any type, so that only the smallest is sure to have room.
    let smallest = types.iter().min_by_key(|t| {
        let room = allocatable_room(case, change, t).map(|(room, _)| room);
        room.map_or((0, 0), |r| (r.cpu_millis, r.memory_bytes))
    });
    let Some(smallest) = smallest else {
        return Vec::new();
    };
    let of_zone = |zone: &String| make_node(case, change, zone, smallest, "green");
    let like: Vec<GreenNode> = zones.iter().map(of_zone).collect();
    let nodes = (0..usize::try_from(size).unwrap_or(0)).map(|i| {
        let mut green = like[i % like.len()].clone();
        let name = format!("{}-{i}", change.green.name);
        let hostname = "kubernetes.io/hostname".to_owned();
        green.node.labels.insert(hostname, name.clone());
        let labels = &discovered[i % discovered.len()];
        green.node.labels.extend(labels.clone());
        (green.node.name, green.node.uid) = (name.clone(), name);
        green
    });
    nodes.collect()
}

/// What green's nodes register themselves with; none where the user data was not read.
pub fn green_registration(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
) -> Option<NodeRegistration> {
    let plan_entry = case.plan.node_group(&change.blue.name);
    route::green_registration(case.inventory, change.blue, &plan_entry)
}

/// A taint as Kubernetes spells it.
pub fn to_kubernetes_taint(taint: &NodegroupTaint) -> Taint {
    let effect = match taint.effect.as_str() {
        "NO_EXECUTE" => "NoExecute",
        "PREFER_NO_SCHEDULE" => "PreferNoSchedule",
        _ => "NoSchedule",
    };
    Taint {
        key: taint.key.clone(),
        value: taint.value.clone(),
        effect: effect.to_owned(),
    }
}

/// Whether a taint of the group comes off each node once its agents run there, as a CNI's or a storage driver's does
/// (CTL-7): the group gives it, and no Ready node of blue has it.
fn is_taken_off(case: &ReadinessInput<'_>, change: &BlueGreenPair<'_>, taint: &Taint) -> bool {
    // Without a Ready node of blue it is unknown, and the taint counts.
    let mut given = change.blue.taints.iter().map(to_kubernetes_taint);
    let nodes = case.inventory.nodes_of(&change.blue.name);
    let mut ready = nodes.filter(|n| n.is_ready()).peekable();
    let has = |n: &Node| {
        let mut taints = n.taints.iter();
        taints.any(|t| t.key == taint.key && t.effect == taint.effect)
    };
    given.any(|t| t == *taint) && ready.peek().is_some() && !ready.any(has)
}

/// Zones of green's subnets, those first in which it must have a node. One that nobody knows where they are not known.
fn green_zones(case: &ReadinessInput<'_>, change: &BlueGreenPair<'_>) -> Vec<String> {
    let mut zones = change.zones.to_vec();
    for zone in route::subnet_zones(case.inventory, change.blue) {
        if !zones.contains(&zone) {
            zones.push(zone);
        }
    }
    if zones.is_empty() {
        zones.push(String::new());
    }
    zones
}

/// Instance types of green; where a launch template decides them and does not say, those of blue's nodes.
fn instance_types(case: &ReadinessInput<'_>, change: &BlueGreenPair<'_>) -> Vec<String> {
    let plan_entry = case.plan.node_group(&change.blue.name);
    let types = route::green_instance_types(case.inventory, change.blue, &plan_entry);
    if !types.is_empty() {
        return types;
    }
    let nodes = case.inventory.nodes_of(&change.blue.name);
    let of_blue: BTreeSet<String> = nodes.filter_map(type_of).map(str::to_owned).collect();
    match of_blue.is_empty() {
        true => vec![String::new()],
        false => of_blue.into_iter().collect(),
    }
}

fn type_of(node: &Node) -> Option<&str> {
    let label = node.labels.get("node.kubernetes.io/instance-type");
    label.map(String::as_str)
}

/// The sets of labels that programs in the cluster gave blue's nodes; one at least.
fn discovered_labels(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
) -> Vec<BTreeMap<String, String>> {
    let of_node = |node: &Node| -> BTreeMap<String, String> {
        let labels = node.labels.iter();
        let discovered = labels.filter(|(key, _)| reserved_labels::is_discovered_label(key));
        discovered.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let nodes = case.inventory.nodes_of(&change.blue.name);
    let sets: BTreeSet<BTreeMap<String, String>> = nodes.map(of_node).collect();
    match sets.is_empty() {
        true => vec![BTreeMap::new()],
        false => sets.into_iter().collect(),
    }
}

fn make_node(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
    zone: &str,
    instance_type: &str,
    name: &str,
) -> GreenNode {
    let (inventory, blue) = (case.inventory, &change.blue.name);
    // A blue node of the same zone is the model, as it has that zone's labels.
    let of_zone = |n: &&Node| n.zone() == Some(zone);
    let like = inventory.nodes_of(blue).find(of_zone);
    let like = like.or_else(|| inventory.nodes_of(blue).next());
    let room = allocatable_room(case, change, instance_type);
    let registered = green_registration(case, change).unwrap_or_default();
    let mut labels = node_labels(case, change, like, zone, instance_type);
    labels.insert("kubernetes.io/hostname".to_owned(), name.to_owned());
    for (key, value) in registered.labels {
        labels.entry(key).or_insert(value);
    }
    // Taints that agents take off by themselves keep no pod away for long.
    let taints = change.green.taints.iter().map(to_kubernetes_taint);
    let taints = taints.filter(|t| !is_taken_off(case, change, t));
    // A type whose size is unknown counts as large as the smallest node of blue.
    let (allocatable, other_allocatable) = room.clone().unwrap_or_else(|| {
        let smallest = inventory
            .nodes_of(blue)
            .min_by_key(|n| (n.allocatable.cpu_millis, n.allocatable.memory_bytes));
        smallest.map_or_else(Default::default, |n| {
            (n.allocatable, n.other_allocatable.clone())
        })
    });
    // Ready, open and empty: what green's nodes are when the drain begins.
    let node = Node {
        name: name.to_owned(),
        uid: name.to_owned(),
        resource_version: String::new(),
        labels,
        annotations: BTreeMap::new(),
        unschedulable: false,
        taints: taints.chain(registered.taints).collect(),
        provider_id: None,
        ready: "True".to_owned(),
        ready_since: None,
        kubelet_version: String::new(),
        os_image: String::new(),
        allocatable,
        other_allocatable,
        created: None,
        deleting: false,
        self_managed_group: None,
    };
    GreenNode {
        node,
        unknown_size: room.is_none().then(|| instance_type.to_owned()),
    }
}

fn node_labels(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
    like: Option<&Node>,
    zone: &str,
    instance_type: &str,
) -> BTreeMap<String, String> {
    // What every node gets comes from the model, then what differs on green replaces it.
    let of_like = like.into_iter().flat_map(|n| &n.labels);
    let given = of_like.filter(|(key, _)| given_by_cluster(key));
    let mut labels: BTreeMap<String, String> = given.map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut set = |key: &str, value: &str| {
        if !value.is_empty() {
            labels.insert(key.to_owned(), value.to_owned());
        }
    };
    for key in ZONE_LABELS {
        // Which of them a node has depends on what runs in the cluster.
        if key == ZONE_LABELS[0] || like.is_some_and(|n| n.labels.contains_key(key)) {
            set(key, zone);
        }
    }
    let mut subnets = case.inventory.subnets.iter();
    let subnet = subnets.find(|s| s.zone == zone);
    if let Some(id) = subnet.and_then(|s| s.zone_id.as_deref()) {
        set("topology.k8s.aws/zone-id", id);
    }
    set("node.kubernetes.io/instance-type", instance_type);
    set("beta.kubernetes.io/instance-type", instance_type);
    // Processor and operating system follow green's image, which may be another than blue's.
    if let Some(arch) = node_architecture(change, instance_type) {
        set("kubernetes.io/arch", arch);
        set("beta.kubernetes.io/arch", arch);
    }
    if let Some(ami_type) = change.green.ami_type.as_deref().filter(|t| *t != "CUSTOM") {
        let os = if ami_type.starts_with("WINDOWS") {
            "windows"
        } else {
            "linux"
        };
        set("kubernetes.io/os", os);
        set("beta.kubernetes.io/os", os);
    } else if like.is_none() {
        set("kubernetes.io/os", "linux");
    }
    let plan_entry = case.plan.node_group(&change.blue.name);
    let ami_type = change.green.ami_type.as_deref();
    let release = route::green_windows_release(case.inventory, change.blue, &plan_entry, ami_type);
    if let Some(release) = release {
        set("node.kubernetes.io/windows-build", release.build());
    }
    if let Some(capacity) = change.green.capacity_type.as_deref() {
        set(CAPACITY_LABEL, capacity);
    }
    labels.extend(change.green.labels.clone());
    labels.insert(NODEGROUP_LABEL.to_owned(), change.green.name.clone());
    labels
}

/// The processor of green's nodes: that of its image, else that of the instance type.
fn node_architecture(change: &BlueGreenPair<'_>, instance_type: &str) -> Option<&'static str> {
    let of_image = change.green.ami_type.as_deref().and_then(ami_type_is_arm);
    let of_type = || (!instance_type.is_empty()).then(|| is_arm(instance_type));
    let arm = of_image.or_else(of_type)?;
    Some(if arm { "arm64" } else { "amd64" })
}

/// What a node of an instance type has for pods: as nodes of the type have it, else as EC2 says of it.
fn allocatable_room(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
    instance_type: &str,
) -> Option<(Resources, BTreeMap<String, i64>)> {
    let smallest = |nodes: &mut dyn Iterator<Item = &Node>| {
        let of_type = nodes.filter(|n| match type_of(n) {
            Some(name) => name == instance_type,
            // Who does not say is of the type that its group has.
            None => {
                n.nodegroup_name() == Some(&change.blue.name)
                    && (instance_type.is_empty()
                        || change
                            .blue
                            .instance_types
                            .iter()
                            .any(|t| t == instance_type))
            }
        });
        let smallest =
            of_type.min_by_key(|n| (n.allocatable.cpu_millis, n.allocatable.memory_bytes));
        smallest.map(|n| (n.allocatable, n.other_allocatable.clone()))
    };
    // Real nodes first, blue's before others: what they have left for pods was not computed.
    let inventory = case.inventory;
    let blue = &mut inventory.nodes_of(&change.blue.name);
    smallest(blue)
        .or_else(|| smallest(&mut inventory.nodes.iter()))
        .or_else(|| {
            let size = inventory.limits.as_ref()?.sizes.get(instance_type)?;
            Some(room_of_size(case, change, instance_type, *size))
        })
}

fn room_of_size(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
    instance_type: &str,
    size: InstanceSize,
) -> (Resources, BTreeMap<String, i64>) {
    let pods = max_pods(case, instance_type, size.cpus);
    let seen = (size.memory_mib as f64 * (1.0 - HYPERVISOR_SHARE)) as i64;
    let kept = EVICTION_MIB + KUBELET_MIB + KUBELET_MIB_PER_POD * pods;
    // Devices and disks that blue's nodes offer beside what EC2 counts.
    let mut others = BTreeMap::new();
    for node in case.inventory.nodes_of(&change.blue.name) {
        for (resource, amount) in &node.other_allocatable {
            let least = others.entry(resource.clone()).or_insert(*amount);
            *least = (*least).min(*amount);
        }
    }
    // Devices come with the instance type, whatever blue's nodes have.
    for (resource, amount) in [
        ("nvidia.com/gpu", size.nvidia_gpus),
        ("aws.amazon.com/neuron", size.neuron_devices),
    ] {
        others.remove(resource);
        if amount > 0 {
            others.insert(resource.to_owned(), amount);
        }
    }
    let resources = Resources {
        cpu_millis: size.cpus * 1000 - kept_cpu(size.cpus),
        memory_bytes: (seen - kept).max(0) << 20,
        pods,
    };
    (resources, others)
}

/// Thousandths of a CPU that the kubelet keeps: 6 % of the first, 1 % of the second, 0.5 % of the next two, 0.25 % of the
/// others (EKS-NG-40).
fn kept_cpu(cpus: i64) -> i64 {
    let part = |from: i64, to: i64, tenths: i64| (cpus.min(to) - from).max(0) * tenths;
    (part(0, 1, 600) + part(1, 2, 100) + part(2, 4, 50) + part(4, i64::MAX, 25)) / 10
}

/// How many pods a node takes: as many as its interfaces have addresses for, and two that need none; with prefixes as many
/// as EKS advises for its CPUs.
fn max_pods(case: &ReadinessInput<'_>, instance_type: &str, cpus: i64) -> i64 {
    let most = if cpus < 30 { 110 } else { 250 };
    let cni = case.inventory.cni.as_ref();
    if cni.is_some_and(|c| c.prefix_delegation) {
        return most;
    }
    // With custom networking the first interface carries no pods.
    let first = i64::from(cni.is_some_and(|c| c.custom_networking));
    let limits = case.inventory.interface_limits.get(instance_type);
    limits.map_or(most, |l| {
        (l.interfaces - first).max(1) * (l.addresses - 1) + 2
    })
}
