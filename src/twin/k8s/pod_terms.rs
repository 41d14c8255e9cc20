//! Terms of pod affinity and anti-affinity: which pods they mean (K8S-SCHED-3).

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::cluster::SimCluster;
use super::json::{list_at, text_at, text_map_at, value_at};
use super::kinds::NAMESPACES;
use super::selector::{LabelSelector, Labels};
use super::store::ObjectName;
use super::typed_views::PodView;

/// A term of required or preferred pod (anti-)affinity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AffinityTerm {
    /// The node label that says what "near" is.
    pub topology_key: String,
    pods: LabelSelector,
    namespaces: BTreeSet<String>,
    /// Adds the namespaces with these labels.
    namespaces_by_label: Option<LabelSelector>,
}

impl AffinityTerm {
    /// Reads a podAffinityTerm of a pod with these labels in this namespace.
    pub fn from_term(ns: &str, labels: &Labels, term: &Value) -> Self {
        let mut pods = LabelSelector::from_spec(value_at(term, "labelSelector"));
        for (field, same) in [("matchLabelKeys", true), ("mismatchLabelKeys", false)] {
            for key in list_at(term, field).iter().filter_map(Value::as_str) {
                if let Some(value) = labels.get(key) {
                    pods.add_value(key, value, same);
                }
            }
        }
        let by_label = value_at(term, "namespaceSelector");
        let named = list_at(term, "namespaces").iter().filter_map(Value::as_str);
        let mut namespaces: BTreeSet<String> = named.map(str::to_owned).collect();
        if namespaces.is_empty() && by_label.is_none() {
            namespaces.insert(ns.to_owned());
        }
        Self {
            topology_key: text_at(term, "topologyKey").to_owned(),
            pods,
            namespaces,
            namespaces_by_label: by_label.map(|s| LabelSelector::from_spec(Some(s))),
        }
    }

    fn is_in_namespace(&self, cluster: &SimCluster, ns: &str) -> bool {
        self.namespaces.contains(ns)
            || self.namespaces_by_label.as_ref().is_some_and(|selector| {
                let found = cluster
                    .store
                    .find_object(NAMESPACES, &ObjectName::new("", ns));
                found.is_some_and(|n| selector.matches(&text_map_at(n, "metadata.labels")))
            })
    }

    /// Whether it means this pod.
    pub fn selects(&self, cluster: &SimCluster, pod: &PodView) -> bool {
        self.pods.matches(&pod.labels) && self.is_in_namespace(cluster, &pod.ns)
    }

    /// The pods on nodes that it means; those that are terminating count, finished ones do not.
    pub fn pods_on_nodes(&self, cluster: &SimCluster) -> Vec<Arc<PodView>> {
        let mut namespaces = self.namespaces.clone();
        if self.namespaces_by_label.is_some() {
            let all = cluster
                .store
                .objects_of(NAMESPACES, "")
                .map(|(n, _)| &n.name);
            namespaces.extend(all.filter(|n| self.is_in_namespace(cluster, n)).cloned());
        }
        let index = &cluster.store.index;
        let mut pods = Vec::new();
        for ns in &namespaces {
            pods.extend(index.selected_pods(ns, &self.pods));
        }
        pods.retain(|p| !p.node.is_empty() && !p.is_finished());
        pods
    }
}

/// What a pod must not be near to.
pub fn avoided_pods(pod: &Value) -> Vec<AffinityTerm> {
    let path = "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    let terms = list_at(pod, path);
    if terms.is_empty() {
        return Vec::new();
    }
    required_terms(pod, terms)
}

/// Reads the terms of a pod.
pub fn required_terms(pod: &Value, terms: &[Value]) -> Vec<AffinityTerm> {
    let labels = text_map_at(pod, "metadata.labels");
    let ns = text_at(pod, "metadata.namespace");
    terms
        .iter()
        .map(|t| AffinityTerm::from_term(ns, &labels, t))
        .collect()
}
