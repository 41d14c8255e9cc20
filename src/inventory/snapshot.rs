//! A cluster in a file: taking it from the live cluster, writing it, reading it again.

use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::Value;

use super::scrub;
use crate::aws::AT_ONCE;
use crate::k8s::Kube;
use crate::k8s::lists::BINDINGS;
use crate::model::inventory::Unread;
use crate::model::snapshot::{API_VERSION, KIND, LISTS, Snapshot};
use crate::model::{ApiError, Class, Inventory};

/// Lists without which a snapshot is of no use.
const ESSENTIAL: &[&str] = &[
    "/api/v1/nodes",
    "/api/v1/pods",
    "/apis/policy/v1/poddisruptionbudgets",
];
/// In a snapshot only where the cluster has any.
const ENI_CONFIGS: &str = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs";

/// Why a file is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file cannot be read.
    #[error("the snapshot `{}` cannot be read: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("the snapshot `{}` cannot be written: {source}", path.display())]
    Unwritable {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The text is no JSON, or the JSON no snapshot.
    #[error("this is no snapshot: {0}; take one with `eksup snapshot`")]
    Malformed(#[source] serde_json::Error),
    /// The text is of another kind or version.
    #[error(
        "this is `{kind}` of `{api_version}`, and this eksup reads `{KIND}` of `{API_VERSION}`; take a new one with `eksup snapshot`"
    )]
    Foreign { api_version: String, kind: String },
}

/// Takes a snapshot: the lists as the API server gives them, and `inventory` (just read) for what AWS says.
pub async fn take(kube: &Kube, inventory: Inventory) -> Result<Snapshot, ApiError> {
    let bound = !inventory.target_group_bindings.is_empty();
    let configured = !inventory.eni_configs.is_empty();
    let mut inventory = scrub::inventory(inventory);
    let paths = LISTS
        .iter()
        .copied()
        .chain(BINDINGS.into_iter().filter(|_| bound))
        .chain(configured.then_some(ENI_CONFIGS));
    let each = paths.map(async |path| Ok((path, list(kube, path).await?)));
    let lists: Vec<(&str, Result<Vec<Value>, Unread>)> =
        stream::iter(each).buffered(AT_ONCE).try_collect().await?;
    let mut kubernetes = std::collections::BTreeMap::new();
    for (path, list) in lists {
        match list {
            // One of the two controllers has none.
            Ok(items) if items.is_empty() && BINDINGS.contains(&path) => {}
            Ok(items) => drop(kubernetes.insert(path.to_owned(), items)),
            Err(unread) => inventory.unread.push(unread),
        }
    }
    Ok(Snapshot {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        inventory,
        kubernetes,
    })
}

async fn list(kube: &Kube, path: &str) -> Result<Result<Vec<Value>, Unread>, ApiError> {
    match kube.list(path).await {
        Ok(mut items) => {
            items.iter_mut().for_each(scrub::object);
            Ok(Ok(items))
        }
        // The cluster has the other controller's bindings only.
        Err(error) if error.class == Class::Absent && BINDINGS.contains(&path) => {
            Ok(Ok(Vec::new()))
        }
        Err(error)
            if !ESSENTIAL.contains(&path)
                && matches!(error.class, Class::Denied | Class::Absent | Class::Invalid) =>
        {
            Ok(Err(Unread {
                op: error.op,
                why: error.message,
            }))
        }
        Err(error) => Err(error),
    }
}

/// Writes a snapshot whole or not at all.
pub fn write(path: &Path, snapshot: &Snapshot) -> Result<(), SnapshotError> {
    let failed = |source: std::io::Error| SnapshotError::Unwritable {
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_string_pretty(snapshot).map_err(|e| failed(e.into()))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, text + "\n")
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(failed)
}

/// Reads a snapshot from a file.
pub fn read(path: &Path) -> Result<Snapshot, SnapshotError> {
    let text = std::fs::read_to_string(path).map_err(|source| SnapshotError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    parse(&text)
}

/// Reads a snapshot from its text.
pub fn parse(text: &str) -> Result<Snapshot, SnapshotError> {
    /// Only what says whether the rest can be understood.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Format {
        api_version: String,
        kind: String,
    }
    let Format { api_version, kind } =
        serde_json::from_str(text).map_err(SnapshotError::Malformed)?;
    if api_version != API_VERSION || kind != KIND {
        return Err(SnapshotError::Foreign { api_version, kind });
    }
    serde_json::from_str(text).map_err(SnapshotError::Malformed)
}
