//! What watches keep current: nodes, pods and budgets, and a bell that rings when any of them changes.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::Metadata;
use k8s_openapi::api::{core, policy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::convert;
use super::pods::Pods;
use super::watch::{Feed, run};
use crate::k8s::Kube;
use crate::model::kube::{Key, Node, Pdb, Pod};
use crate::model::{ApiError, Class, Clock};

/// Nodes, pods and budgets, kept current by watches. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

/// One consistent-enough reading of the cache. The maps are shared and copied only when one changes while it is held.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub nodes: Arc<BTreeMap<String, Arc<Node>>>,
    pub pods: Arc<Pods>,
    pub pdbs: Arc<BTreeMap<Key, Arc<Pdb>>>,
}

impl Snapshot {
    /// What two lists show; without budgets.
    pub fn of_lists(nodes: Vec<Node>, pods: Vec<Pod>) -> Self {
        let mut all = Pods::default();
        pods.into_iter().for_each(|pod| all.put(Arc::new(pod)));
        let nodes = nodes.into_iter().map(|n| (n.name.clone(), Arc::new(n)));
        Self {
            nodes: Arc::new(nodes.collect()),
            pods: Arc::new(all),
            pdbs: Arc::default(),
        }
    }
}

/// The watches' tasks; they end with it.
struct Inner {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What the tasks and the readers have in common.
struct Shared {
    state: Mutex<State>,
    bell: watch::Sender<u64>,
    /// Only differences are read from it, so where it starts does not matter.
    clock: Clock,
}

#[derive(Default)]
struct State {
    known: Snapshot,
    /// By the list's path.
    feeds: BTreeMap<&'static str, Health>,
}

/// How a watch is.
#[derive(Default)]
struct Health {
    listed: bool,
    /// Since when, and why, what is known may be out of date.
    failing: Option<(Timestamp, ApiError)>,
}

/// What a reader gets.
enum Verdict {
    Ready(Snapshot),
    Failed(ApiError),
    /// Look again when the bell rings, or after this long.
    Wait(Option<Duration>),
}

impl Cache {
    /// Starts the watches; they stop when the last clone is dropped. A cut watch, a 410 and a moved API server are
    /// survived; the cache then says it is not current until it has listed again.
    pub fn start(kube: &Kube) -> Self {
        let state = State {
            feeds: [Node::PATH, Pod::PATH, Pdb::PATH]
                .into_iter()
                .map(|path| (path, Health::default()))
                .collect(),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            bell: watch::Sender::new(0),
            clock: Clock::starting_at(Timestamp::UNIX_EPOCH),
        });
        let tasks = vec![
            tokio::spawn(run(kube.clone(), Kept::<Node>::of(&shared))).abort_handle(),
            tokio::spawn(run(kube.clone(), Kept::<Pod>::of(&shared))).abort_handle(),
            tokio::spawn(run(kube.clone(), Kept::<Pdb>::of(&shared))).abort_handle(),
        ];
        Self {
            inner: Arc::new(Inner { shared, tasks }),
        }
    }

    /// What is known now, once every watch has listed and none has been silent behind a failure for longer than
    /// `patience`; else the failure that stands in the way.
    pub async fn read(&self, patience: Duration) -> Result<Snapshot, ApiError> {
        let mut bell = self.changed();
        loop {
            bell.mark_unchanged();
            match self.verdict(patience) {
                Verdict::Ready(known) => return Ok(known),
                Verdict::Failed(error) => return Err(error),
                // The sender lives as long as `self`, so the bell cannot fail.
                Verdict::Wait(None) => drop(bell.changed().await),
                Verdict::Wait(Some(wait)) => {
                    tokio::select! {
                        biased;
                        _ = bell.changed() => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// A change counter, for waiting. It moves with every change, and when the cache stops or begins to be current.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.shared.bell.subscribe()
    }

    fn verdict(&self, patience: Duration) -> Verdict {
        if self.inner.tasks.iter().any(AbortHandle::is_finished) {
            return Verdict::Failed(ApiError::new(
                "watch",
                Class::Invalid,
                "a watch of the cluster has stopped; this is a bug in eksup",
            ));
        }
        let shared = &self.inner.shared;
        let now = shared.clock.now();
        let state = shared.lock();
        let patience = SignedDuration::try_from(patience).unwrap_or(SignedDuration::MAX);
        let mut wait = None;
        for health in state.feeds.values() {
            let Some((since, why)) = &health.failing else {
                continue;
            };
            // Before the first list there is nothing to fall back on, and what a person must mend does not pass.
            let hopeless = !health.listed
                && matches!(why.class, Class::Denied | Class::Expired | Class::Invalid);
            let left = patience - now.duration_since(*since);
            if hopeless || left <= SignedDuration::ZERO {
                return Verdict::Failed(copy(why));
            }
            let left = Duration::try_from(left).unwrap_or(Duration::MAX);
            wait = Some(wait.map_or(left, |w: Duration| w.min(left)));
        }
        if state.feeds.values().all(|health| health.listed) {
            Verdict::Ready(state.known.clone())
        } else {
            Verdict::Wait(wait)
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then rings.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.bell.send_modify(|count| *count += 1);
    }
}

/// An error can be told more than once; what is underneath it is told only the first time.
fn copy(error: &ApiError) -> ApiError {
    ApiError {
        retry_after: error.retry_after,
        ..ApiError::new(&error.op, error.class, &error.message)
    }
}

/// A kind of object that the cache keeps.
trait Keep: Send + Sync + Sized + 'static {
    type Raw: DeserializeOwned + Metadata<Ty = ObjectMeta> + Send;
    type Table: Table<Self>;
    const PATH: &'static str;
    fn slim(raw: Self::Raw) -> Self;
    fn table(known: &mut Snapshot) -> &mut Self::Table;
}

/// Where objects of a kind are kept.
trait Table<K>: Default {
    fn put(&mut self, one: K);
    fn take(&mut self, one: &K);
}

impl Table<Node> for BTreeMap<String, Arc<Node>> {
    fn put(&mut self, one: Node) {
        self.insert(one.name.clone(), Arc::new(one));
    }

    fn take(&mut self, one: &Node) {
        self.remove(&one.name);
    }
}

impl Table<Pod> for Pods {
    fn put(&mut self, one: Pod) {
        Pods::put(self, Arc::new(one));
    }

    fn take(&mut self, one: &Pod) {
        Pods::take(self, &one.key);
    }
}

impl Table<Pdb> for BTreeMap<Key, Arc<Pdb>> {
    fn put(&mut self, one: Pdb) {
        self.insert(one.key.clone(), Arc::new(one));
    }

    fn take(&mut self, one: &Pdb) {
        self.remove(&one.key);
    }
}

impl Keep for Node {
    type Raw = core::v1::Node;
    type Table = BTreeMap<String, Arc<Node>>;
    const PATH: &'static str = "/api/v1/nodes";

    fn slim(raw: Self::Raw) -> Self {
        convert::node(raw)
    }

    fn table(known: &mut Snapshot) -> &mut Self::Table {
        Arc::make_mut(&mut known.nodes)
    }
}

impl Keep for Pod {
    type Raw = core::v1::Pod;
    type Table = Pods;
    const PATH: &'static str = "/api/v1/pods";

    fn slim(raw: Self::Raw) -> Self {
        convert::pod(raw)
    }

    fn table(known: &mut Snapshot) -> &mut Self::Table {
        Arc::make_mut(&mut known.pods)
    }
}

impl Keep for Pdb {
    type Raw = policy::v1::PodDisruptionBudget;
    type Table = BTreeMap<Key, Arc<Pdb>>;
    const PATH: &'static str = "/apis/policy/v1/poddisruptionbudgets";

    fn slim(raw: Self::Raw) -> Self {
        convert::pdb(raw)
    }

    fn table(known: &mut Snapshot) -> &mut Self::Table {
        Arc::make_mut(&mut known.pdbs)
    }
}

/// Where the watch of a kind puts what it hears.
struct Kept<K> {
    shared: Arc<Shared>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Keep> Kept<K> {
    fn of(shared: &Arc<Shared>) -> Self {
        Self {
            shared: shared.clone(),
            kind: PhantomData,
        }
    }
}

impl<K: Keep> Feed for Kept<K> {
    type Raw = K::Raw;
    type Slim = K;
    const PATH: &'static str = K::PATH;

    fn slim(raw: K::Raw) -> K {
        K::slim(raw)
    }

    fn replace(&self, all: Vec<K>) {
        self.shared.change(|state| {
            let mut table = K::Table::default();
            all.into_iter().for_each(|one| table.put(one));
            *K::table(&mut state.known) = table;
            state.feeds.entry(K::PATH).or_default().listed = true;
        });
    }

    fn upsert(&self, one: K) {
        self.shared
            .change(|state| K::table(&mut state.known).put(one));
    }

    fn remove(&self, one: K) {
        self.shared
            .change(|state| K::table(&mut state.known).take(&one));
    }

    fn current(&self) {
        let was = self
            .shared
            .lock()
            .feeds
            .entry(K::PATH)
            .or_default()
            .failing
            .take();
        if was.is_some() {
            self.shared.bell.send_modify(|count| *count += 1);
        }
    }

    fn failed(&self, why: ApiError) {
        let now = self.shared.clock.now();
        self.shared.change(|state| {
            let health = state.feeds.entry(K::PATH).or_default();
            let since = health.failing.take().map_or(now, |(since, _)| since);
            health.failing = Some((since, why));
        });
    }
}
