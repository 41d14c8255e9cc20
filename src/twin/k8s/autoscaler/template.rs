//! What a new node of a group is taken to be like.
//!
//! A group's template comes from a node of it that pods can be put on, and is kept when there is none any more; an
//! autoscaler that has never seen one asks DescribeNodegroup.

use std::sync::Arc;

use jiff::SignedDuration;

use super::super::cluster::SimCluster;
use super::super::pod_requests::ResourceAmounts;
use super::super::run_in_cluster;
use super::super::typed_views::{NodeTaint, NodeView};
use super::{LEAVING_TAINT, nodes_of};
use crate::twin::aws::scaling;
use crate::twin::world::SimWorld;

/// How long what DescribeNodegroup said is kept.
const DESCRIBED_TEMPLATE_TTL: SignedDuration = SignedDuration::from_mins(6);

/// Brings the templates up to date.
pub fn refresh_templates(world: &mut SimWorld) {
    let now = world.now();
    let groups = world.kube.autoscaler.groups.clone();
    for group in groups {
        // A node that pods can be put on is the best template. Where there is none any more the last one is kept, so
        // that a cordoned blue is still grown (CA-1).
        let seen = run_in_cluster(world, |cluster| {
            let nodes = nodes_of(cluster, &group);
            let good = nodes.iter().find(|n| n.ready && !n.unschedulable);
            let template = good.map(|n| Arc::new(template_like(cluster, n)));
            if let Some(template) = template {
                let name = group.name.clone();
                cluster.autoscaler.templates.insert(name, template);
            }
            cluster.autoscaler.templates.contains_key(&group.name)
        });
        // Only a group that was never seen with a good node is asked for, and the answer is kept for six minutes
        // (CA-6).
        let memory = &world.kube.autoscaler;
        let old = memory.described.get(&group.name);
        if seen || old.is_some_and(|(at, _)| now.duration_since(*at) < DESCRIBED_TEMPLATE_TTL) {
            continue;
        }
        let Some(told) = scaling::describe_new_node(world, &group.name) else {
            continue;
        };
        // The described template has what EKS knows: its own labels and taints, not those that somebody put on nodes.
        let taints = told.taints.into_iter();
        let node = NodeView {
            name: format!("template-for-{}", group.name),
            labels: told.labels,
            taints: taints
                .map(|(key, value, effect)| NodeTaint { key, value, effect })
                .collect(),
            unschedulable: false,
            ready: true,
            cpu: told.cpu_millis,
            memory: told.memory_bytes,
            pods: told.max_pods,
            others: ResourceAmounts::new(),
            instance: String::new(),
            kubelet: String::new(),
        };
        let described = &mut world.kube.autoscaler.described;
        described.insert(group.name.clone(), (now, Arc::new(node)));
    }
}

/// The template of a group.
pub fn template_of(cluster: &SimCluster, group: &str) -> Option<Arc<NodeView>> {
    let memory = &cluster.autoscaler;
    let described = || memory.described.get(group).map(|(_, node)| node);
    memory.templates.get(group).or_else(described).cloned()
}

/// A new node like this one: without what is its own, and without the room that daemons take.
fn template_like(cluster: &SimCluster, node: &NodeView) -> NodeView {
    let mut new = node.clone();
    new.name = format!("template-for-{}", node.name);
    new.instance.clear();
    // A new node is a place of its own to spreads and anti-affinity.
    let hostname = "kubernetes.io/hostname".to_owned();
    new.labels.insert(hostname, new.name.clone());
    new.taints
        .retain(|t| !t.key.starts_with("node.kubernetes.io/") && t.key != LEAVING_TAINT);
    for pod in cluster.store.pods_on(&node.name) {
        let daemon = pod.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
        if daemon && !pod.is_finished() {
            (new.cpu, new.memory) = (new.cpu - pod.cpu, new.memory - pod.memory);
            new.pods -= 1;
            for (name, amount) in &pod.others {
                *new.others.entry(name.clone()).or_default() -= amount;
            }
        }
    }
    new
}
