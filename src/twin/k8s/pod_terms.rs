//! Terms of pod affinity and anti-affinity: which pods they mean (K8S-SCHED-3).

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::cluster::Cluster;
use super::facts::Pod;
use super::json::{at, list, text, texts};
use super::kinds::NAMESPACES;
use super::selector::{Labels, Selector};
use super::store::Name;

/// A term of required or preferred pod (anti-)affinity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodTerm {
    /// The node label that says what "near" is.
    pub topology_key: String,
    pods: Selector,
    namespaces: BTreeSet<String>,
    /// Adds the namespaces with these labels.
    namespaces_by_label: Option<Selector>,
}

impl PodTerm {
    /// Reads a podAffinityTerm of a pod with these labels in this namespace.
    pub fn of(ns: &str, labels: &Labels, term: &Value) -> Self {
        let mut pods = Selector::of_spec(at(term, "labelSelector"));
        for (field, same) in [("matchLabelKeys", true), ("mismatchLabelKeys", false)] {
            for key in list(term, field).iter().filter_map(Value::as_str) {
                if let Some(value) = labels.get(key) {
                    pods.add_value(key, value, same);
                }
            }
        }
        let by_label = at(term, "namespaceSelector");
        let named = list(term, "namespaces").iter().filter_map(Value::as_str);
        let mut namespaces: BTreeSet<String> = named.map(str::to_owned).collect();
        if namespaces.is_empty() && by_label.is_none() {
            namespaces.insert(ns.to_owned());
        }
        Self {
            topology_key: text(term, "topologyKey").to_owned(),
            pods,
            namespaces,
            namespaces_by_label: by_label.map(|s| Selector::of_spec(Some(s))),
        }
    }

    fn is_in_namespace(&self, cluster: &Cluster, ns: &str) -> bool {
        self.namespaces.contains(ns)
            || self.namespaces_by_label.as_ref().is_some_and(|selector| {
                let found = cluster.store.find(NAMESPACES, &Name::new("", ns));
                found.is_some_and(|n| selector.matches(&texts(n, "metadata.labels")))
            })
    }

    /// Whether it means this pod.
    pub fn selects(&self, cluster: &Cluster, pod: &Pod) -> bool {
        self.pods.matches(&pod.labels) && self.is_in_namespace(cluster, &pod.ns)
    }

    /// The pods on nodes that it means; those that are terminating count, finished ones do not.
    pub fn pods_on_nodes(&self, cluster: &Cluster) -> Vec<Arc<Pod>> {
        let mut namespaces = self.namespaces.clone();
        if self.namespaces_by_label.is_some() {
            let all = cluster.store.all(NAMESPACES, "").map(|(n, _)| &n.name);
            namespaces.extend(all.filter(|n| self.is_in_namespace(cluster, n)).cloned());
        }
        let index = &cluster.store.index;
        let mut pods = Vec::new();
        for ns in &namespaces {
            pods.extend(index.selected(ns, &self.pods));
        }
        pods.retain(|p| !p.node.is_empty() && !p.finished());
        pods
    }
}

/// What a pod must not be near to.
pub fn avoided_pods(pod: &Value) -> Vec<PodTerm> {
    let path = "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    let terms = list(pod, path);
    if terms.is_empty() {
        return Vec::new();
    }
    required_terms(pod, terms)
}

/// Reads the terms of a pod.
pub fn required_terms(pod: &Value, terms: &[Value]) -> Vec<PodTerm> {
    let labels = texts(pod, "metadata.labels");
    let ns = text(pod, "metadata.namespace");
    terms.iter().map(|t| PodTerm::of(ns, &labels, t)).collect()
}
