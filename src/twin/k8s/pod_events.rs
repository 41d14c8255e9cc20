//! Events about pods that somebody has to read to know what is wrong. Controllers write no others here.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::cluster::SimCluster;
use super::kinds::EVENTS;
use super::typed_views::PodView;

/// Tells of a pod, once for each reason: who says it, why, and the words.
pub fn warn_of_pod(
    cluster: &mut SimCluster,
    pod: &PodView,
    component: &str,
    reason: &str,
    message: &str,
) {
    let stamp = cluster.timestamp_text();
    // The name is the same for the same pod and words.
    let digest = hex::encode(Sha256::digest(format!("{} {message}", pod.uid)));
    let event = json!({
        "metadata": {"name": format!("{}.{}", pod.name, &digest[..16]), "namespace": pod.ns},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": pod.ns, "name": pod.name, "uid": pod.uid},
        "reason": reason, "message": message, "type": "Warning",
        "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
        "firstTimestamp": stamp, "lastTimestamp": stamp, "count": 1,
    });
    // One that is there already is the same.
    let _ = cluster.create_object(EVENTS, event, false);
}
