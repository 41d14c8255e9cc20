//! Nodes that the plan does not move: each must work with the target, or the plan consents to leave it.

use std::collections::BTreeMap;

use super::draft::RouteDraft;
use super::node_groups::{
    GroupMigration, is_replaced_by_provisioner, is_retired, oldest_allowed_kubelet, oldest_kubelet,
};
use super::other_node_kinds::OtherMove;
use super::problem::Obstacle;
use crate::model::kube::Node;
use crate::model::node_source::NodeSource;
use crate::model::{Inventory, Minor};
use crate::plan::UngroupedNodes;

/// How many of the nodes that are left one note names.
const NAMED_NODES: usize = 10;

/// Whose a node is that nothing in the run replaces, which decides what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NodeOwner {
    Group(String),
    Fargate,
    Hybrid(String),
    Nobody(String),
}

impl NodeOwner {
    fn of(node: &Node, group: Option<&str>) -> Self {
        match group {
            Some(group) => Self::Group(group.to_owned()),
            None if node.is_fargate() => Self::Fargate,
            None if node.is_hybrid() => Self::Hybrid(node.name.clone()),
            None => Self::Nobody(node.name.clone()),
        }
    }

    /// Whether the plan's `otherNodes` speaks of it.
    fn is_ungrouped(&self) -> bool {
        match self {
            Self::Hybrid(_) | Self::Nobody(_) => true,
            Self::Group(_) | Self::Fargate => false,
        }
    }

    fn subject(&self, inventory: &Inventory) -> String {
        match self {
            Self::Group(name) => {
                format!("{} {name}", source_of(inventory, name).group_words())
            }
            Self::Fargate => "Fargate pods".to_owned(),
            Self::Hybrid(name) => format!("hybrid node {name}"),
            Self::Nobody(name) => format!("node {name}"),
        }
    }

    /// What makes the plan possible, where its kubelet must be at least `oldest`.
    fn remedy(&self, inventory: &Inventory, oldest: Minor) -> String {
        match self {
            Self::Group(name) => {
                let list = match source_of(inventory, name) {
                    NodeSource::ManagedGroup => "name it under `nodeGroups`",
                    NodeSource::AutoScalingGroup => "list it under `autoScalingGroups` with an image",
                    NodeSource::NodePool => "list it under `karpenter`",
                };
                format!("{list}, or move it to {oldest} or newer by hand first")
            }
            Self::Fargate => "write `fargate: restart`, or delete these pods before the upgrade: new ones come up with the cluster's version".to_owned(),
            Self::Hybrid(_) => format!(
                "drain it and run `nodeadm upgrade {oldest} --config-source file://NODECONFIG` on it first, or write `otherNodes: leave` to leave it as it is"
            ),
            Self::Nobody(_) => format!(
                "it belongs to no managed node group: replace it by hand with kubelet {oldest} or newer first, or write `otherNodes: leave` to leave it as it is"
            ),
        }
    }
}

/// Who makes the nodes of a group; EKS where the group itself was not read.
fn source_of(inventory: &Inventory, group: &str) -> NodeSource {
    let found = inventory.find_nodegroup(group);
    found.map(|g| g.source).unwrap_or_default()
}

/// Nodes the plan does not move must be within skew of the target; each that is not becomes a problem, or, with the plan's
/// consent, a note.
pub fn check_unmoved_nodes(
    draft: &mut RouteDraft<'_>,
    movers: &[GroupMigration<'_>],
    others: &[OtherMove],
) {
    let (inventory, to) = (draft.inventory, draft.plan.to);
    let consents = draft.plan.other_nodes == UngroupedNodes::Leave;
    // Gathered by owner, because one group with fifty old nodes is one problem.
    let mut told: BTreeMap<NodeOwner, (Minor, Vec<&str>)> = BTreeMap::new();
    let mut left = Vec::new();
    for node in &inventory.nodes {
        // A node of a warm pool goes with the pool, and the pool with its group.
        let group = node.nodegroup_name().or(inventory.pool_group_of(node));
        let moved = group.is_some_and(|g| movers.iter().any(|m| m.origin.name == g));
        // Those that the plan leaves to Karpenter or Auto Mode have a note of their own.
        if moved
            || others.iter().any(|m| m.nodes.has_node(node))
            || is_replaced_by_provisioner(node)
        {
            continue;
        }
        let owner = NodeOwner::of(node, group);
        let kubelet = Minor::from_reported(&node.kubelet_version);
        if kubelet.as_ref().is_ok_and(|k| *k >= to) {
            continue;
        }
        if consents && owner.is_ungrouped() {
            left.push(format!(
                "{} ({})",
                owner.subject(inventory),
                node.kubelet_version
            ));
            continue;
        }
        match kubelet {
            Ok(kubelet) if kubelet.kubelet_may_join(to) => {}
            Ok(kubelet) => {
                let entry = told.entry(owner).or_insert((kubelet, Vec::new()));
                entry.0 = entry.0.min(kubelet);
                entry.1.push(&node.name);
            }
            Err(_) => add_unreadable(draft, node, owner.is_ungrouped()),
        }
    }
    // A group without nodes has no kubelet to show, but the next node it launches would.
    for group in &inventory.nodegroups {
        let moved = movers.iter().any(|m| m.origin.name == group.name);
        let kubelet = oldest_kubelet(inventory, group);
        if !moved && !is_retired(inventory, group) && kubelet < to && !kubelet.kubelet_may_join(to)
        {
            told.entry(NodeOwner::Group(group.name.clone()))
                .or_insert((kubelet, Vec::new()));
        }
    }
    for (owner, (kubelet, nodes)) in told {
        let subject = owner.subject(inventory);
        // A group with a custom AMI has been complained about already.
        if draft.has_problem_with(&subject) {
            continue;
        }
        let fix = owner.remedy(inventory, oldest_allowed_kubelet(to));
        draft.add_problem(
            Obstacle::NodeLeftBehind,
            subject,
            format!("kubelet {kubelet} may not work with an API server of {to}, and the plan does not move {}", summarize_nodes(&nodes)),
            fix,
        );
    }
    if !left.is_empty() {
        draft.add_note(format!(
            "Left as they are, as the plan says (`otherNodes: leave`): {}.",
            name_first(&left)
        ));
    }
}

/// Whether such a node may stay is unknown, which is no consent.
fn add_unreadable(draft: &mut RouteDraft<'_>, node: &Node, ungrouped: bool) {
    let to = draft.plan.to;
    draft.add_problem(
        Obstacle::NodeLeftBehind,
        format!("node {}", node.name),
        format!(
            "its kubelet says `{}`, which is not a version, so whether it works with an API server of {to} is unknown; and the plan does not move it",
            node.kubelet_version
        ),
        if ungrouped {
            "look at the node; remove it, or write `otherNodes: leave` to leave it as it is"
        } else {
            "look at the node; name its node group under `nodeGroups`, or remove the node"
        },
    );
}

/// The first of many, because a site may have hundreds.
fn name_first(nodes: &[String]) -> String {
    let named = nodes[..nodes.len().min(NAMED_NODES)].join(", ");
    match nodes.len().saturating_sub(NAMED_NODES) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn summarize_nodes(names: &[&str]) -> String {
    match names {
        [one] => format!("node {one}"),
        [first, rest @ ..] => format!("node {first} and {} more", rest.len()),
        [] => "it (it has no node now, and its next one would be as old)".to_owned(),
    }
}
