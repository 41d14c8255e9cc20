//! Nodes that eksup does not replace itself: Karpenter's by drift, pods on Fargate, EKS Auto Mode. When each of them comes,
//! and what the plan leaves as it is.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{RouteDraft, StepDraft};
use super::drain_terms::drain_terms;
use super::node_groups::{GroupMigration, schedule_kubelets};
use super::other_node_kinds::{OtherMove, OtherNodes};
use super::problem::Obstacle;
use super::{StepSpec, estimate};
use crate::model::eks::Nodegroup;
use crate::model::kube::Node;
use crate::model::node_pool::{NodeClass, NodePool, pool_of};
use crate::model::node_source::NodeSource;
use crate::model::{Inventory, Minor};
use crate::plan::{AutoModeNodes, FargatePods, KarpenterPool, NodeGroup, PoolStrategy};

/// How long EKS Auto Mode may go on without replacing a node before a person is asked.
const AUTO_MODE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2 * 60 * 60);

/// The nodes that the route brings along; what the plan names and is not there, and what cannot be moved, becomes a problem.
pub fn find_other_moves(draft: &mut RouteDraft<'_>) -> Vec<OtherMove> {
    let (plan, inventory) = (draft.plan, draft.inventory);
    let mut all = find_pools(draft);
    if plan.fargate == FargatePods::Restart {
        all.push(OtherNodes::Fargate);
    }
    if plan.auto_mode == AutoModeNodes::Wait {
        all.push(OtherNodes::AutoMode);
    }
    note_left_nodes(draft, &all);
    let moves = all.into_iter().filter_map(|nodes| {
        let kubelet = oldest_of(inventory, &nodes)?;
        (kubelet < plan.to).then_some(OtherMove { nodes, kubelet })
    });
    moves.collect()
}

/// The oldest kubelet of these nodes; of one that says no version the control plane's is taken for certain.
fn oldest_of(inventory: &Inventory, nodes: &OtherNodes) -> Option<Minor> {
    let of = inventory.nodes.iter().filter(|n| nodes.has_node(n));
    let version =
        |n: &Node| Minor::from_reported(&n.kubelet_version).unwrap_or(inventory.cluster.version);
    of.map(version).min()
}

/// The NodePools that the plan has Karpenter replace.
fn find_pools(draft: &mut RouteDraft<'_>) -> Vec<OtherNodes> {
    let (plan, inventory) = (draft.plan, draft.inventory);
    let known: Vec<&NodePool> = inventory
        .node_pools()
        .filter(|p| !p.is_auto_mode())
        .collect();
    for entry in &plan.karpenter {
        if known.iter().any(|p| p.name == entry.node_pool) {
            continue;
        }
        let names: Vec<&str> = known.iter().map(|p| p.name.as_str()).collect();
        let fix = match (&inventory.karpenter, names.as_slice()) {
            (None, _) => "allow `list` of nodepools.karpenter.sh, and plan again".to_owned(),
            (Some(_), []) => "it has no NodePool of Karpenter: remove the entry".to_owned(),
            (Some(_), names) => format!("it has: {}", names.join(", ")),
        };
        let why = format!("the plan names it, and none was found in {}", plan.cluster);
        let subject = format!("NodePool {}", entry.node_pool);
        draft.add_problem(Obstacle::NoSuchGroup, subject, why, fix);
    }
    let mut pools = Vec::new();
    for pool in known {
        let Some(entry) = plan.karpenter_pool(&pool.name) else {
            continue;
        };
        if entry.strategy != PoolStrategy::Drift {
            continue;
        }
        let nodes = OtherNodes::Pool(Box::new(entry.clone()));
        // Without an old node there is nothing to hold back either: new ones come with the cluster's version.
        if oldest_of(inventory, &nodes).is_none_or(|kubelet| kubelet >= plan.to) {
            continue;
        }
        check_pool(draft, pool, &entry);
        pools.push(nodes);
    }
    pools
}

/// What keeps NodePools whose nodes eksup replaces from being copied and deleted.
pub fn check_replaced_pools(draft: &mut RouteDraft<'_>, movers: &[GroupMigration<'_>]) {
    let pools = movers
        .iter()
        .filter(|m| m.origin.source == NodeSource::NodePool);
    for mover in pools {
        check_pool_of_group(draft, mover.origin, &mover.plan_entry);
    }
}

fn check_pool_of_group(draft: &mut RouteDraft<'_>, group: &Nodegroup, entry: &NodeGroup) {
    let inventory = draft.inventory;
    let objects = inventory.karpenter.as_ref();
    let Some((objects, pool)) = objects.and_then(|k| Some((k, k.find_pool(&group.name)?))) else {
        return;
    };
    check_owner(draft, pool, entry.delete_owned.is_consent(), POOL_REPLACED);
    check_ready(draft, pool);
    let subject = format!("NodePool {}", pool.name);
    let class = objects.class_of(pool);
    if entry.ami.is_none() && class.is_some_and(NodeClass::names_images_by_id) {
        draft.add_problem(
            Obstacle::ImageMissing,
            &subject,
            format!("its EC2NodeClass {} names its images by id, so that green's nodes would be like blue's", pool.node_class().name),
            "write the image for the target as `ami` in its entry of `karpenter`: an alias such as `al2023@latest`, or an id",
        );
    }
    if entry.ami.is_some() && class.is_none() {
        draft.add_problem(
            Obstacle::ImageMissing,
            &subject,
            format!("`ami` asks for a node class of green's own, and {} {} is no EC2NodeClass that could be read", pool.node_class().kind, pool.node_class().name),
            "allow `list` of ec2nodeclasses.karpenter.k8s.aws, or leave `ami` out",
        );
    }
    // A group's name says whose its nodes are.
    let mut others = inventory.nodegroups.iter();
    if others.any(|g| g.name == group.name && g.source != NodeSource::NodePool) {
        draft.add_problem(
            Obstacle::GreenTaken,
            &subject,
            "a node group has the same name",
            "write `strategy: drift` for this NodePool",
        );
    }
}

/// What keeps a NodePool from being held and let go.
fn check_pool(draft: &mut RouteDraft<'_>, pool: &NodePool, entry: &KarpenterPool) {
    check_owner(draft, pool, entry.change_owned, POOL_HELD);
    let subject = format!("NodePool {}", pool.name);
    let class = draft.inventory.karpenter.as_ref();
    let class = class.and_then(|k| k.class_of(pool));
    if let Some(class) = class
        && class.names_images_by_id()
    {
        draft.add_problem(
            Obstacle::ImageMissing,
            &subject,
            format!("its EC2NodeClass {} names its images by id, so that Karpenter finds no newer one for another version", class.name),
            format!("write `strategy: blue-green` with `ami` (an alias such as `al2023@latest`, or the id for the target), or `strategy: leave`; or select the images of {} by alias or by tags", class.name),
        );
    }
    check_ready(draft, pool);
}

/// What a run changes of a NodePool that another tool owns, and what to do about it there.
struct OwnedChange {
    done: &'static str,
    in_git: &'static str,
}

/// Karpenter replaces its nodes.
const POOL_HELD: OwnedChange = OwnedChange {
    done: "adds a budget to `spec.disruption.budgets` and takes it off again",
    in_git: "add `- nodes: \"0\"` with `reasons: [Drifted]` in Git before the run, have the tool ignore `spec.disruption.budgets` meanwhile, and remove both after it",
};
/// eksup replaces its nodes, with a NodePool beside it.
const POOL_REPLACED: OwnedChange = OwnedChange {
    done: "makes a green NodePool beside it, sets its limits to 0 and deletes it at the end",
    in_git: "have the tool ignore the NodePool and delete nothing meanwhile, and put green in its place in Git after the run (`eksup handback` prints it)",
};

/// A tool that keeps the NodePool as its source has it.
fn check_owner(draft: &mut RouteDraft<'_>, pool: &NodePool, consents: bool, change: OwnedChange) {
    let subject = format!("NodePool {}", pool.name);
    if let Some(tool) = pool.owning_tool()
        && !consents
    {
        draft.add_problem(
            Obstacle::PoolOwned,
            &subject,
            format!("{tool} keeps it as its source has it, and the run {}", change.done),
            format!("write `changeOwned: true` in its entry of `karpenter` to consent; where {tool} takes changes back, {}; or write `strategy: leave`", change.in_git),
        );
    }
}

/// A NodePool for which Karpenter makes no node.
fn check_ready(draft: &mut RouteDraft<'_>, pool: &NodePool) {
    let subject = format!("NodePool {}", pool.name);
    if let Some(why) = pool.ready.as_ref().and_then(|r| r.trouble()) {
        draft.add_problem(
            Obstacle::PoolNotReady,
            &subject,
            format!("it is not Ready, and Karpenter makes no node for it: {why}"),
            "make it Ready, and plan again",
        );
    }
}

/// What the plan leaves to others is said, so that nobody takes it for done.
fn note_left_nodes(draft: &mut RouteDraft<'_>, moved: &[OtherNodes]) {
    let (plan, inventory) = (draft.plan, draft.inventory);
    let mut left: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
    for node in &inventory.nodes {
        let old = Minor::from_reported(&node.kubelet_version).is_ok_and(|k| k < plan.to);
        if !old || moved.iter().any(|m| m.has_node(node)) {
            continue;
        }
        let owner = if node.is_auto_mode() {
            "EKS Auto Mode replaces".to_owned()
        } else if node.is_fargate() {
            "Fargate keeps".to_owned()
        } else if let Some(pool) = pool_of(node) {
            if plan.all_groups().any(|g| g.blue == pool) {
                continue;
            }
            format!("Karpenter (NodePool {pool}) replaces")
        } else {
            continue;
        };
        left.entry(owner).or_default().push(node);
    }
    for (owner, nodes) in left {
        let first = &nodes[0];
        draft.add_note(format!(
            "{owner} {} whenever it wants: {} has kubelet {} today, and the run neither holds nor waits for it.",
            if nodes.len() == 1 { "its node".to_owned() } else { format!("its {} nodes", nodes.len()) },
            first.name,
            first.kubelet_version
        ));
    }
}

/// Adds the steps that keep Karpenter from replacing nodes while the control plane moves.
pub fn push_pool_holds(draft: &mut RouteDraft<'_>, moves: &[OtherMove]) {
    for pool in moves.iter().filter_map(OtherMove::pool) {
        let spec = StepSpec::HoldPool {
            pool: pool.node_pool.clone(),
            all_reasons: false,
        };
        let step_draft = StepDraft::new(
            format!(
                "NodePool {}: Karpenter replaces no node for a new version",
                pool.node_pool
            ),
            [format!("NodePool {}", pool.node_pool)],
            estimate::HOLD,
            spec,
        );
        draft.push_step(
            format!("hold-pool-{}", pool.node_pool),
            step_draft.with_reason("Karpenter would begin as soon as the control plane is newer, while it is watched and before add-ons have moved"),
        );
    }
}

/// Adds the steps that keep Karpenter from disrupting any node of the NodePools that eksup itself replaces: empty nodes of
/// green are room that it would otherwise move blue's pods to (KARP-8).
pub fn push_blue_pool_holds(draft: &mut RouteDraft<'_>, movers: &[GroupMigration<'_>]) {
    let pools = movers
        .iter()
        .filter(|m| m.origin.source == NodeSource::NodePool);
    for name in pools.map(|m| m.origin.name.clone()) {
        let spec = StepSpec::HoldPool {
            pool: name.clone(),
            all_reasons: true,
        };
        let step_draft = StepDraft::new(
            format!("NodePool {name}: Karpenter disrupts no node"),
            [format!("NodePool {name}")],
            estimate::HOLD,
            spec,
        );
        draft.push_step(
            format!("hold-pool-{name}"),
            step_draft.with_reason("it would replace nodes for the new version as soon as the control plane is newer, and move pods to green's empty nodes by itself"),
        );
    }
}

/// Adds the steps that leave the greens of these NodePools to Karpenter.
pub fn push_green_pool_releases(draft: &mut RouteDraft<'_>, names: &BTreeSet<String>) {
    for name in names {
        push_release(draft, name);
    }
}

/// Adds the steps that leave the NodePools to Karpenter again.
pub fn push_pool_releases(draft: &mut RouteDraft<'_>, moves: &[OtherMove]) {
    for pool in moves.iter().filter_map(OtherMove::pool) {
        push_release(draft, &pool.node_pool);
    }
}

fn push_release(draft: &mut RouteDraft<'_>, name: &str) {
    let spec = StepSpec::ReleasePool {
        pool: name.to_owned(),
    };
    let step_draft = StepDraft::new(
        format!("NodePool {name} is left to Karpenter again"),
        [format!("NodePool {name}")],
        estimate::HOLD,
        spec,
    );
    draft.push_step(format!("release-pool-{name}"), step_draft);
}

/// When these nodes come: as late as the skew of kubelets lets them.
pub fn schedule_other_moves(
    moves: &[OtherMove],
    from: Minor,
    to: Minor,
) -> BTreeMap<Minor, Vec<OtherNodes>> {
    let kubelets = moves.iter().map(|m| (m.nodes.key(), m.kubelet)).collect();
    let by_name = |name: &String| moves.iter().find(|m| m.nodes.key() == *name);
    let scheduled = schedule_kubelets(kubelets, from, to, |_| false);
    let each = scheduled.into_iter().map(|(at, names)| {
        let nodes = names.iter().filter_map(by_name).map(|m| m.nodes.clone());
        (at, nodes.collect())
    });
    each.collect()
}

/// Adds the steps that bring other nodes to the version where the control plane is.
pub fn push_other_moves(draft: &mut RouteDraft<'_>) {
    for nodes in std::mem::take(&mut draft.other_nodes) {
        match nodes {
            OtherNodes::Pool(pool) => push_drift(draft, &pool),
            OtherNodes::Fargate => push_fargate(draft),
            OtherNodes::AutoMode => push_auto_mode(draft),
        }
    }
}

fn touched_nodes(draft: &RouteDraft<'_>, nodes: &OtherNodes) -> Vec<String> {
    let of = draft.inventory.nodes.iter().filter(|n| nodes.has_node(n));
    of.map(|n| format!("node {}", n.name)).collect()
}

fn push_drift(draft: &mut RouteDraft<'_>, pool: &KarpenterPool) {
    let name = &pool.node_pool;
    let nodes = touched_nodes(draft, &OtherNodes::Pool(Box::new(pool.clone())));
    let bake = draft.plan.drain.bake;
    let time = (estimate::NODE + bake) * u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let spec = StepSpec::DriftPool {
        pool: name.clone(),
        kubelet: draft.at,
        budget: pool.budget.clone(),
        bake,
        timeout: pool.timeout,
    };
    let touches = std::iter::once(format!("NodePool {name}")).chain(nodes);
    let at_once = match &pool.budget {
        Some(budget) => format!("{budget} at once"),
        None => "as many at once as its budgets allow".to_owned(),
    };
    let step_draft = StepDraft::new(
        format!("NodePool {name}: Karpenter replaces its nodes, {at_once}"),
        touches,
        time,
        spec,
    );
    draft.push_step(
        format!("drift-pool-{name}"),
        step_draft.with_reason("nodes that Karpenter has replaced stay: while one of them is at the new version, EKS does not roll the control plane back"),
    );
}

fn push_fargate(draft: &mut RouteDraft<'_>) {
    let nodes = touched_nodes(draft, &OtherNodes::Fargate);
    let spec = StepSpec::RestartFargate {
        kubelet: draft.at,
        drain: drain_terms(&draft.plan.drain),
    };
    let time = estimate::FARGATE_POD * u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let step_draft = StepDraft::new(
        "Pods on Fargate are replaced, one workload at a time",
        nodes,
        time,
        spec,
    );
    draft.push_step(
        format!("restart-fargate-{}", draft.at),
        step_draft.with_reason("a Fargate node keeps its version until its pod is replaced"),
    );
}

fn push_auto_mode(draft: &mut RouteDraft<'_>) {
    let nodes = touched_nodes(draft, &OtherNodes::AutoMode);
    let spec = StepSpec::WaitAutoMode {
        kubelet: draft.at,
        timeout: AUTO_MODE_TIMEOUT,
    };
    let time = estimate::NODE * u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let step_draft = StepDraft::new("EKS Auto Mode replaces its nodes", nodes, time, spec);
    draft.push_step(
        format!("wait-auto-mode-{}", draft.at),
        step_draft
            .with_reason("EKS begins once the control plane is newer, and nothing holds it back"),
    );
}
