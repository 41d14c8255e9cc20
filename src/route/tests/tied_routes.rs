//! Routes of the plan that belong to one node group.

use super::{codes, ids, plan};
use crate::model::Inventory;
use crate::route::fixture::*;
use crate::route::*;

/// Two groups, `web-blue` and `api-blue`, each behind a target group of its own.
fn two_groups() -> Inventory {
    let mut i = empty_cluster("c", 27);
    for (name, port) in [("web", 30080), ("api", 30081)] {
        add_group(&mut i, &format!("{name}-blue"), 27, 2);
        add_target_group(&mut i, &format!("{name}-one"), port);
        add_target_group(&mut i, &format!("{name}-two"), port);
        attach_target_group(&mut i, &format!("{name}-blue"), &format!("{name}-one"));
        let forward = format!("{name}-one");
        add_rule(
            &mut i,
            &format!("{name}-alb"),
            "/*",
            &[(forward.as_str(), 1)],
        );
        i.services
            .push(node_port_service("ns", name, port, "Cluster"));
    }
    i
}

fn tied_plan(web: &str, api: &str, groups: &str) -> crate::plan::Plan {
    plan(&format!(
        "cluster: c\nto: 1.28\nnodeGroups: {groups}\ntraffic: {{routes: [{{blue: web-one, green: web-two{web}}}, {{blue: api-one, green: api-two{api}}}]}}\n"
    ))
}

const BOTH: &str = "[{blue: web-blue}, {blue: api-blue}]";

fn order_of(route: &Route) -> Vec<&str> {
    let kinds = ["register-", "cordon-", "shift-", "drain-"];
    let ids = ids(route).into_iter();
    ids.filter(|id| kinds.iter().any(|kind| id.starts_with(kind)))
        .collect()
}

#[test]
fn a_route_of_a_group_is_shifted_between_the_drains_of_the_groups() {
    let i = two_groups();
    let free = build_route(&tied_plan("", "", BOTH), &i).unwrap();
    assert_eq!(
        order_of(&free),
        [
            "register-web-two",
            "register-api-two",
            "cordon-web-blue",
            "cordon-api-blue",
            "shift-web-two",
            "shift-api-two",
            "drain-web-blue",
            "drain-api-blue",
        ]
    );
    let (web, api) = (", nodeGroup: web-blue", ", nodeGroup: api-blue");
    let tied = build_route(&tied_plan(web, api, BOTH), &i).unwrap();
    assert_eq!(
        order_of(&tied),
        [
            "cordon-web-blue",
            "cordon-api-blue",
            "register-web-two",
            "shift-web-two",
            "drain-web-blue",
            "register-api-two",
            "shift-api-two",
            "drain-api-blue",
        ]
    );
    // One may belong to a group, and the other move before all.
    let mixed = build_route(&tied_plan("", api, BOTH), &i).unwrap();
    let wanted = ["shift-web-two", "drain-web-blue", "register-api-two"];
    assert_eq!(order_of(&mixed)[3..6], wanted);
    // Nothing but their order is another.
    let mut sorted = [ids(&free), ids(&tied)];
    sorted.iter_mut().for_each(|ids| ids.sort_unstable());
    assert_eq!(sorted[0], sorted[1]);
}

#[test]
fn a_surge_shifts_a_group_s_route_after_its_own_drain() {
    let groups = "[{blue: web-blue, capacity: {surge: 1}}, {blue: api-blue}]";
    let (web, api) = (", nodeGroup: web-blue", ", nodeGroup: api-blue");
    let route = build_route(&tied_plan(web, api, groups), &two_groups()).unwrap();
    assert_eq!(
        order_of(&route)[2..],
        [
            "drain-web-blue",
            "register-web-two",
            "shift-web-two",
            "register-api-two",
            "shift-api-two",
            "drain-api-blue",
        ]
    );
}

#[test]
fn a_route_of_a_group_that_does_not_serve_it_or_not_alone_is_refused() {
    let mut i = two_groups();
    let wrong = tied_plan(", nodeGroup: api-blue", "", BOTH);
    let problems = build_route(&wrong, &i).unwrap_err();
    assert_eq!(codes(&wrong, &i), ["EKSUP-T006"]);
    assert!(
        problems[0].fix.contains("`nodeGroup: web-blue`"),
        "{problems:?}"
    );
    // Weights that move with one group would leave the other without traffic.
    attach_target_group(&mut i, "api-blue", "web-one");
    let shared = tied_plan(", nodeGroup: web-blue", "", BOTH);
    assert_eq!(codes(&shared, &i), ["EKSUP-T002"]);
    assert!(build_route(&tied_plan("", "", BOTH), &i).is_ok());
}

#[test]
fn a_route_of_a_group_that_is_nowhere_is_refused_and_one_whose_green_took_over_is_not() {
    let i = two_groups();
    let unknown = tied_plan(", nodeGroup: wbe-blue", "", "[]");
    assert_eq!(codes(&unknown, &i), ["EKSUP-R002"]);
    // Of a run that was done for one group, the group has gone and its green serves the other side.
    let mut later = two_groups();
    let group = &mut later.nodegroups[0];
    group.tags.insert(
        crate::model::marks::CLONED_FROM_TAG.to_owned(),
        "old-blue".to_owned(),
    );
    let done = tied_plan(", nodeGroup: old-blue", "", "[]");
    assert!(build_route(&done, &later).is_ok());
}

#[test]
fn weights_of_a_group_that_stays_stay() {
    let tie = ", nodeGroup: web-blue";
    let mut i = two_groups();
    i.nodegroups[0].version = Some(crate::model::Minor::new(28));
    for node in i
        .nodes
        .iter_mut()
        .filter(|n| n.nodegroup_name() == Some("web-blue"))
    {
        node.kubelet_version = "v1.28.3-eks-1".to_owned();
    }
    let route = build_route(&tied_plan(tie, "", BOTH), &i).unwrap();
    assert!(!ids(&route).contains(&"shift-web-two"));
    let note = "its route belongs to web-blue, which does not move";
    assert!(
        route.notes.iter().any(|n| n.contains(note)),
        "{:?}",
        route.notes
    );
}
