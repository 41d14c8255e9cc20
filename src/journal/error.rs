//! What can be wrong with a journal.

use std::path::PathBuf;

use crate::model::ApiError;

/// What is wrong with a journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A record that the state does not allow.
    #[error("record {seq} (`{entry}`) is not allowed here: {why}")]
    IllegalRecord {
        seq: u64,
        entry: String,
        why: String,
    },
    /// A line that is no record.
    #[error("{}: line {number} is no record of a run: {why}", path.display())]
    BadLine {
        path: PathBuf,
        number: usize,
        why: String,
    },
    /// The file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The run was written by a newer eksup.
    #[error("the run is written in format {found}; this eksup reads format {ours}")]
    OtherFormat { found: u32, ours: u32 },
    /// The checkpoint is no checkpoint.
    #[error("the run's checkpoint in the cluster cannot be read: {0}")]
    Unreadable(String),
    /// Somebody else wrote the checkpoint since it was read.
    #[error("another process has written the run's checkpoint; this one must stop")]
    FenceLost,
    /// The checkpoint would not fit into a ConfigMap.
    #[error("the run's checkpoint has {bytes} bytes; a ConfigMap takes {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// A call failed in a way that will not pass.
    #[error("the run's checkpoint: {0}")]
    StoreCall(#[source] ApiError),
    /// The API server stayed away for too long.
    #[error("the run's checkpoint could not be written for {minutes} minutes: {source}")]
    StoreUnavailable { minutes: u64, source: ApiError },
}
