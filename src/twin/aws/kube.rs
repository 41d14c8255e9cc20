//! What the cloud does to the cluster and asks of it: the only place where this half reaches into the other.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::ec2::{images, types, user_data};
use super::group_marks::{LabelTaintChange, to_kube_taint};
use super::state::{MachineImage, ManagedNodegroup};
use crate::model::Minor;
use crate::model::kube::Taint;
use crate::twin::k8s::cloud_hooks::{self, AddonWorkload, JoiningNode, NodePortHealth};
use crate::twin::world::SimWorld;

const SYSTEM_NAMESPACE: &str = "kube-system";

/// What a health check of a node port meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    Answers,
    /// Nothing is there to answer.
    NoAnswer,
    /// The node answers, but no ready pod is behind the port.
    Refuses,
}

/// A taint as the other half takes it.
fn taint_triple(taint: &Taint) -> (String, String, String) {
    (
        taint.key.clone(),
        taint.value.clone().unwrap_or_default(),
        taint.effect.clone(),
    )
}

/// The instance's kubelet starts: it registers its node, or goes on with the one it had before it was stopped.
pub fn register_node(world: &mut SimWorld, instance: &str) {
    match cloud_hooks::node_of_instance(world, instance) {
        Some(node) => cloud_hooks::revive_kubelet(world, &node),
        None => join_node(world, instance),
    }
}

/// The instance's kubelet registers its node, with the labels and taints of its node group.
pub fn join_node(world: &mut SimWorld, instance: &str) {
    let cloud = &world.cloud;
    let Some(instance) = cloud.instances.get(instance) else {
        return;
    };
    // An instance of no managed group joins as well, but without the labels and taints of a group.
    let group = instance
        .asg
        .as_ref()
        .and_then(|asg| cloud.asgs.get(asg))
        .and_then(|asg| cloud.eks.as_ref()?.nodegroups.get(asg.nodegroup.as_ref()?));
    let member = instance.asg.as_ref().and_then(|asg| cloud.asgs.get(asg));
    let launch = member
        .and_then(|asg| asg.find_member(&instance.id))
        .map(|m| &m.launch);
    let image = cloud.images.get(&instance.image);
    let arm = images::is_arm(&instance.instance_type);
    let patch = group
        .map(|g| format!("{}.0", g.version))
        .unwrap_or_default();
    let size = types::capacity_of(&instance.instance_type);
    let is_windows = image.is_some_and(|i| images::windows_year(&i.kind).is_some());
    let mut labels = BTreeMap::new();
    let mut taints = Vec::new();
    let mut taints_of_group = Vec::new();
    // EKS's own labels come after the group's, so a group cannot set another value for them.
    if let Some(group) = group {
        labels.extend(group.labels.clone());
        labels.insert("eks.amazonaws.com/nodegroup".into(), group.name.clone());
        let capacity = group
            .spec
            .get("capacityType")
            .and_then(|c| c.as_str())
            .unwrap_or("ON_DEMAND");
        labels.insert("eks.amazonaws.com/capacityType".into(), capacity.to_owned());
        // The template's labels are there only for groups that have a template of the user's.
        let template = group.spec.get("launchTemplate");
        let of_template = |member: &str| {
            template
                .and_then(|t| t.get(member)?.as_str())
                .map(str::to_owned)
        };
        if let (Some(id), Some(version)) = (of_template("id"), of_template("version")) {
            labels.insert("eks.amazonaws.com/sourceLaunchTemplateId".into(), id);
            labels.insert(
                "eks.amazonaws.com/sourceLaunchTemplateVersion".into(),
                version,
            );
        }
        // Taints of the group come from EKS (EKS-NG-13). Those that user data registers are the template's alone.
        taints = group
            .taints
            .iter()
            .map(|t| taint_triple(&to_kube_taint(t)))
            .collect();
        taints_of_group.clone_from(&taints);
        let own = user_data::read_registration(&group.launch);
        labels.extend(own.labels);
        taints.extend(own.taints);
    }
    match (group, launch) {
        (Some(_), _) => {
            labels.insert(
                "eks.amazonaws.com/nodegroup-image".into(),
                instance.image.clone(),
            );
        }
        // A self-managed node has what its user data registers, and nothing of EKS's (SELF-2).
        (None, Some(launch)) => {
            let own = user_data::read_registration(launch);
            labels.extend(own.labels);
            taints.extend(own.taints);
        }
        (None, None) => {}
    }
    // Karpenter and Auto Mode tell the kubelets of their nodes what to register with (KARP-10).
    let of_pool = cloud.pool_registrations.get(&instance.id);
    if let Some(pool) = of_pool {
        labels.extend(pool.labels.clone());
        taints.extend(pool.taints.iter().cloned());
    }
    // The name and the provider's identifier are what the cluster and the cloud know the node by.
    let birth = JoiningNode {
        name: match instance.is_auto_mode() {
            true => instance.id.clone(),
            false => instance.dns.clone(),
        },
        provider_id: format!("aws:///{}/{}", instance.zone, instance.id),
        zone: instance.zone.clone(),
        zone_id: cloud
            .subnets
            .get(&instance.subnet)
            .map(|s| s.zone_id.clone())
            .unwrap_or_default(),
        region: cloud.region.clone(),
        instance_type: instance.instance_type.clone(),
        labels,
        taints,
        kubelet_version: format!(
            "v{}-eks-7a1b2c3",
            image.map_or(patch.as_str(), |i| i.kubelet.as_str())
        ),
        // What the kubelet and the system keep for themselves is left out of what a node offers.
        cpu_millis: size.allocatable_cpu_millis(),
        memory_bytes: size.allocatable_memory(),
        // The addresses of a Windows node are told apart from its pods.
        max_pods: if is_windows { 110 } else { size.pods },
        ephemeral_storage: ephemeral_storage(DEFAULT_DISK_GIB),
        short_hop: match group {
            Some(group) => has_short_hop(group),
            None => {
                let own = launch.and_then(|l| l.hop_limit);
                own.is_some_and(|hops| hops < 2) || of_pool.is_some_and(|p| p.short_hop)
            }
        },
        driverless: group.is_some_and(|g| is_driverless(world, g)),
        // Only the group's own taints are looked at: what user data registers, no agent of EKS takes off.
        startup_taints: match of_pool {
            Some(pool) => pool.startup_taints.clone(),
            None => startup_taints(world, &taints_of_group),
        },
        internal_ip: instance.address.clone(),
        architecture: if arm { "arm64" } else { "amd64" }.to_owned(),
        os_image: match (instance.is_auto_mode(), image) {
            (true, Some(image)) => auto_mode_os(image),
            _ => os_image(image),
        },
    };
    if is_windows {
        let node = birth.name.clone();
        cloud_hooks::set_interface_addresses(world, &node, size.addresses);
    }
    cloud_hooks::join_node(world, birth);
}

/// The same of a node of Auto Mode (AUTO-2).
fn auto_mode_os(image: &MachineImage) -> String {
    let minor: Vec<&str> = image.kubelet.split('.').take(2).collect();
    let minor = minor.join(".");
    format!("Bottlerocket (EKS Auto, Standard) 2026.11.5 (aws-k8s-{minor}-standard)")
}

/// The operating system as the kubelet tells it.
fn os_image(image: Option<&MachineImage>) -> String {
    let kind = image.map_or("", |i| i.kind.as_str());
    if let Some(year) = images::windows_year(kind) {
        return format!("Windows Server {year} Datacenter");
    }
    match kind {
        k if k.starts_with("BOTTLEROCKET_") => "Bottlerocket OS 1.49.0 (aws-k8s)",
        k if k.starts_with("AL2_") => "Amazon Linux 2",
        _ => "Amazon Linux 2023.7.20250609",
    }
    .to_owned()
}

/// The rows of aws-auth's `mapRoles`; None where there is no such ConfigMap.
pub fn read_map_roles(world: &SimWorld) -> Option<Vec<Value>> {
    let text = cloud_hooks::config_map_value(world, SYSTEM_NAMESPACE, "aws-auth", "mapRoles")?;
    Some(serde_saphyr::from_str(&text).unwrap_or_default())
}

/// Writes the rows of aws-auth's `mapRoles`.
pub fn write_map_roles(world: &mut SimWorld, rows: &[Value]) {
    let mut text = String::new();
    for row in rows {
        let of = |member: &str| row[member].as_str().unwrap_or_default();
        text += &format!(
            "- rolearn: {}\n  username: {}\n",
            of("rolearn"),
            of("username")
        );
        text += "  groups:\n";
        for group in row["groups"].as_array().into_iter().flatten() {
            text += &format!("  - {}\n", group.as_str().unwrap_or_default());
        }
    }
    cloud_hooks::set_config_map_value(world, SYSTEM_NAMESPACE, "aws-auth", "mapRoles", &text);
}

/// The instance's kubelet is let in no more, so that its node is heard of no more.
pub fn silence_node(world: &mut SimWorld, instance: &str) {
    if let Some(node) = cloud_hooks::node_of_instance(world, instance) {
        cloud_hooks::stop_kubelet(world, &node);
    }
}

/// A node's disk where nobody says otherwise.
const DEFAULT_DISK_GIB: i64 = 20;

/// What pods get of a node's disk: the kubelet keeps a tenth and a gibibyte.
fn ephemeral_storage(disk_gib: i64) -> i64 {
    ((disk_gib << 30) * 9 / 10) - (1 << 30)
}

/// Whether answers of the instance metadata service stay on the node: a template says so, or EKS's own for AL2023 (EKS-NG-7).
fn has_short_hop(group: &ManagedNodegroup) -> bool {
    let text = |member: &str| group.spec.get(member).and_then(|v| v.as_str());
    match group.launch.hop_limit {
        Some(limit) => limit < 2,
        None => {
            let own_template = group.spec.contains_key("launchTemplate");
            !own_template && text("amiType").is_some_and(|t| t.starts_with("AL2023"))
        }
    }
}

/// Whether a group's image lacks drivers that another group of its instance type has by its image (EKS-NG-26).
fn is_driverless(world: &SimWorld, group: &ManagedNodegroup) -> bool {
    // A custom image is taken to have the drivers, because its owner chose it for this type.
    let made_for_devices = |g: &ManagedNodegroup| {
        let ami_type = g.spec.get("amiType").and_then(|v| v.as_str());
        ami_type.is_some_and(|t| {
            t == "CUSTOM"
                || ["_GPU", "_NVIDIA", "_NEURON"]
                    .iter()
                    .any(|end| t.ends_with(end))
        })
    };
    let groups = world
        .cloud
        .eks
        .iter()
        .flat_map(|eks| eks.nodegroups.values());
    let same_type = |g: &&ManagedNodegroup| g.launch.instance_type == group.launch.instance_type;
    !made_for_devices(group) && groups.filter(same_type).any(made_for_devices)
}

/// Marks the nodes that are there from which answers of the metadata service do not reach pods.
pub fn mark_short_hops(world: &mut SimWorld) {
    let groups = world
        .cloud
        .eks
        .iter()
        .flat_map(|eks| eks.nodegroups.values());
    let short: Vec<String> = groups
        .filter(|g| has_short_hop(g))
        .flat_map(|g| cloud_hooks::nodes_of_group(world, &g.name))
        .collect();
    cloud_hooks::mark_short_hops(world, &short);
}

/// Taints that agents are known to take off the nodes they are ready on (CTL-7).
const STARTUP_TAINTS: &[&str] = &[
    "ebs.csi.aws.com/agent-not-ready",
    "efs.csi.aws.com/agent-not-ready",
    "fsx.csi.aws.com/agent-not-ready",
    "ignore-taint.cluster-autoscaler.kubernetes.io/",
    "node.cilium.io/agent-not-ready",
    "s3.csi.aws.com/agent-not-ready",
    "startup-taint.cluster-autoscaler.kubernetes.io/",
];

/// Those of a group's taints that do not stay on a node: agents take them off, or another group's Ready nodes show that
/// somebody does.
fn startup_taints(world: &SimWorld, taints: &[(String, String, String)]) -> Vec<(String, String)> {
    let groups: Vec<&ManagedNodegroup> = world
        .cloud
        .eks
        .iter()
        .flat_map(|eks| eks.nodegroups.values())
        .collect();
    // A taint counts as one that comes off where an agent is known for it (CTL-7), or where a Ready node of another
    // group has lost it.
    let comes_off = |key: &str, effect: &str| {
        STARTUP_TAINTS.iter().any(|known| key.starts_with(known))
            // A group that is being updated says nothing, since its taints may be on their way.
            || groups.iter().any(|group| {
                let mut its = group.taints.iter().map(|t| taint_triple(&to_kube_taint(t)));
                its.any(|(k, _, e)| k == key && e == effect)
                    && group.status != "UPDATING"
                    && cloud_hooks::is_taint_removed(world, &group.name, key, effect)
            })
    };
    let own = taints
        .iter()
        .filter(|(key, _, effect)| comes_off(key, effect));
    own.map(|(key, _, effect)| (key.clone(), effect.clone()))
        .collect()
}

/// The instance is no more.
pub fn remove_node(world: &mut SimWorld, instance: &str) {
    cloud_hooks::remove_instance(world, instance);
}

/// The minor of each node's kubelet, whoever made the node.
pub fn kubelet_minors(world: &SimWorld) -> Vec<(String, Minor)> {
    cloud_hooks::kubelet_versions(world)
        .into_iter()
        .filter_map(|(node, version)| Some((node, Minor::from_reported(&version).ok()?)))
        .collect()
}

/// The names of the nodes that Auto Mode runs.
pub fn auto_mode_nodes(world: &SimWorld) -> std::collections::BTreeSet<String> {
    cloud_hooks::auto_mode_nodes(world)
}

/// The minor of each node that Auto Mode runs.
pub fn auto_mode_minors(world: &SimWorld) -> Vec<Minor> {
    let own = auto_mode_nodes(world);
    let all = kubelet_minors(world).into_iter();
    all.filter(|(node, _)| own.contains(node))
        .map(|(_, minor)| minor)
        .collect()
}

/// Auto Mode's nodes are to be of this version; none: of the control plane's.
pub fn set_auto_mode_version(world: &mut SimWorld, version: Option<Minor>) {
    cloud_hooks::set_auto_mode_version(world, version);
}

/// Whether the instance's node is Ready.
pub fn is_ready(world: &SimWorld, instance: &str) -> bool {
    cloud_hooks::node_of_instance(world, instance)
        .is_some_and(|node| cloud_hooks::is_node_ready(world, &node))
}

/// EKS cordons the instance's node and evicts its pods, again and again, and after five minutes by force.
pub fn evict_node_pods(world: &mut SimWorld, instance: &str) {
    if let Some(node) = cloud_hooks::node_of_instance(world, instance) {
        cloud_hooks::evict_node_pods(world, &node);
    }
}

/// Whether pods that eviction concerns are still on the instance's node.
pub fn has_evictable_pods(world: &SimWorld, instance: &str) -> bool {
    let Some(node) = cloud_hooks::node_of_instance(world, instance) else {
        return false;
    };
    cloud_hooks::pods_on(world, &node)
        .iter()
        .any(|pod| !pod.daemon && !matches!(pod.phase.as_str(), "Succeeded" | "Failed"))
}

/// Labels and taints reach the live nodes of a group.
pub fn mark_group_nodes(world: &mut SimWorld, group: &str, marks: &LabelTaintChange) {
    let add: Vec<_> = marks.add_taints.iter().map(taint_triple).collect();
    let remove: Vec<_> = marks.remove_taints.iter().map(taint_triple).collect();
    cloud_hooks::set_group_marks(
        world,
        group,
        &add,
        &remove,
        &marks.add_labels,
        &marks.remove_labels,
    );
}

/// The API server is of another version.
pub fn set_server_version(world: &mut SimWorld, to: Minor) {
    cloud_hooks::set_server_version(world, to);
}

/// The API server is away for a while; watches are cut.
pub fn start_outage(world: &mut SimWorld, wait: Duration) {
    cloud_hooks::start_outage(world, wait);
}

/// A workload of kube-system that belongs to an add-on: its kind, its name, and the container whose image changes.
#[derive(Clone, Copy, Debug)]
pub struct AddonPart {
    pub kind: AddonWorkload,
    pub name: &'static str,
    pub container: &'static str,
}

/// The workload's container gets an image of another version, where there is such a workload.
pub fn set_addon_image(world: &mut SimWorld, part: AddonPart, tag: &str) {
    cloud_hooks::set_image_version(
        world,
        part.kind,
        SYSTEM_NAMESPACE,
        part.name,
        part.container,
        tag,
    );
}

/// Whether the workload runs as it is written; one that is not there has nothing to roll out.
pub fn is_rolled_out(world: &SimWorld, part: AddonPart) -> bool {
    cloud_hooks::container_image(
        world,
        part.kind,
        SYSTEM_NAMESPACE,
        part.name,
        part.container,
    )
    .is_none()
        || cloud_hooks::is_rolled_out(world, part.kind, SYSTEM_NAMESPACE, part.name)
}

/// What a health check of a port of the instance meets.
pub fn probe_node_port(world: &SimWorld, instance: &str, port: i64) -> ProbeResult {
    let Ok(port) = u16::try_from(port) else {
        return ProbeResult::NoAnswer;
    };
    match cloud_hooks::probe_node_port(world, instance, port) {
        NodePortHealth::Ready => ProbeResult::Answers,
        NodePortHealth::NoReadyEndpoint => ProbeResult::Refuses,
        NodePortHealth::NoNode | NodePortHealth::NodeNotReady => ProbeResult::NoAnswer,
    }
}

/// Whether there is such a Service.
pub fn has_service(world: &SimWorld, ns: &str, name: &str) -> bool {
    cloud_hooks::has_service(world, ns, name)
}

/// The instances whose nodes a load balancer controller takes: Ready, with these labels, not excluded.
pub fn balanced_instances(world: &SimWorld, labels: &BTreeMap<String, String>) -> Vec<String> {
    cloud_hooks::balanced_instances(world, labels)
}
