//! The node lifecycle: taints by condition, evictions by taint, nodes that go silent, pods of nodes that are gone.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::Due;
use super::super::cluster::Cluster;
use super::super::facts::Taint;
use super::super::json::{
    at, condition, flag, list, list_mut, object, set, set_condition, slot, text, unset,
};
use super::super::kinds::{DAEMON_SETS, NODES, PODS};
use super::super::kubelet;
use super::super::pod_requests::Amounts;
use super::super::store::{Key, Name};
use super::Work;

/// A step in a node's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its kubelet may be ready.
    Ready,
    /// Its startup taints may come off.
    Settled,
    /// Nothing has been heard of its kubelet for too long.
    Silent,
    /// The cloud says that its instance is no more.
    Vanish,
    /// Its pods are collected, if it is still not there.
    Collect,
}

/// From a kubelet's death to its node being NotReady (K8S-NODE-2).
pub const SILENCE: (u64, u64) = (40_000, 43_000);

/// Takes a step.
pub fn step(cluster: &mut Cluster, step: Step, node: &str) {
    match step {
        Step::Ready => ready(cluster, node),
        Step::Settled => settled(cluster, node),
        Step::Silent => silent(cluster, node),
        Step::Vanish => {
            cluster.delete(&Key::new(NODES, "", node), None);
        }
        Step::Collect => collect(cluster, node),
    }
}

/// Pods of a node that is gone linger for a while before they are collected (K8S-NODE-1).
pub fn quarantine(cluster: &mut Cluster, node: &str) {
    let wait = cluster.between(45_000, 55_000);
    cluster.later(wait, Due::Node(Step::Collect, node.to_owned()));
}

fn collect(cluster: &mut Cluster, node: &str) {
    if cluster.store.index.nodes.contains_key(node) {
        return;
    }
    for pod in cluster.store.pods_on(node) {
        cluster.delete(&Key::new(PODS, pod.ns.clone(), pod.name.clone()), Some(0));
    }
}

/// Makes a node ready once its network is: the CNI's pod must run on it, where there is one.
fn ready(cluster: &mut Cluster, node: &str) {
    if !cluster.alive(node) {
        return;
    }
    let cni = cluster
        .store
        .find(DAEMON_SETS, &Name::new("kube-system", "aws-node"))
        .cloned();
    let uid = cni.as_ref().map(|c| text(c, "metadata.uid").to_owned());
    let has_network = uid.is_none_or(|uid| {
        cluster
            .store
            .pods_on(node)
            .iter()
            .any(|p| p.owned_by(&uid) && p.ready)
    });
    if !has_network {
        cluster.later(
            Duration::from_secs(1),
            Due::Node(Step::Ready, node.to_owned()),
        );
        return;
    }
    set_ready(
        cluster,
        node,
        "True",
        "KubeletReady",
        "kubelet is posting ready status",
    );
    if cluster.startup_taints.contains_key(node) || !devices_of(cluster, node).is_empty() {
        cluster.later(SETTLING, Due::Node(Step::Settled, node.to_owned()));
    }
}

/// From a node's being ready to its agents' taking a taint off it, when their pods are ready.
const SETTLING: Duration = Duration::from_secs(15);

/// What device plugins will tell of a node: what nodes of its type have, unless its image has no drivers for it.
fn devices_of(cluster: &Cluster, node: &str) -> Amounts {
    let facts = cluster.store.index.nodes.get(node);
    let instance_type = facts.map_or("", |n| n.label("node.kubernetes.io/instance-type"));
    let mut devices = cluster
        .devices
        .get(instance_type)
        .cloned()
        .unwrap_or_default();
    if cluster.driverless_nodes.contains(node) {
        devices.retain(|name, _| name.starts_with("vpc.amazonaws.com/"));
    }
    devices
}

/// Takes the startup taints off a node once all DaemonSets' pods on it are ready (CTL-7); its devices show as well then.
fn settled(cluster: &mut Cluster, node: &str) {
    let pods = cluster.store.pods_on(node);
    let waits = |p: &&std::sync::Arc<super::super::facts::Pod>| {
        p.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet") && p.active() && !p.ready
    };
    if !cluster.alive(node) || pods.iter().any(|p| waits(&p)) {
        if cluster.store.index.nodes.contains_key(node) {
            cluster.later(SETTLING, Due::Node(Step::Settled, node.to_owned()));
        }
        return;
    }
    let taints = cluster.startup_taints.remove(node).unwrap_or_default();
    let devices = devices_of(cluster, node);
    cluster.change(&Key::new(NODES, "", node), |n| {
        for place in ["status.allocatable", "status.capacity"] {
            let amounts = object(slot(n, place));
            for (name, amount) in &devices {
                amounts.insert(name.clone(), amount.to_string().into());
            }
        }
        if taints.is_empty() {
            return;
        }
        list_mut(n, "spec.taints").retain(|t| {
            let is = |(key, effect): &(String, String)| {
                text(t, "key") == key && text(t, "effect") == effect
            };
            !taints.iter().any(is)
        });
        if list(n, "spec.taints").is_empty() {
            unset(n, "spec.taints");
        }
    });
}

/// Writes the node's Ready condition.
pub fn set_ready(cluster: &mut Cluster, node: &str, status: &str, reason: &str, message: &str) {
    let stamp = cluster.stamp();
    cluster.change(&Key::new(NODES, "", node), |n| {
        set_condition(
            n,
            json!({
                "type": "Ready", "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": stamp, "lastTransitionTime": stamp,
            }),
        );
    });
}

fn silent(cluster: &mut Cluster, node: &str) {
    if !cluster.dead.contains(node) {
        return;
    }
    let stamp = cluster.stamp();
    cluster.change(&Key::new(NODES, "", node), |n| {
        for kind in ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"] {
            set_condition(
                n,
                json!({
                    "type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
                    "message": "Kubelet stopped posting node status.",
                    "lastHeartbeatTime": stamp, "lastTransitionTime": stamp,
                }),
            );
        }
    });
    for pod in cluster.store.pods_on(node).iter().filter(|p| p.ready) {
        cluster.change(&Key::new(PODS, pod.ns.clone(), pod.name.clone()), |p| {
            let was = condition(p, "Ready").cloned();
            let mut now = was.unwrap_or_else(|| json!({"type": "Ready", "lastProbeTime": null}));
            set(&mut now, "status", "False");
            set(&mut now, "lastTransitionTime", stamp.clone());
            set_condition(p, now);
        });
    }
}

/// Taints by condition, keys without their prefix.
const BY_CONDITION: &[(&str, &str)] = &[
    ("not-ready", "NoSchedule"),
    ("not-ready", "NoExecute"),
    ("unreachable", "NoSchedule"),
    ("unreachable", "NoExecute"),
    ("unschedulable", "NoSchedule"),
];

/// Keeps the taints that follow from the node's state, and evicts who does not tolerate a NoExecute one.
pub fn reconcile(cluster: &mut Cluster, node: &str) {
    let key = Key::new(NODES, "", node);
    let Some(object) = cluster.store.get(&key).cloned() else {
        return;
    };
    let status = condition(&object, "Ready").map_or("Unknown", |c| text(c, "status"));
    let wanted = |key: &str| match key {
        "not-ready" => status == "False",
        "unreachable" => status == "Unknown",
        _ => flag(&object, "spec.unschedulable"),
    };
    let stamp = cluster.stamp();
    cluster.change(&key, |n| {
        for (short, effect) in BY_CONDITION {
            let full = format!("node.kubernetes.io/{short}");
            let is = |t: &Value| text(t, "key") == full && text(t, "effect") == *effect;
            let there = list(n, "spec.taints").iter().any(is);
            if wanted(short) && !there {
                list_mut(n, "spec.taints")
                    .push(json!({"key": full, "effect": effect, "timeAdded": stamp}));
            } else if !wanted(short) && there {
                list_mut(n, "spec.taints").retain(|t| !is(t));
            }
        }
        if at(n, "spec.taints").is_some() && list(n, "spec.taints").is_empty() {
            unset(n, "spec.taints");
        }
    });
    expel(cluster, node);
}

/// Deletes the pods that do not tolerate a NoExecute taint of the node, or no longer. No budget is asked (K8S-TAINT-2).
fn expel(cluster: &mut Cluster, node: &str) {
    let Some(object) = cluster.store.find(NODES, &Name::new("", node)).cloned() else {
        return;
    };
    let taints: Vec<&Value> = list(&object, "spec.taints")
        .iter()
        .filter(|t| text(t, "effect") == "NoExecute")
        .collect();
    if taints.is_empty() {
        return;
    }
    let mut next: Option<SignedDuration> = None;
    for pod in cluster.store.pods_on(node).iter().filter(|p| p.active()) {
        let pod_key = Key::new(PODS, pod.ns.clone(), pod.name.clone());
        let Some(pod_object) = cluster.store.get(&pod_key).cloned() else {
            continue;
        };
        let tolerations = list(&pod_object, "spec.tolerations");
        let mut left: Option<SignedDuration> = None;
        for taint in &taints {
            let since: Option<Timestamp> = text(taint, "timeAdded").parse().ok();
            let passed = since.map_or(SignedDuration::ZERO, |s| cluster.now.duration_since(s));
            let of_this = match Taint::of(taint).tolerated(tolerations) {
                None => Some(SignedDuration::ZERO),
                Some(None) => None,
                Some(Some(seconds)) => Some(SignedDuration::from_secs(seconds) - passed),
            };
            left = [left, of_this].into_iter().flatten().min();
        }
        match left {
            Some(left) if !left.is_positive() => expel_one(cluster, &pod_key),
            Some(left) => next = [next, Some(left)].into_iter().flatten().min(),
            None => {}
        }
    }
    if let Some(wait) = next.and_then(|n| Duration::try_from(n).ok()) {
        cluster.later(wait, Due::Again(Work::Taints(node.to_owned())));
    }
}

fn expel_one(cluster: &mut Cluster, key: &Key) {
    let stamp = cluster.stamp();
    cluster.change(key, |p| {
        set_condition(
            p,
            json!({
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
                "lastProbeTime": null, "lastTransitionTime": stamp,
            }),
        );
    });
    cluster.delete(key, None);
}

/// A kubelet works again.
pub fn revive(cluster: &mut Cluster, node: &str) {
    if !cluster.dead.remove(node) {
        return;
    }
    let stamp = cluster.stamp();
    cluster.change(&Key::new(NODES, "", node), |n| {
        for (kind, reason, message) in QUIET {
            set_condition(
                n,
                json!({
                    "type": kind, "status": "False", "reason": reason, "message": message,
                    "lastHeartbeatTime": stamp, "lastTransitionTime": stamp,
                }),
            );
        }
    });
    set_ready(
        cluster,
        node,
        "True",
        "KubeletReady",
        "kubelet is posting ready status",
    );
    kubelet::resume(cluster, node);
}

/// The conditions of a node that lacks nothing.
pub const QUIET: &[(&str, &str, &str)] = &[
    (
        "MemoryPressure",
        "KubeletHasSufficientMemory",
        "kubelet has sufficient memory available",
    ),
    (
        "DiskPressure",
        "KubeletHasNoDiskPressure",
        "kubelet has no disk pressure",
    ),
    (
        "PIDPressure",
        "KubeletHasSufficientPID",
        "kubelet has sufficient PID available",
    ),
];
