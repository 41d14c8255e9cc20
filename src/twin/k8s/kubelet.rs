//! Kubelets: they start pods, make them ready, and stop them. Annotations on a pod say how it behaves:
//! `twin.eksup.dev/ready-after: 20s`, `never-ready`, `crash-loop`, `image-missing`, `stop-after: 1m`, `runs-for: 5m`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::KubeEvent;
use super::cluster::SimCluster;
use super::fargate_state::is_fargate;
use super::json::{
    find_annotation, list_at, number_at, parse_duration, set_at, set_condition, text_at,
};
use super::kinds::{NODES, PODS, REPLICA_SETS};
use super::kubelet_settings::{POD_NETWORK_SIZE, POD_NETWORK_START};
use super::pod_events::warn_of_pod;
use super::store::{ObjectKey, ObjectName};
use super::typed_views::{OwnerRef, PodView};
use super::{kubelet_admission, metadata_access, volumes, windows_nodes};

const BEHAVIOR_ANNOTATION_PREFIX: &str = "twin.eksup.dev/";

/// A step of a kubelet with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodLifecycleStep {
    /// The pod is new on the node: what must be there before it starts?
    Prepare,
    /// The kubelet says that it will not run the pod.
    Reject,
    Start,
    Ready,
    /// The container is started again and ends again.
    Crash,
    /// The pod has done its work.
    Complete,
    Stop,
}

/// What a pod's annotation says.
fn behavior_annotation<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    find_annotation(pod, &format!("{BEHAVIOR_ANNOTATION_PREFIX}{key}")).filter(|v| *v != "false")
}

/// A pod has been bound to a node.
pub fn on_pod_bound(cluster: &mut SimCluster, pod: &PodView) {
    if pod.is_finished() {
        return;
    }
    let step = if pod.phase == "Pending" {
        PodLifecycleStep::Prepare
    } else {
        PodLifecycleStep::Complete
    };
    // A pod that runs already, as those of a snapshot do, only has to end in its time.
    if step == PodLifecycleStep::Complete {
        let object = cluster
            .store
            .find_object(PODS, &ObjectName::new(pod.ns.clone(), pod.name.clone()));
        let ends = object.filter(|o| text_at(o, "spec.restartPolicy") != "Always");
        if let Some(runs) = ends.map(|o| run_duration(o)) {
            cluster.schedule_after(runs, step_event(PodLifecycleStep::Complete, pod));
        }
        return;
    }
    cluster.schedule_after(Duration::from_millis(20), step_event(step, pod));
}

fn step_event(step: PodLifecycleStep, pod: &PodView) -> KubeEvent {
    KubeEvent::Kubelet(
        step,
        ObjectName::new(pod.ns.clone(), pod.name.clone()),
        pod.uid.clone(),
    )
}

/// How long after its deletion a pod's kubelet has ended it for certain.
const HELD_POD_AGE: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

/// A pod is to go: it ends when it is done or when its grace is over.
pub fn stop_pod(cluster: &mut SimCluster, pod: &PodView) {
    let key = ObjectKey::new(PODS, pod.ns.clone(), pod.name.clone());
    let Some(object) = cluster.store.get_object(&key).cloned() else {
        return;
    };
    // One that a finalizer has held for long is as the snapshot shows it: its kubelet has done what it does.
    let until: Option<jiff::Timestamp> =
        text_at(&object, "metadata.deletionTimestamp").parse().ok();
    let long_ago = until.is_some_and(|t| cluster.now.duration_since(t) > HELD_POD_AGE);
    if long_ago && !list_at(&object, "metadata.finalizers").is_empty() {
        return;
    }
    let grace = Duration::from_secs(
        number_at(&object, "metadata.deletionGracePeriodSeconds")
            .unwrap_or(30)
            .max(0) as u64,
    );
    // A pod ends when its process has stopped, or by force when its grace period is over (K8S-POD-4).
    let (from, to) = cluster.pace.stop;
    let own = cluster.random_delay(from, to);
    let own = behavior_annotation(&object, "stop-after")
        .and_then(parse_duration)
        .unwrap_or(own)
        + pre_stop_sleep(&object);
    cluster.schedule_after(own.min(grace), step_event(PodLifecycleStep::Stop, pod));
}

/// How long the hooks before the stop sleep.
fn pre_stop_sleep(pod: &Value) -> Duration {
    let of = |container: &Value| {
        // The built-in sleep and a shell's are both known; any other hook counts as done at once.
        if let Some(seconds) = number_at(container, "lifecycle.preStop.sleep.seconds") {
            return seconds;
        }
        let words = list_at(container, "lifecycle.preStop.exec.command")
            .iter()
            .filter_map(Value::as_str);
        let words: Vec<&str> = words.flat_map(str::split_whitespace).collect();
        let sleep = words
            .iter()
            .position(|w| *w == "sleep" || w.ends_with("/sleep"));
        sleep
            .and_then(|i| words.get(i + 1))
            .and_then(|n| n.trim_end_matches(['s', ';']).parse().ok())
            .unwrap_or(0)
    };
    // Hooks of several containers run side by side, so the longest one counts.
    Duration::from_secs(
        list_at(pod, "spec.containers")
            .iter()
            .map(of)
            .max()
            .unwrap_or(0)
            .max(0) as u64,
    )
}

/// Takes a step with the pod, if it is still that pod and the kubelet works.
pub fn take_step(cluster: &mut SimCluster, step: PodLifecycleStep, name: &ObjectName, uid: &str) {
    let key = ObjectKey {
        res: PODS,
        at: name.clone(),
    };
    let Some(object) = cluster.store.get_object(&key).cloned() else {
        return;
    };
    let pod = PodView::from_object(&object);
    // The event may be about a pod that was made again under the name, or its kubelet died, or it is being deleted.
    if pod.uid != uid
        || !cluster.is_kubelet_alive(&pod.node)
        || (pod.deleting && step != PodLifecycleStep::Stop)
    {
        return;
    }
    match step {
        PodLifecycleStep::Prepare => prepare_pod(cluster, &key, &object, &pod),
        PodLifecycleStep::Reject => reject_pod(cluster, &key, &object, &pod),
        PodLifecycleStep::Start => start_containers(cluster, &key, &object, &pod),
        // Pods that a fault keeps unready skip the step; its end makes them Ready.
        PodLifecycleStep::Ready if is_kept_unready(cluster, &pod) => {}
        PodLifecycleStep::Ready => set_pod_ready(cluster, &key, true),
        PodLifecycleStep::Crash if !crash_loops(cluster, &object, &pod) => {
            recover_pod(cluster, &key, &pod);
        }
        PodLifecycleStep::Crash => crash_pod(cluster, &key, &pod),
        PodLifecycleStep::Complete => complete_pod(cluster, &key),
        PodLifecycleStep::Stop => {
            // A pod with finalizers ends but stays in the API until somebody removes them.
            if !list_at(&object, "metadata.finalizers").is_empty() {
                end_held_pod(cluster, &key);
            }
            cluster.delete_object(&key, Some(0));
        }
    }
}

fn prepare_pod(cluster: &mut SimCluster, key: &ObjectKey, object: &Value, pod: &PodView) {
    // A kubelet that works again prepares its pods once more, so the pod may run already.
    if pod.phase != "Pending" {
        return;
    }
    // The kubelet rejects a pod some time after it was bound; its owner then makes another (K8S-SCHED-7).
    if kubelet_admission::admission_refusal(cluster, object, pod).is_some() {
        cluster.schedule_after(REJECTION_DELAY, step_event(PodLifecycleStep::Reject, pod));
        return;
    }
    // The pod has its place on the node from here on, though it runs only later.
    cluster.admitted.insert(pod.uid.clone());
    // An image that cannot be pulled leaves the pod Pending. No retry is queued: the end of the fault wakes the
    // kubelet.
    if behavior_annotation(object, "image-missing").is_some()
        || is_image_unpullable(cluster, object, &pod.node)
    {
        let stamp = cluster.timestamp_text();
        cluster.change_object(key, |p| {
            write_conditions(p, false, &stamp);
            let images = list_at(p, "spec.containers");
            let image = images.first().map_or("", |c| text_at(c, "image"));
            let message = format!("Back-off pulling image \"{image}\"");
            let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": message}});
            set_at(
                p,
                "status.containerStatuses",
                container_statuses(p, &waiting, false, 0),
            );
        });
        return;
    }
    // Without an address the CNI of Windows makes no sandbox, and the pod waits until somebody makes it again.
    if let Some(why) = windows_nodes::sandbox_failure(cluster, pod) {
        warn_of_pod(cluster, pod, "kubelet", "FailedCreatePodSandBox", &why);
        return show_creating(cluster, key);
    }
    // A pod that waits for a volume is woken when the volume is there.
    if !volumes::ensure_mounted(cluster, object, &pod.node) {
        return show_creating(cluster, key);
    }
    // Images that the node has are not pulled again, so the first pod of a kind on green takes longer than the next.
    let images: Vec<String> = list_at(object, "spec.containers")
        .iter()
        .map(|c| text_at(c, "image").to_owned())
        .collect();
    let have = cluster.images.entry(pod.node.clone()).or_default();
    let missing = images.iter().filter(|i| have.insert((*i).clone())).count();
    let ((from, to), (pull_from, pull_to)) = (cluster.pace.start, cluster.pace.pull);
    let mut wait = cluster.random_delay(from, to);
    for _ in 0..missing {
        wait += cluster.random_delay(pull_from, pull_to);
    }
    cluster.schedule_after(wait, step_event(PodLifecycleStep::Start, pod));
}

/// Shows that the pod's containers wait for something.
fn show_creating(cluster: &mut SimCluster, key: &ObjectKey) {
    let stamp = cluster.timestamp_text();
    cluster.change_object(key, |p| {
        write_conditions(p, false, &stamp);
        let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
        set_at(
            p,
            "status.containerStatuses",
            container_statuses(p, &waiting, false, 0),
        );
    });
}

/// From a pod's binding to its rejection being told.
const REJECTION_DELAY: Duration = Duration::from_secs(1);

/// Writes that the kubelet will not run the pod; whoever owns it makes another.
fn reject_pod(cluster: &mut SimCluster, key: &ObjectKey, object: &Value, pod: &PodView) {
    if pod.phase != "Pending" {
        return;
    }
    let Some((reason, message)) = kubelet_admission::admission_refusal(cluster, object, pod) else {
        return prepare_pod(cluster, key, object, pod);
    };
    cluster.change_object(key, |p| {
        set_at(p, "status.phase", "Failed");
        set_at(p, "status.reason", reason);
        set_at(p, "status.message", message);
    });
}

/// Whether the pod needs an image that its node does not have and nobody can pull, or that node cannot.
fn is_image_unpullable(cluster: &SimCluster, object: &Value, node: &str) -> bool {
    let have = cluster.images.get(node);
    let here = is_affected(
        cluster,
        &PodView::from_object(object),
        &cluster.imageless_groups,
    );
    list_at(object, "spec.containers").iter().any(|c| {
        let image = text_at(c, "image");
        let nowhere = here || cluster.unpullable.contains(image);
        nowhere && !have.is_some_and(|have| have.contains(image))
    })
}

/// Whether the pod is on a node of one of the groups, and not a DaemonSet's.
fn is_affected(cluster: &SimCluster, pod: &PodView, groups: &BTreeSet<String>) -> bool {
    let node = cluster.store.index.nodes.get(&pod.node);
    let daemon = pod.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
    !daemon && node.is_some_and(|n| groups.contains(n.node_group()))
}

fn start_containers(cluster: &mut SimCluster, key: &ObjectKey, object: &Value, pod: &PodView) {
    // The event can come twice, as after a restart of the kubelet.
    if pod.phase != "Pending" {
        return;
    }
    cluster.admitted.remove(&pod.uid);
    // A pod on the host's network has the node's address, and so has the only one of a Fargate node; every other one gets
    // a new one.
    let host = host_ip(cluster, &pod.node);
    let node = cluster.store.index.nodes.get(&pod.node);
    let is_fargate_node = node.is_some_and(|n| is_fargate(n));
    let ip = if pod.host_network || is_fargate_node {
        host.clone()
    } else {
        assign_pod_ip(cluster)
    };
    // A probe that never passes gives no time, so that the pod is never made Ready.
    let wait = readiness_delay(object).filter(|_| !is_kept_unready(cluster, pod));
    let crashes = crash_loops(cluster, object, pod);
    let ready_now = wait == Some(Duration::ZERO) && !crashes;
    let stamp = cluster.timestamp_text();
    cluster.change_object(key, |p| {
        set_at(p, "status.phase", "Running");
        set_at(p, "status.hostIP", host.clone());
        set_at(p, "status.hostIPs", json!([{"ip": host}]));
        set_at(p, "status.podIP", ip.clone());
        set_at(p, "status.podIPs", json!([{"ip": ip}]));
        set_at(p, "status.startTime", stamp.clone());
        write_conditions(p, ready_now, &stamp);
        let running = json!({"running": {"startedAt": stamp}});
        set_at(
            p,
            "status.containerStatuses",
            container_statuses(p, &running, ready_now, 0),
        );
    });
    if crashes {
        cluster.schedule_after(
            Duration::from_secs(1),
            step_event(PodLifecycleStep::Crash, pod),
        );
        return;
    }
    // A pod that is ready at once was written so above, and needs no event.
    if let Some(wait) = wait.filter(|w| !w.is_zero()) {
        cluster.schedule_after(wait, step_event(PodLifecycleStep::Ready, pod));
    }
    // A pod that is not restarted always runs for its time and completes.
    if text_at(object, "spec.restartPolicy") != "Always" {
        let runs = run_duration(object);
        cluster.schedule_after(runs, step_event(PodLifecycleStep::Complete, pod));
    }
}

/// How long a pod that ends by itself runs.
fn run_duration(pod: &Value) -> Duration {
    let said = behavior_annotation(pod, "runs-for").and_then(parse_duration);
    said.unwrap_or(Duration::from_secs(30))
}

/// How long after its start a pod is ready: never when that is what it says, at once without a probe.
fn readiness_delay(pod: &Value) -> Option<Duration> {
    if behavior_annotation(pod, "never-ready").is_some() {
        return None;
    }
    if let Some(wait) = behavior_annotation(pod, "ready-after").and_then(parse_duration) {
        return Some(wait);
    }
    let probes = list_at(pod, "spec.containers")
        .iter()
        .filter_map(|c| c.get("readinessProbe"));
    let first = probes
        .map(|p| number_at(p, "initialDelaySeconds").unwrap_or(0).max(1))
        .max();
    Some(Duration::from_secs(first.unwrap_or(0).max(0) as u64))
}

/// Whether the pod's containers end as soon as they have started.
fn crash_loops(cluster: &SimCluster, object: &Value, pod: &PodView) -> bool {
    behavior_annotation(object, "crash-loop").is_some()
        || belongs_to_any(cluster, &cluster.crash_loop, pod)
        || metadata_access::is_cut_off(cluster, object, pod)
        || windows_nodes::start_failure(cluster, object).is_some()
}

/// Whether the pod belongs to a workload whose new pods never become ready, or is on a node where none does.
fn is_kept_unready(cluster: &SimCluster, pod: &PodView) -> bool {
    is_affected(cluster, pod, &cluster.failing_groups)
        || belongs_to_any(cluster, &cluster.never_ready, pod)
}

/// Whether the pod belongs to one of `workloads`.
fn belongs_to_any(cluster: &SimCluster, workloads: &BTreeSet<ObjectName>, pod: &PodView) -> bool {
    if workloads.is_empty() {
        return false;
    }
    let Some(owner) = &pod.owner else {
        return false;
    };
    // A pod belongs to its Deployment by way of the ReplicaSet.
    let above = match owner.kind.as_str() {
        "ReplicaSet" => cluster
            .store
            .find_object(
                REPLICA_SETS,
                &ObjectName::new(pod.ns.clone(), owner.name.clone()),
            )
            .and_then(|set| OwnerRef::controller_of(set)),
        _ => None,
    };
    let name = above.map_or_else(|| owner.name.clone(), |o| o.name);
    workloads.contains(&ObjectName::new(pod.ns.clone(), name))
}

/// Makes a running pod ready, or not.
pub fn set_pod_ready(cluster: &mut SimCluster, key: &ObjectKey, ready: bool) {
    let stamp = cluster.timestamp_text();
    cluster.change_object(key, |p| {
        if text_at(p, "status.phase") == "Running" {
            write_conditions(p, ready, &stamp);
            for status in super::json::list_at_mut(p, "status.containerStatuses") {
                set_at(status, "ready", ready);
            }
        }
    });
}

fn crash_pod(cluster: &mut SimCluster, key: &ObjectKey, pod: &PodView) {
    let stamp = cluster.timestamp_text();
    let mut restarts = 0;
    let object = cluster.store.get_object(key).cloned();
    let failure = object.and_then(|o| windows_nodes::start_failure(cluster, &o));
    if let Some(why) = &failure {
        warn_of_pod(cluster, pod, "kubelet", "Failed", why);
    }
    cluster.change_object(key, |p| {
        restarts = list_at(p, "status.containerStatuses")
            .first()
            .and_then(|c| number_at(c, "restartCount"))
            .unwrap_or(0)
            + 1;
        write_conditions(p, false, &stamp);
        let message = "back-off restarting failed container";
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}});
        set_at(
            p,
            "status.containerStatuses",
            container_statuses(p, &waiting, false, restarts),
        );
        if let Some(why) = &failure {
            for status in super::json::list_at_mut(p, "status.containerStatuses") {
                status["lastState"] = windows_nodes::failed_start_state(why);
            }
        }
    });
    // 10 s, doubling up to 5 min.
    let wait = Duration::from_secs((10u64 << (restarts - 1).clamp(0, 5)).min(300));
    cluster.schedule_after(wait, step_event(PodLifecycleStep::Crash, pod));
}

/// A container that ended again and again has been fixed: it runs.
fn recover_pod(cluster: &mut SimCluster, key: &ObjectKey, pod: &PodView) {
    let stamp = cluster.timestamp_text();
    cluster.change_object(key, |p| {
        let restarts = list_at(p, "status.containerStatuses")
            .first()
            .and_then(|c| number_at(c, "restartCount"))
            .unwrap_or(0);
        let running = json!({"running": {"startedAt": stamp}});
        set_at(
            p,
            "status.containerStatuses",
            container_statuses(p, &running, false, restarts),
        );
    });
    cluster.schedule_after(
        Duration::from_secs(1),
        step_event(PodLifecycleStep::Ready, pod),
    );
}

fn complete_pod(cluster: &mut SimCluster, key: &ObjectKey) {
    let stamp = cluster.timestamp_text();
    cluster.change_object(key, |p| {
        set_at(p, "status.phase", "Succeeded");
        write_conditions(p, false, &stamp);
        let done =
            json!({"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": stamp}});
        set_at(
            p,
            "status.containerStatuses",
            container_statuses(p, &done, false, 0),
        );
    });
}

/// The containers of a pod that a finalizer holds have ended: it keeps its object, and nothing else.
fn end_held_pod(cluster: &mut SimCluster, key: &ObjectKey) {
    let stamp = cluster.timestamp_text();
    cluster.change_object(key, |p| {
        // A pod whose containers have ended takes nothing from its node, although its object is still there.
        let phase = match text_at(p, "status.phase") {
            "Running" => "Succeeded",
            other => other,
        };
        set_at(p, "status.phase", phase.to_owned());
        write_conditions(p, false, &stamp);
        let done =
            json!({"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": stamp}});
        set_at(
            p,
            "status.containerStatuses",
            container_statuses(p, &done, false, 0),
        );
    });
}

fn write_conditions(pod: &mut Value, ready: bool, stamp: &str) {
    for kind in [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
    ] {
        // A pod that is being started has passed all conditions but those about readiness.
        let about_readiness = kind == "Ready" || kind == "ContainersReady";
        let status = if about_readiness && !ready {
            "False"
        } else {
            "True"
        };
        let mut condition = json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": stamp});
        if status == "False" {
            condition["reason"] = json!("ContainersNotReady");
        }
        set_condition(pod, condition);
    }
}

fn container_statuses(pod: &Value, state: &Value, ready: bool, restarts: i64) -> Value {
    let uid = text_at(pod, "metadata.uid");
    let of = |c: &Value| {
        let (name, image) = (text_at(c, "name"), text_at(c, "image"));
        json!({
            "name": name, "image": image, "imageID": format!("sha256:{name}"), "ready": ready,
            "containerID": format!("containerd://{uid}-{name}"), "restartCount": restarts,
            "started": state.get("running").is_some(), "state": state, "lastState": {},
        })
    };
    Value::Array(list_at(pod, "spec.containers").iter().map(of).collect())
}

fn host_ip(cluster: &SimCluster, node: &str) -> String {
    let node = cluster.store.find_object(NODES, &ObjectName::new("", node));
    let addresses = node
        .map(|n| list_at(n, "status.addresses"))
        .unwrap_or_default();
    let internal = addresses
        .iter()
        .find(|a| text_at(a, "type") == "InternalIP");
    internal
        .map(|a| text_at(a, "address").to_owned())
        .unwrap_or_default()
}

fn assign_pod_ip(cluster: &mut SimCluster) -> String {
    loop {
        cluster.next_ip = (cluster.next_ip + 1) % POD_NETWORK_SIZE;
        let ip = std::net::Ipv4Addr::from(POD_NETWORK_START + cluster.next_ip).to_string();
        let ends = matches!(cluster.next_ip & 0xff, 0 | 0xff);
        if !ends && !cluster.store.index.by_ip.contains_key(&ip) {
            return ip;
        }
    }
}

/// A kubelet works again: it takes up what it had left.
pub fn resume_kubelet(cluster: &mut SimCluster, node: &str) {
    for pod in cluster.store.pods_on(node) {
        let key = ObjectKey::new(PODS, pod.ns.clone(), pod.name.clone());
        if pod.deleting {
            stop_pod(cluster, &pod);
        } else if pod.phase == "Pending" {
            on_pod_bound(cluster, &pod);
        } else if pod.phase == "Running" && !pod.ready {
            // A pod that is not Ready becomes so again, unless it was not for reasons of its own.
            let object = cluster.store.get_object(&key).cloned();
            // What ended again and again is looked at with its next start.
            let crashed = |o: &Value| {
                let statuses = list_at(o, "status.containerStatuses");
                statuses
                    .iter()
                    .any(|s| number_at(s, "restartCount").unwrap_or(0) > 0)
            };
            let well = object.is_some_and(|o| !crashed(&o) && readiness_delay(&o).is_some())
                && !is_kept_unready(cluster, &pod);
            if well {
                cluster.schedule_after(
                    Duration::from_secs(1),
                    step_event(PodLifecycleStep::Ready, &pod),
                );
            }
        }
    }
}
