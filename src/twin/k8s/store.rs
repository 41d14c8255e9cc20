//! The objects, one growing resource version, what happened lately, and indexes kept as objects are written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::facts::Pod;
use super::index::Index;
use super::json::{set, text};
use super::kinds::{Kinds, Res};
use super::watch::Watchers;

/// An object as it was at one version.
pub type Object = Arc<Value>;

/// How many events a watch may be behind at least before it must list again, and at most; between, as in the API server's
/// watch cache, what is younger than [`FRESH`] is kept.
const REMEMBERED: std::ops::Range<usize> = 2_000..100_000;
const FRESH: SignedDuration = SignedDuration::from_secs(75);

/// A namespace (empty for cluster-wide kinds) and a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub ns: String,
    pub name: String,
}

impl Name {
    /// A name.
    pub fn new(ns: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            ns: ns.into(),
            name: name.into(),
        }
    }

    /// The name of `object`.
    pub fn of(object: &Value) -> Self {
        Self::new(
            text(object, "metadata.namespace"),
            text(object, "metadata.name"),
        )
    }
}

/// Where an object is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub res: Res,
    pub at: Name,
}

impl Key {
    /// A key.
    pub fn new(res: Res, ns: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            res,
            at: Name::new(ns, name),
        }
    }
}

/// A write: what was there, what is there now.
#[derive(Clone, Debug)]
pub struct Change {
    pub key: Key,
    pub old: Option<Object>,
    pub new: Option<Object>,
    /// The same of a pod, in short.
    pub pods: [Option<Arc<Pod>>; 2],
}

/// A change with its version; a deleted object is kept as it was last.
#[derive(Clone, Debug)]
pub struct Event {
    pub rv: u64,
    pub at: Timestamp,
    pub key: Key,
    pub old: Option<Object>,
    pub new: Option<Object>,
    /// The object to show: the new one, or the deleted one at the version of its deletion.
    pub shown: Object,
}

/// Everything the API server keeps.
#[derive(Clone, Default)]
pub struct Store {
    pub kinds: Kinds,
    pub index: Index,
    pub watchers: Watchers,
    /// The time, for those who are told how old things are.
    pub now: Timestamp,
    rv: u64,
    objects: BTreeMap<Res, BTreeMap<Name, Object>>,
    log: VecDeque<Event>,
    /// The version before the oldest event still known.
    floor: u64,
    changes: Vec<Change>,
}

impl Store {
    /// The version of the last write.
    pub fn version(&self) -> u64 {
        self.rv
    }

    /// The version of the oldest state a watch can go on from.
    pub fn oldest(&self) -> u64 {
        self.floor
    }

    /// The object at `key`.
    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(&key.res)?.get(&key.at)
    }

    /// The object of a kind by namespace and name.
    pub fn find(&self, res: Res, at: &Name) -> Option<&Object> {
        self.objects.get(&res)?.get(at)
    }

    /// All objects of a kind, in order; those of one namespace when `ns` is not empty.
    pub fn all<'a>(
        &'a self,
        res: Res,
        ns: &'a str,
    ) -> impl Iterator<Item = (&'a Name, &'a Object)> {
        let from = Name::new(ns, "");
        let range = self.objects.get(&res).map(|m| m.range(from..));
        range
            .into_iter()
            .flatten()
            .take_while(move |(name, _)| ns.is_empty() || name.ns == ns)
    }

    /// Seeds an object with the version it has; watches and controllers do not hear of it.
    pub fn seed(&mut self, res: Res, object: Value) {
        let rv = text(&object, "metadata.resourceVersion")
            .parse()
            .unwrap_or(0);
        self.rv = self.rv.max(rv);
        self.floor = self.rv;
        let (name, object) = (Name::of(&object), Arc::new(object));
        self.index.note(res, &name, None, Some(&object));
        self.objects.entry(res).or_default().insert(name, object);
    }

    /// Writes an object, new or not, at the next version.
    pub fn put(&mut self, res: Res, mut object: Value) -> Object {
        self.rv += 1;
        set(&mut object, "metadata.resourceVersion", self.rv.to_string());
        let (name, new) = (Name::of(&object), Arc::new(object));
        let old = self
            .objects
            .entry(res)
            .or_default()
            .insert(name.clone(), new.clone());
        let pods = self.index.note(res, &name, old.as_ref(), Some(&new));
        let shown = new.clone();
        self.record(Key { res, at: name }, old, Some(new.clone()), pods, shown);
        new
    }

    /// Takes an object away.
    pub fn take(&mut self, key: &Key) -> Option<Object> {
        let old = self.objects.get_mut(&key.res)?.remove(&key.at)?;
        self.rv += 1;
        let pods = self.index.note(key.res, &key.at, Some(&old), None);
        let mut last = Value::clone(&old);
        set(&mut last, "metadata.resourceVersion", self.rv.to_string());
        let last = Arc::new(last);
        self.record(key.clone(), Some(old), None, pods, last.clone());
        Some(last)
    }

    fn record(
        &mut self,
        key: Key,
        old: Option<Object>,
        new: Option<Object>,
        pods: [Option<Arc<Pod>>; 2],
        shown: Object,
    ) {
        self.changes.push(Change {
            key: key.clone(),
            old: old.clone(),
            new: new.clone(),
            pods,
        });
        let event = Event {
            rv: self.rv,
            at: self.now,
            key,
            old,
            new,
            shown,
        };
        self.watchers.tell(&self.kinds, &event, self.now);
        self.log.push_back(event);
        while self.log.len() > REMEMBERED.start
            && let Some(first) = self.log.front()
            && (self.log.len() > REMEMBERED.end || self.now.duration_since(first.at) > FRESH)
        {
            self.floor = first.rv;
            self.log.pop_front();
        }
    }

    /// What was written since the last time this was asked.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The events of a kind after version `rv`.
    pub fn since(&self, res: Res, rv: u64) -> impl Iterator<Item = &Event> {
        let from = self.log.partition_point(|e| e.rv <= rv);
        self.log.range(from..).filter(move |e| e.key.res == res)
    }

    /// Forgets what happened, as a restarted API server does. By then the version has moved on, as it does all the time
    /// in a real cluster by what the twin leaves out (leases, heartbeats): nobody can go on from where they were.
    pub fn forget(&mut self) {
        self.rv += 50;
        self.log.clear();
        self.floor = self.rv;
    }

    /// The objects that name the object with `uid` as an owner.
    pub fn owned(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.index.owned.get(uid).into_iter().flatten()
    }

    /// The pods that the object with `uid` controls, in order.
    pub fn pods_of(&self, uid: &str) -> Vec<Arc<Pod>> {
        let pods = self.index.by_controller.get(uid);
        pods.into_iter().flat_map(|p| p.values()).cloned().collect()
    }

    /// The pods on a node, in order.
    pub fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        let pods = self.index.by_node.get(node);
        pods.into_iter().flat_map(|p| p.values()).cloned().collect()
    }
}

/// A reference to an object as its controller, for what it owns.
pub fn owner_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": text(owner, "apiVersion"),
        "kind": text(owner, "kind"),
        "name": text(owner, "metadata.name"),
        "uid": text(owner, "metadata.uid"),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}
