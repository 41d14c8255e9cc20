//! The run's state in the cluster: a ConfigMap for the checkpoint, a Lease for the lock. Every write is fenced by the
//! `resourceVersion` that was read.

use std::collections::BTreeMap;

use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::call::managed;
use crate::k8s::Kube;
use crate::model::marks::{RUN_NAME, RUN_NAMESPACE};
use crate::model::{ApiError, Class};

/// The checkpoint as stored, with what fences the next write, and with what others have put on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    pub text: String,
    pub resource_version: String,
    pub annotations: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// The lock as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Empty when released.
    pub holder: String,
    pub renewed_at: Option<Timestamp>,
    pub duration_seconds: i32,
    pub transitions: i32,
    /// Empty to create.
    pub resource_version: String,
}

/// The ConfigMap's key that holds the checkpoint.
const CHECKPOINT: &str = "checkpoint";
/// The label on both objects.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "eksup");
/// Leases count microseconds.
const MICRO_TIME: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

impl Kube {
    /// The checkpoint, if a run has left one.
    pub async fn read_checkpoint(&self) -> Result<Option<Stored>, ApiError> {
        let found: Option<ConfigMap> = absent_is_none(
            self.get("get configmaps", &one("/api/v1", "configmaps"))
                .await,
        )?;
        Ok(found.map(stored))
    }

    /// `over`: what was read, None to create; its annotations and labels are kept. Conflict when someone else wrote.
    pub async fn write_checkpoint(
        &self,
        text: &str,
        over: Option<&Stored>,
    ) -> Result<Stored, ApiError> {
        let mut metadata = metadata(over.map_or("", |o| &o.resource_version));
        if let Some(over) = over {
            metadata["annotations"] = json!(over.annotations);
            let mut labels = over.labels.clone();
            labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
            metadata["labels"] = json!(labels);
        }
        let body = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": { CHECKPOINT: text },
        });
        let written = self
            .put("configmaps", "/api/v1", over.is_some(), &body)
            .await?;
        Ok(Stored {
            text: text.to_owned(),
            resource_version: written.resource_version.unwrap_or_default(),
            annotations: written.annotations.unwrap_or_default(),
            labels: written.labels.unwrap_or_default(),
        })
    }

    /// The lock, if there ever was one.
    pub async fn read_lease(&self) -> Result<Option<Held>, ApiError> {
        let found: Option<Lease> = absent_is_none(
            self.get("get leases", &one("/apis/coordination.k8s.io/v1", "leases"))
                .await,
        )?;
        Ok(found.map(held))
    }

    /// Writes the lock, renewed `now`; with an empty `resource_version` creates it. Conflict when someone else wrote.
    pub async fn write_lease(&self, held: &Held, now: Timestamp) -> Result<Held, ApiError> {
        let Held {
            holder,
            renewed_at: _,
            duration_seconds,
            transitions,
            resource_version,
        } = held;
        let holder = if holder.is_empty() {
            Value::Null
        } else {
            json!(holder)
        };
        let body = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata(resource_version),
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": duration_seconds,
                "leaseTransitions": transitions,
                "renewTime": now.strftime(MICRO_TIME).to_string(),
            },
        });
        let fenced = !resource_version.is_empty();
        let written = self
            .put("leases", "/apis/coordination.k8s.io/v1", fenced, &body)
            .await?;
        Ok(Held {
            renewed_at: Some(now),
            resource_version: written.resource_version.unwrap_or_default(),
            ..held.clone()
        })
    }

    /// Writes an object, and returns its metadata as it is then.
    async fn put(
        &self,
        plural: &str,
        group: &str,
        fenced: bool,
        body: &Value,
    ) -> Result<ObjectMeta, ApiError> {
        if !fenced {
            let path = managed(&format!("{group}/namespaces/{RUN_NAMESPACE}/{plural}"));
            return self
                .write(&format!("create {plural}"), Method::POST, &path, body)
                .await;
        }
        let op = format!("update {plural}");
        self.write(&op, Method::PUT, &managed(&one(group, plural)), body)
            .await
            .map_err(|mut error| {
                // Deleted since it was read: somebody else had a hand in it, which is what a Conflict says.
                if error.class == Class::Absent {
                    error.class = Class::Conflict;
                }
                error
            })
    }
}

fn one(group: &str, plural: &str) -> String {
    format!("{group}/namespaces/{RUN_NAMESPACE}/{plural}/{RUN_NAME}")
}

fn metadata(resource_version: &str) -> Value {
    let mut metadata = json!({ "name": RUN_NAME, "namespace": RUN_NAMESPACE, "labels": { (MANAGED_BY.0): MANAGED_BY.1 } });
    if !resource_version.is_empty() {
        metadata["resourceVersion"] = json!(resource_version);
    }
    metadata
}

fn stored(map: ConfigMap) -> Stored {
    Stored {
        text: map
            .data
            .and_then(|mut data| data.remove(CHECKPOINT))
            .unwrap_or_default(),
        resource_version: map.metadata.resource_version.unwrap_or_default(),
        annotations: map.metadata.annotations.unwrap_or_default(),
        labels: map.metadata.labels.unwrap_or_default(),
    }
}

fn held(lease: Lease) -> Held {
    let spec = lease.spec.unwrap_or_default();
    Held {
        holder: spec.holder_identity.unwrap_or_default(),
        renewed_at: spec.renew_time.map(|at| at.0),
        duration_seconds: spec.lease_duration_seconds.unwrap_or(0),
        transitions: spec.lease_transitions.unwrap_or(0),
        resource_version: lease.metadata.resource_version.unwrap_or_default(),
    }
}

fn absent_is_none<T>(answer: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.class == Class::Absent => Ok(None),
        Err(error) => Err(error),
    }
}
