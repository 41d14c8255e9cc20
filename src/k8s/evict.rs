//! Eviction: our own POST, because the client library's drops the UID precondition (KUBE-2).

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::api_call::JSON_CONTENT_TYPE;
use crate::k8s::KubeApi;
use crate::model::kube::NamespacedName;
use crate::model::{ApiError, ErrorClass};

/// What the API server said to an eviction.
#[derive(Clone, Debug, PartialEq)]
pub enum EvictionOutcome {
    /// Accepted; the pod is being deleted.
    Accepted,
    /// The pod is not there any more, or its name belongs to another pod.
    Gone,
    /// A budget or an admission webhook refuses it; the words of the one that does, and how long the server asks to wait.
    Blocked {
        message: String,
        retry_after: Option<Duration>,
    },
    /// Two budgets match the pod; it can never be evicted so.
    TwoBudgets { message: String },
    /// The namespace is being deleted; the pod will go by itself.
    NamespaceTerminating,
}

/// What the API server says, with a 500 and no reason, when it cannot tell which budget to count against.
const TWO_BUDGETS_MESSAGE: &str = "more than one PodDisruptionBudget";
/// What it says, with a 500, when a webhook that must agree does not answer.
const FAILED_WEBHOOK_MESSAGE: &str = "failed calling webhook";
/// What it says of a namespace that is going.
const NAMESPACE_TERMINATING_MESSAGE: &str = "because it is being terminated";

impl KubeApi {
    /// Evicts the pod with this UID and no other. `dry_run` asks for the verdict only.
    pub async fn evict_pod(
        &self,
        pod: &NamespacedName,
        uid: &str,
        grace_seconds: Option<i64>,
        dry_run: bool,
    ) -> Result<EvictionOutcome, ApiError> {
        // The uid makes it that very pod: a StatefulSet's next pod has the same name.
        let op = "create pods/eviction";
        let body = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "namespace": pod.namespace, "name": pod.name },
            "deleteOptions": delete_options(uid, grace_seconds),
        });
        let query = if dry_run { "?dryRun=All" } else { "" };
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}/eviction{query}",
            pod.namespace, pod.name
        );
        match self
            .send_json::<Value>(op, Method::POST, &path, JSON_CONTENT_TYPE, &body)
            .await
        {
            Ok(_) => Ok(EvictionOutcome::Accepted),
            Err(error) => classify_refusal(error, pod),
        }
    }

    /// Deletes the pod with this UID, past its budget. A pod that is gone, or whose name belongs to another by now, is
    /// no error.
    pub async fn delete_pod(
        &self,
        pod: &NamespacedName,
        uid: &str,
        grace_seconds: Option<i64>,
    ) -> Result<(), ApiError> {
        let mut body = delete_options(uid, grace_seconds);
        body["apiVersion"] = json!("v1");
        body["kind"] = json!("DeleteOptions");
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name);
        match self
            .send_json::<Value>(
                "delete pods",
                Method::DELETE,
                &path,
                JSON_CONTENT_TYPE,
                &body,
            )
            .await
        {
            Ok(_) => Ok(()),
            // The UID is a precondition of the delete. A conflict says that the name belongs to a successor, which must
            // not be deleted.
            Err(error) if matches!(error.class, ErrorClass::Absent | ErrorClass::Conflict) => {
                Ok(())
            }
            Err(error) => Err(name_pod_in_error(error, pod)),
        }
    }
}

fn delete_options(uid: &str, grace_seconds: Option<i64>) -> Value {
    let mut options = json!({ "preconditions": { "uid": uid } });
    if let Some(seconds) = grace_seconds {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    options
}

fn classify_refusal(error: ApiError, pod: &NamespacedName) -> Result<EvictionOutcome, ApiError> {
    match error.class {
        // A 409 is the UID precondition: the name belongs to another pod now.
        ErrorClass::Absent | ErrorClass::Conflict => Ok(EvictionOutcome::Gone),
        ErrorClass::Blocked => blocked_outcome(error),
        // The request itself is well-formed: whoever answers 400 or 422 is a webhook, or stands behind one. One that cannot
        // be asked may be back in a while.
        ErrorClass::Invalid => blocked_outcome(error),
        ErrorClass::Transient if error.message.contains(FAILED_WEBHOOK_MESSAGE) => {
            blocked_outcome(error)
        }
        ErrorClass::Transient if error.message.contains(TWO_BUDGETS_MESSAGE) => {
            Ok(EvictionOutcome::TwoBudgets {
                message: error.message,
            })
        }
        ErrorClass::Denied if error.message.contains(NAMESPACE_TERMINATING_MESSAGE) => {
            Ok(EvictionOutcome::NamespaceTerminating)
        }
        ErrorClass::Throttled
        | ErrorClass::Denied
        | ErrorClass::Expired
        | ErrorClass::Transient => Err(name_pod_in_error(error, pod)),
    }
}

fn blocked_outcome(error: ApiError) -> Result<EvictionOutcome, ApiError> {
    Ok(EvictionOutcome::Blocked {
        message: error.message,
        retry_after: error.retry_after,
    })
}

fn name_pod_in_error(mut error: ApiError, pod: &NamespacedName) -> ApiError {
    if !error.message.contains(&pod.name) {
        error.message = format!("pod {pod}: {}", error.message);
    }
    error
}
