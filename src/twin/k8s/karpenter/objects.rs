//! Node pools, node claims and classes as the engine looks them up.

use std::sync::Arc;

use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{find_label, list_at, text_at, value_at};
use super::super::kinds::{KindId, NODES};
use super::super::store::{ObjectKey, ObjectName, StoredObject};
use super::super::typed_views::{NodeTaint, NodeView};

pub const POOL_LABEL: &str = "karpenter.sh/nodepool";
pub const REGISTERED_LABEL: &str = "karpenter.sh/registered";
pub const INITIALIZED_LABEL: &str = "karpenter.sh/initialized";
pub const CAPACITY_TYPE_LABEL: &str = "karpenter.sh/capacity-type";
pub const FINALIZER: &str = "karpenter.sh/termination";
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";
pub const DISRUPTED_TAINT: &str = "karpenter.sh/disrupted";
pub const UNREGISTERED_TAINT: &str = "karpenter.sh/unregistered";
pub const TERMINATION_TIME: &str = "karpenter.sh/nodeclaim-termination-timestamp";
/// The groups of the classes: Karpenter's on EC2, and EKS Auto Mode's.
pub const EC2_GROUP: &str = "karpenter.k8s.aws";
pub const AUTO_GROUP: &str = "eks.amazonaws.com";

/// The kinds that the engine works on.
#[derive(Clone, Copy, Debug)]
pub struct PoolKinds {
    pub pools: KindId,
    pub claims: KindId,
}

/// The kinds, where the cluster has them.
pub fn kinds(cluster: &SimCluster) -> Option<PoolKinds> {
    let kinds = &cluster.store.kinds;
    Some(PoolKinds {
        pools: kinds.find_kind("karpenter.sh", "NodePool")?,
        claims: kinds.find_kind("karpenter.sh", "NodeClaim")?,
    })
}

/// Whose pools are looked after at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProviders {
    pub karpenter: bool,
    pub auto_mode: bool,
}

impl ActiveProviders {
    /// Whether somebody looks after what has this reference to a class.
    pub fn manage_class(self, reference: Option<&Value>) -> bool {
        match reference.map(|r| text_at(r, "group")) {
            Some(EC2_GROUP) => self.karpenter,
            Some(AUTO_GROUP) => self.auto_mode,
            _ => false,
        }
    }

    /// Whether somebody looks after a node claim.
    pub fn manage_claim(self, claim: &Value) -> bool {
        self.manage_class(value_at(claim, "spec.nodeClassRef"))
    }

    /// Whether somebody looks after a node pool.
    pub fn manage_pool(self, pool: &Value) -> bool {
        self.manage_class(value_at(pool, "spec.template.spec.nodeClassRef"))
    }
}

/// All objects of a kind, in the order of names.
pub fn all_of(cluster: &SimCluster, res: KindId) -> Vec<StoredObject> {
    let objects = cluster.store.objects_of(res, "");
    objects.map(|(_, o)| o.clone()).collect()
}

/// The node claims that somebody looks after.
pub fn managed_claims(cluster: &SimCluster, active: ActiveProviders) -> Vec<StoredObject> {
    let Some(kinds) = kinds(cluster) else {
        return Vec::new();
    };
    let mut all = all_of(cluster, kinds.claims);
    all.retain(|c| active.manage_claim(c));
    all
}

/// The node pools that somebody looks after.
pub fn managed_pools(cluster: &SimCluster, active: ActiveProviders) -> Vec<StoredObject> {
    let Some(kinds) = kinds(cluster) else {
        return Vec::new();
    };
    let mut all = all_of(cluster, kinds.pools);
    all.retain(|p| active.manage_pool(p));
    all
}

/// An object of the whole cluster by its name.
pub fn find_named(cluster: &SimCluster, res: KindId, name: &str) -> Option<StoredObject> {
    let found = cluster.store.find_object(res, &ObjectName::new("", name));
    found.cloned()
}

/// A pool by its name.
pub fn find_pool(cluster: &SimCluster, name: &str) -> Option<StoredObject> {
    find_named(cluster, kinds(cluster)?.pools, name)
}

/// A node claim by its name.
pub fn find_claim(cluster: &SimCluster, name: &str) -> Option<StoredObject> {
    find_named(cluster, kinds(cluster)?.claims, name)
}

/// The class that a reference names.
pub fn find_class(
    cluster: &SimCluster,
    reference: Option<&Value>,
) -> Option<(KindId, StoredObject)> {
    let reference = reference?;
    let (group, kind) = (text_at(reference, "group"), text_at(reference, "kind"));
    let res = cluster.store.kinds.find_kind(group, kind)?;
    Some((res, find_named(cluster, res, text_at(reference, "name"))?))
}

/// The name of an object.
pub fn name_of(object: &Value) -> &str {
    text_at(object, "metadata.name")
}

/// The pool that an object belongs to by its label.
pub fn pool_of(object: &Value) -> &str {
    find_label(object, POOL_LABEL).unwrap_or_default()
}

/// Whether an object is being deleted.
pub fn is_deleting(object: &Value) -> bool {
    value_at(object, "metadata.deletionTimestamp").is_some()
}

/// Whether the engine's finalizer holds an object.
pub fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    let mut all = list_at(object, "metadata.finalizers").iter();
    all.any(|f| f.as_str() == Some(finalizer))
}

/// The instance in a provider's identifier (`aws:///ZONE/INSTANCE`).
pub fn instance_of(provider_id: &str) -> &str {
    provider_id.rsplit('/').next().unwrap_or_default()
}

/// The instance of a node claim; empty before it is launched.
pub fn instance_of_claim(claim: &Value) -> &str {
    instance_of(text_at(claim, "status.providerID"))
}

/// The node of a node claim, by its instance.
pub fn node_of_claim(cluster: &SimCluster, claim: &Value) -> Option<StoredObject> {
    let instance = instance_of_claim(claim);
    if instance.is_empty() {
        return None;
    }
    let name = cluster.store.index.by_instance.get(instance)?;
    find_named(cluster, NODES, name)
}

/// The node claim of a node, by its instance.
pub fn claim_of_node(cluster: &SimCluster, node: &Value) -> Option<StoredObject> {
    let id = text_at(node, "spec.providerID");
    if id.is_empty() {
        return None;
    }
    let claims = all_of(cluster, kinds(cluster)?.claims);
    claims
        .into_iter()
        .find(|c| text_at(c, "status.providerID") == id)
}

/// The key of a node claim.
pub fn claim_key(cluster: &SimCluster, name: &str) -> Option<ObjectKey> {
    Some(ObjectKey::new(kinds(cluster)?.claims, "", name))
}

/// The key of a node.
pub fn node_key(name: &str) -> ObjectKey {
    ObjectKey::new(NODES, "", name)
}

/// A node, or a node claim whose node is not there yet, as pods can be placed on it.
#[derive(Clone, Debug)]
pub struct StateNode {
    pub claim: Option<StoredObject>,
    pub node: Option<StoredObject>,
    /// With the labels and taints that count for placing.
    pub view: Arc<NodeView>,
    /// Pods of the cluster can be on it by now, and need no second room.
    pub exists: bool,
    pub initialized: bool,
    /// It is on its way out, or about to be.
    pub deleting: bool,
}

impl StateNode {
    /// The name that messages have of it.
    pub fn describe(&self) -> String {
        let name = |o: &StoredObject| name_of(o).to_owned();
        let claim = self
            .claim
            .as_ref()
            .map(|c| format!("nodeclaim/{}", name(c)));
        let node = self.node.as_ref().map(|n| format!("node/{}", name(n)));
        let both: Vec<String> = claim.into_iter().chain(node).collect();
        both.join(", ")
    }
}

/// All nodes, and all node claims without one.
pub fn state_nodes(cluster: &SimCluster, active: ActiveProviders) -> Vec<StateNode> {
    let claims = managed_claims(cluster, active);
    let being_disrupted = |claim: &str| {
        let mut commands = cluster.pools.session.commands.iter();
        commands.any(|c| c.candidates.iter().any(|name| name == claim))
    };
    let mut found = Vec::new();
    for claim in &claims {
        if text_at(claim, "status.providerID").is_empty() && is_deleting(claim) {
            continue;
        }
        let node = node_of_claim(cluster, claim);
        let deleting = is_deleting(claim)
            || node.as_ref().is_some_and(|n| is_deleting(n))
            || being_disrupted(name_of(claim));
        let initialized = node
            .as_ref()
            .is_some_and(|n| find_label(n, INITIALIZED_LABEL) == Some("true"));
        // A node that is initialized is for placing what it is for everybody.
        let known = node.as_ref().filter(|_| initialized);
        let known = known.and_then(|n| cluster.store.index.nodes.get(name_of(n)));
        found.push(StateNode {
            view: known
                .cloned()
                .unwrap_or_else(|| Arc::new(view_of(claim, node.as_deref(), initialized))),
            exists: node.is_some(),
            claim: Some(claim.clone()),
            node,
            initialized,
            deleting,
        });
    }
    let managed: Vec<&str> = claims.iter().map(|c| instance_of_claim(c)).collect();
    let index = &cluster.store.index;
    let others = index.nodes.values();
    for view in others.filter(|n| n.instance.is_empty() || !managed.contains(&n.instance.as_str()))
    {
        let node = find_named(cluster, NODES, &view.name);
        found.push(StateNode {
            claim: None,
            deleting: node.as_ref().is_some_and(|n| is_deleting(n)),
            node,
            view: view.clone(),
            exists: true,
            initialized: true,
        });
    }
    found
}

/// What a node claim's node is for placing: until it is initialized, without the taints that go by themselves.
fn view_of(claim: &Value, node: Option<&Value>, initialized: bool) -> NodeView {
    let registered = node.is_some_and(|n| find_label(n, REGISTERED_LABEL) == Some("true"));
    let Some(node) = node else {
        return view_of_claim(claim);
    };
    let mut view = NodeView::from_object(node);
    if !registered {
        let planned = view_of_claim(claim);
        view.labels.extend(planned.labels);
        view.taints = planned.taints;
    }
    if !initialized {
        let startup = list_at(claim, "spec.startupTaints");
        view.taints.retain(|t| {
            !is_ephemeral(&t.key)
                && !startup
                    .iter()
                    .any(|s| text_at(s, "key") == t.key && text_at(s, "effect") == t.effect)
        });
    }
    view
}

fn view_of_claim(claim: &Value) -> NodeView {
    let mut view = NodeView::from_object(claim);
    view.taints = list_at(claim, "spec.taints")
        .iter()
        .map(NodeTaint::from_spec)
        .collect();
    view.instance = instance_of_claim(claim).to_owned();
    let hostname = "kubernetes.io/hostname".to_owned();
    view.labels.insert(hostname, view.name.clone());
    let zone = view.zone().to_owned();
    view.labels
        .insert("topology.ebs.csi.aws.com/zone".to_owned(), zone);
    view
}

/// Whether a taint goes by itself when a node becomes Ready.
pub fn is_ephemeral(key: &str) -> bool {
    matches!(
        key,
        "node.kubernetes.io/not-ready"
            | "node.kubernetes.io/unreachable"
            | "node.cloudprovider.kubernetes.io/uninitialized"
            | UNREGISTERED_TAINT
    )
}
