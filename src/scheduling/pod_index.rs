//! The pods that are on nodes, found by namespace and label.

use std::collections::HashMap;

use crate::model::kube::{Pod, Selector};
use crate::model::scheduling::PodAffinityTerm;

/// A pod and where it is.
#[derive(Clone, Copy, Debug)]
pub struct PodSlot<'a> {
    pub pod: &'a Pod,
    /// Absent: it has left.
    pub node: Option<usize>,
}

/// Pods with the same anti-affinity.
#[derive(Clone, Debug)]
pub struct AntiAffinityGroup<'a> {
    /// One of them, whose terms and namespace are those of all.
    pub example: &'a Pod,
    pub slots: Vec<usize>,
}

/// The pods of one namespace.
#[derive(Clone, Debug, Default)]
struct NamespacePods<'a> {
    slots: Vec<usize>,
    /// By a label's key and value.
    by_label: HashMap<&'a str, HashMap<&'a str, Vec<usize>>>,
}

/// Finds pods that a selector may take.
#[derive(Clone, Debug, Default)]
pub struct PodIndex<'a> {
    by_namespace: HashMap<&'a str, NamespacePods<'a>>,
    pub anti_affinity: Vec<AntiAffinityGroup<'a>>,
    /// By owner: groups of `anti_affinity`.
    groups: HashMap<&'a str, Vec<usize>>,
    /// How many slots are in it.
    pub indexed: usize,
}

impl<'a> PodIndex<'a> {
    /// Indexes the pod of the next slot. Pods are taken in the order of their slots.
    pub fn push_pod(&mut self, pod: &'a Pod) {
        let slot = self.indexed;
        self.indexed += 1;
        let namespace = self.by_namespace.entry(&pod.key.namespace).or_default();
        namespace.slots.push(slot);
        for (key, value) in &pod.labels {
            let values = namespace.by_label.entry(key).or_default();
            values.entry(value).or_default().push(slot);
        }
        if !pod.scheduling.pod_anti_affinity.is_empty() {
            self.push_anti_affinity(pod, slot);
        }
    }

    fn push_anti_affinity(&mut self, pod: &'a Pod, slot: usize) {
        // What a term with label keys selects depends on the pod's own labels.
        let own_labels = |t: &PodAffinityTerm| {
            !t.match_label_keys.is_empty() || !t.mismatch_label_keys.is_empty()
        };
        let terms = &pod.scheduling.pod_anti_affinity;
        let owner = pod.owner.as_ref().map_or(pod.uid.as_str(), |o| &o.uid);
        let known = self.groups.entry(owner).or_default();
        let same = known.iter().copied().find(|group| {
            let example = self.anti_affinity[*group].example;
            example.scheduling.pod_anti_affinity == *terms
                && example.key.namespace == pod.key.namespace
                && (!terms.iter().any(own_labels) || example.labels == pod.labels)
        });
        if let Some(group) = same {
            self.anti_affinity[group].slots.push(slot);
        } else {
            known.push(self.anti_affinity.len());
            self.anti_affinity.push(AntiAffinityGroup {
                example: pod,
                slots: vec![slot],
            });
        }
    }

    /// Slots of a namespace, among them all whose pod `selector` takes.
    pub fn candidate_slots(&self, namespace: &str, selector: &Selector) -> &[usize] {
        let Some(all) = self.by_namespace.get(namespace) else {
            return &[];
        };
        let labels = selector.match_labels.iter();
        let singles = selector.expressions.iter().filter_map(|e| {
            let [value] = e.values.as_slice() else {
                return None;
            };
            (e.operator == "In").then_some((&e.key, value))
        });
        let lists = labels.chain(singles).map(|(key, value)| {
            let values = all.by_label.get(key.as_str());
            let slots = values.and_then(|v| v.get(value.as_str()));
            slots.map_or(&[][..], Vec::as_slice)
        });
        let shortest = lists.min_by_key(|list| list.len());
        shortest.unwrap_or(&all.slots)
    }

    /// All namespaces that have pods.
    pub fn namespaces_with_pods(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.by_namespace.keys().copied()
    }
}
