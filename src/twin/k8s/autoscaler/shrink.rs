//! Nodes that nothing needs: empty ones go all at once, others one at a time, their pods evicted before.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::super::autoscaler_state::LeavingNode;
use super::super::cluster::SimCluster;
use super::super::json::{
    find_annotation as annotation_of, list_at, list_at_mut, number_at, remove_at, set_at, text_at,
};
use super::super::kinds::{BUDGETS, NODES, PODS};
use super::super::query::QueryParams;
use super::super::rest::evict;
use super::super::run_in_cluster;
use super::super::store::{ObjectKey, ObjectName};
use super::super::typed_views::{NodeView, PodView};
use super::flags::AutoscalerFlags;
use super::grow::would_fit;
use super::{LEAVING_TAINT, ScalingAction, find_node_annotation, is_of_group, nodes_of};
use crate::twin::aws::scaling;
use crate::twin::world::{SimWorld, WorldNotice};

/// How long it tries to evict a node's pods.
const MAX_POD_EVICTION_TIME: SignedDuration = SignedDuration::from_mins(2);
/// How long it waits for evicted pods to end.
const MAX_GRACEFUL_TERMINATION: SignedDuration = SignedDuration::from_mins(10);
/// How long a node that could not be emptied is left alone.
const UNREMOVABLE_NODE_TIMEOUT: SignedDuration = SignedDuration::from_mins(5);
/// As many empty nodes go at once.
const MAX_EMPTY_BULK_DELETE: usize = 10;
/// A node that is used more than this is needed, in percent.
const UTILIZATION_THRESHOLD_PERCENT: i64 = 50;

/// Takes up what it has found unneeded for long enough.
pub fn scale_down(world: &mut SimWorld, flags: &AutoscalerFlags) {
    let now = world.now();
    let (empty, used) = run_in_cluster(world, |cluster| removable_nodes(cluster, flags, now));
    // After a group has grown nothing is removed for a while, else new nodes would go before their pods arrive.
    let recently = SignedDuration::try_from(flags.delay_after_add).unwrap_or(SignedDuration::MAX);
    let grown = world.kube.autoscaler.grown_at;
    if grown.is_some_and(|t| now.duration_since(t) < recently) {
        return;
    }
    // Empty nodes go many at once; a node with pods only when no other one is being emptied (CA-3).
    if !empty.is_empty() {
        for node in empty.into_iter().take(MAX_EMPTY_BULK_DELETE) {
            mark_leaving(world, &node, now);
        }
    } else if world.kube.autoscaler.leaving.values().all(|l| l.ended)
        && let Some(node) = used.first()
    {
        mark_leaving(world, node, now);
    }
    continue_leaving(world);
}

/// Nodes that nothing has needed for long enough and whose groups may do without: empty ones, and others.
fn removable_nodes(
    cluster: &mut SimCluster,
    flags: &AutoscalerFlags,
    now: Timestamp,
) -> (Vec<Arc<NodeView>>, Vec<Arc<NodeView>>) {
    let groups = cluster.autoscaler.groups.clone();
    // The times since when nodes are unneeded are built again in each scan: a node that is needed once starts over.
    let mut unneeded = BTreeMap::new();
    let (mut empty, mut used) = (Vec::new(), Vec::new());
    let patience = SignedDuration::try_from(flags.unneeded).unwrap_or(SignedDuration::MAX);
    cluster.autoscaler.unremovable.retain(|_, t| *t > now);
    for group in groups {
        let nodes = nodes_of(cluster, &group);
        // No group is shrunk below its minimum (CA-3), so one whose minimum is its desired size is never shrunk
        // (CA-7).
        let mut spare = group.desired.min(nodes.len() as i64) - group.min;
        for node in nodes {
            let Some(moving) = pods_to_move(cluster, flags, &node) else {
                continue;
            };
            let since = cluster.autoscaler.unneeded.get(&node.name);
            let since = since.copied().unwrap_or(now);
            // The time counts whether or not the group has nodes to spare, so a minimum that is lowered later acts at
            // once.
            unneeded.insert(node.name.clone(), since);
            if now.duration_since(since) < patience || spare <= 0 {
                continue;
            }
            spare -= 1;
            if moving.is_empty() {
                empty.push(node);
            } else {
                used.push(node);
            }
        }
    }
    cluster.autoscaler.unneeded = unneeded;
    (empty, used)
}

/// The pods that have to leave a node before it can go; none where it is needed or cannot be emptied.
fn pods_to_move(
    cluster: &SimCluster,
    flags: &AutoscalerFlags,
    node: &NodeView,
) -> Option<Vec<Arc<PodView>>> {
    // A node that is marked (CA-4) or not Ready stays. A cordoned one is looked at like any other (CA-3).
    let disabled = "cluster-autoscaler.kubernetes.io/scale-down-disabled";
    let told = find_node_annotation(cluster, &node.name, disabled);
    if told.as_deref() == Some("true") || !node.ready {
        return None;
    }
    // A node whose removal failed is left alone for a while.
    if cluster.autoscaler.unremovable.contains_key(&node.name) {
        return None;
    }
    // A node counts as needed as soon as one of the two resources is used beyond the threshold.
    let load = cluster.store.index.load.get(&node.name);
    let used = |taken: i64, of: i64| of > 0 && taken * 100 > of * UTILIZATION_THRESHOLD_PERCENT;
    if load.is_some_and(|l| used(l.cpu, node.cpu) || used(l.memory, node.memory)) {
        return None;
    }
    let mut extra: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    // One pod that may not be moved keeps the whole node.
    let mut moving = Vec::new();
    for pod in evictable_pods(cluster, &node.name) {
        let key = ObjectName::new(pod.ns.clone(), pod.name.clone());
        let object = cluster.store.find_object(PODS, &key)?;
        let safe = annotation_of(object, "cluster-autoscaler.kubernetes.io/safe-to-evict");
        // A pod is held by its own mark, by local storage or by being a system pod without a budget, by having no
        // owner, and by a budget that allows nothing now.
        let budgets = cluster.store.index.budgets_of(&pod);
        let allows = |name: &ObjectName| {
            let budget = cluster.store.find_object(BUDGETS, name);
            budget.and_then(|b| number_at(b, "status.disruptionsAllowed")) > Some(0)
        };
        let local = flags.skip_local_storage && has_local_storage(object);
        let system = flags.skip_system_pods && pod.ns == "kube-system" && budgets.is_empty();
        let may_go = safe == Some("true") || !(local || system) && pod.owner.is_some();
        if safe == Some("false") || !may_go || !budgets.iter().all(allows) {
            return None;
        }
        // What the earlier pods of this node take elsewhere is remembered in `extra`, so that two pods do not count
        // the same room.
        if !has_place_elsewhere(cluster, object, &pod, node, &mut extra) {
            return None;
        }
        moving.push(pod);
    }
    Some(moving)
}

/// Whether another node would take a pod, beside those that were put there before.
fn has_place_elsewhere(
    cluster: &SimCluster,
    object: &serde_json::Value,
    pod: &PodView,
    from: &NodeView,
    extra: &mut BTreeMap<String, (i64, i64)>,
) -> bool {
    let index = &cluster.store.index;
    for node in index.nodes.values() {
        if node.name == from.name || !node.ready {
            continue;
        }
        // A plain check of CPU and memory comes first, because the full check is expensive.
        let (cpu, memory) = extra.get(&node.name).copied().unwrap_or_default();
        let load = index.load.get(&node.name).cloned().unwrap_or_default();
        let room = load.cpu + cpu + pod.cpu <= node.cpu
            && load.memory + memory + pod.memory <= node.memory;
        if room && would_fit(cluster, object, pod, node) {
            extra.insert(node.name.clone(), (cpu + pod.cpu, memory + pod.memory));
            return true;
        }
    }
    false
}

fn has_local_storage(pod: &serde_json::Value) -> bool {
    let volumes = list_at(pod, "spec.volumes");
    volumes
        .iter()
        .any(|v| v.get("emptyDir").is_some() || v.get("hostPath").is_some())
}

/// Pods of a node that have to be evicted.
fn evictable_pods(cluster: &SimCluster, node: &str) -> Vec<Arc<PodView>> {
    let pods = cluster.store.pods_on(node).into_iter();
    pods.filter(|p| {
        let daemon = p.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
        let key = ObjectName::new(p.ns.clone(), p.name.clone());
        let object = cluster.store.find_object(PODS, &key);
        let mirror =
            object.is_some_and(|o| annotation_of(o, "kubernetes.io/config.mirror").is_some());
        !daemon && !mirror && !p.is_finished()
    })
    .collect()
}

/// Marks a node as one that goes.
fn mark_leaving(world: &mut SimWorld, node: &Arc<NodeView>, now: Timestamp) {
    world.notify_observer(WorldNotice::AutoscalerRemoves { node: &node.name });
    // The old state of the cordon is kept, so that a node that is given up is left as it was found.
    run_in_cluster(world, |cluster| {
        let mut groups = cluster.autoscaler.groups.iter();
        let group = groups.find(|g| is_of_group(node, g));
        let leaving = LeavingNode {
            since: now,
            nodegroup: group.map(|g| g.nodegroup.clone()).unwrap_or_default(),
            instance: node.instance.clone(),
            was_cordoned: node.unschedulable,
            ended: false,
        };
        cluster
            .autoscaler
            .leaving
            .insert(node.name.clone(), leaving);
        // The real program marks a node with this taint and cordons it before it evicts (CA-5).
        cluster.change_object(&ObjectKey::new(NODES, "", node.name.clone()), |n| {
            let value = now.as_second().to_string();
            let taint = json!({"key": LEAVING_TAINT, "value": value, "effect": "NoSchedule"});
            list_at_mut(n, "spec.taints").push(taint);
            set_at(n, "spec.unschedulable", true);
        });
    });
}

/// Goes on with the nodes on their way out.
pub fn continue_leaving(world: &mut SimWorld) {
    let now = world.now();
    for (node, leaving) in world.kube.autoscaler.leaving.clone() {
        // Evictions are repeated in each scan until the node is empty: budgets are asked each time.
        let left = run_in_cluster(world, |cluster| evict_pods(cluster, &node));
        let waited = now.duration_since(leaving.since);
        match left {
            // Somebody else has ended it.
            None => drop(world.kube.autoscaler.leaving.remove(&node)),
            Some(_) if leaving.ended => {}
            Some((0, _)) => end_node(world, &node, &leaving),
            // A node is given up after the pods' longest grace period, or earlier where a budget holds one of them
            // back.
            Some((_, held))
                if waited > MAX_GRACEFUL_TERMINATION
                    || (held && waited > MAX_POD_EVICTION_TIME) =>
            {
                run_in_cluster(world, |cluster| {
                    reopen_node(cluster, &node, &leaving);
                    // The node is not tried again at once, else it would be cordoned and opened in turns.
                    let memory = &mut cluster.autoscaler;
                    memory.leaving.remove(&node);
                    let until = now.saturating_add(UNREMOVABLE_NODE_TIMEOUT).unwrap_or(now);
                    memory.unremovable.insert(node.clone(), until);
                    memory
                        .log
                        .push(ScalingAction::GaveUp { node: node.clone() });
                });
            }
            Some(_) => {}
        }
    }
}

/// Evicts what is left on a node; how many pods there are, and whether a budget holds one. None: no such node.
fn evict_pods(cluster: &mut SimCluster, node: &str) -> Option<(usize, bool)> {
    cluster.store.get_object(&ObjectKey::new(NODES, "", node))?;
    let pods = evictable_pods(cluster, node);
    let mut held = false;
    for pod in pods.iter().filter(|p| !p.deleting) {
        let key = ObjectKey::new(PODS, pod.ns.clone(), pod.name.clone());
        held |= evict::evict_pod(cluster, &key, &QueryParams::default(), &json!({})).is_err();
    }
    Some((pods.len(), held))
}

/// Ends a node that is empty: its daemons are evicted, its instance is ended, its group is smaller by one.
fn end_node(world: &mut SimWorld, node: &str, leaving: &LeavingNode) {
    // Lowering the size by a named instance is refused at the group's minimum, which may have changed since it was
    // read (CA-2).
    if !scaling::terminate_instance(world, &leaving.instance) {
        // Its group is at its smallest size by now.
        run_in_cluster(world, |cluster| {
            reopen_node(cluster, node, leaving);
            cluster.autoscaler.leaving.remove(node);
            cluster.autoscaler.read_at = None;
        });
        return;
    }
    run_in_cluster(world, |cluster| {
        // DaemonSet pods are evicted too, at the very end (CA-5).
        for pod in cluster.store.pods_on(node) {
            let key = ObjectKey::new(PODS, pod.ns.clone(), pod.name.clone());
            // Whether a budget holds a daemon back does not matter any more.
            let _ = evict::evict_pod(cluster, &key, &QueryParams::default(), &json!({}));
        }
        let memory = &mut cluster.autoscaler;
        if let Some(leaving) = memory.leaving.get_mut(node) {
            leaving.ended = true;
        }
        memory.unneeded.remove(node);
        // The sizes that were read are corrected here, as the next reading comes up to a minute later.
        let known = memory.groups.iter_mut();
        for group in known.filter(|g| g.nodegroup == leaving.nodegroup) {
            group.desired -= 1;
        }
        memory.log.push(ScalingAction::Ended {
            nodegroup: leaving.nodegroup.clone(),
            node: node.to_owned(),
        });
    });
}

/// Takes the marks off a node that stays.
pub fn reopen_node(cluster: &mut SimCluster, node: &str, leaving: &LeavingNode) {
    cluster.change_object(&ObjectKey::new(NODES, "", node), |n| {
        list_at_mut(n, "spec.taints").retain(|t| text_at(t, "key") != LEAVING_TAINT);
        if list_at(n, "spec.taints").is_empty() {
            remove_at(n, "spec.taints");
        }
        if !leaving.was_cordoned {
            remove_at(n, "spec.unschedulable");
        }
    });
}
