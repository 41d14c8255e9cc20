//! What the cloud does to the cluster and asks of it: the only place where this half reaches into the other.

use std::collections::BTreeMap;
use std::time::Duration;

use super::eks::Marks;
use crate::model::Minor;
use crate::twin::world::World;

/// What a health check of a node port meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Answers,
    /// Nothing is there to answer.
    NoAnswer,
    /// The node answers, but no ready pod is behind the port.
    Refuses,
}

/// The instance's kubelet registers its node.
pub fn join(world: &mut World, instance: &str) {
    let _ = (world, instance);
}

/// The instance is no more.
pub fn gone(world: &mut World, instance: &str) {
    let _ = (world, instance);
}

/// Whether the instance's node is Ready.
pub fn is_ready(world: &World, instance: &str) -> bool {
    world.cloud.instances.get(instance).is_some_and(|i| i.joined)
}

/// EKS evicts the pods of the instance's node, as far as budgets let it.
pub fn evict(world: &mut World, instance: &str) {
    let _ = (world, instance);
}

/// Whether pods that eviction concerns are still on the instance's node.
pub fn is_busy(world: &World, instance: &str) -> bool {
    let _ = (world, instance);
    false
}

/// Labels and taints reach the live nodes of a group.
pub fn mark_group(world: &mut World, group: &str, marks: &Marks) {
    let _ = (world, group, marks);
}

/// The API server is of another version.
pub fn set_server_version(world: &mut World, to: Minor) {
    let _ = (world, to);
}

/// The API server is away for a while; watches are cut.
pub fn outage(world: &mut World, wait: Duration) {
    let _ = (world, wait);
}

/// A workload of kube-system gets an image of another version.
pub fn set_image(world: &mut World, kind: &str, name: &str, tag: &str) {
    let _ = (world, kind, name, tag);
}

/// Whether a workload of kube-system runs as it is written; one that is not there has nothing to roll out.
pub fn is_rolled_out(world: &World, kind: &str, name: &str) -> bool {
    let _ = (world, kind, name);
    true
}

/// What a health check of a port of the instance meets.
pub fn probe(world: &World, instance: &str, port: i64) -> Probe {
    let _ = port;
    if is_ready(world, instance) { Probe::Answers } else { Probe::NoAnswer }
}

/// The instances whose nodes a load balancer controller takes: Ready, with these labels, not excluded.
pub fn balanced(world: &World, labels: &BTreeMap<String, String>) -> Vec<String> {
    let _ = labels;
    world.cloud.instances.values().filter(|i| i.joined && i.state == "running").map(|i| i.id.clone()).collect()
}

/// New pods of a workload cannot pull their image.
pub fn image_missing(world: &mut World, namespace: &str, workload: &str) {
    let _ = (world, namespace, workload);
}

/// The kubelet of a node stops; `node` is a name, or a number in the order of names, from 1.
pub fn kubelet_dies(world: &mut World, node: &str) {
    let _ = (world, node);
}
