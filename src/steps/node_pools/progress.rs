//! How far the replacement of a set of nodes has come.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::blockers::find_blockers;
use crate::engine::StepError;
use crate::k8s::cache::CacheSnapshot;
use crate::model::Minor;
use crate::model::kube::Node;
use crate::model::node_pool::{DISRUPTED_TAINT, KarpenterObjects, NodeClaim, NodePool, pool_of};
use crate::steps::StepWorld;

/// How many reasons of the same kind are told.
const MAX_TROUBLES: usize = 3;

/// Whose nodes are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplacedNodes {
    /// Those of a NodePool, by Karpenter.
    Pool(String),
    /// All of EKS Auto Mode.
    AutoMode,
}

/// One look at nodes that somebody else replaces.
#[derive(Debug, Default)]
pub struct ReplacementProgress {
    /// The NodePool, where they are one's.
    pub pool: Option<NodePool>,
    /// Nodes whose kubelet is older than the target, or says no version.
    pub old: Vec<String>,
    pub total: usize,
    /// Nodes that are being emptied or ended.
    pub leaving: Vec<String>,
    /// New machines that are not Ready yet.
    pub starting: Vec<String>,
    /// All machines, new and old: names of NodeClaims and of nodes.
    pub machines: BTreeSet<String>,
    /// Old nodes that Karpenter wants to replace.
    pub drifted: usize,
    /// What keeps new machines from coming, in Karpenter's words.
    pub troubles: Vec<String>,
    /// What keeps old nodes from going.
    pub blockers: Vec<String>,
}

impl ReplacedNodes {
    /// What they are called in messages.
    pub fn words(&self) -> String {
        match self {
            Self::Pool(name) => format!("NodePool {name}"),
            Self::AutoMode => "EKS Auto Mode".to_owned(),
        }
    }

    /// Who replaces them.
    pub fn replacer(&self) -> &'static str {
        match self {
            Self::Pool(_) => "Karpenter",
            Self::AutoMode => "EKS",
        }
    }

    fn has_node(&self, node: &Node) -> bool {
        match self {
            Self::Pool(name) => pool_of(node) == Some(name),
            Self::AutoMode => node.is_auto_mode(),
        }
    }

    fn has_pool(&self, pool: &NodePool) -> bool {
        match self {
            Self::Pool(name) => pool.name == *name,
            Self::AutoMode => pool.is_auto_mode(),
        }
    }

    /// Reads how far they have come to `kubelet`.
    ///
    /// # Errors
    /// Those of the watches and of listing Karpenter's objects.
    pub async fn read_progress(
        &self,
        world: &StepWorld,
        kubelet: Minor,
    ) -> Result<ReplacementProgress, StepError> {
        let objects = world.kube.list_karpenter().await?;
        let snapshot = world.read_snapshot().await?;
        // What was not Ready before the run says nothing of its replacement.
        let was_down = |node: &Node| world.workloads.was_not_ready(node);
        Ok(self.judge_progress(&objects, &snapshot, kubelet, &was_down))
    }

    fn judge_progress(
        &self,
        objects: &KarpenterObjects,
        snapshot: &CacheSnapshot,
        kubelet: Minor,
        was_down: &dyn Fn(&Node) -> bool,
    ) -> ReplacementProgress {
        let nodes = snapshot.nodes.values().filter(|n| self.has_node(n));
        let nodes: Vec<&Arc<Node>> = nodes.collect();
        let is_old = |node: &Node| {
            Minor::from_reported(&node.kubelet_version).map_or(true, |seen| seen < kubelet)
        };
        let pools = objects.pools.iter().filter(|p| self.has_pool(p));
        let pools: Vec<&NodePool> = pools.collect();
        let of_pools = |claim: &&NodeClaim| {
            let mut names = pools.iter().map(|p| &p.name);
            claim.pool.as_ref().is_some_and(|of| names.any(|n| n == of))
        };
        let claims: Vec<&NodeClaim> = objects.claims.iter().filter(of_pools).collect();
        // A node that is on its way out has the taint first, and is deleted when it is empty.
        let is_leaving = |node: &Node| {
            let claim = claims.iter().find(|c| c.node.as_ref() == Some(&node.name));
            node.deleting
                || node.taints.iter().any(|t| t.key == DISRUPTED_TAINT)
                || claim.is_some_and(|c| c.deleting)
        };
        let starting_claims = claims
            .iter()
            .filter(|c| !c.deleting && !c.has_condition("Initialized"))
            .map(|c| c.node.clone().unwrap_or_else(|| c.name.clone()));
        let starting_nodes = nodes
            .iter()
            .filter(|n| !n.is_ready() && !is_leaving(n) && !was_down(n))
            .map(|n| n.name.clone());
        let mut starting: Vec<String> = starting_claims.chain(starting_nodes).collect();
        starting.sort();
        starting.dedup();
        let machines = claims.iter().map(|c| c.name.clone());
        let machines = machines.chain(nodes.iter().map(|n| n.name.clone()));
        let old: Vec<&Arc<Node>> = nodes.iter().copied().filter(|n| is_old(n)).collect();
        let staying = old.iter().filter(|n| !is_leaving(n));
        let drifted = claims.iter().filter(|c| c.has_condition("Drifted"));
        ReplacementProgress {
            pool: pools.first().map(|p| (*p).clone()),
            total: nodes.len(),
            leaving: names_where(&nodes, is_leaving),
            starting,
            machines: machines.collect(),
            drifted: drifted.count(),
            troubles: find_troubles(objects, &pools, &claims),
            // What is on its way out may be held up by budgets too.
            blockers: find_blockers(
                snapshot,
                old.iter()
                    .filter(|n| is_leaving(n))
                    .chain(staying)
                    .map(|n| n.as_ref()),
            ),
            old: old.iter().map(|n| n.name.clone()).collect(),
        }
    }
}

fn names_where(nodes: &[&Arc<Node>], is_so: impl Fn(&Node) -> bool) -> Vec<String> {
    let nodes = nodes.iter().filter(|n| is_so(n));
    nodes.map(|n| n.name.clone()).collect()
}

/// What keeps Karpenter from launching machines: NodePools and node classes that are not Ready, launches that failed.
fn find_troubles(
    objects: &KarpenterObjects,
    pools: &[&NodePool],
    claims: &[&NodeClaim],
) -> Vec<String> {
    let mut troubles = Vec::new();
    for pool in pools {
        if let Some(why) = pool.ready.as_ref().and_then(|r| r.trouble()) {
            troubles.push(format!("NodePool {} is not Ready: {why}", pool.name));
        }
        let class = objects.class_of(pool);
        if let Some((class, why)) =
            class.and_then(|c| Some((c, c.ready.as_ref().and_then(|r| r.trouble())?)))
        {
            troubles.push(format!("EC2NodeClass {} is not Ready: {why}", class.name));
        }
    }
    let failed = claims.iter().filter_map(|claim| {
        let why = claim.conditions.get("Launched")?.launch_failure()?;
        Some(format!("NodeClaim {}: {why}", claim.name))
    });
    troubles.extend(failed.take(MAX_TROUBLES));
    troubles
}

impl ReplacementProgress {
    /// Whether nothing is on its way out or in.
    pub fn is_quiet(&self) -> bool {
        self.leaving.is_empty() && self.starting.is_empty()
    }

    /// How far it has come, and what stands in the way, as text.
    pub fn describe(&self) -> String {
        let mut parts = vec![format!(
            "{} of {} nodes are of the new version",
            self.total - self.old.len().min(self.total),
            self.total
        )];
        let list = |what: &str, names: &[String]| match names {
            [] => None,
            [one] => Some(format!("{one} {what}")),
            [first, rest @ ..] => Some(format!("{first} and {} more {what}", rest.len())),
        };
        parts.extend(list("being emptied", &self.leaving));
        parts.extend(list("not Ready yet", &self.starting));
        parts.extend(self.troubles.iter().cloned());
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node_pool::{ConditionState, NODE_POOL_LABEL};
    use crate::steps::closing::tests::node;
    use serde_json::json;

    fn pool_node(name: &str, kubelet: &str) -> Node {
        let mut node = node(name);
        node.labels.insert(NODE_POOL_LABEL.into(), "general".into());
        node.kubelet_version = kubelet.into();
        node
    }

    fn claim(name: &str, node: Option<&str>, initialized: bool) -> NodeClaim {
        let state = |is: bool| ConditionState {
            status: if is { "True" } else { "Unknown" }.to_owned(),
            reason: "LaunchFailed".into(),
            message: "no capacity".into(),
        };
        NodeClaim {
            name: name.into(),
            pool: Some("general".into()),
            node: node.map(str::to_owned),
            conditions: [
                ("Initialized".to_owned(), state(initialized)),
                ("Launched".to_owned(), state(node.is_some())),
            ]
            .into(),
            ..NodeClaim::default()
        }
    }

    #[test]
    fn nodes_are_counted_by_kubelet_and_those_in_between_are_told() {
        let mut leaving = pool_node("old-1", "v1.28.5");
        leaving.taints.push(crate::model::kube::Taint {
            key: DISRUPTED_TAINT.into(),
            value: None,
            effect: "NoSchedule".into(),
        });
        let nodes = vec![
            leaving,
            pool_node("old-2", "v1.28.5"),
            pool_node("odd", "unknown"),
            pool_node("new", "v1.29.1"),
            node("other"),
        ];
        let objects = KarpenterObjects {
            pools: vec![NodePool {
                name: "general".into(),
                spec: json!({}),
                ..NodePool::default()
            }],
            claims: vec![
                claim("a", Some("old-1"), true),
                claim("b", None, false),
                claim("c", Some("new"), true),
            ],
            classes: None,
        };
        let snapshot = CacheSnapshot::from_lists(nodes, Vec::new());
        let of = ReplacedNodes::Pool("general".into());
        let seen = of.judge_progress(&objects, &snapshot, Minor::new(29), &|_| false);
        assert_eq!(seen.old, ["odd", "old-1", "old-2"]);
        assert_eq!((seen.total, seen.leaving.len()), (4, 1));
        assert_eq!(seen.starting, ["b"]);
        assert_eq!(seen.troubles, ["NodeClaim b: no capacity"]);
        assert_eq!(
            seen.describe(),
            "1 of 4 nodes are of the new version; old-1 being emptied; b not Ready yet; NodeClaim b: no capacity"
        );
    }
}
