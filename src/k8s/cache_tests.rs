//! The watches, against a server of a few lines whose every answer a test decides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json as j};

use super::api_call_tests::kube;
use crate::clients::fake_wire::{RecordedRequests, json_answer};
use crate::k8s::{KubeApi, WatchCache};
use crate::model::ErrorClass;
use crate::model::kube::NamespacedName;
use crate::wire::{BoxError, Response};

type Chunk = Result<http_body::Frame<Bytes>, BoxError>;

/// An API server with one node, one pod and no budget.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    /// By list path: where the open watch writes to.
    watches: BTreeMap<String, mpsc::UnboundedSender<Chunk>>,
    /// When set, every request is answered so.
    down: Option<fn() -> Result<Response, BoxError>>,
    ready: bool,
}

impl Server {
    fn start(&self) -> (KubeApi, RecordedRequests) {
        let server = self.clone();
        kube(move |request, _| {
            server.answer(
                request.uri().path(),
                request.uri().query().unwrap_or_default(),
            )
        })
    }

    fn answer(&self, path: &str, query: &str) -> Result<Response, BoxError> {
        let mut open = self.0.lock().unwrap();
        if let Some(down) = open.down {
            return down();
        }
        if query.contains("watch=1") {
            let (sender, chunks) = mpsc::unbounded();
            open.watches.insert(path.to_owned(), sender);
            return Ok(Response::new(StreamBody::new(chunks).boxed_unsync()));
        }
        let items = match path {
            "/api/v1/nodes" => vec![node("n1", "1")],
            "/api/v1/pods" => vec![pod("p1", "2", open.ready)],
            _ => vec![],
        };
        json_answer(
            200,
            &j!({"metadata": {"resourceVersion": "10"}, "items": items}),
        )
    }

    /// Sends an event on the open watch of a list.
    fn event(&self, path: &str, kind: &str, object: &Value) {
        let line = format!("{}\n", j!({"type": kind, "object": object}));
        let open = self.0.lock().unwrap();
        open.watches[path]
            .unbounded_send(Ok(http_body::Frame::data(Bytes::from(line))))
            .unwrap();
    }

    /// Breaks every open watch.
    fn cut(&self) {
        for (_, watch) in std::mem::take(&mut self.0.lock().unwrap().watches) {
            let _ = watch.unbounded_send(Err("connection reset".into()));
        }
    }

    fn down(&self, how: Option<fn() -> Result<Response, BoxError>>) {
        self.0.lock().unwrap().down = how;
    }
}

fn node(name: &str, version: &str) -> Value {
    j!({"metadata": {"name": name, "resourceVersion": version}})
}

fn pod(name: &str, version: &str, ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    j!({"metadata": {"namespace": "shop", "name": name, "resourceVersion": version}, "spec": {"containers": []}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}})
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

const PODS: &str = "/api/v1/pods";
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn what_is_watched_is_known_as_soon_as_it_changes() {
    let server = Server::default();
    let cache = WatchCache::start_watches(&server.start().0);
    let known = cache.read_current(SOON).await.unwrap();
    assert_eq!(
        (known.nodes.len(), known.pods.len(), known.pdbs.len()),
        (1, 1, 0)
    );
    settle().await;
    let mut bell = cache.subscribe_changes();
    bell.mark_unchanged();
    let waiting = tokio::spawn(async move { bell.changed().await });
    server.event(PODS, "MODIFIED", &pod("p1", "11", true));
    server.event(PODS, "ADDED", &pod("p2", "12", false));
    tokio::time::timeout(Duration::from_secs(1), waiting)
        .await
        .expect("the bell rings")
        .unwrap()
        .unwrap();
    settle().await;
    let known = cache.read_current(SOON).await.unwrap();
    assert!(known.pods[&NamespacedName::new("shop", "p1")].ready);
    assert!(known.pods.contains_key(&NamespacedName::new("shop", "p2")));
    server.event(PODS, "DELETED", &pod("p2", "13", false));
    settle().await;
    assert_eq!(cache.read_current(SOON).await.unwrap().pods.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cut_watch_goes_on_from_where_it_was() {
    let server = Server::default();
    let (kube, asked) = server.start();
    let cache = WatchCache::start_watches(&kube);
    cache.read_current(SOON).await.unwrap();
    settle().await;
    server.event(PODS, "ADDED", &pod("p2", "42", true));
    server.event(
        PODS,
        "BOOKMARK",
        &j!({"metadata": {"resourceVersion": "57"}}),
    );
    settle().await;
    server.cut();
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.event(PODS, "ADDED", &pod("p3", "60", true));
    settle().await;
    assert_eq!(
        cache.read_current(Duration::ZERO).await.unwrap().pods.len(),
        3
    );
    let pods: Vec<String> = asked
        .request_lines()
        .into_iter()
        .filter(|l| l.contains(PODS))
        .collect();
    assert_eq!(pods.len(), 3, "{pods:?}");
    assert!(
        pods[0].contains("limit=500")
            && pods[1].contains("resourceVersion=10&")
            && pods[2].contains("resourceVersion=57&"),
        "{pods:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_too_old_is_answered_with_a_new_list() {
    let server = Server::default();
    let (kube, asked) = server.start();
    let cache = WatchCache::start_watches(&kube);
    cache.read_current(SOON).await.unwrap();
    settle().await;
    server.event(PODS, "ADDED", &pod("stale", "42", true));
    settle().await;
    server.0.lock().unwrap().ready = true;
    server.event(PODS, "ERROR", &j!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let known = cache.read_current(Duration::ZERO).await.unwrap();
    assert_eq!(
        known
            .pods
            .keys()
            .map(|k| k.name.as_str())
            .collect::<Vec<_>>(),
        ["p1"]
    );
    assert!(known.pods.values().all(|p| p.ready));
    assert_eq!(
        asked
            .request_lines()
            .iter()
            .filter(|l| l.contains("/pods?limit"))
            .count(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn an_absent_server_is_borne_with_patience_and_no_longer() {
    let server = Server::default();
    let cache = WatchCache::start_watches(&server.start().0);
    cache.read_current(SOON).await.unwrap();
    settle().await;
    server.down(Some(|| Err("connection refused".into())));
    server.cut();
    tokio::time::sleep(Duration::from_secs(5 * 60)).await;
    assert_eq!(
        cache
            .read_current(Duration::from_secs(600))
            .await
            .unwrap()
            .pods
            .len(),
        1
    );
    let error = cache.read_current(SOON).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(
        error.message.contains("connection refused"),
        "{}",
        error.message
    );
    server.down(None);
    // The longest wait between two tries is ten seconds and a bit.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(
        cache.read_current(Duration::ZERO).await.unwrap().pods.len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_reader_waits_for_the_first_list_as_long_as_it_has_patience() {
    let server = Server::default();
    server.down(Some(|| Err("connection refused".into())));
    let cache = WatchCache::start_watches(&server.start().0);
    let start = tokio::time::Instant::now();
    assert_eq!(
        cache.read_current(SOON).await.unwrap_err().class,
        ErrorClass::Transient
    );
    assert_eq!(start.elapsed().as_secs(), 30);
    let waiting = {
        let cache = cache.clone();
        tokio::spawn(async move { cache.read_current(Duration::from_secs(600)).await })
    };
    tokio::time::sleep(Duration::from_secs(60)).await;
    server.down(None);
    assert_eq!(waiting.await.unwrap().unwrap().nodes.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_person_must_fix_is_said_at_once() {
    let server = Server::default();
    server.down(Some(|| {
        json_answer(
            403,
            &j!({"kind": "Status", "code": 403, "message": "nodes is forbidden"}),
        )
    }));
    let cache = WatchCache::start_watches(&server.start().0);
    let start = tokio::time::Instant::now();
    let error = cache
        .read_current(Duration::from_secs(600))
        .await
        .unwrap_err();
    assert_eq!(
        (error.class, start.elapsed().as_secs()),
        (ErrorClass::Denied, 0)
    );
    assert!(error.op.starts_with("list "), "{}", error.op);
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_opened_again() {
    let server = Server::default();
    let (kube, asked) = server.start();
    let cache = WatchCache::start_watches(&kube);
    cache.read_current(SOON).await.unwrap();
    tokio::time::sleep(Duration::from_secs(160)).await;
    assert_eq!(
        asked
            .request_lines()
            .iter()
            .filter(|l| l.contains("/pods?watch=1"))
            .count(),
        2
    );
    assert!(cache.read_current(Duration::ZERO).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_watches_end_with_the_last_clone() {
    let server = Server::default();
    let (kube, asked) = server.start();
    let cache = WatchCache::start_watches(&kube);
    cache.read_current(SOON).await.unwrap();
    settle().await;
    let clone = cache.clone();
    drop(cache);
    settle().await;
    assert!(
        server
            .0
            .lock()
            .unwrap()
            .watches
            .values()
            .all(|w| !w.is_closed())
    );
    drop(clone);
    settle().await;
    assert!(
        server
            .0
            .lock()
            .unwrap()
            .watches
            .values()
            .all(mpsc::UnboundedSender::is_closed)
    );
    let before = asked.all_requests().len();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(asked.all_requests().len(), before);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_asks_at_the_same_times() {
    let run = async || {
        fastrand::seed(7);
        let server = Server::default();
        server.down(Some(|| Err("connection refused".into())));
        let start = tokio::time::Instant::now();
        let (kube, asked) = server.start();
        let cache = WatchCache::start_watches(&kube);
        let mut bell = cache.subscribe_changes();
        let mut times = Vec::new();
        while asked.all_requests().len() < 30 {
            bell.changed().await.unwrap();
            times.push(start.elapsed());
        }
        times
    };
    assert_eq!(run().await, run().await);
}
