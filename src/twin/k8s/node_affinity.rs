//! Which nodes a pod may be on by their labels and names (K8S-SCHED-1).

use std::collections::BTreeSet;

use serde_json::Value;

use super::json::{list_at, text_at, text_map_at, value_at};
use super::selector::{LabelSelector, Labels};
use super::typed_views::NodeView;

/// One term of a node selector. A term that says nothing matches nothing.
pub struct NodeTerm {
    labels: LabelSelector,
    /// By the node's name.
    fields: LabelSelector,
}

impl NodeTerm {
    /// Reads a nodeSelectorTerm.
    pub fn from_term(term: &Value) -> Self {
        Self {
            labels: LabelSelector::from_expressions(list_at(term, "matchExpressions")),
            fields: LabelSelector::from_expressions(list_at(term, "matchFields")),
        }
    }

    /// Whether a node matches.
    pub fn matches(&self, node: &NodeView) -> bool {
        if self.labels.is_everything() && self.fields.is_everything() {
            return false;
        }
        let name = || Labels::from([("metadata.name".to_owned(), node.name.clone())]);
        self.labels.matches(&node.labels)
            && (self.fields.is_everything() || self.fields.matches(&name()))
    }
}

/// A pod's node selector and required node affinity.
pub struct RequiredNodes {
    selector: LabelSelector,
    /// One of them must match, where there are any.
    terms: Option<Vec<NodeTerm>>,
}

impl RequiredNodes {
    /// Reads a pod's spec.
    pub fn from_spec(spec: &Value) -> Self {
        Self {
            selector: LabelSelector::from_map(&text_map_at(spec, "nodeSelector")),
            terms: required_affinity(spec).map(|r| {
                let terms = list_at(r, "nodeSelectorTerms").iter();
                terms.map(NodeTerm::from_term).collect()
            }),
        }
    }

    /// Whether a node matches.
    pub fn matches(&self, node: &NodeView) -> bool {
        let terms = self.terms.as_ref();
        self.selector.matches(&node.labels)
            && terms.is_none_or(|ts| ts.iter().any(|t| t.matches(node)))
    }
}

fn required_affinity(spec: &Value) -> Option<&Value> {
    value_at(
        spec,
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
    )
}

/// The nodes that a pod's spec names, where each of its terms names some; only these are looked at.
pub fn named_nodes(spec: &Value) -> Option<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let terms = list_at(required_affinity(spec)?, "nodeSelectorTerms");
    for term in terms {
        let mut named: Option<BTreeSet<String>> = None;
        // Several fields of one term must all hold, so their names are intersected.
        for field in list_at(term, "matchFields") {
            if text_at(field, "key") != "metadata.name" || text_at(field, "operator") != "In" {
                continue;
            }
            let values = list_at(field, "values").iter().filter_map(Value::as_str);
            let values: BTreeSet<String> = values.map(str::to_owned).collect();
            named = Some(match named {
                Some(before) => before.intersection(&values).cloned().collect(),
                None => values,
            });
        }
        // A term that names no node may match any, so the pod is looked at everywhere (K8S-SCHED-1).
        all.extend(named?);
    }
    (!terms.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, labels: Value) -> NodeView {
        NodeView::from_object(&json!({"metadata": {"name": name, "labels": labels}}))
    }

    fn affinity(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    #[test]
    fn terms_are_alternatives_and_know_every_operator() {
        let one = node("one", json!({"pool": "new", "cpus": "16"}));
        let is = |operator: &str, key: &str, values: Value| {
            let expression = json!({"key": key, "operator": operator, "values": values});
            let spec = affinity(json!([{"matchExpressions": [expression]}]));
            RequiredNodes::from_spec(&spec).matches(&one)
        };
        assert!(is("In", "pool", json!(["old", "new"])) && !is("In", "pool", json!(["old"])));
        assert!(is("NotIn", "pool", json!(["old"])) && is("NotIn", "absent", json!(["x"])));
        assert!(is("Exists", "pool", json!([])) && !is("Exists", "absent", json!([])));
        assert!(is("DoesNotExist", "absent", json!([])) && !is("DoesNotExist", "pool", json!([])));
        assert!(is("Gt", "cpus", json!(["8"])) && !is("Gt", "cpus", json!(["16"])));
        assert!(is("Lt", "cpus", json!(["17"])) && !is("Lt", "pool", json!(["17"])));
        let either = affinity(json!([
            {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["old"]}]},
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["one"]}]},
        ]));
        assert!(RequiredNodes::from_spec(&either).matches(&one));
        assert!(!RequiredNodes::from_spec(&either).matches(&node("two", json!({}))));
    }

    #[test]
    fn an_empty_term_and_no_term_match_nothing() {
        let one = node("one", json!({}));
        assert!(!RequiredNodes::from_spec(&affinity(json!([{}]))).matches(&one));
        assert!(!RequiredNodes::from_spec(&affinity(json!([]))).matches(&one));
        assert!(RequiredNodes::from_spec(&json!({})).matches(&one));
    }

    #[test]
    fn only_terms_that_all_name_nodes_narrow_the_search() {
        let name = |n: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [n]}]});
        let found = named_nodes(&affinity(json!([name("a"), name("b")]))).unwrap();
        assert_eq!(found, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        let label = json!({"matchExpressions": [{"key": "x", "operator": "Exists"}]});
        assert!(named_nodes(&affinity(json!([name("a"), label]))).is_none());
        assert!(named_nodes(&json!({})).is_none());
    }
}
