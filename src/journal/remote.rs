//! Where the checkpoint and the lock are kept, seen from above: the cluster in earnest, memory in tests.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::ApiError;

/// A boxed future, as [`Remote`] returns it.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A checkpoint's text, in two: most of it is the same for the whole run, and need not be sent with every record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// What changes with every record.
    pub state: String,
    /// What the run is bound to.
    pub bound: Arc<str>,
}

/// The checkpoint as stored, with what fences the next write, and with what others have put on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub text: Text,
    pub version: String,
    pub annotations: BTreeMap<String, String>,
}

/// The lock as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Empty when released.
    pub holder: String,
    pub renewed_at: Option<Timestamp>,
    pub duration_seconds: i32,
    /// How often the lock changed hands.
    pub transitions: i32,
    /// Empty to create.
    pub version: String,
}

/// A checkpoint and a lock, every write fenced by the version that was read: a stale one is a Conflict.
pub trait Remote: Send + Sync {
    /// Reads the checkpoint.
    fn read(&self) -> Boxed<'_, Result<Option<Stored>, ApiError>>;
    /// Writes the checkpoint over what was read, or creates it. What others have put on it stays, but the annotations
    /// named in `without`.
    fn write<'a>(
        &'a self,
        text: &'a Text,
        over: Option<&'a Stored>,
        without: &'a [String],
    ) -> Boxed<'a, Result<Stored, ApiError>>;
    /// Reads the lock.
    fn read_lock(&self) -> Boxed<'_, Result<Option<Held>, ApiError>>;
    /// Writes the lock.
    fn write_lock<'a>(
        &'a self,
        held: &'a Held,
        now: Timestamp,
    ) -> Boxed<'a, Result<Held, ApiError>>;
}
