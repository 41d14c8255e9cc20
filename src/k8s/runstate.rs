//! The run's state in the cluster: a ConfigMap for the checkpoint, a Lease for the lock. Every write is fenced by the
//! `resourceVersion` that was read.

use std::collections::BTreeMap;

use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::call::{JSON, MERGE_PATCH, managed};
use crate::k8s::Kube;
use crate::model::marks::{RUN_NAME, RUN_NAMESPACE};
use crate::model::{ApiError, Class};

/// The checkpoint as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// What changes with every record.
    pub state: String,
    /// What the run is bound to.
    pub bound: String,
    pub meta: Meta,
}

/// What fences the next write of a checkpoint, and what others have put on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    pub resource_version: String,
    pub annotations: BTreeMap<String, String>,
}

/// A change of a checkpoint that was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    pub state: Option<&'a str>,
    /// Absent where it is as it was read.
    pub bound: Option<&'a str>,
    /// An annotation that is set.
    pub with: Option<(&'a str, &'a str)>,
    /// Annotations that go.
    pub without: &'a [String],
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

/// The ConfigMap's keys.
const STATE: &str = "checkpoint";
const BOUND: &str = "bound";
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

    /// Creates the checkpoint. Conflict when there is one.
    pub async fn create_checkpoint(&self, state: &str, bound: &str) -> Result<Meta, ApiError> {
        let body = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(""),
            "data": { STATE: state, BOUND: bound },
        });
        let path = all("/api/v1", "configmaps");
        let written = self.write("create configmaps", Method::POST, &path, JSON, &body);
        Ok(meta(written.await?))
    }

    /// Changes the checkpoint as it was read at this version; all else stays as it is. Conflict when someone else wrote.
    pub async fn change_checkpoint(
        &self,
        version: &str,
        change: Change<'_>,
    ) -> Result<Meta, ApiError> {
        let mut patch = json!({ "metadata": metadata(version) });
        let texts = [(STATE, change.state), (BOUND, change.bound)];
        for (key, text) in texts.into_iter().filter_map(|(k, t)| Some((k, t?))) {
            patch["data"][key] = json!(text);
        }
        if let Some((key, value)) = change.with {
            patch["metadata"]["annotations"][key] = json!(value);
        }
        for key in change.without {
            patch["metadata"]["annotations"][key] = Value::Null;
        }
        let path = managed(&one("/api/v1", "configmaps"));
        let written = self.write(
            "patch configmaps",
            Method::PATCH,
            &path,
            MERGE_PATCH,
            &patch,
        );
        Ok(meta(written.await.map_err(deleted)?))
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
        let group = "/apis/coordination.k8s.io/v1";
        let written = if resource_version.is_empty() {
            let path = all(group, "leases");
            self.write("create leases", Method::POST, &path, JSON, &body)
                .await
        } else {
            let path = managed(&one(group, "leases"));
            self.write("update leases", Method::PUT, &path, JSON, &body)
                .await
                .map_err(deleted)
        };
        Ok(Held {
            renewed_at: Some(now),
            resource_version: written?.resource_version.unwrap_or_default(),
            ..held.clone()
        })
    }
}

/// Deleted since it was read: somebody else had a hand in it, which is what a Conflict says.
fn deleted(mut error: ApiError) -> ApiError {
    if error.class == Class::Absent {
        error.class = Class::Conflict;
    }
    error
}

fn all(group: &str, plural: &str) -> String {
    managed(&format!("{group}/namespaces/{RUN_NAMESPACE}/{plural}"))
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
    let mut data = map.data.unwrap_or_default();
    Stored {
        state: data.remove(STATE).unwrap_or_default(),
        bound: data.remove(BOUND).unwrap_or_default(),
        meta: meta(map.metadata),
    }
}

fn meta(meta: ObjectMeta) -> Meta {
    Meta {
        resource_version: meta.resource_version.unwrap_or_default(),
        annotations: meta.annotations.unwrap_or_default(),
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
