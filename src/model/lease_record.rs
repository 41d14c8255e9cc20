//! The lock of a run, between the journal that holds it and the Lease that keeps it.

use jiff::Timestamp;

/// The lock as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Empty when released.
    pub holder: String,
    pub renewed_at: Option<Timestamp>,
    /// How long it is good for without being renewed; absent where the Lease does not say.
    pub duration_seconds: Option<i32>,
    /// How often the lock changed its holder.
    pub transitions: i32,
    /// Empty to create.
    pub version: String,
}
