//! For tests: a wire that answers from a function and remembers what it was asked.

use std::sync::{Arc, Mutex};

use crate::model::Clock;
use crate::wire::{self, BoxError, Request, Response, Wire};

/// What a wire was asked, in order.
#[derive(Clone, Default)]
pub struct RecordedRequests(Arc<Mutex<Vec<Request>>>);

impl RecordedRequests {
    pub fn all_requests(&self) -> Vec<Request> {
        self.0.lock().unwrap().clone()
    }

    /// `METHOD path?query` of each request.
    pub fn request_lines(&self) -> Vec<String> {
        self.all_requests()
            .iter()
            .map(|r| format!("{} {}", r.method(), r.uri().path_and_query().unwrap()))
            .collect()
    }

    /// The bodies, as text.
    pub fn request_bodies(&self) -> Vec<String> {
        self.all_requests()
            .iter()
            .map(|r| String::from_utf8(r.body().to_vec()).unwrap())
            .collect()
    }
}

/// A wire that answers each request with what `answer` makes of it and of how many came before.
pub fn answering_wire(
    answer: impl Fn(&Request, usize) -> Result<Response, BoxError> + Send + Sync + 'static,
) -> (Wire, RecordedRequests) {
    let asked = RecordedRequests::default();
    let seen = asked.clone();
    let answer = Arc::new(answer);
    let wire = Wire::new(tower::service_fn(move |request: Request| {
        let (seen, answer) = (seen.clone(), answer.clone());
        async move {
            let before = {
                let mut seen = seen.0.lock().unwrap();
                seen.push(request.clone());
                seen.len() - 1
            };
            answer(&request, before)
        }
    }));
    (wire, asked)
}

/// A whole answer.
pub fn build_answer(
    status: u16,
    content_type: &str,
    body: impl Into<String>,
) -> Result<Response, BoxError> {
    Ok(http::Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(wire::whole(body.into()))
        .unwrap())
}

pub fn json_answer(status: u16, body: &serde_json::Value) -> Result<Response, BoxError> {
    build_answer(status, "application/json", body.to_string())
}

pub fn xml_answer(status: u16, body: &str) -> Result<Response, BoxError> {
    build_answer(status, "text/xml", body)
}

/// An error as EKS answers it.
pub fn eks_error_answer(status: u16, code: &str, message: &str) -> Result<Response, BoxError> {
    let mut response = json_answer(status, &serde_json::json!({ "message": message }))?;
    response
        .headers_mut()
        .insert("x-amzn-errortype", code.parse().unwrap());
    Ok(response)
}

/// A clock at a time of its own that moves with tokio's.
pub fn test_clock() -> Clock {
    Clock::starting_at("2026-11-21T08:00:00Z".parse().unwrap())
}
