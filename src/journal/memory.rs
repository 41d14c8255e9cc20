//! A checkpoint and a lock in memory, with faults on demand: what tests run against.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;

use super::remote::{Boxed, Held, Remote, Stored};
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

    /// What is stored.
    pub fn text(&self) -> Option<String> {
        self.inner().text.as_ref().map(|s| s.text.clone())
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
        Box::pin(async move { self.call("get configmaps", |i| Ok(i.text.clone())) })
    }

    fn write<'a>(
        &'a self,
        text: &'a str,
        fence: Option<&'a str>,
    ) -> Boxed<'a, Result<String, ApiError>> {
        Box::pin(async move {
            self.call("update configmaps", |i| {
                if i.text.as_ref().map(|s| s.version.as_str()) != fence {
                    return Err(conflict("update configmaps"));
                }
                let version = i.next();
                i.text = Some(Stored {
                    text: text.to_owned(),
                    version: version.clone(),
                });
                Ok(version)
            })
        })
    }

    fn read_lock(&self) -> Boxed<'_, Result<Option<Held>, ApiError>> {
        Box::pin(async move { self.call("get leases", |i| Ok(i.lock.clone())) })
    }

    fn write_lock<'a>(
        &'a self,
        held: &'a Held,
        now: Timestamp,
    ) -> Boxed<'a, Result<Held, ApiError>> {
        Box::pin(async move {
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
