//! The cluster as it truly is, for those who check what was done to it: read from the store, past every cache and API.

use std::collections::BTreeMap;

use serde_json::Value;

use super::SimCluster;
use super::control::disruption;
use super::json::{list_at, number_at, text_at, value_at};
use super::karpenter::objects::{self, POOL_LABEL};
use super::kinds::{BUDGETS, CONFIG_MAPS, DEPLOYMENTS, LEASES, NODES, PODS};
use super::scheduler::PodConstraints;
use super::store::ObjectName;
use super::typed_views::NodeView;
use crate::model::Minor;
use crate::twin::world::SimWorld;

/// A budget, or a workload that has a floor: who is healthy, by pod and its node, and how many must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthyFloor {
    pub healthy: BTreeMap<String, String>,
    pub least: i64,
}

/// Counts what happens to nodes, pods, budgets and deployments; nothing has changed while it is the same.
pub fn count_moves(world: &SimWorld) -> u64 {
    world.kube.store.index.moves
}

/// Every budget that pods are behind, by `namespace/name`.
pub fn budget_floors(world: &SimWorld) -> BTreeMap<String, HealthyFloor> {
    let (cluster, index) = (&world.kube, &world.kube.store.index);
    let of = |(name, selector)| {
        let name: &ObjectName = name;
        let pods = index.selected_pods(&name.ns, selector);
        let budget = cluster.store.find_object(BUDGETS, name)?;
        let (_, least) = disruption::expected_counts(cluster, budget, &pods).ok()?;
        // A budget of more pods than there are to be is never met: what a rollout has beyond them is no floor.
        let least = disruption::total_scale(cluster, budget, &pods)
            .map_or(least, |wanted| least.min(wanted));
        let healthy = pods.iter().filter(|p| !p.deleting && p.ready);
        let healthy = healthy.map(|p| (p.name.clone(), p.node.clone())).collect();
        Some((
            format!("{}/{}", name.ns, name.name),
            HealthyFloor { healthy, least },
        ))
    };
    index.budgets.iter().filter_map(of).collect()
}

/// Deployments of one replica that can be moved without a gap, because they may have one pod more for a while.
pub fn single_replica_floors(world: &SimWorld) -> BTreeMap<String, HealthyFloor> {
    let index = &world.kube.store.index;
    let of = |(name, object): (&ObjectName, &super::store::StoredObject)| {
        // A Deployment with a claim, without surge or with Recreate has a gap by its own choice, and is not held
        // against a run.
        let rolling = text_at(object, "spec.strategy.type") != "Recreate";
        let surges = value_at(object, "spec.strategy.rollingUpdate.maxSurge")
            .is_none_or(|s| s != &Value::from(0));
        let claims = list_at(object, "spec.template.spec.volumes")
            .iter()
            .any(|v| v.get("persistentVolumeClaim").is_some());
        if number_at(object, "spec.replicas") != Some(1) || !rolling || !surges || claims {
            return None;
        }
        let selector = super::selector::LabelSelector::from_spec(value_at(object, "spec.selector"));
        let pods = index.selected_pods(&name.ns, &selector);
        // The node of each pod is kept too, so that a finding can say where the last healthy one was.
        let ready = pods.iter().filter(|p| !p.deleting && p.ready);
        let healthy = ready.map(|p| (p.name.clone(), p.node.clone())).collect();
        Some((
            format!("{}/{}", name.ns, name.name),
            HealthyFloor { healthy, least: 1 },
        ))
    };
    world
        .kube
        .store
        .objects_of(DEPLOYMENTS, "")
        .filter_map(of)
        .collect()
}

/// Whether a pod, by the path of its object in the API, is not ready or is no more.
pub fn is_unready_pod(world: &SimWorld, path: &str) -> bool {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let ["api", "v1", "namespaces", ns, "pods", name] = parts.as_slice() else {
        return false;
    };
    let pod = world
        .kube
        .store
        .find_object(PODS, &ObjectName::new(*ns, *name));
    pod.is_none_or(|pod| !super::typed_views::PodView::from_object(pod).ready)
}

/// Why each node does not take a pod, in the scheduler's words, sorted; nothing for a node that does.
///
/// For the conformance tests, which hold it against the evaluator and a real scheduler.
///
/// # Panics
/// There is no such pod, or it cannot be scheduled at all.
#[doc(hidden)]
pub fn node_refusals(cluster: &SimCluster, ns: &str, name: &str) -> BTreeMap<String, Vec<String>> {
    let name = ObjectName::new(ns, name);
    let index = &cluster.store.index;
    let (pod, object) = (&index.pods[&name], cluster.store.find_object(PODS, &name));
    let object = object.expect("what is indexed is stored");
    let ask = PodConstraints::from_pod(cluster, object, pod).expect("the pod can be scheduled");
    let of_node = |node: &std::sync::Arc<super::typed_views::NodeView>| {
        let refused = ask.check_fit(cluster, node).err();
        let mut reasons = refused.map(|r| r.reasons).unwrap_or_default();
        reasons.sort();
        (node.name.clone(), reasons)
    };
    index.nodes.values().map(of_node).collect()
}

/// Whether a pod, by namespace and name, has stopped serving while nobody has taken it: its container crashed.
pub fn has_failed_by_itself(world: &SimWorld, ns: &str, name: &str) -> bool {
    let pod = world
        .kube
        .store
        .find_object(PODS, &ObjectName::new(ns, name));
    pod.map(|p| super::typed_views::PodView::from_object(p))
        .is_some_and(|p| !p.ready && !p.deleting)
}

/// Whether the scheduler ended a pod to make room for one of higher priority.
pub fn is_preempted(world: &SimWorld, ns: &str, name: &str) -> bool {
    let pod = world
        .kube
        .store
        .find_object(PODS, &ObjectName::new(ns, name));
    pod.is_some_and(|p| {
        list_at(p, "status.conditions")
            .iter()
            .any(|c| text_at(c, "reason") == "PreemptionByScheduler")
    })
}

/// Whether no taint keeps a pod off a node: evicted from a closed node, it may be bound to one again.
fn tolerates_everything(pod: &Value) -> bool {
    list_at(pod, "spec.tolerations").iter().any(|t| {
        let any_key = text_at(t, "key").is_empty() && text_at(t, "operator") == "Exists";
        any_key && matches!(text_at(t, "effect"), "" | "NoSchedule")
    })
}

/// The pods of a node group's nodes that an eviction would concern and move, as `namespace/name`.
pub fn evictable_pods(world: &SimWorld, group: &str) -> Vec<String> {
    evictable_pods_where(world, |node| node.node_group() == group)
}

/// Those of the nodes of an Auto Scaling group.
pub fn evictable_pods_of_asg(world: &SimWorld, asg: &str) -> Vec<String> {
    let group = world.cloud.asgs.get(asg);
    let instances = group.into_iter().flat_map(|g| g.members.keys());
    let nodes = instances.filter_map(|id| super::cloud_hooks::node_of_instance(world, id));
    let nodes: std::collections::BTreeSet<String> = nodes.collect();
    evictable_pods_where(world, |node| nodes.contains(&*node.name))
}

/// Those of the nodes of a NodePool.
pub fn evictable_pods_of_pool(world: &SimWorld, pool: &str) -> Vec<String> {
    let of_pool = |node: &NodeView| node.labels.get(POOL_LABEL).is_some_and(|p| **p == *pool);
    evictable_pods_where(world, of_pool)
}

/// Those of the node that a NodeClaim became; none where it became none.
pub fn evictable_pods_of_claim(world: &SimWorld, claim: &str) -> Vec<String> {
    let claim = objects::find_claim(&world.kube, claim);
    let node = claim.map(|c| text_at(&c, "status.nodeName").to_owned());
    let node = node.unwrap_or_default();
    evictable_pods_where(world, |n| *n.name == *node)
}

fn evictable_pods_where(world: &SimWorld, counts: impl Fn(&NodeView) -> bool) -> Vec<String> {
    let store = &world.kube.store;
    let nodes = store.index.nodes.values().filter(|n| counts(n));
    let pods = nodes.flat_map(|n| store.pods_on(&n.name)).filter(|p| {
        let object = store.find_object(PODS, &ObjectName::new(p.ns.clone(), p.name.clone()));
        // Mirror pods and pods that tolerate everything stay on their node, and so does what a DaemonSet owns
        // (K8S-EVICT-11, K8S-TAINT-3).
        let stays = object.is_some_and(|o| {
            let mirror = super::json::find_annotation(o, "kubernetes.io/config.mirror").is_some();
            mirror || tolerates_everything(o)
        });
        let daemon = p.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
        !daemon && !stays && !p.is_finished()
    });
    pods.map(|p| format!("{}/{}", p.ns, p.name)).collect()
}

/// Every node's kubelet.
pub fn kubelet_minors(world: &SimWorld) -> BTreeMap<String, Minor> {
    let of = |(name, node): (&ObjectName, &super::store::StoredObject)| {
        Some((
            name.name.clone(),
            Minor::from_reported(text_at(node, "status.nodeInfo.kubeletVersion")).ok()?,
        ))
    };
    world
        .kube
        .store
        .objects_of(NODES, "")
        .filter_map(of)
        .collect()
}

/// Who holds a lease; nobody when it is released or not there.
pub fn lease_holder<'w>(world: &'w SimWorld, ns: &str, name: &str) -> Option<&'w str> {
    let lease = world
        .kube
        .store
        .find_object(LEASES, &ObjectName::new(ns, name))?;
    Some(text_at(lease, "spec.holderIdentity")).filter(|h| !h.is_empty())
}

/// An entry of a ConfigMap.
pub fn config_entry<'w>(world: &'w SimWorld, ns: &str, name: &str, key: &str) -> Option<&'w str> {
    let map = world
        .kube
        .store
        .find_object(CONFIG_MAPS, &ObjectName::new(ns, name))?;
    map.get("data")?.get(key)?.as_str()
}

/// What a prefix of ours marks: nodes' labels, annotations and taints, as `node: key`.
pub fn list_marks(world: &SimWorld, prefix: &str) -> Vec<String> {
    let of = |(name, node): (&ObjectName, &super::store::StoredObject)| {
        let keys = |path: &str| -> Vec<String> {
            let map = value_at(node, path).and_then(Value::as_object);
            map.into_iter().flat_map(|m| m.keys().cloned()).collect()
        };
        // Marks can be taints, labels and annotations; a rollback has to remove all three.
        let taints = list_at(node, "spec.taints")
            .iter()
            .map(|t| text_at(t, "key").to_owned());
        let all = keys("metadata.labels")
            .into_iter()
            .chain(keys("metadata.annotations"))
            .chain(taints);
        let ours = all.filter(|k| k.starts_with(prefix));
        ours.map(|k| format!("{}: {k}", name.name))
            .collect::<Vec<_>>()
    };
    world
        .kube
        .store
        .objects_of(NODES, "")
        .flat_map(of)
        .collect()
}

/// Every node and its node group, or the Auto Scaling group of nobody's that its instance is in; empty for a node of
/// neither.
pub fn node_groups(world: &SimWorld) -> impl Iterator<Item = (&str, &str)> {
    let index = &world.kube.store.index;
    let self_managed = world.cloud.asgs.values().filter(|g| g.nodegroup.is_none());
    let members = self_managed.flat_map(|group| {
        let nodes = group
            .members
            .keys()
            .filter_map(|id| index.by_instance.get(id));
        nodes.map(|node| (node.as_str(), group.name.as_str()))
    });
    let members: BTreeMap<&str, &str> = members.collect();
    index.nodes.values().map(move |node| {
        let name = node.name.as_str();
        match node.node_group() {
            "" => (name, members.get(name).copied().unwrap_or_default()),
            group => (name, group),
        }
    })
}
