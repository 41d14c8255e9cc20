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

/// What a change set would do beside changing metadata and policies. An attribute of another resource changes only where
/// that one does, which is told of itself (CFN-20).
fn changes_resources(set: &StackChangeSet) -> Option<String> {
    let harmful = set.changes.iter().find(|change| {
        let change = &change["ResourceChange"];
        let counts = |what: &Value| matches!(what.as_str(), Some("Properties" | "Tags"));
        let list = |key: &str| change[key].as_array().into_iter().flatten();
        let follows = |d: &Value| d["ChangeSource"] == "ResourceAttribute";
        let mut details = list("Details")
            .filter(|d| counts(&d["Target"]["Attribute"]))
            .peekable();
        let only_follows = details.peek().is_some() && details.all(follows);
        change["Action"] != "Modify" || (list("Scope").any(counts) && !only_follows)
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

/// What the end of a run has left of its doing in CloudFormation, or lost there; `done` where the run says that it is done.
pub fn find_stack_losses(world: &SimWorld, done: bool) -> Vec<String> {
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
        // One whose deletion has failed cannot be updated any more (CFN-12); a run that is done has none.
        let is_stranded = stack.status == "DELETE_FAILED" && !done;
        if !is_stranded && stack.template.contains(MARK) {
            out.push(format!("the template of stack {} has a mark", stack.name));
        }
        let waiting = { cfn.change_sets.values() }
            .filter(|s| s.stack == stack.id && s.name.starts_with(OWN_CHANGE_SETS) && !s.is_past());
        out.extend(waiting.map(|s| format!("change set {} is left", s.name)));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chaos::invariants::UpgradeTerms;
    use crate::twin::scenario;

    const STACK: &str = "eksctl-eksctl-nodegroup-apps";

    fn world() -> SimWorld {
        scenario::load_world(&scenario::find_scenario("eksctl").unwrap(), 7)
    }

    fn laws() -> Invariants {
        Invariants::new(UpgradeTerms {
            stacks: [(STACK.to_owned(), "apps".to_owned())].into(),
            ..UpgradeTerms::default()
        })
    }

    fn forbidden(world: &SimWorld, op: &str, stack: &str, set: &str) -> String {
        let input = json!({"StackName": stack, "ChangeSetName": set});
        forbidden_stack_request(&laws(), world, op, &input).unwrap_or_default()
    }

    /// Gives the stack's resources a policy, all but the group.
    fn retain_others(world: &mut SimWorld) {
        let stack = world.cloud.cloudformation.find_stack_mut(STACK).unwrap();
        let mut template: Value = serde_json::from_str(&stack.template).unwrap();
        for (id, resource) in template["Resources"].as_object_mut().unwrap() {
            if id != "ManagedNodeGroup" {
                resource["DeletionPolicy"] = json!("Retain");
            }
        }
        stack.template = template.to_string();
    }

    #[test]
    fn a_stack_goes_only_by_plan_and_with_nothing_but_an_empty_group() {
        let mut world = world();
        let other = "eksctl-eksctl-nodegroup-jobs";
        let said = forbidden(&world, "DeleteStack", other, "");
        assert!(said.contains("is not in the plan"), "{said}");
        let said = forbidden(&world, "DeleteStack", STACK, "");
        assert!(said.contains("NodeInstanceRole"), "{said}");
        retain_others(&mut world);
        let said = forbidden(&world, "DeleteStack", STACK, "");
        assert!(said.contains("still has 3 instances"), "{said}");
        // Empty, it may go.
        world
            .cloud
            .asgs
            .retain(|_, asg| asg.nodegroup.as_deref() != Some("apps"));
        assert_eq!(forbidden(&world, "DeleteStack", STACK, ""), "");
    }

    #[test]
    fn a_change_set_of_somebody_else_stays_and_none_changes_what_runs() {
        let mut world = world();
        let said = forbidden(&world, "DeleteChangeSet", STACK, "release-7");
        assert!(said.contains("release-7 is not the run's"), "{said}");
        let stack = world
            .cloud
            .cloudformation
            .find_stack(STACK)
            .unwrap()
            .id
            .clone();
        let follows =
            json!([{"Target": {"Attribute": "Properties"}, "ChangeSource": "ResourceAttribute"}]);
        for (scope, details, allowed) in [
            ("Metadata", json!([]), true),
            ("Properties", json!([]), false),
            ("Properties", follows, true),
        ] {
            let change = json!({"ResourceChange": {"Action": "Modify", "Scope": [scope], "Details": details}});
            let set = StackChangeSet {
                name: "eksup-keep-1".into(),
                stack: stack.clone(),
                changes: vec![change],
                ..StackChangeSet::default()
            };
            world.cloud.cloudformation.change_sets = [("set".to_owned(), set)].into();
            let said = forbidden(&world, "ExecuteChangeSet", STACK, "eksup-keep-1");
            assert_eq!(said.is_empty(), allowed, "{scope}: {said}");
        }
    }

    #[test]
    fn what_a_run_has_lost_or_left_in_a_stack_is_found() {
        let mut world = world();
        assert_eq!(find_stack_losses(&world, true), Vec::<String>::new());
        world.cloud.deleted.stripped_roles.insert("role-1".into());
        let stack = world.cloud.cloudformation.find_stack_mut(STACK).unwrap();
        stack.template = stack
            .template
            .replacen('{', "{\"Metadata\": {\"eksup.dev\": 1},", 1);
        let set = StackChangeSet {
            name: "eksup-keep-1".into(),
            stack: stack.id.clone(),
            ..StackChangeSet::default()
        };
        let sets = &mut world.cloud.cloudformation.change_sets;
        sets.insert("set".to_owned(), set);
        let found = find_stack_losses(&world, false).join("; ");
        for what in ["role-1 went", "has a mark", "eksup-keep-1 is left"] {
            assert!(found.contains(what), "{what}: {found}");
        }
        // Nobody can write the template of a stack whose deletion has failed.
        let stack = world.cloud.cloudformation.find_stack_mut(STACK).unwrap();
        stack.status = "DELETE_FAILED".to_owned();
        let found = find_stack_losses(&world, false).join("; ");
        assert!(!found.contains("has a mark"), "{found}");
        let found = find_stack_losses(&world, true).join("; ");
        assert!(found.contains("has a mark"), "{found}");
    }
}
