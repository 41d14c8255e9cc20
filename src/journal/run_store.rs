//! Where the checkpoint and the lock are kept, seen from above: the cluster in earnest, memory in tests.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::ApiError;
use crate::model::lease_record::LeaseRecord;

/// A boxed future, as [`RunStore`] returns it.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A checkpoint's text, in two: most of it is the same for the whole run, and need not be sent with every record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointText {
    /// What changes with every record.
    pub state: String,
    /// What the run is bound to.
    pub bound: Arc<str>,
}

/// The checkpoint as stored, with what fences the next write, and with what others have put on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRecord {
    pub text: CheckpointText,
    pub version: String,
    pub annotations: BTreeMap<String, String>,
}

/// A checkpoint and a lock, every write fenced by the version that was read: a stale one is a Conflict.
pub trait RunStore: Send + Sync {
    /// Reads the checkpoint, or nothing where no run was ever opened.
    fn read_checkpoint(&self) -> StoreFuture<'_, Result<Option<CheckpointRecord>, ApiError>>;
    /// Writes the checkpoint over what was read, or creates it. What others have put on it stays, but the annotations
    /// named in `without`.
    fn write_checkpoint<'a>(
        &'a self,
        text: &'a CheckpointText,
        over: Option<&'a CheckpointRecord>,
        without: &'a [String],
    ) -> StoreFuture<'a, Result<CheckpointRecord, ApiError>>;
    /// Reads the Lease, or nothing where there is none yet.
    fn read_lease(&self) -> StoreFuture<'_, Result<Option<LeaseRecord>, ApiError>>;
    /// Creates or replaces the Lease, fenced by its version: Conflict where somebody wrote it since.
    fn write_lease<'a>(
        &'a self,
        held: &'a LeaseRecord,
        now: Timestamp,
    ) -> StoreFuture<'a, Result<LeaseRecord, ApiError>>;
}
