use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::model::stack::{Stack, StackChange, StackResource};

const ID: &str = "arn:aws:cloudformation:us-east-1:123456789012:stack/eksctl-dev-nodegroup-blue/1a";
const TEMPLATE: &str = r#"{"Resources": {"ManagedNodeGroup": {"Type": "AWS::EKS::Nodegroup"}, "Role": {"Type": "AWS::IAM::Role"}}}"#;

fn started() -> Timestamp {
    "2026-11-20T08:00:00Z".parse().unwrap()
}

fn step() -> StackDeletionStep {
    let id = "delete-stack-blue".to_owned();
    StackDeletionStep::new(id, "2026-11-20.a".into(), "blue".into(), ID.into())
}

/// A stack at rest, and blue in it at zero nodes.
fn at_rest(template: &str) -> StackDeletionObservation {
    let stack = Stack {
        id: ID.into(),
        name: "eksctl-dev-nodegroup-blue".into(),
        status: "CREATE_COMPLETE".into(),
        ..Stack::default()
    };
    let resource = |logical: &str, kind: &str, physical: &str| StackResource {
        logical_id: logical.into(),
        physical_id: physical.into(),
        kind: kind.into(),
    };
    let resources = vec![
        resource("ManagedNodeGroup", "AWS::EKS::Nodegroup", "dev/blue"),
        resource("Role", "AWS::IAM::Role", "role"),
    ];
    StackDeletionObservation {
        stack: Some(StackReading::new(
            stack,
            resources,
            template.into(),
            Default::default(),
        )),
        logical_id: Some("ManagedNodeGroup".into()),
        ..StackDeletionObservation::default()
    }
}

/// The same with the template that keeps all but blue.
fn keeping() -> StackDeletionObservation {
    let template = read_template(TEMPLATE).unwrap();
    at_rest(
        &template
            .keep_all_but("ManagedNodeGroup", "r", &[])
            .unwrap()
            .text,
    )
}

fn change_set(status: &str, execution: &str, scope: &str) -> Option<ChangeSet> {
    Some(ChangeSet {
        status: status.into(),
        status_reason: Some("its reason".into()),
        execution_status: execution.into(),
        changes: vec![StackChange {
            logical_id: "Role".into(),
            action: "Modify".into(),
            scope: vec![scope.into()],
            replacement: Some("False".into()),
            follows: false,
        }],
    })
}

/// A step's past whose last act was begun `seconds` before [`now`].
fn after(act: &StackDeletionAct, seconds: i64) -> StepHistory {
    StepHistory {
        started_at: Some(started()),
        last_act: Some(serde_json::to_value(act).unwrap()),
        last_act_at: Some(now() - SignedDuration::from_secs(seconds)),
        acts: 1,
        ..StepHistory::default()
    }
}

fn now() -> Timestamp {
    started() + SignedDuration::from_mins(30)
}

fn attempt() -> CallAttempt {
    CallAttempt::default()
}

fn next(seen: &StackDeletionObservation, past: &StepHistory) -> Decision<StackDeletionAct> {
    step().decide_next(seen, past, now())
}

fn refusal(decision: Decision<StackDeletionAct>) -> String {
    match decision {
        Decision::Refuse(refusal) => refusal.why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_template_is_changed_first_and_the_stack_deleted_only_then() {
    let fresh = StepHistory::default();
    let create = StackDeletionAct::CreateChangeSet {
        restore: false,
        attempt: attempt(),
    };
    assert_eq!(next(&at_rest(TEMPLATE), &fresh), Decision::Act(create));
    let mut made = at_rest(TEMPLATE);
    made.keeping = change_set("CREATE_COMPLETE", "AVAILABLE", "DeletionPolicy");
    let execute = StackDeletionAct::ExecuteChangeSet {
        restore: false,
        attempt: attempt(),
    };
    assert_eq!(next(&made, &fresh), Decision::Act(execute.clone()));
    // What was asked a moment ago is not asked again.
    assert!(matches!(
        next(&made, &after(&execute, 5)),
        Decision::Wait { .. }
    ));
    let delete = StackDeletionAct::DeleteStack { attempt: attempt() };
    assert_eq!(next(&keeping(), &fresh), Decision::Act(delete.clone()));
    assert!(matches!(
        next(&keeping(), &after(&delete, 5)),
        Decision::Wait { .. }
    ));
    assert!(matches!(
        next(&StackDeletionObservation::default(), &fresh),
        Decision::Done(_)
    ));
}

#[test]
fn a_change_set_that_would_change_what_runs_is_not_carried_out() {
    let mut seen = at_rest(TEMPLATE);
    seen.keeping = change_set("CREATE_COMPLETE", "AVAILABLE", "Properties");
    let create = StackDeletionAct::CreateChangeSet {
        restore: false,
        attempt: attempt(),
    };
    let why = refusal(next(&seen, &after(&create, 60)));
    assert!(why.contains("would also modify Role (Properties)"), "{why}");
}

#[test]
fn what_an_earlier_attempt_left_is_made_again() {
    let discard = StackDeletionAct::DiscardChangeSet { restore: false };
    for (status, execution) in [
        ("FAILED", "UNAVAILABLE"),
        ("CREATE_COMPLETE", "OBSOLETE"),
        ("CREATE_COMPLETE", "EXECUTE_FAILED"),
    ] {
        let mut seen = at_rest(TEMPLATE);
        seen.keeping = change_set(status, execution, "Metadata");
        assert_eq!(
            next(&seen, &StepHistory::default()),
            Decision::Act(discard.clone()),
            "{status} {execution}"
        );
    }
    // Of this attempt's own a person is told.
    let mut seen = at_rest(TEMPLATE);
    seen.keeping = change_set("FAILED", "UNAVAILABLE", "Metadata");
    let create = StackDeletionAct::CreateChangeSet {
        restore: false,
        attempt: attempt(),
    };
    let why = refusal(next(&seen, &after(&create, 60)));
    assert!(why.contains("its reason"), "{why}");
}

#[test]
fn a_stack_that_holds_more_or_a_blue_with_nodes_is_not_deleted() {
    let mut more = keeping();
    more.problems = vec!["it also holds Cluster (AWS::EKS::Cluster)".into()];
    assert!(refusal(next(&more, &StepHistory::default())).contains("also holds Cluster"));
    let mut grown = keeping();
    grown.nodes = 2;
    assert!(refusal(next(&grown, &StepHistory::default())).contains("has nodes again (2)"));
    let mut failed = keeping();
    let stack = &mut failed.stack.as_mut().unwrap().stack;
    (stack.status, stack.status_reason) = ("DELETE_FAILED".into(), Some("in use".into()));
    // Whoever takes the run up again has set it right; a stack that would take more with it stays.
    let delete = StackDeletionAct::DeleteStack { attempt: attempt() };
    let why = refusal(next(&failed, &after(&delete, 60)));
    assert!(why.contains("DELETE_FAILED (in use)"), "{why}");
    assert_eq!(
        next(&failed, &StepHistory::default()),
        Decision::Act(delete.clone())
    );
    // Blue may be out of it by then.
    failed.logical_id = None;
    assert_eq!(
        next(&failed, &StepHistory::default()),
        Decision::Act(delete.clone())
    );
    let mut unprepared = at_rest(TEMPLATE);
    unprepared.stack.as_mut().unwrap().stack.status = "DELETE_FAILED".into();
    assert!(refusal(next(&unprepared, &StepHistory::default())).contains("DELETE_FAILED"));
    // CloudFormation gives a deletion up at once where an export is in use, and says so in the reason alone.
    let mut given_up = keeping();
    let stack = &mut given_up.stack.as_mut().unwrap().stack;
    stack.status_reason = Some("export in use".into());
    let delete = StackDeletionAct::DeleteStack { attempt: attempt() };
    let why = refusal(next(&given_up, &after(&delete, 60)));
    assert!(why.contains("export in use"), "{why}");
}

#[test]
fn a_group_that_is_still_shown_after_its_stack_is_waited_for_as_reads_may_be_old() {
    let mut seen = StackDeletionObservation {
        group: Some(crate::route::fixture::expense_dev().nodegroups[0].clone()),
        ..StackDeletionObservation::default()
    };
    let delete = StackDeletionAct::DeleteStack { attempt: attempt() };
    assert!(matches!(
        next(&seen, &after(&delete, 60)),
        Decision::Wait { .. }
    ));
    let why = refusal(next(&seen, &after(&delete, 2 * 60 * 60)));
    assert!(why.contains("is still shown, after 60 minutes"), "{why}");
    seen.group = None;
    assert!(matches!(
        next(&seen, &after(&delete, 60)),
        Decision::Done(_)
    ));
}

#[test]
fn a_change_of_somebody_else_is_waited_for_and_a_person_asked_after_an_hour() {
    let mut busy = keeping();
    busy.stack.as_mut().unwrap().stack.status = "UPDATE_IN_PROGRESS".into();
    let past = StepHistory {
        started_at: Some(started()),
        ..StepHistory::default()
    };
    assert!(matches!(next(&busy, &past), Decision::Wait { .. }));
    let late = started() + SignedDuration::from_mins(61);
    let why = refusal(step().decide_next(&busy, &past, late));
    assert!(
        why.contains("UPDATE_IN_PROGRESS, after 60 minutes"),
        "{why}"
    );
}

#[test]
fn a_rollback_restores_the_template_and_nothing_after_the_deletion() {
    let before = StackDeletionBeforeImage {
        arn: None,
        stack: Some(ID.into()),
    };
    let undo = |seen: &StackDeletionObservation, trail: &RollbackHistory| {
        step().decide_undo(&before, seen, trail, now())
    };
    let trail = RollbackHistory::default();
    assert!(matches!(
        undo(&at_rest(TEMPLATE), &trail),
        Decision::Done(_)
    ));
    // A change set that was not carried out goes.
    let mut made = at_rest(TEMPLATE);
    made.keeping = change_set("CREATE_COMPLETE", "AVAILABLE", "Metadata");
    let discard = StackDeletionAct::DiscardChangeSet { restore: false };
    assert_eq!(undo(&made, &trail), Decision::Act(discard));
    // What was carried out is brought back by another.
    assert!(matches!(
        undo(&keeping(), &trail),
        Decision::Act(StackDeletionAct::CreateChangeSet { restore: true, .. })
    ));
    // One that cannot be brought back holds nothing up.
    let mut failed = keeping();
    failed.restoring = change_set("FAILED", "UNAVAILABLE", "Metadata");
    let create = StackDeletionAct::CreateChangeSet {
        restore: true,
        attempt: attempt(),
    };
    let tried = RollbackHistory {
        rollback: after(&create, 60),
        ..RollbackHistory::default()
    };
    let Decision::Done(how) = undo(&failed, &tried) else {
        panic!("it is not left as it is");
    };
    assert!(how.contains("keeps DeletionPolicy Retain"), "{how}");
    // Once it is being deleted nothing brings blue back; and a stack of the same name is another.
    let mut going = keeping();
    going.stack.as_mut().unwrap().stack.status = "DELETE_IN_PROGRESS".into();
    assert!(refusal(undo(&going, &trail)).contains("cannot be brought back"));
    // A deletion that failed before blue leaves blue to be rolled back to.
    going.stack.as_mut().unwrap().stack.status = "DELETE_FAILED".into();
    going.group = Some(crate::route::fixture::expense_dev().nodegroups[0].clone());
    assert!(matches!(undo(&going, &trail), Decision::Done(_)));
    going.group.as_mut().unwrap().status = NodegroupStatus::DeleteFailed;
    assert!(refusal(undo(&going, &trail)).contains("cannot be brought back"));
    let mut other = keeping();
    other.stack.as_mut().unwrap().stack.id = "arn:another".into();
    assert!(refusal(undo(&other, &trail)).contains("is deleted"));
    // A deletion that was asked for a moment ago may not show yet.
    let asked = RollbackHistory {
        forward: after(&StackDeletionAct::DeleteStack { attempt: attempt() }, 5),
        ..RollbackHistory::default()
    };
    assert!(matches!(undo(&keeping(), &asked), Decision::Wait { .. }));
}

#[test]
fn acts_are_journaled_as_they_are_read() {
    let act = StackDeletionAct::CreateChangeSet {
        restore: true,
        attempt: attempt(),
    };
    let value = serde_json::to_value(&act).unwrap();
    assert_eq!(
        value,
        json!({"create-change-set": {"restore": true, "attempt": 0}})
    );
    // CloudFormation takes letters, digits and hyphens in a name.
    assert_eq!(step().change_set_name(false), "eksup-keep-2026-11-20-a");
}
