//! Nodes and the objects of their pools as they truly are, for those who check what was done to them: read from the store,
//! past every cache and API.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::fargate_state::is_fargate;
use super::json::{find_label, text_at, value_at};
use super::karpenter::conditions::is_true;
use super::kinds::NODES;
use super::pool_state::PoolAction;
use super::store::{ObjectName, StoredObject};
use super::typed_views::NodeView;
use crate::model::Minor;
use crate::twin::world::SimWorld;

const POOL_LABEL: &str = "karpenter.sh/nodepool";
/// Group and kind of everything that Karpenter works on.
const POOL_KINDS: [(&str, &str); 3] = [
    ("karpenter.sh", "NodePool"),
    ("karpenter.sh", "NodeClaim"),
    ("karpenter.k8s.aws", "EC2NodeClass"),
];

/// A NodePool, a NodeClaim or an EC2NodeClass.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolObject {
    pub kind: &'static str,
    pub name: String,
    pub annotations: BTreeMap<String, String>,
    pub spec: Value,
}

/// A node, and who makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvidedNode {
    pub name: String,
    /// None where its kubelet says no version.
    pub kubelet: Option<Minor>,
    pub pool: Option<String>,
    pub auto_mode: bool,
    pub fargate: bool,
    /// Its node group, or the Auto Scaling group of nobody's; empty for a node of neither.
    pub group: String,
}

/// Every object of Karpenter.
pub fn list_pool_objects(world: &SimWorld) -> Vec<PoolObject> {
    let store = &world.kube.store;
    let kinds = POOL_KINDS.into_iter().filter_map(|(group, kind)| {
        let res = store.kinds.find_kind(group, kind)?;
        Some((kind, res))
    });
    let all = kinds.flat_map(|(kind, res)| {
        let objects = store.objects_of(res, "");
        objects.map(move |(name, object)| PoolObject {
            kind,
            name: name.name.clone(),
            annotations: text_map(object, "metadata.annotations"),
            spec: value_at(object, "spec").cloned().unwrap_or(Value::Null),
        })
    });
    all.collect()
}

fn text_map(object: &Value, path: &str) -> BTreeMap<String, String> {
    let entries = value_at(object, path).and_then(Value::as_object);
    let entries = entries.into_iter().flatten();
    let texts = entries.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())));
    texts.collect()
}

/// Whether a budget of a NodePool keeps its nodes from being replaced for a new version, always; none where it is gone.
pub fn holds_drift(world: &SimWorld, pool: &str) -> Option<bool> {
    let res = world
        .kube
        .store
        .kinds
        .find_kind("karpenter.sh", "NodePool")?;
    let pool = (world.kube.store).find_object(res, &ObjectName::new("", pool))?;
    let budgets = value_at(pool, "spec.disruption.budgets").and_then(Value::as_array);
    let closed = |budget: &Value| {
        let reasons = budget.get("reasons").and_then(Value::as_array);
        let for_drift = reasons.is_none_or(|all| all.iter().any(|r| r == "Drifted"));
        for_drift && budget.get("schedule").is_none() && text_at(budget, "nodes") == "0"
    };
    Some(budgets.into_iter().flatten().any(closed))
}

/// The NodePool of a NodeClaim, and the node that it became.
pub fn pool_and_node_of_claim(world: &SimWorld, claim: &str) -> Option<(String, Option<String>)> {
    let res = (world.kube.store.kinds).find_kind("karpenter.sh", "NodeClaim")?;
    let claim = (world.kube.store).find_object(res, &ObjectName::new("", claim))?;
    let node = text_at(claim, "status.nodeName").to_owned();
    let pool = find_label(claim, POOL_LABEL)?.to_owned();
    Some((pool, Some(node).filter(|n| !n.is_empty())))
}

/// Whether the instance of a claim is being ended: its node is empty by then, and counts in no budget any more.
pub fn is_instance_ending(world: &SimWorld, claim: &str) -> bool {
    let res = (world.kube.store.kinds).find_kind("karpenter.sh", "NodeClaim");
    let found =
        res.and_then(|res| (world.kube.store).find_object(res, &ObjectName::new("", claim)));
    found.is_some_and(|claim| is_true(claim, "InstanceTerminating"))
}

/// What the engine of pools has done so far.
pub fn pool_actions(world: &SimWorld) -> &[PoolAction] {
    &world.kube.pools.log
}

fn pool_label(node: &NodeView) -> Option<String> {
    Some(node.label_value(POOL_LABEL).to_owned()).filter(|name| !name.is_empty())
}

/// Every node, and who makes it.
pub fn list_provided_nodes(world: &SimWorld) -> Vec<ProvidedNode> {
    let groups: BTreeMap<&str, &str> = super::ground_truth::node_groups(world).collect();
    let index = &world.kube.store.index;
    let of = |(name, node): (&ObjectName, &StoredObject)| {
        let view = index.nodes.get(&name.name)?;
        let kubelet = text_at(node, "status.nodeInfo.kubeletVersion");
        Some(ProvidedNode {
            name: name.name.clone(),
            kubelet: Minor::from_reported(kubelet).ok(),
            pool: pool_label(view),
            auto_mode: view.is_auto_mode(),
            fargate: is_fargate(view),
            group: groups
                .get(&*name.name)
                .copied()
                .unwrap_or_default()
                .to_owned(),
        })
    };
    let nodes = world.kube.store.objects_of(NODES, "");
    nodes.filter_map(of).collect()
}

/// The group that empties a node: its NodePool, its node group, or its Auto Scaling group. Empty for a node of none, none
/// for a node that is not there.
pub fn group_or_pool_of(world: &SimWorld, node: &str) -> Option<String> {
    let view = world.kube.store.index.nodes.get(node)?;
    if let Some(pool) = pool_label(view) {
        return Some(pool);
    }
    if !view.node_group().is_empty() {
        return Some(view.node_group().to_owned());
    }
    let mut groups = super::ground_truth::node_groups(world);
    let group = groups.find(|(name, _)| *name == node);
    Some(group.map_or_else(String::new, |(_, group)| group.to_owned()))
}

/// The pods of these nodes that an eviction would concern and move, as `namespace/name`.
pub fn evictable_pods_of(world: &SimWorld, nodes: &BTreeSet<String>) -> Vec<String> {
    super::ground_truth::evictable_pods_where(world, |node| nodes.contains(&*node.name))
}
