//! Blues that go with their CloudFormation stacks.

use super::{ids, plan};
use crate::model::Inventory;
use crate::plan::windows_and_approvals::STEP_KINDS;
use crate::route::fixture::*;
use crate::route::*;

const STACK: &str = "arn:aws:cloudformation:us-east-1:123456789012:stack/nodes/1a";

fn cluster_of_stack() -> Inventory {
    let mut inventory = expense_dev();
    let tags = [
        ("aws:cloudformation:stack-name", "nodes"),
        ("aws:cloudformation:stack-id", STACK),
    ];
    inventory.nodegroups[0].tags = string_map(tags);
    inventory
}

#[test]
fn a_blue_of_a_stack_goes_down_to_zero_and_its_stack_is_deleted_last() {
    let plan = plan(
        "cluster: expense-dev\nto: 1.29\nnodeGroups: [{blue: expense-blue, deleteOwned: stack}]\n",
    );
    let route = build_route(&plan, &cluster_of_stack()).unwrap();
    let of = |id: &str| route.steps.iter().position(|s| s.id == id).unwrap();
    let (retire, stack) = (of("retire-expense-blue"), of("delete-stack-expense-blue"));
    assert!(retire < stack, "{:?}", ids(&route));
    assert!(matches!(
        route.steps[retire].spec,
        StepSpec::Retire { delete: false, .. }
    ));
    let StepSpec::DeleteStack { stack, .. } = &route.steps[stack].spec else {
        panic!("{:?}", route.steps[stack].spec)
    };
    assert_eq!(stack, STACK);
    // An approval can be asked for it.
    let kind = step_gates::step_kind(&route.steps[of("delete-stack-expense-blue")].spec);
    assert!(STEP_KINDS.contains(&kind));
    // A rollback is possible until the stack goes.
    let ends: Vec<&str> = { route.steps.iter() }
        .filter(|s| s.spec.deleted_group().is_some())
        .map(|s| s.id.as_str())
        .collect();
    assert_eq!(ends, ["delete-stack-expense-blue"]);
}

#[test]
fn a_stack_is_deleted_only_where_the_plan_says_so() {
    for entry in ["deleteOwned: true", "capacity: full"] {
        let plan = plan(&format!(
            "cluster: expense-dev\nto: 1.29\nnodeGroups: [{{blue: expense-blue, {entry}}}]\n"
        ));
        let route = build_route(&plan, &cluster_of_stack()).unwrap();
        assert!(
            !ids(&route).contains(&"delete-stack-expense-blue"),
            "{entry}"
        );
    }
}
