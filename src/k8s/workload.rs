//! Workloads: the restart that brings a new pod up before the old one goes.

use jiff::Timestamp;

use crate::k8s::Kube;
use crate::model::ApiError;
use crate::model::kube::{Key, Workload};

impl Kube {
    /// As `kubectl rollout restart deployment`.
    pub async fn restart_deployment(
        &self,
        deployment: &Key,
        at: Timestamp,
    ) -> Result<(), ApiError> {
        todo!()
    }
    /// One workload, read now. `kind`: Deployment, ReplicaSet, StatefulSet, DaemonSet or Job.
    pub async fn workload(&self, kind: &str, key: &Key) -> Result<Workload, ApiError> {
        todo!()
    }
}
