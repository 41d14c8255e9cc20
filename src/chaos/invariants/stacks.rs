//! CloudFormation stacks: only those of the plan go, each with a group that has no node, and nothing else goes with it.

use serde_json::Value;

use super::Invariants;
use crate::twin::aws::{CloudFormationStack, StackChangeSet, scaling};
use crate::twin::world::SimWorld;

/// What a run names its change sets after.
const OWN_CHANGE_SETS: &str = "eksup-";
/// What a run leaves in a template while it has changed it.
const MARK: &str = "eksup.dev";

/// Why a request about a stack is not the upgrade's to make.
pub fn forbidden_stack_request(
    laws: &Invariants,
    world: &SimWorld,
    op: &str,
    input: &Value,
) -> Option<String> {
    let text = |key: &str| input.get(key).and_then(Value::as_str).unwrap_or_default();
    let named = text("StackName");
    let stack = world.cloud.cloudformation.find_stack(named)?;
    let Some(group) = laws
        .terms
        .stacks
        .get(&stack.id)
        .or(laws.terms.stacks.get(&stack.name))
    else {
        return Some(format!("{op}: stack {} is not in the plan", stack.name));
    };
    let set = text("ChangeSetName");
    match op {
        "DeleteChangeSet" if !set.starts_with(OWN_CHANGE_SETS) => {
            Some(format!("change set {set} is not the run's"))
        }
        "ExecuteChangeSet" => {
            let sets = world.cloud.cloudformation.change_sets.values();
            let mut sets = sets.filter(|s| s.stack == stack.id && s.name == set);
            sets.next().and_then(changes_resources)
        }
        "DeleteStack" => unkept_resources(stack, group).or_else(|| nodes_of(world, group)),
        _ => None,
    }
}

/// What a change set would do beside changing metadata and policies.
fn changes_resources(set: &StackChangeSet) -> Option<String> {
    let harmful = set.changes.iter().find(|change| {
        let change = &change["ResourceChange"];
        let scope = change["Scope"].as_array().into_iter().flatten();
        let mut scope = scope.filter_map(Value::as_str);
        change["Action"] != "Modify" || scope.any(|s| matches!(s, "Properties" | "Tags"))
    });
    harmful.map(|change| format!("change set {} has {change}", set.name))
}

/// What else than the group would go with the stack.
fn unkept_resources(stack: &CloudFormationStack, group: &str) -> Option<String> {
    let template: Value = serde_json::from_str(&stack.template).unwrap_or_default();
    let of_group = |physical: &str| physical.rsplit('/').next() == Some(group);
    let goes: Vec<&str> = { stack.resources.values() }
        .filter(|r| !of_group(&r.physical_id))
        .filter(|r| template["Resources"][&r.logical_id]["DeletionPolicy"] != "Retain")
        .map(|r| r.logical_id.as_str())
        .collect();
    (!goes.is_empty()).then(|| format!("with stack {} go {}", stack.name, goes.join(", ")))
}

/// Nodes that the group still has.
fn nodes_of(world: &SimWorld, group: &str) -> Option<String> {
    let groups = scaling::list_groups(world).into_iter();
    let n: usize = groups
        .filter(|g| g.nodegroup == group || g.name == group)
        .map(|g| g.instances.len())
        .sum();
    (n > 0).then(|| format!("group {group} still has {n} instances"))
}

/// What the end of a run has left of its doing in CloudFormation, or lost there.
pub fn find_stack_losses(world: &SimWorld) -> Vec<String> {
    let deleted = &world.cloud.deleted;
    let lost = [
        &deleted.instance_profiles,
        &deleted.roles,
        &deleted.stripped_roles,
        &deleted.security_groups,
    ];
    let lost = lost.into_iter().flatten();
    let mut out: Vec<String> = lost
        .map(|what| format!("{what} went with a stack"))
        .collect();
    let cfn = &world.cloud.cloudformation;
    for stack in cfn.live_stacks() {
        if stack.template.contains(MARK) {
            out.push(format!("the template of stack {} has a mark", stack.name));
        }
        let waiting = { cfn.change_sets.values() }
            .filter(|s| s.stack == stack.id && s.name.starts_with(OWN_CHANGE_SETS) && !s.is_past());
        out.extend(waiting.map(|s| format!("change set {} is left", s.name)));
    }
    out
}
