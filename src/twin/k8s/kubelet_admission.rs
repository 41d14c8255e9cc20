//! What a kubelet looks at before it takes a pod that is bound to its node, by the scheduler or by `spec.nodeName`
//! (K8S-SCHED-7).

use serde_json::Value;

use super::cluster::SimCluster;
use super::json::{list_at, text_at, value_at};
use super::scheduler::RequiredNodes;
use super::typed_views::PodView;

/// From this priority on a pod is critical: the kubelet makes room for it.
const CRITICAL_PRIORITY: i64 = 2_000_000_000;

/// Why the kubelet will not run the pod: reason and message as they stand in its status.
pub fn admission_refusal(
    cluster: &SimCluster,
    object: &Value,
    pod: &PodView,
) -> Option<(String, String)> {
    let node = cluster.store.index.nodes.get(&pod.node)?;
    let named = |reason: &str, why: &str| {
        let message = format!("Pod was rejected: {why}");
        Some((reason.to_owned(), message))
    };
    // The order of the checks is the kubelet's: the operating system, resources, node affinity, ports, taints.
    let os = text_at(object, "spec.os.name");
    let node_os = node.label_value("kubernetes.io/os");
    if !os.is_empty() && !node_os.is_empty() && os != node_os {
        let why = "Failed to admit pod as the OS field doesn't match node OS";
        return named("PodOSNotSupported", why);
    }
    // A pod that is bound but not admitted yet takes nothing: of two that do not fit together the first to be looked
    // at wins.
    let others = cluster.store.pods_on(&node.name);
    let is_taken = |p: &&std::sync::Arc<PodView>| {
        let runs = p.phase != "Pending" || cluster.admitted.contains(&p.uid);
        p.uid != pod.uid && !p.is_finished() && runs
    };
    let others: Vec<_> = others.iter().filter(is_taken).collect();
    let sum = |of: &dyn Fn(&PodView) -> i64| others.iter().map(|p| of(p)).sum::<i64>();
    let mut checks = vec![
        ("pods", 1, others.len() as i64, node.pods),
        ("cpu", pod.cpu, sum(&|p| p.cpu), node.cpu),
        ("memory", pod.memory, sum(&|p| p.memory), node.memory),
    ];
    for (name, asked) in &pod.others {
        // A resource that the node does not know is not asked for here.
        if let Some(all) = node.others.get(name) {
            let used = sum(&|p| p.others.get(name).copied().unwrap_or(0));
            checks.push((name.as_str(), *asked, used, *all));
        }
    }
    // A critical pod is admitted all the same, since the real kubelet would end others for it.
    for (name, asked, used, all) in checks {
        if asked > 0 && used + asked > all && pod.priority < CRITICAL_PRIORITY {
            let why = format!(
                "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {all}"
            );
            return named(&format!("OutOf{name}"), &why);
        }
    }
    // Pods that name their node go past the scheduler, so labels are asked here as well.
    if !RequiredNodes::from_spec(value_at(object, "spec")?).matches(node) {
        let why =
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return named("NodeAffinity", why);
    }
    if others.iter().any(|p| {
        let mut ports = p.host_ports.iter();
        ports.any(|port| pod.host_ports.iter().any(|own| own.conflicts_with(port)))
    }) {
        let why = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return named("NodePorts", why);
    }
    let tolerations = list_at(object, "spec.tolerations");
    // A NoSchedule taint is no reason for the kubelet, only NoExecute is.
    let expelling = |t: &&super::typed_views::NodeTaint| t.effect == "NoExecute";
    let mut taints = node.taints.iter().filter(expelling);
    if taints.any(|t| t.toleration_for(tolerations).is_none()) {
        let why =
            "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        return named("TaintToleration", why);
    }
    None
}
