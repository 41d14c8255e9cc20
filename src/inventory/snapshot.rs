//! A cluster in a file: taking it from the live cluster, writing it, reading it again.

use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::Value;

use super::scrub;
use crate::aws::AWS_CALL_CONCURRENCY;
use crate::k8s::KubeApi;
use crate::k8s::lists::TARGET_GROUP_BINDING_PATHS;
use crate::k8s::node_pools::{NODE_CLAIMS_PATH, NODE_CLASSES_PATH, NODE_POOLS_PATH};
use crate::model::inventory::Unread;
use crate::model::snapshot::{SNAPSHOT_API_VERSION, SNAPSHOT_KIND, SNAPSHOT_LISTS, Snapshot};
use crate::model::{ApiError, ErrorClass, Inventory};

/// Lists without which a snapshot is of no use.
const ESSENTIAL_LISTS: &[&str] = &[
    "/api/v1/nodes",
    "/api/v1/pods",
    "/apis/policy/v1/poddisruptionbudgets",
];
/// What pods are admitted by.
const ADMISSION_LISTS: &[&str] = &[
    "/apis/scheduling.k8s.io/v1/priorityclasses",
    "/api/v1/resourcequotas",
    "/api/v1/limitranges",
];
/// In a snapshot only where the cluster has any.
const ENI_CONFIGS_PATH: &str = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs";

/// Karpenter's objects; in a snapshot only where the cluster has NodePools.
const KARPENTER_PATHS: [&str; 3] = [NODE_POOLS_PATH, NODE_CLAIMS_PATH, NODE_CLASSES_PATH];

/// Whether a cluster may well do without the resource.
fn may_be_absent(path: &str) -> bool {
    TARGET_GROUP_BINDING_PATHS.contains(&path) || KARPENTER_PATHS.contains(&path)
}

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
    #[error("this is not a snapshot: {0}; take one with `eksup snapshot`")]
    Malformed(#[source] serde_json::Error),
    /// The text is of another kind or version.
    #[error(
        "this is `{kind}` of `{api_version}`, and this eksup reads `{SNAPSHOT_KIND}` of `{SNAPSHOT_API_VERSION}`; take a new one with `eksup snapshot`"
    )]
    Foreign { api_version: String, kind: String },
}

/// Takes a snapshot: the lists as the API server gives them, and `inventory` (just read) for what AWS says.
pub async fn take_snapshot(kube: &KubeApi, inventory: Inventory) -> Result<Snapshot, ApiError> {
    let bound = !inventory.target_group_bindings.is_empty();
    let configured = !inventory.eni_configs.is_empty();
    let provisioned = inventory.node_pools().next().is_some();
    let mut inventory = scrub::scrub_inventory(inventory);
    let paths = SNAPSHOT_LISTS
        .iter()
        .copied()
        .chain(TARGET_GROUP_BINDING_PATHS.into_iter().filter(|_| bound))
        .chain(configured.then_some(ENI_CONFIGS_PATH))
        .chain(KARPENTER_PATHS.into_iter().filter(|_| provisioned));
    let each = paths.map(async |path| Ok((path, read_list(kube, path).await?)));
    let lists: Vec<(&str, Result<Vec<Value>, Unread>)> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    let mut kubernetes = std::collections::BTreeMap::new();
    for (path, list) in lists {
        match list {
            // One of the two controllers has none, and Auto Mode no class of AWS's provider.
            Ok(items) if items.is_empty() && may_be_absent(path) => {}
            Ok(items) => drop(kubernetes.insert(path.to_owned(), items)),
            Err(unread) => inventory.unread.push(unread),
        }
    }
    Ok(Snapshot {
        api_version: SNAPSHOT_API_VERSION.to_owned(),
        kind: SNAPSHOT_KIND.to_owned(),
        inventory,
        kubernetes,
        aws: std::collections::BTreeMap::new(),
    })
}

async fn read_list(kube: &KubeApi, path: &str) -> Result<Result<Vec<Value>, Unread>, ApiError> {
    match kube.list_raw(path).await {
        Ok(mut items) => {
            items.iter_mut().for_each(scrub::scrub_object);
            Ok(Ok(items))
        }
        // The cluster has the other controller's bindings only, or EKS's own node class.
        Err(error) if error.class == ErrorClass::Absent && may_be_absent(path) => {
            Ok(Ok(Vec::new()))
        }
        Err(error)
            if !ESSENTIAL_LISTS.contains(&path)
                && matches!(
                    error.class,
                    ErrorClass::Denied | ErrorClass::Absent | ErrorClass::Invalid
                ) =>
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
pub fn write_snapshot(path: &Path, snapshot: &Snapshot) -> Result<(), SnapshotError> {
    let failed = |source: std::io::Error| SnapshotError::Unwritable {
        path: path.to_owned(),
        source,
    };
    let text = serde_json::to_string_pretty(snapshot).map_err(|e| failed(e.into()))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    std::fs::write(&beside, text + "\n")
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|error| {
            let _ = std::fs::remove_file(&beside);
            failed(error)
        })
}

/// Reads a snapshot from a file.
pub fn read_snapshot(path: &Path) -> Result<Snapshot, SnapshotError> {
    let text = std::fs::read_to_string(path).map_err(|source| SnapshotError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    parse_snapshot(&text)
}

/// Reads a snapshot from its text.
pub fn parse_snapshot(text: &str) -> Result<Snapshot, SnapshotError> {
    /// Only what says whether the rest can be understood.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct SnapshotHeader {
        api_version: String,
        kind: String,
    }
    let SnapshotHeader { api_version, kind } =
        serde_json::from_str(text).map_err(SnapshotError::Malformed)?;
    if api_version != SNAPSHOT_API_VERSION || kind != SNAPSHOT_KIND {
        return Err(SnapshotError::Foreign { api_version, kind });
    }
    let mut snapshot = serde_json::from_str(text).map_err(SnapshotError::Malformed)?;
    note_missing_lists(&mut snapshot);
    Ok(snapshot)
}

/// Notes the lists that a snapshot of an older version does not have: they are as unknown as those that could not be read.
fn note_missing_lists(snapshot: &mut Snapshot) {
    for path in ADMISSION_LISTS {
        let op = format!("list {}", path.rsplit('/').next().unwrap_or(path));
        let unread = &mut snapshot.inventory.unread;
        if !snapshot.kubernetes.contains_key(*path) && !unread.iter().any(|u| u.op == op) {
            let why = "the snapshot was taken without this reading".to_owned();
            unread.push(Unread { op, why });
        }
    }
}
