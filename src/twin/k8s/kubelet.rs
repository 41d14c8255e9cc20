//! Kubelets: they start pods, make them ready, and stop them. Annotations on a pod say how it behaves:
//! `twin.eksup.dev/ready-after: 20s`, `never-ready`, `crash-loop`, `image-missing`, `stop-after: 1m`, `runs-for: 5m`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::Due;
use super::cluster::Cluster;
use super::control::volumes;
use super::facts::{Owner, Pod};
use super::json::{annotation, duration, list, number, set, set_condition, text};
use super::kinds::{NODES, PODS, REPLICA_SETS};
use super::store::{Key, Name};
use super::{kubelet_admission, metadata_access};

/// The first address of the pods' network.
pub const POD_NET: u32 = u32::from_be_bytes([100, 64, 0, 0]);
const POD_NET_SIZE: u32 = 1 << 22;
const PREFIX: &str = "twin.eksup.dev/";

/// How fast kubelets are, in milliseconds from and to.
#[derive(Clone, Debug)]
pub struct Pace {
    /// A pull of an image the node does not have.
    pub pull: (u64, u64),
    /// From the binding (and the pull) to running containers.
    pub start: (u64, u64),
    /// From the wish to the end, for a pod that says nothing else.
    pub stop: (u64, u64),
    /// From a node's registration to its being ready.
    pub node_ready: (u64, u64),
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pull: (1500, 4000),
            start: (900, 1200),
            stop: (900, 1100),
            node_ready: (8_000, 15_000),
        }
    }
}

/// A step of a kubelet with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
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
fn says<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    annotation(pod, &format!("{PREFIX}{key}")).filter(|v| *v != "false")
}

/// A pod has been bound to a node.
pub fn arrive(cluster: &mut Cluster, pod: &Pod) {
    if pod.finished() {
        return;
    }
    let step = if pod.phase == "Pending" {
        Step::Prepare
    } else {
        Step::Complete
    };
    if step == Step::Complete {
        let object = cluster
            .store
            .find(PODS, &Name::new(pod.ns.clone(), pod.name.clone()));
        let ends = object.filter(|o| text(o, "spec.restartPolicy") != "Always");
        if let Some(runs) = ends.map(|o| runs_for(o)) {
            cluster.later(runs, due(Step::Complete, pod));
        }
        return;
    }
    cluster.later(Duration::from_millis(20), due(step, pod));
}

fn due(step: Step, pod: &Pod) -> Due {
    Due::Kubelet(
        step,
        Name::new(pod.ns.clone(), pod.name.clone()),
        pod.uid.clone(),
    )
}

/// How long after its deletion a pod's kubelet has ended it for certain.
const HELD_FOR_LONG: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

/// A pod is to go: it ends when it is done or when its grace is over.
pub fn stop(cluster: &mut Cluster, pod: &Pod) {
    let key = Key::new(PODS, pod.ns.clone(), pod.name.clone());
    let Some(object) = cluster.store.get(&key).cloned() else {
        return;
    };
    // One that a finalizer has held for long is as the snapshot shows it: its kubelet has done what it does.
    let until: Option<jiff::Timestamp> = text(&object, "metadata.deletionTimestamp").parse().ok();
    let long_ago = until.is_some_and(|t| cluster.now.duration_since(t) > HELD_FOR_LONG);
    if long_ago && !list(&object, "metadata.finalizers").is_empty() {
        return;
    }
    let grace = Duration::from_secs(
        number(&object, "metadata.deletionGracePeriodSeconds")
            .unwrap_or(30)
            .max(0) as u64,
    );
    let (from, to) = cluster.pace.stop;
    let own = cluster.between(from, to);
    let own = says(&object, "stop-after")
        .and_then(duration)
        .unwrap_or(own)
        + pre_stop(&object);
    cluster.later(own.min(grace), due(Step::Stop, pod));
}

/// How long the hooks before the stop sleep.
fn pre_stop(pod: &Value) -> Duration {
    let of = |container: &Value| {
        if let Some(seconds) = number(container, "lifecycle.preStop.sleep.seconds") {
            return seconds;
        }
        let words = list(container, "lifecycle.preStop.exec.command")
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
    Duration::from_secs(
        list(pod, "spec.containers")
            .iter()
            .map(of)
            .max()
            .unwrap_or(0)
            .max(0) as u64,
    )
}

/// Takes a step with the pod, if it is still that pod and the kubelet works.
pub fn step(cluster: &mut Cluster, step: Step, name: &Name, uid: &str) {
    let key = Key {
        res: PODS,
        at: name.clone(),
    };
    let Some(object) = cluster.store.get(&key).cloned() else {
        return;
    };
    let pod = Pod::of(&object);
    if pod.uid != uid || !cluster.alive(&pod.node) || (pod.deleting && step != Step::Stop) {
        return;
    }
    match step {
        Step::Prepare => prepare(cluster, &key, &object, &pod),
        Step::Reject => reject(cluster, &key, &object, &pod),
        Step::Start => start(cluster, &key, &object, &pod),
        Step::Ready if spoilt(cluster, &pod) => {}
        Step::Ready => ready(cluster, &key, true),
        Step::Crash if !crash_loops(cluster, &object, &pod) => recover(cluster, &key, &pod),
        Step::Crash => crash(cluster, &key, &pod),
        Step::Complete => complete(cluster, &key),
        Step::Stop => {
            if !list(&object, "metadata.finalizers").is_empty() {
                ended(cluster, &key);
            }
            cluster.delete(&key, Some(0));
        }
    }
}

fn prepare(cluster: &mut Cluster, key: &Key, object: &Value, pod: &Pod) {
    if pod.phase != "Pending" {
        return;
    }
    if kubelet_admission::refusal(cluster, object, pod).is_some() {
        cluster.later(REJECTION_DELAY, due(Step::Reject, pod));
        return;
    }
    cluster.admitted.insert(pod.uid.clone());
    if says(object, "image-missing").is_some() || unpullable(cluster, object, &pod.node) {
        let stamp = cluster.stamp();
        cluster.change(key, |p| {
            conditions(p, false, &stamp);
            let images = list(p, "spec.containers");
            let image = images.first().map_or("", |c| text(c, "image"));
            let message = format!("Back-off pulling image \"{image}\"");
            let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": message}});
            set(
                p,
                "status.containerStatuses",
                containers(p, &waiting, false, 0),
            );
        });
        return;
    }
    // A pod that waits for a volume is woken when the volume is there.
    if !volumes::mounted(cluster, object, &pod.node) {
        let stamp = cluster.stamp();
        cluster.change(key, |p| {
            conditions(p, false, &stamp);
            let waiting = json!({"waiting": {"reason": "ContainerCreating"}});
            set(
                p,
                "status.containerStatuses",
                containers(p, &waiting, false, 0),
            );
        });
        return;
    }
    let images: Vec<String> = list(object, "spec.containers")
        .iter()
        .map(|c| text(c, "image").to_owned())
        .collect();
    let have = cluster.images.entry(pod.node.clone()).or_default();
    let missing = images.iter().filter(|i| have.insert((*i).clone())).count();
    let ((from, to), (pull_from, pull_to)) = (cluster.pace.start, cluster.pace.pull);
    let mut wait = cluster.between(from, to);
    for _ in 0..missing {
        wait += cluster.between(pull_from, pull_to);
    }
    cluster.later(wait, due(Step::Start, pod));
}

/// From a pod's binding to its rejection being told.
const REJECTION_DELAY: Duration = Duration::from_secs(1);

/// Writes that the kubelet will not run the pod; whoever owns it makes another.
fn reject(cluster: &mut Cluster, key: &Key, object: &Value, pod: &Pod) {
    if pod.phase != "Pending" {
        return;
    }
    let Some((reason, message)) = kubelet_admission::refusal(cluster, object, pod) else {
        return prepare(cluster, key, object, pod);
    };
    cluster.change(key, |p| {
        set(p, "status.phase", "Failed");
        set(p, "status.reason", reason);
        set(p, "status.message", message);
    });
}

/// Whether the pod needs an image that its node does not have and nobody can pull, or that node cannot.
fn unpullable(cluster: &Cluster, object: &Value, node: &str) -> bool {
    let have = cluster.images.get(node);
    let here = is_concerned(cluster, &Pod::of(object), &cluster.imageless_groups);
    list(object, "spec.containers").iter().any(|c| {
        let image = text(c, "image");
        let nowhere = here || cluster.unpullable.contains(image);
        nowhere && !have.is_some_and(|have| have.contains(image))
    })
}

/// Whether the pod is on a node of one of the groups, and not a DaemonSet's.
fn is_concerned(cluster: &Cluster, pod: &Pod, groups: &BTreeSet<String>) -> bool {
    let node = cluster.store.index.nodes.get(&pod.node);
    let daemon = pod.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
    !daemon && node.is_some_and(|n| groups.contains(n.group()))
}

fn start(cluster: &mut Cluster, key: &Key, object: &Value, pod: &Pod) {
    if pod.phase != "Pending" {
        return;
    }
    cluster.admitted.remove(&pod.uid);
    let host = host_ip(cluster, &pod.node);
    let ip = if pod.host_network {
        host.clone()
    } else {
        new_ip(cluster)
    };
    let wait = ready_after(object).filter(|_| !spoilt(cluster, pod));
    let crashes = crash_loops(cluster, object, pod);
    let ready_now = wait == Some(Duration::ZERO) && !crashes;
    let stamp = cluster.stamp();
    cluster.change(key, |p| {
        set(p, "status.phase", "Running");
        set(p, "status.hostIP", host.clone());
        set(p, "status.hostIPs", json!([{"ip": host}]));
        set(p, "status.podIP", ip.clone());
        set(p, "status.podIPs", json!([{"ip": ip}]));
        set(p, "status.startTime", stamp.clone());
        conditions(p, ready_now, &stamp);
        let running = json!({"running": {"startedAt": stamp}});
        set(
            p,
            "status.containerStatuses",
            containers(p, &running, ready_now, 0),
        );
    });
    if crashes {
        cluster.later(Duration::from_secs(1), due(Step::Crash, pod));
        return;
    }
    if let Some(wait) = wait.filter(|w| !w.is_zero()) {
        cluster.later(wait, due(Step::Ready, pod));
    }
    if text(object, "spec.restartPolicy") != "Always" {
        let runs = runs_for(object);
        cluster.later(runs, due(Step::Complete, pod));
    }
}

/// How long a pod that ends by itself runs.
fn runs_for(pod: &Value) -> Duration {
    let said = says(pod, "runs-for").and_then(duration);
    said.unwrap_or(Duration::from_secs(30))
}

/// How long after its start a pod is ready: never when that is what it says, at once without a probe.
fn ready_after(pod: &Value) -> Option<Duration> {
    if says(pod, "never-ready").is_some() {
        return None;
    }
    if let Some(wait) = says(pod, "ready-after").and_then(duration) {
        return Some(wait);
    }
    let probes = list(pod, "spec.containers")
        .iter()
        .filter_map(|c| c.get("readinessProbe"));
    let first = probes
        .map(|p| number(p, "initialDelaySeconds").unwrap_or(0).max(1))
        .max();
    Some(Duration::from_secs(first.unwrap_or(0).max(0) as u64))
}

/// Whether the pod's containers end as soon as they have started.
fn crash_loops(cluster: &Cluster, object: &Value, pod: &Pod) -> bool {
    says(object, "crash-loop").is_some()
        || is_of(cluster, &cluster.crash_loop, pod)
        || metadata_access::is_cut_off(cluster, object, pod)
}

/// Whether the pod belongs to a workload whose new pods never become ready, or is on a node where none does.
fn spoilt(cluster: &Cluster, pod: &Pod) -> bool {
    is_concerned(cluster, pod, &cluster.failing_groups) || is_of(cluster, &cluster.never_ready, pod)
}

/// Whether the pod belongs to one of `workloads`.
fn is_of(cluster: &Cluster, workloads: &BTreeSet<Name>, pod: &Pod) -> bool {
    if workloads.is_empty() {
        return false;
    }
    let Some(owner) = &pod.owner else {
        return false;
    };
    let above = match owner.kind.as_str() {
        "ReplicaSet" => cluster
            .store
            .find(REPLICA_SETS, &Name::new(pod.ns.clone(), owner.name.clone()))
            .and_then(|set| Owner::of(set)),
        _ => None,
    };
    let name = above.map_or_else(|| owner.name.clone(), |o| o.name);
    workloads.contains(&Name::new(pod.ns.clone(), name))
}

/// Makes a running pod ready, or not.
pub fn ready(cluster: &mut Cluster, key: &Key, ready: bool) {
    let stamp = cluster.stamp();
    cluster.change(key, |p| {
        if text(p, "status.phase") == "Running" {
            conditions(p, ready, &stamp);
            for status in super::json::list_mut(p, "status.containerStatuses") {
                set(status, "ready", ready);
            }
        }
    });
}

fn crash(cluster: &mut Cluster, key: &Key, pod: &Pod) {
    let stamp = cluster.stamp();
    let mut restarts = 0;
    cluster.change(key, |p| {
        restarts = list(p, "status.containerStatuses")
            .first()
            .and_then(|c| number(c, "restartCount"))
            .unwrap_or(0)
            + 1;
        conditions(p, false, &stamp);
        let message = "back-off restarting failed container";
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}});
        set(
            p,
            "status.containerStatuses",
            containers(p, &waiting, false, restarts),
        );
    });
    // 10 s, doubling up to 5 min.
    let wait = Duration::from_secs((10u64 << (restarts - 1).clamp(0, 5)).min(300));
    cluster.later(wait, due(Step::Crash, pod));
}

/// A container that ended again and again has been fixed: it runs.
fn recover(cluster: &mut Cluster, key: &Key, pod: &Pod) {
    let stamp = cluster.stamp();
    cluster.change(key, |p| {
        let restarts = list(p, "status.containerStatuses")
            .first()
            .and_then(|c| number(c, "restartCount"))
            .unwrap_or(0);
        let running = json!({"running": {"startedAt": stamp}});
        set(
            p,
            "status.containerStatuses",
            containers(p, &running, false, restarts),
        );
    });
    cluster.later(Duration::from_secs(1), due(Step::Ready, pod));
}

fn complete(cluster: &mut Cluster, key: &Key) {
    let stamp = cluster.stamp();
    cluster.change(key, |p| {
        set(p, "status.phase", "Succeeded");
        conditions(p, false, &stamp);
        let done =
            json!({"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": stamp}});
        set(
            p,
            "status.containerStatuses",
            containers(p, &done, false, 0),
        );
    });
}

/// The containers of a pod that a finalizer holds have ended: it keeps its object, and nothing else.
fn ended(cluster: &mut Cluster, key: &Key) {
    let stamp = cluster.stamp();
    cluster.change(key, |p| {
        let phase = match text(p, "status.phase") {
            "Running" => "Succeeded",
            other => other,
        };
        set(p, "status.phase", phase.to_owned());
        conditions(p, false, &stamp);
        let done =
            json!({"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": stamp}});
        set(
            p,
            "status.containerStatuses",
            containers(p, &done, false, 0),
        );
    });
}

fn conditions(pod: &mut Value, ready: bool, stamp: &str) {
    for kind in [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
    ] {
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

fn containers(pod: &Value, state: &Value, ready: bool, restarts: i64) -> Value {
    let uid = text(pod, "metadata.uid");
    let of = |c: &Value| {
        let (name, image) = (text(c, "name"), text(c, "image"));
        json!({
            "name": name, "image": image, "imageID": format!("sha256:{name}"), "ready": ready,
            "containerID": format!("containerd://{uid}-{name}"), "restartCount": restarts,
            "started": state.get("running").is_some(), "state": state, "lastState": {},
        })
    };
    Value::Array(list(pod, "spec.containers").iter().map(of).collect())
}

fn host_ip(cluster: &Cluster, node: &str) -> String {
    let node = cluster.store.find(NODES, &Name::new("", node));
    let addresses = node
        .map(|n| list(n, "status.addresses"))
        .unwrap_or_default();
    let internal = addresses.iter().find(|a| text(a, "type") == "InternalIP");
    internal
        .map(|a| text(a, "address").to_owned())
        .unwrap_or_default()
}

fn new_ip(cluster: &mut Cluster) -> String {
    loop {
        cluster.next_ip = (cluster.next_ip + 1) % POD_NET_SIZE;
        let ip = std::net::Ipv4Addr::from(POD_NET + cluster.next_ip).to_string();
        let ends = matches!(cluster.next_ip & 0xff, 0 | 0xff);
        if !ends && !cluster.store.index.by_ip.contains_key(&ip) {
            return ip;
        }
    }
}

/// A kubelet works again: it takes up what it had left.
pub fn resume(cluster: &mut Cluster, node: &str) {
    for pod in cluster.store.pods_on(node) {
        let key = Key::new(PODS, pod.ns.clone(), pod.name.clone());
        if pod.deleting {
            stop(cluster, &pod);
        } else if pod.phase == "Pending" {
            arrive(cluster, &pod);
        } else if pod.phase == "Running" && !pod.ready {
            let object = cluster.store.get(&key).cloned();
            // What ended again and again is looked at with its next start.
            let crashed = |o: &Value| {
                let statuses = list(o, "status.containerStatuses");
                statuses
                    .iter()
                    .any(|s| number(s, "restartCount").unwrap_or(0) > 0)
            };
            let well = object.is_some_and(|o| !crashed(&o) && ready_after(&o).is_some())
                && !spoilt(cluster, &pod);
            if well {
                cluster.later(Duration::from_secs(1), due(Step::Ready, &pod));
            }
        }
    }
}
