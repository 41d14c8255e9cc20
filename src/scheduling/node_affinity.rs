//! Node selectors: a pod's `nodeSelector` and required node affinity, and a volume's node affinity.

use std::collections::BTreeMap;

use crate::model::kube::{Pod, SelectorExpression, Workload};
use crate::model::scheduling::{NodeSelector, NodeSelectorTerm};

/// Labels of a node.
pub type NodeLabels = BTreeMap<String, String>;

/// The field that a node selector may name.
const NAME_FIELD: &str = "metadata.name";

/// Whether the pod's node selector and required node affinity take a node.
pub fn pod_matches_node(pod: &Pod, node: &str, labels: &NodeLabels) -> bool {
    has_all_labels(&pod.node_selector, labels)
        && optional_selector_matches(pod.scheduling.node_affinity.as_ref(), node, labels)
}

/// Whether the template of a workload takes a node by its node selector and required node affinity.
pub fn workload_matches_node(workload: &Workload, node: &str, labels: &NodeLabels) -> bool {
    let affinity = workload.template.scheduling.node_affinity.as_ref();
    has_all_labels(&workload.node_selector, labels)
        && optional_selector_matches(affinity, node, labels)
}

/// Whether a node has all these labels.
pub fn has_all_labels(wanted: &NodeLabels, labels: &NodeLabels) -> bool {
    wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// Whether a node selector takes a node; none takes all.
pub fn optional_selector_matches(
    selector: Option<&NodeSelector>,
    node: &str,
    labels: &NodeLabels,
) -> bool {
    selector.is_none_or(|s| selector_matches(s, node, labels))
}

/// Whether a node selector takes a node: one of its terms does.
pub fn selector_matches(selector: &NodeSelector, node: &str, labels: &NodeLabels) -> bool {
    selector.terms.iter().any(|t| term_matches(t, node, labels))
}

/// Whether all requirements of a term are met; an empty term is met by no node.
pub fn term_matches(term: &NodeSelectorTerm, node: &str, labels: &NodeLabels) -> bool {
    let empty = term.expressions.is_empty() && term.fields.is_empty();
    !empty
        && (term.expressions.iter()).all(|e| expression_matches(e, labels))
        && term.fields.iter().all(|f| field_matches(f, node))
}

/// Whether labels meet one requirement. Gt and Lt compare whole numbers; what is no number is neither.
pub fn expression_matches(expression: &SelectorExpression, labels: &NodeLabels) -> bool {
    let value = labels.get(&expression.key);
    let compared = || {
        let here: i64 = value?.parse().ok()?;
        let [bound] = expression.values.as_slice() else {
            return None;
        };
        Some(here.cmp(&bound.parse().ok()?))
    };
    match expression.operator.as_str() {
        "In" => value.is_some_and(|v| expression.values.contains(v)),
        "NotIn" => value.is_none_or(|v| !expression.values.contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(std::cmp::Ordering::is_gt),
        "Lt" => compared().is_some_and(std::cmp::Ordering::is_lt),
        _ => false,
    }
}

fn field_matches(requirement: &SelectorExpression, node: &str) -> bool {
    let named = requirement.values.iter().any(|v| v == node);
    match requirement.operator.as_str() {
        _ if requirement.key != NAME_FIELD => false,
        "In" => named,
        "NotIn" => !named,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(key: &str, operator: &str, values: &[&str]) -> SelectorExpression {
        SelectorExpression {
            key: key.into(),
            operator: operator.into(),
            values: values.iter().map(|v| (*v).to_owned()).collect(),
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> NodeLabels {
        let pairs = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        pairs.collect()
    }

    #[test]
    fn every_operator_decides_as_the_scheduler_does() {
        let node = labels(&[("zone", "a"), ("cpus", "8"), ("size", "big")]);
        let table = [
            (expression("zone", "In", &["a", "b"]), true),
            (expression("zone", "In", &["b"]), false),
            (expression("none", "In", &["a"]), false),
            (expression("zone", "NotIn", &["a"]), false),
            (expression("none", "NotIn", &["a"]), true),
            (expression("zone", "Exists", &[]), true),
            (expression("none", "DoesNotExist", &[]), true),
            (expression("zone", "DoesNotExist", &[]), false),
            (expression("cpus", "Gt", &["7"]), true),
            (expression("cpus", "Gt", &["8"]), false),
            (expression("cpus", "Lt", &["10"]), true),
            (expression("size", "Lt", &["10"]), false),
            (expression("none", "Gt", &["1"]), false),
            (expression("zone", "Other", &["a"]), false),
        ];
        for (requirement, expected) in table {
            let met = expression_matches(&requirement, &node);
            assert_eq!(met, expected, "{requirement:?}");
        }
    }

    #[test]
    fn terms_are_alternatives_and_an_empty_term_takes_no_node() {
        let term = |expressions: Vec<SelectorExpression>, fields| NodeSelectorTerm {
            expressions,
            fields,
        };
        let old = term(vec![expression("pool", "In", &["old"])], vec![]);
        let linux = term(vec![expression("os", "In", &["linux"])], vec![]);
        let named = term(vec![], vec![expression(NAME_FIELD, "In", &["n1"])]);
        let node = labels(&[("os", "linux")]);
        let takes =
            |terms: Vec<NodeSelectorTerm>| selector_matches(&NodeSelector { terms }, "n1", &node);
        assert!(takes(vec![old.clone(), linux]));
        assert!(!takes(vec![old.clone()]));
        assert!(takes(vec![old, named]));
        assert!(!takes(vec![term(vec![], vec![])]));
        assert!(!takes(vec![]));
    }
}
