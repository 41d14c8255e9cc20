//! The objects of Karpenter in the bundled scenarios, as its controllers leave them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::grow::{derive_uid, list_mut, text_at};
use crate::model::snapshot::Snapshot;

const POOLS_PATH: &str = "/apis/karpenter.sh/v1/nodepools";
const CLAIMS_PATH: &str = "/apis/karpenter.sh/v1/nodeclaims";
const CLASSES_PATH: &str = "/apis/karpenter.k8s.aws/v1/ec2nodeclasses";
/// When the pools were made.
const STAMP: &str = "2026-11-21T08:16:00Z";
const CLASS: &str = "default";
const CLASS_HASH: &str = "4937212503941842157";
const INSTANCE_TYPE: &str = "t3.large";
const ROLE: &str = "karpenter-node";
const SECURITY_GROUP: &str = "sg-bb076c4f565bce23e";

/// A pool, and which nodes of the grown cluster are its own.
pub struct PoolSketch {
    pub name: &'static str,
    pub first: usize,
    pub nodes: usize,
    pub tainted: bool,
}

impl PoolSketch {
    /// A number of 64 bits for each pool.
    fn hash(&self) -> String {
        let number = u64::from_str_radix(&derive_uid(self.name)[..8], 16).unwrap_or(7);
        (number * 2_654_435_761).to_string()
    }

    fn taints(&self) -> Value {
        json!([{"key": "dedicated", "value": self.name, "effect": "NoSchedule"}])
    }

    fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("workload".to_owned(), self.name.to_owned())])
    }

    fn requirements(&self) -> Value {
        json!([
            {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
            {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
            {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["m5.large", INSTANCE_TYPE]},
        ])
    }

    fn node_spec(&self) -> Value {
        let mut spec = json!({
            "expireAfter": "720h",
            "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": CLASS},
            "requirements": self.requirements(),
        });
        if self.tainted {
            spec["taints"] = self.taints();
        }
        spec
    }
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": STAMP, "observedGeneration": 1})
}

fn conditions(kinds: &[&str]) -> Value {
    let all: Vec<Value> = kinds.iter().map(|kind| condition(kind)).collect();
    json!(all)
}

/// Adds the EC2NodeClass, with the newest Amazon Linux 2023 whatever the version.
pub fn add_class(s: &mut Snapshot, image: &str) {
    let subnets: Vec<Value> = s
        .inventory
        .subnets
        .iter()
        .map(|n| json!({"id": n.id, "zone": n.zone, "zoneID": n.zone_id}))
        .collect();
    let cluster = s.inventory.cluster.name.clone();
    let class = json!({
        "apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass",
        "metadata": {
            "name": CLASS, "uid": derive_uid("class"), "resourceVersion": "601", "generation": 1, "creationTimestamp": STAMP,
            "finalizers": ["karpenter.k8s.aws/termination"],
            "annotations": {"karpenter.k8s.aws/ec2nodeclass-hash": CLASS_HASH, "karpenter.k8s.aws/ec2nodeclass-hash-version": "v6"},
        },
        "spec": {
            "amiSelectorTerms": [{"alias": "al2023@latest"}],
            "role": ROLE,
            "subnetSelectorTerms": [{"tags": {"karpenter.sh/discovery": cluster}}],
            "securityGroupSelectorTerms": [{"id": SECURITY_GROUP}],
            "metadataOptions": {"httpEndpoint": "enabled", "httpProtocolIPv6": "disabled", "httpPutResponseHopLimit": 1, "httpTokens": "required"},
            "tags": {"environment": "dev"},
        },
        "status": {
            "amis": [{"id": image, "name": "amazon-eks-node-al2023-x86_64-standard-1.28-v20261105", "requirements": [
                {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
                {"key": "karpenter.k8s.aws/instance-accelerator-count", "operator": "DoesNotExist"},
                {"key": "karpenter.k8s.aws/instance-gpu-count", "operator": "DoesNotExist"},
            ]}],
            "subnets": subnets,
            "securityGroups": [{"id": SECURITY_GROUP}],
            "instanceProfile": format!("{cluster}_{ROLE}"),
            "conditions": conditions(&["AMIsReady", "SubnetsReady", "SecurityGroupsReady", "InstanceProfileReady", "ValidationSucceeded", "Ready"]),
        },
    });
    list_mut(s, CLASSES_PATH).push(class);
}

/// Adds a pool, and makes the nodes that are to be its own those of node claims.
pub fn add_pool(s: &mut Snapshot, pool: &PoolSketch, cluster: &str, image: &str) {
    let uid = derive_uid(&format!("{cluster} {}", pool.name));
    let nodes = pool.nodes as i64;
    let object = json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool",
        "metadata": {
            "name": pool.name, "uid": uid, "resourceVersion": "602", "generation": 1, "creationTimestamp": STAMP,
            "annotations": {"karpenter.sh/nodepool-hash": pool.hash(), "karpenter.sh/nodepool-hash-version": "v3"},
        },
        "spec": {
            "disruption": {"budgets": [{"nodes": "10%"}], "consolidateAfter": "1m", "consolidationPolicy": "WhenEmptyOrUnderutilized"},
            "limits": {"cpu": "40"},
            "template": {"metadata": {"labels": pool.labels()}, "spec": pool.node_spec()},
        },
        "status": {
            "nodes": nodes, "nodeClassObservedGeneration": 1,
            "resources": {
                "cpu": (nodes * 2).to_string(), "memory": format!("{}Ki", nodes * 7992 * 1024), "pods": (nodes * 35).to_string(),
                "ephemeral-storage": format!("{}Gi", nodes * 20), "nodes": nodes.to_string(),
            },
            "conditions": conditions(&["ValidationSucceeded", "NodeClassReady", "NodeRegistrationHealthy", "Ready"]),
        },
    });
    list_mut(s, POOLS_PATH).push(object);
    let mut claims = Vec::new();
    let mut instances = Vec::new();
    let names = ["8kq2x", "c7mzt", "rw5vd"];
    let own = list_mut(s, "/api/v1/nodes").iter_mut();
    for (node, suffix) in own.skip(pool.first).take(pool.nodes).zip(names) {
        let name = format!("{}-{suffix}", pool.name);
        let claim = claim_of(node, pool, &name, &uid, image);
        own_node(node, pool, &claim);
        let instance = text_at(node, "/spec/providerID").rsplit('/').next();
        instances.push((
            instance.unwrap_or_default().to_owned(),
            name,
            text_at(node, "/metadata/name").to_owned(),
        ));
        claims.push(claim);
    }
    list_mut(s, CLAIMS_PATH).extend(claims);
    let found = s.inventory.instances.iter_mut();
    for instance in found {
        let Some((_, claim, node)) = instances.iter().find(|(id, ..)| *id == instance.id) else {
            continue;
        };
        instance.tags = [
            ("Name", node.as_str()),
            ("environment", "dev"),
            ("eks:eks-cluster-name", cluster),
            ("karpenter.k8s.aws/ec2nodeclass", CLASS),
            ("karpenter.sh/nodeclaim", claim),
            ("karpenter.sh/nodepool", pool.name),
            (&format!("kubernetes.io/cluster/{cluster}"), "owned"),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    }
}

/// The node claim behind a node.
fn claim_of(node: &Value, pool: &PoolSketch, name: &str, pool_uid: &str, image: &str) -> Value {
    let label = |key: &str| node["metadata"]["labels"][key].clone();
    let mut labels = json!(pool.labels());
    for (key, value) in [
        ("karpenter.sh/nodepool", json!(pool.name)),
        ("karpenter.k8s.aws/ec2nodeclass", json!(CLASS)),
        ("karpenter.sh/capacity-type", json!("on-demand")),
        ("karpenter.k8s.aws/instance-category", json!("t")),
        ("karpenter.k8s.aws/instance-cpu", json!("2")),
        (
            "karpenter.k8s.aws/instance-cpu-manufacturer",
            json!("intel"),
        ),
        ("karpenter.k8s.aws/instance-family", json!("t3")),
        ("karpenter.k8s.aws/instance-generation", json!("3")),
        ("karpenter.k8s.aws/instance-hypervisor", json!("nitro")),
        ("karpenter.k8s.aws/instance-memory", json!("8192")),
        ("karpenter.k8s.aws/instance-size", json!("large")),
        ("karpenter.k8s.aws/instance-tenancy", json!("default")),
        ("kubernetes.io/arch", json!("amd64")),
        ("kubernetes.io/os", json!("linux")),
        ("node.kubernetes.io/instance-type", json!(INSTANCE_TYPE)),
        (
            "topology.k8s.aws/zone-id",
            label("topology.k8s.aws/zone-id"),
        ),
        ("topology.kubernetes.io/region", json!("us-east-1")),
        (
            "topology.kubernetes.io/zone",
            label("topology.kubernetes.io/zone"),
        ),
    ] {
        labels[key] = value;
    }
    let mut spec = pool.node_spec();
    spec["resources"] = json!({"requests": {"cpu": "900m", "memory": "768Mi", "pods": "2"}});
    json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
        "metadata": {
            "name": name, "generateName": format!("{}-", pool.name), "uid": derive_uid(&format!("claim {name}")),
            "resourceVersion": "603", "generation": 1, "creationTimestamp": STAMP,
            "finalizers": ["karpenter.sh/termination"], "labels": labels,
            "annotations": {
                "karpenter.k8s.aws/ec2nodeclass-hash": CLASS_HASH, "karpenter.k8s.aws/ec2nodeclass-hash-version": "v6",
                "karpenter.k8s.aws/tagged": "true", "karpenter.sh/nodeclaim-min-values-relaxed": "false",
                "karpenter.sh/nodepool-hash": pool.hash(), "karpenter.sh/nodepool-hash-version": "v3",
            },
            "ownerReferences": [{
                "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "name": pool.name, "uid": pool_uid, "blockOwnerDeletion": true,
            }],
        },
        "spec": spec,
        "status": {
            "nodeName": node["metadata"]["name"], "providerID": node["spec"]["providerID"], "imageID": image,
            "capacity": {"cpu": "2", "memory": "7992Mi", "pods": "35", "ephemeral-storage": "20Gi"},
            "allocatable": {"cpu": "1930m", "memory": "7292Mi", "pods": "35", "ephemeral-storage": "17Gi"},
            "lastPodEventTime": STAMP,
            "conditions": conditions(&["Launched", "ConsistentStateFound", "Registered", "Initialized", "Consolidatable", "Ready"]),
        },
    })
}

/// A node of a node claim: nothing of EKS's node groups is on it.
fn own_node(node: &mut Value, pool: &PoolSketch, claim: &Value) {
    if let Some(labels) = node["metadata"]["labels"].as_object_mut() {
        labels.retain(|key, _| {
            !key.contains("eks.amazonaws.com/") && !key.contains("eksctl.io/") && key != "colour"
        });
        for (key, value) in claim["metadata"]["labels"]
            .as_object()
            .into_iter()
            .flatten()
        {
            labels.insert(key.clone(), value.clone());
        }
        labels.insert("karpenter.sh/registered".to_owned(), json!("true"));
        labels.insert("karpenter.sh/initialized".to_owned(), json!("true"));
    }
    for (key, value) in claim["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
    {
        node["metadata"]["annotations"][key] = value.clone();
    }
    node["metadata"]["finalizers"] = json!(["karpenter.sh/termination"]);
    node["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": claim["metadata"]["name"],
        "uid": claim["metadata"]["uid"], "blockOwnerDeletion": true,
    }]);
    if pool.tainted {
        node["spec"]["taints"] = pool.taints();
    }
}

/// The lists in which an application's objects are.
const APP_PATHS: &[&str] = &[
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/replicasets",
    "/api/v1/pods",
];

fn is_of(object: &Value, ns: &str, app: &str) -> bool {
    text_at(object, "/metadata/namespace") == ns && text_at(object, "/metadata/labels/app") == app
}

/// A copy of an object under the name of another application, with identifiers of its own.
pub fn renamed(object: &Value, from: &str, to: &str) -> Value {
    let text = object.to_string().replace(from, to);
    let mut copy: Value = serde_json::from_str(&text).unwrap_or_else(|_| object.clone());
    copy["metadata"]["uid"] = json!(derive_uid(&format!(
        "{to} {}",
        text_at(object, "/metadata/uid")
    )));
    copy
}

/// Adds a copy of a Deployment with its ReplicaSet and its pods; `change` is made to each pod spec.
pub fn clone_app(s: &mut Snapshot, ns: &str, from: &str, to: &str, change: impl Fn(&mut Value)) {
    for path in APP_PATHS {
        let copies: Vec<Value> = list_mut(s, path)
            .iter()
            .filter(|o| is_of(o, ns, from))
            .map(|o| renamed(o, from, to))
            .collect();
        list_mut(s, path).extend(copies);
    }
    // The owners' identifiers are those of the copies.
    let mut owners = BTreeMap::new();
    for path in &APP_PATHS[..2] {
        for object in list_mut(s, path).iter().filter(|o| is_of(o, ns, to)) {
            let name = text_at(object, "/metadata/name").to_owned();
            owners.insert(name, text_at(object, "/metadata/uid").to_owned());
        }
    }
    for path in APP_PATHS {
        for object in list_mut(s, path).iter_mut().filter(|o| is_of(o, ns, to)) {
            let owner = text_at(object, "/metadata/ownerReferences/0/name").to_owned();
            if let Some(uid) = owners.get(&owner) {
                object["metadata"]["ownerReferences"][0]["uid"] = json!(uid);
            }
        }
    }
    change_app(s, ns, to, change);
}

/// Changes the pod specs of an application: its templates' and its pods'.
pub fn change_app(s: &mut Snapshot, ns: &str, app: &str, change: impl Fn(&mut Value)) {
    for path in APP_PATHS {
        for object in list_mut(s, path).iter_mut().filter(|o| is_of(o, ns, app)) {
            match object["spec"].get("template").is_some() {
                true => change(&mut object["spec"]["template"]["spec"]),
                false => change(&mut object["spec"]),
            }
        }
    }
}
