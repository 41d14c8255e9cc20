//! Labels and taints that a node group has its nodes carry.

use std::collections::BTreeMap;

use serde_json::Value;

use super::call::Input;
use crate::model::kube::Taint;

/// What is put on and taken from the nodes of a group.
#[derive(Clone, Debug, Default)]
pub struct LabelTaintChange {
    pub add_labels: BTreeMap<String, String>,
    pub remove_labels: Vec<String>,
    pub add_taints: Vec<Taint>,
    pub remove_taints: Vec<Taint>,
}

/// A taint of EKS in Kubernetes's spelling.
pub fn to_kube_taint(value: &Value) -> Taint {
    let taint = Input(value);
    let effect = match taint.get_text("effect") {
        Some("NO_EXECUTE") => "NoExecute",
        Some("PREFER_NO_SCHEDULE") => "PreferNoSchedule",
        Some(_) | None => "NoSchedule",
    };
    Taint {
        key: taint.get_text("key").unwrap_or_default().to_owned(),
        value: taint.get_text("value").map(str::to_owned),
        effect: effect.to_owned(),
    }
}
