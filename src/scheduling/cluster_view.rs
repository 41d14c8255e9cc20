//! Nodes with their pods, and where one pod more could go.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::FixedState;

use super::node_affinity;
use super::node_load::NodeLoad;
use super::node_state::NodeState;
use super::pod_affinity::{
    AffinityState, Arrival, NamespaceLabels, PlacementContext, reaches_namespace,
};
use super::pod_index::{PodIndex, PodSlot};
use super::pod_states::{PodState, PodStates};
use super::refusal::{PlacementFailure, Refusal};
use super::tolerations::{CORDON_TAINT, first_untolerated};
use super::topology::Topologies;
use super::topology_spread::SpreadState;
use super::volumes::{self, ClaimVolumes, VolumesByDriver};
use crate::model::kube::{Node, Pod, Resources, Selector, Taint, Volume};
use crate::model::scheduling::PodAffinityTerm;

/// When as many nodes suit a pod, no others are looked for.
const ENOUGH_NODES: usize = 100;

/// Nodes with their pods, on which pods can be placed and taken off again.
#[derive(Debug)]
pub struct ClusterView<'a> {
    nodes: Vec<NodeState<'a>>,
    by_name: HashMap<&'a str, usize, FixedState>,
    volumes: &'a ClaimVolumes,
    namespaces: Option<&'a NamespaceLabels>,
    slots: Vec<PodSlot<'a>>,
    /// Made when a pod asks for other pods first.
    index: PodIndex<'a>,
    any_anti_affinity: bool,
    topologies: Topologies,
    /// What is known of pods with terms.
    states: PodStates<'a>,
    changes: Vec<PlacementChange>,
    /// The node that is looked at first.
    first_node: usize,
}

#[derive(Clone, Copy, Debug)]
enum PlacementChange {
    Placed { slot: usize },
    Removed { slot: usize, node: usize },
}

/// A state to which the placing can return.
#[derive(Clone, Copy, Debug)]
pub struct PlacementCheckpoint(usize);

impl<'a> ClusterView<'a> {
    /// Takes nodes without their pods, each with whether pods may be placed there. `namespaces`: their labels, where they
    /// could be read.
    pub fn new(
        nodes: impl IntoIterator<Item = (&'a Node, bool)>,
        volumes: &'a ClaimVolumes,
        namespaces: Option<&'a NamespaceLabels>,
    ) -> Self {
        let nodes: Vec<NodeState<'a>> = nodes
            .into_iter()
            .map(|(node, open)| NodeState {
                node,
                accepts_pods: open,
                load: NodeLoad::default(),
                slots: Vec::new(),
            })
            .collect();
        // Names lead to places in the list: nodes are looked up once for each pod, and a large cluster is tried
        // thousands of times.
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
            states: PodStates::default(),
            changes: Vec::new(),
            first_node: 0,
        }
    }

    /// The nodes, as they were given.
    #[cfg(test)]
    pub fn nodes(&self) -> &[NodeState<'a>] {
        &self.nodes
    }

    /// The number of a node.
    pub fn node_number(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Puts a pod on the node that it names, if that is one of these and the pod has not ended.
    pub fn add_pod(&mut self, pod: &'a Pod) {
        let node = pod.node.as_deref().and_then(|n| self.node_number(n));
        if let Some(node) = node.filter(|_| !pod.is_finished()) {
            self.put_pod(pod, node);
        }
    }

    /// Puts a pod on a node, whatever keeps it off.
    pub fn put_pod(&mut self, pod: &'a Pod, node: usize) {
        let slot = self.slots.len();
        self.slots.push(PodSlot { pod, node: None });
        self.any_anti_affinity |= !pod.scheduling.pod_anti_affinity.is_empty();
        self.occupy_slot(slot, node);
        self.changes.push(PlacementChange::Placed { slot });
    }

    /// Takes room on a node for a pod that is not known.
    pub fn reserve_room(
        &mut self,
        node: usize,
        requests: Resources,
        others: &BTreeMap<String, i64>,
    ) {
        self.nodes[node].load.add_requests(requests, others, 1);
    }

    /// Takes a pod off the node that it names; whether it was there.
    pub fn remove_pod(&mut self, pod: &Pod) -> bool {
        let node = pod.node.as_deref().and_then(|n| self.node_number(n));
        let Some(node) = node else { return false };
        let of_pod = |slot: &&usize| self.slots[**slot].pod.key == pod.key;
        let Some(slot) = self.nodes[node].slots.iter().find(of_pod).copied() else {
            return false;
        };
        self.vacate_slot(slot);
        self.changes.push(PlacementChange::Removed { slot, node });
        true
    }

    /// The state as it is now.
    pub fn take_checkpoint(&self) -> PlacementCheckpoint {
        PlacementCheckpoint(self.changes.len())
    }

    /// Returns to an earlier state.
    pub fn rollback_to(&mut self, to: PlacementCheckpoint) {
        while self.changes.len() > to.0 {
            match self.changes.pop() {
                Some(PlacementChange::Placed { slot }) => self.vacate_slot(slot),
                Some(PlacementChange::Removed { slot, node }) => self.occupy_slot(slot, node),
                None => break,
            }
        }
    }

    /// Places a pod on the node that suits it best: that with the fewest pods of its owner, then with most left.
    ///
    /// # Errors
    /// Why no node takes it.
    pub fn place_pod(&mut self, pod: &'a Pod) -> Result<usize, PlacementFailure> {
        let judged = self.prepare_pod(pod);
        let best = self.best_node(&judged);
        let Some(best) = best else {
            return Err(self.explain_failure(&judged));
        };
        self.put_pod(pod, best);
        Ok(best)
    }

    /// The same, without the reasons, which cost as much as the search.
    pub fn try_place_pod(&mut self, pod: &'a Pod) -> Option<usize> {
        let judged = self.prepare_pod(pod);
        let best = self.best_node(&judged)?;
        self.put_pod(pod, best);
        Some(best)
    }

    /// Whether all open nodes refuse a pod for what neither pods that leave nor pods that come change.
    pub fn refuses_for_good(&mut self, pod: &'a Pod) -> bool {
        let judged = self.prepare_pod(pod);
        let mut open = self.nodes.iter().filter(|n| n.accepts_pods);
        open.all(|n| judged.refusal_by_node(n.node).is_some())
    }

    /// The node that suits a pod best; the next search begins with other nodes.
    fn best_node(&mut self, judged: &PreparedPod<'a>) -> Option<usize> {
        let pod = judged.pod;
        let owner = pod.owner.as_ref().map(|o| o.uid.as_str());
        // No score of the scheduler is computed: spreading an owner's pods and filling the emptier node is close enough
        // to tell whether there is room.
        let score = |node: usize| {
            let state = &self.nodes[node];
            let of_owner = |slot: &&usize| {
                let other = self.slots[**slot].pod.owner.as_ref();
                owner.is_some() && other.map(|o| o.uid.as_str()) == owner
            };
            let siblings = state.slots.iter().filter(of_owner).count();
            let (all, load) = (&state.node.allocatable, &state.load.requests);
            (
                std::cmp::Reverse(siblings),
                all.cpu_millis - load.cpu_millis,
                all.memory_bytes - load.memory_bytes,
                std::cmp::Reverse(node),
            )
        };
        let count = self.nodes.len();
        let first = self.first_node;
        // As the scheduler does, a large cluster is searched only until enough nodes suit, from another node each time.
        let in_turn = (0..count).map(|i| (first + i) % count);
        let suiting =
            in_turn.filter(|node| self.nodes[*node].accepts_pods && judged.fits_node(self, *node));
        let best = suiting.take(ENOUGH_NODES).max_by_key(|node| score(*node))?;
        if count > ENOUGH_NODES {
            self.first_node = (first + ENOUGH_NODES) % count;
        }
        Some(best)
    }

    /// Why a node does not take a pod; several reasons only where it is short of several resources. For the conformance
    /// tests, which hold it against the twin's scheduler and a real one.
    #[doc(hidden)]
    pub fn node_refusals(&mut self, pod: &'a Pod, node: usize) -> Vec<Refusal> {
        let judged = self.prepare_pod(pod);
        judged.node_refusals(self, node)
    }

    /// Reads what the pod asks of other pods and of volumes, before nodes are looked at.
    fn prepare_pod(&mut self, pod: &'a Pod) -> PreparedPod<'a> {
        let volumes = volumes::volumes_of_pod(self.volumes, pod);
        // A ReadWriteOncePod claim that another pod uses keeps this one off every node (K8S-SCHED-5).
        let one_pod = volumes.iter().filter(|v| volumes::is_for_one_pod(v));
        let claims: Vec<&str> = one_pod
            .filter_map(|v| v.claim.as_ref().map(|c| c.name.as_str()))
            .collect();
        let uses = |slot: &PodSlot<'_>| {
            slot.node.is_some()
                && slot.pod.key != pod.key
                && slot.pod.key.namespace == pod.key.namespace
                && slot.pod.claims.iter().any(|c| claims.contains(&c.as_str()))
        };
        let claim_in_use = !claims.is_empty() && self.slots.iter().any(uses);
        // Counted once for all nodes, as what other pods are where is the same whichever node is asked about.
        let state = self.find_or_make_state(pod);
        let spreads = state.map(|number| &self.states.get(number).spreads);
        let least = spreads.map_or_else(Vec::new, |s| {
            s.iter().map(SpreadState::fewest_pods).collect()
        });
        let attached = volumes::attached_for(self.volumes, pod);
        PreparedPod {
            pod,
            volumes,
            attached,
            claim_in_use,
            state,
            least,
        }
    }

    /// Finds or makes the state of a pod; none where neither it nor any other pod asks for pods.
    fn find_or_make_state(&mut self, pod: &'a Pod) -> Option<usize> {
        let scheduling = &pod.scheduling;
        let asks = !scheduling.pod_affinity.is_empty()
            || !scheduling.pod_anti_affinity.is_empty()
            || scheduling.topology_spread.iter().any(|c| c.is_required());
        if !asks && !self.any_anti_affinity {
            return None;
        }
        let owner = pod.owner.as_ref().map_or(pod.uid.as_str(), |o| &o.uid);
        let known = self.states.of_owner(&pod.key.namespace, owner).iter();
        let mut known = known.copied();
        let alike = known.find(|number| has_same_requirements(self.states.get(*number).pod, pod));
        Some(alike.unwrap_or_else(|| {
            let state = self.make_pod_state(pod);
            self.states.push_state(owner, state)
        }))
    }

    fn make_pod_state(&mut self, pod: &'a Pod) -> PodState<'a> {
        // The index is made when the first pod asks for it: most clusters have no such pod.
        while self.index.indexed < self.slots.len() {
            self.index.push_pod(self.slots[self.index.indexed].pod);
        }
        let namespaces = self.namespaces;
        let mut around = PlacementContext {
            nodes: &self.nodes,
            topologies: &mut self.topologies,
            namespaces,
        };
        // The states begin without pods and count those that are placed so far; later arrivals are counted as they
        // come.
        let mut spreads = SpreadState::of_pod(pod, &mut around);
        let mut affinity = AffinityState::of_pod(pod, &mut around);
        let (index, slots) = (&self.index, &self.slots);
        let arrivals = |namespace: &str, selector: &Selector| {
            let places = index.candidate_slots(namespace, selector).iter();
            let arrival = |slot: &usize| {
                let PodSlot { pod, node } = slots[*slot];
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
                found.into_iter().for_each(|a| spread.count_pod(a));
            }
        }
        let in_reach = |term: &PodAffinityTerm| {
            let namespace = pod.key.namespace.as_str();
            let all = index.namespaces_with_pods();
            let reached = all.filter(|n| reaches_namespace(term, namespace, n, namespaces));
            let selector = term.selector.clone();
            let found: Option<Vec<_>> =
                selector.map(|s| reached.flat_map(|n| arrivals(n, &s)).collect());
            found.unwrap_or_default()
        };
        // A pod counts for affinity only if all terms select it, so the candidates of the first term are enough.
        if let Some(first) = pod.scheduling.pod_affinity.first() {
            for arrival in in_reach(first) {
                affinity.count_affinity(pod, arrival, namespaces);
            }
        }
        for (i, term) in pod.scheduling.pod_anti_affinity.iter().enumerate() {
            for arrival in in_reach(term) {
                affinity.count_anti_affinity(i, pod, arrival, namespaces);
            }
        }
        // Anti-affinity holds both ways: pods that are there may keep this one off (K8S-SCHED-3).
        for group in &index.anti_affinity {
            let at = group.slots.iter().filter_map(|s| slots[*s].node);
            affinity.count_existing_anti_affinity(pod, group.example, at, 1, &mut around);
        }
        PodState {
            pod,
            spreads,
            affinity,
        }
    }

    fn explain_failure(&self, judged: &PreparedPod<'a>) -> PlacementFailure {
        let mut no_place = PlacementFailure {
            nodes: 0,
            reasons: BTreeMap::new(),
        };
        for node in (0..self.nodes.len()).filter(|n| self.nodes[*n].accepts_pods) {
            no_place.nodes += 1;
            for reason in judged.node_refusals(self, node) {
                *no_place.reasons.entry(reason).or_default() += 1;
            }
        }
        no_place
    }

    fn occupy_slot(&mut self, slot: usize, node: usize) {
        let pod = self.slots[slot].pod;
        self.slots[slot].node = Some(node);
        self.nodes[node].slots.push(slot);
        self.nodes[node].load.add_pod(pod, 1);
        let volumes = volumes::attached_for(self.volumes, pod);
        self.nodes[node].load.attach_volumes(&volumes);
        self.count_change(pod, node, 1);
    }

    fn vacate_slot(&mut self, slot: usize) {
        let pod = self.slots[slot].pod;
        let Some(node) = self.slots[slot].node.take() else {
            return;
        };
        self.nodes[node].slots.retain(|s| *s != slot);
        self.nodes[node].load.add_pod(pod, -1);
        let volumes = volumes::attached_for(self.volumes, pod);
        self.nodes[node].load.detach_volumes(&volumes);
        self.count_change(pod, node, -1);
    }

    /// Counts a pod that comes or leaves in what is known of others.
    fn count_change(&mut self, pod: &'a Pod, node: usize, change: i32) {
        let arrival = Arrival { pod, node, change };
        let repels = !pod.scheduling.pod_anti_affinity.is_empty();
        let mut around = PlacementContext {
            nodes: &self.nodes,
            topologies: &mut self.topologies,
            namespaces: self.namespaces,
        };
        // Only pods whose rules may select this one are counted again.
        for number in self.states.concerned_by(pod) {
            let PodState {
                pod: own,
                spreads,
                affinity,
            } = self.states.get_mut(number);
            // Topology spread counts pods of its own namespace only.
            if own.key.namespace == pod.key.namespace {
                spreads.iter_mut().for_each(|s| s.count_pod(arrival));
            }
            affinity.count_pod(own, arrival, around.namespaces);
            // An anti-affinity holds in both directions: the pod that has it also keeps others away.
            if repels {
                let at = std::iter::once(node);
                affinity.count_existing_anti_affinity(own, pod, at, change, &mut around);
            }
        }
    }
}

/// A pod, with what must be known before nodes are looked at.
struct PreparedPod<'a> {
    pod: &'a Pod,
    volumes: Vec<&'a Volume>,
    /// By driver, those that count against limits of nodes.
    attached: VolumesByDriver<'a>,
    claim_in_use: bool,
    /// Its number.
    state: Option<usize>,
    /// By spread constraint.
    least: Vec<i32>,
}

impl<'a> PreparedPod<'a> {
    fn fits_node(&self, view: &ClusterView<'a>, node: usize) -> bool {
        let NodeState {
            node: object, load, ..
        } = &view.nodes[node];
        load.has_room(object, self.pod)
            && self.refusal_before_room(object, load).is_none()
            && self.refusal_after_room(view, node).is_none()
    }

    fn node_refusals(&self, view: &ClusterView<'a>, node: usize) -> Vec<Refusal> {
        let NodeState {
            node: object, load, ..
        } = &view.nodes[node];
        if let Some(refusal) = self.refusal_before_room(object, load) {
            return vec![refusal];
        }
        let short = load.find_shortages(object, self.pod);
        if !short.is_empty() {
            return short;
        }
        self.refusal_after_room(view, node).into_iter().collect()
    }

    fn refusal_before_room(&self, node: &Node, load: &NodeLoad) -> Option<Refusal> {
        let taken = || load.port_is_taken(self.pod).then_some(Refusal::HostPort);
        self.refusal_by_node(node).or_else(taken)
    }

    /// Why a node does not take the pod, whatever pods are there.
    fn refusal_by_node(&self, node: &Node) -> Option<Refusal> {
        let pod = self.pod;
        let cordon = || Taint {
            key: CORDON_TAINT.to_owned(),
            value: None,
            effect: "NoSchedule".to_owned(),
        };
        if node.unschedulable && first_untolerated(&[cordon()], &pod.tolerations).is_some() {
            return Some(Refusal::Unschedulable);
        }
        if let Some(taint) = first_untolerated(&node.taints, &pod.tolerations) {
            return Some(Refusal::Taint {
                key: taint.key.clone(),
                value: taint.value.clone().unwrap_or_default(),
            });
        }
        let matches = node_affinity::pod_matches_node(pod, &node.name, &node.labels);
        (!matches).then_some(Refusal::NodeAffinity)
    }

    fn refusal_after_room(&self, view: &ClusterView<'a>, node: usize) -> Option<Refusal> {
        if self.claim_in_use {
            return Some(Refusal::ClaimInUse);
        }
        let object = view.nodes[node].node;
        if !view.nodes[node].load.takes_volumes(object, &self.attached) {
            return Some(Refusal::TooManyVolumes);
        }
        if !self
            .volumes
            .iter()
            .all(|v| volumes::is_usable_on(v, object))
        {
            return Some(Refusal::VolumeAffinity);
        }
        let state = view.states.get(self.state?);
        let mut spreads = state.spreads.iter().zip(&self.least);
        spreads
            .find_map(|(spread, least)| spread.refusal_at(node, *least))
            .or_else(|| state.affinity.refusal_at(node))
    }
}

/// Labels that are different on each pod of a StatefulSet or an indexed Job.
const PER_POD_LABELS: [&str; 4] = [
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "pod-index",
];

/// Whether two pods of one owner ask for the same, and are selected by the same.
fn has_same_requirements(a: &Pod, b: &Pod) -> bool {
    let labels = |pod: &'_ Pod| -> Vec<(String, String)> {
        let shared = pod.labels.iter();
        let shared = shared.filter(|(key, _)| !PER_POD_LABELS.contains(&key.as_str()));
        shared.map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    a.scheduling == b.scheduling
        && a.node_selector == b.node_selector
        && a.tolerations == b.tolerations
        && (a.labels == b.labels || labels(a) == labels(b))
}
