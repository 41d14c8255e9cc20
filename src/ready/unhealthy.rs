//! What is not well before the run: it would stop the drain, or is not asked of green.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::codes::Code;
use super::input::{ReadinessInput, name_some};
use super::{Finding, Severity};
use crate::model::kube::{NamespacedName, Node, Pod};
use crate::plan::{DeadKubelets, duration};

/// The finalizer that the Job controller takes off by itself as soon as it has counted the pod.
const JOB_TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// A pod that has been going for longer than this beyond its grace period does not go by itself.
const STUCK_TERMINATION_TIME: SignedDuration = SignedDuration::from_mins(10);

/// Judges pods that do not go and DaemonSets that are down.
pub fn check_unhealthy(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    check_terminating_pods(case, out);
    check_daemon_sets(case, out);
}

/// Judges nodes of blue that are not Ready.
pub fn check_unready_nodes(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let moving = case.moving_pods();
    for node in case.blue_nodes().filter(|n| !n.is_ready()) {
        let on_node = moving
            .iter()
            .filter(|p| p.node.as_deref() == Some(&node.name));
        let pods: Vec<String> = on_node.map(|p| p.key.to_string()).collect();
        let ready = format!("Ready is {}", node.ready);
        // It stops the drain only where pods have to leave it.
        let (severity, detail) = match case.drain_of_node(&node.name).dead_kubelets {
            _ if pods.is_empty() => (
                Severity::Warning,
                format!("{ready}; no pod has to move from it"),
            ),
            DeadKubelets::Stop => (
                Severity::Blocker,
                format!(
                    "{ready}, so it is unknown whether its pods stop ({}): the drain would stop at this node, after the \
                     control plane is upgraded",
                    name_some(&pods)
                ),
            ),
            DeadKubelets::Skip => (
                Severity::Info,
                format!(
                    "{ready}. The plan consents: its pods ({}) are evicted and not waited for; they end with the instance",
                    name_some(&pods)
                ),
            ),
        };
        let finding = Finding::new(
            Code::NodeNotReady,
            format!("node {}", node.name),
            detail,
            format!(
                "repair or terminate the instance, or set {}",
                case.drain_key(&node.name, "deadKubelets: skip")
            ),
        );
        out.push(finding.with_severity(severity));
    }
}

/// Pods on Ready nodes of blue that were asked to go and stay: the drain would wait for them up to its deadline. All times
/// are the API server's, and so is what is newest.
fn check_terminating_pods(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let nodes: BTreeMap<&str, &Node> = case
        .blue_nodes()
        .filter(|n| n.is_ready())
        .map(|n| (n.name.as_str(), n))
        .collect();
    // The newest pod stands for the API server's clock, as the local one may be another.
    let created = case.inventory.pods.iter().filter_map(|p| p.created);
    let newest = created.max();
    for pod in &case.inventory.pods {
        let on_blue = pod.node.as_deref().is_some_and(|n| nodes.contains_key(n));
        let Some(since) = pod.deletion_timestamp.filter(|_| on_blue) else {
            continue;
        };
        // These end with their node, and the drain leaves them where they are.
        if pod.is_daemon_pod() || pod.mirror {
            continue;
        }
        // Finalizers keep a pod for as long as nobody acts, a kubelet is given some time.
        let held: Vec<&str> = (pod.finalizers.iter().map(String::as_str))
            .filter(|f| *f != JOB_TRACKING_FINALIZER)
            .collect();
        let long = newest.is_some_and(|now| now.duration_since(since) > STUCK_TERMINATION_TIME);
        if held.is_empty() && (!long || pod.is_finished()) {
            continue;
        }
        // Whether a controller or the node's kubelet has to act decides what a person can do.
        let (why, fix) = if held.is_empty() {
            (
                "its kubelet does not report that its containers have ended".to_owned(),
                format!(
                    "check its containers on the node; when they have ended: kubectl -n {} delete pod {} --force",
                    pod.key.namespace, pod.key.name
                ),
            )
        } else {
            (
                format!("finalizers keep it: {}", held.join(", ")),
                format!(
                    "fix what removes the finalizers, or remove them by hand: kubectl -n {} patch pod {} --type merge -p \
                     '{{\"metadata\":{{\"finalizers\":null}}}}'",
                    pod.key.namespace, pod.key.name
                ),
            )
        };
        let node = pod.node.as_deref().unwrap_or_default();
        // A pod without running containers keeps nothing on its node.
        let (severity, then) = if pod.is_finished() {
            (
                Severity::Warning,
                "its containers have ended, so the drain does not wait for it",
            )
        } else {
            (
                Severity::Blocker,
                "the drain would wait for it until its deadline",
            )
        };
        let detail = format!(
            "it has been Terminating on {node}, its grace period ended at {since}, and {why}; {then}"
        );
        let finding = Finding::new(
            Code::StuckTerminating,
            format!("pod {}", pod.key),
            detail,
            fix,
        );
        out.push(finding.with_severity(severity));
    }
}

/// DaemonSets of which no pod is Ready on a group that moves.
fn check_daemon_sets(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let groups: BTreeMap<&str, &str> = case
        .blue_nodes()
        .filter(|n| n.is_ready())
        .filter_map(|n| Some((n.name.as_str(), n.nodegroup_name()?)))
        .collect();
    // By DaemonSet and group, as it may be well on another group.
    let mut found: BTreeMap<(NamespacedName, &str), Vec<&Pod>> = BTreeMap::new();
    for pod in case.inventory.pods.iter().filter(|p| p.is_daemon_pod()) {
        let group = pod.node.as_deref().and_then(|n| groups.get(n));
        if let (Some(group), Some(owner)) = (group, &pod.owner) {
            let key = NamespacedName::new(&pod.key.namespace, &owner.name);
            found.entry((key, group)).or_default().push(pod);
        }
    }
    for ((key, group), pods) in found {
        if pods.iter().any(|p| p.ready) {
            continue;
        }
        // A waiting container names its reason, such as a failed image pull.
        let why = pods.iter().find_map(|p| p.waiting.as_deref());
        let why = why.map(|w| format!(": {w}")).unwrap_or_default();
        let timeout = case.plan.node_group(group).timeout;
        out.push(Finding::new(
            Code::DaemonSetDown,
            format!("DaemonSet {key}"),
            format!(
                "none of its {} pods on {group} is Ready{why}. Green does not have to be healthier than blue; otherwise \
                 the run would wait {} for this DaemonSet",
                pods.len(),
                duration::format_duration(timeout)
            ),
            "fix it or delete it before the upgrade: it works on no node of blue",
        ));
    }
}
