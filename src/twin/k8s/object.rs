//! Objects by their names, and what is told of a change of one.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::json::text_at;
use super::kinds::KindId;

/// An object as it was at one version.
pub type StoredObject = Arc<Value>;

/// A namespace (empty for cluster-wide kinds) and a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    pub ns: String,
    pub name: String,
}

impl ObjectName {
    /// A name.
    pub fn new(ns: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            ns: ns.into(),
            name: name.into(),
        }
    }

    /// The name of `object`.
    pub fn of_object(object: &Value) -> Self {
        Self::new(
            text_at(object, "metadata.namespace"),
            text_at(object, "metadata.name"),
        )
    }
}

/// Where an object is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    pub res: KindId,
    pub at: ObjectName,
}

impl ObjectKey {
    /// A key.
    pub fn new(res: KindId, ns: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            res,
            at: ObjectName::new(ns, name),
        }
    }
}

/// A change with its version; a deleted object is kept as it was last.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub rv: u64,
    pub at: Timestamp,
    pub key: ObjectKey,
    pub old: Option<StoredObject>,
    pub new: Option<StoredObject>,
    /// The object to show: the new one, or the deleted one at the version of its deletion.
    pub shown: StoredObject,
}
