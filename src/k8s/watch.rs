//! One watched list: list, watch from there, and go on for as long as anyone wants to know.
//!
//! Whatever ends a watch (its own time, a cut connection, a 410, an API server that moved, a refused token) is tried
//! again forever, in growing steps; what stands in the way is said to the [`WatchFeed`].

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
use tokio::time::Instant;

use super::api_call::build_request;
use crate::clients::kube_error;
use crate::k8s::KubeApi;
use crate::model::{ApiError, Clock, ErrorClass};

/// How long the server is asked to keep a watch: short enough that a connection lost without a word is soon noticed.
const WATCH_DURATION: Duration = Duration::from_secs(120);
/// How much longer than asked a watch may live before it is taken for dead.
const WATCH_END_GRACE: Duration = Duration::from_secs(30);
/// A watch that ended sooner than this is not opened again at once.
const WATCH_REOPEN_INTERVAL: SignedDuration = SignedDuration::from_secs(1);
/// A watch that was opened and is silent for so long has told what was missed.
const CATCH_UP_SILENCE: Duration = Duration::from_millis(500);
/// One that never falls silent has told it after this.
const LONGEST_CATCH_UP: Duration = Duration::from_secs(5);
/// The first and the longest wait between two tries.
const FIRST_RETRY_WAIT: Duration = Duration::from_millis(250);
const LONGEST_RETRY_WAIT: Duration = Duration::from_secs(10);

/// What is watched, and where it goes.
pub(super) trait WatchFeed: Send + 'static {
    /// The object as the API server gives it.
    type Raw: DeserializeOwned + Metadata<Ty = ObjectMeta> + Send;
    /// The part of the object that the cache keeps.
    type Slim: Send;
    /// The list's path.
    const LIST_PATH: &'static str;

    /// Cuts an object down.
    fn to_model(raw: Self::Raw) -> Self::Slim;
    /// Takes a whole list.
    fn replace_objects(&self, all: Vec<Self::Slim>);
    /// Takes an object that is new or changed.
    fn upsert_object(&self, one: Self::Slim);
    /// Takes an object that is gone.
    fn remove_object(&self, one: Self::Slim);
    /// What is known is current (again).
    fn mark_current(&self);
    /// What is known may be out of date, because of this.
    fn mark_failed(&self, why: ApiError);
}

/// Keeps `feed` current until the task is dropped.
pub(super) async fn keep_feed_current<F: WatchFeed>(kube: KubeApi, feed: F) {
    // Only differences are read from it, so where it starts does not matter.
    let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
    let mut wait = WatchBackoff::default();
    loop {
        // Each round begins with a whole list, which is where its watches go on from.
        let mut version = match kube.list_with_version(F::LIST_PATH, F::to_model).await {
            Ok((all, version)) => {
                feed.replace_objects(all);
                feed.mark_current();
                version
            }
            Err(error) => {
                feed.mark_failed(error);
                wait.wait_longer().await;
                continue;
            }
        };
        loop {
            // A server that ends each watch at once, as it does while it stops, is not asked again in a tight loop.
            let opened = clock.now();
            match run_watch(&kube, &feed, &mut version, &mut wait).await {
                WatchEnd::Over => {
                    if clock.now().duration_since(opened) < WATCH_REOPEN_INTERVAL {
                        wait.wait_longer().await;
                    }
                }
                WatchEnd::Broken(error) => {
                    feed.mark_failed(error);
                    wait.wait_longer().await;
                }
                // Changes were missed, so that only a new list is current again.
                WatchEnd::TooOld(error) => {
                    feed.mark_failed(error);
                    wait.wait_longer().await;
                    break;
                }
            }
        }
    }
}

/// How a watch ended.
enum WatchEnd {
    /// Its time was over.
    Over,
    /// It broke; it can go on from the last version seen.
    Broken(ApiError),
    /// The version is too old to go on from; list again.
    TooOld(ApiError),
}

#[derive(Deserialize)]
struct RawWatchEvent<T> {
    #[serde(rename = "type")]
    kind: String,
    object: T,
}

async fn run_watch<F: WatchFeed>(
    kube: &KubeApi,
    feed: &F,
    version: &mut String,
    wait: &mut WatchBackoff,
) -> WatchEnd {
    let op = format!(
        "watch {}",
        F::LIST_PATH.rsplit('/').next().unwrap_or_default()
    );
    let seconds = WATCH_DURATION.as_secs();
    let path = format!(
        "{}?watch=1&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={seconds}",
        F::LIST_PATH
    );
    // A watch that falls silent is cut off a while after its own end: a connection lost without a word tells nothing.
    let whole = async {
        // The request names the version last seen, so that events of the time without a watch are sent first and none
        // is lost.
        let response = match build_request(&op, Method::GET, &path, None, "") {
            Ok(request) => kube
                .client
                .send(request.map(Body::from))
                .await
                .map_err(|e| kube_error::classify_client_error(&op, e)),
            Err(error) => Err(error),
        };
        let (parts, mut body) = match response {
            Ok(response) => response.into_parts(),
            Err(error) => return WatchEnd::Broken(error),
        };
        // A refusal to go on from an old version is an ordinary answer here. It has to lead to a new list and not to a
        // retry with the same version.
        if !parts.status.is_success() {
            let said = body
                .collect()
                .await
                .map(|b| b.to_bytes())
                .unwrap_or_default();
            return end_by_error(kube_error::classify_response(
                &op,
                parts.status,
                &parts.headers,
                &said,
            ));
        }
        // Events come as lines, and a line may be spread over frames.
        let mut lines = LineBuffer::default();
        // What happened while there was no watch is sent first, in one go, and nothing says where it ends.
        let opened = Instant::now();
        let mut is_caught_up = false;
        loop {
            if !is_caught_up && opened.elapsed() >= LONGEST_CATCH_UP {
                feed.mark_current();
                is_caught_up = true;
            }
            let frame = if is_caught_up {
                body.frame().await
            } else {
                match tokio::time::timeout(CATCH_UP_SILENCE, body.frame()).await {
                    Ok(frame) => frame,
                    Err(_) => {
                        feed.mark_current();
                        is_caught_up = true;
                        continue;
                    }
                }
            };
            match frame {
                None => return WatchEnd::Over,
                Some(Err(error)) => {
                    return WatchEnd::Broken(kube_error::classify_client_error(&op, error));
                }
                Some(Ok(frame)) => {
                    lines.push_chunk(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
                }
            }
            while let Some(line) = lines.next_line() {
                match apply_event(&op, feed, version, &line) {
                    Ok(()) => wait.reset(),
                    Err(error) => return end_by_error(error),
                }
            }
        }
    };
    match tokio::time::timeout(WATCH_DURATION + WATCH_END_GRACE, whole).await {
        Ok(end) => end,
        Err(_) => WatchEnd::Broken(ApiError::new(
            &op,
            ErrorClass::Transient,
            "the watch fell silent",
        )),
    }
}

/// A conflict is how a 410 is sorted: the version is too old.
fn end_by_error(error: ApiError) -> WatchEnd {
    if error.class == ErrorClass::Conflict {
        WatchEnd::TooOld(error)
    } else {
        WatchEnd::Broken(error)
    }
}

fn apply_event<F: WatchFeed>(
    op: &str,
    feed: &F,
    version: &mut String,
    line: &[u8],
) -> Result<(), ApiError> {
    let unread = |e: &dyn std::fmt::Display| {
        ApiError::new(
            op,
            ErrorClass::Transient,
            format!("an event could not be read: {e}"),
        )
    };
    let status = || match serde_json::from_slice::<RawWatchEvent<Status>>(line) {
        Ok(said) if said.kind == "ERROR" => kube_error::classify_status(op, &said.object),
        Ok(_) => unread(&"its object is of another kind"),
        Err(e) => unread(&e),
    };
    // Nearly every line is an object of the watched kind; a bookmark is one without content.
    let Ok(RawWatchEvent { kind, object }) = serde_json::from_slice::<RawWatchEvent<F::Raw>>(line)
    else {
        return Err(status());
    };
    // The version moves on only with events that were taken over, so that a watch that breaks goes on without a gap.
    let seen = object.metadata().resource_version.clone();
    match kind.as_str() {
        "ADDED" | "MODIFIED" => feed.upsert_object(F::to_model(object)),
        "DELETED" => feed.remove_object(F::to_model(object)),
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
struct LineBuffer {
    buffer: Vec<u8>,
    searched: usize,
}

impl LineBuffer {
    fn push_chunk(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
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
/// No `retry_call`: a watch is never given up.
#[derive(Default)]
struct WatchBackoff {
    tries: u32,
}

impl WatchBackoff {
    async fn wait_longer(&mut self) {
        let wait = FIRST_RETRY_WAIT
            .saturating_mul(1 << self.tries.min(10))
            .min(LONGEST_RETRY_WAIT);
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
            let mut lines = LineBuffer::default();
            let mut all = Vec::new();
            for chunk in text.chunks(size) {
                lines.push_chunk(chunk);
                while let Some(line) = lines.next_line() {
                    all.push(String::from_utf8(line).unwrap());
                }
            }
            assert_eq!(all, ["{\"a\":1}\n", "{\"b\":2}\n"], "chunks of {size}");
        }
    }
}
