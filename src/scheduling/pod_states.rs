//! What is known of pods that ask for other pods, found by the labels of a pod that comes or leaves.
//!
//! A large cluster has thousands of them, and a pod concerns a few.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::pod_affinity::AffinityState;
use super::topology_spread::SpreadState;
use crate::model::kube::{Pod, Selector};

/// What a pod asks of other pods, with the pods that are there.
#[derive(Debug)]
pub struct PodState<'a> {
    pub pod: &'a Pod,
    pub spreads: Vec<SpreadState>,
    pub affinity: AffinityState,
}

/// Numbers of states by a label's key and value; apart, those that no label tells.
#[derive(Debug, Default)]
struct ByLabel<'a> {
    by_label: HashMap<(&'a str, &'a str), Vec<usize>, FixedState>,
    others: Vec<usize>,
}

impl<'a> ByLabel<'a> {
    fn add(&mut self, label: Option<(&'a str, &'a str)>, number: usize) {
        match label {
            Some(label) => self.by_label.entry(label).or_default().push(number),
            None => self.others.push(number),
        }
    }

    fn of_label<'s>(&'s self, key: &'s str, value: &'s str) -> &'s [usize] {
        let found = self.by_label.get(&(key, value));
        found.map_or(&[][..], Vec::as_slice)
    }
}

/// The states of all pods that were looked at.
#[derive(Debug, Default)]
pub struct PodStates<'a> {
    all: Vec<PodState<'a>>,
    /// By namespace and owner.
    of_owner: HashMap<(&'a str, &'a str), Vec<usize>, FixedState>,
    /// By a label that their terms and constraints ask for.
    asking: ByLabel<'a>,
    /// By the labels of their own pods.
    labelled: ByLabel<'a>,
}

impl<'a> PodStates<'a> {
    /// Returns the state of that number.
    pub fn get(&self, number: usize) -> &PodState<'a> {
        &self.all[number]
    }

    /// One of them, to count in.
    pub fn get_mut(&mut self, number: usize) -> &mut PodState<'a> {
        &mut self.all[number]
    }

    /// The states of an owner's pods.
    pub fn of_owner<'s>(&'s self, namespace: &'s str, owner: &'s str) -> &'s [usize] {
        let found = self.of_owner.get(&(namespace, owner));
        found.map_or(&[][..], Vec::as_slice)
    }

    /// Takes one more state and returns its number. `owner`: the uid by which states of alike pods are found.
    pub fn push_state(&mut self, owner: &'a str, state: PodState<'a>) -> usize {
        let (number, pod) = (self.all.len(), state.pod);
        let of_owner = self.of_owner.entry((&pod.key.namespace, owner));
        of_owner.or_default().push(number);
        let spreads = pod.scheduling.topology_spread.iter();
        let spreads = spreads.filter(|c| c.is_required());
        let near = pod.scheduling.pod_affinity.iter();
        let terms = near.chain(&pod.scheduling.pod_anti_affinity);
        let selectors = spreads
            .map(|c| &c.selector)
            .chain(terms.map(|t| &t.selector));
        // Who selects no pod counts none.
        for selector in selectors.flatten() {
            self.asking.add(needed_label(selector), number);
        }
        for (key, value) in &pod.labels {
            self.labelled.add(Some((key, value)), number);
        }
        self.all.push(state);
        number
    }

    /// Those that may count a pod, each once.
    pub fn concerned_by(&self, pod: &Pod) -> Vec<usize> {
        if self.all.is_empty() {
            return Vec::new();
        }
        let labels = pod.labels.iter();
        let asking = labels.flat_map(|(key, value)| self.asking.of_label(key, value));
        let mut numbers: Vec<usize> = asking.chain(&self.asking.others).copied().collect();
        // Whom its anti-affinity keeps away, by the labels that it asks for.
        for term in &pod.scheduling.pod_anti_affinity {
            match term.selector.as_ref().map(needed_label) {
                Some(Some((key, value))) => {
                    numbers.extend(self.labelled.of_label(key, value));
                }
                Some(None) => return (0..self.all.len()).collect(),
                None => {}
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// A label without which a selector takes no pod, if there is one.
fn needed_label(selector: &Selector) -> Option<(&str, &str)> {
    let label = selector.match_labels.iter().next();
    label.map(|(key, value)| (key.as_str(), value.as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::scheduling::PodAffinityTerm;
    use crate::scheduling::pod_affinity::term_selects;
    use crate::steps::evictable::tests::pod;

    /// A label that a selector asks for, or every pod.
    type Asked = Option<(u8, u8)>;

    fn label((key, value): (u8, u8)) -> (String, String) {
        (format!("k{key}"), format!("v{value}"))
    }

    fn term(asked: Asked) -> PodAffinityTerm {
        PodAffinityTerm {
            topology_key: "kubernetes.io/hostname".into(),
            selector: Some(Selector {
                match_labels: asked.map(label).into_iter().collect(),
                expressions: vec![],
            }),
            namespaces: vec![],
            namespace_selector: None,
            match_label_keys: vec![],
            mismatch_label_keys: vec![],
        }
    }

    proptest! {
        #[test]
        fn a_pod_concerns_all_whose_terms_take_it_and_all_whom_its_own_keep_away(
            pods in prop::collection::vec(
                (
                    prop::collection::vec((0..3u8, 0..3u8), 0..3),
                    prop::collection::vec(prop::option::of((0..3u8, 0..3u8)), 0..3),
                    prop::collection::vec(prop::option::of((0..3u8, 0..3u8)), 0..3),
                ),
                1..12,
            ),
        ) {
            let pods: Vec<Pod> = pods.into_iter().enumerate().map(|(i, (labels, near, away))| {
                let mut pod = pod(&format!("p{i}"), "n1");
                pod.owner = None;
                pod.labels = labels.into_iter().map(label).collect();
                pod.scheduling.pod_affinity = near.into_iter().map(term).collect();
                pod.scheduling.pod_anti_affinity = away.into_iter().map(term).collect();
                pod
            }).collect();
            let mut states = PodStates::default();
            for pod in &pods {
                states.push_state(&pod.uid, PodState { pod, spreads: vec![], affinity: AffinityState::default() });
            }
            for came in &pods {
                let concerned = states.concerned_by(came);
                for (number, own) in pods.iter().enumerate() {
                    let takes = |terms: &[PodAffinityTerm], whose, other| {
                        terms.iter().any(|t| term_selects(t, whose, other, None))
                    };
                    let asks = takes(&own.scheduling.pod_affinity, own, came)
                        || takes(&own.scheduling.pod_anti_affinity, own, came);
                    let kept_away = takes(&came.scheduling.pod_anti_affinity, came, own);
                    prop_assert!(!(asks || kept_away) || concerned.contains(&number));
                }
                let mut once = concerned.clone();
                once.dedup();
                prop_assert_eq!(once, concerned);
            }
        }
    }
}
