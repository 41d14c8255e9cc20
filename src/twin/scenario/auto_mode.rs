//! A cluster of EKS Auto Mode: no node group and no add-on, all nodes of the two built-in NodePools.

use serde_json::{Value, json};

use super::grow::{copy_node, derive_uid, list_mut, text_at};
use super::running::{PodOwner, PodPlace, RunningWorkload, add_workload};
use super::{variants, versions};
use crate::model::Minor;
use crate::model::snapshot::Snapshot;
use crate::twin::aws;

const CLUSTER: &str = "auto-mode";
const MINOR: u16 = 30;
const KUBELET: &str = "v1.30.14-eks-3c60543";
const STAMP: &str = "2026-11-21T08:16:00Z";
const SYSTEM_TAINT: &str = "CriticalAddonsOnly";

/// A built-in pool, and which nodes of the grown cluster are its own.
struct BuiltInPool {
    name: &'static str,
    first: usize,
    nodes: usize,
    instance_type: &'static str,
    arch: &'static str,
    image_kind: &'static str,
}

const GENERAL: BuiltInPool = BuiltInPool {
    name: "general-purpose",
    first: 0,
    nodes: 3,
    instance_type: "m5a.large",
    arch: "amd64",
    image_kind: "BOTTLEROCKET_x86_64",
};
const SYSTEM: BuiltInPool = BuiltInPool {
    name: "system",
    first: 3,
    nodes: 2,
    instance_type: "c6g.large",
    arch: "arm64",
    image_kind: "BOTTLEROCKET_ARM_64",
};

impl BuiltInPool {
    fn is_system(&self) -> bool {
        self.name == SYSTEM.name
    }

    fn hash(&self) -> String {
        let number = u64::from_str_radix(&derive_uid(self.name)[..8], 16).unwrap_or(7);
        (number * 2_654_435_761).to_string()
    }

    fn image(&self) -> String {
        aws::published_image_id(Minor::new(MINOR), self.image_kind)
    }

    /// The spec of its nodes, as AWS made it (AUTO-1).
    fn node_spec(&self) -> Value {
        let archs = match self.is_system() {
            true => json!(["amd64", "arm64"]),
            false => json!(["amd64"]),
        };
        let mut spec = json!({
            "expireAfter": "336h", "terminationGracePeriod": "24h0m0s",
            "nodeClassRef": {"group": "eks.amazonaws.com", "kind": "NodeClass", "name": "default"},
            "requirements": [
                {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                {"key": "eks.amazonaws.com/instance-category", "operator": "In", "values": ["c", "m", "r"]},
                {"key": "eks.amazonaws.com/instance-generation", "operator": "Gt", "values": ["4"]},
                {"key": "kubernetes.io/arch", "operator": "In", "values": archs},
                {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
            ],
        });
        if self.is_system() {
            spec["taints"] = json!([{"key": SYSTEM_TAINT, "effect": "NoSchedule"}]);
        }
        spec
    }

    /// The labels of its claims and nodes.
    fn labels(&self, zone: &str, zone_id: &str) -> Value {
        let (family, size) = self.instance_type.split_once('.').unwrap_or_default();
        let memory = if self.is_system() { "4096" } else { "8192" };
        let made_by = if self.is_system() { "aws" } else { "amd" };
        let generation: String = family.chars().filter(char::is_ascii_digit).collect();
        json!({
            "karpenter.sh/nodepool": self.name, "karpenter.sh/capacity-type": "on-demand",
            "eks.amazonaws.com/nodeclass": "default", "eks.amazonaws.com/compute-type": "auto",
            "eks.amazonaws.com/instance-category": &family[..1], "eks.amazonaws.com/instance-cpu": "2",
            "eks.amazonaws.com/instance-cpu-manufacturer": made_by, "eks.amazonaws.com/instance-family": family,
            "eks.amazonaws.com/instance-generation": generation, "eks.amazonaws.com/instance-hypervisor": "nitro",
            "eks.amazonaws.com/instance-memory": memory, "eks.amazonaws.com/instance-size": size,
            "eks.amazonaws.com/instance-tenancy": "default", "app.kubernetes.io/managed-by": "eks",
            "kubernetes.io/arch": self.arch, "kubernetes.io/os": "linux",
            "node.kubernetes.io/instance-type": self.instance_type,
            "topology.k8s.aws/zone-id": zone_id, "topology.kubernetes.io/region": "us-east-1",
            "topology.kubernetes.io/zone": zone,
        })
    }
}

/// Everything on Auto Mode's nodes.
pub fn auto_mode() -> Snapshot {
    let mut s = variants::rename_cluster(CLUSTER);
    let originals = list_mut(&mut s, "/api/v1/nodes").clone();
    for n in 0..SYSTEM.nodes {
        copy_node(&mut s, &originals[n], originals.len() + n);
    }
    remove_groups(&mut s);
    versions::move_to_minor(&mut s, MINOR);
    s = variants::rename_instances(s, CLUSTER);
    s.inventory.cluster.auto_mode = true;
    add_class(&mut s);
    for pool in [&GENERAL, &SYSTEM] {
        add_pool(&mut s, pool);
    }
    add_workloads(&mut s);
    s
}

/// Nothing of node groups, add-ons and load balancers is left, nor of what ran there.
fn remove_groups(s: &mut Snapshot) {
    let i = &mut s.inventory;
    (i.nodegroups, i.addons, i.launch_templates) = (Vec::new(), Vec::new(), Vec::new());
    i.asgs.clear();
    (i.load_balancers, i.listeners, i.rules, i.target_groups) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    i.target_health.clear();
    for (path, objects) in &mut s.kubernetes {
        let kept = |o: &Value| match path.as_str() {
            "/api/v1/namespaces" => text_at(o, "/metadata/name") != "expense",
            "/api/v1/services" => text_at(o, "/metadata/name") == "kubernetes",
            "/api/v1/nodes"
            | "/apis/storage.k8s.io/v1/storageclasses"
            | "/apis/scheduling.k8s.io/v1/priorityclasses" => true,
            _ => false,
        };
        objects.retain(kept);
    }
}

fn conditions(kinds: &[&str]) -> Value {
    let of = |kind: &&str| json!({"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": STAMP, "observedGeneration": 1});
    Value::Array(kinds.iter().map(of).collect())
}

fn add_class(s: &mut Snapshot) {
    let subnets: Vec<Value> = s
        .inventory
        .subnets
        .iter()
        .map(|n| json!({"id": n.id, "zone": n.zone, "zoneID": n.zone_id}))
        .collect();
    let group =
        json!([{"id": "sg-bb076c4f565bce23e", "name": format!("eks-cluster-sg-{CLUSTER}")}]);
    let ids: Vec<Value> = subnets.iter().map(|n| json!({"id": n["id"]})).collect();
    list_mut(s, "/apis/eks.amazonaws.com/v1/nodeclasses").push(json!({
        "apiVersion": "eks.amazonaws.com/v1", "kind": "NodeClass",
        "metadata": {
            "name": "default", "uid": derive_uid("auto class"), "resourceVersion": "601", "generation": 1,
            "creationTimestamp": STAMP, "finalizers": ["eks.amazonaws.com/termination"],
            "labels": {"app.kubernetes.io/managed-by": "eks"},
        },
        "spec": {
            "role": "AmazonEKSAutoNodeRole", "subnetSelectorTerms": ids,
            "securityGroupSelectorTerms": [{"id": "sg-bb076c4f565bce23e"}],
            "ephemeralStorage": {"size": "80Gi", "iops": 3000, "throughput": 125},
            "networkPolicy": "DefaultAllow", "networkPolicyEventLogs": "Disabled", "snatPolicy": "Random",
        },
        "status": {
            "subnets": subnets, "securityGroups": group,
            "instanceProfile": format!("eks-us-east-1-{CLUSTER}-4067990795380418201"),
            "conditions": conditions(&["SubnetsReady", "SecurityGroupsReady", "InstanceProfileReady", "ValidationSucceeded", "Ready"]),
        },
    }));
}

fn add_pool(s: &mut Snapshot, pool: &BuiltInPool) {
    let uid = derive_uid(&format!("auto pool {}", pool.name));
    let nodes = pool.nodes;
    list_mut(s, "/apis/karpenter.sh/v1/nodepools").push(json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool",
        "metadata": {
            "name": pool.name, "uid": uid, "resourceVersion": "602", "generation": 1, "creationTimestamp": STAMP,
            "labels": {"app.kubernetes.io/managed-by": "eks"},
            "annotations": {"karpenter.sh/nodepool-hash": pool.hash(), "karpenter.sh/nodepool-hash-version": "v3"},
        },
        "spec": {
            "disruption": {"budgets": [{"nodes": "10%"}], "consolidateAfter": "30s", "consolidationPolicy": "WhenEmptyOrUnderutilized"},
            "template": {"metadata": {}, "spec": pool.node_spec()},
        },
        "status": {
            "nodes": nodes,
            "resources": {
                "cpu": (nodes * 2).to_string(), "memory": format!("{}Mi", nodes * 7577), "pods": (nodes * 29).to_string(),
                "ephemeral-storage": format!("{}Gi", nodes * 80), "nodes": nodes.to_string(),
            },
            "conditions": conditions(&["ValidationSucceeded", "NodeClassReady", "NodeRegistrationHealthy", "Ready"]),
        },
    }));
    let mut made = Vec::new();
    for node in list_mut(s, "/api/v1/nodes").iter_mut().skip(pool.first) {
        if made.len() == nodes {
            break;
        }
        let suffix = &derive_uid(text_at(node, "/spec/providerID"))[..5];
        let claim = claim_object(node, pool, &format!("{}-{suffix}", pool.name), &uid);
        own_node(node, pool, &claim);
        made.push(claim);
    }
    for instance in &mut s.inventory.instances {
        let id = format!("/{}", instance.id);
        let of = |c: &&Value| text_at(c, "/status/providerID").ends_with(&id);
        let Some(claim) = made.iter().find(of) else {
            continue;
        };
        instance.instance_type = pool.instance_type.to_owned();
        instance.image = Some(pool.image());
        instance.tags = [
            ("aws:eks:cluster-name", CLUSTER),
            ("eks:eks-cluster-name", CLUSTER),
            ("eks:kubernetes-node-class-name", "default"),
            ("eks:kubernetes-node-pool-name", pool.name),
            ("karpenter.sh/nodeclaim", text_at(claim, "/metadata/name")),
            ("karpenter.sh/nodepool", pool.name),
            (&format!("kubernetes.io/cluster/{CLUSTER}"), "owned"),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    }
    list_mut(s, "/apis/karpenter.sh/v1/nodeclaims").extend(made);
}

fn claim_object(node: &Value, pool: &BuiltInPool, name: &str, pool_uid: &str) -> Value {
    let label = |key: &str| node["metadata"]["labels"][key].as_str().unwrap_or_default();
    let mut labels = pool.labels(
        label("topology.kubernetes.io/zone"),
        label("topology.k8s.aws/zone-id"),
    );
    if let Some(labels) = labels.as_object_mut() {
        labels.remove("app.kubernetes.io/managed-by");
    }
    let mut spec = pool.node_spec();
    spec["resources"] = json!({"requests": {"cpu": "900m", "memory": "3500Mi", "pods": "2"}});
    let instance = text_at(node, "/spec/providerID").rsplit('/').next();
    json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
        "metadata": {
            "name": name, "generateName": format!("{}-", pool.name), "uid": derive_uid(&format!("claim {name}")),
            "resourceVersion": "603", "generation": 1, "creationTimestamp": STAMP,
            "finalizers": ["karpenter.sh/termination"], "labels": labels,
            "annotations": {
                "eks.amazonaws.com/nodeclass-hash": "17462135098147631212", "eks.amazonaws.com/nodeclass-hash-version": "v1",
                "karpenter.sh/nodepool-hash": pool.hash(), "karpenter.sh/nodepool-hash-version": "v3",
            },
            "ownerReferences": [{
                "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "name": pool.name, "uid": pool_uid, "blockOwnerDeletion": true,
            }],
        },
        "spec": spec,
        "status": {
            "nodeName": instance, "providerID": node["spec"]["providerID"], "imageID": pool.image(),
            "capacity": {"cpu": "2", "memory": "7577Mi", "pods": "29", "ephemeral-storage": "80Gi"},
            "allocatable": {"cpu": "1930m", "memory": "6903Mi", "pods": "29", "ephemeral-storage": "70Gi"},
            "lastPodEventTime": STAMP,
            "conditions": conditions(&["Launched", "Registered", "Initialized", "Consolidatable", "Ready"]),
        },
    })
}

/// A node of Auto Mode: named after its instance, with nothing of node groups.
fn own_node(node: &mut Value, pool: &BuiltInPool, claim: &Value) {
    let name = claim["status"]["nodeName"].clone();
    let mut labels = pool.labels(
        text_at(node, "/metadata/labels/topology.kubernetes.io~1zone"),
        text_at(node, "/metadata/labels/topology.k8s.aws~1zone-id"),
    );
    for (key, value) in [
        ("kubernetes.io/hostname", name.clone()),
        ("karpenter.sh/registered", json!("true")),
        ("karpenter.sh/initialized", json!("true")),
        ("beta.kubernetes.io/arch", json!(pool.arch)),
        ("beta.kubernetes.io/os", json!("linux")),
        (
            "beta.kubernetes.io/instance-type",
            json!(pool.instance_type),
        ),
    ] {
        labels[key] = value;
    }
    let metadata = &mut node["metadata"];
    metadata["name"] = name.clone();
    metadata["labels"] = labels;
    for (key, value) in claim["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
    {
        metadata["annotations"][key] = value.clone();
    }
    metadata["finalizers"] = json!(["karpenter.sh/termination"]);
    metadata["ownerReferences"] = json!([{
        "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": claim["metadata"]["name"],
        "uid": claim["metadata"]["uid"], "blockOwnerDeletion": true,
    }]);
    if pool.is_system() {
        node["spec"]["taints"] = pool.node_spec()["taints"].clone();
    }
    let status = &mut node["status"];
    if let Some(status) = status.as_object_mut() {
        status.remove("volumesAttached");
        status.remove("volumesInUse");
    }
    let address = status["addresses"][0].clone();
    status["addresses"] = json!([address, {"type": "InternalDNS", "address": name}, {"type": "Hostname", "address": name}]);
    let memory = if pool.is_system() { "3114Mi" } else { "6903Mi" };
    status["allocatable"]["memory"] = json!(memory);
    status["allocatable"]["pods"] = json!("29");
    status["capacity"]["pods"] = json!("29");
    let info = &mut status["nodeInfo"];
    for (field, value) in [
        ("architecture", pool.arch),
        ("kubeletVersion", KUBELET),
        ("kubeProxyVersion", KUBELET),
        (
            "osImage",
            "Bottlerocket (EKS Auto, Standard) 2026.11.5 (aws-k8s-1.30-standard)",
        ),
    ] {
        info[field] = json!(value);
    }
}

/// The shop on the general nodes, a pod of `web` on each, and what the system needs on those that are tainted.
fn add_workloads(s: &mut Snapshot) {
    let nodes: Vec<(String, String, String)> = list_mut(s, "/api/v1/nodes")
        .iter()
        .map(|n| {
            (
                text_at(n, "/metadata/name").to_owned(),
                text_at(n, "/status/addresses/0/address").to_owned(),
                text_at(n, "/metadata/labels/topology.kubernetes.io~1zone").to_owned(),
            )
        })
        .collect();
    let apart = |app: &str| {
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}},
        ]}})
    };
    let plain = |name: &'static str| RunningWorkload {
        namespace: "shop",
        name,
        owner: PodOwner::Deployment,
        budget: None,
        served: false,
        spec: json!({}),
        requests: ("100m", "256Mi"),
        tag: "1.4",
    };
    let workloads = [
        (
            GENERAL.first,
            3,
            RunningWorkload {
                budget: Some(("maxUnavailable", 1)),
                served: true,
                spec: json!({"affinity": apart("web")}),
                requests: ("900m", "3500Mi"),
                ..plain("web")
            },
        ),
        (
            GENERAL.first,
            2,
            RunningWorkload {
                budget: Some(("minAvailable", 1)),
                served: true,
                ..plain("cart")
            },
        ),
        (GENERAL.first + 2, 1, plain("mailer")),
        (
            GENERAL.first + 1,
            2,
            RunningWorkload {
                owner: PodOwner::StatefulSet,
                budget: Some(("maxUnavailable", 1)),
                served: true,
                ..plain("queue")
            },
        ),
        (
            SYSTEM.first,
            2,
            RunningWorkload {
                namespace: "kube-system",
                budget: Some(("maxUnavailable", 1)),
                served: true,
                spec: json!({
                    "affinity": apart("metrics-server"),
                    "nodeSelector": {"karpenter.sh/nodepool": SYSTEM.name},
                    "tolerations": [{"key": SYSTEM_TAINT, "operator": "Exists"}],
                }),
                ..plain("metrics-server")
            },
        ),
    ];
    let mut number = 0;
    for (first, pods, workload) in workloads {
        let places: Vec<PodPlace> = (0..pods)
            .map(|n| {
                let (node, address, zone) = nodes[first + n].clone();
                number += 1;
                PodPlace {
                    node,
                    node_ip: address,
                    pod_ip: format!("100.64.8.{number}"),
                    zone,
                }
            })
            .collect();
        add_workload(s, &workload, &places, |_| {});
    }
}
