//! What the cloud does to the cluster: nodes come and go, groups are marked, the control plane is changed, add-ons are
//! rolled out, load balancers ask for health. The AWS side of the twin calls these and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::control::nodes;
use super::control::rollout;
use super::json::{list, list_mut, object, set, slot, text, unset};
use super::kinds::{
    CSI_NODES, DAEMON_SETS, DEPLOYMENTS, NODES, PODS, Res, SERVICES, STATEFUL_SETS,
};
pub use super::node_birth::NodeBirth;
use super::node_birth::{csi_node_of_sibling, node_object};
use super::rest::evict;
use super::rest::query::Query;
use super::store::{Key, Name};
use super::{Cluster, Due, within};
use crate::model::Minor;
use crate::twin::world::World;

/// A workload an add-on may consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    Deployment,
    DaemonSet,
    StatefulSet,
}

impl Workload {
    fn res(self) -> Res {
        match self {
            Self::Deployment => DEPLOYMENTS,
            Self::DaemonSet => DAEMON_SETS,
            Self::StatefulSet => STATEFUL_SETS,
        }
    }
}

/// What a health check of an instance's node port finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// No node of that instance, or a dead one.
    NoNode,
    NodeNotReady,
    /// No service at the port, or nothing ready behind it (on the node itself, when the service wants local traffic).
    NoReadyEndpoint,
    Ready,
}

/// A pod as the cloud sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAddress {
    pub ip: String,
    pub node: String,
    pub ready: bool,
}

/// What EKS does on its own, step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Evicts again what a budget held back.
    Evict,
    /// No longer asks.
    Force,
    /// The node itself goes.
    End,
}

/// How long EKS lets budgets hold up the end of a node group (EKS-NG-16).
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// How long it waits between two rounds.
pub(super) const ROUND: Duration = Duration::from_secs(5);

/// A node registers: not ready first, then ready when its network is.
pub fn node_joins(world: &mut World, birth: NodeBirth) {
    within(world, |cluster| {
        let node = node_object(cluster, &birth);
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
        let volumes = csi_node_of_sibling(cluster, &birth);
        // A node that registers again keeps its object.
        if cluster.create(NODES, node, false).is_ok() {
            if let Some(volumes) = volumes {
                // One of its name was left by a node that is gone.
                let _ = cluster.create(CSI_NODES, volumes, false);
            }
            let (from, to) = cluster.pace.node_ready;
            let wait = cluster.between(from, to);
            cluster.later(wait, Due::Node(nodes::Step::Ready, birth.name.clone()));
        }
    });
}

/// An instance has ended: its kubelet is silent at once, its node goes when the cloud controller notices, its pods
/// linger until they are collected.
pub fn instance_gone(world: &mut World, instance_id: &str) {
    within(world, |cluster| {
        let Some(node) = cluster.store.index.by_instance.get(instance_id).cloned() else {
            return;
        };
        cluster.dead.insert(node.clone());
        let wait = cluster.between(2_500, 3_500);
        cluster.later(wait, Due::Node(nodes::Step::Vanish, node));
    });
}

/// Answers of the instance metadata service do not reach pods on these nodes.
pub fn mark_short_hops(world: &mut World, nodes: &[String]) {
    within(world, |cluster| {
        super::metadata_access::mark_short_hops(cluster, nodes)
    });
}

/// Whether Ready nodes of a group lack a taint (key and effect) that its group has: somebody takes it off.
pub fn is_taken_off(world: &World, nodegroup: &str, key: &str, effect: &str) -> bool {
    let nodes = world.kube.store.index.nodes.values();
    let mut ready = nodes
        .filter(|n| n.group() == nodegroup && n.ready)
        .peekable();
    let has = |n: &super::facts::Node| n.taints.iter().any(|t| t.key == key && t.effect == effect);
    ready.peek().is_some() && ready.all(|n| !has(n))
}

/// By kind: how many pods the stand-in operator has made again for owners whose operator is not known.
pub fn stand_ins(world: &World) -> Vec<(String, u32)> {
    let counts = world.kube.stand_ins.iter();
    counts.map(|(kind, n)| (kind.clone(), *n)).collect()
}

/// A node's kubelet stops working; its containers go on (K8S-NODE-2).
pub fn kubelet_dies(world: &mut World, node: &str) {
    within(world, |cluster| {
        cluster.dead.insert(node.to_owned());
        let (from, to) = nodes::SILENCE;
        let wait = cluster.between(from, to);
        cluster.later(wait, Due::Node(nodes::Step::Silent, node.to_owned()));
    });
}

/// It works again.
pub fn kubelet_revives(world: &mut World, node: &str) {
    within(world, |cluster| nodes::revive(cluster, node));
}

/// EKS puts a node group's marks on its nodes, and takes others away. Taints are told apart by key and effect.
pub fn set_group_marks(
    world: &mut World,
    nodegroup: &str,
    add_taints: &[(String, String, String)],
    remove_taints: &[(String, String, String)],
    add_labels: &BTreeMap<String, String>,
    remove_labels: &[String],
) {
    within(world, |cluster| {
        for node in of_group(cluster, nodegroup) {
            cluster.change(&Key::new(NODES, "", node), |n| {
                let taints = list_mut(n, "spec.taints");
                for (key, _, effect) in add_taints.iter().chain(remove_taints) {
                    taints.retain(|t| text(t, "key") != key || text(t, "effect") != effect);
                }
                taints.extend(
                    add_taints
                        .iter()
                        .map(|(k, v, e)| json!({"key": k, "value": v, "effect": e})),
                );
                if list(n, "spec.taints").is_empty() {
                    unset(n, "spec.taints");
                }
                let labels = object(slot(n, "metadata.labels"));
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
pub fn set_server_version(world: &mut World, version: Minor) {
    within(world, |cluster| cluster.version = version);
}

/// The API server's version.
pub fn server_version(world: &World) -> Minor {
    world.kube.version
}

/// The API server restarts: every watch is cut, connections are refused for `lasts`, and what happened before is
/// forgotten, so that a watch cannot go on from an old version.
pub fn outage(world: &mut World, lasts: Duration) {
    within(world, |cluster| {
        cluster.store.watchers.cut();
        cluster.store.forget();
        let until = jiff::SignedDuration::try_from(lasts)
            .ok()
            .and_then(|d| cluster.now.saturating_add(d).ok());
        cluster.down_until = until;
    });
}

/// Cuts every watch mid-stream; nothing else happens.
pub fn cut_watches(world: &mut World) {
    within(world, |cluster| cluster.store.watchers.cut());
}

/// Rolls out another tag of an image; whether there is such a container.
pub fn set_image_version(
    world: &mut World,
    kind: Workload,
    ns: &str,
    name: &str,
    container: &str,
    tag: &str,
) -> bool {
    within(world, |cluster| {
        rollout::set_image(cluster, &Key::new(kind.res(), ns, name), container, tag)
    })
}

/// The image of a workload's container.
pub fn image_of(
    world: &World,
    kind: Workload,
    ns: &str,
    name: &str,
    container: &str,
) -> Option<String> {
    let object = world.kube.store.find(kind.res(), &Name::new(ns, name))?;
    let found = list(object, "spec.template.spec.containers")
        .iter()
        .find(|c| text(c, "name") == container)?;
    Some(text(found, "image").to_owned())
}

/// Whether every pod of a workload is of its current template and ready.
pub fn rolled_out(world: &World, kind: Workload, ns: &str, name: &str) -> bool {
    rollout::done(&world.kube, kind.res(), &Name::new(ns, name))
}

/// What a load balancer finds at a node port of an instance.
pub fn serving(world: &World, instance_id: &str, node_port: u16) -> Serving {
    let cluster = &world.kube;
    let index = &cluster.store.index;
    let Some(node) = index
        .by_instance
        .get(instance_id)
        .and_then(|n| index.nodes.get(n))
    else {
        return Serving::NoNode;
    };
    if !node.ready {
        return Serving::NodeNotReady;
    }
    let Some(service) = index.node_ports.get(&node_port) else {
        let pods = cluster.store.pods_on(&node.name);
        let answers = |p: &std::sync::Arc<super::facts::Pod>| {
            let mut ports = p.host_ports.iter();
            p.ready && ports.any(|taken| taken.port == i64::from(node_port))
        };
        return match pods.iter().any(answers) {
            true => Serving::Ready,
            false => Serving::NoReadyEndpoint,
        };
    };
    let object = cluster.store.find(SERVICES, service);
    let local = object.is_some_and(|s| text(s, "spec.externalTrafficPolicy") == "Local");
    // A dead kubelet's containers still answer; a node that is gone answers nothing.
    let answers = |e: &super::index::Endpoint| e.ready && index.nodes.contains_key(&e.node);
    let found = index
        .endpoints(service)
        .any(|(_, e)| answers(e) && (!local || e.node == node.name));
    if found {
        Serving::Ready
    } else {
        Serving::NoReadyEndpoint
    }
}

/// The pods behind a node port that a request to that node may reach.
pub fn behind(world: &World, instance_id: &str, node_port: u16) -> Vec<PodAddress> {
    let index = &world.kube.store.index;
    let (Some(node), Some(service)) = (
        index.by_instance.get(instance_id),
        index.node_ports.get(&node_port),
    ) else {
        return Vec::new();
    };
    let object = world.kube.store.find(SERVICES, service);
    let local = object.is_some_and(|s| text(s, "spec.externalTrafficPolicy") == "Local");
    addresses(world, service)
        .into_iter()
        .filter(|a| a.ready && (!local || a.node == *node))
        .collect()
}

/// The addresses of a service's pods that are ready: the targets of an `ip` target group.
pub fn ready_pod_ips(world: &World, ns: &str, service: &str) -> Vec<PodAddress> {
    addresses(world, &Name::new(ns, service))
        .into_iter()
        .filter(|a| a.ready)
        .collect()
}

fn addresses(world: &World, service: &Name) -> Vec<PodAddress> {
    let endpoints = world.kube.store.index.endpoints(service);
    endpoints
        .map(|(ip, e)| PodAddress {
            ip: ip.clone(),
            node: e.node.clone(),
            ready: e.ready,
        })
        .collect()
}

/// EKS empties a node before it ends it: it cordons, evicts, asks again while budgets refuse, and after five minutes
/// asks no more.
pub fn evict_all(world: &mut World, node: &str) {
    within(world, |cluster| {
        cluster.change(&Key::new(NODES, "", node), |n| {
            set(n, "spec.unschedulable", true)
        });
        step(cluster, Step::Evict, node);
        cluster.later(PATIENCE, Due::Hand(Step::Force, node.to_owned()));
    });
}

/// Deletes a node's pods without asking any budget.
pub fn delete_pods_of(world: &mut World, node: &str) {
    within(world, |cluster| step(cluster, Step::Force, node));
}

/// Takes a step of what EKS does on its own.
pub(super) fn step(cluster: &mut Cluster, step: Step, node: &str) {
    let pods = cluster.store.pods_on(node);
    let pods = pods
        .iter()
        .filter(|p| !p.deleting && p.owner.as_ref().is_none_or(|o| o.kind != "DaemonSet"));
    let mut held = false;
    for pod in pods {
        let key = Key::new(PODS, pod.ns.clone(), pod.name.clone());
        match step {
            Step::Evict => {
                held |= evict::evict(cluster, &key, &Query::default(), &json!({})).is_err()
            }
            Step::Force | Step::End => {
                cluster.delete(&key, None);
            }
        }
    }
    if step == Step::End {
        cluster.dead.insert(node.to_owned());
        cluster.later(
            Duration::from_secs(3),
            Due::Node(nodes::Step::Vanish, node.to_owned()),
        );
    }
    if held {
        cluster.later(ROUND, Due::Hand(Step::Evict, node.to_owned()));
    }
}

fn of_group(cluster: &Cluster, nodegroup: &str) -> Vec<String> {
    let nodes = cluster.store.index.nodes.values();
    nodes
        .filter(|n| n.group() == nodegroup)
        .map(|n| n.name.clone())
        .collect()
}

/// The names of a node group's nodes.
pub fn nodes_of_group(world: &World, nodegroup: &str) -> Vec<String> {
    of_group(&world.kube, nodegroup)
}

/// The names of all nodes, in order.
pub fn node_names(world: &World) -> Vec<String> {
    world.kube.store.index.nodes.keys().cloned().collect()
}

/// What each node's kubelet calls itself.
pub fn kubelets(world: &World) -> Vec<(String, String)> {
    let nodes = world.kube.store.index.nodes.values();
    nodes.map(|n| (n.name.clone(), n.kubelet.clone())).collect()
}

/// The instances whose nodes a load balancer controller takes: Ready, carrying these labels, not excluded by label nor
/// about to be deleted by an autoscaler.
pub fn balanced(world: &World, labels: &BTreeMap<String, String>) -> Vec<String> {
    const EXCLUDING: &[&str] = &[
        "node.kubernetes.io/exclude-from-external-load-balancers",
        "alpha.service-controller.kubernetes.io/exclude-balancer",
    ];
    const LEAVING: &[&str] = &["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"];
    let index = &world.kube.store.index;
    let takes = |node: &super::facts::Node| {
        node.ready
            && labels.iter().all(|(key, value)| node.label(key) == value)
            && !EXCLUDING.iter().any(|key| node.labels.contains_key(*key))
            && !node
                .taints
                .iter()
                .any(|t| LEAVING.contains(&t.key.as_str()))
    };
    let found = index.by_instance.iter();
    found
        .filter(|(_, node)| index.nodes.get(*node).is_some_and(|n| takes(n)))
        .map(|(id, _)| id.clone())
        .collect()
}

/// Whether there is such a Service.
pub fn has_service(world: &World, ns: &str, name: &str) -> bool {
    let store = &world.kube.store;
    store.find(SERVICES, &Name::new(ns, name)).is_some()
}

/// An image can no longer be pulled.
pub fn cannot_pull(world: &mut World, image: &str) {
    within(world, |cluster| {
        cluster.unpullable.insert(image.to_owned());
    });
}

/// The node of an instance.
pub fn node_of_instance(world: &World, instance_id: &str) -> Option<String> {
    world.kube.store.index.by_instance.get(instance_id).cloned()
}

/// Whether a node is there and ready.
pub fn node_ready(world: &World, node: &str) -> bool {
    world
        .kube
        .store
        .index
        .nodes
        .get(node)
        .is_some_and(|n| n.ready)
}

/// The pods on a node.
pub fn pods_on(world: &World, node: &str) -> Vec<PodView> {
    let view = |p: &std::sync::Arc<super::facts::Pod>| PodView {
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
