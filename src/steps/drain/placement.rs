//! Whether a pod has somewhere to go now: a placing of pods on the nodes outside blue as they are. Pure.
//!
//! It knows what keeps a pod off a node for certain: readiness, cordon, taints, node selector, the zones of its volumes,
//! and what the node has left by the requests of its pods. Affinity and spreading between pods are the scheduler's; a pod
//! that only those keep off is found when its replacement does not get Ready.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::k8s::cache::Snapshot;
use crate::model::kube::{Key, Node, Pod, Resources};

/// By claim: the zones its volume can be used in. Claims of volumes that can be used anywhere are left out.
pub type VolumeZones = BTreeMap<Key, Vec<String>>;

/// Nodes that take pods, with what each has left.
#[derive(Clone)]
pub struct Placement {
    nodes: Vec<OpenNode>,
    volume_zones: Arc<VolumeZones>,
}

#[derive(Clone)]
struct OpenNode {
    node: Arc<Node>,
    left: Resources,
}

/// Why a pod has nowhere to go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPlace {
    pub why: String,
    /// Whether another node like those of green would take it.
    pub more_nodes_help: bool,
}

impl Placement {
    /// Reads what is left on the nodes that do not belong to `blue`. Pods that already wait for a node are placed first.
    pub fn new(snapshot: &Snapshot, blue: &str, volume_zones: Arc<VolumeZones>) -> Self {
        let takes_pods = |n: &&Arc<Node>| {
            n.nodegroup() != Some(blue) && !n.unschedulable && !n.deleting && n.is_ready()
        };
        let nodes = snapshot.nodes.values().filter(takes_pods).map(|node| {
            let pods = snapshot.pods.on(&node.name);
            let running = pods.iter().filter(|p| !p.finished());
            let left = running.fold(node.allocatable, |left, pod| less(left, pod));
            OpenNode {
                node: node.clone(),
                left,
            }
        });
        let mut placement = Self {
            nodes: nodes.collect(),
            volume_zones,
        };
        let waits = |p: &&Arc<Pod>| {
            p.node.is_none() && !p.finished() && p.deletion_timestamp.is_none() && !p.daemon()
        };
        for pod in snapshot.pods.values().filter(waits) {
            // One that fits nowhere takes no room.
            let _ = placement.place(pod);
        }
        placement
    }

    /// Takes room for the pod on the node that has most left; or says why no node can take it.
    ///
    /// # Errors
    /// Why there is no such node.
    pub fn place(&mut self, pod: &Pod) -> Result<(), NoPlace> {
        let zones: Vec<&Vec<String>> = pod
            .claims
            .iter()
            .filter_map(|claim| {
                let claim = Key::new(&pod.key.namespace, claim);
                self.volume_zones.get(&claim)
            })
            .collect();
        let suits = |open: &OpenNode| refusal(pod, &open.node).is_none();
        let in_zone = |open: &OpenNode| {
            let zone = open.node.zone().unwrap_or_default();
            zones.iter().all(|z| z.iter().any(|z| z == zone))
        };
        let suitable = self.nodes.iter().filter(|n| suits(n)).count();
        let reachable = self.nodes.iter().filter(|n| suits(n) && in_zone(n)).count();
        let place = (self.nodes.iter())
            .enumerate()
            .filter(|(_, n)| suits(n) && in_zone(n) && has_room(n.left, pod))
            .max_by_key(|(_, n)| (n.left.cpu_millis, n.left.memory_bytes))
            .map(|(i, _)| i);
        if let Some(i) = place {
            let node = &mut self.nodes[i];
            node.left = less(node.left, pod);
            return Ok(());
        }
        let zones: Vec<&str> = zones
            .iter()
            .flat_map(|z| z.iter().map(String::as_str))
            .collect();
        let (why, more_nodes_help) = if self.nodes.is_empty() {
            ("no Ready node outside it takes pods".to_owned(), true)
        } else if suitable == 0 {
            let reason = self.nodes.iter().find_map(|n| refusal(pod, &n.node));
            (
                format!(
                    "none of the {} nodes outside it takes the pod: {}",
                    self.nodes.len(),
                    reason.unwrap_or_default()
                ),
                false,
            )
        } else if reachable == 0 {
            (
                format!(
                    "its volume can be used in {} only, and no Ready node there takes the pod",
                    zones.join(", ")
                ),
                true,
            )
        } else {
            (
                format!(
                    "none of {reachable} nodes has room for its requests (cpu {}m, memory {} Mi)",
                    pod.requests.cpu_millis,
                    pod.requests.memory_bytes >> 20
                ),
                true,
            )
        };
        Err(NoPlace {
            why,
            more_nodes_help,
        })
    }
}

/// Why a node does not take a pod, whatever room it has.
fn refusal(pod: &Pod, node: &Node) -> Option<String> {
    let keeps_off = |effect: &str| matches!(effect, "NoSchedule" | "NoExecute");
    let taint = node
        .taints
        .iter()
        .filter(|t| keeps_off(&t.effect))
        .find(|t| !pod.tolerations.iter().any(|tol| tol.tolerates(t)));
    if let Some(taint) = taint {
        return Some(format!("taint {} is not tolerated", taint.key));
    }
    let lacking = pod
        .node_selector
        .iter()
        .find(|(key, value)| node.labels.get(*key) != Some(value));
    lacking.map(|(key, value)| format!("label {key}={value} is missing"))
}

fn has_room(left: Resources, pod: &Pod) -> bool {
    left.pods > 0
        && left.cpu_millis >= pod.requests.cpu_millis
        && left.memory_bytes >= pod.requests.memory_bytes
}

fn less(left: Resources, pod: &Pod) -> Resources {
    Resources {
        cpu_millis: left.cpu_millis - pod.requests.cpu_millis,
        memory_bytes: left.memory_bytes - pod.requests.memory_bytes,
        pods: left.pods - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::pods::Pods;
    use crate::steps::drain::fixtures::open_node;
    use crate::steps::evictable::tests::pod;

    fn snapshot(nodes: Vec<Node>, pods: Vec<Pod>) -> Snapshot {
        let mut all = Pods::default();
        pods.into_iter().for_each(|p| all.put(Arc::new(p)));
        let nodes = nodes.into_iter().map(|n| (n.name.clone(), Arc::new(n)));
        Snapshot {
            nodes: Arc::new(nodes.collect()),
            pods: Arc::new(all),
            ..Snapshot::default()
        }
    }

    fn sized(name: &str, node: &str, cpu: i64) -> Pod {
        let mut pod = pod(name, node);
        pod.requests.cpu_millis = cpu;
        pod
    }

    #[test]
    fn a_pod_whose_volume_is_in_a_zone_without_a_node_has_nowhere_to_go() {
        let nodes = vec![open_node("g1", "green", "1a")];
        let zones = VolumeZones::from([(Key::new("shop", "data"), vec!["1b".to_owned()])]);
        let mut placement = Placement::new(&snapshot(nodes, vec![]), "blue", Arc::new(zones));
        let mut stateful = pod("db-0", "b1");
        stateful.claims = vec!["data".into()];
        let no = placement.place(&stateful).unwrap_err();
        assert!(no.more_nodes_help && no.why.contains("1b"), "{no:?}");
        assert_eq!(placement.place(&pod("web", "b1")), Ok(()));
    }

    #[test]
    fn room_is_what_the_pods_there_and_those_on_their_way_leave() {
        let mut green = open_node("g1", "green", "1a");
        green.allocatable.cpu_millis = 1000;
        let mut pending = sized("pending", "", 300);
        (pending.node, pending.phase) = (None, "Pending".into());
        let pods = vec![sized("there", "g1", 400), pending];
        let mut placement = Placement::new(&snapshot(vec![green], pods), "blue", Arc::default());
        assert_eq!(placement.place(&sized("a", "b1", 300)), Ok(()));
        let no = placement.place(&sized("b", "b1", 300)).unwrap_err();
        assert!(no.more_nodes_help && no.why.contains("cpu 300m"), "{no:?}");
    }

    #[test]
    fn a_taint_or_a_label_that_keeps_a_pod_off_is_named_and_more_nodes_do_not_help() {
        let nodes = vec![open_node("g1", "green", "1a")];
        let mut placement = Placement::new(&snapshot(nodes, vec![]), "blue", Arc::default());
        let mut picky = pod("gpu", "b1");
        picky.node_selector.insert("disk".into(), "ssd".into());
        let no = placement.place(&picky).unwrap_err();
        assert!(!no.more_nodes_help && no.why.contains("disk=ssd"), "{no:?}");
    }

    #[test]
    fn nodes_of_blue_closed_nodes_and_nodes_that_are_not_ready_take_nothing() {
        let mut closed = open_node("g2", "green", "1a");
        closed.unschedulable = true;
        let mut dead = open_node("g3", "green", "1a");
        dead.ready = "Unknown".into();
        let nodes = vec![open_node("b2", "blue", "1a"), closed, dead];
        let mut placement = Placement::new(&snapshot(nodes, vec![]), "blue", Arc::default());
        assert!(placement.place(&pod("web", "b1")).is_err());
    }
}
