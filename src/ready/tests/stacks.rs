//! CloudFormation stacks that the plan deletes.

use std::collections::BTreeMap;

use super::*;
use crate::model::stack::{Stack, StackReading, StackResource};

#[test]
fn a_stack_that_the_plan_deletes_must_hold_nothing_but_its_group() {
    let plan = paired("nodeGroups: [{blue: expense-blue, deleteOwned: stack}]\n");
    let name = ("aws:cloudformation:stack-name", "nodes");
    let owned = |i: &mut Inventory| i.nodegroups[0].tags = string_map([name]);
    let reading = |protected: bool| {
        let stack = Stack {
            id: "arn:aws:cloudformation:us-east-1:1:stack/nodes/1".into(),
            name: "nodes".into(),
            status: "CREATE_COMPLETE".into(),
            termination_protection: protected,
            ..Stack::default()
        };
        let group = StackResource {
            logical_id: "Group".into(),
            physical_id: "expense-dev/expense-blue".into(),
            kind: "AWS::EKS::Nodegroup".into(),
        };
        let template = r#"{"Resources": {"Group": {}}}"#.to_owned();
        StackReading::new(stack, vec![group], template, BTreeMap::new())
    };
    let read = |protected: bool| {
        with(&plan, |i| {
            owned(i);
            i.stacks.insert("expense-blue".into(), reading(protected));
        })
    };
    assert_eq!(of(&read(false), Code::StackHeld), []);
    assert_eq!(of(&read(false), Code::GroupOwned), []);
    let subject = "CloudFormation stack nodes of expense-blue";
    only(&read(true), Code::StackHeld, Severity::Blocker, subject);
    // What could not be read is no consent, and neither is a group of no stack.
    only(
        &with(&plan, owned),
        Code::StackHeld,
        Severity::Blocker,
        subject,
    );
    let subject = "node group expense-blue";
    only(
        &judged(&plan, &expense_dev()),
        Code::StackHeld,
        Severity::Blocker,
        subject,
    );
}
