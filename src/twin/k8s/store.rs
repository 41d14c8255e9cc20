//! The objects, one growing resource version, what happened lately, and indexes kept as objects are written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::index::StoreIndex;
use super::json::{set_at, text_at};
use super::kinds::{KindId, KindRegistry};
use super::typed_views::PodView;
use super::watch::Watchers;

pub use super::object::{ObjectKey, ObjectName, StoredObject, WatchEvent};

/// How many events a watch may be behind at least before it must list again, and at most; between, as in the API server's
/// watch cache, what is younger than [`EVENT_FRESHNESS`] is kept.
const EVENTS_KEPT: std::ops::Range<usize> = 2_000..100_000;
const EVENT_FRESHNESS: SignedDuration = SignedDuration::from_secs(75);

/// A write: what was there, what is there now.
#[derive(Clone, Debug)]
pub struct ObjectChange {
    pub key: ObjectKey,
    pub old: Option<StoredObject>,
    pub new: Option<StoredObject>,
    /// The same of a pod, in short.
    pub pods: [Option<Arc<PodView>>; 2],
}

/// Everything the API server keeps.
#[derive(Clone, Default)]
pub struct ObjectStore {
    pub kinds: KindRegistry,
    pub index: StoreIndex,
    pub watchers: Watchers,
    /// The time, for those who are told how old things are.
    pub now: Timestamp,
    rv: u64,
    objects: BTreeMap<KindId, BTreeMap<ObjectName, StoredObject>>,
    log: VecDeque<WatchEvent>,
    /// The version before the oldest event still known.
    floor: u64,
    changes: Vec<ObjectChange>,
}

impl ObjectStore {
    /// The version of the last write.
    pub fn last_version(&self) -> u64 {
        self.rv
    }

    /// The version of the oldest state a watch can go on from.
    pub fn oldest_version(&self) -> u64 {
        self.floor
    }

    /// The object at `key`.
    pub fn get_object(&self, key: &ObjectKey) -> Option<&StoredObject> {
        self.objects.get(&key.res)?.get(&key.at)
    }

    /// The object of a kind by namespace and name.
    pub fn find_object(&self, res: KindId, at: &ObjectName) -> Option<&StoredObject> {
        self.objects.get(&res)?.get(at)
    }

    /// All objects of a kind, in order; those of one namespace when `ns` is not empty.
    pub fn objects_of<'a>(
        &'a self,
        res: KindId,
        ns: &'a str,
    ) -> impl Iterator<Item = (&'a ObjectName, &'a StoredObject)> {
        let from = ObjectName::new(ns, "");
        let range = self.objects.get(&res).map(|m| m.range(from..));
        range
            .into_iter()
            .flatten()
            .take_while(move |(name, _)| ns.is_empty() || name.ns == ns)
    }

    /// Seeds an object with the version it has; watches and controllers do not hear of it.
    pub fn seed_object(&mut self, res: KindId, object: Value) {
        let rv = text_at(&object, "metadata.resourceVersion")
            .parse()
            .unwrap_or(0);
        self.rv = self.rv.max(rv);
        self.floor = self.rv;
        let (name, object) = (ObjectName::of_object(&object), Arc::new(object));
        self.index.index_write(res, &name, None, Some(&object));
        self.objects.entry(res).or_default().insert(name, object);
    }

    /// Writes an object, new or not, at the next version.
    pub fn write_object(&mut self, res: KindId, mut object: Value) -> StoredObject {
        // The version grows with each write of any object, so that versions order all of them.
        self.rv += 1;
        set_at(&mut object, "metadata.resourceVersion", self.rv.to_string());
        let (name, new) = (ObjectName::of_object(&object), Arc::new(object));
        let old = self
            .objects
            .entry(res)
            .or_default()
            .insert(name.clone(), new.clone());
        // The index is written before the event is told, because controllers that hear of it use the index.
        let pods = self.index.index_write(res, &name, old.as_ref(), Some(&new));
        let shown = new.clone();
        self.record_event(
            ObjectKey { res, at: name },
            old,
            Some(new.clone()),
            pods,
            shown,
        );
        new
    }

    /// Takes an object away.
    pub fn remove_object(&mut self, key: &ObjectKey) -> Option<StoredObject> {
        let old = self.objects.get_mut(&key.res)?.remove(&key.at)?;
        self.rv += 1;
        let pods = self.index.index_write(key.res, &key.at, Some(&old), None);
        let mut last = Value::clone(&old);
        set_at(&mut last, "metadata.resourceVersion", self.rv.to_string());
        let last = Arc::new(last);
        self.record_event(key.clone(), Some(old), None, pods, last.clone());
        Some(last)
    }

    fn record_event(
        &mut self,
        key: ObjectKey,
        old: Option<StoredObject>,
        new: Option<StoredObject>,
        pods: [Option<Arc<PodView>>; 2],
        shown: StoredObject,
    ) {
        // Controllers hear of the change through this list, when the current step is over.
        self.changes.push(ObjectChange {
            key: key.clone(),
            old: old.clone(),
            new: new.clone(),
            pods,
        });
        let event = WatchEvent {
            rv: self.rv,
            at: self.now,
            key,
            old,
            new,
            shown,
        };
        // Watches are sent the event at once, in the order of the versions.
        self.watchers.send_event(&self.kinds, &event, self.now);
        self.log.push_back(event);
        // Old events are dropped by number and by age. A watch that resumes from before the floor is refused
        // (K8S-NODE-3).
        while self.log.len() > EVENTS_KEPT.start
            && let Some(first) = self.log.front()
            && (self.log.len() > EVENTS_KEPT.end
                || self.now.duration_since(first.at) > EVENT_FRESHNESS)
        {
            self.floor = first.rv;
            self.log.pop_front();
        }
    }

    /// What was written since the last time this was asked.
    pub fn take_changes(&mut self) -> Vec<ObjectChange> {
        std::mem::take(&mut self.changes)
    }

    /// The events of a kind after version `rv`.
    pub fn events_since(&self, res: KindId, rv: u64) -> impl Iterator<Item = &WatchEvent> {
        let from = self.log.partition_point(|e| e.rv <= rv);
        self.log.range(from..).filter(move |e| e.key.res == res)
    }

    /// Forgets what happened, as a restarted API server does. By then the version has moved on, as it does all the time
    /// in a real cluster by what the twin leaves out (leases, heartbeats): nobody can go on from where they were.
    pub fn forget_history(&mut self) {
        self.rv += 50;
        self.log.clear();
        self.floor = self.rv;
    }

    /// The objects that name the object with `uid` as an owner.
    pub fn owned_by(&self, uid: &str) -> impl Iterator<Item = &ObjectKey> {
        self.index.owned.get(uid).into_iter().flatten()
    }

    /// The pods that the object with `uid` controls, in order.
    pub fn pods_of(&self, uid: &str) -> Vec<Arc<PodView>> {
        let pods = self.index.by_controller.get(uid);
        pods.into_iter().flat_map(|p| p.values()).cloned().collect()
    }

    /// The pods on a node, in order.
    pub fn pods_on(&self, node: &str) -> Vec<Arc<PodView>> {
        let pods = self.index.by_node.get(node);
        pods.into_iter().flat_map(|p| p.values()).cloned().collect()
    }
}

/// A reference to an object as its controller, for what it owns.
pub fn owner_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": text_at(owner, "apiVersion"),
        "kind": text_at(owner, "kind"),
        "name": text_at(owner, "metadata.name"),
        "uid": text_at(owner, "metadata.uid"),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}
