//! One watched list: list, watch from there, and go on for as long as anyone wants to know.
//!
//! Whatever ends a watch (its own time, a cut connection, a 410, an API server that moved, a refused token) is tried
//! again for ever, in growing steps; what stands in the way is said to the [`Feed`].

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::client::Body;
use kube::core::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::call::request;
use crate::clients::kube_error;
use crate::k8s::Kube;
use crate::model::{ApiError, Class, Clock};

/// How long the server is asked to keep a watch: short enough that a connection lost without a word is soon noticed.
const WATCH: Duration = Duration::from_secs(120);
/// How much longer than asked a watch may live before it is taken for dead.
const GRACE: Duration = Duration::from_secs(30);
/// A watch that ended sooner than this is not opened again at once.
const SOON: SignedDuration = SignedDuration::from_secs(1);
/// The first and the longest wait between two tries.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What is watched, and where it goes.
pub(super) trait Feed: Send + 'static {
    /// The object as the API server gives it.
    type Raw: DeserializeOwned + Metadata<Ty = ObjectMeta> + Send;
    /// The same cut down.
    type Slim: Send;
    /// The list's path.
    const PATH: &'static str;

    /// Cuts an object down.
    fn slim(raw: Self::Raw) -> Self::Slim;
    /// Takes a whole list.
    fn replace(&self, all: Vec<Self::Slim>);
    /// Takes an object that is new or changed.
    fn upsert(&self, one: Self::Slim);
    /// Takes an object that is gone.
    fn remove(&self, one: Self::Slim);
    /// What is known is current (again).
    fn current(&self);
    /// What is known may be out of date, because of this.
    fn failed(&self, why: ApiError);
}

/// Keeps `feed` current until the task is dropped.
pub(super) async fn run<F: Feed>(kube: Kube, feed: F) {
    // Only differences are read from it, so where it starts does not matter.
    let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
    let mut wait = Backoff::default();
    loop {
        let mut version = match kube.list_at(F::PATH, F::slim).await {
            Ok((all, version)) => {
                feed.replace(all);
                feed.current();
                version
            }
            Err(error) => {
                feed.failed(error);
                wait.next().await;
                continue;
            }
        };
        loop {
            let opened = clock.now();
            match watch(&kube, &feed, &mut version, &mut wait).await {
                End::Over => {
                    if clock.now().duration_since(opened) < SOON {
                        wait.next().await;
                    }
                }
                End::Broken(error) => {
                    feed.failed(error);
                    wait.next().await;
                }
                End::TooOld(error) => {
                    feed.failed(error);
                    wait.next().await;
                    break;
                }
            }
        }
    }
}

/// How a watch ended.
enum End {
    /// Its time was over.
    Over,
    /// It broke; it can go on from the last version seen.
    Broken(ApiError),
    /// The version is too old to go on from; list again.
    TooOld(ApiError),
}

#[derive(Deserialize)]
struct Event<T> {
    #[serde(rename = "type")]
    kind: String,
    object: T,
}

async fn watch<F: Feed>(kube: &Kube, feed: &F, version: &mut String, wait: &mut Backoff) -> End {
    let op = format!("watch {}", F::PATH.rsplit('/').next().unwrap_or_default());
    let seconds = WATCH.as_secs();
    let path = format!(
        "{}?watch=1&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={seconds}",
        F::PATH
    );
    let whole = async {
        let response = match request(&op, Method::GET, &path, None, "") {
            Ok(request) => kube
                .client
                .send(request.map(Body::from))
                .await
                .map_err(|e| kube_error::kube(&op, e)),
            Err(error) => Err(error),
        };
        let (parts, mut body) = match response {
            Ok(response) => response.into_parts(),
            Err(error) => return End::Broken(error),
        };
        if !parts.status.is_success() {
            let said = body
                .collect()
                .await
                .map(|b| b.to_bytes())
                .unwrap_or_default();
            return ended(kube_error::answer(&op, parts.status, &parts.headers, &said));
        }
        feed.current();
        let mut lines = Lines::default();
        loop {
            match body.frame().await {
                None => return End::Over,
                Some(Err(error)) => return End::Broken(kube_error::kube(&op, error)),
                Some(Ok(frame)) => {
                    lines.push(frame.data_ref().map(AsRef::as_ref).unwrap_or_default())
                }
            }
            while let Some(line) = lines.next() {
                match take(&op, feed, version, &line) {
                    Ok(()) => wait.reset(),
                    Err(error) => return ended(error),
                }
            }
        }
    };
    match tokio::time::timeout(WATCH + GRACE, whole).await {
        Ok(end) => end,
        Err(_) => End::Broken(ApiError::new(
            &op,
            Class::Transient,
            "the watch fell silent",
        )),
    }
}

/// A conflict is how a 410 is sorted: the version is too old.
fn ended(error: ApiError) -> End {
    if error.class == Class::Conflict {
        End::TooOld(error)
    } else {
        End::Broken(error)
    }
}

fn take<F: Feed>(op: &str, feed: &F, version: &mut String, line: &[u8]) -> Result<(), ApiError> {
    let unread = |e: &dyn std::fmt::Display| {
        ApiError::new(
            op,
            Class::Transient,
            format!("an event could not be read: {e}"),
        )
    };
    let status = || match serde_json::from_slice::<Event<Status>>(line) {
        Ok(said) if said.kind == "ERROR" => kube_error::status_error(op, &said.object),
        Ok(_) => unread(&"its object is of another kind"),
        Err(e) => unread(&e),
    };
    // Nearly every line is an object of the watched kind; a bookmark is one without content.
    let Ok(Event { kind, object }) = serde_json::from_slice::<Event<F::Raw>>(line) else {
        return Err(status());
    };
    let seen = object.metadata().resource_version.clone();
    match kind.as_str() {
        "ADDED" | "MODIFIED" => feed.upsert(F::slim(object)),
        "DELETED" => feed.remove(F::slim(object)),
        "BOOKMARK" => {}
        "ERROR" => return Err(status()),
        other => return Err(unread(&format_args!("its type `{other}` is unknown"))),
    }
    if let Some(seen) = seen {
        *version = seen;
    }
    Ok(())
}

/// Lines out of chunks.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    searched: usize,
}

impl Lines {
    fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let Some(end) = self.buffer[self.searched..]
                .iter()
                .position(|b| *b == b'\n')
            else {
                self.searched = self.buffer.len();
                return None;
            };
            let rest = self.buffer.split_off(self.searched + end + 1);
            let line = std::mem::replace(&mut self.buffer, rest);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}

/// Waits that grow, each a little more or less than the last times two, so that many clients do not come at once.
#[derive(Default)]
struct Backoff {
    tries: u32,
}

impl Backoff {
    async fn next(&mut self) {
        let wait = FIRST_WAIT
            .saturating_mul(1 << self.tries.min(10))
            .min(LONGEST_WAIT);
        self.tries += 1;
        tokio::time::sleep(wait.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
    }

    fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_are_cut() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\n{\"c\"";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut all = Vec::new();
            for chunk in text.chunks(size) {
                lines.push(chunk);
                while let Some(line) = lines.next() {
                    all.push(String::from_utf8(line).unwrap());
                }
            }
            assert_eq!(all, ["{\"a\":1}\n", "{\"b\":2}\n"], "chunks of {size}");
        }
    }
}
