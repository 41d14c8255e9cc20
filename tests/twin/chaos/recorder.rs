//! A wire that writes down what goes over it to AWS and back, as JSON Lines, each kind of exchange once.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use eksup::wire::{Request, Wire, whole};
use http::HeaderMap;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

/// Where exchanges are written to, each kind once.
pub struct Recorder {
    source: Mutex<String>,
    seen: Mutex<BTreeSet<u64>>,
    out: Mutex<BufWriter<File>>,
}

impl Recorder {
    pub fn create(path: &Path) -> Arc<Self> {
        Arc::new(Self {
            source: Mutex::default(),
            seen: Mutex::default(),
            out: Mutex::new(BufWriter::new(File::create(path).unwrap())),
        })
    }

    /// Names what is carried out from here on.
    pub fn begin(&self, source: String) {
        *self.source.lock().unwrap() = source;
    }

    /// Puts itself around a wire.
    pub fn around(self: Arc<Self>) -> impl Fn(Wire) -> Wire + Sync {
        move |wire| {
            let recorder = self.clone();
            Wire::new(tower::service_fn(move |request: Request| {
                let (wire, recorder) = (wire.clone(), recorder.clone());
                async move {
                    // What is not signed for AWS is the cluster's API server's, and may stream.
                    if !request.headers().contains_key("authorization")
                        || !is_signed(request.headers())
                    {
                        return wire.oneshot(request).await;
                    }
                    let asked = request.clone();
                    let (parts, body) = wire.oneshot(request).await?.into_parts();
                    let body = body.collect().await?.to_bytes();
                    recorder.write(&asked, &parts, &body);
                    Ok(http::Response::from_parts(parts, whole(body)))
                }
            }))
        }
    }

    /// Ends the record; how many exchanges it holds.
    pub fn end(&self) -> usize {
        self.out.lock().unwrap().flush().unwrap();
        self.seen.lock().unwrap().len()
    }

    fn write(&self, request: &Request, reply: &http::response::Parts, body: &Bytes) {
        let asked = String::from_utf8_lossy(request.body());
        let answered = String::from_utf8_lossy(body);
        let mut hasher = DefaultHasher::new();
        let target = request.headers().get("x-amz-target");
        let target = target.map(|t| t.as_bytes().to_vec());
        (request.method().as_str(), target, reply.status.as_u16()).hash(&mut hasher);
        kind(&request.uri().to_string(), 8).hash(&mut hasher);
        kind(&asked, 8).hash(&mut hasher);
        kind(&answered, 1).hash(&mut hasher);
        if !self.seen.lock().unwrap().insert(hasher.finish()) {
            return;
        }
        let line = json!({
            "from": *self.source.lock().unwrap(),
            "method": request.method().as_str(),
            "uri": request.uri().to_string(),
            "headers": texts(request.headers()),
            "body": asked,
            "status": reply.status.as_u16(),
            "reply_headers": texts(&reply.headers),
            "reply": answered,
        });
        writeln!(self.out.lock().unwrap(), "{line}").unwrap();
    }
}

fn is_signed(headers: &HeaderMap) -> bool {
    let value = headers.get("authorization").and_then(|v| v.to_str().ok());
    value.is_some_and(|v| v.starts_with("AWS4-HMAC-SHA256"))
}

fn texts(headers: &HeaderMap) -> Value {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(text(value))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A text without what differs from one exchange to the next of the same kind: words of at least `length` characters that
/// have a digit in them (ids, times, tokens).
fn kind(text: &str, length: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let differs = word.len() >= length && word.bytes().any(|b| b.is_ascii_digit());
        out.push_str(if differs { "#" } else { word });
        out.push_str(&piece[word.len()..]);
    }
    out
}

#[test]
fn exchanges_that_differ_in_ids_and_times_alone_are_of_one_kind() {
    let reply = |id: &str, size: u32, status: &str| {
        format!(
            "<requestId>{id}</requestId><desired>{size}</desired><status>{status}</status><at>2026-11-21T08:15:10Z</at>"
        )
    };
    let a = reply("0a1b2c3d-1111-4222-8333-944455566677", 3, "InService");
    let b = reply("9f8e7d6c-2222-4333-8444-1aaabbb2ccc3", 4, "InService");
    assert_eq!(kind(&a, 1), kind(&b, 1));
    assert_ne!(kind(&a, 1), kind(&reply("1-2", 3, "Terminating:Wait"), 1));
    // A weight stays apart from another; a token does not.
    assert_ne!(kind("Weight=50&A=b", 8), kind("Weight=100&A=b", 8));
    assert_eq!(kind("Token=eksup0a1b2c", 8), kind("Token=eksup9f8e7d", 8));
}
