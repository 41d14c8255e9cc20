//! Pod affinity and anti-affinity: the incoming pod's own, and that of the pods that are there (K8S-SCHED-3).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::super::affinity_term::{AffinityTerm, required_terms};
use super::super::cluster::SimCluster;
use super::super::json::{list_at, number_at};
use super::super::typed_views::{NodeView, PodView};

/// By the topology's value: how many pods are there.
type PodsByDomain = BTreeMap<String, i64>;

/// What a pod wants near, and what must not be near to it.
pub struct PodAffinity {
    /// Of each term: where pods are that match all of them.
    near: Vec<(AffinityTerm, PodsByDomain)>,
    /// Whether it matches all of its own terms.
    likes_itself: bool,
    away: Vec<(AffinityTerm, PodsByDomain)>,
    /// Terms of pods that are there and that mean this one: their topology key and where they are.
    avoided_by: Vec<(AffinityTerm, PodsByDomain)>,
}

impl PodAffinity {
    /// Reads what a pod asks for and looks where the others are.
    pub fn for_pod(cluster: &SimCluster, object: &Value, pod: &PodView) -> Self {
        let path = "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution";
        // All terms must be met in each place (K8S-SCHED-3), so only pods that match every one of them count.
        let terms = required_terms(object, list_at(object, path));
        let likes_itself = terms.iter().all(|t| t.selects(cluster, pod));
        let mut liked = terms
            .first()
            .map(|first| first.pods_on_nodes(cluster))
            .unwrap_or_default();
        liked.retain(|p| terms.iter().all(|t| t.selects(cluster, p)));
        let near = terms
            .into_iter()
            .map(|term| {
                let places = count_by_domain(cluster, &term, &liked);
                (term, places)
            })
            .collect();
        // The pod's own anti-affinity asks where such pods are now.
        let away = pod.avoids.iter().map(|term| {
            let places = count_by_domain(cluster, term, &term.pods_on_nodes(cluster));
            (term.clone(), places)
        });
        // The anti-affinity of the pods that are there keeps the incoming pod away as well. Only terms that select it
        // matter.
        let index = &cluster.store.index;
        let mut avoided_by = Vec::new();
        for (term, nodes) in &index.avoided {
            if !term.selects(cluster, pod) {
                continue;
            }
            let mut places = PodsByDomain::new();
            for (node, count) in nodes {
                let node = index.nodes.get(node);
                if let Some(place) = node.and_then(|n| n.labels.get(&term.topology_key)) {
                    *places.entry(place.clone()).or_default() += count;
                }
            }
            avoided_by.push((term.clone(), places));
        }
        Self {
            near,
            likes_itself,
            away: away.collect(),
            avoided_by,
        }
    }

    /// Whether a node will do, were `gone` no longer on it; else why not, and whether it might help if pods went.
    pub fn check_node(
        &self,
        cluster: &SimCluster,
        pod: &PodView,
        node: &NodeView,
        gone: &[Arc<PodView>],
    ) -> Result<(), (&'static str, bool)> {
        let lacks_label = |(term, _): &(AffinityTerm, PodsByDomain)| {
            !node.labels.contains_key(&term.topology_key)
        };
        let there = |(term, places): &(AffinityTerm, PodsByDomain), gone: i64| {
            let place = node.labels.get(&term.topology_key);
            place.is_some_and(|v| places.get(v).copied().unwrap_or(0) > gone)
        };
        const AFFINITY_MISMATCH: (&str, bool) = ("node(s) didn't match pod affinity rules", false);
        // A node without the label of a term is in no place at all.
        if self.near.iter().any(lacks_label) {
            return Err(AFFINITY_MISMATCH);
        }
        // The first of a group that wants to be together is near to itself.
        let nobody = self.near.iter().all(|(_, places)| places.is_empty());
        let leaves = |p: &&Arc<PodView>| self.near.iter().all(|(t, _)| t.selects(cluster, p));
        let leaving = if self.near.is_empty() {
            0
        } else {
            gone.iter().filter(leaves).count() as i64
        };
        let near_all = self.near.iter().all(|n| there(n, leaving));
        let is_first = nobody && self.likes_itself;
        if !near_all && !is_first {
            return Err(AFFINITY_MISMATCH);
        }
        // Where enough of the pods in question would leave, the node would do: the counts are compared with how many
        // leave.
        let refused = |near: &(AffinityTerm, PodsByDomain)| {
            let leaving = gone.iter().filter(|p| near.0.selects(cluster, p));
            there(near, leaving.count() as i64)
        };
        if self.away.iter().any(refused) {
            return Err(("node(s) didn't match pod anti-affinity rules", true));
        }
        let refused = |near: &(AffinityTerm, PodsByDomain)| {
            let leaving = gone.iter().filter(|p| p.avoids.contains(&near.0));
            near.0.selects(cluster, pod) && there(near, leaving.count() as i64)
        };
        if self.avoided_by.iter().any(refused) {
            return Err((
                "node(s) didn't satisfy existing pods anti-affinity rules",
                true,
            ));
        }
        Ok(())
    }
}

fn count_by_domain(
    cluster: &SimCluster,
    term: &AffinityTerm,
    pods: &[Arc<PodView>],
) -> PodsByDomain {
    let mut places = PodsByDomain::new();
    for pod in pods {
        let node = cluster.store.index.nodes.get(&pod.node);
        if let Some(place) = node.and_then(|n| n.labels.get(&term.topology_key)) {
            *places.entry(place.clone()).or_default() += 1;
        }
    }
    places
}

/// A preference about where other pods are.
pub struct AffinityPreference {
    /// Negative for pods to be away from.
    weight: i64,
    term: AffinityTerm,
    places: PodsByDomain,
}

/// Reads a pod's preferences.
pub fn read_preferences(cluster: &SimCluster, object: &Value) -> Vec<AffinityPreference> {
    let mut found = Vec::new();
    // Anti-affinity weighs like affinity, with a negative sign.
    for (kind, sign) in [("podAffinity", 1), ("podAntiAffinity", -1)] {
        let path = format!("spec.affinity.{kind}.preferredDuringSchedulingIgnoredDuringExecution");
        for preferred in list_at(object, &path) {
            let Some(term) = preferred.get("podAffinityTerm") else {
                continue;
            };
            let Some(term) = required_terms(object, std::slice::from_ref(term)).pop() else {
                continue;
            };
            found.push(AffinityPreference {
                weight: sign * number_at(preferred, "weight").unwrap_or(1),
                places: count_by_domain(cluster, &term, &term.pods_on_nodes(cluster)),
                term,
            });
        }
    }
    found
}

impl AffinityPreference {
    /// What it adds to a node's score.
    pub fn score_node(&self, node: &NodeView) -> i64 {
        let place = node.labels.get(&self.term.topology_key);
        let there = place.and_then(|v| self.places.get(v)).copied().unwrap_or(0);
        2 * self.weight * there
    }
}
