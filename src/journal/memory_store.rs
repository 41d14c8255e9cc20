//! A checkpoint and a lock in memory, with faults on demand: what tests run against.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;

use super::run_store::{CheckpointRecord, CheckpointText, RunStore, StoreFuture};
use crate::model::lease_record::LeaseRecord;
use crate::model::{ApiError, ErrorClass};

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
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
pub struct MemoryRunStore(Arc<Mutex<MemoryContent>>);

#[derive(Default)]
struct MemoryContent {
    version: u64,
    text: Option<CheckpointRecord>,
    lock: Option<LeaseRecord>,
    calls: u64,
    faults: BTreeMap<u64, StoreFault>,
    away: bool,
    hangs: bool,
}

impl MemoryRunStore {
    /// Lets the call of this number (from 0, all kinds counted) go wrong.
    pub fn fault_at(&self, call: u64, fault: StoreFault) {
        self.lock_content().faults.insert(call, fault);
    }

    /// Lets every call fail, or none.
    pub fn set_unavailable(&self, away: bool) {
        self.lock_content().away = away;
    }

    /// Lets every call hang, or none.
    pub fn set_hanging(&self, hangs: bool) {
        self.lock_content().hangs = hangs;
    }

    /// What is stored.
    pub fn stored_text(&self) -> Option<CheckpointText> {
        self.lock_content().text.as_ref().map(|s| s.text.clone())
    }

    /// Annotates the checkpoint, as somebody else may at any time.
    pub fn annotate_checkpoint(&self, key: &str, value: &str) {
        let mut inner = self.lock_content();
        let version = inner.next_version();
        if let Some(stored) = &mut inner.text {
            stored.annotations.insert(key.to_owned(), value.to_owned());
            stored.version = version;
        }
    }

    /// The annotations of the checkpoint.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let inner = self.lock_content();
        inner
            .text
            .as_ref()
            .map(|s| s.annotations.clone())
            .unwrap_or_default()
    }

    /// Who holds the lock.
    pub fn lease_holder(&self) -> Option<String> {
        self.lock_content().lock.as_ref().map(|l| l.holder.clone())
    }

    fn lock_content(&self) -> MutexGuard<'_, MemoryContent> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns once calls are answered.
    async fn wait_until_answering(&self) {
        while self.lock_content().hangs {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    fn answer_call<T>(
        &self,
        op: &str,
        f: impl FnOnce(&mut MemoryContent) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut inner = self.lock_content();
        let number = inner.calls;
        inner.calls += 1;
        let gone = || ApiError::new(op, ErrorClass::Transient, "no answer");
        if inner.away {
            return Err(gone());
        }
        match inner.faults.remove(&number) {
            None => f(&mut inner),
            Some(StoreFault::Lost) => Err(gone()),
            Some(StoreFault::AnswerLost) => f(&mut inner).and_then(|_| Err(gone())),
            Some(StoreFault::Expired) => {
                Err(ApiError::new(op, ErrorClass::Expired, "unauthorized"))
            }
            Some(StoreFault::Denied) => Err(ApiError::new(op, ErrorClass::Denied, "forbidden")),
        }
    }
}

fn conflict_error(op: &str) -> ApiError {
    ApiError::new(op, ErrorClass::Conflict, "the object has been modified")
}

impl MemoryContent {
    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }
}

impl RunStore for MemoryRunStore {
    fn read_checkpoint(&self) -> StoreFuture<'_, Result<Option<CheckpointRecord>, ApiError>> {
        Box::pin(async move {
            self.wait_until_answering().await;
            self.answer_call("get configmaps", |i| Ok(i.text.clone()))
        })
    }

    fn write_checkpoint<'a>(
        &'a self,
        text: &'a CheckpointText,
        over: Option<&'a CheckpointRecord>,
        without: &'a [String],
    ) -> StoreFuture<'a, Result<CheckpointRecord, ApiError>> {
        Box::pin(async move {
            self.wait_until_answering().await;
            self.answer_call("patch configmaps", |i| {
                if i.text.as_ref().map(|s| &s.version) != over.map(|s| &s.version) {
                    return Err(conflict_error("patch configmaps"));
                }
                let mut annotations = over.map(|o| o.annotations.clone()).unwrap_or_default();
                annotations.retain(|key, _| !without.contains(key));
                let stored = CheckpointRecord {
                    text: text.clone(),
                    version: i.next_version(),
                    annotations,
                };
                i.text = Some(stored.clone());
                Ok(stored)
            })
        })
    }

    fn read_lease(&self) -> StoreFuture<'_, Result<Option<LeaseRecord>, ApiError>> {
        Box::pin(async move {
            self.wait_until_answering().await;
            self.answer_call("get leases", |i| Ok(i.lock.clone()))
        })
    }

    fn write_lease<'a>(
        &'a self,
        held: &'a LeaseRecord,
        now: Timestamp,
    ) -> StoreFuture<'a, Result<LeaseRecord, ApiError>> {
        Box::pin(async move {
            self.wait_until_answering().await;
            self.answer_call("update leases", |i| {
                let version = i
                    .lock
                    .as_ref()
                    .map(|l| l.version.clone())
                    .unwrap_or_default();
                if version != held.version {
                    return Err(conflict_error("update leases"));
                }
                let version = i.next_version();
                let held = LeaseRecord {
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
