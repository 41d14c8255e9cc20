//! What the twin answers to a request.

use std::time::Duration;

use bytes::Bytes;

use crate::wire::{self, Response};

/// What the twin answers.
pub enum Answer {
    /// A response; its body may stream.
    Whole(Response),
    /// The same, after a while.
    Late(Duration, Box<Answer>),
    /// No answer: the connection broke, whether or not the request took effect.
    Broken(String),
}

/// A value as text: what `to_string` gives, several times as fast.
pub fn write_json(value: &serde_json::Value) -> String {
    // A value can always be written.
    serde_json::to_string(value).unwrap_or_default()
}

/// Returns a whole response.
pub fn answer_with(status: u16, content_type: &str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(wire::whole(body));
    *response.status_mut() =
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = http::HeaderValue::from_str(content_type) {
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, value);
    }
    Answer::Whole(response)
}
