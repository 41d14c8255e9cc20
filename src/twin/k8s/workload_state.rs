//! Workloads as they truly are, for the laws: who owns a pod, how many of a workload's pods serve, how many it wants, and
//! whether a budget would refuse to let a pod go. Read from the store, past every cache and API.

use std::sync::Arc;

use super::facts::Owner;
use super::json::{at, number, text};
use super::kinds::{BUDGETS, DEPLOYMENTS, PODS, REPLICA_SETS, Res};
use super::rest::evict;
use super::store::{Name, Object};
use crate::twin::world::World;

pub use super::facts::Pod;

/// The object at the top of a pod's owners: a Deployment rather than its ReplicaSet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkloadId {
    pub uid: String,
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl std::fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Owners whose pods no drain waits for: DaemonSets stay, Jobs end, static pods are the node's own.
const NOT_REPLACED: &[&str] = &["DaemonSet", "Job", "Node"];

/// Whether users are served by a pod: Ready, and not on its way out.
pub fn serves(pod: &Pod) -> bool {
    pod.ready && !pod.deleting
}

/// Returns the workload a pod belongs to; none for pods that nobody brings back, and those of DaemonSets and Jobs.
pub fn workload_of(world: &World, pod: &Pod) -> Option<WorkloadId> {
    let owner = pod.owner.as_ref()?;
    // Longhorn's instance managers are of their node.
    if pod
        .labels
        .get("longhorn.io/component")
        .is_some_and(|c| c == "instance-manager")
    {
        return None;
    }
    if NOT_REPLACED.contains(&owner.kind.as_str()) {
        return None;
    }
    let above = (owner.kind == "ReplicaSet")
        .then(|| replica_set(world, &pod.ns, &owner.name))
        .flatten()
        .and_then(|set| Owner::of(set));
    let owner = above.as_ref().unwrap_or(owner);
    Some(WorkloadId {
        uid: owner.uid.clone(),
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        namespace: pod.ns.clone(),
        name: owner.name.clone(),
    })
}

fn replica_set<'w>(world: &'w World, ns: &str, name: &str) -> Option<&'w Object> {
    world.kube.store.find(REPLICA_SETS, &Name::new(ns, name))
}

/// Returns every workload that has a pod, in the order of their uids.
pub fn workloads(world: &World) -> Vec<WorkloadId> {
    let pods = world.kube.store.index.pods.values();
    let mut found: Vec<WorkloadId> = pods.filter_map(|p| workload_of(world, p)).collect();
    found.sort();
    found.dedup();
    found
}

/// Counts the pods of a workload that serve.
pub fn serving_pods(world: &World, workload: &WorkloadId) -> i64 {
    let store = &world.kube.store;
    let of = |uid: &str| {
        let pods = store.index.by_controller.get(uid);
        let pods = pods.into_iter().flat_map(|p| p.values());
        pods.filter(|p| serves(p)).count() as i64
    };
    if workload.kind != "Deployment" {
        return of(&workload.uid);
    }
    let sets = store.owned(&workload.uid).filter(|k| k.res == REPLICA_SETS);
    let uids = sets.filter_map(|k| store.get(k).map(|o| text(o, "metadata.uid")));
    uids.map(of).sum()
}

/// Returns how many pods a workload is to have: 0 once it is deleted, none where its kind does not say
/// (`spec.replicas`) or is unknown to the API server.
pub fn wanted_pods(world: &World, workload: &WorkloadId) -> Option<i64> {
    let store = &world.kube.store;
    let res: Res = store.kinds.of(&workload.api_version, &workload.kind)?;
    let name = Name::new(workload.namespace.clone(), workload.name.clone());
    match store.find(res, &name) {
        Some(object) => {
            let builtin = store.kinds.get(res).builtin;
            number(object, "spec.replicas").or(builtin.then_some(1))
        }
        None => Some(0),
    }
}

/// Returns one pod of a workload that does not serve, and what it waits for.
pub fn not_serving(world: &World, workload: &WorkloadId) -> Option<String> {
    let pods = world.kube.store.index.pods.values();
    let pod = pods
        .filter(|p| p.active() && !p.ready)
        .find(|p| workload_of(world, p).as_ref() == Some(workload))?;
    let object = world
        .kube
        .store
        .find(PODS, &Name::new(&*pod.ns, &*pod.name))?;
    let statuses = super::json::list(object, "status.containerStatuses");
    let waits = statuses
        .iter()
        .find_map(|s| at(s, "state.waiting.reason").and_then(serde_json::Value::as_str))
        .unwrap_or(&pod.phase);
    let node = if pod.node.is_empty() {
        "no node"
    } else {
        pod.node.as_str()
    };
    Some(format!("{}/{} on {node}: {waits}", pod.ns, pod.name))
}

/// Returns the pod of that name.
pub fn pod(world: &World, ns: &str, name: &str) -> Option<Arc<Pod>> {
    world
        .kube
        .store
        .index
        .pods
        .get(&Name::new(ns, name))
        .cloned()
}

/// Returns the workload of a Deployment by its name.
pub fn deployment(world: &World, ns: &str, name: &str) -> Option<WorkloadId> {
    let object = world.kube.store.find(DEPLOYMENTS, &Name::new(ns, name))?;
    Some(WorkloadId {
        uid: text(object, "metadata.uid").to_owned(),
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        namespace: ns.to_owned(),
        name: name.to_owned(),
    })
}

/// Returns the pods that stopped serving since this was asked last, as they were before.
pub fn take_losses(world: &mut World) -> Vec<Arc<Pod>> {
    std::mem::take(&mut world.kube.store.index.losses)
}

/// Whether a budget selects the pod.
pub fn has_budget(world: &World, pod: &Pod) -> bool {
    !world.kube.store.index.budgets_of(pod).is_empty()
}

/// Whether an eviction of the pod would be refused for a budget, now.
pub fn refuses_eviction(world: &World, pod: &Pod) -> bool {
    let cluster = &world.kube;
    let object = cluster.store.find(PODS, &Name::new(&*pod.ns, &*pod.name));
    object.is_some_and(|object| evict::is_refused(cluster, object))
}

/// Returns the names of the budgets that select a pod, as `namespace/name`.
pub fn budgets_of(world: &World, pod: &Pod) -> Vec<String> {
    let names = world.kube.store.index.budgets_of(pod);
    names
        .iter()
        .map(|n| format!("{}/{}", n.ns, n.name))
        .collect()
}

/// Returns the budgets that let no pod go at the moment, as `namespace/name`.
pub fn closed_budgets(world: &World) -> impl Iterator<Item = String> {
    let closed = |budget: &Object| number(budget, "status.disruptionsAllowed").unwrap_or(0) <= 0;
    let all = world.kube.store.all(BUDGETS, "");
    all.filter(move |(_, b)| closed(b))
        .map(|(n, _)| format!("{}/{}", n.ns, n.name))
}

/// The pods that still have to leave a node: those of DaemonSets, static and finished ones stay, and nobody ends the
/// terminating pods of a kubelet that does not answer.
pub fn occupants(world: &World, node: &str) -> usize {
    let store = &world.kube.store;
    let Some(state) = store.index.nodes.get(node) else {
        return 0;
    };
    let pods = store.index.by_node.get(node);
    let pods = pods.into_iter().flat_map(|p| p.values());
    pods.filter(|p| {
        let daemon = p.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
        !daemon && !p.finished() && (!p.deleting || state.ready) && !is_static(world, p)
    })
    .count()
}

fn is_static(world: &World, pod: &Pod) -> bool {
    let object = world
        .kube
        .store
        .find(PODS, &Name::new(&*pod.ns, &*pod.name));
    object.is_some_and(|o| super::json::annotation(o, "kubernetes.io/config.mirror").is_some())
}

/// Returns an annotation of a node.
pub fn node_annotation<'w>(world: &'w World, node: &str, key: &str) -> Option<&'w str> {
    let node = world
        .kube
        .store
        .find(super::kinds::NODES, &Name::new("", node))?;
    super::json::annotation(node, key)
}

/// Returns the node group of a node; empty for a node of none, none for a node that is not there.
pub fn group_of<'w>(world: &'w World, node: &str) -> Option<&'w str> {
    world.kube.store.index.nodes.get(node).map(|n| n.group())
}
