//! Nodes with their pods, and where one pod more could go.

use std::collections::{BTreeMap, HashMap};

use super::node_affinity;
use super::pod_affinity::{AffinityState, Arrival, Namespaces, Surroundings, in_namespaces};
use super::pod_index::{PodIndex, Slot};
use super::refusal::{NoPlace, Refusal};
use super::resources::NodeLoad;
use super::tolerations::{CORDON_TAINT, untolerated};
use super::topology::Topologies;
use super::topology_spread::SpreadState;
use super::volumes::{self, ClaimVolumes};
use crate::model::kube::{Node, Pod, Resources, Selector, Taint, Volume};
use crate::model::scheduling::PodAffinityTerm;

/// When as many nodes suit a pod, no others are looked for.
const ENOUGH_NODES: usize = 100;

/// A node with its pods.
#[derive(Clone, Debug)]
pub struct NodeState<'a> {
    pub node: &'a Node,
    /// Whether pods may be placed there at all; a node that is not counts as a place over which pods are spread.
    pub open: bool,
    pub load: NodeLoad,
    /// Slots of its pods.
    slots: Vec<usize>,
}

/// Nodes with their pods.
#[derive(Debug)]
pub struct ClusterView<'a> {
    nodes: Vec<NodeState<'a>>,
    by_name: HashMap<&'a str, usize>,
    volumes: &'a ClaimVolumes,
    namespaces: Option<&'a Namespaces>,
    slots: Vec<Slot<'a>>,
    /// Made when a pod asks for other pods first.
    index: PodIndex<'a>,
    any_anti_affinity: bool,
    topologies: Topologies,
    /// By namespace and owner: what is known of pods with terms.
    states: HashMap<(&'a str, &'a str), Vec<PodState<'a>>>,
    moves: Vec<Move>,
    /// The node that is looked at first.
    first_node: usize,
}

/// What a pod asks of other pods, with the pods that are there.
#[derive(Debug)]
struct PodState<'a> {
    pod: &'a Pod,
    spreads: Vec<SpreadState>,
    affinity: AffinityState,
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Came { slot: usize },
    Left { slot: usize, node: usize },
}

/// A state to which the placing can return.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint(usize);

impl<'a> ClusterView<'a> {
    /// Takes nodes without their pods, each with whether pods may be placed there. `namespaces`: their labels, where they
    /// could be read.
    pub fn new(
        nodes: impl IntoIterator<Item = (&'a Node, bool)>,
        volumes: &'a ClaimVolumes,
        namespaces: Option<&'a Namespaces>,
    ) -> Self {
        let nodes: Vec<NodeState<'a>> = nodes
            .into_iter()
            .map(|(node, open)| NodeState {
                node,
                open,
                load: NodeLoad::default(),
                slots: Vec::new(),
            })
            .collect();
        let by_name = nodes.iter().enumerate();
        Self {
            by_name: by_name.map(|(i, n)| (n.node.name.as_str(), i)).collect(),
            nodes,
            volumes,
            namespaces,
            slots: Vec::new(),
            index: PodIndex::default(),
            any_anti_affinity: false,
            topologies: Topologies::default(),
            states: HashMap::new(),
            moves: Vec::new(),
            first_node: 0,
        }
    }

    /// The nodes, as they were given.
    pub fn nodes(&self) -> &[NodeState<'a>] {
        &self.nodes
    }

    /// The number of a node.
    pub fn node_number(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Puts a pod on the node that it names, if that is one of these and the pod has not ended.
    pub fn add(&mut self, pod: &'a Pod) {
        let node = pod.node.as_deref().and_then(|n| self.node_number(n));
        if let Some(node) = node.filter(|_| !pod.finished()) {
            self.put(pod, node);
        }
    }

    /// Puts a pod on a node, whatever keeps it off.
    pub fn put(&mut self, pod: &'a Pod, node: usize) {
        let slot = self.slots.len();
        self.slots.push(Slot { pod, node: None });
        self.any_anti_affinity |= !pod.scheduling.pod_anti_affinity.is_empty();
        self.occupy(slot, node);
        self.moves.push(Move::Came { slot });
    }

    /// Takes room on a node for a pod that is not known.
    pub fn reserve(&mut self, node: usize, requests: Resources, others: &BTreeMap<String, i64>) {
        self.nodes[node].load.add_requests(requests, others, 1);
    }

    /// Takes a pod off the node that it names; whether it was there.
    pub fn remove(&mut self, pod: &Pod) -> bool {
        let node = pod.node.as_deref().and_then(|n| self.node_number(n));
        let Some(node) = node else { return false };
        let of_pod = |slot: &&usize| self.slots[**slot].pod.key == pod.key;
        let Some(slot) = self.nodes[node].slots.iter().find(of_pod).copied() else {
            return false;
        };
        self.vacate(slot);
        self.moves.push(Move::Left { slot, node });
        true
    }

    /// The state as it is now.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint(self.moves.len())
    }

    /// Returns to an earlier state.
    pub fn rollback(&mut self, to: Checkpoint) {
        while self.moves.len() > to.0 {
            match self.moves.pop() {
                Some(Move::Came { slot }) => self.vacate(slot),
                Some(Move::Left { slot, node }) => self.occupy(slot, node),
                None => break,
            }
        }
    }

    /// Places a pod on the node that suits it best: that with the fewest pods of its owner, then with most left.
    ///
    /// # Errors
    /// Why no node takes it.
    pub fn place(&mut self, pod: &'a Pod) -> Result<usize, NoPlace> {
        let judged = self.judge(pod);
        let owner = pod.owner.as_ref().map(|o| o.uid.as_str());
        let score = |node: usize| {
            let state = &self.nodes[node];
            let of_owner = |slot: &&usize| {
                let other = self.slots[**slot].pod.owner.as_ref();
                owner.is_some() && other.map(|o| o.uid.as_str()) == owner
            };
            let brothers = state.slots.iter().filter(of_owner).count();
            let (all, load) = (&state.node.allocatable, &state.load.requests);
            (
                std::cmp::Reverse(brothers),
                all.cpu_millis - load.cpu_millis,
                all.memory_bytes - load.memory_bytes,
                std::cmp::Reverse(node),
            )
        };
        let count = self.nodes.len();
        let first = self.first_node;
        let in_turn = (0..count).map(|i| (first + i) % count);
        let suiting = in_turn.filter(|node| self.nodes[*node].open && judged.suits(self, *node));
        let best = suiting.take(ENOUGH_NODES).max_by_key(|node| score(*node));
        let Some(best) = best else {
            return Err(self.explain(&judged));
        };
        if count > ENOUGH_NODES {
            self.first_node = (first + ENOUGH_NODES) % count;
        }
        self.put(pod, best);
        Ok(best)
    }

    /// Why a node does not take a pod; several reasons only where it is short of several resources.
    pub fn refusals(&mut self, pod: &'a Pod, node: usize) -> Vec<Refusal> {
        let judged = self.judge(pod);
        judged.refusals(self, node)
    }

    /// Reads what the pod asks of other pods and of volumes, before nodes are looked at.
    fn judge(&mut self, pod: &'a Pod) -> Judged<'a> {
        let volumes = volumes::of_pod(self.volumes, pod);
        let one_pod = volumes.iter().filter(|v| volumes::for_one_pod(v));
        let claims: Vec<&str> = one_pod
            .filter_map(|v| v.claim.as_ref().map(|c| c.name.as_str()))
            .collect();
        let uses = |slot: &Slot<'_>| {
            slot.node.is_some()
                && slot.pod.key != pod.key
                && slot.pod.key.namespace == pod.key.namespace
                && slot.pod.claims.iter().any(|c| claims.contains(&c.as_str()))
        };
        let claim_in_use = !claims.is_empty() && self.slots.iter().any(uses);
        let state = self.state_of(pod);
        let spreads = state.map(|at| &self.state(at).spreads);
        let least = spreads.map_or_else(Vec::new, |s| s.iter().map(SpreadState::least).collect());
        let attached = match volumes.is_empty() {
            true => BTreeMap::new(),
            false => volumes::attached_for(self.volumes, pod),
        };
        Judged {
            pod,
            volumes,
            attached,
            claim_in_use,
            state,
            least,
        }
    }

    fn state(&self, at: StateAt<'a>) -> &PodState<'a> {
        &self.states[&at.key][at.place]
    }

    /// Finds or makes the state of a pod; none where neither it nor any other pod asks for pods.
    fn state_of(&mut self, pod: &'a Pod) -> Option<StateAt<'a>> {
        let scheduling = &pod.scheduling;
        let asks = !scheduling.pod_affinity.is_empty()
            || !scheduling.pod_anti_affinity.is_empty()
            || scheduling.topology_spread.iter().any(|c| c.is_required());
        if !asks && !self.any_anti_affinity {
            return None;
        }
        let owner = pod.owner.as_ref().map_or(pod.uid.as_str(), |o| &o.uid);
        let key = (pod.key.namespace.as_str(), owner);
        let known = self.states.get(&key).map_or(&[][..], Vec::as_slice);
        let place = known.iter().position(|s| asks_alike(s.pod, pod));
        let place = place.unwrap_or_else(|| {
            let state = self.make_state(pod);
            let states = self.states.entry(key).or_default();
            states.push(state);
            states.len() - 1
        });
        Some(StateAt { key, place })
    }

    fn make_state(&mut self, pod: &'a Pod) -> PodState<'a> {
        while self.index.indexed < self.slots.len() {
            self.index.push(self.slots[self.index.indexed].pod);
        }
        let namespaces = self.namespaces;
        let mut around = Surroundings {
            nodes: &self.nodes,
            topologies: &mut self.topologies,
            namespaces,
        };
        let mut spreads = SpreadState::of_pod(pod, &mut around);
        let mut affinity = AffinityState::of_pod(pod, &mut around);
        let (index, slots) = (&self.index, &self.slots);
        let arrivals = |namespace: &str, selector: &Selector| {
            let places = index.candidates(namespace, selector).iter();
            let arrival = |slot: &usize| {
                let Slot { pod, node } = slots[*slot];
                node.map(|node| Arrival {
                    pod,
                    node,
                    change: 1,
                })
            };
            places.filter_map(arrival).collect::<Vec<_>>()
        };
        for spread in &mut spreads {
            if let Some(selector) = spread.selector().cloned() {
                let found = arrivals(&pod.key.namespace, &selector);
                found.into_iter().for_each(|a| spread.count(a));
            }
        }
        let in_reach = |term: &PodAffinityTerm| {
            let namespace = pod.key.namespace.as_str();
            let all = index.namespaces();
            let reached = all.filter(|n| in_namespaces(term, namespace, n, namespaces));
            let selector = term.selector.clone();
            let found: Option<Vec<_>> =
                selector.map(|s| reached.flat_map(|n| arrivals(n, &s)).collect());
            found.unwrap_or_default()
        };
        if let Some(first) = pod.scheduling.pod_affinity.first() {
            for arrival in in_reach(first) {
                affinity.count_near(pod, arrival, namespaces);
            }
        }
        for (i, term) in pod.scheduling.pod_anti_affinity.iter().enumerate() {
            for arrival in in_reach(term) {
                affinity.count_away(i, pod, arrival, namespaces);
            }
        }
        for group in &index.anti_affinity {
            let at = group.slots.iter().filter_map(|s| slots[*s].node);
            affinity.count_existing(pod, group.example, at, 1, &mut around);
        }
        PodState {
            pod,
            spreads,
            affinity,
        }
    }

    fn explain(&self, judged: &Judged<'a>) -> NoPlace {
        let mut no_place = NoPlace {
            nodes: 0,
            reasons: BTreeMap::new(),
        };
        for node in (0..self.nodes.len()).filter(|n| self.nodes[*n].open) {
            no_place.nodes += 1;
            for reason in judged.refusals(self, node) {
                *no_place.reasons.entry(reason).or_default() += 1;
            }
        }
        no_place
    }

    fn occupy(&mut self, slot: usize, node: usize) {
        let pod = self.slots[slot].pod;
        self.slots[slot].node = Some(node);
        self.nodes[node].slots.push(slot);
        self.nodes[node].load.add(pod, 1);
        self.attach(pod, node, 1);
        self.count(pod, node, 1);
    }

    fn vacate(&mut self, slot: usize) {
        let pod = self.slots[slot].pod;
        let Some(node) = self.slots[slot].node.take() else {
            return;
        };
        self.nodes[node].slots.retain(|s| *s != slot);
        self.nodes[node].load.add(pod, -1);
        self.attach(pod, node, -1);
        self.count(pod, node, -1);
    }

    /// Counts a pod's volumes as attached to the node, or no more.
    fn attach(&mut self, pod: &Pod, node: usize, times: i64) {
        if !pod.claims.is_empty() {
            let volumes = volumes::attached_for(self.volumes, pod);
            self.nodes[node].load.add_volumes(&volumes, times);
        }
    }

    /// Counts a pod that comes or leaves in what is known of others.
    fn count(&mut self, pod: &'a Pod, node: usize, change: i32) {
        let arrival = Arrival { pod, node, change };
        let repels = !pod.scheduling.pod_anti_affinity.is_empty();
        let mut around = Surroundings {
            nodes: &self.nodes,
            topologies: &mut self.topologies,
            namespaces: self.namespaces,
        };
        for ((namespace, _), states) in &mut self.states {
            for PodState {
                pod: own,
                spreads,
                affinity,
            } in states
            {
                if *namespace == pod.key.namespace {
                    spreads.iter_mut().for_each(|s| s.count(arrival));
                }
                affinity.count(own, arrival, around.namespaces);
                if repels {
                    let at = std::iter::once(node);
                    affinity.count_existing(own, pod, at, change, &mut around);
                }
            }
        }
    }
}

/// Where a pod's state is.
#[derive(Clone, Copy, Debug)]
struct StateAt<'a> {
    key: (&'a str, &'a str),
    place: usize,
}

/// A pod, with what must be known before nodes are looked at.
struct Judged<'a> {
    pod: &'a Pod,
    volumes: Vec<&'a Volume>,
    /// By driver, what they take of a node's limits.
    attached: BTreeMap<String, i64>,
    claim_in_use: bool,
    state: Option<StateAt<'a>>,
    /// By spread constraint.
    least: Vec<i32>,
}

impl<'a> Judged<'a> {
    fn suits(&self, view: &ClusterView<'a>, node: usize) -> bool {
        let NodeState {
            node: object, load, ..
        } = &view.nodes[node];
        load.has_room(object, self.pod)
            && self.refusal_before_room(object, load).is_none()
            && self.refusal_after_room(view, node).is_none()
    }

    fn refusals(&self, view: &ClusterView<'a>, node: usize) -> Vec<Refusal> {
        let NodeState {
            node: object, load, ..
        } = &view.nodes[node];
        if let Some(refusal) = self.refusal_before_room(object, load) {
            return vec![refusal];
        }
        let short = load.shortages(object, self.pod);
        if !short.is_empty() {
            return short;
        }
        self.refusal_after_room(view, node).into_iter().collect()
    }

    fn refusal_before_room(&self, node: &Node, load: &NodeLoad) -> Option<Refusal> {
        let pod = self.pod;
        let cordon = || Taint {
            key: CORDON_TAINT.to_owned(),
            value: None,
            effect: "NoSchedule".to_owned(),
        };
        if node.unschedulable && untolerated(&[cordon()], &pod.tolerations).is_some() {
            return Some(Refusal::Unschedulable);
        }
        if let Some(taint) = untolerated(&node.taints, &pod.tolerations) {
            return Some(Refusal::Taint {
                key: taint.key.clone(),
                value: taint.value.clone().unwrap_or_default(),
            });
        }
        if !node_affinity::matches_pod(pod, &node.name, &node.labels) {
            return Some(Refusal::NodeAffinity);
        }
        load.port_is_taken(pod).then_some(Refusal::HostPort)
    }

    fn refusal_after_room(&self, view: &ClusterView<'a>, node: usize) -> Option<Refusal> {
        if self.claim_in_use {
            return Some(Refusal::ClaimInUse);
        }
        let object = view.nodes[node].node;
        if !view.nodes[node].load.takes_volumes(object, &self.attached) {
            return Some(Refusal::TooManyVolumes);
        }
        if !self.volumes.iter().all(|v| volumes::usable_on(v, object)) {
            return Some(Refusal::VolumeAffinity);
        }
        let state = view.state(self.state?);
        let mut spreads = state.spreads.iter().zip(&self.least);
        spreads
            .find_map(|(spread, least)| spread.refusal(node, *least))
            .or_else(|| state.affinity.refusal(node))
    }
}

/// Labels that are different on each pod of a StatefulSet or an indexed Job.
const OWN_LABELS: [&str; 4] = [
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "pod-index",
];

/// Whether two pods of one owner ask for the same, and are selected by the same.
fn asks_alike(a: &Pod, b: &Pod) -> bool {
    let labels = |pod: &'_ Pod| -> Vec<(String, String)> {
        let shared = pod.labels.iter();
        let shared = shared.filter(|(key, _)| !OWN_LABELS.contains(&key.as_str()));
        shared.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    a.scheduling == b.scheduling
        && a.node_selector == b.node_selector
        && a.tolerations == b.tolerations
        && (a.labels == b.labels || labels(a) == labels(b))
}
