//! Eviction: our own POST, because the client library's drops the UID precondition (KUBE-2).

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::call::JSON;
use crate::k8s::Kube;
use crate::model::kube::Key;
use crate::model::{ApiError, Class};

/// What the API server said to an eviction.
#[derive(Clone, Debug, PartialEq)]
pub enum Evicted {
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
const TWO_BUDGETS: &str = "more than one PodDisruptionBudget";
/// What it says, with a 500, when a webhook that must agree does not answer.
const FAILED_WEBHOOK: &str = "failed calling webhook";
/// What it says of a namespace that is going.
const TERMINATING: &str = "because it is being terminated";

impl Kube {
    /// Evicts the pod with this UID and no other. `dry_run` asks for the verdict only.
    pub async fn evict(
        &self,
        pod: &Key,
        uid: &str,
        grace_seconds: Option<i64>,
        dry_run: bool,
    ) -> Result<Evicted, ApiError> {
        let op = "create pods/eviction";
        let body = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "namespace": pod.namespace, "name": pod.name },
            "deleteOptions": options(uid, grace_seconds),
        });
        let query = if dry_run { "?dryRun=All" } else { "" };
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}/eviction{query}",
            pod.namespace, pod.name
        );
        match self
            .send::<Value>(op, Method::POST, &path, JSON, &body)
            .await
        {
            Ok(_) => Ok(Evicted::Accepted),
            Err(error) => verdict(error, pod),
        }
    }

    /// Deletes the pod with this UID, past its budget. A pod that is gone, or whose name belongs to another by now, is
    /// no error.
    pub async fn delete_pod(
        &self,
        pod: &Key,
        uid: &str,
        grace_seconds: Option<i64>,
    ) -> Result<(), ApiError> {
        let mut body = options(uid, grace_seconds);
        body["apiVersion"] = json!("v1");
        body["kind"] = json!("DeleteOptions");
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name);
        match self
            .send::<Value>("delete pods", Method::DELETE, &path, JSON, &body)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.class, Class::Absent | Class::Conflict) => Ok(()),
            Err(error) => Err(named(error, pod)),
        }
    }
}

fn options(uid: &str, grace_seconds: Option<i64>) -> Value {
    let mut options = json!({ "preconditions": { "uid": uid } });
    if let Some(seconds) = grace_seconds {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    options
}

fn verdict(error: ApiError, pod: &Key) -> Result<Evicted, ApiError> {
    match error.class {
        // A 409 is the UID precondition: the name belongs to another pod now.
        Class::Absent | Class::Conflict => Ok(Evicted::Gone),
        Class::Blocked => refused(error),
        // The request itself is well-formed: whoever answers 400 or 422 is a webhook, or stands behind one. One that cannot
        // be asked may be back in a while.
        Class::Invalid => refused(error),
        Class::Transient if error.message.contains(FAILED_WEBHOOK) => refused(error),
        Class::Transient if error.message.contains(TWO_BUDGETS) => Ok(Evicted::TwoBudgets {
            message: error.message,
        }),
        Class::Denied if error.message.contains(TERMINATING) => Ok(Evicted::NamespaceTerminating),
        Class::Throttled | Class::Denied | Class::Expired | Class::Transient => {
            Err(named(error, pod))
        }
    }
}

fn refused(error: ApiError) -> Result<Evicted, ApiError> {
    Ok(Evicted::Blocked {
        message: error.message,
        retry_after: error.retry_after,
    })
}

fn named(mut error: ApiError, pod: &Key) -> ApiError {
    if !error.message.contains(&pod.name) {
        error.message = format!("pod {pod}: {}", error.message);
    }
    error
}
