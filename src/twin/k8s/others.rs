//! What other people and other programs do to the cluster, and that somebody mends it again: fault rules call these.

use std::collections::BTreeMap;

use serde_json::Value;

use super::hands::{NodeBirth, PATIENCE, ROUND, Step, evict_all, node_joins, nodes_of_group};
use super::json::{at, list, set, text, unset};
use super::kinds::{BUDGETS, DAEMON_SETS, DEPLOYMENTS, NODES, PODS, STATEFUL_SETS};
use super::store::{Key, Name};
use super::{Cluster, Due, within};
use crate::twin::world::World;

/// The label of Karpenter's nodes.
const POOL: &str = "karpenter.sh/nodepool";

/// The images of a workload can no longer be pulled; nodes that have them keep them. Whether there is such a workload.
pub fn image_missing(world: &mut World, ns: &str, name: &str) -> bool {
    within(world, |cluster| {
        let images: Vec<String> = templates(cluster, ns, name)
            .flat_map(|template| list(template, "spec.containers"))
            .map(|c| text(c, "image").to_owned())
            .collect();
        let found = !images.is_empty();
        cluster.unpullable.extend(images);
        found
    })
}

/// New pods of a workload start and never become ready. Whether there is such a workload.
pub fn never_ready(world: &mut World, ns: &str, name: &str) -> bool {
    within(world, |cluster| {
        let found = templates(cluster, ns, name).next().is_some();
        if found {
            cluster.never_ready.insert(Name::new(ns, name));
        }
        found
    })
}

/// New pods of a workload start, end and are started again, for ever. Whether there is such a workload.
pub fn crash_loop(world: &mut World, ns: &str, name: &str) -> bool {
    within(world, |cluster| {
        let found = templates(cluster, ns, name).next().is_some();
        if found {
            cluster.crash_loop.insert(Name::new(ns, name));
        }
        found
    })
}

/// Somebody fixes a workload: its images are there again, its pods become ready. Whether anything was wrong with it.
pub fn fix_workload(world: &mut World, ns: &str, name: &str) -> bool {
    within(world, |cluster| {
        let images: Vec<String> = templates(cluster, ns, name)
            .flat_map(|template| list(template, "spec.containers"))
            .map(|c| text(c, "image").to_owned())
            .collect();
        let workload = Name::new(ns, name);
        let mut wrong = cluster.never_ready.remove(&workload);
        wrong |= cluster.crash_loop.remove(&workload);
        for image in &images {
            wrong |= cluster.unpullable.remove(image);
        }
        if wrong {
            resume_kubelets(cluster);
        }
        wrong
    })
}

/// Somebody fixes every workload that a rule broke.
pub fn fix_workloads(world: &mut World) {
    within(world, |cluster| {
        cluster.unpullable.clear();
        cluster.never_ready.clear();
        cluster.crash_loop.clear();
        cluster.operators_down.clear();
        super::control::operator::resume(cluster);
        resume_kubelets(cluster);
    });
}

fn resume_kubelets(cluster: &mut Cluster) {
    let names: Vec<String> = cluster.store.index.nodes.keys().cloned().collect();
    for node in names {
        super::kubelet::resume(cluster, &node);
    }
}

/// The operator of a kind makes no pods any more; whether it did before.
pub fn stop_operator(world: &mut World, kind: &str) -> bool {
    within(world, |cluster| {
        cluster.operators_down.insert(kind.to_owned())
    })
}

/// It does again.
pub fn start_operator(world: &mut World, kind: &str) -> bool {
    within(world, |cluster| {
        let was_down = cluster.operators_down.remove(kind);
        super::control::operator::resume(cluster);
        was_down
    })
}

/// The API server dies so often between an eviction's entry in its budget and the pod's deletion.
pub fn half_evictions(world: &mut World, number: u32) -> bool {
    within(world, |cluster| cluster.half_evictions += number);
    number > 0
}

/// Pods on the nodes of a group are not ready from now on, but DaemonSets'. Whether it has nodes.
pub fn pods_fail_on(world: &mut World, group: &str) -> bool {
    let nodes = nodes_of_group(world, group);
    within(world, |cluster| {
        cluster.failing_groups.insert(group.to_owned());
        let pods: Vec<_> = nodes
            .iter()
            .flat_map(|n| cluster.store.pods_on(n))
            .collect();
        for pod in pods {
            if pod.owner.as_ref().is_none_or(|o| o.kind != "DaemonSet") {
                let key = Key::new(PODS, pod.ns.clone(), pod.name.clone());
                super::kubelet::ready(cluster, &key, false);
            }
        }
    });
    !nodes.is_empty()
}

/// The nodes of a group lose their images, and can pull none but DaemonSets' any more. Whether it has nodes.
pub fn no_images_on(world: &mut World, group: &str) -> bool {
    let nodes = nodes_of_group(world, group);
    within(world, |cluster| {
        cluster.imageless_groups.insert(group.to_owned());
        cluster.images.retain(|node, _| !nodes.contains(node));
    });
    !nodes.is_empty()
}

/// The pod templates of the workloads of that name.
fn templates<'a>(cluster: &'a Cluster, ns: &str, name: &str) -> impl Iterator<Item = &'a Value> {
    let at_name = Name::new(ns, name);
    [DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS]
        .into_iter()
        .filter_map(move |res| cluster.store.find(res, &at_name))
        .filter_map(|object| at(object, "spec.template"))
}

/// Somebody writes `minAvailable` into a budget; whether there is one.
pub fn tighten(world: &mut World, ns: &str, name: &str, least: i64) -> bool {
    within(world, |cluster| {
        let key = Key::new(BUDGETS, ns, name);
        if let Some(before) = cluster.store.get(&key).and_then(|b| b.get("spec")).cloned() {
            cluster.tightened.entry(key.at.clone()).or_insert(before);
        }
        let changed = cluster.change(&key, |b| {
            unset(b, "spec.maxUnavailable");
            set(b, "spec.minAvailable", least);
        });
        changed.is_some()
    })
}

/// Somebody cordons a node or opens it again; whether that changed it.
pub fn cordon(world: &mut World, node: &str, close: bool) -> bool {
    within(world, |cluster| {
        let key = Key::new(NODES, "", node);
        let is = |o: &Value| super::json::flag(o, "spec.unschedulable");
        if cluster.store.get(&key).is_none_or(|o| is(o) == close) {
            return false;
        }
        cluster.change(&key, |n| {
            if close {
                set(n, "spec.unschedulable", true);
            } else {
                unset(n, "spec.unschedulable");
            }
        });
        true
    })
}

/// Whether a node's kubelet is dead.
pub fn is_dead(world: &World, node: &str) -> bool {
    world.kube.dead.contains(node)
}

/// Somebody mends what was broken beside the workloads themselves: budgets are as they were, and nodes that carry no mark
/// of `eksup.dev` are open.
pub fn mend(world: &mut World) {
    within(world, |cluster| {
        cluster.failing_groups.clear();
        cluster.imageless_groups.clear();
        cluster.access.refused = None;
        for (name, spec) in std::mem::take(&mut cluster.tightened) {
            let key = Key {
                res: BUDGETS,
                at: name,
            };
            cluster.change(&key, |b| set(b, "spec", spec));
        }
        let names: Vec<String> = cluster.store.index.nodes.keys().cloned().collect();
        for node in names {
            let key = Key::new(NODES, "", node.clone());
            let ours = cluster
                .store
                .get(&key)
                .is_some_and(|n| super::json::annotation(n, "eksup.dev/cordoned-by").is_some());
            if !ours {
                cluster.change(&key, |n| unset(n, "spec.unschedulable"));
            }
            super::kubelet::resume(cluster, &node);
        }
    });
}

/// Karpenter's own nodes.
pub fn karpenters(world: &World) -> Vec<String> {
    let nodes = world.kube.store.index.nodes.values();
    nodes
        .filter(|n| n.labels.contains_key(POOL))
        .map(|n| n.name.clone())
        .collect()
}

/// Karpenter makes `number` nodes of its own, and ends those it had: their pods are evicted first, by budget, and after
/// its patience by force, as by a node claim's `terminationGracePeriod`.
pub fn karpenter(world: &mut World, number: u32) -> bool {
    let old = karpenters(world);
    let index = &world.kube.store.index;
    let Some(like) = index
        .nodes
        .values()
        .find(|n| !n.labels.contains_key(POOL))
        .cloned()
    else {
        return false;
    };
    let version = world
        .kube
        .store
        .find(NODES, &Name::new("", like.name.clone()))
        .map(|n| text(n, "status.nodeInfo.kubeletVersion").to_owned())
        .unwrap_or_default();
    for _ in 0..number {
        let instance = world.id("i-");
        let host = world.rng.u32(..);
        let ip = std::net::Ipv4Addr::from(0x0aff_0000 | (host & 0xffff));
        let zone = like.zone().to_owned();
        let birth = NodeBirth {
            name: format!("ip-{}.ec2.internal", ip.to_string().replace('.', "-")),
            provider_id: format!("aws:///{zone}/{instance}"),
            zone_id: like.label("topology.k8s.aws/zone-id").to_owned(),
            region: like.label("topology.kubernetes.io/region").to_owned(),
            zone,
            instance_type: like.label("node.kubernetes.io/instance-type").to_owned(),
            labels: BTreeMap::from([(POOL.to_owned(), "default".to_owned())]),
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
            architecture: like.label("kubernetes.io/arch").to_owned(),
            os_image: "Amazon Linux 2023.7.20250609".to_owned(),
        };
        node_joins(world, birth);
    }
    for node in &old {
        evict_all(world, node);
        within(world, |cluster| {
            cluster.later(PATIENCE + ROUND, Due::Hand(Step::End, node.clone()));
        });
    }
    number > 0 || !old.is_empty()
}

/// Tokens made between `from` and `until` are refused: the credentials behind them were not good.
pub fn refuse_new_tokens(world: &mut World, from: jiff::Timestamp, until: jiff::Timestamp) {
    within(world, |cluster| {
        cluster.access.refused = Some((from, until))
    });
}
