//! Pods as the watch keeps them: found by name, and by the node they are on.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::model::kube::{NamespacedName, Pod};

/// The pods of one node, in the order of their keys. Shared, because a large cluster is looked at thousands of times.
pub type NodePods = Arc<Vec<Arc<Pod>>>;

/// All pods.
#[derive(Clone, Debug, Default)]
pub struct PodsByNode {
    by_key: BTreeMap<NamespacedName, Arc<Pod>>,
    by_node: HashMap<String, NodePods, FixedState>,
}

impl PodsByNode {
    /// The pods on a node.
    pub fn on_node(&self, node: &str) -> NodePods {
        self.by_node.get(node).cloned().unwrap_or_default()
    }

    /// Takes a pod that is new or changed.
    pub fn put_pod(&mut self, pod: Arc<Pod>) {
        // A pod gets its node once it is scheduled, and a StatefulSet's next pod has the name of the last one.
        if let Some(was) = self.by_key.insert(pod.key.clone(), pod.clone())
            && was.node != pod.node
        {
            self.remove_from_node(&was);
        }
        if let Some(node) = &pod.node {
            let here = Arc::make_mut(self.by_node.entry(node.clone()).or_default());
            match here.binary_search_by(|p| p.key.cmp(&pod.key)) {
                Ok(at) => here[at] = pod,
                Err(at) => here.insert(at, pod),
            }
        }
    }

    /// Takes a pod out.
    pub fn remove_pod(&mut self, key: &NamespacedName) {
        if let Some(was) = self.by_key.remove(key) {
            self.remove_from_node(&was);
        }
    }

    fn remove_from_node(&mut self, pod: &Pod) {
        let Some(node) = &pod.node else { return };
        let Some(here) = self.by_node.get_mut(node) else {
            return;
        };
        Arc::make_mut(here).retain(|p| p.key != pod.key);
        if here.is_empty() {
            self.by_node.remove(node);
        }
    }
}

impl Deref for PodsByNode {
    type Target = BTreeMap<NamespacedName, Arc<Pod>>;

    fn deref(&self) -> &Self::Target {
        &self.by_key
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
            let mut pods = PodsByNode::default();
            for (name, node) in writes {
                let mut one = pod(&format!("p{name}"), &format!("n{}", node.unwrap_or_default()));
                match node {
                    None => pods.remove_pod(&one.key),
                    Some(node) => {
                        one.node = one.node.filter(|_| node > 0);
                        pods.put_pod(Arc::new(one));
                    }
                }
                for node in ["n1", "n2", "n3"] {
                    let named: Vec<_> =
                        pods.values().filter(|p| p.node.as_deref() == Some(node)).cloned().collect();
                    prop_assert_eq!(&*pods.on_node(node), &named);
                }
                let placed = pods.values().filter(|p| p.node.is_some()).count();
                prop_assert_eq!(pods.by_node.values().map(|p| p.len()).sum::<usize>(), placed);
            }
        }
    }
}
