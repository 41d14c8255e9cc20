//! Nodes that nothing needs: empty ones go all at once, others one at a time, their pods evicted before.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::super::cluster::Cluster;
use super::super::facts::{Node, Pod};
use super::super::json::{annotation as annotation_of, list, list_mut, number, set, text, unset};
use super::super::kinds::{BUDGETS, NODES, PODS};
use super::super::rest::evict;
use super::super::rest::query::Query;
use super::super::store::{Key, Name};
use super::super::within;
use super::flags::AutoscalerFlags;
use super::grow::would_fit;
use super::{LEAVING_TAINT, ScalingAction, annotation, nodes_of};
use crate::twin::aws::scaling;
use crate::twin::laws;
use crate::twin::world::World;

/// How long it tries to evict a node's pods.
const EVICTION_TIME: SignedDuration = SignedDuration::from_mins(2);
/// How long it waits for evicted pods to end.
const LONGEST_GRACE: SignedDuration = SignedDuration::from_mins(10);
/// How long a node that could not be emptied is left alone.
const LEFT_ALONE: SignedDuration = SignedDuration::from_mins(5);
/// As many empty nodes go at once.
const EMPTY_AT_ONCE: usize = 10;
/// A node that is used more than this is needed, in percent.
const NEEDED_FROM: i64 = 50;

/// A node on its way out.
#[derive(Clone, Debug)]
pub struct LeavingNode {
    since: Timestamp,
    nodegroup: String,
    instance: String,
    /// Somebody had cordoned it before.
    was_cordoned: bool,
    /// Its instance is being ended: it is there until its connections have drained.
    ended: bool,
}

/// Takes up what it has found unneeded for long enough.
pub fn scale_down(world: &mut World, flags: &AutoscalerFlags) {
    let now = world.now();
    let (empty, used) = within(world, |cluster| removable_nodes(cluster, flags, now));
    let recently = SignedDuration::try_from(flags.delay_after_add).unwrap_or(SignedDuration::MAX);
    let grown = world.kube.autoscaler.grown_at;
    if grown.is_some_and(|t| now.duration_since(t) < recently) {
        return;
    }
    if !empty.is_empty() {
        for node in empty.into_iter().take(EMPTY_AT_ONCE) {
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
    cluster: &mut Cluster,
    flags: &AutoscalerFlags,
    now: Timestamp,
) -> (Vec<Arc<Node>>, Vec<Arc<Node>>) {
    let groups = cluster.autoscaler.groups.clone();
    let mut unneeded = BTreeMap::new();
    let (mut empty, mut used) = (Vec::new(), Vec::new());
    let patience = SignedDuration::try_from(flags.unneeded).unwrap_or(SignedDuration::MAX);
    cluster.autoscaler.unremovable.retain(|_, t| *t > now);
    for group in groups {
        let nodes = nodes_of(cluster, &group.nodegroup);
        let mut spare = group.desired.min(nodes.len() as i64) - group.min;
        for node in nodes {
            let Some(moving) = pods_to_move(cluster, flags, &node) else {
                continue;
            };
            let since = cluster.autoscaler.unneeded.get(&node.name);
            let since = since.copied().unwrap_or(now);
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
fn pods_to_move(cluster: &Cluster, flags: &AutoscalerFlags, node: &Node) -> Option<Vec<Arc<Pod>>> {
    let disabled = "cluster-autoscaler.kubernetes.io/scale-down-disabled";
    let told = annotation(cluster, &node.name, disabled);
    if told.as_deref() == Some("true") || !node.ready {
        return None;
    }
    if cluster.autoscaler.unremovable.contains_key(&node.name) {
        return None;
    }
    let load = cluster.store.index.load.get(&node.name);
    let used = |taken: i64, of: i64| of > 0 && taken * 100 > of * NEEDED_FROM;
    if load.is_some_and(|l| used(l.cpu, node.cpu) || used(l.memory, node.memory)) {
        return None;
    }
    let mut extra: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let mut moving = Vec::new();
    for pod in evictable(cluster, &node.name) {
        let key = Name::new(pod.ns.clone(), pod.name.clone());
        let object = cluster.store.find(PODS, &key)?;
        let safe = annotation_of(object, "cluster-autoscaler.kubernetes.io/safe-to-evict");
        let budgets = cluster.store.index.budgets_of(&pod);
        let allows = |name: &Name| {
            let budget = cluster.store.find(BUDGETS, name);
            budget.and_then(|b| number(b, "status.disruptionsAllowed")) > Some(0)
        };
        let local = flags.skip_local_storage && has_local_storage(object);
        let system = flags.skip_system_pods && pod.ns == "kube-system" && budgets.is_empty();
        let may_go = safe == Some("true") || !(local || system) && pod.owner.is_some();
        if safe == Some("false") || !may_go || !budgets.iter().all(allows) {
            return None;
        }
        if !has_place(cluster, object, &pod, node, &mut extra) {
            return None;
        }
        moving.push(pod);
    }
    Some(moving)
}

/// Whether another node would take a pod, beside those that were put there before.
fn has_place(
    cluster: &Cluster,
    object: &serde_json::Value,
    pod: &Pod,
    from: &Node,
    extra: &mut BTreeMap<String, (i64, i64)>,
) -> bool {
    let index = &cluster.store.index;
    for node in index.nodes.values() {
        if node.name == from.name || !node.ready {
            continue;
        }
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
    let volumes = list(pod, "spec.volumes");
    volumes
        .iter()
        .any(|v| v.get("emptyDir").is_some() || v.get("hostPath").is_some())
}

/// Pods of a node that have to be evicted.
fn evictable(cluster: &Cluster, node: &str) -> Vec<Arc<Pod>> {
    let pods = cluster.store.pods_on(node).into_iter();
    pods.filter(|p| {
        let daemon = p.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
        let key = Name::new(p.ns.clone(), p.name.clone());
        let object = cluster.store.find(PODS, &key);
        let mirror =
            object.is_some_and(|o| annotation_of(o, "kubernetes.io/config.mirror").is_some());
        !daemon && !mirror && !p.finished()
    })
    .collect()
}

/// Marks a node as one that goes.
fn mark_leaving(world: &mut World, node: &Arc<Node>, now: Timestamp) {
    laws::autoscaler_takes(world, &node.name);
    within(world, |cluster| {
        let leaving = LeavingNode {
            since: now,
            nodegroup: node.group().to_owned(),
            instance: node.instance.clone(),
            was_cordoned: node.unschedulable,
            ended: false,
        };
        cluster
            .autoscaler
            .leaving
            .insert(node.name.clone(), leaving);
        cluster.change(&Key::new(NODES, "", node.name.clone()), |n| {
            let value = now.as_second().to_string();
            let taint = json!({"key": LEAVING_TAINT, "value": value, "effect": "NoSchedule"});
            list_mut(n, "spec.taints").push(taint);
            set(n, "spec.unschedulable", true);
        });
    });
}

/// Goes on with the nodes on their way out.
pub fn continue_leaving(world: &mut World) {
    let now = world.now();
    for (node, leaving) in world.kube.autoscaler.leaving.clone() {
        let left = within(world, |cluster| evict_pods(cluster, &node));
        let waited = now.duration_since(leaving.since);
        match left {
            // Somebody else has ended it.
            None => drop(world.kube.autoscaler.leaving.remove(&node)),
            Some(_) if leaving.ended => {}
            Some((0, _)) => end_node(world, &node, &leaving),
            Some((_, held)) if waited > LONGEST_GRACE || (held && waited > EVICTION_TIME) => {
                within(world, |cluster| {
                    reopen_node(cluster, &node, &leaving);
                    let memory = &mut cluster.autoscaler;
                    memory.leaving.remove(&node);
                    let until = now.saturating_add(LEFT_ALONE).unwrap_or(now);
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
fn evict_pods(cluster: &mut Cluster, node: &str) -> Option<(usize, bool)> {
    cluster.store.get(&Key::new(NODES, "", node))?;
    let pods = evictable(cluster, node);
    let mut held = false;
    for pod in pods.iter().filter(|p| !p.deleting) {
        let key = Key::new(PODS, pod.ns.clone(), pod.name.clone());
        held |= evict::evict(cluster, &key, &Query::default(), &json!({})).is_err();
    }
    Some((pods.len(), held))
}

/// Ends a node that is empty: its daemons are evicted, its instance is ended, its group is smaller by one.
fn end_node(world: &mut World, node: &str, leaving: &LeavingNode) {
    if !scaling::end_instance(world, &leaving.instance) {
        // Its group is at its smallest size by now.
        within(world, |cluster| {
            reopen_node(cluster, node, leaving);
            cluster.autoscaler.leaving.remove(node);
            cluster.autoscaler.read_at = None;
        });
        return;
    }
    within(world, |cluster| {
        for pod in cluster.store.pods_on(node) {
            let key = Key::new(PODS, pod.ns.clone(), pod.name.clone());
            // Whether a budget holds a daemon back does not matter any more.
            let _ = evict::evict(cluster, &key, &Query::default(), &json!({}));
        }
        let memory = &mut cluster.autoscaler;
        if let Some(leaving) = memory.leaving.get_mut(node) {
            leaving.ended = true;
        }
        memory.unneeded.remove(node);
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
pub fn reopen_node(cluster: &mut Cluster, node: &str, leaving: &LeavingNode) {
    cluster.change(&Key::new(NODES, "", node), |n| {
        list_mut(n, "spec.taints").retain(|t| text(t, "key") != LEAVING_TAINT);
        if list(n, "spec.taints").is_empty() {
            unset(n, "spec.taints");
        }
        if !leaving.was_cordoned {
            unset(n, "spec.unschedulable");
        }
    });
}
