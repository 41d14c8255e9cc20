//! Workloads: the restart that brings a new pod up before the old one goes.

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::{STRATEGIC_PATCH, managed};
use super::convert;
use crate::k8s::Kube;
use crate::model::kube::{Key, Workload};
use crate::model::{ApiError, Class};

/// The annotation by which `kubectl rollout restart` makes a new revision.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

impl Kube {
    /// As `kubectl rollout restart deployment`.
    pub async fn restart_deployment(
        &self,
        deployment: &Key,
        at: Timestamp,
    ) -> Result<(), ApiError> {
        let path = managed(&format!(
            "/apis/apps/v1/namespaces/{}/deployments/{}",
            deployment.namespace, deployment.name
        ));
        let at = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let body = json!({ "spec": { "template": { "metadata": { "annotations": { RESTARTED_AT: at } } } } });
        self.send::<Value>(
            "patch deployments",
            Method::PATCH,
            &path,
            STRATEGIC_PATCH,
            &body,
        )
        .await?;
        Ok(())
    }

    /// One workload, read now. `kind`: Deployment, ReplicaSet, StatefulSet, DaemonSet or Job.
    pub async fn workload(&self, kind: &str, key: &Key) -> Result<Workload, ApiError> {
        let (group, plural) = match kind {
            "Deployment" => ("apps/v1", "deployments"),
            "ReplicaSet" => ("apps/v1", "replicasets"),
            "StatefulSet" => ("apps/v1", "statefulsets"),
            "DaemonSet" => ("apps/v1", "daemonsets"),
            "Job" => ("batch/v1", "jobs"),
            other => {
                return Err(ApiError::new(
                    "get workloads",
                    Class::Invalid,
                    format!("`{other}` is not a kind of workload that eksup reads ({key})"),
                ));
            }
        };
        let op = format!("get {plural}");
        let path = format!(
            "/apis/{group}/namespaces/{}/{plural}/{}",
            key.namespace, key.name
        );
        match kind {
            "Deployment" => self.get(&op, &path).await.map(convert::deployment),
            "ReplicaSet" => self.get(&op, &path).await.map(convert::replica_set),
            "StatefulSet" => self.get(&op, &path).await.map(convert::stateful_set),
            "DaemonSet" => self.get(&op, &path).await.map(convert::daemon_set),
            _ => self.get(&op, &path).await.map(convert::job),
        }
    }
}
