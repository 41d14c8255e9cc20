//! A saved plan: plan, route, and what of the cluster they rest on, so that `apply` can refuse when that has drifted.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::atomic_file;
use super::error::RunError;
use super::error::usage_error;
use super::saved_plan_parts::{cluster_parts, route_differences};
use crate::model::Inventory;
use crate::plan::Plan;
use crate::route::Route;

const SAVED_PLAN_KIND: &str = "SavedPlan";
const SAVED_PLAN_API_VERSION: &str = "eksup.dev/v1";

/// A plan that `eksup plan` has written to a file, with its route and what that rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SavedPlan {
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

impl SavedPlan {
    /// Returns what `plan --out` saves: the plan's text, its route and those parts of the cluster that the route rests
    /// on.
    pub fn new(plan_name: String, plan_text: String, route: Route, inventory: &Inventory) -> Self {
        Self {
            api_version: SAVED_PLAN_API_VERSION.to_owned(),
            kind: SAVED_PLAN_KIND.to_owned(),
            cluster_arn: inventory.cluster.arn.clone(),
            taken_at: inventory.taken_at,
            plan_name,
            plan_text,
            route,
            rests_on: cluster_parts(inventory),
        }
    }

    /// Writes the saved plan to `path`, which `eksup apply` reads.
    pub fn write_file(&self, path: &Path) -> Result<(), RunError> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| atomic_file::write_error(path, &e.into()))?;
        atomic_file::write_file(path, &(text + "\n"))
    }

    /// Reads a saved plan; `None` when the file is none (plan files are YAML and begin otherwise) or cannot be read,
    /// which the reader of plan files then reports.
    pub fn read_file(path: &Path) -> Result<Option<Self>, RunError> {
        let Ok(text) = std::fs::read_to_string(path) else {
            return Ok(None);
        };
        // What is no saved plan is left to the reader of plan files, which says what is wrong with it.
        if !text.trim_start().starts_with('{') || !text.contains(&format!("\"{SAVED_PLAN_KIND}\""))
        {
            return Ok(None);
        }
        match serde_json::from_str::<Self>(&text) {
            Ok(saved)
                if saved.api_version == SAVED_PLAN_API_VERSION && saved.kind == SAVED_PLAN_KIND =>
            {
                Ok(Some(saved))
            }
            Ok(saved) => Err(usage_error(format!(
                "{} is `{}` of `{}`; save it again with `eksup plan --out`",
                path.display(),
                saved.kind,
                saved.api_version
            ))),
            Err(e) => Err(usage_error(format!(
                "{} is a saved plan that cannot be read: {e}",
                path.display()
            ))
            .with_hint("save it again with `eksup plan --out`")),
        }
    }

    /// What differs in `inventory` from what the plan rests on; empty when nothing does. Beside each part that was read, the
    /// route itself is drawn again, for what it rests on and no part says.
    pub fn find_drift(&self, plan: &Plan, inventory: &Inventory) -> Vec<String> {
        let now = cluster_parts(inventory);
        let mut drift = Vec::new();
        if self.cluster_arn != inventory.cluster.arn {
            drift.push(format!(
                "cluster: it was {}, now {}",
                self.cluster_arn, inventory.cluster.arn
            ));
        }
        // Parts name the cause of a drift in words. The route is drawn again for what no part says.
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
        drift.extend(route_differences(&self.route, plan, inventory));
        drift
    }
}
