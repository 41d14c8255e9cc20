//! Errors of calls to AWS and Kubernetes, sorted by what one does about them.

use serde::{Deserialize, Serialize};

/// What kind of failure a call met; the class picks the action, nothing looks at strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ErrorClass {
    /// The object does not exist; only ever a 404 or NotFound from the API.
    Absent,
    /// Somebody else changed it, or it is busy with another update.
    Conflict,
    /// Too many requests; wait and ask again.
    Throttled,
    /// A PodDisruptionBudget refuses the eviction, or an admission webhook or policy the request: it may pass later.
    Blocked,
    /// The caller may not do this.
    Denied,
    /// A credential or token has expired.
    Expired,
    /// No answer, or a server-side failure that may pass.
    Transient,
    /// The request is wrong and will stay wrong.
    Invalid,
}

/// A call to AWS or Kubernetes that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("{op}: {message}")]
pub struct ApiError {
    /// The operation, as IAM or RBAC names it: `eks:UpdateClusterVersion`, `create pods/eviction`.
    pub op: String,
    /// What one does about it.
    pub class: ErrorClass,
    /// What the server said, or what went wrong on the way.
    pub message: String,
    /// How long the server asked to be left alone.
    pub retry_after: Option<std::time::Duration>,
    /// The error underneath.
    #[source]
    pub source: Option<crate::wire::BoxError>,
}

impl ApiError {
    /// An error without another one underneath.
    pub fn new(op: impl Into<String>, class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            op: op.into(),
            class,
            message: message.into(),
            retry_after: None,
            source: None,
        }
    }
}

/// Takes an answer that the object is not there as an answer.
///
/// # Errors
/// Every other error.
pub fn absent_is_none<T>(answer: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.class == ErrorClass::Absent => Ok(None),
        Err(error) => Err(error),
    }
}
