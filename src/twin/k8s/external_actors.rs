//! What other people and other programs do to the cluster, and that somebody fixes it again: fault rules call these.

use std::collections::BTreeMap;

use serde_json::Value;

use super::cloud_hooks::{
    EVICTION_ROUND_INTERVAL, EksDrainStep, JoiningNode, NODE_EVICTION_TIMEOUT, evict_node_pods,
    join_node, nodes_of_group,
};
use super::fargate_state::is_fargate;
use super::json::{list_at, remove_at, set_at, text_at, value_at};
use super::kinds::{BUDGETS, DAEMON_SETS, DEPLOYMENTS, NODES, PODS, STATEFUL_SETS};
use super::store::{ObjectKey, ObjectName};
use super::{KubeEvent, SimCluster, run_in_cluster};
use crate::twin::world::SimWorld;

/// The label of Karpenter's nodes.
const NODE_POOL_LABEL: &str = "karpenter.sh/nodepool";

/// The images of a workload can no longer be pulled; nodes that have them keep them. Whether there is such a workload.
pub fn make_image_missing(world: &mut SimWorld, ns: &str, name: &str) -> bool {
    run_in_cluster(world, |cluster| {
        let images: Vec<String> = pod_templates(cluster, ns, name)
            .flat_map(|template| list_at(template, "spec.containers"))
            .map(|c| text_at(c, "image").to_owned())
            .collect();
        let found = !images.is_empty();
        cluster.unpullable.extend(images);
        found
    })
}

/// New pods of a workload start and never become ready. Whether there is such a workload.
pub fn make_never_ready(world: &mut SimWorld, ns: &str, name: &str) -> bool {
    run_in_cluster(world, |cluster| {
        let found = pod_templates(cluster, ns, name).next().is_some();
        if found {
            cluster.never_ready.insert(ObjectName::new(ns, name));
        }
        found
    })
}

/// New pods of a workload start, end and are started again, forever. Whether there is such a workload.
pub fn make_crash_loop(world: &mut SimWorld, ns: &str, name: &str) -> bool {
    run_in_cluster(world, |cluster| {
        let found = pod_templates(cluster, ns, name).next().is_some();
        if found {
            cluster.crash_loop.insert(ObjectName::new(ns, name));
        }
        found
    })
}

/// Somebody fixes a workload: its images are there again, its pods become ready. Whether anything was wrong with it.
pub fn fix_workload(world: &mut SimWorld, ns: &str, name: &str) -> bool {
    run_in_cluster(world, |cluster| {
        let images: Vec<String> = pod_templates(cluster, ns, name)
            .flat_map(|template| list_at(template, "spec.containers"))
            .map(|c| text_at(c, "image").to_owned())
            .collect();
        let workload = ObjectName::new(ns, name);
        let mut wrong = cluster.never_ready.remove(&workload);
        wrong |= cluster.crash_loop.remove(&workload);
        for image in &images {
            wrong |= cluster.unpullable.remove(image);
        }
        // Pods that wait for the fix are looked at again at once, because no change of an object would wake them.
        if wrong {
            resume_kubelets(cluster);
        }
        wrong
    })
}

/// Somebody fixes every workload that a rule broke.
pub fn fix_workloads(world: &mut SimWorld) {
    run_in_cluster(world, |cluster| {
        cluster.unpullable.clear();
        cluster.never_ready.clear();
        cluster.crash_loop.clear();
        cluster.operators_down.clear();
        super::control::operator::resume_operators(cluster);
        resume_kubelets(cluster);
    });
}

fn resume_kubelets(cluster: &mut SimCluster) {
    let names: Vec<String> = cluster.store.index.nodes.keys().cloned().collect();
    for node in names {
        super::kubelet::resume_kubelet(cluster, &node);
    }
}

/// The operator of a kind makes no pods any more; whether it did before.
pub fn stop_operator(world: &mut SimWorld, kind: &str) -> bool {
    run_in_cluster(world, |cluster| {
        cluster.operators_down.insert(kind.to_owned())
    })
}

/// It does again.
pub fn start_operator(world: &mut SimWorld, kind: &str) -> bool {
    run_in_cluster(world, |cluster| {
        let was_down = cluster.operators_down.remove(kind);
        super::control::operator::resume_operators(cluster);
        was_down
    })
}

/// The API server dies so often between an eviction's entry in its budget and the pod's deletion.
pub fn set_half_evictions(world: &mut SimWorld, number: u32) -> bool {
    run_in_cluster(world, |cluster| cluster.half_evictions += number);
    number > 0
}

/// Pods on the nodes of a group are not ready from now on, but DaemonSets'. Whether it has nodes.
pub fn fail_pods_on(world: &mut SimWorld, group: &str) -> bool {
    let nodes = nodes_of_group(world, group);
    run_in_cluster(world, |cluster| {
        cluster.failing_groups.insert(group.to_owned());
        let pods: Vec<_> = nodes
            .iter()
            .flat_map(|n| cluster.store.pods_on(n))
            .collect();
        for pod in pods {
            if pod.owner.as_ref().is_none_or(|o| o.kind != "DaemonSet") {
                let key = ObjectKey::new(PODS, pod.ns.clone(), pod.name.clone());
                super::kubelet::set_pod_ready(cluster, &key, false);
            }
        }
    });
    !nodes.is_empty()
}

/// The nodes of a group lose their images, and can pull none but DaemonSets' any more. Whether it has nodes.
pub fn remove_images_on(world: &mut SimWorld, group: &str) -> bool {
    let nodes = nodes_of_group(world, group);
    run_in_cluster(world, |cluster| {
        cluster.imageless_groups.insert(group.to_owned());
        cluster.images.retain(|node, _| !nodes.contains(node));
    });
    !nodes.is_empty()
}

/// The pod templates of the workloads of that name.
fn pod_templates<'a>(
    cluster: &'a SimCluster,
    ns: &str,
    name: &str,
) -> impl Iterator<Item = &'a Value> {
    let at_name = ObjectName::new(ns, name);
    [DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS]
        .into_iter()
        .filter_map(move |res| cluster.store.find_object(res, &at_name))
        .filter_map(|object| value_at(object, "spec.template"))
}

/// Somebody writes `minAvailable` into a budget; whether there is one.
pub fn tighten_budget(world: &mut SimWorld, ns: &str, name: &str, least: i64) -> bool {
    run_in_cluster(world, |cluster| {
        let key = ObjectKey::new(BUDGETS, ns, name);
        // The spec of before the first fault is kept, however often the budget is changed.
        if let Some(before) = cluster
            .store
            .get_object(&key)
            .and_then(|b| b.get("spec"))
            .cloned()
        {
            cluster.tightened.entry(key.at.clone()).or_insert(before);
        }
        let changed = cluster.change_object(&key, |b| {
            remove_at(b, "spec.maxUnavailable");
            set_at(b, "spec.minAvailable", least);
        });
        changed.is_some()
    })
}

/// Somebody cordons a node or opens it again; whether that changed it.
pub fn set_cordoned(world: &mut SimWorld, node: &str, close: bool) -> bool {
    run_in_cluster(world, |cluster| {
        let key = ObjectKey::new(NODES, "", node);
        let is = |o: &Value| super::json::flag_at(o, "spec.unschedulable");
        if cluster
            .store
            .get_object(&key)
            .is_none_or(|o| is(o) == close)
        {
            return false;
        }
        cluster.change_object(&key, |n| {
            if close {
                set_at(n, "spec.unschedulable", true);
            } else {
                remove_at(n, "spec.unschedulable");
            }
        });
        true
    })
}

/// Whether a node's kubelet is dead.
pub fn is_kubelet_dead(world: &SimWorld, node: &str) -> bool {
    world.kube.dead.contains(node)
}

/// Somebody fixes what was broken beside the workloads themselves: budgets are as they were, and nodes that carry no mark
/// of `eksup.dev` are open.
pub fn restore_budgets_and_nodes(world: &mut SimWorld) {
    // The switches of the faults are reset first, so that what follows is not undone by them.
    run_in_cluster(world, |cluster| {
        cluster.failing_groups.clear();
        cluster.imageless_groups.clear();
        cluster.access.refused = None;
        // A budget that was tightened gets the spec that it had before.
        for (name, spec) in std::mem::take(&mut cluster.tightened) {
            let key = ObjectKey {
                res: BUDGETS,
                at: name,
            };
            cluster.change_object(&key, |b| set_at(b, "spec", spec));
        }
        // A cordon that eksup marked is its own to lift; every other one was a fault's.
        let names: Vec<String> = cluster.store.index.nodes.keys().cloned().collect();
        for node in names {
            let key = ObjectKey::new(NODES, "", node.clone());
            let ours = cluster.store.get_object(&key).is_some_and(|n| {
                super::json::find_annotation(n, "eksup.dev/cordoned-by").is_some()
            });
            if !ours {
                cluster.change_object(&key, |n| remove_at(n, "spec.unschedulable"));
            }
            super::kubelet::resume_kubelet(cluster, &node);
        }
    });
}

/// Karpenter's own nodes.
pub fn karpenter_nodes(world: &SimWorld) -> Vec<String> {
    let nodes = world.kube.store.index.nodes.values();
    nodes
        .filter(|n| n.labels.contains_key(NODE_POOL_LABEL))
        .map(|n| n.name.clone())
        .collect()
}

/// Karpenter makes `number` nodes of its own, and ends those it had: their pods are evicted first, by budget, and after
/// its patience by force, as by a node claim's `terminationGracePeriod`.
pub fn replace_karpenter_nodes(world: &mut SimWorld, number: u32) -> bool {
    // The nodes that Karpenter had are listed first, because the new ones carry the same label.
    let old = karpenter_nodes(world);
    let index = &world.kube.store.index;
    let Some(like) = index
        .nodes
        .values()
        // A Fargate node has room for one pod.
        .find(|n| !n.labels.contains_key(NODE_POOL_LABEL) && !is_fargate(n))
        .cloned()
    else {
        return false;
    };
    // The new nodes have the version of the node that they are modelled on, not that of the control plane.
    let version = world
        .kube
        .store
        .find_object(NODES, &ObjectName::new("", like.name.clone()))
        .map(|n| text_at(n, "status.nodeInfo.kubeletVersion").to_owned())
        .unwrap_or_default();
    // The addresses come from a range of their own, so that they meet none of the snapshot's.
    for _ in 0..number {
        let instance = world.new_ec2_id("i-");
        let host = world.rng.u32(..);
        let ip = std::net::Ipv4Addr::from(0x0aff_0000 | (host & 0xffff));
        let zone = like.zone().to_owned();
        let birth = JoiningNode {
            name: format!("ip-{}.ec2.internal", ip.to_string().replace('.', "-")),
            provider_id: format!("aws:///{zone}/{instance}"),
            zone_id: like.label_value("topology.k8s.aws/zone-id").to_owned(),
            region: like.label_value("topology.kubernetes.io/region").to_owned(),
            zone,
            instance_type: like
                .label_value("node.kubernetes.io/instance-type")
                .to_owned(),
            labels: BTreeMap::from([(NODE_POOL_LABEL.to_owned(), "default".to_owned())]),
            taints: Vec::new(),
            kubelet_version: version.clone(),
            cpu_millis: like.cpu,
            memory_bytes: like.memory,
            max_pods: like.pods,
            ephemeral_storage: 18 << 30,
            short_hop: false,
            driverless: false,
            startup_taints: Vec::new(),
            internal_ip: ip.to_string(),
            architecture: like.label_value("kubernetes.io/arch").to_owned(),
            os_image: "Amazon Linux 2023.7.20250609".to_owned(),
        };
        join_node(world, birth);
    }
    // Pods are evicted by budget first. When the node's time is over it ends with whatever is left on it.
    for node in &old {
        evict_node_pods(world, node);
        run_in_cluster(world, |cluster| {
            cluster.schedule_after(
                NODE_EVICTION_TIMEOUT + EVICTION_ROUND_INTERVAL,
                KubeEvent::EksDrain(EksDrainStep::End, node.clone()),
            );
        });
    }
    number > 0 || !old.is_empty()
}

/// Tokens made between `from` and `until` are refused: the credentials behind them were not good.
pub fn refuse_new_tokens(world: &mut SimWorld, from: jiff::Timestamp, until: jiff::Timestamp) {
    run_in_cluster(world, |cluster| {
        cluster.access.refused = Some((from, until));
    });
}
