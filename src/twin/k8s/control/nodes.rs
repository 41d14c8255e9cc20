//! The node lifecycle: taints by condition, evictions by taint, nodes that go silent, pods of nodes that are gone.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::KubeEvent;
use super::super::cluster::SimCluster;
use super::super::fargate_state::{NODE_END_MILLIS, is_fargate};
use super::super::json::{
    as_object_mut, find_condition, flag_at, list_at, list_at_mut, remove_at, set_at, set_condition,
    slot_at, text_at, value_at,
};
use super::super::kinds::{DAEMON_SETS, NODES, PODS};
use super::super::kubelet;
use super::super::pod_requests::ResourceAmounts;
use super::super::store::{ObjectKey, ObjectName};
use super::super::typed_views::{NodeTaint, PodView};
use super::super::windows_nodes::{is_windows, show_addresses};
use super::ControllerWork;

/// A step in a node's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeLifecycleStep {
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
pub const SILENCE_DELAY_MILLIS: (u64, u64) = (40_000, 43_000);

/// Takes a step.
pub fn take_step(cluster: &mut SimCluster, step: NodeLifecycleStep, node: &str) {
    match step {
        NodeLifecycleStep::Ready => make_ready(cluster, node),
        NodeLifecycleStep::Settled => remove_startup_taints(cluster, node),
        NodeLifecycleStep::Silent => mark_unreachable(cluster, node),
        NodeLifecycleStep::Vanish => {
            cluster.delete_object(&ObjectKey::new(NODES, "", node), None);
        }
        NodeLifecycleStep::Collect => collect_pods(cluster, node),
    }
}

/// A pod is gone: so is the node that Fargate made for it (FARG-9).
pub fn end_fargate_node(cluster: &mut SimCluster, pod: &PodView) {
    let node = cluster.store.index.nodes.get(&pod.node);
    if !node.is_some_and(|n| is_fargate(n)) {
        return;
    }
    let (from, to) = NODE_END_MILLIS;
    let wait = cluster.random_delay(from, to);
    cluster.schedule_after(
        wait,
        KubeEvent::Node(NodeLifecycleStep::Vanish, pod.node.clone()),
    );
}

/// Pods of a node that is gone linger for a while before they are collected (K8S-NODE-1).
pub fn schedule_pod_collection(cluster: &mut SimCluster, node: &str) {
    let wait = cluster.random_delay(45_000, 55_000);
    cluster.schedule_after(
        wait,
        KubeEvent::Node(NodeLifecycleStep::Collect, node.to_owned()),
    );
}

fn collect_pods(cluster: &mut SimCluster, node: &str) {
    if cluster.store.index.nodes.contains_key(node) {
        return;
    }
    for pod in cluster.store.pods_on(node) {
        cluster.delete_object(
            &ObjectKey::new(PODS, pod.ns.clone(), pod.name.clone()),
            Some(0),
        );
    }
}

/// Makes a node ready once its network is: the CNI's pod must run on it, where there is one.
fn make_ready(cluster: &mut SimCluster, node: &str) {
    // The kubelet may have died between the instance's start and here.
    if !cluster.is_kubelet_alive(node) {
        return;
    }
    // Without a Ready pod of the CNI the node has no network, and its kubelet says NotReady. A cluster without
    // aws-node has another network, which is taken to be ready.
    let cni = cluster
        .store
        .find_object(DAEMON_SETS, &ObjectName::new("kube-system", "aws-node"))
        .cloned();
    let uid = cni.as_ref().map(|c| text_at(c, "metadata.uid").to_owned());
    // Nodes of Windows and of Auto Mode bring their CNI with them (WIN-1, AUTO-3).
    let view = cluster.store.index.nodes.get(node);
    let windows = view.is_some_and(|n| is_windows(n));
    let own_network = windows || view.is_some_and(|n| n.is_auto_mode());
    let uid = uid.filter(|_| !own_network);
    let has_network = uid.is_none_or(|uid| {
        cluster
            .store
            .pods_on(node)
            .iter()
            .any(|p| p.is_owned_by(&uid) && p.ready)
    });
    if !has_network {
        cluster.schedule_after(
            Duration::from_secs(1),
            KubeEvent::Node(NodeLifecycleStep::Ready, node.to_owned()),
        );
        return;
    }
    write_ready_condition(
        cluster,
        node,
        "True",
        "KubeletReady",
        "kubelet is posting ready status",
    );
    if windows {
        show_addresses(cluster);
    }
    // Agents take their taints off, and device plugins announce devices, only some time after the node is Ready.
    if cluster.startup_taints.contains_key(node) || !expected_devices(cluster, node).is_empty() {
        cluster.schedule_after(
            STARTUP_TAINT_DELAY,
            KubeEvent::Node(NodeLifecycleStep::Settled, node.to_owned()),
        );
    }
}

/// From a node's being ready to its agents' taking a taint off it, when their pods are ready.
const STARTUP_TAINT_DELAY: Duration = Duration::from_secs(15);

/// What device plugins will tell of a node: what nodes of its type have, unless its image has no drivers for it.
fn expected_devices(cluster: &SimCluster, node: &str) -> ResourceAmounts {
    let facts = cluster.store.index.nodes.get(node);
    let instance_type = facts.map_or("", |n| n.label_value("node.kubernetes.io/instance-type"));
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
fn remove_startup_taints(cluster: &mut SimCluster, node: &str) {
    let pods = cluster.store.pods_on(node);
    // The agent of a taint is one of the DaemonSets; which one is not known, so all of them are waited for.
    let waits = |p: &&std::sync::Arc<super::super::typed_views::PodView>| {
        p.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet") && p.is_active() && !p.ready
    };
    if !cluster.is_kubelet_alive(node) || pods.iter().any(|p| waits(&p)) {
        // A node that is gone is waited for no longer.
        if cluster.store.index.nodes.contains_key(node) {
            cluster.schedule_after(
                STARTUP_TAINT_DELAY,
                KubeEvent::Node(NodeLifecycleStep::Settled, node.to_owned()),
            );
        }
        return;
    }
    let taints = cluster.startup_taints.remove(node).unwrap_or_default();
    let devices = expected_devices(cluster, node);
    // The devices appear with the taint's removal: pods that ask for one cannot be placed before.
    cluster.change_object(&ObjectKey::new(NODES, "", node), |n| {
        for place in ["status.allocatable", "status.capacity"] {
            let amounts = as_object_mut(slot_at(n, place));
            for (name, amount) in &devices {
                amounts.insert(name.clone(), amount.to_string().into());
            }
        }
        if taints.is_empty() {
            return;
        }
        list_at_mut(n, "spec.taints").retain(|t| {
            let is = |(key, effect): &(String, String)| {
                text_at(t, "key") == key && text_at(t, "effect") == effect
            };
            !taints.iter().any(is)
        });
        if list_at(n, "spec.taints").is_empty() {
            remove_at(n, "spec.taints");
        }
    });
}

/// Writes the node's Ready condition.
pub fn write_ready_condition(
    cluster: &mut SimCluster,
    node: &str,
    status: &str,
    reason: &str,
    message: &str,
) {
    let stamp = cluster.timestamp_text();
    cluster.change_object(&ObjectKey::new(NODES, "", node), |n| {
        set_condition(
            n,
            json!({
                "type": "Ready", "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": stamp, "lastTransitionTime": stamp,
            }),
        );
    });
}

fn mark_unreachable(cluster: &mut SimCluster, node: &str) {
    // The kubelet was started again in the meantime.
    if !cluster.dead.contains(node) {
        return;
    }
    // The node controller writes Unknown, as nobody can tell the true state (K8S-NODE-2).
    let stamp = cluster.timestamp_text();
    cluster.change_object(&ObjectKey::new(NODES, "", node), |n| {
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
    // Its pods become not ready, so that they leave their Services, but they are not deleted yet.
    for pod in cluster.store.pods_on(node).iter().filter(|p| p.ready) {
        cluster.change_object(
            &ObjectKey::new(PODS, pod.ns.clone(), pod.name.clone()),
            |p| {
                let was = find_condition(p, "Ready").cloned();
                let mut now =
                    was.unwrap_or_else(|| json!({"type": "Ready", "lastProbeTime": null}));
                set_at(&mut now, "status", "False");
                set_at(&mut now, "lastTransitionTime", stamp.clone());
                set_condition(p, now);
            },
        );
    }
}

/// Taints by condition, keys without their prefix.
const CONDITION_TAINTS: &[(&str, &str)] = &[
    ("not-ready", "NoSchedule"),
    ("not-ready", "NoExecute"),
    ("unreachable", "NoSchedule"),
    ("unreachable", "NoExecute"),
    ("unschedulable", "NoSchedule"),
];

/// Keeps the taints that follow from the node's state, and evicts who does not tolerate a NoExecute one.
pub fn reconcile(cluster: &mut SimCluster, node: &str) {
    let key = ObjectKey::new(NODES, "", node);
    let Some(object) = cluster.store.get_object(&key).cloned() else {
        return;
    };
    // The two taints of a node that is not Ready tell a kubelet that says so from one that is silent. The third
    // follows a cordon (K8S-TAINT-1).
    let status = find_condition(&object, "Ready").map_or("Unknown", |c| text_at(c, "status"));
    let wanted = |key: &str| match key {
        "not-ready" => status == "False",
        "unreachable" => status == "Unknown",
        _ => flag_at(&object, "spec.unschedulable"),
    };
    let stamp = cluster.timestamp_text();
    // Only these taints are the controller's; those of others are left alone.
    cluster.change_object(&key, |n| {
        for (short, effect) in CONDITION_TAINTS {
            let full = format!("node.kubernetes.io/{short}");
            let is = |t: &Value| text_at(t, "key") == full && text_at(t, "effect") == *effect;
            let there = list_at(n, "spec.taints").iter().any(is);
            if wanted(short) && !there {
                list_at_mut(n, "spec.taints")
                    .push(json!({"key": full, "effect": effect, "timeAdded": stamp}));
            } else if !wanted(short) && there {
                list_at_mut(n, "spec.taints").retain(|t| !is(t));
            }
        }
        if value_at(n, "spec.taints").is_some() && list_at(n, "spec.taints").is_empty() {
            remove_at(n, "spec.taints");
        }
    });
    // A taint that somebody else added may be of NoExecute too, so pods are looked at after every change.
    evict_intolerant_pods(cluster, node);
}

/// Deletes the pods that do not tolerate a NoExecute taint of the node, or no longer. No budget is asked (K8S-TAINT-2).
fn evict_intolerant_pods(cluster: &mut SimCluster, node: &str) {
    let Some(object) = cluster
        .store
        .find_object(NODES, &ObjectName::new("", node))
        .cloned()
    else {
        return;
    };
    let taints: Vec<&Value> = list_at(&object, "spec.taints")
        .iter()
        .filter(|t| text_at(t, "effect") == "NoExecute")
        .collect();
    if taints.is_empty() {
        return;
    }
    // The pod whose toleration ends next decides when the node is looked at again.
    let mut next: Option<SignedDuration> = None;
    for pod in cluster.store.pods_on(node).iter().filter(|p| p.is_active()) {
        let pod_key = ObjectKey::new(PODS, pod.ns.clone(), pod.name.clone());
        let Some(pod_object) = cluster.store.get_object(&pod_key).cloned() else {
            continue;
        };
        let tolerations = list_at(&pod_object, "spec.tolerations");
        // A pod goes when the shortest of its tolerations has ended; one taint that is not tolerated at all ends it
        // at once.
        let mut left: Option<SignedDuration> = None;
        for taint in &taints {
            let since: Option<Timestamp> = text_at(taint, "timeAdded").parse().ok();
            let passed = since.map_or(SignedDuration::ZERO, |s| cluster.now.duration_since(s));
            let of_this = match NodeTaint::from_spec(taint).toleration_for(tolerations) {
                None => Some(SignedDuration::ZERO),
                Some(None) => None,
                Some(Some(seconds)) => Some(SignedDuration::from_secs(seconds) - passed),
            };
            left = [left, of_this].into_iter().flatten().min();
        }
        // The pod is deleted and not evicted: no budget is asked (K8S-TAINT-2).
        match left {
            Some(left) if !left.is_positive() => evict_pod_by_taint(cluster, &pod_key),
            Some(left) => next = [next, Some(left)].into_iter().flatten().min(),
            None => {}
        }
    }
    if let Some(wait) = next.and_then(|n| Duration::try_from(n).ok()) {
        cluster.schedule_after(
            wait,
            KubeEvent::RepeatWork(ControllerWork::Taints(node.to_owned())),
        );
    }
}

fn evict_pod_by_taint(cluster: &mut SimCluster, key: &ObjectKey) {
    let stamp = cluster.timestamp_text();
    cluster.change_object(key, |p| {
        set_condition(
            p,
            json!({
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
                "lastProbeTime": null, "lastTransitionTime": stamp,
            }),
        );
    });
    cluster.delete_object(key, None);
}

/// A kubelet works again.
pub fn revive_kubelet(cluster: &mut SimCluster, node: &str) {
    if !cluster.dead.remove(node) {
        return;
    }
    let stamp = cluster.timestamp_text();
    // The other conditions became Unknown with the node and have to be reset as well.
    cluster.change_object(&ObjectKey::new(NODES, "", node), |n| {
        for (kind, reason, message) in HEALTHY_CONDITIONS {
            set_condition(
                n,
                json!({
                    "type": kind, "status": "False", "reason": reason, "message": message,
                    "lastHeartbeatTime": stamp, "lastTransitionTime": stamp,
                }),
            );
        }
    });
    write_ready_condition(
        cluster,
        node,
        "True",
        "KubeletReady",
        "kubelet is posting ready status",
    );
    // Containers went on without their kubelet; their state is reported again.
    kubelet::resume_kubelet(cluster, node);
}

/// The conditions of a node that lacks nothing.
pub const HEALTHY_CONDITIONS: &[(&str, &str, &str)] = &[
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
