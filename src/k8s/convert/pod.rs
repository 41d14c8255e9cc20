//! Pods.

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pod_admission::to_pod_admission;
use super::pod_cloud::to_cloud_use;
use super::quantity::counted_resources;
use super::volumes::to_node_volumes;
use super::{
    find_recreating_owner, object_key, scheduling, take_annotations, to_timestamp, to_tolerations,
};
use crate::model::kube::Pod;

/// The annotation of a static pod's mirror.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// What Kubernetes grants a pod that does not say.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Reads a pod, cut down to what decisions and messages need; nothing of its environment is kept.
pub fn to_pod(mut pod: v1::Pod) -> Pod {
    let annotations = take_annotations(&mut pod.metadata);
    let status = pod.status.unwrap_or_default();
    let spec = pod.spec.unwrap_or_default();
    let meta = pod.metadata;
    // Only a pod whose condition is `True` counts as Ready; one that has no condition yet has never been.
    let ready = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "Ready" && c.status == "True");
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let requested = scheduling::effective_requests(&spec);
    let cloud = to_cloud_use(&spec);
    let admission = to_pod_admission(&annotations, &spec);
    let placed_by = placed_by(&meta);
    Pod {
        cloud,
        admission,
        placed_by,
        key: object_key(&meta),
        owner: find_recreating_owner(&meta),
        uid: meta.uid.unwrap_or_default(),
        labels: meta.labels.unwrap_or_default(),
        mirror: annotations.contains_key(MIRROR_ANNOTATION),
        annotations,
        ready: ready.is_some(),
        ready_since: ready.and_then(|c| to_timestamp(c.last_transition_time.clone())),
        waiting: waiting_reason(&status),
        phase: status.phase.unwrap_or_else(|| "Unknown".to_owned()),
        deletion_timestamp: to_timestamp(meta.deletion_timestamp),
        // Once a deletion is under way, its own grace period counts.
        grace_seconds: meta
            .deletion_grace_period_seconds
            .or(spec.termination_grace_period_seconds)
            .unwrap_or(DEFAULT_GRACE_SECONDS),
        // A pod behind finalizers stays after its containers have ended, however long one waits.
        finalizers: meta.finalizers.unwrap_or_default(),
        priority: spec.priority.unwrap_or(0),
        node_volumes: to_node_volumes(&spec),
        claims: claim_names(volumes, meta.name.as_deref().unwrap_or_default()),
        host_network: spec.host_network.unwrap_or(false),
        requests: counted_resources(&requested),
        scheduling: scheduling::to_scheduling(&spec),
        priority_class: spec.priority_class_name,
        tolerations: to_tolerations(spec.tolerations),
        restart_always: spec.restart_policy.as_deref().is_none_or(|p| p == "Always"),
        ready_delay_seconds: ready_delay_seconds(&spec.containers),
        node_selector: spec.node_selector.unwrap_or_default(),
        node: spec.node_name,
        created: to_timestamp(meta.creation_timestamp),
    }
}

/// Who owns the field `spec.nodeName`: a binding by a scheduler owns no field (K8S-NODE-NAME-1).
fn placed_by(meta: &ObjectMeta) -> Option<String> {
    let entries = meta.managed_fields.iter().flatten();
    let mut entries = entries.filter(|e| e.subresource.as_deref().unwrap_or_default().is_empty());
    let entry = entries.find(|e| {
        let fields = e.fields_v1.as_ref().map(|f| &f.0);
        fields.is_some_and(|f| f["f:spec"].get("f:nodeName").is_some())
    })?;
    entry.manager.clone()
}

/// The longest initial delay of a container's probes: one that has to start first is asked whether it is ready after that.
fn ready_delay_seconds(containers: &[v1::Container]) -> i64 {
    let delay = |probe: &Option<v1::Probe>| {
        let seconds = probe.as_ref().and_then(|p| p.initial_delay_seconds);
        i64::from(seconds.unwrap_or(0))
    };
    let of = |c: &v1::Container| delay(&c.startup_probe).max(delay(&c.readiness_probe));
    containers.iter().map(of).max().unwrap_or(0)
}

/// Claims by name; an ephemeral volume's claim is named after pod and volume.
fn claim_names(volumes: &[v1::Volume], pod: &str) -> Vec<String> {
    let claim = |v: &v1::Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{pod}-{}", v.name)),
        (None, None) => None,
    };
    volumes.iter().filter_map(claim).collect()
}

/// Longest text of a container's or the scheduler's that is kept.
const MESSAGE_MAX_CHARS: usize = 300;

/// Why a pod is not running: a container's reason and message, or how it ended last, else the scheduler's words. What every
/// pod passes through when it starts is given only when nothing tells more.
fn waiting_reason(status: &v1::PodStatus) -> Option<String> {
    let containers = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten());
    // The first container that tells something wins. A reason that every starting pod has is kept for the end.
    let mut passing = None;
    for container in containers.filter(|c| !c.ready) {
        let state = container.state.as_ref();
        let waiting = state.and_then(|s| s.waiting.as_ref());
        match waiting.and_then(|w| Some((w.reason.as_deref()?, w.message.as_deref()))) {
            Some((reason @ ("ContainerCreating" | "PodInitializing"), _)) => {
                passing = passing.or(Some(reason.to_owned()));
            }
            Some((reason, message)) => {
                let mut text = reason_with_message(reason, message);
                // The kubelet names neither in every message.
                if reason.contains("Image") && !text.contains(&container.image) {
                    text += &format!(" (image {})", container.image);
                }
                let last = container.last_state.as_ref();
                if let Some(end) = last.and_then(|s| s.terminated.as_ref())
                    && !text.contains("exit code")
                {
                    text += &format!(
                        " (container {} ended with exit code {})",
                        container.name, end.exit_code
                    );
                }
                return Some(text);
            }
            // Between two crashes it runs, or has just ended.
            None => {
                let ended = state.and_then(|s| s.terminated.as_ref());
                let last = container
                    .last_state
                    .as_ref()
                    .and_then(|s| s.terminated.as_ref());
                if let Some(end) = ended.or(last).filter(|e| e.exit_code != 0) {
                    return Some(format!(
                        "container {} ended with exit code {} ({}), {} restarts",
                        container.name,
                        end.exit_code,
                        end.reason.as_deref().unwrap_or("Error"),
                        container.restart_count
                    ));
                }
            }
        }
    }
    // No container tells anything: the pod has no node yet, and the scheduler says why.
    let conditions = status.conditions.iter().flatten();
    let unscheduled = conditions
        .into_iter()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False");
    let scheduler = unscheduled.and_then(|c| c.message.clone().or_else(|| c.reason.clone()));
    passing.or(scheduler.map(|text| text.chars().take(MESSAGE_MAX_CHARS).collect()))
}

fn reason_with_message(reason: &str, message: Option<&str>) -> String {
    match message {
        Some(message) => {
            let message: String = message.chars().take(MESSAGE_MAX_CHARS).collect();
            format!("{reason}: {message}")
        }
        None => reason.to_owned(),
    }
}
