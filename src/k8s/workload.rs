//! Workloads: the restart that brings a new pod up before the old one goes.

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::api_call::{STRATEGIC_PATCH_CONTENT_TYPE, with_field_manager};
use super::convert;
use crate::k8s::KubeApi;
use crate::model::kube::{NamespacedName, Workload};
use crate::model::{ApiError, ErrorClass};

/// The annotation by which `kubectl rollout restart` makes a new revision.
const RESTARTED_AT_ANNOTATION: &str = "kubectl.kubernetes.io/restartedAt";

impl KubeApi {
    /// Restarts a Deployment as `kubectl rollout restart` does. `at` is what the annotation says, so that a repeat
    /// starts no second rollout.
    pub async fn restart_deployment(
        &self,
        deployment: &NamespacedName,
        at: Timestamp,
    ) -> Result<(), ApiError> {
        let path = with_field_manager(&format!(
            "/apis/apps/v1/namespaces/{}/deployments/{}",
            deployment.namespace, deployment.name
        ));
        let at = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let body = json!({ "spec": { "template": { "metadata": { "annotations": { RESTARTED_AT_ANNOTATION: at } } } } });
        self.send_json::<Value>(
            "patch deployments",
            Method::PATCH,
            &path,
            STRATEGIC_PATCH_CONTENT_TYPE,
            &body,
        )
        .await?;
        Ok(())
    }

    /// One workload, read now. `kind`: Deployment, ReplicaSet, StatefulSet, DaemonSet or Job.
    pub async fn read_workload(
        &self,
        kind: &str,
        key: &NamespacedName,
    ) -> Result<Workload, ApiError> {
        // Owners of pods may be of any kind, an operator's too. What cannot be read as a workload is an error and not a
        // workload that wants nothing.
        let (group, plural) = match kind {
            "Deployment" => ("apps/v1", "deployments"),
            "ReplicaSet" => ("apps/v1", "replicasets"),
            "StatefulSet" => ("apps/v1", "statefulsets"),
            "DaemonSet" => ("apps/v1", "daemonsets"),
            "Job" => ("batch/v1", "jobs"),
            other => {
                return Err(ApiError::new(
                    "get workloads",
                    ErrorClass::Invalid,
                    format!("`{other}` is not a kind of workload that eksup reads ({key})"),
                ));
            }
        };
        let op = format!("get {plural}");
        let path = format!(
            "/apis/{group}/namespaces/{}/{plural}/{}",
            key.namespace, key.name
        );
        // Each kind has a conversion of its own, since each counts its pods in other fields.
        match kind {
            "Deployment" => self
                .get_json(&op, &path)
                .await
                .map(convert::deployment_to_workload),
            "ReplicaSet" => self
                .get_json(&op, &path)
                .await
                .map(convert::replica_set_to_workload),
            "StatefulSet" => self
                .get_json(&op, &path)
                .await
                .map(convert::stateful_set_to_workload),
            "DaemonSet" => self
                .get_json(&op, &path)
                .await
                .map(convert::daemon_set_to_workload),
            _ => self
                .get_json(&op, &path)
                .await
                .map(convert::job_to_workload),
        }
    }
}
