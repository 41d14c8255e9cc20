//! Pods as the watch keeps them: found by name, and by the node they are on.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::model::kube::{Key, Pod};

/// The pods of one node, in the order of their keys. Shared, because a large cluster is looked at thousands of times.
pub type OnNode = Arc<Vec<Arc<Pod>>>;

/// All pods.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    all: BTreeMap<Key, Arc<Pod>>,
    on: HashMap<String, OnNode, FixedState>,
}

impl Pods {
    /// The pods on a node.
    pub fn on(&self, node: &str) -> OnNode {
        self.on.get(node).cloned().unwrap_or_default()
    }

    /// Takes a pod that is new or changed.
    pub fn put(&mut self, pod: Arc<Pod>) {
        if let Some(was) = self.all.insert(pod.key.clone(), pod.clone())
            && was.node != pod.node
        {
            self.leave(&was);
        }
        if let Some(node) = &pod.node {
            let here = Arc::make_mut(self.on.entry(node.clone()).or_default());
            match here.binary_search_by(|p| p.key.cmp(&pod.key)) {
                Ok(at) => here[at] = pod,
                Err(at) => here.insert(at, pod),
            }
        }
    }

    /// Takes a pod out.
    pub fn take(&mut self, key: &Key) {
        if let Some(was) = self.all.remove(key) {
            self.leave(&was);
        }
    }

    fn leave(&mut self, pod: &Pod) {
        let Some(node) = &pod.node else { return };
        let Some(here) = self.on.get_mut(node) else {
            return;
        };
        Arc::make_mut(here).retain(|p| p.key != pod.key);
        if here.is_empty() {
            self.on.remove(node);
        }
    }
}

impl Deref for Pods {
    type Target = BTreeMap<Key, Arc<Pod>>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::steps::evictable::tests::pod;

    proptest! {
        #[test]
        fn a_nodes_pods_are_those_that_name_it_whatever_came_and_went(
            writes in prop::collection::vec((0..6u8, prop::option::of(0..4u8)), 0..60),
        ) {
            let mut pods = Pods::default();
            for (name, node) in writes {
                let mut one = pod(&format!("p{name}"), &format!("n{}", node.unwrap_or_default()));
                match node {
                    None => pods.take(&one.key),
                    Some(node) => {
                        one.node = one.node.filter(|_| node > 0);
                        pods.put(Arc::new(one));
                    }
                }
                for node in ["n1", "n2", "n3"] {
                    let named: Vec<_> =
                        pods.values().filter(|p| p.node.as_deref() == Some(node)).cloned().collect();
                    prop_assert_eq!(&*pods.on(node), &named);
                }
                let placed = pods.values().filter(|p| p.node.is_some()).count();
                prop_assert_eq!(pods.on.values().map(|p| p.len()).sum::<usize>(), placed);
            }
        }
    }
}
