//! What reads of AWS answered, to be answered again: AWS is eventually consistent, and a read may show what was.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt;
use http_body_util::BodyExt;

use crate::twin::answer::Answer;
use crate::wire::{self, Request, Response};

/// The last answer of every read, by what was asked.
#[derive(Clone, Debug, Default)]
pub struct RememberedReads(BTreeMap<Bytes, (http::response::Parts, Bytes)>);

/// What tells one read from another; none for what is no read.
pub fn read_key(op: &str, request: &Request) -> Option<Bytes> {
    if !(op.starts_with("Describe") || op.starts_with("List")) {
        return None;
    }
    let mut key = format!("{} {}\n", request.method(), request.uri()).into_bytes();
    key.extend_from_slice(request.body());
    Some(key.into())
}

impl RememberedReads {
    /// Whether the read was answered before.
    pub fn has_answer(&self, asked: &Bytes) -> bool {
        self.0.contains_key(asked)
    }

    /// What the read was answered last.
    pub fn replay_answer(&self, asked: &Bytes) -> Option<Answer> {
        let (parts, body) = self.0.get(asked)?;
        Some(Answer::Whole(Response::from_parts(
            parts.clone(),
            wire::whole(body.clone()),
        )))
    }

    /// Keeps an answer, which goes on its way. Only good ones are kept: a failure is not what was.
    pub fn remember_answer(&mut self, asked: Bytes, answer: Answer) -> Answer {
        let Answer::Whole(response) = answer else {
            return answer;
        };
        let (parts, body) = response.into_parts();
        // The twin's answers to AWS calls are whole; they never have to be waited for.
        let Some(Ok(body)) = body.collect().now_or_never() else {
            return Answer::Broken("an answer that was not whole could not be kept".to_owned());
        };
        let body = body.to_bytes();
        if parts.status.is_success() {
            self.0.insert(asked, (parts.clone(), body.clone()));
        }
        Answer::Whole(Response::from_parts(parts, wire::whole(body)))
    }
}
