//! Plan and inventory to a route. Pure: the same two give the same route.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{RouteDraft, StepDraft};
use super::migration::push_migration;
use super::node_groups::{self, GroupMigration, MigrationTrigger};
use super::problem::{Obstacle, RouteProblem};
use super::traffic::{self, TargetGroupPair};
use super::{
    AcceptedLosses, Route, StepSpec, addons, estimate, other_nodes, unmoved_nodes, warm_pools,
};
use crate::model::Inventory;
use crate::model::group_owner::GroupOwner;
use crate::model::{elb, marks};
use crate::plan::{Plan, duration};

/// Draws the route: hops one minor at a time, and as few node migrations as the skew of kubelets allows.
pub fn build_route(plan: &Plan, inventory: &Inventory) -> Result<Route, Vec<RouteProblem>> {
    build_with_trigger(plan, inventory, MigrationTrigger::Skew)
}

/// Draws the route again after EKS refused a hop until node groups match the control plane: they move before every hop.
pub fn replan_for_matching_nodes(
    plan: &Plan,
    inventory: &Inventory,
) -> Result<Route, Vec<RouteProblem>> {
    build_with_trigger(plan, inventory, MigrationTrigger::Match)
}

fn build_with_trigger(
    plan: &Plan,
    inventory: &Inventory,
    rule: MigrationTrigger,
) -> Result<Route, Vec<RouteProblem>> {
    let mut draft = RouteDraft::new(plan, inventory);
    let (from, to) = (inventory.cluster.version, plan.to);
    // Refused before anything else is looked at: no step here goes down.
    if to < from {
        draft.add_problem(
            Obstacle::TargetBehind,
            format!("cluster {}", plan.cluster),
            format!("it is at {from}, and the plan's `to` is {to}"),
            "set a newer `to`; `eksup rollback --control-plane` rolls a recent upgrade back by one minor",
        );
        return Err(draft.problems);
    }
    // Who moves is settled before who serves what, because a pair of target groups matters only where a group moves.
    draft.targets_by_group = super::served_targets::targets_by_group(inventory);
    let movers = node_groups::find_migrations(&mut draft);
    other_nodes::check_replaced_pools(&mut draft, &movers);
    let others = other_nodes::find_other_moves(&mut draft);
    unmoved_nodes::check_unmoved_nodes(&mut draft, &movers, &others);
    if rule == MigrationTrigger::Match {
        check_all_groups_move(&mut draft, &movers);
    }
    let moves = node_groups::schedule_migrations(&movers, from, to, rule);
    let other_moves = other_nodes::schedule_other_moves(&others, from, to);
    let pairs = if movers.is_empty() {
        Vec::new()
    } else {
        traffic::resolve_pairs(&mut draft)
    };
    draft.live_target_groups = pairs
        .iter()
        .map(|p| traffic::live_target_group(inventory, p))
        .collect();
    check_pairs_are_served(&mut draft, &movers, &pairs);
    // On a long way a group moves more than once: `names` holds who stands for it by now.
    let mut names: BTreeMap<String, String> = movers
        .iter()
        .map(|m| (m.origin.name.clone(), m.origin.name.clone()))
        .collect();
    let reserved: BTreeSet<String> = plan.all_groups().filter_map(|g| g.green.clone()).collect();
    other_nodes::push_pool_holds(&mut draft, &others);
    other_nodes::push_blue_pool_holds(&mut draft, &movers);
    warm_pools::push_early_removals(&mut draft, &movers);
    // With no hop ahead the add-ons still have the plan's policy to meet.
    if from == to {
        addons::push_addons_after_hop(&mut draft);
    }
    loop {
        draft.other_nodes = other_moves.get(&draft.at).cloned().unwrap_or_default();
        // Groups move while the control plane stands, before the hop that would leave their kubelets too far behind.
        if let Some(blues) = moves.get(&draft.at) {
            let now: Vec<&GroupMigration<'_>> = order_migrations(plan, &movers)
                .into_iter()
                .filter(|m| blues.contains(&m.origin.name))
                .collect();
            if draft.at < to {
                let list: Vec<&str> = now.iter().map(|m| m.origin.name.as_str()).collect();
                let why = match rule {
                    MigrationTrigger::Skew => format!(
                        "a kubelet may be three minors older than the API server at most (two if the kubelet is older than 1.25), and {to} is further away"
                    ),
                    MigrationTrigger::Match => {
                        "EKS refused a hop until node groups match the control plane".to_owned()
                    }
                };
                draft.add_note(format!(
                    "Node groups {} are first upgraded to {}: {why}.",
                    list.join(", "),
                    draft.at
                ));
            }
            push_migration(&mut draft, &now, &mut names, &pairs, &reserved);
        }
        // Where no node group moves at this version, nothing has taken them along.
        other_nodes::push_other_moves(&mut draft);
        if draft.at >= to {
            break;
        }
        push_hop(&mut draft);
    }
    warm_pools::push_late_additions(&mut draft, &movers, &names);
    other_nodes::push_pool_releases(&mut draft, &others);
    let last: BTreeSet<String> = names
        .iter()
        .filter(|(origin, _)| draft.node_pools.contains(*origin))
        .map(|(_, green)| green.clone())
        .collect();
    other_nodes::push_green_pool_releases(&mut draft, &last);
    // All problems at once, or none: a route with a known obstacle would stop halfway.
    if draft.problems.is_empty() {
        Ok(Route {
            cluster: plan.cluster.clone(),
            from,
            to,
            steps: draft.steps,
            notes: draft.notes,
            accepted_losses: AcceptedLosses::new(),
            self_managed: draft.self_managed,
            node_pools: draft.node_pools,
            owners: movers
                .iter()
                .filter_map(|m| {
                    let owner = GroupOwner::from_tags(&m.origin.tags)?;
                    Some((m.origin.name.clone(), owner))
                })
                .collect(),
        })
    } else {
        Err(draft.problems)
    }
}

/// One minor up, with the add-ons around it.
fn push_hop(draft: &mut RouteDraft<'_>) {
    addons::push_addons_before_hop(draft);
    let (from, to) = (draft.at, draft.at.next());
    // EKS rolls back by one minor only, so only the first hop can bring back the version of today.
    let first = from == draft.inventory.cluster.version;
    let plane = format!("control plane of {}", draft.plan.cluster);
    let spec = StepSpec::ControlPlane {
        from,
        to,
        timeout: draft.plan.control_plane.timeout,
    };
    let mut step_draft = StepDraft::new(
        format!("Control plane {from} to {to}"),
        [plane.clone()],
        estimate::CONTROL_PLANE,
        spec,
    );
    // Only the last hop can be rolled back (EKS-RB-1), so each further one ends the chance of the one before.
    step_draft = if first {
        step_draft.with_reason(format!("EKS can roll the control plane back to {from} for seven days, while no node is newer and no further hop is made"))
    } else {
        step_draft.with_no_return(format!(
            "EKS rolls a control plane back by one minor only: after this hop {} is out of reach",
            from.previous()
        ))
    };
    draft.push_step(format!("control-plane-{to}"), step_draft);
    draft.at = to;
    // The watch stands before the add-ons move: until then nothing stands in the way of EKS's version rollback.
    let bake = draft.plan.control_plane.bake;
    if !bake.is_zero() {
        let spec = StepSpec::Bake {
            what: format!("control plane {to}"),
            time: bake,
        };
        let step_draft = StepDraft::new(
            format!("Watch {to} for {}", duration::format_duration(bake)),
            [plane],
            bake,
            spec,
        );
        draft.push_step(
            format!("bake-control-plane-{to}"),
            step_draft.with_reason(format!(
                "while nodes and add-ons are still at {from}, EKS can roll the control plane back"
            )),
        );
    }
    addons::push_addons_after_hop(draft);
}

/// The movers in the plan's order, or the inventory's where the plan lists none.
fn order_migrations<'m, 'a>(
    plan: &Plan,
    movers: &'m [GroupMigration<'a>],
) -> Vec<&'m GroupMigration<'a>> {
    let place = |m: &&GroupMigration<'_>| {
        plan.all_groups()
            .position(|g| g.blue == m.origin.name)
            .unwrap_or(usize::MAX)
    };
    let mut all: Vec<&GroupMigration<'a>> = movers.iter().collect();
    all.sort_by_key(place);
    all
}

/// A pair that no node group of the route serves would be shifted by nobody.
fn check_pairs_are_served(
    draft: &mut RouteDraft<'_>,
    movers: &[GroupMigration<'_>],
    pairs: &[TargetGroupPair],
) {
    for (pair, live) in pairs.iter().zip(draft.live_target_groups.clone()) {
        // Served by a group that stays, the pair keeps its weights. Served by nobody known, the plan asks for what
        // cannot be done.
        let served = |group: &str| {
            draft
                .targets_by_group
                .get(group)
                .is_some_and(|b| b.contains(&live))
        };
        if let Some(owner) = &pair.node_group {
            check_tied_pair(draft, owner, &live);
            continue;
        }
        if movers.iter().any(|m| served(&m.origin.name)) {
            continue;
        }
        let (blue, green) = (
            elb::short_name(&pair.blue).to_owned(),
            elb::short_name(&pair.green).to_owned(),
        );
        if let Some(other) = draft.inventory.nodegroups.iter().find(|g| served(&g.name)) {
            let note = format!(
                "Target groups {blue} and {green} are served by {}, which does not move: their weights are not changed.",
                other.name
            );
            draft.add_note(note);
        } else {
            draft.add_problem(
                Obstacle::NobodyBehind,
                format!("target group {}", elb::short_name(&live)),
                "the plan shifts its traffic, and no instance of a node group is registered in it or attached to it",
                format!("attach it to blue's Auto Scaling group, or leave the route of {blue} and {green} out"),
            );
        }
    }
}

/// A pair that belongs to a group moves with it, so that nobody else may serve its live target group.
fn check_tied_pair(draft: &mut RouteDraft<'_>, owner: &str, live: &str) {
    let name = elb::short_name(live).to_owned();
    let serves = draft.targets_by_group.iter();
    let serving: Vec<String> = serves
        .filter(|(_, targets)| targets.contains(live))
        .map(|(group, _)| group.clone())
        .collect();
    let find = |group: &str| draft.inventory.find_nodegroup(group);
    // A green that has taken over stands for the group: its run is over, or it is taken up again.
    let is_owner = |group: &String| {
        let cloned_from = find(group).and_then(|g| g.tags.get(marks::CLONED_FROM_TAG));
        group == owner || cloned_from.is_some_and(|blue| blue == owner)
    };
    let others: Vec<&str> = serving
        .iter()
        .filter(|group| !is_owner(group))
        .map(String::as_str)
        .collect();
    let subject = format!("target group {name}");
    if !serving.iter().any(is_owner) {
        let (detail, fix) = match others.as_slice() {
            [] => (
                format!(
                    "a route belongs to node group {owner}, and no instance of a node group is registered in its live target group or attached to it"
                ),
                format!("attach it to the Auto Scaling group of {owner}, or leave the route out"),
            ),
            [first, ..] => (
                format!(
                    "a route belongs to node group {owner}, and its live target group is served by {} instead",
                    others.join(", ")
                ),
                format!("write `nodeGroup: {first}` in the route, or leave `nodeGroup` out"),
            ),
        };
        draft.add_problem(Obstacle::NobodyBehind, subject, detail, fix);
    } else if !others.is_empty() {
        let detail = format!(
            "a route belongs to node group {owner}, and {} too: weights that move with {owner} alone would take the traffic off all of them",
            match others.as_slice() {
                [one] => format!("{one} serves its live target group"),
                many => format!("{} serve its live target group", many.join(", ")),
            }
        );
        let fix = "leave `nodeGroup` out of the route: weights then move for all groups together, before the first of them is emptied".to_owned();
        draft.add_problem(Obstacle::TargetGroupUnfit, subject, detail, fix);
    } else if find(owner)
        .is_some_and(|g| node_groups::oldest_kubelet(draft.inventory, g) >= draft.plan.to)
    {
        draft.add_note(format!(
            "Target group {name}: its route belongs to {owner}, which does not move: its weights stay."
        ));
    }
}

/// With the old rule of EKS no group may stay behind.
fn check_all_groups_move(draft: &mut RouteDraft<'_>, movers: &[GroupMigration<'_>]) {
    for group in &draft.inventory.nodegroups {
        let moved = movers.iter().any(|m| m.origin.name == group.name);
        if !moved
            && !node_groups::is_retired(draft.inventory, group)
            && group.version.is_some_and(|v| v < draft.plan.to)
        {
            draft.add_problem(
                Obstacle::NodeLeftBehind,
                format!("node group {}", group.name),
                "EKS refuses the next hop until every managed node group has the control plane's version, and this plan does not move it",
                "name it under `nodeGroups`, with `ami` if it has a custom AMI",
            );
        }
    }
}
