//! Pods that find no node: a group whose new nodes would take them grows.

use std::sync::Arc;

use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{find_condition, text_at};
use super::super::kinds::PODS;
use super::super::run_in_cluster;
use super::super::scheduler::PodConstraints;
use super::super::store::StoredObject;
use super::super::typed_views::{NodeView, PodView};
use super::{ScalingAction, nodes_of, template};
use crate::twin::aws::scaling;
use crate::twin::world::SimWorld;

/// A pod that found no node.
type PendingPod = (Arc<PodView>, StoredObject);

/// A node that is not there yet, and what room it has left.
#[derive(Clone)]
struct VirtualNode {
    node: Arc<NodeView>,
    cpu: i64,
    memory: i64,
    pods: i64,
}

impl VirtualNode {
    fn new(node: Arc<NodeView>) -> Self {
        Self {
            cpu: node.cpu,
            memory: node.memory,
            pods: node.pods,
            node,
        }
    }

    /// Puts a pod here if it would be.
    fn try_place(&mut self, cluster: &SimCluster, (pod, object): &PendingPod) -> bool {
        let room = self.cpu >= pod.cpu && self.memory >= pod.memory && self.pods > 0;
        if !room || !would_fit(cluster, object, pod, &self.node) {
            return false;
        }
        (self.cpu, self.memory) = (self.cpu - pod.cpu, self.memory - pod.memory);
        self.pods -= 1;
        true
    }
}

/// Whether a node would do for a pod, were it there.
pub fn would_fit(cluster: &SimCluster, object: &Value, pod: &PodView, node: &NodeView) -> bool {
    PodConstraints::from_pod(cluster, object, pod)
        .is_ok_and(|ask| ask.check_fit(cluster, node).is_ok())
}

/// Grows a group, if pods ask for it; whether there are pods that wait.
pub fn scale_up(world: &mut SimWorld) -> bool {
    let Some((group, by)) = run_in_cluster(world, choose_group) else {
        return false;
    };
    let Some(by) = by else { return true };
    let now = world.now();
    let mut groups = world.kube.autoscaler.groups.iter_mut();
    let Some(known) = groups.find(|g| g.name == group) else {
        return true;
    };
    // The new size builds on the last reading of the groups, which may be a minute old (CA-2).
    let wanted = known.desired + by;
    let nodegroup = known.nodegroup.clone();
    if !scaling::set_desired_capacity(world, &group, wanted) {
        // What it knows is out of date; it looks again in the next round.
        world.kube.autoscaler.read_at = None;
        return true;
    }
    // The memory is changed at once, so that the next scan does not ask for the same nodes again before they join.
    let memory = &mut world.kube.autoscaler;
    memory.grown_at = Some(now);
    memory.log.push(ScalingAction::Grew { nodegroup, by });
    if let Some(known) = memory.groups.iter_mut().find(|g| g.name == group) {
        known.desired = wanted;
    }
    true
}

/// None where no pod waits; else a group and by how many nodes it grows, if any does.
fn choose_group(cluster: &mut SimCluster) -> Option<(String, Option<i64>)> {
    let mut waiting = pending_pods(cluster);
    if waiting.is_empty() {
        return None;
    }
    let groups = cluster.autoscaler.groups.clone();
    // Nodes that are on their way take who fits on them.
    for group in &groups {
        let there = nodes_of(cluster, group);
        let there = there.iter().filter(|n| n.ready).count() as i64;
        let Some(like) = template::template_of(cluster, &group.name) else {
            continue;
        };
        for _ in there..group.desired {
            let mut node = VirtualNode::new(like.clone());
            waiting.retain(|pod| !node.try_place(cluster, pod));
        }
    }
    if waiting.is_empty() {
        return Some((String::new(), None));
    }
    // Each group is tried for itself with as many new nodes as it may still have; pods that fit on one of those
    // already added need no further one.
    let mut options = Vec::new();
    for group in groups.iter().filter(|g| g.desired < g.max) {
        let Some(like) = template::template_of(cluster, &group.name) else {
            continue;
        };
        let mut new: Vec<VirtualNode> = Vec::new();
        for pod in &waiting {
            if new.iter_mut().any(|node| node.try_place(cluster, pod)) {
                continue;
            }
            let mut node = VirtualNode::new(like.clone());
            if (new.len() as i64) < group.max - group.desired && node.try_place(cluster, pod) {
                new.push(node);
            }
        }
        // A group whose template takes none of the pods is no option, however much room it has.
        if !new.is_empty() {
            options.push((group.name.clone(), new.len() as i64));
        }
    }
    if options.is_empty() {
        return Some((String::new(), None));
    }
    // The choice among several groups is made at random: a tie between blue and green can fall either way.
    let pick = cluster.rng.usize(..options.len());
    let (group, by) = options.swap_remove(pick);
    Some((group, Some(by)))
}

/// Pods that the scheduler has found no node for.
fn pending_pods(cluster: &SimCluster) -> Vec<PendingPod> {
    let store = &cluster.store;
    let names = store.index.pending.iter();
    names
        .filter_map(|name| {
            let (pod, object) = (store.index.pods.get(name)?, store.find_object(PODS, name)?);
            let why = find_condition(object, "PodScheduled").map_or("", |c| text_at(c, "reason"));
            let daemon = pod.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
            let waits = why == "Unschedulable" && !daemon && pod.is_active();
            waits.then(|| (pod.clone(), object.clone()))
        })
        .collect()
}
