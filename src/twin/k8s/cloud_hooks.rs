//! What the cloud does to the cluster: nodes come and go, groups are marked, the control plane is changed, add-ons are
//! rolled out, load balancers ask for health. The AWS side of the twin calls these and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use super::control::nodes;
use super::control::rollout;
pub use super::joining_node::JoiningNode;
use super::joining_node::{build_node_object, csi_node_of_sibling};
use super::json::{as_object_mut, list_at, list_at_mut, remove_at, set_at, slot_at, text_at};
use super::kinds::{
    CONFIG_MAPS, CSI_NODES, DAEMON_SETS, DEPLOYMENTS, KindId, NODES, PODS, SERVICES,
};
use super::query::QueryParams;
use super::rest::evict;
use super::store::{ObjectKey, ObjectName};
use super::{KubeEvent, SimCluster, run_in_cluster};
use crate::model::Minor;
use crate::twin::world::SimWorld;

/// A workload an add-on may consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddonWorkload {
    Deployment,
    DaemonSet,
}

impl AddonWorkload {
    fn kind_id(self) -> KindId {
        match self {
            Self::Deployment => DEPLOYMENTS,
            Self::DaemonSet => DAEMON_SETS,
        }
    }
}

/// What a health check of an instance's node port finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePortHealth {
    /// No node of that instance, or a dead one.
    NoNode,
    NodeNotReady,
    /// No service at the port, or nothing ready behind it (on the node itself, when the service wants local traffic).
    NoReadyEndpoint,
    Ready,
}

/// A pod as the cloud sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSummary {
    pub ns: String,
    pub name: String,
    pub uid: String,
    pub phase: String,
    pub ready: bool,
    pub deleting: bool,
    /// It belongs to a daemon set.
    pub daemon: bool,
}

/// An address behind a service.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    pub ip: String,
    pub node: String,
    pub ready: bool,
}

/// What EKS does on its own, step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EksDrainStep {
    /// Evicts again what a budget held back.
    Evict,
    /// No longer asks.
    Force,
    /// The node itself goes.
    End,
}

/// How long EKS lets budgets hold up the end of a node group (EKS-NG-16).
pub(super) const NODE_EVICTION_TIMEOUT: Duration = Duration::from_secs(300);
/// How long it waits between two rounds.
pub(super) const EVICTION_ROUND_INTERVAL: Duration = Duration::from_secs(5);

/// A node registers: not ready first, then ready when its network is.
pub fn join_node(world: &mut SimWorld, birth: JoiningNode) {
    run_in_cluster(world, |cluster| {
        // A node that registers under the name of a lost one is alive again.
        let node = build_node_object(cluster, &birth);
        cluster.dead.remove(&birth.name);
        if birth.short_hop {
            cluster.short_hop_nodes.insert(birth.name.clone());
        }
        if birth.driverless {
            cluster.driverless_nodes.insert(birth.name.clone());
        }
        if !birth.startup_taints.is_empty() {
            let taints = birth.startup_taints.clone();
            cluster.startup_taints.insert(birth.name.clone(), taints);
        }
        // The CSINode says how many volumes the node takes. It is copied from a node of the same instance type, which
        // has the same limit.
        let volumes = csi_node_of_sibling(cluster, &birth);
        // A node that registers again keeps its object.
        if cluster.create_object(NODES, node, false).is_ok() {
            if let Some(volumes) = volumes {
                // One of its name was left by a node that is gone.
                let _ = cluster.create_object(CSI_NODES, volumes, false);
            }
            // The node is Ready only after a while, and only once its network is there.
            let (from, to) = cluster.pace.node_ready;
            let wait = cluster.random_delay(from, to);
            cluster.schedule_after(
                wait,
                KubeEvent::Node(nodes::NodeLifecycleStep::Ready, birth.name.clone()),
            );
        }
    });
}

/// A node of Windows that is about to join has one interface with so many addresses, its own among them.
pub fn set_interface_addresses(world: &mut SimWorld, node: &str, addresses: i64) {
    run_in_cluster(world, |cluster| {
        let known = &mut cluster.windows_addresses;
        known.insert(node.to_owned(), addresses - 1);
    });
}

/// An instance has ended: its kubelet is silent at once, its node goes when the cloud controller notices, its pods
/// linger until they are collected.
pub fn remove_instance(world: &mut SimWorld, instance_id: &str) {
    run_in_cluster(world, |cluster| {
        let Some(node) = cluster.store.index.by_instance.get(instance_id).cloned() else {
            return;
        };
        cluster.dead.insert(node.clone());
        let wait = cluster.random_delay(2_500, 3_500);
        cluster.schedule_after(
            wait,
            KubeEvent::Node(nodes::NodeLifecycleStep::Vanish, node),
        );
    });
}

/// Answers of the instance metadata service do not reach pods on these nodes.
pub fn mark_short_hops(world: &mut SimWorld, nodes: &[String]) {
    run_in_cluster(world, |cluster| {
        super::metadata_access::mark_short_hops(cluster, nodes);
    });
}

/// Whether Ready nodes of a group lack a taint (key and effect) that its group has: somebody takes it off.
pub fn is_taint_removed(world: &SimWorld, nodegroup: &str, key: &str, effect: &str) -> bool {
    let nodes = world.kube.store.index.nodes.values();
    let mut ready = nodes
        .filter(|n| n.node_group() == nodegroup && n.ready)
        .peekable();
    let has = |n: &super::typed_views::NodeView| {
        n.taints.iter().any(|t| t.key == key && t.effect == effect)
    };
    ready.peek().is_some() && ready.all(|n| !has(n))
}

/// By kind: how many pods the stand-in operator has made again for owners whose operator is not known.
pub fn stand_in_counts(world: &SimWorld) -> Vec<(String, u32)> {
    let counts = world.kube.stand_ins.iter();
    counts.map(|(kind, n)| (kind.clone(), *n)).collect()
}

/// A node's kubelet stops working; its containers go on (K8S-NODE-2).
pub fn stop_kubelet(world: &mut SimWorld, node: &str) {
    run_in_cluster(world, |cluster| {
        cluster.dead.insert(node.to_owned());
        let (from, to) = nodes::SILENCE_DELAY_MILLIS;
        let wait = cluster.random_delay(from, to);
        cluster.schedule_after(
            wait,
            KubeEvent::Node(nodes::NodeLifecycleStep::Silent, node.to_owned()),
        );
    });
}

/// It works again.
pub fn revive_kubelet(world: &mut SimWorld, node: &str) {
    run_in_cluster(world, |cluster| nodes::revive_kubelet(cluster, node));
}

/// EKS puts a node group's marks on its nodes, and takes others away. Taints are told apart by key and effect.
pub fn set_group_marks(
    world: &mut SimWorld,
    nodegroup: &str,
    add_taints: &[(String, String, String)],
    remove_taints: &[(String, String, String)],
    add_labels: &BTreeMap<String, String>,
    remove_labels: &[String],
) {
    run_in_cluster(world, |cluster| {
        for node in names_in_group(cluster, nodegroup) {
            // A taint with the same key and effect is replaced, since EKS tells taints apart by both and the value
            // can change.
            cluster.change_object(&ObjectKey::new(NODES, "", node), |n| {
                let taints = list_at_mut(n, "spec.taints");
                for (key, _, effect) in add_taints.iter().chain(remove_taints) {
                    taints.retain(|t| text_at(t, "key") != key || text_at(t, "effect") != effect);
                }
                taints.extend(
                    add_taints
                        .iter()
                        .map(|(k, v, e)| json!({"key": k, "value": v, "effect": e})),
                );
                // A list that is empty is left out of the object, as the API server does.
                if list_at(n, "spec.taints").is_empty() {
                    remove_at(n, "spec.taints");
                }
                // Labels that are removed go last: a key that is in both lists is gone.
                let labels = as_object_mut(slot_at(n, "metadata.labels"));
                for (key, value) in add_labels {
                    labels.insert(key.clone(), value.clone().into());
                }
                for key in remove_labels {
                    labels.remove(key);
                }
            });
        }
    });
}

/// The control plane is of another version from now on.
pub fn set_server_version(world: &mut SimWorld, version: Minor) {
    run_in_cluster(world, |cluster| cluster.version = version);
}

/// Nodes of EKS Auto Mode are to be of this version; none: of the control plane's.
pub fn set_auto_mode_version(world: &mut SimWorld, version: Option<Minor>) {
    run_in_cluster(world, |cluster| cluster.auto_mode_version = version);
}

/// The names of the nodes that EKS Auto Mode runs.
pub fn auto_mode_nodes(world: &SimWorld) -> BTreeSet<String> {
    let nodes = world.kube.store.index.nodes.values();
    nodes
        .filter(|n| n.is_auto_mode())
        .map(|n| n.name.clone())
        .collect()
}

/// The API server's version.
pub fn server_version(world: &SimWorld) -> Minor {
    world.kube.version
}

/// The API server restarts: every watch is cut, connections are refused for `lasts`, and what happened before is
/// forgotten, so that a watch cannot go on from an old version.
pub fn start_outage(world: &mut SimWorld, lasts: Duration) {
    run_in_cluster(world, |cluster| {
        cluster.store.watchers.cut_all();
        cluster.store.forget_history();
        let until = jiff::SignedDuration::try_from(lasts)
            .ok()
            .and_then(|d| cluster.now.saturating_add(d).ok());
        cluster.down_until = until;
    });
}

/// Cuts every watch mid-stream; nothing else happens.
pub fn cut_watches(world: &mut SimWorld) {
    run_in_cluster(world, |cluster| cluster.store.watchers.cut_all());
}

/// Rolls out another tag of an image; whether there is such a container.
pub fn set_image_version(
    world: &mut SimWorld,
    kind: AddonWorkload,
    ns: &str,
    name: &str,
    container: &str,
    tag: &str,
) -> bool {
    run_in_cluster(world, |cluster| {
        rollout::set_image(
            cluster,
            &ObjectKey::new(kind.kind_id(), ns, name),
            container,
            tag,
        )
    })
}

/// The image of a workload's container.
pub fn container_image(
    world: &SimWorld,
    kind: AddonWorkload,
    ns: &str,
    name: &str,
    container: &str,
) -> Option<String> {
    let object = world
        .kube
        .store
        .find_object(kind.kind_id(), &ObjectName::new(ns, name))?;
    let found = list_at(object, "spec.template.spec.containers")
        .iter()
        .find(|c| text_at(c, "name") == container)?;
    Some(text_at(found, "image").to_owned())
}

/// Whether every pod of a workload is of its current template and ready.
pub fn is_rolled_out(world: &SimWorld, kind: AddonWorkload, ns: &str, name: &str) -> bool {
    rollout::is_rolled_out(&world.kube, kind.kind_id(), &ObjectName::new(ns, name))
}

/// What a load balancer finds at a node port of an instance.
pub fn probe_node_port(world: &SimWorld, instance_id: &str, node_port: u16) -> NodePortHealth {
    let cluster = &world.kube;
    let index = &cluster.store.index;
    // A balancer that checks an instance finds no node before it has joined and after it is gone.
    let Some(node) = index
        .by_instance
        .get(instance_id)
        .and_then(|n| index.nodes.get(n))
    else {
        return NodePortHealth::NoNode;
    };
    // The proxy of a real node whose kubelet is dead would go on; that it does not here is told in the module's list.
    if !node.ready {
        return NodePortHealth::NodeNotReady;
    }
    // No Service has the port: a pod with a host port can answer on it, as ingress controllers do.
    let Some(service) = index.node_ports.get(&node_port) else {
        let pods = cluster.store.pods_on(&node.name);
        let answers = |p: &std::sync::Arc<super::typed_views::PodView>| {
            let mut ports = p.host_ports.iter();
            p.ready && ports.any(|taken| taken.port == i64::from(node_port))
        };
        return match pods.iter().any(answers) {
            true => NodePortHealth::Ready,
            false => NodePortHealth::NoReadyEndpoint,
        };
    };
    // With the policy Local only a node with a ready pod of its own passes; with Cluster every node forwards
    // (K8S-SVC-1).
    let object = cluster.store.find_object(SERVICES, service);
    let local = object.is_some_and(|s| text_at(s, "spec.externalTrafficPolicy") == "Local");
    // A dead kubelet's containers still answer; a node that is gone answers nothing.
    let answers = |e: &super::index::SliceEndpoint| e.ready && index.nodes.contains_key(&e.node);
    let found = index
        .endpoints_of(service)
        .any(|(_, e)| answers(e) && (!local || e.node == node.name));
    if found {
        NodePortHealth::Ready
    } else {
        NodePortHealth::NoReadyEndpoint
    }
}

/// The addresses of a service's pods that are ready: the targets of an `ip` target group.
#[cfg(test)]
pub fn ready_pod_ips(world: &SimWorld, ns: &str, service: &str) -> Vec<ServiceAddress> {
    service_addresses(world, &ObjectName::new(ns, service))
        .into_iter()
        .filter(|a| a.ready)
        .collect()
}

#[cfg(test)]
fn service_addresses(world: &SimWorld, service: &ObjectName) -> Vec<ServiceAddress> {
    let endpoints = world.kube.store.index.endpoints_of(service);
    endpoints
        .map(|(ip, e)| ServiceAddress {
            ip: ip.clone(),
            node: e.node.clone(),
            ready: e.ready,
        })
        .collect()
}

/// EKS empties a node before it ends it: it cordons, evicts, asks again while budgets refuse, and after five minutes
/// asks no more.
pub fn evict_node_pods(world: &mut SimWorld, node: &str) {
    run_in_cluster(world, |cluster| {
        cluster.change_object(&ObjectKey::new(NODES, "", node), |n| {
            set_at(n, "spec.unschedulable", true);
        });
        take_step(cluster, EksDrainStep::Evict, node);
        cluster.schedule_after(
            NODE_EVICTION_TIMEOUT,
            KubeEvent::EksDrain(EksDrainStep::Force, node.to_owned()),
        );
    });
}

/// Deletes a node's pods without asking any budget. Nothing in the twin does; tests of outages do.
#[doc(hidden)]
pub fn delete_node_pods(world: &mut SimWorld, node: &str) {
    run_in_cluster(world, |cluster| {
        take_step(cluster, EksDrainStep::Force, node);
    });
}

/// Takes a step of what EKS does on its own.
pub(super) fn take_step(cluster: &mut SimCluster, step: EksDrainStep, node: &str) {
    // DaemonSet pods stay until the instance ends; everything else is moved.
    let pods = cluster.store.pods_on(node);
    let pods = pods
        .iter()
        .filter(|p| !p.deleting && p.owner.as_ref().is_none_or(|o| o.kind != "DaemonSet"));
    let mut held = false;
    for pod in pods {
        let key = ObjectKey::new(PODS, pod.ns.clone(), pod.name.clone());
        // EKS evicts by budget first and ends what is left by force some minutes later, whatever the budgets say
        // (EKS-NG-16).
        match step {
            EksDrainStep::Evict => {
                held |=
                    evict::evict_pod(cluster, &key, &QueryParams::default(), &json!({})).is_err();
            }
            EksDrainStep::Force | EksDrainStep::End => {
                cluster.delete_object(&key, None);
            }
        }
    }
    // The Node object goes some seconds after the instance, while its pods stay in the API (K8S-NODE-1).
    if step == EksDrainStep::End {
        cluster.dead.insert(node.to_owned());
        cluster.schedule_after(
            Duration::from_secs(3),
            KubeEvent::Node(nodes::NodeLifecycleStep::Vanish, node.to_owned()),
        );
    }
    // A refused eviction is repeated; the force that follows has its own event.
    if held {
        cluster.schedule_after(
            EVICTION_ROUND_INTERVAL,
            KubeEvent::EksDrain(EksDrainStep::Evict, node.to_owned()),
        );
    }
}

fn names_in_group(cluster: &SimCluster, nodegroup: &str) -> Vec<String> {
    let nodes = cluster.store.index.nodes.values();
    nodes
        .filter(|n| n.node_group() == nodegroup)
        .map(|n| n.name.clone())
        .collect()
}

/// The names of the nodes of a managed node group, or of the self-managed Auto Scaling group of that name.
pub fn nodes_of_group(world: &SimWorld, group: &str) -> Vec<String> {
    let own = world
        .cloud
        .asgs
        .get(group)
        .filter(|a| a.nodegroup.is_none());
    let Some(own) = own else {
        return names_in_group(&world.kube, group);
    };
    let known = &world.kube.store.index.by_instance;
    let mut names: Vec<String> = own
        .members
        .keys()
        .filter_map(|id| known.get(id).cloned())
        .collect();
    names.sort();
    names
}

/// The names of all nodes, in order.
pub fn node_names(world: &SimWorld) -> Vec<String> {
    world.kube.store.index.nodes.keys().cloned().collect()
}

/// What each node's kubelet calls itself.
pub fn kubelet_versions(world: &SimWorld) -> Vec<(String, String)> {
    let nodes = world.kube.store.index.nodes.values();
    nodes.map(|n| (n.name.clone(), n.kubelet.clone())).collect()
}

/// The instances whose nodes a load balancer controller takes: Ready, carrying these labels, not excluded by label nor
/// about to be deleted by an autoscaler.
pub fn balanced_instances(world: &SimWorld, labels: &BTreeMap<String, String>) -> Vec<String> {
    // The controller takes a node out by label, by taint and when it is not Ready, not by a cordon (LBC-3).
    const EXCLUSION_LABELS: &[&str] = &[
        "node.kubernetes.io/exclude-from-external-load-balancers",
        "alpha.service-controller.kubernetes.io/exclude-balancer",
    ];
    const REMOVAL_TAINTS: &[&str] = &["ToBeDeletedByClusterAutoscaler"];
    let index = &world.kube.store.index;
    let takes = |node: &super::typed_views::NodeView| {
        node.ready
            && labels
                .iter()
                .all(|(key, value)| node.label_value(key) == value)
            && !EXCLUSION_LABELS
                .iter()
                .any(|key| node.labels.contains_key(*key))
            && !node
                .taints
                .iter()
                .any(|t| REMOVAL_TAINTS.contains(&t.key.as_str()))
    };
    let found = index.by_instance.iter();
    found
        .filter(|(_, node)| index.nodes.get(*node).is_some_and(|n| takes(n)))
        .map(|(id, _)| id.clone())
        .collect()
}

/// A value in a ConfigMap.
pub fn config_map_value(world: &SimWorld, ns: &str, name: &str, key: &str) -> Option<String> {
    super::ground_truth::config_entry(world, ns, name, key).map(str::to_owned)
}

/// Writes a value into a ConfigMap that is there.
pub fn set_config_map_value(world: &mut SimWorld, ns: &str, name: &str, key: &str, value: &str) {
    run_in_cluster(world, |cluster| {
        cluster.change_object(&ObjectKey::new(CONFIG_MAPS, ns, name), |map| {
            map["data"][key] = json!(value);
        });
    });
}

/// Whether there is such a Service.
pub fn has_service(world: &SimWorld, ns: &str, name: &str) -> bool {
    let store = &world.kube.store;
    store
        .find_object(SERVICES, &ObjectName::new(ns, name))
        .is_some()
}

/// The labels of a node.
#[cfg(test)]
pub fn node_labels(world: &SimWorld, node: &str) -> BTreeMap<String, String> {
    let node = world.kube.store.index.nodes.get(node);
    node.map(|n| n.labels.clone()).unwrap_or_default()
}

/// An image can no longer be pulled.
#[cfg(test)]
pub fn make_image_unpullable(world: &mut SimWorld, image: &str) {
    run_in_cluster(world, |cluster| {
        cluster.unpullable.insert(image.to_owned());
    });
}

/// The node of an instance.
pub fn node_of_instance(world: &SimWorld, instance_id: &str) -> Option<String> {
    world.kube.store.index.by_instance.get(instance_id).cloned()
}

/// Whether a node is there and ready.
pub fn is_node_ready(world: &SimWorld, node: &str) -> bool {
    world
        .kube
        .store
        .index
        .nodes
        .get(node)
        .is_some_and(|n| n.ready)
}

/// The pods on a node.
pub fn pods_on(world: &SimWorld, node: &str) -> Vec<PodSummary> {
    let view = |p: &std::sync::Arc<super::typed_views::PodView>| PodSummary {
        ns: p.ns.clone(),
        name: p.name.clone(),
        uid: p.uid.clone(),
        phase: p.phase.clone(),
        ready: p.ready,
        deleting: p.deleting,
        daemon: p.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet"),
    };
    world.kube.store.pods_on(node).iter().map(view).collect()
}
