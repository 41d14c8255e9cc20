//! Pods.

use k8s_openapi::api::core::v1;

use super::quantity::resources;
use super::{annotations, key, owner, required_affinity, time, tolerations};
use crate::model::kube::{Pod, Resources};

/// The annotation of a static pod's mirror.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// What Kubernetes grants a pod that does not say.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// A pod.
pub fn pod(mut pod: v1::Pod) -> Pod {
    let annotations = annotations(&mut pod.metadata);
    let status = pod.status.unwrap_or_default();
    let spec = pod.spec.unwrap_or_default();
    let meta = pod.metadata;
    let ready = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "Ready" && c.status == "True");
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let ports = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .flat_map(|c| c.ports.iter().flatten());
    Pod {
        key: key(&meta),
        owner: owner(&meta),
        uid: meta.uid.unwrap_or_default(),
        labels: meta.labels.unwrap_or_default(),
        mirror: annotations.contains_key(MIRROR),
        annotations,
        ready: ready.is_some(),
        ready_since: ready.and_then(|c| time(c.last_transition_time.clone())),
        waiting: waiting(&status),
        phase: status.phase.unwrap_or_else(|| "Unknown".to_owned()),
        deletion_timestamp: time(meta.deletion_timestamp),
        // Once a deletion is under way, its own grace period counts.
        grace_seconds: meta
            .deletion_grace_period_seconds
            .or(spec.termination_grace_period_seconds)
            .unwrap_or(DEFAULT_GRACE_SECONDS),
        finalizers: meta.finalizers.unwrap_or_default(),
        priority: spec.priority.unwrap_or(0),
        empty_dir: volumes.iter().any(|v| v.empty_dir.is_some()),
        claims: claims(volumes, meta.name.as_deref().unwrap_or_default()),
        host_path: volumes.iter().any(|v| v.host_path.is_some()),
        // A pod with its node's address has all its ports there; the API server writes them so.
        host_ports: ports
            .filter_map(|p| match spec.host_network {
                Some(true) => Some(p.host_port.unwrap_or(p.container_port)),
                Some(false) | None => p.host_port,
            })
            .filter(|p| *p != 0)
            .collect(),
        host_network: spec.host_network.unwrap_or(false),
        requests: requests(&spec),
        priority_class: spec.priority_class_name,
        tolerations: tolerations(spec.tolerations),
        restart_always: spec.restart_policy.as_deref().is_none_or(|p| p == "Always"),
        node_selector: spec.node_selector.unwrap_or_default(),
        required_affinity: required_affinity(spec.affinity),
        node: spec.node_name,
        created: time(meta.creation_timestamp),
    }
}

/// Claims by name; an ephemeral volume's claim is named after pod and volume.
fn claims(volumes: &[v1::Volume], pod: &str) -> Vec<String> {
    let claim = |v: &v1::Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{pod}-{}", v.name)),
        (None, None) => None,
    };
    volumes.iter().filter_map(claim).collect()
}

/// What the scheduler counts: the containers with the sidecars, or an init container with the sidecars started before
/// it, whichever is more; then the overhead. What the pod asks for as a whole takes the place of it.
fn requests(spec: &v1::PodSpec) -> Resources {
    let of = |r: &Option<v1::ResourceRequirements>| {
        r.as_ref()
            .and_then(|r| r.requests.as_ref())
            .map(resources)
            .unwrap_or_default()
    };
    let mut sidecars = Resources::default();
    let mut most = Resources::default();
    for init in spec.init_containers.iter().flatten() {
        let own = of(&init.resources);
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars = sum(sidecars, own);
            most = max(most, sidecars);
        } else {
            most = max(most, sum(sidecars, own));
        }
    }
    let running = spec
        .containers
        .iter()
        .fold(sidecars, |all, c| sum(all, of(&c.resources)));
    let mut total = max(most, running);
    let whole = of(&spec.resources);
    if whole.cpu_millis > 0 {
        total.cpu_millis = whole.cpu_millis;
    }
    if whole.memory_bytes > 0 {
        total.memory_bytes = whole.memory_bytes;
    }
    let overhead = spec.overhead.as_ref().map(resources).unwrap_or_default();
    Resources {
        pods: 0,
        ..sum(total, overhead)
    }
}

fn sum(a: Resources, b: Resources) -> Resources {
    Resources {
        cpu_millis: a.cpu_millis + b.cpu_millis,
        memory_bytes: a.memory_bytes + b.memory_bytes,
        pods: a.pods + b.pods,
    }
}

fn max(a: Resources, b: Resources) -> Resources {
    Resources {
        cpu_millis: a.cpu_millis.max(b.cpu_millis),
        memory_bytes: a.memory_bytes.max(b.memory_bytes),
        pods: a.pods.max(b.pods),
    }
}

/// Longest text of a container's or the scheduler's that is kept.
const MESSAGE_LENGTH: usize = 300;

/// Why a pod is not running: a container's reason and message, or how it ended last, else the scheduler's words. What every
/// pod passes through when it starts is given only when nothing tells more.
fn waiting(status: &v1::PodStatus) -> Option<String> {
    let containers = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten());
    let mut passing = None;
    for container in containers.filter(|c| !c.ready) {
        let state = container.state.as_ref();
        let waiting = state.and_then(|s| s.waiting.as_ref());
        match waiting.and_then(|w| Some((w.reason.as_deref()?, w.message.as_deref()))) {
            Some((reason @ ("ContainerCreating" | "PodInitializing"), _)) => {
                passing = passing.or(Some(reason.to_owned()));
            }
            Some((reason, message)) => return Some(with_message(reason, message)),
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
    let conditions = status.conditions.iter().flatten();
    let unscheduled = conditions
        .into_iter()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False");
    let scheduler = unscheduled.and_then(|c| c.message.clone().or_else(|| c.reason.clone()));
    passing.or(scheduler.map(|text| text.chars().take(MESSAGE_LENGTH).collect()))
}

fn with_message(reason: &str, message: Option<&str>) -> String {
    match message {
        Some(message) => {
            let message: String = message.chars().take(MESSAGE_LENGTH).collect();
            format!("{reason}: {message}")
        }
        None => reason.to_owned(),
    }
}
