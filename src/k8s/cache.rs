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
use super::pods::PodsByNode;
use super::watch::{WatchFeed, keep_feed_current};
use crate::k8s::KubeApi;
use crate::model::clock::signed_duration;
use crate::model::kube::{NamespacedName, Node, Pdb, Pod};
use crate::model::node_source::GroupMembers;
use crate::model::{ApiError, Clock, ErrorClass};

/// Nodes, pods and budgets, kept current by watches. Cheap to clone.
#[derive(Clone)]
pub struct WatchCache {
    inner: Arc<WatchTasks>,
}

/// One consistent-enough reading of the cache. The maps are shared and copied only when one changes while it is held.
#[derive(Clone, Debug, Default)]
pub struct CacheSnapshot {
    pub nodes: Arc<BTreeMap<String, Arc<Node>>>,
    pub pods: Arc<PodsByNode>,
    pub pdbs: Arc<BTreeMap<NamespacedName, Arc<Pdb>>>,
}

impl CacheSnapshot {
    /// Has the nodes of self-managed groups say so.
    pub fn name_groups(&mut self, members: &GroupMembers) {
        let named = |node: &Arc<Node>| {
            let group = members.unnamed_group_of(node)?;
            let mut node = Node::clone(node);
            node.self_managed_group = Some(group);
            Some((node.name.clone(), Arc::new(node)))
        };
        let named: Vec<_> = self.nodes.values().filter_map(named).collect();
        if !named.is_empty() {
            Arc::make_mut(&mut self.nodes).extend(named);
        }
    }

    /// What two lists show; without budgets.
    pub fn from_lists(nodes: Vec<Node>, pods: Vec<Pod>) -> Self {
        let mut all = PodsByNode::default();
        pods.into_iter().for_each(|pod| all.put_pod(Arc::new(pod)));
        let nodes = nodes.into_iter().map(|n| (n.name.clone(), Arc::new(n)));
        Self {
            nodes: Arc::new(nodes.collect()),
            pods: Arc::new(all),
            pdbs: Arc::default(),
        }
    }
}

/// The watches' tasks; they end with it.
struct WatchTasks {
    shared: Arc<SharedCache>,
    tasks: Vec<AbortHandle>,
}

impl Drop for WatchTasks {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What the tasks and the readers have in common.
struct SharedCache {
    state: Mutex<CacheState>,
    change_counter: watch::Sender<u64>,
    /// Only differences are read from it, so where it starts does not matter.
    clock: Clock,
    members: GroupMembers,
}

#[derive(Default)]
struct CacheState {
    known: CacheSnapshot,
    /// The health of each watch, by the path of its list.
    feeds: BTreeMap<&'static str, FeedHealth>,
}

/// Whether a watch has listed once, and since when it fails.
#[derive(Default)]
struct FeedHealth {
    listed: bool,
    /// Since when, and why, what is known may be out of date.
    failing: Option<(Timestamp, ApiError)>,
}

/// What a reader of the cache gets: data, the failure in its way, or a wait.
enum CacheReadiness {
    Ready(CacheSnapshot),
    Failed(ApiError),
    /// Look again when the bell rings, or after this long.
    Wait(Option<Duration>),
}

impl WatchCache {
    /// Starts the watches; they stop when the last clone is dropped. A cut watch, a 410 and a moved API server are
    /// survived; the cache then says it is not current until it has listed again.
    pub fn start_watches(kube: &KubeApi) -> Self {
        // Each list has an entry from the start, so that none can be taken for current before it was read.
        let state = CacheState {
            feeds: [Node::LIST_PATH, Pod::LIST_PATH, Pdb::LIST_PATH]
                .into_iter()
                .map(|path| (path, FeedHealth::default()))
                .collect(),
            ..CacheState::default()
        };
        let shared = Arc::new(SharedCache {
            state: Mutex::new(state),
            change_counter: watch::Sender::new(0),
            clock: Clock::starting_at(Timestamp::UNIX_EPOCH),
            members: kube.members.clone(),
        });
        // Each watch has its own task: one that is refused or slow must not hold up the others.
        let tasks = vec![
            tokio::spawn(keep_feed_current(
                kube.clone(),
                CacheFeed::<Node>::new(&shared),
            ))
            .abort_handle(),
            tokio::spawn(keep_feed_current(
                kube.clone(),
                CacheFeed::<Pod>::new(&shared),
            ))
            .abort_handle(),
            tokio::spawn(keep_feed_current(
                kube.clone(),
                CacheFeed::<Pdb>::new(&shared),
            ))
            .abort_handle(),
        ];
        Self {
            inner: Arc::new(WatchTasks { shared, tasks }),
        }
    }

    /// What is known now, once every watch has listed and none has been silent behind a failure for longer than
    /// `patience`; else the failure that stands in the way.
    pub async fn read_current(&self, patience: Duration) -> Result<CacheSnapshot, ApiError> {
        let mut bell = self.subscribe_changes();
        loop {
            bell.mark_unchanged();
            match self.check_readiness(patience) {
                CacheReadiness::Ready(mut known) => {
                    known.name_groups(&self.inner.shared.members);
                    return Ok(known);
                }
                CacheReadiness::Failed(error) => return Err(error),
                // The sender lives as long as `self`, so the bell cannot fail.
                CacheReadiness::Wait(None) => drop(bell.changed().await),
                CacheReadiness::Wait(Some(wait)) => {
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
    pub fn subscribe_changes(&self) -> watch::Receiver<u64> {
        self.inner.shared.change_counter.subscribe()
    }

    fn check_readiness(&self, patience: Duration) -> CacheReadiness {
        // A watch that ended would leave what is known as it was forever, and look current.
        if self.inner.tasks.iter().any(AbortHandle::is_finished) {
            return CacheReadiness::Failed(ApiError::new(
                "watch",
                ErrorClass::Invalid,
                "a watch of the cluster has stopped; this is a bug in eksup",
            ));
        }
        let shared = &self.inner.shared;
        let now = shared.clock.now();
        let state = shared.lock_state();
        let patience = signed_duration(patience);
        let mut wait = None;
        for health in state.feeds.values() {
            let Some((since, why)) = &health.failing else {
                continue;
            };
            // Before the first list there is nothing to fall back on, and what a person must fix does not pass.
            let hopeless = !health.listed
                && matches!(
                    why.class,
                    ErrorClass::Denied | ErrorClass::Expired | ErrorClass::Invalid
                );
            let left = patience - now.duration_since(*since);
            if hopeless || left <= SignedDuration::ZERO {
                return CacheReadiness::Failed(copy_error(why));
            }
            let left = Duration::try_from(left).unwrap_or(Duration::MAX);
            wait = Some(wait.map_or(left, |w: Duration| w.min(left)));
        }
        if state.feeds.values().all(|health| health.listed) {
            CacheReadiness::Ready(state.known.clone())
        } else {
            CacheReadiness::Wait(wait)
        }
    }
}

impl fmt::Debug for WatchCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl SharedCache {
    fn lock_state(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then rings.
    fn change_state(&self, change: impl FnOnce(&mut CacheState)) {
        change(&mut self.lock_state());
        self.change_counter.send_modify(|count| *count += 1);
    }
}

/// An error can be told more than once; what is underneath it is told only the first time.
fn copy_error(error: &ApiError) -> ApiError {
    ApiError {
        retry_after: error.retry_after,
        ..ApiError::new(&error.op, error.class, &error.message)
    }
}

/// A kind of object that the cache keeps.
trait CachedKind: Send + Sync + Sized + 'static {
    type Raw: DeserializeOwned + Metadata<Ty = ObjectMeta> + Send;
    type Table: ObjectTable<Self>;
    const LIST_PATH: &'static str;
    fn to_model(raw: Self::Raw) -> Self;
    fn kind_table(known: &mut CacheSnapshot) -> &mut Self::Table;
}

/// Where objects of a kind are kept.
trait ObjectTable<K>: Default {
    fn put_object(&mut self, one: K);
    fn take_object(&mut self, one: &K);
}

impl ObjectTable<Node> for BTreeMap<String, Arc<Node>> {
    fn put_object(&mut self, one: Node) {
        self.insert(one.name.clone(), Arc::new(one));
    }

    fn take_object(&mut self, one: &Node) {
        self.remove(&one.name);
    }
}

impl ObjectTable<Pod> for PodsByNode {
    fn put_object(&mut self, one: Pod) {
        PodsByNode::put_pod(self, Arc::new(one));
    }

    fn take_object(&mut self, one: &Pod) {
        PodsByNode::remove_pod(self, &one.key);
    }
}

impl ObjectTable<Pdb> for BTreeMap<NamespacedName, Arc<Pdb>> {
    fn put_object(&mut self, one: Pdb) {
        self.insert(one.key.clone(), Arc::new(one));
    }

    fn take_object(&mut self, one: &Pdb) {
        self.remove(&one.key);
    }
}

impl CachedKind for Node {
    type Raw = core::v1::Node;
    type Table = BTreeMap<String, Arc<Node>>;
    const LIST_PATH: &'static str = "/api/v1/nodes";

    fn to_model(raw: Self::Raw) -> Self {
        convert::to_node(raw)
    }

    fn kind_table(known: &mut CacheSnapshot) -> &mut Self::Table {
        Arc::make_mut(&mut known.nodes)
    }
}

impl CachedKind for Pod {
    type Raw = core::v1::Pod;
    type Table = PodsByNode;
    const LIST_PATH: &'static str = "/api/v1/pods";

    fn to_model(raw: Self::Raw) -> Self {
        convert::to_pod(raw)
    }

    fn kind_table(known: &mut CacheSnapshot) -> &mut Self::Table {
        Arc::make_mut(&mut known.pods)
    }
}

impl CachedKind for Pdb {
    type Raw = policy::v1::PodDisruptionBudget;
    type Table = BTreeMap<NamespacedName, Arc<Pdb>>;
    const LIST_PATH: &'static str = "/apis/policy/v1/poddisruptionbudgets";

    fn to_model(raw: Self::Raw) -> Self {
        convert::to_pdb(raw)
    }

    fn kind_table(known: &mut CacheSnapshot) -> &mut Self::Table {
        Arc::make_mut(&mut known.pdbs)
    }
}

/// Where the watch of a kind puts what it hears.
struct CacheFeed<K> {
    shared: Arc<SharedCache>,
    kind: PhantomData<fn() -> K>,
}

impl<K: CachedKind> CacheFeed<K> {
    fn new(shared: &Arc<SharedCache>) -> Self {
        Self {
            shared: shared.clone(),
            kind: PhantomData,
        }
    }
}

impl<K: CachedKind> WatchFeed for CacheFeed<K> {
    type Raw = K::Raw;
    type Slim = K;
    const LIST_PATH: &'static str = K::LIST_PATH;

    fn to_model(raw: K::Raw) -> K {
        K::to_model(raw)
    }

    fn replace_objects(&self, all: Vec<K>) {
        self.shared.change_state(|state| {
            let mut table = K::Table::default();
            all.into_iter().for_each(|one| table.put_object(one));
            *K::kind_table(&mut state.known) = table;
            state.feeds.entry(K::LIST_PATH).or_default().listed = true;
        });
    }

    fn upsert_object(&self, one: K) {
        self.shared
            .change_state(|state| K::kind_table(&mut state.known).put_object(one));
    }

    fn remove_object(&self, one: K) {
        self.shared
            .change_state(|state| K::kind_table(&mut state.known).take_object(&one));
    }

    fn mark_current(&self) {
        // A wake-up is sent only where something changed: a watch that is opened again every two minutes must wake nobody.
        let was = self
            .shared
            .lock_state()
            .feeds
            .entry(K::LIST_PATH)
            .or_default()
            .failing
            .take();
        if was.is_some() {
            self.shared.change_counter.send_modify(|count| *count += 1);
        }
    }

    fn mark_failed(&self, why: ApiError) {
        let now = self.shared.clock.now();
        self.shared.change_state(|state| {
            let health = state.feeds.entry(K::LIST_PATH).or_default();
            // Counted from the first failure in a row, with the latest reason.
            let since = health.failing.take().map_or(now, |(since, _)| since);
            health.failing = Some((since, why));
        });
    }
}
