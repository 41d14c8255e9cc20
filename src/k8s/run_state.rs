//! The run's state in the cluster: a ConfigMap for the checkpoint, a Lease for the lock. Every write is fenced by the
//! `resourceVersion` that was read.

use std::collections::BTreeMap;

use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::api_call::{JSON_CONTENT_TYPE, MERGE_PATCH_CONTENT_TYPE, with_field_manager};
use crate::k8s::KubeApi;
use crate::model::absent_is_none;
use crate::model::lease_record::LeaseRecord;
use crate::model::marks::{RUN_NAME, RUN_NAMESPACE};
use crate::model::{ApiError, ErrorClass};

/// The checkpoint as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointObject {
    /// What changes with every record.
    pub state: String,
    /// What the run is bound to.
    pub bound: String,
    pub meta: CheckpointMeta,
}

/// What fences the next write of a checkpoint, and what others have put on it.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointMeta {
    pub resource_version: String,
    pub annotations: BTreeMap<String, String>,
}

/// A change of a checkpoint that was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckpointChange<'a> {
    pub state: Option<&'a str>,
    /// Absent where it is as it was read.
    pub bound: Option<&'a str>,
    /// An annotation that is set.
    pub set_annotation: Option<(&'a str, &'a str)>,
    /// Annotations that go.
    pub remove_annotations: &'a [String],
}

/// The ConfigMap's keys.
const CHECKPOINT_KEY: &str = "checkpoint";
const RUN_BINDING_KEY: &str = "bound";
/// The label on both objects.
const MANAGED_BY_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "eksup");
/// Leases count microseconds.
const MICRO_TIME_FORMAT: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

impl KubeApi {
    /// The checkpoint, if a run has left one.
    pub async fn read_checkpoint(&self) -> Result<Option<CheckpointObject>, ApiError> {
        let found: Option<ConfigMap> = absent_is_none(
            self.get_json("get configmaps", &object_path("/api/v1", "configmaps"))
                .await,
        )?;
        Ok(found.map(to_checkpoint_object))
    }

    /// Creates the checkpoint. Conflict when there is one.
    pub async fn create_checkpoint(
        &self,
        state: &str,
        bound: &str,
    ) -> Result<CheckpointMeta, ApiError> {
        let body = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": object_metadata(""),
            "data": { CHECKPOINT_KEY: state, RUN_BINDING_KEY: bound },
        });
        let path = collection_path("/api/v1", "configmaps");
        let written = self.send_for_metadata(
            "create configmaps",
            Method::POST,
            &path,
            JSON_CONTENT_TYPE,
            &body,
        );
        Ok(to_checkpoint_meta(written.await?))
    }

    /// Changes the checkpoint as it was read at this version; all else stays as it is. Conflict when someone else wrote.
    pub async fn change_checkpoint(
        &self,
        version: &str,
        change: CheckpointChange<'_>,
    ) -> Result<CheckpointMeta, ApiError> {
        let mut patch = json!({ "metadata": object_metadata(version) });
        // Only what changed is sent: the binding is most of a checkpoint and is written once.
        let texts = [
            (CHECKPOINT_KEY, change.state),
            (RUN_BINDING_KEY, change.bound),
        ];
        for (key, text) in texts.into_iter().filter_map(|(k, t)| Some((k, t?))) {
            patch["data"][key] = json!(text);
        }
        if let Some((key, value)) = change.set_annotation {
            patch["metadata"]["annotations"][key] = json!(value);
        }
        // A null removes a key in a merge patch.
        for key in change.remove_annotations {
            patch["metadata"]["annotations"][key] = Value::Null;
        }
        // So the object's managedFields say who wrote it.
        let path = with_field_manager(&object_path("/api/v1", "configmaps"));
        let written = self.send_for_metadata(
            "patch configmaps",
            Method::PATCH,
            &path,
            MERGE_PATCH_CONTENT_TYPE,
            &patch,
        );
        Ok(to_checkpoint_meta(
            written.await.map_err(deleted_is_conflict)?,
        ))
    }

    /// The lock, if there ever was one.
    pub async fn read_lease(&self) -> Result<Option<LeaseRecord>, ApiError> {
        let found: Option<Lease> = absent_is_none(
            self.get_json(
                "get leases",
                &object_path("/apis/coordination.k8s.io/v1", "leases"),
            )
            .await,
        )?;
        Ok(found.map(to_lease_record))
    }

    /// Writes the lock, renewed `now`; with an empty `version` creates it. Conflict when someone else wrote.
    pub async fn write_lease(
        &self,
        held: &LeaseRecord,
        now: Timestamp,
    ) -> Result<LeaseRecord, ApiError> {
        let LeaseRecord {
            holder,
            renewed_at: _,
            duration_seconds,
            transitions,
            version,
        } = held;
        // A lock that was given up has no holder: the field is absent then, and not an empty name.
        let holder = if holder.is_empty() {
            Value::Null
        } else {
            json!(holder)
        };
        let body = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": object_metadata(version),
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": duration_seconds,
                "leaseTransitions": transitions,
                "renewTime": now.strftime(MICRO_TIME_FORMAT).to_string(),
            },
        });
        let group = "/apis/coordination.k8s.io/v1";
        // Created without a version, and replaced only with the one that was read: either way a second writer gets a
        // Conflict.
        let written = if version.is_empty() {
            let path = collection_path(group, "leases");
            self.send_for_metadata(
                "create leases",
                Method::POST,
                &path,
                JSON_CONTENT_TYPE,
                &body,
            )
            .await
        } else {
            let path = with_field_manager(&object_path(group, "leases"));
            self.send_for_metadata(
                "update leases",
                Method::PUT,
                &path,
                JSON_CONTENT_TYPE,
                &body,
            )
            .await
            .map_err(deleted_is_conflict)
        };
        Ok(LeaseRecord {
            renewed_at: Some(now),
            version: written?.resource_version.unwrap_or_default(),
            ..held.clone()
        })
    }
}

/// Deleted since it was read: somebody else had a hand in it, which is what a Conflict says.
fn deleted_is_conflict(mut error: ApiError) -> ApiError {
    if error.class == ErrorClass::Absent {
        error.class = ErrorClass::Conflict;
    }
    error
}

fn collection_path(group: &str, plural: &str) -> String {
    with_field_manager(&format!("{group}/namespaces/{RUN_NAMESPACE}/{plural}"))
}

fn object_path(group: &str, plural: &str) -> String {
    format!("{group}/namespaces/{RUN_NAMESPACE}/{plural}/{RUN_NAME}")
}

fn object_metadata(resource_version: &str) -> Value {
    let mut metadata = json!({ "name": RUN_NAME, "namespace": RUN_NAMESPACE, "labels": { (MANAGED_BY_LABEL.0): MANAGED_BY_LABEL.1 } });
    if !resource_version.is_empty() {
        metadata["resourceVersion"] = json!(resource_version);
    }
    metadata
}

fn to_checkpoint_object(map: ConfigMap) -> CheckpointObject {
    let mut data = map.data.unwrap_or_default();
    CheckpointObject {
        state: data.remove(CHECKPOINT_KEY).unwrap_or_default(),
        bound: data.remove(RUN_BINDING_KEY).unwrap_or_default(),
        meta: to_checkpoint_meta(map.metadata),
    }
}

fn to_checkpoint_meta(meta: ObjectMeta) -> CheckpointMeta {
    CheckpointMeta {
        resource_version: meta.resource_version.unwrap_or_default(),
        annotations: meta.annotations.unwrap_or_default(),
    }
}

fn to_lease_record(lease: Lease) -> LeaseRecord {
    let spec = lease.spec.unwrap_or_default();
    LeaseRecord {
        holder: spec.holder_identity.unwrap_or_default(),
        renewed_at: spec.renew_time.map(|at| at.0),
        duration_seconds: spec.lease_duration_seconds,
        transitions: spec.lease_transitions.unwrap_or(0),
        version: lease.metadata.resource_version.unwrap_or_default(),
    }
}
