//! The API server's errors: `Status` objects, word for word.

use serde_json::{Value, json};

use super::kinds::ResourceKind;
use crate::twin::answer::{Answer, answer_with, write_json};

/// A refusal.
#[derive(Clone, Debug)]
pub struct ApiFailure {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Value>,
    /// The path leads nowhere, which is said in plain text.
    pub nowhere: bool,
}

impl ApiFailure {
    /// A refusal without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            nowhere: false,
        }
    }

    fn about_object(
        kind: &ResourceKind,
        name: &str,
        code: u16,
        reason: &'static str,
        message: String,
    ) -> Self {
        // The details name the resource in the plural, and the group only where there is one.
        let mut details = json!({"name": name, "kind": kind.plural});
        if !kind.group.is_empty() {
            details["group"] = json!(kind.group);
        }
        Self {
            code,
            reason,
            message,
            details: Some(details),
            nowhere: false,
        }
    }

    /// There is no such object.
    pub fn not_found(kind: &ResourceKind, name: &str) -> Self {
        Self::about_object(
            kind,
            name,
            404,
            "NotFound",
            format!("{} \"{name}\" not found", kind.qualified_resource()),
        )
    }

    /// There is no such path: no such kind, group or subresource. Clients make "the server could not find the requested
    /// resource" of it.
    pub fn resource_not_found() -> Self {
        Self {
            nowhere: true,
            ..Self::new(404, "NotFound", "404 page not found")
        }
    }

    /// It is there already.
    pub fn already_exists(kind: &ResourceKind, name: &str) -> Self {
        Self::about_object(
            kind,
            name,
            409,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", kind.qualified_resource()),
        )
    }

    /// Somebody else changed it.
    pub fn modified_meanwhile(kind: &ResourceKind, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes \
             to the latest version and try again",
            kind.qualified_resource()
        );
        Self::about_object(kind, name, 409, "Conflict", message)
    }

    /// A precondition of a delete does not hold; the real server names the kind here, not the resource.
    pub fn precondition_failed(kind: &ResourceKind, name: &str, why: &str) -> Self {
        let named = if kind.group.is_empty() {
            kind.kind.to_string()
        } else {
            format!("{}.{}", kind.kind, kind.group)
        };
        let mut failure = Self::about_object(
            kind,
            name,
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {named} \"{name}\": {why}"),
        );
        if let Some(details) = &mut failure.details {
            details["kind"] = json!(kind.kind);
        }
        failure
    }

    /// It may not be done.
    pub fn forbidden_action(kind: &ResourceKind, name: &str, why: &str) -> Self {
        Self::about_object(
            kind,
            name,
            403,
            "Forbidden",
            format!(
                "{} \"{name}\" is forbidden: {why}",
                kind.qualified_resource()
            ),
        )
    }

    /// A field has a value it must not have.
    pub fn invalid_field(kind: &ResourceKind, name: &str, field: &str, why: &str) -> Self {
        // The message names the kind with its group; the kinds of the core group have none.
        let group = if kind.group.is_empty() {
            String::new()
        } else {
            format!(".{}", kind.group)
        };
        let mut failure = Self::about_object(
            kind,
            name,
            422,
            "Invalid",
            format!("{}{group} \"{name}\" is invalid: {field}: {why}", kind.kind),
        );
        // The reason is told by the text, so that callers need not say it twice.
        let reason = if why.starts_with("Required") {
            "FieldValueRequired"
        } else {
            "FieldValueInvalid"
        };
        if let Some(details) = &mut failure.details {
            details["kind"] = json!(kind.kind);
            details["causes"] = json!([{"reason": reason, "message": why, "field": field}]);
        }
        failure
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// Too many requests, with a cause.
    pub fn too_many_requests(
        message: &str,
        cause: &str,
        cause_message: String,
        retry_after: Option<u32>,
    ) -> Self {
        let mut details = json!({"causes": [{"reason": cause, "message": cause_message}]});
        if let Some(seconds) = retry_after {
            details["retryAfterSeconds"] = json!(seconds);
        }
        Self {
            details: Some(details),
            ..Self::new(429, "TooManyRequests", message)
        }
    }

    /// The resource version is too old to go on from.
    pub fn expired_version(asked: u64, oldest: u64) -> Self {
        Self::new(
            410,
            "Expired",
            format!("too old resource version: {asked} ({oldest})"),
        )
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }

    /// The answer.
    pub fn to_answer(&self) -> Answer {
        // A path that nothing serves is answered in plain text, as the real server does.
        if self.nowhere {
            return answer_with(
                self.code,
                "text/plain; charset=utf-8",
                format!("{}\n", self.message),
            );
        }
        // The seconds are in the body and in a header, and clients read either (K8S-EVICT-2).
        let retry_after = self
            .details
            .as_ref()
            .and_then(|d| d.get("retryAfterSeconds"))
            .and_then(Value::as_u64);
        let mut answer = answer_json(self.code, &self.to_status());
        if let (Some(seconds), Answer::Whole(response)) = (retry_after, &mut answer) {
            response
                .headers_mut()
                .insert(http::header::RETRY_AFTER, http::HeaderValue::from(seconds));
        }
        answer
    }
}

/// A success that has nothing else to say.
pub fn success_answer(code: u16) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code});
    answer_json(code, &status)
}

/// An answer in JSON.
pub fn answer_json(code: u16, value: &Value) -> Answer {
    answer_with(code, "application/json", write_json(value))
}
