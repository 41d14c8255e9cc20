//! Where the warm pool of a self-managed group goes from blue, and where it comes to green.

use std::collections::BTreeMap;

use super::draft::{RouteDraft, StepDraft};
use super::group_move::GroupMove;
use super::node_groups::GroupMigration;
use super::{StepSpec, estimate};
use crate::model::Inventory;
use crate::model::eks::Nodegroup;
use crate::model::marks;
use crate::model::node_source::NodeSource;
use crate::model::warm_pool::{WarmPool, has_warmed};

/// The warm pool that moves with a group, and whether an earlier run has begun to remove it; none where it has none.
fn moved_pool(inventory: &Inventory, origin: &Nodegroup) -> Option<(WarmPool, bool)> {
    // The pool of a managed node group is EKS's own, and part of the group.
    if origin.source != NodeSource::AutoScalingGroup {
        return None;
    }
    let asg = inventory.asgs.get(&origin.name)?;
    // What an earlier run removed, or was removing, is told by its mark.
    let mark = asg.tags.iter().find(|t| t.key == marks::WARM_POOL_TAG);
    let before = mark.and_then(|t| WarmPool::parse_tag_value(&t.value));
    let reading = asg.warm_pool.as_ref();
    // One that somebody deletes is not given to green.
    let kept = reading.filter(|r| !(r.deleting || before.is_some() && r.pool.keeps_none()));
    let there = kept.map(|r| (r.pool.clone(), false));
    there.or(before.map(|pool| (pool, true)))
}

/// Whether instances of the group's pool are seen to stay out of the cluster: some have warmed, and none is a node. Where
/// nothing is seen of it, they may be nodes tomorrow.
fn stays_out(inventory: &Inventory, group: &str) -> bool {
    let Some(pool) = inventory.warm_pools.get(group) else {
        return false;
    };
    let warmed = pool.instances.iter().any(|i| has_warmed(&i.lifecycle));
    warmed && !inventory.nodes.iter().any(|n| pool.has_node(n))
}

/// Adds the steps that remove warm pools whose instances are nodes, or may be, before anything else: once they stop they keep
/// add-ons from being whole (EKS-ADD-12).
pub fn push_early_removals(draft: &mut RouteDraft<'_>, movers: &[GroupMigration<'_>]) {
    for origin in movers.iter().map(|m| m.origin) {
        if !stays_out(draft.inventory, &origin.name) {
            push_removal(
                draft,
                origin,
                "its instances are nodes while they warm, or may be: once they stop, EKS takes an add-on for unhealthy whose pods on them are missing, and its update would fail",
            );
        }
    }
}

/// Adds the step that removes blue's warm pool before blue is closed, where it has one that is not removed before.
pub fn push_remove_warm_pool(draft: &mut RouteDraft<'_>, m: &GroupMove<'_, '_>) {
    let origin = m.migration.origin;
    // A green of an earlier hop has none.
    if m.blue == origin.name && stays_out(draft.inventory, &origin.name) {
        push_removal(
            draft,
            origin,
            "instances that warm may register as nodes and stop again, and pods that leave blue would come to them; at zero nodes the pool would fill",
        );
    }
}

fn push_removal(draft: &mut RouteDraft<'_>, origin: &Nodegroup, why: &str) {
    let Some((pool, removed_before)) = moved_pool(draft.inventory, origin) else {
        return;
    };
    let blue = &origin.name;
    draft.add_note_once(format!(
        "Auto Scaling group {blue}: its warm pool ({}) is deleted, and green gets the same one when its last blue is empty; in between neither has one, and grows by new instances.",
        pool.describe(),
    ));
    let spec = StepSpec::RemoveWarmPool {
        blue: blue.clone(),
        pool,
        removed_before,
    };
    let title = format!("Warm pool of {blue}: emptied and deleted");
    let touches = [format!("warm pool of {blue}")];
    let step_draft = StepDraft::new(title, touches, estimate::REMOVE_WARM_POOL, spec);
    let id = format!("remove-warm-pool-{blue}");
    draft.push_step(id, step_draft.with_reason(why));
}

/// Adds the step that gives green the warm pool that its origin had: only at the end of its way, as no add-on moves after that.
pub fn push_add_warm_pool(draft: &mut RouteDraft<'_>, m: &GroupMove<'_, '_>) {
    if draft.at == draft.plan.to {
        push_addition(draft, m.migration.origin, &m.green);
    }
}

/// Adds it for groups whose last migration came before the last hop. `names`: who stands for each origin by now.
pub fn push_late_additions(
    draft: &mut RouteDraft<'_>,
    movers: &[GroupMigration<'_>],
    names: &BTreeMap<String, String>,
) {
    for origin in movers.iter().map(|m| m.origin) {
        let stands = names.get(&origin.name).filter(|name| **name != origin.name);
        let Some(green) = stands else { continue };
        let given = |spec: &StepSpec| matches!(spec, StepSpec::AddWarmPool { green: to, .. } if to == green);
        if !draft.steps.iter().any(|s| given(&s.spec)) {
            push_addition(draft, origin, green);
        }
    }
}

fn push_addition(draft: &mut RouteDraft<'_>, origin: &Nodegroup, green: &str) {
    let Some((pool, _)) = moved_pool(draft.inventory, origin) else {
        return;
    };
    let title = format!("Warm pool of {green}: {}", pool.describe());
    let spec = StepSpec::AddWarmPool {
        green: green.to_owned(),
        pool,
    };
    let touches = [format!("warm pool of {green}")];
    let step_draft = StepDraft::new(title, touches, estimate::ADD_WARM_POOL, spec);
    draft.push_step(
        format!("add-warm-pool-{green}"),
        step_draft.with_reason(
            "no pod looks for a place any more that an instance which warms could take",
        ),
    );
}
