//! Requirements of node pools and node claims on labels.

use serde_json::Value;

use super::super::json::{list_at, text_at};
use super::super::selector::Labels;

/// Whether a value of a label (or its absence) meets a requirement.
pub fn meets(value: Option<&str>, requirement: &Value) -> bool {
    let values = list_at(requirement, "values");
    let first = || values.first().and_then(Value::as_str);
    let named = |value: &str| values.iter().any(|v| v.as_str() == Some(value));
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<i64>().ok());
    let compare = |holds: fn(i64, i64) -> bool| match (number(value), number(first())) {
        (Some(has), Some(limit)) => holds(has, limit),
        _ => false,
    };
    match text_at(requirement, "operator") {
        "In" => value.is_some_and(named),
        "NotIn" => value.is_none_or(|v| !named(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|has, limit| has > limit),
        "Lt" => compare(|has, limit| has < limit),
        "Gte" => compare(|has, limit| has >= limit),
        "Lte" => compare(|has, limit| has <= limit),
        _ => false,
    }
}

/// Whether labels meet all requirements.
pub fn all_met(labels: &Labels, requirements: &[Value]) -> bool {
    requirements.iter().all(|r| {
        let value = labels.get(text_at(r, "key"));
        meets(value.map(String::as_str), r)
    })
}

/// The only value that requirements leave for a label of somebody's own, where they name values: the first of them.
pub fn custom_labels(requirements: &[Value]) -> Labels {
    let own = requirements
        .iter()
        .filter(|r| text_at(r, "operator") == "In" && !is_well_known(text_at(r, "key")));
    own.filter_map(|r| {
        let value = list_at(r, "values").first()?.as_str()?;
        Some((text_at(r, "key").to_owned(), value.to_owned()))
    })
    .collect()
}

/// Whether a label is one that instance types and zones decide.
pub fn is_well_known(key: &str) -> bool {
    matches!(
        key,
        "topology.kubernetes.io/zone"
            | "topology.kubernetes.io/region"
            | "topology.k8s.aws/zone-id"
            | "node.kubernetes.io/instance-type"
            | "kubernetes.io/arch"
            | "kubernetes.io/os"
            | "karpenter.sh/capacity-type"
            | "karpenter.sh/nodepool"
    ) || key.starts_with("karpenter.k8s.aws/")
        || key.starts_with("eks.amazonaws.com/")
}
