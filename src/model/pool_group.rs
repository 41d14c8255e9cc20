//! A NodePool as the steps see a node group, and the objects of a green one. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::aws_status::NodegroupStatus;
use super::eks::{Nodegroup, NodegroupTaint, Scaling};
use super::kube::{Node, Resources};
use super::marks;
use super::node_pool::{
    KarpenterObjects, NODE_POOL_LABEL, NodeClaim, NodeClass, NodePool, pool_hash_annotations,
};
use super::node_source::NodeSource;

/// The API version of Karpenter's objects.
const KARPENTER_API: &str = "karpenter.sh/v1";
/// The API version of AWS's node class.
const CLASS_API: &str = "karpenter.k8s.aws/v1";
/// The label of a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Requirements of a claim that say where it belongs, and not what machine it takes.
const OWN_REQUIREMENTS: [&str; 3] = [NODE_POOL_LABEL, ZONE_LABEL, "kubernetes.io/hostname"];
/// What a NodePool without pinned limits may grow to.
const UNLIMITED: i32 = i32::MAX;

/// The limits of a NodePool that makes no node.
pub fn closed_limits() -> Value {
    json!({"cpu": "0"})
}

/// A NodePool as the steps see a node group.
pub fn pool_to_group(objects: &KarpenterObjects, pool: &NodePool) -> Nodegroup {
    let claims = live_claims(objects, &pool.name).count();
    // Only while the run that made it is not done with it: after that Karpenter makes as many as it wants.
    let made = pool.annotations.contains_key(marks::DRIFT_HELD);
    let wanted = pool.annotations.get(marks::WANTED_NODES).filter(|_| made);
    let wanted = wanted.and_then(|text| text.parse().ok());
    let closed = pool.annotations.contains_key(marks::LIMITS_BEFORE);
    let template = &pool.spec["template"];
    Nodegroup {
        name: pool.name.clone(),
        arn: pool.uid.clone(),
        source: NodeSource::NodePool,
        version: None,
        release_version: None,
        status: if pool.deleting {
            NodegroupStatus::Deleting
        } else {
            NodegroupStatus::Active
        },
        capacity_type: None,
        scaling: Scaling {
            min: 0,
            max: if closed { 0 } else { UNLIMITED },
            // How many a green is to have is written on it; all others have what Karpenter has made.
            desired: wanted.unwrap_or_else(|| i32::try_from(claims).unwrap_or(UNLIMITED)),
        },
        instance_types: Vec::new(),
        subnets: Vec::new(),
        remote_access: None,
        ami_type: None,
        node_role: None,
        labels: text_map(&template["metadata"]["labels"]),
        taints: read_taints(&template["spec"]["taints"]),
        asgs: Vec::new(),
        disk_size: None,
        health: Vec::new(),
        update_config: None,
        node_repair_config: None,
        warm_pool_config: None,
        launch_template: None,
        tags: green_marks(pool),
        created_at: None,
        modified_at: None,
    }
}

/// The marks of a green, under the names that they have as tags in AWS.
fn green_marks(pool: &NodePool) -> BTreeMap<String, String> {
    let marks = [
        (marks::CREATED_BY, marks::RUN_TAG),
        (marks::CLONED_FROM, marks::CLONED_FROM_TAG),
    ];
    let known = marks.into_iter().filter_map(|(annotation, tag)| {
        let value = pool.annotations.get(annotation)?;
        Some((tag.to_owned(), value.clone()))
    });
    known.collect()
}

/// The claims of a NodePool that are not on their way out.
pub fn live_claims<'a>(
    objects: &'a KarpenterObjects,
    pool: &'a str,
) -> impl Iterator<Item = &'a NodeClaim> {
    let claims = objects.claims.iter();
    claims.filter(move |c| c.pool.as_deref() == Some(pool) && !c.deleting)
}

fn text_map(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    let texts = entries.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
    texts.collect()
}

fn read_taints(value: &Value) -> Vec<NodegroupTaint> {
    let taints = value.as_array().into_iter().flatten();
    let read = taints.map(|taint| NodegroupTaint {
        key: taint["key"].as_str().unwrap_or_default().to_owned(),
        value: taint["value"].as_str().map(str::to_owned),
        effect: taint["effect"].as_str().unwrap_or_default().to_owned(),
    });
    read.collect()
}

/// What a green NodePool gets that differs from blue.
#[derive(Clone, Copy, Debug)]
pub struct GreenPool<'a> {
    pub name: &'a str,
    /// The node class; blue's own, or one that was made for it.
    pub class: &'a str,
    /// Blue's budgets without the run's.
    pub budgets: &'a [Value],
    pub run: &'a str,
    /// How many nodes the run makes for it.
    pub nodes: i32,
}

/// A NodePool like `blue`, whose nodes nobody disrupts until the run takes its budget off.
pub fn green_pool_object(blue: &NodePool, green: GreenPool<'_>) -> Value {
    let mut spec = blue.spec.clone();
    spec["template"]["spec"]["nodeClassRef"]["name"] = json!(green.class);
    // Blue may be closed already, where a run is taken up again.
    if let Some(limits) = blue.annotations.get(marks::LIMITS_BEFORE) {
        spec["limits"] = serde_json::from_str(limits).unwrap_or(Value::Null);
    }
    let mut budgets = green.budgets.to_vec();
    budgets.push(json!({"nodes": "0"}));
    spec["disruption"]["budgets"] = json!(budgets);
    let mut annotations = own_annotations(&blue.annotations);
    annotations.extend([
        (marks::CREATED_BY.to_owned(), green.run.to_owned()),
        (marks::CLONED_FROM.to_owned(), blue.name.clone()),
        (marks::DRIFT_HELD.to_owned(), green.run.to_owned()),
        (
            marks::BUDGETS_BEFORE.to_owned(),
            json!(green.budgets).to_string(),
        ),
        (marks::WANTED_NODES.to_owned(), green.nodes.to_string()),
    ]);
    json!({
        "apiVersion": KARPENTER_API,
        "kind": "NodePool",
        "metadata": {"name": green.name, "labels": own_labels(&blue.labels), "annotations": annotations},
        "spec": spec,
    })
}

/// A NodePool, and its node class where a run made it one, as their source would have them: without a run's marks and its
/// budget. None where there is no such NodePool.
pub fn pool_manifests(objects: &KarpenterObjects, name: &str) -> Option<Vec<Value>> {
    let pool = objects.find_pool(name)?;
    let mut spec = pool.spec.clone();
    if pool.annotations.contains_key(marks::DRIFT_HELD) {
        let mut budgets = pool.budgets();
        budgets.pop();
        spec["disruption"]["budgets"] = json!(budgets);
    }
    let classes = objects.classes.iter().flatten();
    let made = |class: &&NodeClass| {
        class.name == pool.node_class().name && class.annotations.contains_key(marks::CREATED_BY)
    };
    let mut own = classes.filter(|_| pool.node_class().kind == "EC2NodeClass");
    let class = own.find(made).map(|class| {
        json!({
            "apiVersion": CLASS_API,
            "kind": "EC2NodeClass",
            "metadata": own_metadata(&class.name, &class.labels, &class.annotations),
            "spec": class.spec,
        })
    });
    let pool = json!({
        "apiVersion": KARPENTER_API,
        "kind": "NodePool",
        "metadata": own_metadata(&pool.name, &pool.labels, &pool.annotations),
        "spec": spec,
    });
    Some(class.into_iter().chain([pool]).collect())
}

fn own_metadata(
    name: &str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Value {
    let mut metadata = json!({"name": name});
    for (key, own) in [
        ("labels", own_labels(labels)),
        ("annotations", own_annotations(annotations)),
    ] {
        if !own.is_empty() {
            metadata[key] = json!(own);
        }
    }
    metadata
}

/// A node class like `class` with another image: an alias, or the id of one.
pub fn green_class_object(class: &NodeClass, name: &str, image: &str, run: &str) -> Value {
    let mut spec = class.spec.clone();
    let term = match image.starts_with("ami-") {
        true => json!({"id": image}),
        false => json!({"alias": image}),
    };
    // An image by its id does not say how it is booted; an alias says it, and takes no family beside it.
    let alias = class.spec["amiSelectorTerms"][0]["alias"].as_str();
    if term.get("id").is_none() {
        spec.as_object_mut().map(|spec| spec.remove("amiFamily"));
    } else if spec.get("amiFamily").is_none()
        && let Some(family) = alias.and_then(family_of_alias)
    {
        spec["amiFamily"] = json!(family);
    }
    spec["amiSelectorTerms"] = json!([term]);
    let mut annotations = own_annotations(&class.annotations);
    annotations.extend([
        (marks::CREATED_BY.to_owned(), run.to_owned()),
        (marks::CLONED_FROM.to_owned(), class.name.clone()),
    ]);
    json!({
        "apiVersion": CLASS_API,
        "kind": "EC2NodeClass",
        "metadata": {"name": name, "labels": own_labels(&class.labels), "annotations": annotations},
        "spec": spec,
    })
}

/// The image family that an alias names.
fn family_of_alias(alias: &str) -> Option<&'static str> {
    match alias.split_once('@')?.0 {
        "al2" => Some("AL2"),
        "al2023" => Some("AL2023"),
        "bottlerocket" => Some("Bottlerocket"),
        "windows2019" => Some("Windows2019"),
        "windows2022" => Some("Windows2022"),
        "windows2025" => Some("Windows2025"),
        _ => None,
    }
}

/// Annotations of a user; not those by which Karpenter, kubectl, a tool or a run knows the object.
fn own_annotations(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    without_prefixes(
        annotations,
        &[
            "karpenter.sh/",
            "karpenter.k8s.aws/",
            "kubectl.kubernetes.io/",
            "argocd.argoproj.io/",
            "meta.helm.sh/",
            "eksup.dev/",
        ],
    )
}

/// Labels of a user; not those by which a tool knows the object as its own.
fn own_labels(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let tools = [
        "argocd.argoproj.io/",
        "app.kubernetes.io/managed-by",
        "helm.sh/",
    ];
    let mut own = without_prefixes(labels, &tools);
    own.retain(|key, _| !key.contains("toolkit.fluxcd.io/"));
    own
}

fn without_prefixes(all: &BTreeMap<String, String>, prefixes: &[&str]) -> BTreeMap<String, String> {
    let kept = all.iter();
    let kept = kept.filter(|(key, _)| !prefixes.iter().any(|prefix| key.starts_with(prefix)));
    kept.map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// What one machine of green is made like.
#[derive(Clone, Copy, Debug)]
pub struct ClaimOrigin<'a> {
    /// Blue's claim, whose choice of machines it takes.
    pub claim: &'a NodeClaim,
    /// The node that the claim became; absent where there is none.
    pub node: Option<&'a Node>,
    /// What the pods on that node ask for.
    pub requests: Resources,
}

/// A claim of `pool` for a machine that can carry what one of blue's carries, in the same zone. It has no mark of the run:
/// Karpenter would copy that to the node, where nobody takes it off.
pub fn claim_object(pool: &NodePool, name: &str, origin: ClaimOrigin<'_>) -> Value {
    let template = &pool.spec["template"];
    let class = pool.node_class();
    let class_label = format!("{}/{}", class.group, class.kind.to_lowercase());
    let own = |requirement: &&Value| {
        let key = requirement["key"].as_str().unwrap_or_default();
        !OWN_REQUIREMENTS.contains(&key) && key != class_label
    };
    let requirements = origin.claim.spec["requirements"].as_array();
    let mut requirements: Vec<Value> = requirements
        .into_iter()
        .flatten()
        .filter(own)
        .cloned()
        .collect();
    // Volumes stay in their zone, and so does a spread over zones.
    if let Some(zone) = origin.node.and_then(Node::zone) {
        requirements.push(json!({"key": ZONE_LABEL, "operator": "In", "values": [zone]}));
    }
    let mut spec = json!({
        "nodeClassRef": template["spec"]["nodeClassRef"],
        "requirements": requirements,
        "resources": {"requests": requests_of(origin)},
    });
    for key in [
        "taints",
        "startupTaints",
        "expireAfter",
        "terminationGracePeriod",
    ] {
        let value = &template["spec"][key];
        if !value.is_null() {
            spec[key] = value.clone();
        }
    }
    let mut labels = text_map(&template["metadata"]["labels"]);
    labels.insert(NODE_POOL_LABEL.to_owned(), pool.name.clone());
    labels.insert(class_label, class.name.to_owned());
    let mut annotations = text_map(&template["metadata"]["annotations"]);
    annotations.extend(pool_hash_annotations(&pool.annotations));
    json!({
        "apiVersion": KARPENTER_API,
        "kind": "NodeClaim",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": KARPENTER_API,
                "kind": "NodePool",
                "name": pool.name,
                "uid": pool.uid,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": spec,
    })
}

/// What the machine must have room for: what runs on blue's now, or what blue's was made for where nothing does.
fn requests_of(origin: ClaimOrigin<'_>) -> Value {
    let Resources {
        cpu_millis,
        memory_bytes,
        pods,
    } = origin.requests;
    if pods == 0 {
        let made_for = &origin.claim.spec["resources"]["requests"];
        return match made_for.is_object() {
            true => made_for.clone(),
            false => json!({}),
        };
    }
    json!({"cpu": format!("{cpu_millis}m"), "memory": memory_bytes.to_string(), "pods": pods.to_string()})
}
