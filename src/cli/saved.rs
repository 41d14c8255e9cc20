//! A saved plan: plan, route, and what of the cluster they rest on, so that `apply` can refuse when that has drifted.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{CliError, Kind};
use super::start::usage;
use crate::model::{Inventory, eks::Nodegroup};
use crate::route::Route;

const KIND: &str = "SavedPlan";
const API_VERSION: &str = "eksup.dev/v1";

/// A saved plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Saved {
    pub api_version: String,
    pub kind: String,
    pub cluster_arn: String,
    pub taken_at: Timestamp,
    /// The plan file's name and text.
    pub plan_name: String,
    pub plan_text: String,
    pub route: Route,
    /// What the route rests on, part by part.
    pub rests_on: BTreeMap<String, String>,
}

impl Saved {
    /// Puts together what is to be saved.
    pub fn new(plan_name: String, plan_text: String, route: Route, inventory: &Inventory) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            cluster_arn: inventory.cluster.arn.clone(),
            taken_at: inventory.taken_at,
            plan_name,
            plan_text,
            route,
            rests_on: rests_on(inventory),
        }
    }

    /// Writes it.
    pub fn write(&self, path: &Path) -> Result<(), CliError> {
        let failed = |e: &dyn std::fmt::Display| {
            CliError::new(
                Kind::Unexpected,
                format!("cannot write {}: {e}", path.display()),
            )
        };
        let text = serde_json::to_string_pretty(self).map_err(|e| failed(&e))?;
        std::fs::write(path, text + "\n").map_err(|e| failed(&e))
    }

    /// Reads it, when the file is one: plan files are YAML and begin otherwise.
    pub fn read(path: &Path) -> Result<Option<Self>, CliError> {
        let Ok(text) = std::fs::read_to_string(path) else {
            return Ok(None);
        };
        if !text.trim_start().starts_with('{') || !text.contains(&format!("\"{KIND}\"")) {
            return Ok(None);
        }
        match serde_json::from_str::<Self>(&text) {
            Ok(saved) if saved.api_version == API_VERSION && saved.kind == KIND => Ok(Some(saved)),
            Ok(saved) => Err(usage(format!(
                "{} is `{}` of `{}`; save it again with `eksup plan --out`",
                path.display(),
                saved.kind,
                saved.api_version
            ))),
            Err(e) => Err(usage(format!(
                "{} is a saved plan that cannot be read: {e}",
                path.display()
            ))
            .hint("save it again with `eksup plan --out`")),
        }
    }

    /// What differs in `inventory` from what the plan rests on; empty when nothing does.
    pub fn drift(&self, inventory: &Inventory) -> Vec<String> {
        let now = rests_on(inventory);
        let mut drift = Vec::new();
        if self.cluster_arn != inventory.cluster.arn {
            drift.push(format!(
                "cluster: it was {}, now {}",
                self.cluster_arn, inventory.cluster.arn
            ));
        }
        for (part, was) in &self.rests_on {
            match now.get(part) {
                None => drift.push(format!("{part}: it is gone")),
                Some(is) if is != was => drift.push(format!("{part}: it was {was}, now {is}")),
                Some(_) => {}
            }
        }
        drift.extend(
            now.keys()
                .filter(|k| !self.rests_on.contains_key(*k))
                .map(|k| format!("{k}: it is new")),
        );
        drift
    }
}

/// The parts of a cluster that a route rests on. What lives by itself (sizes, pods, health) is not among them.
fn rests_on(inventory: &Inventory) -> BTreeMap<String, String> {
    let mut parts = BTreeMap::new();
    parts.insert(
        "control plane".to_owned(),
        inventory.cluster.version.to_string(),
    );
    for group in &inventory.nodegroups {
        let version = group
            .version
            .map(|v| v.to_string())
            .unwrap_or_else(|| "custom".to_owned());
        let release = group.release_version.as_deref().unwrap_or("-");
        let text = format!("{version} {release} ({})", hash(&shape(group)));
        parts.insert(format!("node group {}", group.name), text);
    }
    for addon in &inventory.addons {
        let config = hash(&(&addon.configuration_values, &addon.service_account_role_arn));
        parts.insert(
            format!("add-on {}", addon.name),
            format!("{} ({config})", addon.version),
        );
    }
    for rule in &inventory.rules {
        let weights: Vec<String> = rule
            .forward
            .iter()
            .map(|f| format!("{}={}", f.arn, f.weight))
            .collect();
        let text = format!(
            "{} ({})",
            weights.join(" "),
            hash(&(&rule.priority, &rule.conditions))
        );
        parts.insert(format!("listener rule {}", rule.arn), text);
    }
    parts
}

/// A node group without what moves by itself.
fn shape(group: &Nodegroup) -> Nodegroup {
    let mut shape = group.clone();
    shape.scaling.desired = 0;
    shape.status = String::new();
    shape.health = Vec::new();
    shape.modified_at = None;
    shape
}

fn hash(value: &impl Serialize) -> String {
    // Plain data with text keys: writing it cannot fail.
    let text = serde_json::to_string(value).unwrap_or_default();
    hex::encode(&Sha256::digest(text)[..4])
}
