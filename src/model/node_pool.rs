//! Karpenter's objects, cut down to what decisions need: NodePools, NodeClaims, and the node classes they name. EKS Auto
//! Mode has the same objects with a node class of its own.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Minor;
use super::kube::Node;

/// The label by which a node says its NodePool.
pub const NODE_POOL_LABEL: &str = "karpenter.sh/nodepool";
/// The taint of a node that Karpenter is replacing.
pub const DISRUPTED_TAINT: &str = "karpenter.sh/disrupted";
/// The annotation, of pods and nodes, that keeps a node from being replaced.
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";
/// The API group of the node class of EKS Auto Mode.
const AUTO_MODE_GROUP: &str = "eks.amazonaws.com";

/// What Karpenter has in a cluster; empty where it is not installed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KarpenterObjects {
    pub pools: Vec<NodePool>,
    pub claims: Vec<NodeClaim>,
    /// Those of the group `karpenter.k8s.aws`; none where they could not be read.
    pub classes: Option<Vec<NodeClass>>,
}

/// A NodePool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePool {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub deleting: bool,
    /// As the API server has it.
    pub spec: Value,
    /// What its condition Ready says; none where it has none.
    pub ready: Option<ConditionState>,
}

/// A condition of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionState {
    /// True, False or Unknown.
    pub status: String,
    #[serde(default)]
    pub reason: String,
    pub message: String,
}

/// A NodeClaim: a machine that Karpenter has asked for, and the node that it became.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeClaim {
    pub name: String,
    pub uid: String,
    pub pool: Option<String>,
    /// Absent until it has registered.
    pub node: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub deleting: bool,
    pub spec: Value,
    /// By type, such as Launched, Registered, Initialized and Drifted.
    pub conditions: BTreeMap<String, ConditionState>,
}

/// A node class of AWS: EC2NodeClass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeClass {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub deleting: bool,
    pub spec: Value,
    /// What its condition Ready says of the object as it is now; none where Karpenter has not judged that yet.
    pub ready: Option<ConditionState>,
    /// Names of the images that it selects now.
    #[serde(default)]
    pub images: Vec<String>,
}

/// Which node class a NodePool takes its machines from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeClassRef<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
}

impl KarpenterObjects {
    /// The NodePool of that name.
    pub fn find_pool(&self, name: &str) -> Option<&NodePool> {
        self.pools.iter().find(|p| p.name == name)
    }

    /// The node class of a NodePool, where it was read and is AWS's.
    pub fn class_of(&self, pool: &NodePool) -> Option<&NodeClass> {
        let wanted = pool.node_class();
        let classes = self.classes.as_ref()?;
        classes
            .iter()
            .find(|c| wanted.kind == "EC2NodeClass" && c.name == wanted.name)
    }
}

impl NodePool {
    /// The node class that its nodes are made of.
    pub fn node_class(&self) -> NodeClassRef<'_> {
        let of = &self.spec["template"]["spec"]["nodeClassRef"];
        let text = |key: &str| of[key].as_str().unwrap_or_default();
        NodeClassRef {
            group: text("group"),
            kind: text("kind"),
            name: text("name"),
        }
    }

    /// Whether EKS runs it, in Auto Mode.
    pub fn is_auto_mode(&self) -> bool {
        self.node_class().group == AUTO_MODE_GROUP
    }

    /// How many of its nodes may be disrupted at once, and for which reasons, as the API server has them.
    pub fn budgets(&self) -> Vec<Value> {
        let budgets = self.spec["disruption"]["budgets"].as_array();
        budgets.cloned().unwrap_or_default()
    }

    /// The tool that keeps the NodePool as its source has it, and would take a change back.
    pub fn owning_tool(&self) -> Option<&'static str> {
        find_owning_tool(&self.labels, &self.annotations)
    }
}

impl NodeClaim {
    /// Whether the condition of this type is True.
    pub fn has_condition(&self, kind: &str) -> bool {
        self.conditions
            .get(kind)
            .is_some_and(|c| c.status == "True")
    }
}

impl NodeClass {
    /// Whether images that it selects name another version than `minor`: it has not looked again since the control plane
    /// moved. Names without a version say nothing.
    pub fn selects_other_version(&self, minor: Minor) -> bool {
        self.selected_versions().any(|seen| seen != minor)
    }

    /// Whether images that it selects name a newer version than `minor`: its nodes would be newer than such a control plane.
    pub fn selects_newer_version(&self, minor: Minor) -> bool {
        self.selected_versions().any(|seen| seen > minor)
    }

    fn selected_versions(&self) -> impl Iterator<Item = Minor> {
        let of = |name: &String| {
            let mut words = name.split(['-', '_', '/']);
            words.find_map(|word| word.parse::<Minor>().ok().filter(|_| word.contains('.')))
        };
        self.images.iter().filter_map(of)
    }

    /// Whether every term of its `amiSelectorTerms` names an image by its id, so that no new version changes it.
    pub fn names_images_by_id(&self) -> bool {
        let terms = self.spec["amiSelectorTerms"].as_array();
        terms.is_some_and(|terms| {
            !terms.is_empty() && terms.iter().all(|term| term.get("id").is_some())
        })
    }
}

impl ConditionState {
    /// What a condition that should be True says where it is False. Unknown is for moments: every change of a NodePool
    /// makes its Ready so (KARP-5).
    pub fn trouble(&self) -> Option<&str> {
        (self.status == "False").then_some(self.message.as_str())
    }

    /// Why a machine could not be launched: Karpenter leaves the condition Unknown then (KARP-6).
    pub fn launch_failure(&self) -> Option<&str> {
        let failed = self.status != "True" && self.reason == "LaunchFailed";
        (failed || self.status == "False").then_some(self.message.as_str())
    }
}

/// How long a pod asks not to be disrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisruptionStay {
    /// As long as it runs.
    Always,
    /// From its start on.
    For(SignedDuration),
}

/// What the annotation of a pod asks for; Karpenter heeds no value but `true` and a duration (KARP-21).
pub fn pod_stay(annotations: &BTreeMap<String, String>) -> Option<DisruptionStay> {
    let value = annotations.get(DO_NOT_DISRUPT)?;
    if value == "true" {
        return Some(DisruptionStay::Always);
    }
    let duration: SignedDuration = value.parse().ok()?;
    duration
        .is_positive()
        .then_some(DisruptionStay::For(duration))
}

/// Whether the annotation of a node keeps it: no value but `true` does (KARP-21).
pub fn is_node_kept(annotations: &BTreeMap<String, String>) -> bool {
    annotations
        .get(DO_NOT_DISRUPT)
        .is_some_and(|value| value == "true")
}

/// The NodePool of a node; none where Karpenter did not make it.
pub fn pool_of(node: &Node) -> Option<&str> {
    node.labels.get(NODE_POOL_LABEL).map(String::as_str)
}

/// What a claim says of the NodePool that it was made from, so that Karpenter sees when that changes.
pub fn pool_hash_annotations(
    annotations: &BTreeMap<String, String>,
) -> impl Iterator<Item = (String, String)> {
    let hashes = annotations.iter();
    let hashes = hashes.filter(|(key, _)| key.starts_with("karpenter.sh/nodepool-hash"));
    hashes.map(|(k, v)| (k.clone(), v.clone()))
}

/// The tool that keeps an object as Git or a chart has it, by the marks that it leaves.
fn find_owning_tool(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Option<&'static str> {
    let argo = annotations.contains_key("argocd.argoproj.io/tracking-id")
        || labels.contains_key("argocd.argoproj.io/instance");
    let flux = |key: &str| key.contains("toolkit.fluxcd.io/");
    if argo {
        Some("Argo CD")
    } else if labels.keys().any(|key| flux(key)) {
        Some("Flux")
    } else {
        let by = labels.get("app.kubernetes.io/managed-by")?;
        (by == "Helm").then_some("Helm")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_pool_is_eks_s_by_its_node_class_and_a_tool_s_by_its_marks() {
        let mut pool = NodePool {
            spec: json!({"template": {"spec": {"nodeClassRef": {"group": "eks.amazonaws.com", "kind": "NodeClass", "name": "default"}}}}),
            ..NodePool::default()
        };
        assert!(pool.is_auto_mode());
        assert_eq!(pool.owning_tool(), None);
        pool.labels
            .insert("app.kubernetes.io/managed-by".into(), "Helm".into());
        assert_eq!(pool.owning_tool(), Some("Helm"));
        pool.annotations
            .insert("argocd.argoproj.io/tracking-id".into(), "x".into());
        assert_eq!(pool.owning_tool(), Some("Argo CD"));
    }

    #[test]
    fn the_version_of_an_image_is_read_from_its_name_where_it_has_one() {
        let class = |name: &str| NodeClass {
            images: vec![name.into()],
            ..NodeClass::default()
        };
        let at = Minor::new(29);
        let old = "amazon-eks-node-al2023-x86_64-standard-1.28-v20240807";
        assert!(class(old).selects_other_version(at));
        assert!(
            !class("bottlerocket-aws-k8s-1.29-x86_64-v1.20.5-a3e8bda1").selects_other_version(at)
        );
        assert!(!class("our-image-7").selects_other_version(at));
    }

    #[test]
    fn a_node_class_follows_the_version_unless_every_image_is_an_id() {
        let class = |terms| NodeClass {
            spec: json!({"amiSelectorTerms": terms}),
            ..NodeClass::default()
        };
        assert!(class(json!([{"id": "ami-1"}])).names_images_by_id());
        assert!(!class(json!([{"id": "ami-1"}, {"alias": "al2023@latest"}])).names_images_by_id());
        assert!(!class(json!([])).names_images_by_id());
    }
}
