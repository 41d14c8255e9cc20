//! What a run is bound to, once and for all. It is most of a checkpoint, so it is made into text once, and written once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A run's route and plan.
#[derive(Debug, Default, PartialEq)]
pub struct RunBinding {
    inner: BindingFields,
    text: Arc<str>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BindingFields {
    run: String,
    route: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    plan: Value,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    workloads: BTreeMap<String, u32>,
}

impl RunBinding {
    /// Binds a run to a route, a plan, and the Ready pods that the workloads had.
    pub fn new(
        run: &str,
        route: Value,
        plan: Value,
        workloads: BTreeMap<String, u32>,
    ) -> Result<Self, serde_json::Error> {
        let run = run.to_owned();
        let inner = BindingFields {
            run,
            route,
            plan,
            workloads,
        };
        let text = serde_json::to_string(&inner)?.into();
        Ok(Self { inner, text })
    }

    /// Reads what [`RunBinding::stored_text`] gave.
    pub fn parse(text: Arc<str>) -> Result<Self, serde_json::Error> {
        let inner = serde_json::from_str(&text)?;
        Ok(Self { inner, text })
    }

    /// Returns the JSON of the binding, as the key `bound` holds it.
    pub fn stored_text(&self) -> Arc<str> {
        self.text.clone()
    }

    /// Returns the id of the run that route and plan belong to.
    pub fn run_id(&self) -> &str {
        &self.inner.run
    }

    /// The route as it was promised.
    pub fn promised_route(&self) -> &Value {
        &self.inner.route
    }

    /// Ready pods of every workload when the run was opened.
    pub fn baseline_counts(&self) -> &BTreeMap<String, u32> {
        &self.inner.workloads
    }

    /// The plan the run was opened with, secrets hidden: to say what differs when another is given.
    pub fn opened_plan(&self) -> &Value {
        &self.inner.plan
    }
}
