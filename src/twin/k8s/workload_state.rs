//! Workloads as they truly are, for the laws: who owns a pod, how many of a workload's pods serve, how many it wants, and
//! whether a budget would refuse to let a pod go. Read from the store, past every cache and API.

use std::sync::Arc;

use super::json::{number_at, text_at, value_at};
use super::kinds::{BUDGETS, KindId, PODS, REPLICA_SETS};
use super::rest::evict;
use super::store::{ObjectName, StoredObject};
use super::typed_views::OwnerRef;
use crate::twin::world::SimWorld;

pub use super::typed_views::PodView;

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
const UNREPLACED_OWNER_KINDS: &[&str] = &["DaemonSet", "Job", "Node"];

/// Whether users are served by a pod: Ready, and not on its way out.
pub fn is_serving(pod: &PodView) -> bool {
    pod.ready && !pod.deleting
}

/// Returns the workload a pod belongs to; none for pods that nobody brings back, and those of DaemonSets and Jobs.
pub fn workload_of(world: &SimWorld, pod: &PodView) -> Option<WorkloadId> {
    let owner = pod.owner.as_ref()?;
    // Longhorn's instance managers are of their node.
    if pod
        .labels
        .get("longhorn.io/component")
        .is_some_and(|c| c == "instance-manager")
    {
        return None;
    }
    if UNREPLACED_OWNER_KINDS.contains(&owner.kind.as_str()) {
        return None;
    }
    // A pod of a Deployment belongs to the Deployment, whatever its ReplicaSet is at the moment.
    let above = (owner.kind == "ReplicaSet")
        .then(|| find_replica_set(world, &pod.ns, &owner.name))
        .flatten()
        .and_then(|set| OwnerRef::controller_of(set));
    let owner = above.as_ref().unwrap_or(owner);
    Some(WorkloadId {
        uid: owner.uid.clone(),
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        namespace: pod.ns.clone(),
        name: owner.name.clone(),
    })
}

fn find_replica_set<'w>(world: &'w SimWorld, ns: &str, name: &str) -> Option<&'w StoredObject> {
    world
        .kube
        .store
        .find_object(REPLICA_SETS, &ObjectName::new(ns, name))
}

/// Returns every workload that has a pod, in the order of their uids.
pub fn list_workloads(world: &SimWorld) -> Vec<WorkloadId> {
    let pods = world.kube.store.index.pods.values();
    let mut found: Vec<WorkloadId> = pods.filter_map(|p| workload_of(world, p)).collect();
    found.sort();
    found.dedup();
    found
}

/// Counts the pods of a workload that serve.
pub fn count_serving_pods(world: &SimWorld, workload: &WorkloadId) -> i64 {
    let store = &world.kube.store;
    let of = |uid: &str| {
        let pods = store.index.by_controller.get(uid);
        let pods = pods.into_iter().flat_map(|p| p.values());
        pods.filter(|p| is_serving(p)).count() as i64
    };
    if workload.kind != "Deployment" {
        return of(&workload.uid);
    }
    let sets = store
        .owned_by(&workload.uid)
        .filter(|k| k.res == REPLICA_SETS);
    let uids = sets.filter_map(|k| store.get_object(k).map(|o| text_at(o, "metadata.uid")));
    uids.map(of).sum()
}

/// Returns how many pods a workload is to have: 0 once it is deleted, none where its kind does not say
/// (`spec.replicas`) or is unknown to the API server.
pub fn desired_pods(world: &SimWorld, workload: &WorkloadId) -> Option<i64> {
    let store = &world.kube.store;
    let res: KindId = store
        .kinds
        .kind_of_object(&workload.api_version, &workload.kind)?;
    let name = ObjectName::new(workload.namespace.clone(), workload.name.clone());
    match store.find_object(res, &name) {
        Some(object) => {
            let builtin = store.kinds.get(res).builtin;
            number_at(object, "spec.replicas").or(builtin.then_some(1))
        }
        None => Some(0),
    }
}

/// Returns one pod of a workload that does not serve, and what it waits for.
pub fn describe_unready_pod(world: &SimWorld, workload: &WorkloadId) -> Option<String> {
    let pods = world.kube.store.index.pods.values();
    // One pod is enough: the others of a workload mostly wait for the same.
    let pod = pods
        .filter(|p| p.is_active() && !p.ready)
        .find(|p| workload_of(world, p).as_ref() == Some(workload))?;
    let object = world
        .kube
        .store
        .find_object(PODS, &ObjectName::new(&*pod.ns, &*pod.name))?;
    let statuses = super::json::list_at(object, "status.containerStatuses");
    let waits = statuses
        .iter()
        .find_map(|s| value_at(s, "state.waiting.reason").and_then(serde_json::Value::as_str))
        .unwrap_or(&pod.phase);
    let node = if pod.node.is_empty() {
        "no node"
    } else {
        pod.node.as_str()
    };
    Some(format!("{}/{} on {node}: {waits}", pod.ns, pod.name))
}

/// Returns the pod of that name.
pub fn find_pod(world: &SimWorld, ns: &str, name: &str) -> Option<Arc<PodView>> {
    world
        .kube
        .store
        .index
        .pods
        .get(&ObjectName::new(ns, name))
        .cloned()
}

/// Returns the pods that stopped serving since this was asked last, as they were before.
pub fn take_losses(world: &mut SimWorld) -> Vec<Arc<PodView>> {
    std::mem::take(&mut world.kube.store.index.losses)
}

/// Whether a budget selects the pod.
pub fn has_budget(world: &SimWorld, pod: &PodView) -> bool {
    !world.kube.store.index.budgets_of(pod).is_empty()
}

/// Whether an eviction of the pod would be refused for a budget, now.
pub fn refuses_eviction(world: &SimWorld, pod: &PodView) -> bool {
    let cluster = &world.kube;
    let object = cluster
        .store
        .find_object(PODS, &ObjectName::new(&*pod.ns, &*pod.name));
    object.is_some_and(|object| evict::is_refused(cluster, object))
}

/// Returns the names of the budgets that select a pod, as `namespace/name`.
pub fn budgets_of(world: &SimWorld, pod: &PodView) -> Vec<String> {
    let names = world.kube.store.index.budgets_of(pod);
    names
        .iter()
        .map(|n| format!("{}/{}", n.ns, n.name))
        .collect()
}

/// Returns the budgets that let no pod go at the moment, as `namespace/name`.
pub fn closed_budgets(world: &SimWorld) -> impl Iterator<Item = String> {
    let closed =
        |budget: &StoredObject| number_at(budget, "status.disruptionsAllowed").unwrap_or(0) <= 0;
    let all = world.kube.store.objects_of(BUDGETS, "");
    all.filter(move |(_, b)| closed(b))
        .map(|(n, _)| format!("{}/{}", n.ns, n.name))
}

/// The pods that still have to leave a node: those of DaemonSets, static and finished ones stay, and nobody ends the
/// terminating pods of a kubelet that does not answer.
pub fn count_occupants(world: &SimWorld, node: &str) -> usize {
    let store = &world.kube.store;
    let Some(state) = store.index.nodes.get(node) else {
        return 0;
    };
    let pods = store.index.by_node.get(node);
    let pods = pods.into_iter().flat_map(|p| p.values());
    pods.filter(|p| {
        let daemon = p.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
        !daemon && !p.is_finished() && (!p.deleting || state.ready) && !is_static(world, p)
    })
    .count()
}

fn is_static(world: &SimWorld, pod: &PodView) -> bool {
    let object = world
        .kube
        .store
        .find_object(PODS, &ObjectName::new(&*pod.ns, &*pod.name));
    object.is_some_and(|o| super::json::find_annotation(o, "kubernetes.io/config.mirror").is_some())
}

/// Returns an annotation of a node.
pub fn node_annotation<'w>(world: &'w SimWorld, node: &str, key: &str) -> Option<&'w str> {
    let node = world
        .kube
        .store
        .find_object(super::kinds::NODES, &ObjectName::new("", node))?;
    super::json::find_annotation(node, key)
}
