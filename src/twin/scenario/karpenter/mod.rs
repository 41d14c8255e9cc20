//! A cluster at 1.28 whose workloads run on Karpenter's nodes: a small managed group for system pods and Karpenter itself, a
//! NodePool `general` with three nodes that serve a load balancer, and a tainted NodePool `batch` with one.

pub(super) mod objects;

use serde_json::{Value, json};

use super::grow::{self, list_mut, text_at};
use super::variants;
use crate::model::eks::NodegroupTaint;
use crate::model::snapshot::Snapshot;
use crate::model::{AddonVersion, Minor};
use crate::twin::aws;
use objects::PoolSketch;

const FROM: Minor = Minor::new(28);
const KUBELET: &str = "v1.28.15-eks-473151a";
const KUBE_PROXY: (&str, &str) = ("v1.27.16-eksbuild.2", "v1.28.15-eksbuild.2");
const IMAGE_KIND: &str = "AL2023_x86_64_STANDARD";
/// What the nodes of the managed group are kept for.
const SYSTEM_TAINT: &str = "CriticalAddonsOnly";

/// Nodes 2, 3 and 4 of the grown cluster are in three zones.
const GENERAL: PoolSketch = PoolSketch {
    name: "general",
    first: 2,
    nodes: 3,
    tainted: false,
};
const BATCH: PoolSketch = PoolSketch {
    name: "batch",
    first: 5,
    nodes: 1,
    tainted: true,
};

/// Where Karpenter's drift does the work.
pub fn karpenter_drift() -> Snapshot {
    karpenter_cluster("karpenter-drift")
}

/// Where a green NodePool takes over from each.
pub fn karpenter_blue_green() -> Snapshot {
    karpenter_cluster("karpenter-blue-green")
}

fn karpenter_cluster(cluster: &str) -> Snapshot {
    let mut s = variants::rename_cluster(cluster);
    grow::grow_to(&mut s, 6);
    let mut s = variants::rename_instances(s, cluster);
    move_to_minor(&mut s);
    keep_system_group(&mut s);
    let image = aws::published_image_id(FROM, IMAGE_KIND);
    objects::add_class(&mut s, &image);
    for pool in [&GENERAL, &BATCH] {
        objects::add_pool(&mut s, pool, cluster, &image);
    }
    serve_by_general(&mut s, cluster);
    add_controller(&mut s);
    resize_workloads(&mut s);
    add_batch_workload(&mut s);
    move_pods(&mut s);
    s
}

/// A load balancer controller fills the balancer's target group with the nodes of `general`.
fn serve_by_general(s: &mut Snapshot, cluster: &str) {
    variants::bind_to_controller(s, cluster, Some(json!({"workload": GENERAL.name})));
    let own: Vec<String> = list_mut(s, "/api/v1/nodes")
        .iter()
        .filter(|n| text_at(n, "/metadata/labels/workload") == GENERAL.name)
        .filter_map(|n| text_at(n, "/spec/providerID").rsplit('/').next())
        .map(str::to_owned)
        .collect();
    for targets in s.inventory.target_health.values_mut() {
        targets.retain(|t| own.contains(&t.id));
    }
}

/// Everything is of 1.28.
fn move_to_minor(s: &mut Snapshot) {
    let image = aws::published_image_id(FROM, IMAGE_KIND);
    let i = &mut s.inventory;
    (i.cluster.version, i.server_version) = (FROM, Some(FROM));
    for group in &mut i.nodegroups {
        (group.version, group.release_version) = (Some(FROM), Some("1.28.15-20250620".to_owned()));
    }
    for insight in &mut i.insights {
        insight.kubernetes_version = Some(FROM.next());
        insight.name = insight.name.replace("v1.28", "v1.29");
        insight.description = insight.description.replace("v1.28", "v1.29");
    }
    for addon in i.addons.iter_mut().filter(|a| a.name == "kube-proxy") {
        addon.version = AddonVersion::new(KUBE_PROXY.1);
    }
    for instance in &mut i.instances {
        instance.image = Some(image.clone());
    }
    for node in list_mut(s, "/api/v1/nodes") {
        node["status"]["nodeInfo"]["kubeletVersion"] = json!(KUBELET);
        node["status"]["nodeInfo"]["kubeProxyVersion"] = json!(KUBELET);
        node["metadata"]["labels"]["eks.amazonaws.com/nodegroup-image"] = json!(image);
    }
    for path in ["/api/v1/pods", "/apis/apps/v1/daemonsets"] {
        for object in list_mut(s, path) {
            let text = object.to_string().replace(KUBE_PROXY.0, KUBE_PROXY.1);
            if let Ok(changed) = serde_json::from_str(&text) {
                *object = changed;
            }
        }
    }
}

/// The managed group keeps two nodes, for system pods alone.
fn keep_system_group(s: &mut Snapshot) {
    let kept: Vec<String> = s
        .kubernetes
        .get("/api/v1/nodes")
        .into_iter()
        .flatten()
        .take(GENERAL.first)
        .filter_map(|n| {
            text_at(n, "/spec/providerID")
                .rsplit('/')
                .next()
                .map(str::to_owned)
        })
        .collect();
    for asg in s.inventory.asgs.values_mut() {
        asg.instances.retain(|m| kept.contains(&m.id));
        (asg.min, asg.max, asg.desired) = (2, 4, 2);
    }
    for group in &mut s.inventory.nodegroups {
        (group.scaling.min, group.scaling.max, group.scaling.desired) = (2, 4, 2);
        group.taints.push(NodegroupTaint {
            key: SYSTEM_TAINT.to_owned(),
            value: Some("true".to_owned()),
            effect: "NO_SCHEDULE".to_owned(),
        });
    }
    let taint = json!([{"key": SYSTEM_TAINT, "value": "true", "effect": "NoSchedule"}]);
    for node in list_mut(s, "/api/v1/nodes").iter_mut().take(GENERAL.first) {
        node["spec"]["taints"] = taint.clone();
    }
}

/// Karpenter's Deployment in kube-system, one pod on each node of the managed group, made of that of coredns.
pub(super) fn add_controller(s: &mut Snapshot) {
    let affinity = json!({
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "karpenter.sh/nodepool", "operator": "DoesNotExist"}]},
        ]}},
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "karpenter"}}},
        ]},
    });
    let change_spec = |spec: &mut Value| {
        spec["affinity"] = affinity.clone();
        spec["serviceAccountName"] = json!("karpenter");
        spec["containers"][0]["image"] = json!("public.ecr.aws/karpenter/controller:1.6.0");
        spec["containers"][0]["resources"] =
            json!({"requests": {"cpu": "500m", "memory": "512Mi"}});
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("topologySpreadConstraints");
        }
    };
    objects::clone_app(s, "kube-system", "coredns", "karpenter", change_spec);
    let budgets = list_mut(s, "/apis/policy/v1/poddisruptionbudgets");
    let coredns = budgets
        .iter()
        .find(|b| text_at(b, "/metadata/name") == "coredns");
    if let Some(budget) = coredns.map(|b| objects::renamed(b, "coredns", "karpenter")) {
        budgets.push(budget);
    }
}

/// The backend has a pod on each node and no room for a second, so that no node can be spared.
fn resize_workloads(s: &mut Snapshot) {
    let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "backend"}}},
    ]}});
    objects::change_app(s, "expense", "backend", |spec| {
        spec["affinity"] = apart.clone();
        spec["containers"][0]["resources"]["requests"]["cpu"] = json!("700m");
    });
}

/// A Deployment on the nodes of `batch`, made of that of redis.
fn add_batch_workload(s: &mut Snapshot) {
    objects::clone_app(s, "expense", "redis", "batch-worker", |spec| {
        spec["nodeSelector"] = json!({"workload": "batch"});
        let toleration = json!({"key": "dedicated", "operator": "Equal", "value": "batch", "effect": "NoSchedule"});
        match spec["tolerations"].as_array_mut() {
            Some(known) => known.insert(0, toleration),
            None => spec["tolerations"] = json!([toleration]),
        }
    });
}

/// Pods of applications are on Karpenter's nodes, those of the system on the managed group's, each in its zone where it can.
fn move_pods(s: &mut Snapshot) {
    let nodes: Vec<(String, String, String, String)> = list_mut(s, "/api/v1/nodes")
        .iter()
        .map(|n| {
            let text = |pointer: &str| text_at(n, pointer).to_owned();
            (
                text("/metadata/name"),
                text("/metadata/labels/topology.kubernetes.io~1zone"),
                text("/status/addresses/0/address"),
                text("/metadata/labels/karpenter.sh~1nodepool"),
            )
        })
        .collect();
    let zone_of = |node: &str| nodes.iter().find(|n| n.0 == node).map(|n| n.1.clone());
    let mut moved = Vec::new();
    let mut taken: Vec<(String, String)> = Vec::new();
    for pod in list_mut(s, "/api/v1/pods") {
        if text_at(pod, "/metadata/ownerReferences/0/kind") == "DaemonSet" {
            continue;
        }
        let app = text_at(pod, "/metadata/labels/app").to_owned();
        let pool = match (text_at(pod, "/metadata/namespace"), app.as_str()) {
            ("kube-system", _) => "",
            (_, "batch-worker") => BATCH.name,
            _ => GENERAL.name,
        };
        let zone = zone_of(text_at(pod, "/spec/nodeName"));
        let mut homes: Vec<_> = nodes.iter().filter(|n| n.3 == pool).collect();
        // Pods of one application are apart where there are nodes enough; a node of the pod's zone comes first.
        homes.sort_by_key(|n| {
            let there = taken.iter().filter(|t| t.0 == app && t.1 == n.0).count();
            (there, Some(&n.1) != zone.as_ref())
        });
        let Some((node, zone, address, _)) = homes.first() else {
            continue;
        };
        taken.push((app, node.clone()));
        pod["spec"]["nodeName"] = json!(node);
        pod["status"]["hostIP"] = json!(address);
        pod["status"]["hostIPs"] = json!([{"ip": address}]);
        pod["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(zone);
        moved.push((text_at(pod, "/metadata/name").to_owned(), node.clone()));
    }
    let home = |pod: &str| moved.iter().find(|(name, _)| name == pod).map(|(_, n)| n);
    for slice in list_mut(s, "/apis/discovery.k8s.io/v1/endpointslices") {
        let endpoints = slice["endpoints"].as_array_mut();
        for endpoint in endpoints.into_iter().flatten() {
            if let Some(node) = home(text_at(endpoint, "/targetRef/name")) {
                endpoint["nodeName"] = json!(node);
            }
        }
    }
    // The volume follows the database.
    let Some(node) = home("mysql-0").cloned() else {
        return;
    };
    for attachment in list_mut(s, "/apis/storage.k8s.io/v1/volumeattachments") {
        attachment["spec"]["nodeName"] = json!(node);
    }
    let mut volumes = Vec::new();
    for object in list_mut(s, "/api/v1/nodes") {
        if let Some(status) = object["status"].as_object_mut() {
            for member in ["volumesAttached", "volumesInUse"] {
                volumes.extend(status.remove(member).map(|v| (member, v)));
            }
        }
    }
    for object in list_mut(s, "/api/v1/nodes") {
        if text_at(object, "/metadata/name") == node {
            for (member, list) in &volumes {
                object["status"][*member] = list.clone();
            }
        }
    }
}
