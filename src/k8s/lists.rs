//! Lists, as the API server gives them (for a snapshot) and cut down to the model.

use serde_json::Value;

use crate::k8s::Kube;
use crate::model::kube::{
    Attachment, Node, Pdb, Pod, Service, TargetGroupBinding, Volume, Workload,
};
use crate::model::{ApiError, Minor};

impl Kube {
    /// Pages a list to its end. `path`: such as `/api/v1/pods` or `/apis/apps/v1/deployments`.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, ApiError> {
        todo!()
    }
    /// What the API server says of itself.
    pub async fn server_version(&self) -> Result<Minor, ApiError> {
        todo!()
    }
    pub async fn nodes(&self) -> Result<Vec<Node>, ApiError> {
        todo!()
    }
    pub async fn pods(&self) -> Result<Vec<Pod>, ApiError> {
        todo!()
    }
    pub async fn pdbs(&self) -> Result<Vec<Pdb>, ApiError> {
        todo!()
    }
    /// Deployments, ReplicaSets, StatefulSets, DaemonSets and Jobs.
    pub async fn workloads(&self) -> Result<Vec<Workload>, ApiError> {
        todo!()
    }
    pub async fn services(&self) -> Result<Vec<Service>, ApiError> {
        todo!()
    }
    pub async fn volumes(&self) -> Result<Vec<Volume>, ApiError> {
        todo!()
    }
    pub async fn attachments(&self) -> Result<Vec<Attachment>, ApiError> {
        todo!()
    }
    /// None where the cluster has no such resource.
    pub async fn target_group_bindings(&self) -> Result<Option<Vec<TargetGroupBinding>>, ApiError> {
        todo!()
    }
}
