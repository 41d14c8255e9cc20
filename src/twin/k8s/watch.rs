//! Watches: who listens to what, and what they are told.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::kinds::{KindId, KindRegistry};
use super::selector::{FieldSelector, LabelSelector};
use super::store::{StoredObject, WatchEvent};
use super::table;
use crate::twin::answer::{Answer, write_json};
use crate::wire::{BoxError, Response};

/// What a list or watch asks for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Empty for all namespaces.
    pub ns: String,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Filter {
    /// Whether `object` is asked for.
    pub fn wants_object(&self, object: &Value) -> bool {
        (self.ns.is_empty() || super::json::text_at(object, "metadata.namespace") == self.ns)
            && (self.labels.is_everything()
                || self
                    .labels
                    .matches(&super::json::text_map_at(object, "metadata.labels")))
            && self.fields.matches(object)
    }
}

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseShape {
    Whole,
    /// As rows of a table, for people.
    Table,
}

/// One who listens.
pub struct Watcher {
    id: u64,
    filter: Filter,
    shape: ResponseShape,
    bookmarks: bool,
    to: UnboundedSender<Result<Bytes, BoxError>>,
}

/// All who listen.
#[derive(Default)]
pub struct Watchers {
    next: u64,
    by_res: BTreeMap<KindId, Vec<Watcher>>,
}

/// A copy of a world begins with nobody listening to it.
impl Clone for Watchers {
    fn clone(&self) -> Self {
        Self {
            next: self.next,
            by_res: BTreeMap::new(),
        }
    }
}

impl Watchers {
    /// Opens a watch: its number, a sender for what it must be told first, and the answer that streams.
    pub fn open_watch(
        &mut self,
        res: KindId,
        filter: Filter,
        shape: ResponseShape,
        bookmarks: bool,
        now: Timestamp,
    ) -> (u64, WatchSender, Answer) {
        let (to, from) = unbounded::<Result<Bytes, BoxError>>();
        self.next += 1;
        let id = self.next;
        let tell = WatchSender {
            to: to.clone(),
            shape,
            now,
        };
        // The filter decides what a watcher sees. Bookmarks go only to those that asked for them.
        self.by_res.entry(res).or_default().push(Watcher {
            id,
            filter,
            shape,
            bookmarks,
            to,
        });
        (
            id,
            tell,
            stream_answer(from.map(|item| item.map(Frame::data))),
        )
    }

    /// Tells everybody who wants to know of `event`.
    pub fn send_event(&mut self, kinds: &KindRegistry, event: &WatchEvent, now: Timestamp) {
        let Some(watchers) = self.by_res.get_mut(&event.key.res) else {
            return;
        };
        // A client that left is noticed only when something is written to it, so lists are tidied here.
        watchers.retain(|w| !w.to.is_closed());
        // The line is the same for all watchers of the whole object, so it is written once for each type of event.
        let mut whole: BTreeMap<&'static str, Bytes> = BTreeMap::new();
        for watcher in watchers {
            let Some(kind) = event_type_for(&watcher.filter, event) else {
                continue;
            };
            let bytes = match watcher.shape {
                ResponseShape::Whole => whole
                    .entry(kind)
                    .or_insert_with(|| event_line(kind, &event.shown))
                    .clone(),
                ResponseShape::Table => event_line(
                    kind,
                    &table::build_table(
                        kinds.get(event.key.res),
                        [&event.shown],
                        &Value::Null,
                        now,
                    ),
                ),
            };
            // The listener has just left: the next event finds it closed.
            let _ = watcher.to.unbounded_send(Ok(bytes));
        }
    }

    /// Tells the watch `id` how far it has come; whether it is still open.
    pub fn send_bookmark(&mut self, kinds: &KindRegistry, res: KindId, id: u64, rv: u64) -> bool {
        let watcher = self
            .by_res
            .get(&res)
            .and_then(|ws| ws.iter().find(|w| w.id == id && !w.to.is_closed()));
        if let Some(watcher) = watcher
            && watcher.bookmarks
        {
            let _ = watcher.to.unbounded_send(Ok(event_line(
                "BOOKMARK",
                &bookmark_line(kinds, res, rv, false),
            )));
        }
        watcher.is_some()
    }

    /// Ends the watch `id` in good order.
    pub fn close_watch(&mut self, res: KindId, id: u64) {
        if let Some(watchers) = self.by_res.get_mut(&res) {
            watchers.retain(|w| w.id != id);
        }
    }

    /// Cuts every watch mid-stream.
    pub fn cut_all(&mut self) {
        for watcher in std::mem::take(&mut self.by_res).into_values().flatten() {
            let _ = watcher
                .to
                .unbounded_send(Err("connection closed before message completed".into()));
        }
    }

    /// How many are listening.
    #[cfg(test)]
    pub fn count_watchers(&self) -> usize {
        self.by_res
            .values()
            .flatten()
            .filter(|w| !w.to.is_closed())
            .count()
    }
}

/// Tells a new watch what it must hear first.
pub struct WatchSender {
    to: UnboundedSender<Result<Bytes, BoxError>>,
    shape: ResponseShape,
    now: Timestamp,
}

impl WatchSender {
    /// Tells of one object.
    pub fn send_object(
        &self,
        kinds: &KindRegistry,
        res: KindId,
        kind: &'static str,
        object: &StoredObject,
    ) {
        let bytes = match self.shape {
            ResponseShape::Whole => event_line(kind, object),
            ResponseShape::Table => event_line(
                kind,
                &table::build_table(kinds.get(res), [object], &Value::Null, self.now),
            ),
        };
        let _ = self.to.unbounded_send(Ok(bytes));
    }

    /// Tells that everything there was has been told.
    pub fn send_initial_end(&self, kinds: &KindRegistry, res: KindId, rv: u64) {
        let _ = self.to.unbounded_send(Ok(event_line(
            "BOOKMARK",
            &bookmark_line(kinds, res, rv, true),
        )));
    }
}

/// What a watcher calls `event`, by whether it wanted the object before and wants it now.
pub fn event_type_for(filter: &Filter, event: &WatchEvent) -> Option<&'static str> {
    let wanted =
        |object: &Option<StoredObject>| object.as_ref().is_some_and(|o| filter.wants_object(o));
    match (wanted(&event.old), wanted(&event.new)) {
        (false, false) => None,
        (false, true) => Some("ADDED"),
        (true, true) => Some("MODIFIED"),
        (true, false) => Some("DELETED"),
    }
}

/// An answer that says one thing and ends.
pub fn single_event_answer(object: &Value) -> Answer {
    let item = Ok::<_, BoxError>(Frame::data(event_line("ERROR", object)));
    stream_answer(futures::stream::once(async { item }))
}

fn stream_answer(
    items: impl futures::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static,
) -> Answer {
    let mut response = Response::new(StreamBody::new(items).boxed_unsync());
    let json = http::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    Answer::Whole(response)
}

fn bookmark_line(kinds: &KindRegistry, res: KindId, rv: u64, end: bool) -> Value {
    let kind = kinds.get(res);
    let mut object = json!({
        "kind": kind.kind, "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": rv.to_string(), "creationTimestamp": null},
    });
    if end {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    object
}

fn event_line(kind: &str, object: &Value) -> Bytes {
    let mut text = format!("{{\"type\":\"{kind}\",\"object\":");
    text.push_str(&write_json(object));
    text.push_str("}\n");
    text.into()
}
