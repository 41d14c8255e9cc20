//! Sorts the errors of Kubernetes calls by what one does about them.

use http::{HeaderMap, StatusCode};
use kube::core::Status;

use super::aws_error::{self, error_chain, parse_retry_after};
use crate::model::{ApiError, ErrorClass};

/// What to do when the API server answers 401.
pub const IDENTITY_REJECTED_HINT: &str = "; the cluster does not know this identity, or its credentials have expired: renew them, or give the IAM principal an access entry (or a line in aws-auth)";

/// An answer that is an error. `op` is the operation as RBAC names it, such as `list pods`.
pub fn classify_response(
    op: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> ApiError {
    let said: Option<Status> = serde_json::from_slice(body).ok();
    let header = headers
        .get(http::header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok())
        .and_then(parse_retry_after);
    // A proxy or a load balancer in between answers without a `Status`; then the code is all there is.
    match said {
        Some(said) if !said.message.is_empty() || said.code != 0 => {
            let mut error = classify_status(
                op,
                &Status {
                    code: status.as_u16(),
                    ..said
                },
            );
            error.retry_after = header.or(error.retry_after);
            error
        }
        _ => {
            let text = String::from_utf8_lossy(&body[..body.len().min(300)]);
            let class = class_of_reason(status.as_u16(), "");
            let message = if text.trim().is_empty() {
                format!("HTTP {status}")
            } else {
                format!("HTTP {status}: {}", text.trim())
            };
            ApiError {
                retry_after: header,
                ..ApiError::new(op, class, add_remedy(class, message))
            }
        }
    }
}

/// A `Status` the server sent, as an answer or inside a watch.
pub fn classify_status(op: &str, said: &Status) -> ApiError {
    let causes = || said.details.iter().flat_map(|d| &d.causes);
    let budget = causes().find(|c| c.reason == "DisruptionBudget");
    // A 429 is a budget's refusal only with that cause (K8S-EVICT-1). Any other is throttling.
    let class = if said.code == 429 && budget.is_some() || is_denied_by_admission(said) {
        ErrorClass::Blocked
    } else {
        class_of_reason(said.code, &said.reason)
    };
    let terminating = causes().any(|c| c.reason == "NamespaceTerminating")
        && !said.message.contains("being terminated");
    let message = match (budget, said.message.as_str()) {
        (_, message) if terminating => {
            format!("{message}: the namespace cannot be written to because it is being terminated")
        }
        (Some(cause), _) if !cause.message.is_empty() => cause.message.clone(),
        (_, "") => format!("HTTP {}", said.code),
        (_, message) => message.to_owned(),
    };
    let retry_after = said
        .details
        .as_ref()
        .map(|d| d.retry_after_seconds)
        .filter(|s| *s > 0)
        .map(|s| std::time::Duration::from_secs(s.into()));
    ApiError {
        retry_after,
        ..ApiError::new(op, class, add_remedy(class, message))
    }
}

/// Any error of the client library.
pub fn classify_client_error(op: &str, error: kube::Error) -> ApiError {
    match error {
        kube::Error::Api(said) => classify_status(op, &said),
        kube::Error::Service(wire) => aws_error::classify_wire_error(op, wire),
        // An answer cut off on its way can be read at the next try.
        kube::Error::SerdeError(e) => ApiError::new(
            op,
            ErrorClass::Transient,
            format!("the answer could not be read: {e}"),
        ),
        kube::Error::Auth(e) => ApiError::new(
            op,
            ErrorClass::Denied,
            format!("no token for the cluster: {}", error_chain(&e)),
        ),
        kube::Error::BuildRequest(e) => ApiError::new(
            op,
            ErrorClass::Invalid,
            format!("the request could not be built: {}", error_chain(&e)),
        ),
        // The wire's own errors pass through the client boxed; without their class an expired token would be retried as
        // a lost connection.
        other => match aws_error::recover_api_error(op, &other) {
            Some(known) => known,
            None => ApiError::new(
                op,
                ErrorClass::Transient,
                format!("no answer: {}", error_chain(&other)),
            ),
        },
    }
}

/// Whether an admission webhook or a ValidatingAdmissionPolicy refused the request. Both choose the HTTP status
/// themselves (403, 400 and 422 are all in use), so that the words are all there is to tell them from RBAC, which
/// answers 403 too: "admission webhook \"NAME\" denied the request" (apiserver pkg/admission/plugin/webhook/errors) and
/// "ValidatingAdmissionPolicy 'NAME' with binding 'NAME' denied request" (pkg/admission/plugin/policy/validating).
fn is_denied_by_admission(said: &Status) -> bool {
    let words = &said.message;
    words.contains("admission webhook \"")
        || (words.contains("ValidatingAdmissionPolicy '") && words.contains("' denied request"))
}

fn class_of_reason(code: u16, reason: &str) -> ErrorClass {
    match (code, reason) {
        (_, "Expired" | "Gone") | (410, _) => ErrorClass::Conflict,
        (401, _) => ErrorClass::Expired,
        (403, _) => ErrorClass::Denied,
        (404, _) => ErrorClass::Absent,
        (409, _) => ErrorClass::Conflict,
        (429, _) => ErrorClass::Throttled,
        (408, _) => ErrorClass::Transient,
        // Some 500s are forever (two budgets on one pod); callers that can tell look at the text of their own call.
        (500.., _) => ErrorClass::Transient,
        _ => ErrorClass::Invalid,
    }
}

fn add_remedy(class: ErrorClass, message: String) -> String {
    match class {
        ErrorClass::Denied => {
            format!("{message}; `eksup policy` prints the ClusterRole this needs")
        }
        ErrorClass::Expired => format!("{message}{IDENTITY_REJECTED_HINT}"),
        ErrorClass::Absent
        | ErrorClass::Conflict
        | ErrorClass::Throttled
        | ErrorClass::Blocked
        | ErrorClass::Transient
        | ErrorClass::Invalid => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, body: &str) -> ApiError {
        classify_response(
            "create pods/eviction",
            StatusCode::from_u16(status).unwrap(),
            &HeaderMap::new(),
            body.as_bytes(),
        )
    }

    #[test]
    fn a_budget_blocks_and_any_other_429_throttles() {
        let budget = r#"{"kind":"Status","status":"Failure","message":"Cannot evict pod as it would violate the pod's disruption budget.","reason":"TooManyRequests","code":429,
            "details":{"causes":[{"reason":"DisruptionBudget","message":"The disruption budget pa needs 1 healthy pods and has 1 currently"}]}}"#;
        let error = said(429, budget);
        assert_eq!(
            (error.class, error.message.as_str()),
            (
                ErrorClass::Blocked,
                "The disruption budget pa needs 1 healthy pods and has 1 currently"
            )
        );
        assert_eq!(error.retry_after, None);
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", http::HeaderValue::from_static("7"));
        let plain = classify_response(
            "list pods",
            StatusCode::TOO_MANY_REQUESTS,
            &headers,
            b"Too many requests, please try again later.",
        );
        assert_eq!(
            (plain.class, plain.retry_after),
            (
                ErrorClass::Throttled,
                Some(std::time::Duration::from_secs(7))
            )
        );
    }

    #[test]
    fn the_status_decides_the_class() {
        let table = [
            (401, ErrorClass::Expired),
            (403, ErrorClass::Denied),
            (404, ErrorClass::Absent),
            (409, ErrorClass::Conflict),
            (410, ErrorClass::Conflict),
            (422, ErrorClass::Invalid),
            (400, ErrorClass::Invalid),
            (500, ErrorClass::Transient),
            (503, ErrorClass::Transient),
            (504, ErrorClass::Transient),
        ];
        for (status, class) in table {
            let body = format!(r#"{{"kind":"Status","message":"words","code":{status}}}"#);
            assert_eq!(said(status, &body).class, class, "{status}");
            assert!(said(status, &body).message.starts_with("words"), "{status}");
            assert_eq!(said(status, "").class, class, "{status} without a body");
        }
    }

    #[test]
    fn a_denial_by_admission_is_no_missing_permission() {
        let webhook = r#"admission webhook \"drain-cleaner.strimzi.io\" denied the request: the operator will restart the pod"#;
        let policy = r#"pods \"a\" is forbidden: ValidatingAdmissionPolicy 'keep' with binding 'keep-all' denied request: not now"#;
        for words in [webhook, policy] {
            for status in [400, 403, 422, 500] {
                let body = format!(
                    r#"{{"kind":"Status","message":"{words}","reason":"Forbidden","code":{status}}}"#
                );
                let error = said(status, &body);
                assert_eq!(error.class, ErrorClass::Blocked, "{status} {words}");
                assert!(!error.message.contains("eksup policy"), "{}", error.message);
                assert!(error.message.contains("denied"), "{}", error.message);
            }
        }
        let rbac = r#"{"kind":"Status","reason":"Forbidden","code":403,"message":"pods \"a\" is forbidden: User \"u\" cannot create resource \"pods/eviction\" in API group \"\" in the namespace \"shop\""}"#;
        let error = said(403, rbac);
        assert_eq!(error.class, ErrorClass::Denied);
        assert!(error.message.contains("eksup policy"), "{}", error.message);
        // A webhook that does not answer is a failure that may pass.
        let silent = r#"{"kind":"Status","code":500,"message":"Internal error occurred: failed calling webhook \"x\": no endpoints available"}"#;
        assert_eq!(said(500, silent).class, ErrorClass::Transient);
    }

    #[test]
    fn a_server_says_how_long_to_wait() {
        let body = r#"{"kind":"Status","message":"still being processed","code":429,"details":{"retryAfterSeconds":10,"causes":[{"reason":"DisruptionBudget","message":"still being processed"}]}}"#;
        assert_eq!(
            said(429, body).retry_after,
            Some(std::time::Duration::from_secs(10))
        );
    }
}
