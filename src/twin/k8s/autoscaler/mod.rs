//! The cluster autoscaler: a Deployment `kube-system/cluster-autoscaler` is one, as long as a pod of it is Running.
//!
//! What it does was measured beside the real one (CA-1 to CA-7): it looks every ten seconds; sizes of groups are
//! read once a minute; it grows a group whose template fits pods that find no node, and shrinks groups down to their
//! smallest size: empty nodes all at once, others one at a time by evictions that ask budgets. Cordoned nodes are nodes
//! like any other to it; `scale-down-disabled` is heeded. What it knows dies with its pod.
//!
//! # Divergence
//! - The expander is `random`, whatever the flags say; a pod whose priority is too low to count is not left out.
//! - A node that is not Ready is neither used nor removed. No soft taints, no events, no status ConfigMap.
//! - It asks Auto Scaling past every fault rule and permission, as if with credentials and a network of its own.

mod flags;
mod grow;
mod shrink;
mod template;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;

use self::flags::AutoscalerFlags;
pub use super::autoscaler_state::{Autoscaler, ScalingAction};
use super::cluster::SimCluster;
use super::kinds::{DEPLOYMENTS, NODES};
use super::selector::LabelSelector;
use super::store::{ObjectKey, ObjectName};
use super::typed_views::NodeView;
use super::{KubeEvent, json as object, run_in_cluster};
use crate::twin::aws::scaling::{self, ScalingGroup};
use crate::twin::world::SimWorld;

/// Where it lives.
const AUTOSCALER_NAMESPACE: &str = "kube-system";
const AUTOSCALER_NAME: &str = "cluster-autoscaler";
/// The taint of a node it is about to end.
const LEAVING_TAINT: &str = "ToBeDeletedByClusterAutoscaler";
/// How long sizes of groups are kept.
const GROUP_SIZES_TTL: SignedDuration = SignedDuration::from_secs(60);

/// A Deployment that is one, with these flags.
pub fn autoscaler_deployment(flags: &[String]) -> serde_json::Value {
    let labels = json!({"app": AUTOSCALER_NAME});
    json!({
        "metadata": {"name": AUTOSCALER_NAME, "namespace": AUTOSCALER_NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    // Beside nodes of Windows it has to say so.
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "containers": [{
                        "name": AUTOSCALER_NAME,
                        "image": format!("registry.k8s.io/autoscaling/{AUTOSCALER_NAME}:v1.27.3"),
                        "command": ["./cluster-autoscaler", "--cloud-provider=aws"],
                        "args": flags,
                        "resources": {"requests": {"cpu": "50m", "memory": "100Mi"}},
                    }],
                },
            },
        },
    })
}

/// Somebody deploys an autoscaler that takes a node away after `unneeded`; whether there was none.
pub fn deploy_autoscaler(world: &mut SimWorld, unneeded: Duration) -> bool {
    let cluster_name = world.cloud.eks.as_ref().map(|e| e.name.clone());
    let tags = format!(
        "k8s.io/cluster-autoscaler/enabled,k8s.io/cluster-autoscaler/{}",
        cluster_name.unwrap_or_default()
    );
    let flags = [
        format!("--node-group-auto-discovery=asg:tag={tags}"),
        format!("--scale-down-unneeded-time={}s", unneeded.as_secs()),
        format!("--scale-down-delay-after-add={}s", unneeded.as_secs()),
    ];
    run_in_cluster(world, |cluster| {
        let object = autoscaler_deployment(&flags);
        cluster.create_object(DEPLOYMENTS, object, false).is_ok()
    })
}

/// What the autoscaler has done so far, for tests.
#[doc(hidden)]
pub fn scaling_actions(world: &SimWorld) -> &[ScalingAction] {
    &world.kube.autoscaler.log
}

/// A Deployment has come to be, or was there when the world began.
pub(super) fn notice_deployment(cluster: &mut SimCluster, name: &ObjectName) {
    if *name == ObjectName::new(AUTOSCALER_NAMESPACE, AUTOSCALER_NAME) && !cluster.autoscaler.queued
    {
        cluster.autoscaler.queued = true;
        cluster.schedule_after(Duration::from_secs(10), KubeEvent::Autoscale);
    }
}

/// One round of its loop.
pub(super) fn run_scan(world: &mut SimWorld) {
    // The next scan is queued before anything else, so that the loop goes on while the pod is missing.
    let Some((flags, pod)) = run_in_cluster(world, |cluster| {
        cluster.autoscaler.queued = false;
        let found = find_autoscaler(cluster)?;
        cluster.autoscaler.queued = true;
        cluster.schedule_after(found.0.scan_interval, KubeEvent::Autoscale);
        Some(found)
    }) else {
        return;
    };
    if world.faults.are_over() {
        // It came with the faults, and goes with them.
        return restart_autoscaler(world, String::new());
    }
    // Without a Running pod nothing is done; the loop waits for the pod to return.
    let Some(pod) = pod else { return };
    // A new pod has nothing of what the old one knew, and spends its first scan on starting.
    if world.kube.autoscaler.pod != pod {
        restart_autoscaler(world, pod);
        return;
    }
    // The order is that of one loop of the real program: sizes, templates, deletions under way, and a scale-down only
    // when no pod waits.
    read_groups(world, &flags);
    template::refresh_templates(world);
    shrink::continue_leaving(world);
    if !grow::scale_up(world) {
        shrink::scale_down(world, &flags);
    }
}

/// The flags of the Deployment, and the uid of the pod that runs it; none when there is no such Deployment.
fn find_autoscaler(cluster: &SimCluster) -> Option<(AutoscalerFlags, Option<String>)> {
    let name = ObjectName::new(AUTOSCALER_NAMESPACE, AUTOSCALER_NAME);
    let deployment = cluster.store.find_object(DEPLOYMENTS, &name)?;
    let flags = AutoscalerFlags::from_deployment(deployment);
    let selector = LabelSelector::from_spec(object::value_at(deployment, "spec.selector"));
    let pods = cluster
        .store
        .index
        .selected_pods(AUTOSCALER_NAMESPACE, &selector);
    let runs = pods.iter().find(|p| {
        p.ready && !p.deleting && p.phase == "Running" && cluster.is_kubelet_alive(&p.node)
    });
    Some((flags, runs.map(|p| p.uid.clone())))
}

/// Another pod takes over: it knows nothing, and takes the marks of the last one off.
fn restart_autoscaler(world: &mut SimWorld, pod: String) {
    run_in_cluster(world, |cluster| {
        let old = std::mem::take(&mut cluster.autoscaler);
        let mut log = old.log;
        if !old.pod.is_empty() {
            log.push(ScalingAction::Restarted);
        }
        cluster.autoscaler = Autoscaler {
            queued: old.queued,
            pod,
            log,
            ..Autoscaler::default()
        };
        for (node, leaving) in old.leaving {
            shrink::reopen_node(cluster, &node, &leaving);
        }
    });
}

/// Reads sizes, at most once a minute; members are seen by their nodes.
fn read_groups(world: &mut SimWorld, flags: &AutoscalerFlags) {
    let now = world.now();
    let old = world.kube.autoscaler.read_at;
    if old.is_some_and(|t| now.duration_since(t) < GROUP_SIZES_TTL) {
        return;
    }
    let groups = scaling::list_groups(world).into_iter();
    let ours = groups.filter_map(|g| flags.managed_group(g)).collect();
    let memory = &mut world.kube.autoscaler;
    (memory.groups, memory.read_at) = (ours, Some(now));
}

/// Whether a node is of a group: by its node group's label, or by its instance.
fn is_of_group(node: &NodeView, group: &ScalingGroup) -> bool {
    node.node_group() == group.nodegroup || group.instances.contains(&node.instance)
}

/// The nodes of a group, but for those on their way out.
fn nodes_of(cluster: &SimCluster, group: &ScalingGroup) -> Vec<Arc<NodeView>> {
    let nodes = cluster.store.index.nodes.values();
    let leaving = &cluster.autoscaler.leaving;
    nodes
        .filter(|n| is_of_group(n, group) && !leaving.contains_key(&n.name))
        .cloned()
        .collect()
}

/// An annotation of a node.
fn find_node_annotation(cluster: &SimCluster, node: &str, key: &str) -> Option<String> {
    let node = cluster.store.get_object(&ObjectKey::new(NODES, "", node))?;
    object::find_annotation(node, key).map(str::to_owned)
}
