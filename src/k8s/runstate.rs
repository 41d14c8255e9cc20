//! The run's state in the cluster: a ConfigMap for the checkpoint, a Lease for the lock. Every write is fenced by the
//! `resourceVersion` that was read.

use jiff::Timestamp;

use crate::k8s::Kube;
use crate::model::ApiError;

/// The checkpoint as stored, with what fences the next write.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub text: String,
    pub resource_version: String,
}

/// The lock as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Empty when released.
    pub holder: String,
    pub renewed_at: Option<Timestamp>,
    pub duration_seconds: i32,
    pub transitions: i32,
    pub resource_version: String,
}

impl Kube {
    pub async fn read_checkpoint(&self) -> Result<Option<Stored>, ApiError> {
        todo!()
    }
    /// `fence`: the version that was read, None to create. Returns the new version. Conflict when someone else wrote.
    pub async fn write_checkpoint(
        &self,
        text: &str,
        fence: Option<&str>,
    ) -> Result<String, ApiError> {
        todo!()
    }
    pub async fn read_lease(&self) -> Result<Option<Held>, ApiError> {
        todo!()
    }
    pub async fn write_lease(&self, held: &Held, now: Timestamp) -> Result<Held, ApiError> {
        todo!()
    }
}
