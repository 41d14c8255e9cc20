//! EKS's rules for the sizes, labels and taints of node groups (EKS-NG-30).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::twin::aws::call::Input;

/// Label prefixes that belong to Kubernetes and EKS.
const RESERVED_LABEL_PREFIXES: &[&str] = &["kubernetes.io/", "k8s.io/", "eks.amazonaws.com/"];
/// Domains below them whose labels a kubelet may give itself.
const KUBELET_LABEL_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

/// EKS's rules for sizes.
pub fn check_sizes(min: i64, max: i64, desired: i64) -> Result<(), String> {
    if min < 0 || max < 1 || desired < 0 {
        return Err(format!(
            "Invalid scaling config: minSize {min}, maxSize {max}, desiredSize {desired}"
        ));
    }
    if min > desired {
        return Err(format!(
            "Minimum capacity {min} can't be greater than desired size {desired}"
        ));
    }
    if desired > max {
        return Err(format!(
            "desired capacity {desired} can't be greater than max size {max}"
        ));
    }
    Ok(())
}

/// EKS's rule for updateConfig.
pub fn check_update(update: &Value) -> Result<(), String> {
    let given = ["maxUnavailable", "maxUnavailablePercentage"]
        .iter()
        .filter(|f| update.get(**f).is_some_and(|v| !v.is_null()))
        .count();
    if given > 1 {
        return Err(
            "maxUnavailable and maxUnavailablePercentage cannot both be specified".to_owned(),
        );
    }
    Ok(())
}

/// Whether EKS or the kubelet refuses a label (EKS-NG-30).
fn is_reserved_label(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else {
        return false;
    };
    // A domain below a reserved one is reserved as well (EKS-NG-30).
    let below = |parent: &str| {
        domain == parent
            || domain
                .strip_suffix(parent)
                .is_some_and(|d| d.ends_with('.'))
    };
    let allowed = KUBELET_LABEL_DOMAINS.iter().any(|d| below(d));
    let place = matches!(
        key,
        "topology.kubernetes.io/zone" | "topology.kubernetes.io/region"
    );
    let mut reserved = RESERVED_LABEL_PREFIXES
        .iter()
        .map(|r| r.trim_end_matches('/'));
    !allowed && !place && reserved.any(below)
}

fn is_valid_label_value(value: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    edge(value.chars().next()) && edge(value.chars().last()) && value.chars().all(inner)
}

/// EKS's rules for labels, taints and tags.
pub fn check_labels_and_taints(
    labels: &BTreeMap<String, String>,
    taints: &[Value],
    tags: &BTreeMap<String, String>,
) -> Result<(), String> {
    // EKS refuses these prefixes before anything is made (EKS-NG-30).
    if labels.keys().any(|key| is_reserved_label(key)) {
        return Err(format!(
            "Label cannot contain reserved prefixes [{}]",
            RESERVED_LABEL_PREFIXES.join(", ")
        ));
    }
    if labels.values().any(|v| v.len() > 63) {
        return Err("Label values must be at most 63 characters".to_owned());
    }
    if let Some(bad) = labels.values().find(|v| !is_valid_label_value(v)) {
        return Err(format!(
            "Invalid value: {bad} : field must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        ));
    }
    if taints.len() > 50 {
        return Err("No more than 50 taints may be specified".to_owned());
    }
    for taint in taints {
        let taint = Input(taint);
        let effect = taint.get_text("effect").unwrap_or_default();
        if taint.get_text("key").is_none_or(str::is_empty)
            || !["NO_SCHEDULE", "NO_EXECUTE", "PREFER_NO_SCHEDULE"].contains(&effect)
        {
            return Err(format!("Invalid taint: {}", taint.0));
        }
        if taint.get_text("value").is_some_and(|v| v.len() > 63) {
            return Err("Taint values must be at most 63 characters".to_owned());
        }
    }
    if tags.keys().any(|key| key.starts_with("aws:")) {
        return Err("aws: prefixed tag key names are not allowed for external use.".to_owned());
    }
    Ok(())
}
