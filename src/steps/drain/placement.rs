//! Whether a pod has somewhere to go now: a placing of pods on the nodes outside blue as they are, by the rules of the
//! scheduler. Pure.
//!
//! Blue's closed nodes take no pod, but they count where pods are spread over them, as they do for the scheduler.

use std::sync::Arc;

use crate::k8s::cache::CacheSnapshot;
use crate::model::kube::{Node, Pod};
use crate::scheduling::pod_affinity::NamespaceLabels;
use crate::scheduling::volumes::{self, ClaimVolumes};
use crate::scheduling::{ClusterView, PlacementFailure as Refused, Refusal};

/// What a placing rests on besides nodes and pods.
#[derive(Clone, Debug, Default)]
pub struct PlacementFacts {
    /// Bound volumes by claim.
    pub volumes: ClaimVolumes,
    /// Labels by namespace; absent where no pod asks for them or they could not be read.
    pub namespaces: Option<NamespaceLabels>,
}

/// Nodes that take pods, with what each has left.
pub struct Placement<'a> {
    view: ClusterView<'a>,
    facts: &'a PlacementFacts,
}

/// Why a pod has nowhere to go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementRefusal {
    pub why: String,
    /// Whether another node like those of green would take it.
    pub more_nodes_help: bool,
}

impl<'a> Placement<'a> {
    /// Reads what is left on the nodes that do not belong to `blue`. Pods that already wait for a node are placed first.
    pub fn new(snapshot: &'a CacheSnapshot, blue: &str, facts: &'a PlacementFacts) -> Self {
        let takes_pods = |n: &Node| {
            n.nodegroup_name() != Some(blue) && !n.unschedulable && !n.deleting && n.is_ready()
        };
        let nodes = snapshot.nodes.values().map(AsRef::as_ref);
        let nodes = nodes.map(|node| (node, takes_pods(node)));
        let namespaces = facts.namespaces.as_ref();
        let mut view = ClusterView::new(nodes, &facts.volumes, namespaces);
        snapshot.pods.values().for_each(|pod| view.add_pod(pod));
        // Pods that wait for a node already get their room before any pod of blue does, as the scheduler will see to
        // it.
        let waits = |p: &&Arc<Pod>| {
            p.node.is_none()
                && !p.is_finished()
                && p.deletion_timestamp.is_none()
                && !p.is_daemon_pod()
        };
        for pod in snapshot.pods.values().filter(waits) {
            // One that fits nowhere takes no room.
            let _ = view.place_pod(pod);
        }
        Self { view, facts }
    }

    /// Takes room for the pod that follows `pod` where the scheduler would; or says why no node can take it.
    ///
    /// # Errors
    /// Why there is no such node.
    pub fn place_pod(&mut self, pod: &'a Pod) -> Result<(), PlacementRefusal> {
        self.place_all_pods([pod]).map_err(|(_, no)| no)
    }

    /// Takes room for all of these pods, or for none.
    ///
    /// # Errors
    /// The first that has no place, and why.
    pub fn place_all_pods(
        &mut self,
        pods: impl IntoIterator<Item = &'a Pod>,
    ) -> Result<(), (&'a Pod, PlacementRefusal)> {
        let before = self.view.take_checkpoint();
        for pod in pods {
            // It is on blue until its place is taken.
            self.view.remove_pod(pod);
            if let Err(refused) = self.view.place_pod(pod) {
                self.view.rollback_to(before);
                return Err((pod, self.explain_refusal(pod, &refused)));
            }
        }
        Ok(())
    }

    fn explain_refusal(&self, pod: &Pod, refused: &Refused) -> PlacementRefusal {
        let more_nodes_help = refused.more_nodes_help();
        if refused.nodes == 0 {
            let why = "no Ready node outside it takes pods".to_owned();
            return PlacementRefusal {
                why,
                more_nodes_help,
            };
        }
        // The scheduler's words say what a node lacks. What the pod asks for is added, so that one of the two can be
        // changed.
        let mut why = refused.to_string();
        let says = |wanted: fn(&Refusal) -> bool| refused.reasons.keys().any(wanted);
        if says(|r| *r == Refusal::NodeAffinity) {
            let wants: Vec<String> = (pod.node_selector.iter())
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            if !wants.is_empty() {
                why += &format!("; its node selector asks for {}", wants.join(", "));
            }
        }
        // Where the volume is decides where a node is needed, and no message of the scheduler's says it.
        if says(|r| *r == Refusal::VolumeAffinity) {
            let volumes = volumes::volumes_of_pod(&self.facts.volumes, pod).into_iter();
            let places: Vec<&str> = volumes
                .flat_map(|v| v.zones.iter().chain(&v.nodes).map(String::as_str))
                .collect();
            why += &format!("; its volume can be used in {} only", places.join(", "));
        }
        if says(|r| matches!(r, Refusal::Insufficient { .. })) {
            why += &format!(
                "; it requests cpu {}m, memory {} Mi",
                pod.requests.cpu_millis,
                pod.requests.memory_bytes >> 20
            );
        }
        if refused.spread_refuses() {
            why += "; closed nodes count in its topology spread unless it says `nodeTaintsPolicy: Honor`";
        }
        PlacementRefusal {
            why,
            more_nodes_help,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k8s::pods::PodsByNode;
    use crate::model::kube::Selector;
    use crate::model::scheduling::TopologySpread;
    use crate::steps::drain::fixtures::open_node;
    use crate::steps::evictable::tests::pod;

    fn snapshot(nodes: Vec<Node>, pods: Vec<Pod>) -> CacheSnapshot {
        let mut all = PodsByNode::default();
        pods.into_iter().for_each(|p| all.put_pod(Arc::new(p)));
        let nodes = nodes.into_iter().map(|n| (n.name.clone(), Arc::new(n)));
        CacheSnapshot {
            nodes: Arc::new(nodes.collect()),
            pods: Arc::new(all),
            ..CacheSnapshot::default()
        }
    }

    fn volume_in(zone: &str) -> PlacementFacts {
        PlacementFacts {
            volumes: crate::steps::drain::fixtures::volume_in(zone),
            namespaces: None,
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
        let facts = volume_in("1b");
        let snapshot = snapshot(nodes, vec![]);
        let mut placement = Placement::new(&snapshot, "blue", &facts);
        let mut stateful = pod("db-0", "b1");
        stateful.claims = vec!["data".into()];
        let no = placement.place_pod(&stateful).unwrap_err();
        assert!(no.more_nodes_help && no.why.contains("1b"), "{no:?}");
        let web = pod("web", "b1");
        assert_eq!(placement.place_pod(&web), Ok(()));
    }

    #[test]
    fn room_is_what_the_pods_there_and_those_on_their_way_leave() {
        let mut green = open_node("g1", "green", "1a");
        green.allocatable.cpu_millis = 1000;
        let mut pending = sized("pending", "", 300);
        (pending.node, pending.phase) = (None, "Pending".into());
        let pods = vec![sized("there", "g1", 400), pending];
        let (snapshot, facts) = (snapshot(vec![green], pods), PlacementFacts::default());
        let mut placement = Placement::new(&snapshot, "blue", &facts);
        let (a, b) = (sized("a", "b1", 300), sized("b", "b1", 300));
        assert_eq!(placement.place_pod(&a), Ok(()));
        let no = placement.place_pod(&b).unwrap_err();
        assert!(no.more_nodes_help && no.why.contains("cpu 300m"), "{no:?}");
    }

    #[test]
    fn a_taint_or_a_label_that_keeps_a_pod_off_is_named_and_more_nodes_do_not_help() {
        let nodes = vec![open_node("g1", "green", "1a")];
        let (snapshot, facts) = (snapshot(nodes, vec![]), PlacementFacts::default());
        let mut placement = Placement::new(&snapshot, "blue", &facts);
        let mut picky = pod("gpu", "b1");
        picky.node_selector.insert("disk".into(), "ssd".into());
        let no = placement.place_pod(&picky).unwrap_err();
        assert!(!no.more_nodes_help && no.why.contains("disk=ssd"), "{no:?}");
    }

    #[test]
    fn nodes_of_blue_closed_nodes_and_nodes_that_are_not_ready_take_nothing() {
        let mut closed = open_node("g2", "green", "1a");
        closed.unschedulable = true;
        let mut dead = open_node("g3", "green", "1a");
        dead.ready = "Unknown".into();
        let nodes = vec![open_node("b2", "blue", "1a"), closed, dead];
        let (snapshot, facts) = (snapshot(nodes, vec![]), PlacementFacts::default());
        let mut placement = Placement::new(&snapshot, "blue", &facts);
        let web = pod("web", "b1");
        assert!(placement.place_pod(&web).is_err());
    }

    #[test]
    fn closed_nodes_of_blue_count_in_a_spread_unless_it_honours_taints() {
        let closed = |name: &str| Node {
            labels: open_node(name, "blue", "1a").labels,
            ..crate::steps::drain::fixtures::closed_node(name, None)
        };
        let hosts = |mut node: Node| {
            let name = node.name.clone();
            node.labels.insert("kubernetes.io/hostname".into(), name);
            node
        };
        // Two closed hosts of blue and one open host of green.
        let nodes = vec![
            hosts(closed("b1")),
            hosts(closed("b2")),
            hosts(open_node("g1", "green", "1a")),
        ];
        let spread = |name: &str, node: &str, policy: Option<&str>| {
            let mut pod = pod(name, node);
            pod.scheduling.topology_spread = vec![TopologySpread {
                max_skew: 1,
                topology_key: "kubernetes.io/hostname".into(),
                when_unsatisfiable: "DoNotSchedule".into(),
                selector: Some(Selector {
                    match_labels: pod.labels.clone(),
                    expressions: vec![],
                }),
                min_domains: None,
                node_affinity_policy: None,
                node_taints_policy: policy.map(str::to_owned),
                match_label_keys: vec![],
            }];
            pod
        };
        // By default closed hosts count as empty domains: a second pod on green's only host is one too many.
        for (policy, fits) in [(None, false), (Some("Honor"), true)] {
            let pods = vec![spread("p1", "b1", policy), spread("p2", "b2", policy)];
            let (snapshot, facts) = (
                snapshot(nodes.clone(), pods.clone()),
                PlacementFacts::default(),
            );
            let mut placement = Placement::new(&snapshot, "blue", &facts);
            assert_eq!(placement.place_pod(&pods[0]), Ok(()));
            let second = placement.place_pod(&pods[1]);
            assert_eq!(second.is_ok(), fits, "{second:?}");
            if let Err(no) = second {
                assert!(
                    no.more_nodes_help && no.why.contains("nodeTaintsPolicy: Honor"),
                    "{no:?}"
                );
            }
        }
    }
}
