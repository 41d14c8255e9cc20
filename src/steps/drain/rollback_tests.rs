//! What the rollback of a drain decides of blue's targets.

use super::*;
use crate::steps::drain::act::DrainTarget;
use crate::steps::drain::fixtures::{
    TEST_RUN_ID, closed_node, default_drain_spec, open_node, time_at,
};

fn decide(before: &DrainBeforeImage, seen: &DrainObservation) -> Decision<DrainStepAct> {
    let green = GreenDrain::new("drain", "green", "blue", &default_drain_spec());
    let trail = RollbackHistory::default();
    decide_drain_undo(&green, ("blue", "green"), before, seen, &trail, time_at(0))
}

/// The drain began when `instance` was not in target group `tg`.
fn without(instance: &str) -> DrainBeforeImage {
    let absent = BTreeSet::from([instance.to_owned()]);
    let mut before = DrainBeforeImage::default();
    before.never_registered.insert("tg".to_owned(), absent);
    before
}

#[test]
fn a_node_that_was_never_in_a_target_group_is_not_waited_for_there() {
    let mut seen = DrainObservation {
        run: TEST_RUN_ID.to_owned(),
        nodes: vec![BlueNode::new(
            Arc::new(open_node("n1", "blue", "1a")),
            Arc::default(),
        )],
        returning_nodes: vec![ReturningNode {
            node: "n1".into(),
            instance: "i-1".into(),
            target_group: "tg".into(),
            state: None,
        }],
        ..DrainObservation::default()
    };
    assert!(matches!(decide(&without("i-1"), &seen), Decision::Done(_)));
    let waits = decide(&without("i-2"), &seen);
    assert!(
        matches!(&waits, Decision::Wait { why, .. } if why.contains("n1 in tg (absent)")),
        "{waits:?}"
    );
    // Whoever has registered it since, ELB has not judged it yet.
    seen.returning_nodes[0].state = Some("initial".into());
    assert!(matches!(
        decide(&without("i-1"), &seen),
        Decision::Wait { .. }
    ));
}

#[test]
fn only_what_was_registered_when_the_drain_began_is_registered_again() {
    let target = |instance: &str| DrainTarget {
        instance: instance.into(),
        target_group: "tg".into(),
        port: None,
    };
    let mut begun = closed_node("n1", Some(0));
    (begun.unschedulable, begun.taints) = (false, vec![]);
    let seen = DrainObservation {
        run: TEST_RUN_ID.to_owned(),
        nodes: vec![BlueNode::new(Arc::new(begun), Arc::default())],
        missing_targets: vec![target("i-1"), target("i-2")],
        ..DrainObservation::default()
    };
    assert_eq!(
        decide(&without("i-1"), &seen),
        Decision::Act(DrainStepAct::Unmark {
            nodes: vec!["n1".into()],
            register: vec![target("i-2")],
        })
    );
}
