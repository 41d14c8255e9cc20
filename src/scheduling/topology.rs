//! Values of a topology label, numbered, so that pods are counted in arrays.

use std::collections::HashMap;

use crate::model::kube::Node;

/// One topology label over all nodes.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// By node: the number of its value; absent where the node lacks the label.
    of_node: Vec<Option<u32>>,
    domains: usize,
}

impl Topology {
    /// Numbers the values that `key` has on `nodes`.
    pub fn new<'a>(key: &str, nodes: impl Iterator<Item = &'a Node>) -> Self {
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let mut of_node = Vec::new();
        for node in nodes {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            let value = node.labels.get(key);
            of_node.push(value.map(|v| *numbers.entry(v.as_str()).or_insert(next)));
        }
        Self {
            of_node,
            domains: numbers.len(),
        }
    }

    /// The number of the node's value.
    pub fn domain_of(&self, node: usize) -> Option<usize> {
        self.of_node[node].map(|d| d as usize)
    }

    /// How many values there are.
    pub fn domain_count(&self) -> usize {
        self.domains
    }
}

/// The topologies that have been asked for, by label.
#[derive(Clone, Debug, Default)]
pub struct Topologies {
    by_key: HashMap<String, std::sync::Arc<Topology>>,
}

impl Topologies {
    /// The topology of a label; it is made when it is asked for first.
    pub fn get<'a>(
        &mut self,
        key: &str,
        nodes: impl Iterator<Item = &'a Node>,
    ) -> std::sync::Arc<Topology> {
        if let Some(known) = self.by_key.get(key) {
            return known.clone();
        }
        let made = std::sync::Arc::new(Topology::new(key, nodes));
        self.by_key.insert(key.to_owned(), made.clone());
        made
    }
}
