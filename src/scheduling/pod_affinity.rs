//! Required affinity and anti-affinity between pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::node_state::NodeState;
use super::refusal::Refusal;
use super::topology::{Topologies, Topology};
use crate::model::kube::{Pod, Selector, SelectorExpression};
use crate::model::scheduling::PodAffinityTerm;

/// Labels by namespace.
pub type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

/// The label that every namespace has, with its name.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A pod that comes to a node, or leaves it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'p> {
    pub pod: &'p Pod,
    pub node: usize,
    /// 1 or -1.
    pub change: i32,
}

/// What there is around a pod.
pub struct PlacementContext<'s, 'a> {
    pub nodes: &'s [NodeState<'a>],
    pub topologies: &'s mut Topologies,
    /// Absent: they could not be read.
    pub namespaces: Option<&'s NamespaceLabels>,
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
    fn new(key: &str, around: &mut PlacementContext<'_, '_>) -> Self {
        let nodes = around.nodes.iter().map(|n| n.node);
        let topology = around.topologies.get(key, nodes);
        Self {
            key: key.to_owned(),
            counts: vec![0; topology.domain_count()],
            topology,
        }
    }

    fn add_count(&mut self, node: usize, change: i32) {
        if let Some(domain) = self.topology.domain_of(node) {
            self.counts[domain] += change;
        }
    }

    fn has_pods(&self, node: usize) -> bool {
        let domain = self.topology.domain_of(node);
        domain.is_some_and(|d| self.counts[d] > 0)
    }
}

/// A pod's terms, with the pods that are there.
#[derive(Clone, Debug, Default)]
pub struct AffinityState {
    affinity: Vec<TermState>,
    /// Whether the pod itself meets all of its affinity terms.
    affinity_with_itself: bool,
    anti_affinity: Vec<TermState>,
    /// Where pods are that do not want the pod near.
    existing_anti_affinity: Vec<TermState>,
}

impl AffinityState {
    /// The pod's terms over these nodes, without pods yet.
    pub fn of_pod(pod: &Pod, around: &mut PlacementContext<'_, '_>) -> Self {
        let namespaces = around.namespaces;
        let mut states = |terms: &[PodAffinityTerm]| -> Vec<TermState> {
            let keys = terms.iter().map(|t| t.topology_key.as_str());
            keys.map(|key| TermState::new(key, around)).collect()
        };
        // Where namespaces are not known, pods to be near to cannot be found: what cannot be known refuses nothing.
        let known = |n: &NamespaceLabels| !n.is_empty();
        let near = &pod.scheduling.pod_affinity;
        let unknown = !namespaces.is_some_and(known) && near.iter().any(uses_namespace_selector);
        Self {
            affinity: if unknown { Vec::new() } else { states(near) },
            affinity_with_itself: all_terms_select(pod, pod, namespaces),
            anti_affinity: states(&pod.scheduling.pod_anti_affinity),
            existing_anti_affinity: Vec::new(),
        }
    }

    /// Counts a pod that comes (1) or leaves (-1), by all terms of `own`.
    pub fn count_pod(
        &mut self,
        own: &Pod,
        arrival: Arrival<'_>,
        namespaces: Option<&NamespaceLabels>,
    ) {
        self.count_affinity(own, arrival, namespaces);
        for term in 0..self.anti_affinity.len() {
            self.count_anti_affinity(term, own, arrival, namespaces);
        }
    }

    /// Counts a pod by the affinity terms of `own`.
    pub fn count_affinity(
        &mut self,
        own: &Pod,
        arrival: Arrival<'_>,
        namespaces: Option<&NamespaceLabels>,
    ) {
        let Arrival {
            pod: other,
            node,
            change,
        } = arrival;
        if !self.affinity.is_empty() && all_terms_select(own, other, namespaces) {
            self.affinity
                .iter_mut()
                .for_each(|t| t.add_count(node, change));
        }
    }

    /// Counts a pod by one anti-affinity term of `own`.
    pub fn count_anti_affinity(
        &mut self,
        term: usize,
        own: &Pod,
        arrival: Arrival<'_>,
        namespaces: Option<&NamespaceLabels>,
    ) {
        let Arrival {
            pod: other,
            node,
            change,
        } = arrival;
        if term_selects(
            &own.scheduling.pod_anti_affinity[term],
            own,
            other,
            namespaces,
        ) {
            self.anti_affinity[term].add_count(node, change);
        }
    }

    /// Counts the anti-affinity of pods like `example` on the nodes `at` against `own`.
    pub fn count_existing_anti_affinity(
        &mut self,
        own: &Pod,
        example: &Pod,
        at: impl Iterator<Item = usize> + Clone,
        change: i32,
        around: &mut PlacementContext<'_, '_>,
    ) {
        for term in &example.scheduling.pod_anti_affinity {
            if !term_selects(term, example, own, around.namespaces) {
                continue;
            }
            // Terms over the same label are counted together: which pod it is that repels does not matter.
            let known = self
                .existing_anti_affinity
                .iter()
                .position(|t| t.key == term.topology_key);
            let place = known.unwrap_or_else(|| {
                self.existing_anti_affinity
                    .push(TermState::new(&term.topology_key, around));
                self.existing_anti_affinity.len() - 1
            });
            for node in at.clone() {
                self.existing_anti_affinity[place].add_count(node, change);
            }
        }
    }

    /// Why a node does not take the pod.
    pub fn refusal_at(&self, node: usize) -> Option<Refusal> {
        if let Some(term) = self.affinity.iter().find(|t| !t.has_pods(node)) {
            let lacks_label = |t: &TermState| t.topology.domain_of(node).is_none();
            // The first of pods that want to be together is near to itself.
            let none_anywhere = self
                .affinity
                .iter()
                .all(|t| t.counts.iter().all(|c| *c == 0));
            let first = none_anywhere
                && self.affinity_with_itself
                && !self.affinity.iter().any(lacks_label);
            if !first {
                return Some(Refusal::PodAffinity {
                    key: term.key.clone(),
                });
            }
        }
        if let Some(term) = self.anti_affinity.iter().find(|t| t.has_pods(node)) {
            return Some(Refusal::PodAntiAffinity {
                key: term.key.clone(),
            });
        }
        let mut existing = self.existing_anti_affinity.iter();
        let repelling = existing.find(|t| t.has_pods(node))?;
        Some(Refusal::ExistingAntiAffinity {
            key: repelling.key.clone(),
        })
    }
}

/// Whether all affinity terms of `own` select `other`.
fn all_terms_select(own: &Pod, other: &Pod, namespaces: Option<&NamespaceLabels>) -> bool {
    let terms = &own.scheduling.pod_affinity;
    !terms.is_empty()
        && terms
            .iter()
            .all(|t| term_selects(t, own, other, namespaces))
}

/// Whether a term of `own` selects `other`.
pub fn term_selects(
    term: &PodAffinityTerm,
    own: &Pod,
    other: &Pod,
    namespaces: Option<&NamespaceLabels>,
) -> bool {
    reaches_namespace(term, &own.key.namespace, &other.key.namespace, namespaces)
        && term
            .selector
            .as_ref()
            .is_some_and(|s| s.matches(&other.labels) && label_keys_match(term, own, other))
}

/// Whether a term of a pod in `own` reaches into `other`. A namespace whose labels could not be read is known by its name.
pub fn reaches_namespace(
    term: &PodAffinityTerm,
    own: &str,
    other: &str,
    namespaces: Option<&NamespaceLabels>,
) -> bool {
    // Without a selector the list decides, and an empty list means the pod's own namespace.
    let Some(selector) = &term.namespace_selector else {
        return match term.namespaces.is_empty() {
            true => own == other,
            // With both, either is enough.
            false => term.namespaces.iter().any(|n| n == other),
        };
    };
    let by_name = || {
        let name = (NAMESPACE_NAME_LABEL.to_owned(), other.to_owned());
        selector.matches(&BTreeMap::from([name]))
    };
    let labels = namespaces.and_then(|all| all.get(other));
    term.namespaces.iter().any(|n| n == other)
        || labels.map_or_else(by_name, |labels| selector.matches(labels))
}

/// Whether a term of the pod selects namespaces by labels of their own.
pub fn selects_namespaces_by_label(pod: &Pod) -> bool {
    let scheduling = &pod.scheduling;
    let terms = scheduling
        .pod_affinity
        .iter()
        .chain(&scheduling.pod_anti_affinity);
    terms.into_iter().any(uses_namespace_selector)
}

fn uses_namespace_selector(term: &PodAffinityTerm) -> bool {
    let by_name = |key: &String| key == NAMESPACE_NAME_LABEL;
    term.namespace_selector.as_ref().is_some_and(|s| {
        !s.match_labels.keys().all(by_name) || !s.expressions.iter().all(|e| by_name(&e.key))
    })
}

/// Whether the label keys of a term, which the API server merges into its selector, take `other`.
fn label_keys_match(term: &PodAffinityTerm, own: &Pod, other: &Pod) -> bool {
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
