//! What could not be read, or is no version, is never taken for what the plan hopes for.

use super::{codes, ids, plan};
use crate::route::build_route;
use crate::route::fixture::*;

#[test]
fn a_node_left_behind_whose_kubelet_tells_no_version_is_a_problem_and_a_provisioners_is_not() {
    let mut own = empty_cluster("c", 27);
    let mut node = unmanaged_node("by-hand", 27, "us-east-1a");
    node.kubelet_version = "custom".to_owned();
    own.nodes.push(node);
    let plan = plan("cluster: c\nto: 1.28\n");
    assert_eq!(codes(&plan, &own), ["EKSUP-R003"]);
    let labels = &mut own.nodes[0].labels;
    labels.insert("karpenter.sh/nodepool".to_owned(), "default".to_owned());
    assert!(build_route(&plan, &own).is_ok());
}

#[test]
fn a_network_add_on_whose_version_tells_no_numbers_is_not_new_enough_for_al2023() {
    let mut i = empty_cluster("c", 29);
    add_group(&mut i, "apps", 28, 3);
    add_addon(&mut i, "vpc-cni", "custom");
    add_offers(&mut i, "vpc-cni", 29, &["custom"]);
    let minimal = plan("cluster: c\nto: 1.29\naddons: {policy: minimal}\n");
    assert_eq!(codes(&minimal, &i), ["EKSUP-R011"]);
    add_offers(&mut i, "vpc-cni", 29, &["*v1.19.2-eksbuild.1", "custom"]);
    let route = build_route(&minimal, &i).unwrap();
    assert_eq!(ids(&route)[0], "addon-vpc-cni-for-al2023");
}
