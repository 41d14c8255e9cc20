//! Required affinity and anti-affinity between pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cluster::NodeState;
use super::refusal::Refusal;
use super::topology::{Topologies, Topology};
use crate::model::kube::{Pod, Selector, SelectorExpression};
use crate::model::scheduling::PodAffinityTerm;

/// Labels by namespace.
pub type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// The label that every namespace has, with its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// A pod that comes to a node, or leaves it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'p> {
    pub pod: &'p Pod,
    pub node: usize,
    /// 1 or -1.
    pub change: i32,
}

/// What there is around a pod.
pub struct Surroundings<'s, 'a> {
    pub nodes: &'s [NodeState<'a>],
    pub topologies: &'s mut Topologies,
    /// Absent: they could not be read.
    pub namespaces: Option<&'s Namespaces>,
}

/// What a term selects, and where the pods are that it selects.
#[derive(Clone, Debug)]
pub struct TermState {
    key: String,
    topology: Arc<Topology>,
    /// By domain.
    counts: Vec<i32>,
}

impl TermState {
    fn new(key: &str, around: &mut Surroundings<'_, '_>) -> Self {
        let nodes = around.nodes.iter().map(|n| n.node);
        let topology = around.topologies.get(key, nodes);
        Self {
            key: key.to_owned(),
            counts: vec![0; topology.domains()],
            topology,
        }
    }

    fn count(&mut self, node: usize, change: i32) {
        if let Some(domain) = self.topology.domain(node) {
            self.counts[domain] += change;
        }
    }

    fn has_pods(&self, node: usize) -> bool {
        let domain = self.topology.domain(node);
        domain.is_some_and(|d| self.counts[d] > 0)
    }
}

/// A pod's terms, with the pods that are there.
#[derive(Clone, Debug, Default)]
pub struct AffinityState {
    near: Vec<TermState>,
    /// Whether the pod itself meets all of its affinity terms.
    near_itself: bool,
    away: Vec<TermState>,
    /// Where pods are that do not want the pod near.
    existing: Vec<TermState>,
}

impl AffinityState {
    /// The pod's terms over these nodes, without pods yet.
    pub fn of_pod(pod: &Pod, around: &mut Surroundings<'_, '_>) -> Self {
        let namespaces = around.namespaces;
        let mut states = |terms: &[PodAffinityTerm]| -> Vec<TermState> {
            let keys = terms.iter().map(|t| t.topology_key.as_str());
            keys.map(|key| TermState::new(key, around)).collect()
        };
        // Where namespaces are not known, pods to be near to cannot be found: what cannot be known refuses nothing.
        let known = |n: &Namespaces| !n.is_empty();
        let near = &pod.scheduling.pod_affinity;
        let unknown = !namespaces.is_some_and(known) && near.iter().any(by_namespace_labels);
        Self {
            near: if unknown { Vec::new() } else { states(near) },
            near_itself: selected_by_all(pod, pod, namespaces),
            away: states(&pod.scheduling.pod_anti_affinity),
            existing: Vec::new(),
        }
    }

    /// Counts a pod that comes (1) or leaves (-1), by all terms of `own`.
    pub fn count(&mut self, own: &Pod, arrival: Arrival<'_>, namespaces: Option<&Namespaces>) {
        self.count_near(own, arrival, namespaces);
        for term in 0..self.away.len() {
            self.count_away(term, own, arrival, namespaces);
        }
    }

    /// Counts a pod by the affinity terms of `own`.
    pub fn count_near(&mut self, own: &Pod, arrival: Arrival<'_>, namespaces: Option<&Namespaces>) {
        let Arrival {
            pod: other,
            node,
            change,
        } = arrival;
        if !self.near.is_empty() && selected_by_all(own, other, namespaces) {
            self.near.iter_mut().for_each(|t| t.count(node, change));
        }
    }

    /// Counts a pod by one anti-affinity term of `own`.
    pub fn count_away(
        &mut self,
        term: usize,
        own: &Pod,
        arrival: Arrival<'_>,
        namespaces: Option<&Namespaces>,
    ) {
        let Arrival {
            pod: other,
            node,
            change,
        } = arrival;
        if selects(
            &own.scheduling.pod_anti_affinity[term],
            own,
            other,
            namespaces,
        ) {
            self.away[term].count(node, change);
        }
    }

    /// Counts the anti-affinity of pods like `example` on the nodes `at` against `own`.
    pub fn count_existing(
        &mut self,
        own: &Pod,
        example: &Pod,
        at: impl Iterator<Item = usize> + Clone,
        change: i32,
        around: &mut Surroundings<'_, '_>,
    ) {
        for term in &example.scheduling.pod_anti_affinity {
            if !selects(term, example, own, around.namespaces) {
                continue;
            }
            let known = self
                .existing
                .iter()
                .position(|t| t.key == term.topology_key);
            let place = known.unwrap_or_else(|| {
                self.existing
                    .push(TermState::new(&term.topology_key, around));
                self.existing.len() - 1
            });
            for node in at.clone() {
                self.existing[place].count(node, change);
            }
        }
    }

    /// Why a node does not take the pod.
    pub fn refusal(&self, node: usize) -> Option<Refusal> {
        if let Some(term) = self.near.iter().find(|t| !t.has_pods(node)) {
            let lacks_label = |t: &TermState| t.topology.domain(node).is_none();
            // The first of pods that want to be together is near to itself.
            let none_anywhere = self.near.iter().all(|t| t.counts.iter().all(|c| *c == 0));
            let first = none_anywhere && self.near_itself && !self.near.iter().any(lacks_label);
            if !first {
                return Some(Refusal::PodAffinity {
                    key: term.key.clone(),
                });
            }
        }
        if let Some(term) = self.away.iter().find(|t| t.has_pods(node)) {
            return Some(Refusal::PodAntiAffinity {
                key: term.key.clone(),
            });
        }
        let repelled = self.existing.iter().any(|t| t.has_pods(node));
        repelled.then_some(Refusal::ExistingAntiAffinity)
    }
}

/// Whether all affinity terms of `own` select `other`.
fn selected_by_all(own: &Pod, other: &Pod, namespaces: Option<&Namespaces>) -> bool {
    let terms = &own.scheduling.pod_affinity;
    !terms.is_empty() && terms.iter().all(|t| selects(t, own, other, namespaces))
}

/// Whether a term of `own` selects `other`.
pub fn selects(
    term: &PodAffinityTerm,
    own: &Pod,
    other: &Pod,
    namespaces: Option<&Namespaces>,
) -> bool {
    in_namespaces(term, &own.key.namespace, &other.key.namespace, namespaces)
        && term
            .selector
            .as_ref()
            .is_some_and(|s| s.matches(&other.labels) && keys_match(term, own, other))
}

/// Whether a term of a pod in `own` reaches into `other`. A namespace whose labels could not be read is known by its name.
pub fn in_namespaces(
    term: &PodAffinityTerm,
    own: &str,
    other: &str,
    namespaces: Option<&Namespaces>,
) -> bool {
    let Some(selector) = &term.namespace_selector else {
        return match term.namespaces.is_empty() {
            true => own == other,
            false => term.namespaces.iter().any(|n| n == other),
        };
    };
    let by_name = || {
        let name = (NAMESPACE_NAME.to_owned(), other.to_owned());
        selector.matches(&BTreeMap::from([name]))
    };
    let labels = namespaces.and_then(|all| all.get(other));
    term.namespaces.iter().any(|n| n == other)
        || labels.map_or_else(by_name, |labels| selector.matches(labels))
}

/// Whether a term of the pod selects namespaces by labels of their own.
pub fn selects_namespaces(pod: &Pod) -> bool {
    let scheduling = &pod.scheduling;
    let terms = scheduling
        .pod_affinity
        .iter()
        .chain(&scheduling.pod_anti_affinity);
    terms.into_iter().any(by_namespace_labels)
}

fn by_namespace_labels(term: &PodAffinityTerm) -> bool {
    let by_name = |key: &String| key == NAMESPACE_NAME;
    term.namespace_selector.as_ref().is_some_and(|s| {
        !s.match_labels.keys().all(by_name) || !s.expressions.iter().all(|e| by_name(&e.key))
    })
}

/// Whether the label keys of a term, which the API server merges into its selector, take `other`.
fn keys_match(term: &PodAffinityTerm, own: &Pod, other: &Pod) -> bool {
    let merged = |keys: &[String], operator: &str| Selector {
        match_labels: BTreeMap::new(),
        expressions: keys
            .iter()
            .filter_map(|key| {
                let value = own.labels.get(key)?;
                Some(SelectorExpression {
                    key: key.clone(),
                    operator: operator.to_owned(),
                    values: vec![value.clone()],
                })
            })
            .collect(),
    };
    merged(&term.match_label_keys, "In").matches(&other.labels)
        && merged(&term.mismatch_label_keys, "NotIn").matches(&other.labels)
}
