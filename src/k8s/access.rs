//! Whether the caller may do something, as the API server itself decides it.

use http::Method;
use serde_json::{Value, json};

use crate::k8s::KubeApi;
use crate::k8s::api_call::JSON_CONTENT_TYPE;
use crate::model::{ApiError, ErrorClass};

/// One verb on one resource, as RBAC names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceVerb<'a> {
    pub verb: &'a str,
    /// Empty for the core group.
    pub group: &'a str,
    /// With its subresource, such as `pods/eviction`.
    pub resource: &'a str,
    /// None: in every namespace, or of no namespace.
    pub namespace: Option<&'a str>,
    /// None: every object.
    pub name: Option<&'a str>,
}

impl KubeApi {
    /// Asks by SelfSubjectAccessReview, which every caller may create.
    pub async fn is_allowed(&self, asked: &ResourceVerb<'_>) -> Result<bool, ApiError> {
        let op = "create selfsubjectaccessreviews";
        // A subresource is asked about in a field of its own: `pods/eviction` as a resource would match no rule, and
        // every right to it would seem to be missing.
        let (resource, subresource) = asked
            .resource
            .split_once('/')
            .unwrap_or((asked.resource, ""));
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "verb": asked.verb,
                "group": asked.group,
                "resource": resource,
                "subresource": subresource,
                "namespace": asked.namespace.unwrap_or_default(),
                "name": asked.name.unwrap_or_default(),
            }},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer: Value = self
            .send_json(op, Method::POST, path, JSON_CONTENT_TYPE, &review)
            .await?;
        // An answer without the field is unknown; it must not be taken for a refusal.
        answer["status"]["allowed"].as_bool().ok_or_else(|| {
            ApiError::new(
                op,
                ErrorClass::Invalid,
                "the review has no answer".to_owned(),
            )
        })
    }
}
