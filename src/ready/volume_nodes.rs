//! Which nodes a volume is bound to by its node affinity, whatever label the driver of a local disk uses for a node.

use std::collections::BTreeMap;

use crate::model::kube::{Node, SelectorExpression, Volume};
use crate::model::scheduling::NodeSelectorTerm;
use crate::scheduling::node_affinity;

/// How many nodes carry each label.
pub struct LabelCounts<'a> {
    nodes: &'a [Node],
    counts: BTreeMap<(&'a str, &'a str), usize>,
}

impl<'a> LabelCounts<'a> {
    /// Counts the labels of all nodes.
    pub fn new(nodes: &'a [Node]) -> Self {
        let mut counts = BTreeMap::new();
        for (key, value) in nodes.iter().flat_map(|n| &n.labels) {
            *counts.entry((key.as_str(), value.as_str())).or_default() += 1;
        }
        Self { nodes, counts }
    }

    /// The nodes that a volume can be used on, where its node affinity names single nodes. A new node carries no label
    /// that names an old one.
    pub fn nodes_bound_to(&self, volume: &Volume) -> Vec<String> {
        let Some(affinity) = &volume.node_affinity else {
            return Vec::new();
        };
        if affinity.terms.is_empty() || !affinity.terms.iter().all(|t| self.names_nodes(t)) {
            return Vec::new();
        }
        let nodes = self.nodes.iter();
        nodes
            .filter(|n| node_affinity::selector_matches(affinity, &n.name, &n.labels))
            .map(|n| n.name.clone())
            .collect()
    }

    fn names_nodes(&self, term: &NodeSelectorTerm) -> bool {
        let by_field = term.fields.iter().any(|f| f.operator == "In");
        by_field || term.expressions.iter().any(|e| self.is_of_one_node(e))
    }

    /// Whether each value is that of one node: the node's name, or what no other node carries and no node to come will
    /// (K8S-VOL-6).
    fn is_of_one_node(&self, expression: &SelectorExpression) -> bool {
        let key = expression.key.as_str();
        let carried = |value: &String| self.counts.get(&(key, value.as_str())).copied();
        let mut values = expression
            .values
            .iter()
            .filter(|v| carried(v).is_some())
            .peekable();
        let is_name = |value: &str| self.nodes.iter().any(|n| n.name == value);
        let is_own = |value: &String| {
            carried(value) == Some(1)
                && (key == HOSTNAME || !is_common(key))
                && !self.is_place(value)
        };
        expression.operator == "In"
            && values.peek().is_some()
            && values.all(|v| is_name(v) || is_own(v))
    }

    /// Whether a value is the name of a zone or region.
    fn is_place(&self, value: &str) -> bool {
        let places = [
            "topology.kubernetes.io/zone",
            "topology.kubernetes.io/region",
            "topology.k8s.aws/zone-id",
        ];
        places
            .iter()
            .any(|key| self.counts.contains_key(&(*key, value)))
    }
}

const HOSTNAME: &str = "kubernetes.io/hostname";

/// Labels that a new node of the same kind has too, with whatever value the old one has.
fn is_common(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
    let known = [
        "kubernetes.io",
        "beta.kubernetes.io",
        "node.kubernetes.io",
        "topology.kubernetes.io",
        "failure-domain.beta.kubernetes.io",
        "topology.k8s.aws",
        "eks.amazonaws.com",
        "alpha.eksctl.io",
        "karpenter.sh",
    ];
    known.contains(&prefix) || name == "zone" || name == "region"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::scheduling::NodeSelector;
    use crate::route::fixture;

    fn nodes() -> Vec<Node> {
        let mut nodes: Vec<Node> = ["a", "b", "c"]
            .iter()
            .map(|n| fixture::unmanaged_node(n, 27, &format!("zone-{n}")))
            .collect();
        for node in &mut nodes {
            let name = node.name.clone();
            for (key, value) in [
                ("openebs.io/nodename", name.as_str()),
                ("topology.topolvm.io/node", name.as_str()),
                ("kubernetes.io/nodename", name.as_str()),
                ("topology.ebs.csi.aws.com/zone", &format!("zone-{name}")),
                ("driver.example/place", &format!("zone-{name}")),
                ("driver.example/rack", "r1"),
                ("driver.example/disk", &format!("id-{name}")),
            ] {
                node.labels.insert(key.to_owned(), value.to_owned());
            }
        }
        nodes
    }

    /// Key, operator and values.
    type Expression<'a> = (&'a str, &'a str, &'a [&'a str]);

    fn volume(terms: &[&[Expression<'_>]]) -> Volume {
        let term = |expressions: &&[Expression<'_>]| NodeSelectorTerm {
            expressions: expressions
                .iter()
                .map(|(key, operator, values)| SelectorExpression {
                    key: (*key).to_owned(),
                    operator: (*operator).to_owned(),
                    values: values.iter().map(|v| (*v).to_owned()).collect(),
                })
                .collect(),
            fields: Vec::new(),
        };
        let mut inventory = fixture::expense_dev();
        Volume {
            node_affinity: Some(NodeSelector {
                terms: terms.iter().map(term).collect(),
            }),
            ..inventory.volumes.remove(0)
        }
    }

    #[test]
    fn any_label_that_only_one_node_carries_binds_a_volume_to_it() {
        let nodes = nodes();
        let counts = LabelCounts::new(&nodes);
        let bound = |terms: &[&[Expression<'_>]]| counts.nodes_bound_to(&volume(terms));
        assert_eq!(bound(&[&[("openebs.io/nodename", "In", &["a"])]]), ["a"]);
        assert_eq!(
            bound(&[&[("topology.topolvm.io/node", "In", &["b"])]]),
            ["b"]
        );
        assert_eq!(bound(&[&[("driver.example/disk", "In", &["id-c"])]]), ["c"]);
        assert_eq!(bound(&[&[("kubernetes.io/nodename", "In", &["c"])]]), ["c"]);
        // Beside a zone, and in either of two terms.
        let zoned: &[Expression<'_>] = &[
            ("topology.ebs.csi.aws.com/zone", "In", &["zone-a"]),
            ("openebs.io/nodename", "In", &["a"]),
        ];
        assert_eq!(
            bound(&[zoned, &[("openebs.io/nodename", "In", &["c"])]]),
            ["a", "c"]
        );
    }

    #[test]
    fn a_zone_or_what_several_nodes_have_binds_to_no_node() {
        let nodes = nodes();
        let counts = LabelCounts::new(&nodes);
        for (key, operator, value) in [
            // Each zone has one node here.
            ("topology.ebs.csi.aws.com/zone", "In", "zone-a"),
            ("topology.kubernetes.io/zone", "In", "zone-a"),
            ("driver.example/place", "In", "zone-a"),
            ("driver.example/rack", "In", "r1"),
            ("openebs.io/nodename", "NotIn", "a"),
            // Nobody carries it: nothing is known of where it is.
            ("openebs.io/nodename", "In", "gone"),
        ] {
            let volume = volume(&[&[(key, operator, &[value])]]);
            assert!(
                counts.nodes_bound_to(&volume).is_empty(),
                "{key} {operator} {value}"
            );
        }
        let either = volume(&[
            &[("openebs.io/nodename", "In", &["a"])],
            &[("driver.example/rack", "In", &["r1"])],
        ]);
        assert!(counts.nodes_bound_to(&either).is_empty());
    }
}
