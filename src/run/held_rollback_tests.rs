//! A rollback's words, and what a run holds for its whole length. All pure.

use super::journal_status::status_lines;
use super::rollback_scope::{RollbackScope, compute_scope};
use super::rollback_tests::{gone, route, run, there};
use crate::journal::StepStatus;
use crate::model::warm_pool::WarmPool;
use crate::route::{self, Route};

/// The route with a NodePool that is held from its first step on, and blue's warm pool removed.
fn route_that_holds() -> Route {
    let mut route = route();
    let first = route.steps[0].clone();
    let held = [
        (
            "hold-pool-general",
            route::StepSpec::HoldPool {
                pool: "general".into(),
                all_reasons: false,
            },
        ),
        (
            "remove-warm-pool-expense-blue",
            route::StepSpec::RemoveWarmPool {
                blue: "expense-blue".into(),
                pool: WarmPool {
                    min: 1,
                    max_prepared: None,
                    state: "Stopped".into(),
                    reuse: false,
                },
                removed_before: false,
            },
        ),
    ];
    let held = held.map(|(id, spec)| route::RouteStep {
        id: id.into(),
        spec,
        ..first.clone()
    });
    route.steps.splice(0..0, held);
    route
}

/// The run's end would let them go; a rollback that stops before them left them held for good.
#[test]
fn what_is_held_from_the_beginning_is_let_go_however_far_a_rollback_goes() {
    let route = route_that_holds();
    let held = ["hold-pool-general", "remove-warm-pool-expense-blue"];
    let undone = |found: &RollbackScope| held.map(|id| found.undone.iter().any(|s| s == id));
    let state = run(&route, "drain-expense-blue");
    let with_the_hop = compute_scope(&state, &route, true, &there());
    assert_eq!(undone(&with_the_hop), [true, true]);
    // A blue that is gone gets nothing back, and the rest does.
    let state = run(&route, "retire-expense-blue");
    let bounded = compute_scope(&state, &route, false, &gone());
    assert_eq!(undone(&bounded), [true, false]);
    assert!(bounded.is_too_late());
}

#[test]
fn a_rollback_that_leaves_the_control_plane_says_that_karpenter_follows_it() {
    let route = route_that_holds();
    let state = run(&route, "drain-expense-blue");
    let later = |flag| compute_scope(&state, &route, flag, &there()).later;
    assert_eq!(later(false).len(), 1);
    assert!(later(false)[0].contains("general"), "{:?}", later(false));
    assert_eq!(later(true), Vec::<String>::new());
}

/// A reader took a rollback for an upgrade.
#[test]
fn a_control_plane_and_a_green_that_are_rolled_back_are_said_to_be() {
    let route = route();
    let mut state = run(&route, "drain-expense-blue");
    for step in &mut state.steps {
        if ["control-plane-1.29", "green-expense-green"].contains(&step.id.as_str()) {
            step.status = StepStatus::Undoing;
        }
    }
    let lines = status_lines(&state, &route, None).join("\n");
    assert!(
        lines.contains("control plane: being rolled back from 1.29 to 1.28"),
        "{lines}"
    );
    assert!(lines.contains("being deleted"), "{lines}");
}
