//! Eviction: our own POST, because the client library's drops the UID precondition.

use std::time::Duration;

use crate::k8s::Kube;
use crate::model::ApiError;
use crate::model::kube::Key;

/// What the API server said to an eviction.
#[derive(Clone, Debug, PartialEq)]
pub enum Evicted {
    /// Accepted; the pod is being deleted.
    Accepted,
    /// The pod is not there any more, or its name belongs to another pod.
    Gone,
    /// A budget refuses it; the server's words, and how long it asks to wait.
    Blocked {
        message: String,
        retry_after: Option<Duration>,
    },
    /// Two budgets match the pod; it can never be evicted so.
    TwoBudgets { message: String },
    /// The namespace is being deleted; the pod will go by itself.
    NamespaceTerminating,
}

impl Kube {
    /// Evicts the pod with this UID and no other. `dry_run` asks for the verdict only.
    pub async fn evict(
        &self,
        pod: &Key,
        uid: &str,
        grace_seconds: Option<i64>,
        dry_run: bool,
    ) -> Result<Evicted, ApiError> {
        todo!()
    }
    /// Deletes the pod with this UID, past its budget.
    pub async fn delete_pod(
        &self,
        pod: &Key,
        uid: &str,
        grace_seconds: Option<i64>,
    ) -> Result<(), ApiError> {
        todo!()
    }
}
