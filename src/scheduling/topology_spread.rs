//! Topology spread constraints of the kind DoNotSchedule.

use std::sync::Arc;

use super::node_affinity;
use super::node_state::NodeState;
use super::pod_affinity::{Arrival, PlacementContext};
use super::refusal::Refusal;
use super::tolerations;
use super::topology::Topology;
use crate::model::kube::{Pod, Selector, SelectorExpression};
use crate::model::scheduling::TopologySpread;

/// Marks a domain that has no node which counts.
const NO_DOMAIN: i32 = -1;

/// One constraint of a pod, with the pods that are there.
#[derive(Clone, Debug)]
pub struct SpreadState {
    key: String,
    max_skew: i32,
    min_domains: usize,
    selector: Option<Selector>,
    selects_self: bool,
    topology: Arc<Topology>,
    /// By node: whether it counts.
    counts_node: Vec<bool>,
    /// By domain: how many selected pods there are, or [`NO_DOMAIN`].
    counts: Vec<i32>,
}

impl SpreadState {
    /// The pod's required constraints over these nodes, without pods yet.
    pub fn of_pod(pod: &Pod, around: &mut PlacementContext<'_, '_>) -> Vec<SpreadState> {
        let nodes = around.nodes;
        let constraints = pod.scheduling.topology_spread.iter();
        let required: Vec<&TopologySpread> = constraints.filter(|c| c.is_required()).collect();
        if required.is_empty() {
            return Vec::new();
        }
        let topology = |c: &&TopologySpread| {
            let nodes = nodes.iter().map(|n| n.node);
            around.topologies.get(&c.topology_key, nodes)
        };
        let all: Vec<Arc<Topology>> = required.iter().map(topology).collect();
        // A node counts only where it has the labels of all constraints.
        let has_labels = |node: usize| all.iter().all(|t| t.domain_of(node).is_some());
        let states = required
            .into_iter()
            .zip(&all)
            .map(|(constraint, topology)| {
                let nodes = nodes.iter().enumerate();
                let counts_node: Vec<bool> = nodes
                    .map(|(i, n)| has_labels(i) && is_node_counted(constraint, pod, n))
                    .collect();
                // A domain exists for this pod only where a node counts. An empty one that exists is the smallest of
                // all and limits the skew; one that does not exist limits nothing.
                let mut counts = vec![NO_DOMAIN; topology.domain_count()];
                for (node, _) in counts_node.iter().enumerate().filter(|(_, c)| **c) {
                    if let Some(domain) = topology.domain_of(node) {
                        counts[domain] = 0;
                    }
                }
                let selector = merged_selector(constraint, pod);
                SpreadState {
                    key: constraint.topology_key.clone(),
                    max_skew: constraint.max_skew,
                    min_domains: constraint
                        .min_domains
                        .and_then(|d| usize::try_from(d).ok())
                        .unwrap_or(1),
                    selects_self: selector.as_ref().is_some_and(|s| s.matches(&pod.labels)),
                    selector,
                    topology: topology.clone(),
                    counts_node,
                    counts,
                }
            });
        states.collect()
    }

    /// What the constraint selects; none: no pod.
    pub fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }

    /// Counts a pod of the same namespace that comes (1) or leaves (-1).
    pub fn count_pod(&mut self, arrival: Arrival<'_>) {
        let Arrival { pod, node, change } = arrival;
        let selects = |s: &Selector| s.matches(&pod.labels);
        // Pods that are on their way out do not count.
        if pod.deletion_timestamp.is_some()
            || !self.counts_node[node]
            || !self.selector.as_ref().is_some_and(selects)
            || self.selector.as_ref().is_some_and(selects_all)
        {
            return;
        }
        if let Some(domain) = self.topology.domain_of(node) {
            self.counts[domain] += change;
        }
    }

    /// The fewest selected pods of any domain.
    pub fn fewest_pods(&self) -> i32 {
        let domains = self.counts.iter().filter(|c| **c != NO_DOMAIN);
        if domains.clone().count() < self.min_domains {
            return 0;
        }
        domains.min().copied().unwrap_or(0)
    }

    /// Why a node does not take the pod; `least` as [`SpreadState::fewest_pods`] says.
    pub fn refusal_at(&self, node: usize, least: i32) -> Option<Refusal> {
        let Some(domain) = self.topology.domain_of(node) else {
            return Some(Refusal::SpreadLabel {
                key: self.key.clone(),
            });
        };
        let here = self.counts[domain].max(0);
        let skew = here + i32::from(self.selects_self) - least;
        (skew > self.max_skew).then(|| Refusal::Spread {
            key: self.key.clone(),
        })
    }
}

/// Whether a selector asks for nothing: the schedulers of 1.27 to 1.36 count no pod for it (K8S-SCHED-8).
fn selects_all(selector: &Selector) -> bool {
    selector.match_labels.is_empty() && selector.expressions.is_empty()
}

/// Whether a node counts, by the constraint's policies.
fn is_node_counted(constraint: &TopologySpread, pod: &Pod, node: &NodeState<'_>) -> bool {
    let policy = |policy: &Option<String>, default| {
        policy
            .as_deref()
            .map_or(default, |policy| policy == "Honor")
    };
    let affinity = policy(&constraint.node_affinity_policy, true);
    let taints = policy(&constraint.node_taints_policy, false);
    let (node, labels) = (node.node, &node.node.labels);
    (!affinity || node_affinity::pod_matches_node(pod, &node.name, labels))
        && (!taints || tolerations::first_untolerated(&node.taints, &pod.tolerations).is_none())
}

/// The constraint's selector with the pod's values of its label keys.
fn merged_selector(constraint: &TopologySpread, pod: &Pod) -> Option<Selector> {
    let mut selector = constraint.selector.clone()?;
    for key in &constraint.match_label_keys {
        if let Some(value) = pod.labels.get(key) {
            selector.expressions.push(SelectorExpression {
                key: key.clone(),
                operator: "In".to_owned(),
                values: vec![value.clone()],
            });
        }
    }
    Some(selector)
}
