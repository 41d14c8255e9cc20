//! What the workload controllers have in common: pods from templates, which go first, which count as available.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::super::cluster::SimCluster;
use super::super::json::{find_condition, slot_at, text_at, value_at};
use super::super::kinds::PODS;
use super::super::store::{ObjectKey, ObjectName, owner_reference};
use super::super::typed_views::PodView;
use super::super::{KubeEvent, admission};
use super::ControllerWork;

/// A pod from the owner's template, not yet named.
pub fn pod_from_template(owner: &Value) -> Value {
    let template = value_at(owner, "spec.template")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": text_at(owner, "metadata.namespace"),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": template.get("spec").cloned().unwrap_or_else(|| json!({})),
    });
    for key in ["labels", "annotations"] {
        if let Some(map) = value_at(&template, &format!("metadata.{key}")) {
            pod["metadata"][key] = map.clone();
        }
    }
    pod
}

/// Puts a label on an object.
pub fn set_label(object: &mut Value, key: &str, value: &str) {
    super::super::json::as_object_mut(slot_at(object, "metadata.labels"))
        .insert(key.to_owned(), value.into());
}

/// How long a controller waits after its pod was refused. The real ones begin with moments and end with minutes.
pub const REFUSED_POD_BACKOFF: Duration = Duration::from_secs(10);

/// Creates a pod for `owner`, which looks again where admission refuses it; a name that is taken or a namespace that goes is
/// nothing a controller can help.
///
/// # Errors
/// What the API server says.
pub fn create_pod(
    cluster: &mut SimCluster,
    mut pod: Value,
    owner: ControllerWork,
) -> Result<(), String> {
    if let Err(refusal) = admission::admit_pod(cluster, &mut pod) {
        cluster.schedule_after(REFUSED_POD_BACKOFF, KubeEvent::RepeatWork(owner));
        return Err(refusal.message);
    }
    let made = cluster.create_object(PODS, pod, false);
    made.map(drop).map_err(|refusal| refusal.message)
}

/// Deletes a pod with its own grace period.
pub fn delete_pod(cluster: &mut SimCluster, pod: &PodView) {
    cluster.delete_object(
        &ObjectKey::new(PODS, pod.ns.clone(), pod.name.clone()),
        None,
    );
}

/// Whether a pod has been ready for as long as it must be to count as available; if not yet, when it will.
pub fn is_available(
    cluster: &SimCluster,
    pod: &PodView,
    min_ready: i64,
) -> Result<bool, SignedDuration> {
    // Without `minReadySeconds` a pod is available as soon as it is Ready, and needs no clock.
    if !pod.ready || min_ready == 0 {
        return Ok(pod.ready);
    }
    // The time counts from the last change of the condition Ready.
    let object = cluster
        .store
        .find_object(PODS, &ObjectName::new(pod.ns.clone(), pod.name.clone()));
    let since = object
        .and_then(|o| find_condition(o, "Ready"))
        .map(|c| text_at(c, "lastTransitionTime").to_owned());
    let since: Option<Timestamp> = since.and_then(|s| s.parse().ok());
    let ready_for = since.map_or(SignedDuration::ZERO, |since| {
        cluster.now.duration_since(since)
    });
    let missing = SignedDuration::from_secs(min_ready) - ready_for;
    if missing.is_positive() {
        Err(missing)
    } else {
        Ok(true)
    }
}

/// The hash in the names of what comes from a template. The real one is another function; nobody computes it.
pub fn template_hash(template: Option<&Value>) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // A value's text cannot fail to be written into memory.
    let text = serde_json::to_vec(&template).unwrap_or_default();
    let digest = Sha256::digest(text);
    digest
        .iter()
        .take(10)
        .map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]))
        .collect()
}
