//! Nodes that the plan does not move, and the consent to leave them.

use super::{codes, plan};
use crate::model::Inventory;
use crate::route::build_route;
use crate::route::fixture::*;

/// A hybrid node and one of nobody, four minors behind the target.
fn with_old_nodes() -> Inventory {
    let mut i = empty_cluster("c", 27);
    for name in ["rack-1", "by-hand"] {
        i.nodes.push(unmanaged_node(name, 24, "us-east-1a"));
    }
    let kind = "eks.amazonaws.com/compute-type".to_owned();
    i.nodes[0].labels.insert(kind, "hybrid".to_owned());
    i
}

#[test]
fn a_hybrid_node_out_of_skew_is_refused_with_nodeadm_and_one_of_nobody_with_its_replacement() {
    let problems = build_route(&plan("cluster: c\nto: 1.28\n"), &with_old_nodes()).unwrap_err();
    let told: Vec<(&str, &str)> = problems
        .iter()
        .map(|p| (p.subject.as_str(), p.fix.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (
                "hybrid node rack-1",
                "drain it and run `nodeadm upgrade 1.25 --config-source file://NODECONFIG` on it first, or write `otherNodes: leave` to leave it as it is"
            ),
            (
                "node by-hand",
                "it belongs to no managed node group: replace it by hand with kubelet 1.25 or newer first, or write `otherNodes: leave` to leave it as it is"
            ),
        ]
    );
}

#[test]
fn nodes_of_no_group_are_left_by_consent_and_the_plan_names_them() {
    let consent = plan("cluster: c\nto: 1.28\notherNodes: leave\n");
    let mut i = with_old_nodes();
    i.nodes[1].kubelet_version = "custom".to_owned();
    let route = build_route(&consent, &i).unwrap();
    let note = "Left as they are, as the plan says (`otherNodes: leave`): hybrid node rack-1 (v1.24.16-eks-473151a), node by-hand (custom).";
    assert!(route.notes.iter().any(|n| n == note), "{:?}", route.notes);
    // It says nothing of node groups and Fargate, which have keys of their own.
    let kind = "eks.amazonaws.com/compute-type".to_owned();
    i.nodes[0].labels.insert(kind, "fargate".to_owned());
    let fargate = "otherNodes: leave\nfargate: leave\n";
    let left = plan(&format!("cluster: c\nto: 1.28\n{fargate}"));
    assert_eq!(codes(&left, &i), ["EKSUP-R003"]);
}
