//! One call to the API server: the request as given, the answer whole, the error with its class.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::clients::kube_error;
use crate::k8s::KubeApi;
use crate::model::marks::FIELD_MANAGER;
use crate::model::{ApiError, ErrorClass};

/// How long a whole answer may take; a page of a list is a few megabytes at most.
const WHOLE_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

impl KubeApi {
    /// Sends a request and reads the whole answer. `op`: as RBAC names it, such as `list pods`.
    pub(super) async fn send_request(
        &self,
        op: &str,
        request: http::Request<Vec<u8>>,
    ) -> Result<Bytes, ApiError> {
        // The deadline covers the body too: a server may begin to answer and then fall silent.
        let whole = async {
            let response = self
                .client
                .send(request.map(Body::from))
                .await
                .map_err(|e| kube_error::classify_client_error(op, e))?;
            let (parts, body) = response.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|e| kube_error::classify_client_error(op, e))?
                .to_bytes();
            if parts.status.is_success() {
                Ok(body)
            } else {
                Err(kube_error::classify_response(
                    op,
                    parts.status,
                    &parts.headers,
                    &body,
                ))
            }
        };
        match tokio::time::timeout(WHOLE_ANSWER_TIMEOUT, whole).await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::new(
                op,
                ErrorClass::Transient,
                format!(
                    "no whole answer within {} s",
                    WHOLE_ANSWER_TIMEOUT.as_secs()
                ),
            )),
        }
    }

    /// Reads one object or one page of a list. `op`: as RBAC names it, for messages.
    pub(super) async fn get_json<T: DeserializeOwned>(
        &self,
        op: &str,
        path: &str,
    ) -> Result<T, ApiError> {
        parse_answer(
            op,
            &self
                .send_request(op, build_request(op, Method::GET, path, None, "")?)
                .await?,
        )
    }

    /// Sends a write and asks the server to answer with the object's metadata alone: large objects are not sent back.
    pub(super) async fn send_for_metadata(
        &self,
        op: &str,
        method: Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<ObjectMeta, ApiError> {
        let mut request = build_request(op, method, path, Some(body), content_type)?;
        let accept = HeaderValue::from_static(METADATA_ONLY_ACCEPT);
        request.headers_mut().insert(header::ACCEPT, accept);
        let answer = parse_answer::<MetadataOnly>(op, &self.send_request(op, request).await?)?;
        Ok(answer.metadata)
    }

    /// POST, PUT, PATCH or DELETE with a JSON body.
    pub(super) async fn send_json<T: DeserializeOwned>(
        &self,
        op: &str,
        method: Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<T, ApiError> {
        parse_answer(
            op,
            &self
                .send_request(
                    op,
                    build_request(op, method, path, Some(body), content_type)?,
                )
                .await?,
        )
    }
}

/// An object's metadata rather than the object; a server that cannot do that gives the whole.
const METADATA_ONLY_ACCEPT: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// The content type of a body that is an object.
pub(super) const JSON_CONTENT_TYPE: &str = "application/json";
/// The content type of a merge patch.
pub(super) const MERGE_PATCH_CONTENT_TYPE: &str = "application/merge-patch+json";
/// The content type of a strategic merge patch.
pub(super) const STRATEGIC_PATCH_CONTENT_TYPE: &str = "application/strategic-merge-patch+json";

/// `path` with our name as the field manager, for writes.
pub(super) fn with_field_manager(path: &str) -> String {
    format!(
        "{path}{}fieldManager={FIELD_MANAGER}",
        if path.contains('?') { '&' } else { '?' }
    )
}

pub(super) fn build_request(
    op: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
    content_type: &str,
) -> Result<http::Request<Vec<u8>>, ApiError> {
    let mut builder = http::Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, JSON_CONTENT_TYPE);
    if body.is_some() {
        builder = builder.header(header::CONTENT_TYPE, content_type);
    }
    let failed = |e: &dyn std::fmt::Display| {
        let text = format!("the request could not be built: {e}");
        ApiError::new(op, ErrorClass::Invalid, text)
    };
    let body = body.map(serde_json::to_vec).transpose();
    let body = body.map_err(|e| failed(&e))?.unwrap_or_default();
    builder.body(body).map_err(|e| failed(&e))
}

#[derive(Deserialize)]
struct MetadataOnly {
    metadata: ObjectMeta,
}

fn parse_answer<T: DeserializeOwned>(op: &str, answer: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(answer).map_err(|e| {
        ApiError::new(
            op,
            ErrorClass::Transient,
            format!("the answer could not be read: {e}"),
        )
    })
}
