//! Why green has the size it has.

use crate::model::Inventory;
use crate::plan::parse_plan;
use crate::route::fixture::*;
use crate::route::{StepSpec, build_route};

/// The reason and the title of the step that makes green.
fn green(rest: &str, change: impl FnOnce(&mut Inventory)) -> (String, String) {
    let text = format!("cluster: expense-dev\nto: 1.29\n{rest}");
    let plan = parse_plan("plan.yaml", &text)
        .map_err(|e| e.problems)
        .unwrap();
    let mut inventory = expense_dev();
    change(&mut inventory);
    let route = build_route(&plan, &inventory).unwrap();
    let create = |s: &&crate::route::RouteStep| matches!(s.spec, StepSpec::CreateGreen { .. });
    let step = route.steps.iter().find(create).unwrap();
    (step.why.clone().unwrap(), step.title.clone())
}

#[test]
fn a_size_that_is_what_eks_says_of_blue_needs_no_reason() {
    let (why, _) = green("", |_| {});
    assert!(!why.contains("blue's"), "{why}");
}

#[test]
fn a_size_the_autoscaler_has_moved_is_explained() {
    let (why, title) = green("", |i| i.nodegroups[0].scaling.desired = 2);
    assert!(title.contains("3 nodes"), "{title}");
    assert!(
        why.contains("set to 3 nodes now, where EKS says 2"),
        "{why}"
    );
}

#[test]
fn a_node_more_for_a_volumes_zone_is_explained() {
    let (why, title) = green("", |i| {
        i.nodegroups[0].scaling.desired = 2;
        i.asgs.get_mut("eks-expense-blue").unwrap().desired = 2;
    });
    assert!(title.contains("3 nodes"), "{title}");
    assert!(why.contains("3 nodes for blue's 2"), "{why}");
}

#[test]
fn a_green_that_starts_small_says_that_it_grows() {
    let (why, _) = green(
        "nodeGroups: [{blue: expense-blue, capacity: {surge: 1}}]\n",
        |_| {},
    );
    assert!(why.contains("starts with 1 nodes for blue's 3"), "{why}");
}
