//! What a new node of a group is taken to be like.
//!
//! A group's template comes from a node of it that pods can be put on, and is kept when there is none any more; an
//! autoscaler that has never seen one asks DescribeNodegroup.

use std::sync::Arc;

use jiff::SignedDuration;

use super::super::cluster::Cluster;
use super::super::facts::{Node, Taint};
use super::super::pod_requests::Amounts;
use super::super::within;
use super::{LEAVING_TAINT, nodes_of};
use crate::twin::aws::scaling;
use crate::twin::world::World;

/// How long what DescribeNodegroup said is kept.
const DESCRIBED_KEPT: SignedDuration = SignedDuration::from_mins(6);

/// Brings the templates up to date.
pub fn refresh_templates(world: &mut World) {
    let now = world.now();
    let groups = world.kube.autoscaler.groups.clone();
    for group in groups {
        let seen = within(world, |cluster| {
            let nodes = nodes_of(cluster, &group.nodegroup);
            let good = nodes.iter().find(|n| n.ready && !n.unschedulable);
            let template = good.map(|n| Arc::new(template_like(cluster, n)));
            if let Some(template) = template {
                let name = group.name.clone();
                cluster.autoscaler.templates.insert(name, template);
            }
            cluster.autoscaler.templates.contains_key(&group.name)
        });
        let memory = &world.kube.autoscaler;
        let old = memory.described.get(&group.name);
        if seen || old.is_some_and(|(at, _)| now.duration_since(*at) < DESCRIBED_KEPT) {
            continue;
        }
        let Some(told) = scaling::described_node(world, &group.nodegroup) else {
            continue;
        };
        let taints = told.taints.into_iter();
        let node = Node {
            name: format!("template-for-{}", group.name),
            labels: told.labels,
            taints: taints
                .map(|(key, value, effect)| Taint { key, value, effect })
                .collect(),
            unschedulable: false,
            ready: true,
            cpu: told.cpu_millis,
            memory: told.memory_bytes,
            pods: told.max_pods,
            others: Amounts::new(),
            instance: String::new(),
            kubelet: String::new(),
        };
        let described = &mut world.kube.autoscaler.described;
        described.insert(group.name.clone(), (now, Arc::new(node)));
    }
}

/// The template of a group.
pub fn template_of(cluster: &Cluster, group: &str) -> Option<Arc<Node>> {
    let memory = &cluster.autoscaler;
    let described = || memory.described.get(group).map(|(_, node)| node);
    memory.templates.get(group).or_else(described).cloned()
}

/// A new node like this one: without what is its own, and without the room that daemons take.
fn template_like(cluster: &Cluster, node: &Node) -> Node {
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
        if daemon && !pod.finished() {
            (new.cpu, new.memory) = (new.cpu - pod.cpu, new.memory - pod.memory);
            new.pods -= 1;
            for (name, amount) in &pod.others {
                *new.others.entry(name.clone()).or_default() -= amount;
            }
        }
    }
    new
}
