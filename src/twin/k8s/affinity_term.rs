//! Terms of pod affinity and anti-affinity, as pods have them (K8S-SCHED-3).

use std::collections::BTreeSet;

use serde_json::Value;

use super::json::{list_at, text_at, text_map_at, value_at};
use super::selector::{LabelSelector, Labels};

/// A term of required or preferred pod (anti-)affinity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AffinityTerm {
    /// The node label that says what "near" is.
    pub topology_key: String,
    pub(super) pods: LabelSelector,
    pub(super) namespaces: BTreeSet<String>,
    /// Adds the namespaces with these labels.
    pub(super) namespaces_by_label: Option<LabelSelector>,
}

impl AffinityTerm {
    /// Reads a podAffinityTerm of a pod with these labels in this namespace.
    pub fn from_term(ns: &str, labels: &Labels, term: &Value) -> Self {
        // The selector is narrowed by the pod's own labels; a key that the pod lacks is left out (K8S-SCHED-3).
        let mut pods = LabelSelector::from_spec(value_at(term, "labelSelector"));
        for (field, same) in [("matchLabelKeys", true), ("mismatchLabelKeys", false)] {
            for key in list_at(term, field).iter().filter_map(Value::as_str) {
                if let Some(value) = labels.get(key) {
                    pods.add_value(key, value, same);
                }
            }
        }
        // Without namespaces and without a selector of namespaces the term is about the pod's own namespace.
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
