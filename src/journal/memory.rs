//! A checkpoint and a lock in memory, with faults on demand: what tests run against.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;

use super::remote::{Boxed, Held, Remote, Stored, Text};
use crate::model::{ApiError, Class};

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It never arrives.
    Lost,
    /// It takes effect, and its answer never arrives.
    AnswerLost,
    /// It is not allowed.
    Denied,
    /// Whoever calls is not known any more.
    Expired,
}

/// A checkpoint and a lock in memory. Clones share them.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    version: u64,
    text: Option<Stored>,
    lock: Option<Held>,
    calls: u64,
    faults: BTreeMap<u64, Fault>,
    away: bool,
    hangs: bool,
}

impl Memory {
    /// Lets the call of this number (from 0, all kinds counted) go wrong.
    pub fn fault_at(&self, call: u64, fault: Fault) {
        self.inner().faults.insert(call, fault);
    }

    /// Lets every call fail, or none.
    pub fn away(&self, away: bool) {
        self.inner().away = away;
    }

    /// Lets every call hang, or none.
    pub fn hangs(&self, hangs: bool) {
        self.inner().hangs = hangs;
    }

    /// What is stored.
    pub fn text(&self) -> Option<Text> {
        self.inner().text.as_ref().map(|s| s.text.clone())
    }

    /// Annotates the checkpoint, as somebody else may at any time.
    pub fn annotate(&self, key: &str, value: &str) {
        let mut inner = self.inner();
        let version = inner.next();
        if let Some(stored) = &mut inner.text {
            stored.annotations.insert(key.to_owned(), value.to_owned());
            stored.version = version;
        }
    }

    /// The annotations of the checkpoint.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let inner = self.inner();
        inner
            .text
            .as_ref()
            .map(|s| s.annotations.clone())
            .unwrap_or_default()
    }

    /// Who holds the lock.
    pub fn holder(&self) -> Option<String> {
        self.inner().lock.as_ref().map(|l| l.holder.clone())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns once calls are answered.
    async fn answering(&self) {
        while self.inner().hangs {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    fn call<T>(
        &self,
        op: &str,
        f: impl FnOnce(&mut Inner) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut inner = self.inner();
        let number = inner.calls;
        inner.calls += 1;
        let gone = || ApiError::new(op, Class::Transient, "no answer");
        if inner.away {
            return Err(gone());
        }
        match inner.faults.remove(&number) {
            None => f(&mut inner),
            Some(Fault::Lost) => Err(gone()),
            Some(Fault::AnswerLost) => f(&mut inner).and_then(|_| Err(gone())),
            Some(Fault::Expired) => Err(ApiError::new(op, Class::Expired, "unauthorized")),
            Some(Fault::Denied) => Err(ApiError::new(op, Class::Denied, "forbidden")),
        }
    }
}

fn conflict(op: &str) -> ApiError {
    ApiError::new(op, Class::Conflict, "the object has been modified")
}

impl Inner {
    fn next(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }
}

impl Remote for Memory {
    fn read(&self) -> Boxed<'_, Result<Option<Stored>, ApiError>> {
        Box::pin(async move {
            self.answering().await;
            self.call("get configmaps", |i| Ok(i.text.clone()))
        })
    }

    fn write<'a>(
        &'a self,
        text: &'a Text,
        over: Option<&'a Stored>,
        without: &'a [String],
    ) -> Boxed<'a, Result<Stored, ApiError>> {
        Box::pin(async move {
            self.answering().await;
            self.call("patch configmaps", |i| {
                if i.text.as_ref().map(|s| &s.version) != over.map(|s| &s.version) {
                    return Err(conflict("patch configmaps"));
                }
                let mut annotations = over.map(|o| o.annotations.clone()).unwrap_or_default();
                annotations.retain(|key, _| !without.contains(key));
                let stored = Stored {
                    text: text.clone(),
                    version: i.next(),
                    annotations,
                };
                i.text = Some(stored.clone());
                Ok(stored)
            })
        })
    }

    fn read_lock(&self) -> Boxed<'_, Result<Option<Held>, ApiError>> {
        Box::pin(async move {
            self.answering().await;
            self.call("get leases", |i| Ok(i.lock.clone()))
        })
    }

    fn write_lock<'a>(
        &'a self,
        held: &'a Held,
        now: Timestamp,
    ) -> Boxed<'a, Result<Held, ApiError>> {
        Box::pin(async move {
            self.answering().await;
            self.call("update leases", |i| {
                let version = i
                    .lock
                    .as_ref()
                    .map(|l| l.version.clone())
                    .unwrap_or_default();
                if version != held.version {
                    return Err(conflict("update leases"));
                }
                let version = i.next();
                let held = Held {
                    renewed_at: Some(now),
                    version,
                    ..held.clone()
                };
                i.lock = Some(held.clone());
                Ok(held)
            })
        })
    }
}
