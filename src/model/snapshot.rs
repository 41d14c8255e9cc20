//! A cluster in a file: what AWS said in the model's own shape, what Kubernetes said as the API server gave it (without
//! secrets, env values and managedFields). A rehearsal starts from one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Inventory;

/// The format's name and version; a file that says anything else is refused.
pub const SNAPSHOT_API_VERSION: &str = "eksup.dev/v1";
/// The format's kind.
pub const SNAPSHOT_KIND: &str = "Snapshot";

/// A cluster in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    pub api_version: String,
    pub kind: String,
    /// Its Kubernetes lists are empty: [`Snapshot::kubernetes`] has them.
    pub inventory: Inventory,
    /// By the list's path, such as `/api/v1/pods` or `/apis/apps/v1/deployments`: the items.
    pub kubernetes: BTreeMap<String, Vec<Value>>,
    /// By operation, such as `autoscaling:DescribeAutoScalingGroups`: what AWS has beside the inventory, each item in the
    /// shape of the operation's answer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aws: BTreeMap<String, Vec<Value>>,
}

/// The lists a snapshot holds; all of them are cluster-wide.
pub const SNAPSHOT_LISTS: &[&str] = &[
    "/api/v1/namespaces",
    "/api/v1/nodes",
    "/api/v1/pods",
    "/api/v1/services",
    "/api/v1/serviceaccounts",
    "/api/v1/resourcequotas",
    "/api/v1/limitranges",
    "/api/v1/persistentvolumes",
    "/api/v1/persistentvolumeclaims",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/replicasets",
    "/apis/apps/v1/statefulsets",
    "/apis/apps/v1/daemonsets",
    "/apis/batch/v1/jobs",
    "/apis/policy/v1/poddisruptionbudgets",
    "/apis/discovery.k8s.io/v1/endpointslices",
    "/apis/storage.k8s.io/v1/storageclasses",
    "/apis/storage.k8s.io/v1/volumeattachments",
    "/apis/storage.k8s.io/v1/csinodes",
    "/apis/scheduling.k8s.io/v1/priorityclasses",
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
];
