//! Taints and tolerations.

use crate::model::kube::{Taint, Toleration};

/// The taint that stands for a cordon.
pub const CORDON_TAINT: &str = "node.kubernetes.io/unschedulable";

/// The taints that the DaemonSet controller tolerates for its pods on every node.
/// Source: <https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations>.
const DAEMON_TOLERATED_TAINTS: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    (CORDON_TAINT, "NoSchedule"),
];

/// Returns the first taint that keeps a pod with these tolerations off the node.
pub fn first_untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|t| repels_pods(t))
        .find(|taint| !tolerations.iter().any(|t| t.tolerates(taint)))
}

/// Returns the first taint that keeps the pods of a DaemonSet with these tolerations off the node.
pub fn first_untolerated_by_daemon<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
) -> Option<&'a Taint> {
    let granted = |taint: &Taint| {
        DAEMON_TOLERATED_TAINTS
            .iter()
            .any(|(key, effect)| taint.key == *key && taint.effect == *effect)
    };
    taints
        .iter()
        .filter(|t| repels_pods(t) && !granted(t))
        .find(|taint| !tolerations.iter().any(|t| t.tolerates(taint)))
}

/// Whether a taint keeps pods off that do not tolerate it, rather than being a preference.
pub fn repels_pods(taint: &Taint) -> bool {
    matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
}
