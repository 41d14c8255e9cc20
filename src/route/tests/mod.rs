//! Routes for clusters as people have them.

mod self_managed;
mod sizes;
mod stacks;
mod tied_routes;
mod traffic;
mod unmoved;
mod unread;
mod zones;

use crate::model::{Inventory, Minor};
use crate::plan::{Plan, parse_plan};
use crate::route::fixture::*;
use crate::route::*;

fn plan(text: &str) -> Plan {
    parse_plan("plan.yaml", text)
        .map_err(|e| e.problems)
        .unwrap()
}

fn ids(route: &Route) -> Vec<&str> {
    route.steps.iter().map(|s| s.id.as_str()).collect()
}

fn expense_plan() -> Plan {
    plan(
        "cluster: expense-dev\nto: 1.29\ntraffic: {routes: [{rule: {loadBalancer: expense-dev-alb, port: 80, conditions: ['path-pattern=/*']}, blue: expense-blue-tg, green: expense-green-tg}]}\n",
    )
}

fn codes(plan: &Plan, inventory: &Inventory) -> Vec<&'static str> {
    build_route(plan, inventory)
        .unwrap_err()
        .iter()
        .map(|p| p.what.code())
        .collect()
}

#[test]
fn expense_dev_goes_two_minors_and_then_blue_to_green() {
    let route = build_route(&expense_plan(), &expense_dev()).unwrap();
    assert_eq!(
        ids(&route),
        [
            "control-plane-1.28",
            "bake-control-plane-1.28",
            "addon-vpc-cni-1.28",
            "addon-kube-proxy-1.28",
            "control-plane-1.29",
            "bake-control-plane-1.29",
            "addon-kube-proxy-1.29",
            "addon-coredns-1.29",
            "hold-expense-blue",
            "green-expense-green",
            "hold-expense-green",
            "attach-expense-green-expense-green-tg",
            "register-expense-green-tg",
            "cordon-expense-blue",
            "shift-expense-green-tg",
            "drain-expense-blue",
            "soak-expense-blue",
            "retire-expense-blue",
            "release-expense-green",
        ]
    );
    // After the second hop 1.27 is out of reach, and after blue's deletion everything else is.
    let no_return: Vec<&str> = route
        .steps
        .iter()
        .filter(|s| s.no_return.is_some())
        .map(|s| s.id.as_str())
        .collect();
    assert_eq!(no_return, ["control-plane-1.29", "retire-expense-blue"]);
    // Green is made at the last version and as large as blue.
    let StepSpec::CreateGreen {
        group,
        zones,
        kubelet,
        ..
    } = &route.steps[9].spec
    else {
        panic!("{:?}", route.steps[9])
    };
    assert_eq!(
        (group.name.as_str(), group.scaling.desired, *kubelet),
        ("expense-green", 3, Some(Minor::new(29)))
    );
    assert_eq!(group.release_version, None);
    // The volume's; blue lives in all three, and nothing else asks for the others.
    assert_eq!(zones, &["us-east-1a"]);
    assert!(
        route.steps.iter().all(|s| !s.touches.is_empty()),
        "every step names what it touches"
    );
}

#[test]
fn the_next_upgrade_returns_to_the_first_target_group() {
    let mut i = expense_dev();
    i.nodegroups[0].name = "expense-green".to_owned();
    i.nodegroups[0].asgs = vec!["eks-expense-blue".to_owned()];
    for n in &mut i.nodes {
        n.labels.insert(
            crate::model::marks::NODEGROUP_LABEL.to_owned(),
            "expense-green".to_owned(),
        );
    }
    i.asgs.get_mut("eks-expense-blue").unwrap().target_groups = vec![tg_arn("expense-green-tg")];
    let targets = i.target_health.remove(&tg_arn("expense-blue-tg")).unwrap();
    i.target_health.insert(tg_arn("expense-green-tg"), targets);
    i.rules[0].forward[0].arn = tg_arn("expense-green-tg");
    let route = build_route(&expense_plan(), &i).unwrap();
    assert!(
        ids(&route).contains(&"green-expense-blue")
            && ids(&route).contains(&"shift-expense-blue-tg"),
        "{:?}",
        ids(&route)
    );
    let shift = route
        .steps
        .iter()
        .find(|s| s.id == "shift-expense-blue-tg")
        .unwrap();
    let StepSpec::Shift { shift, .. } = &shift.spec else {
        panic!()
    };
    assert_eq!(
        (&shift.blue, &shift.green),
        (&tg_arn("expense-green-tg"), &tg_arn("expense-blue-tg"))
    );
}

#[test]
fn a_cluster_that_is_there_has_nothing_to_do() {
    let mut i = empty_cluster("prod", 29);
    add_group(&mut i, "apps", 29, 3);
    assert_eq!(
        build_route(&Plan::with_defaults("prod", Minor::new(29)), &i)
            .unwrap()
            .steps,
        []
    );
}

#[test]
fn a_long_way_stops_over_where_skew_ends_and_colours_alternate() {
    let mut i = empty_cluster("multi-hop", 24);
    add_group(&mut i, "apps-blue", 24, 3);
    let route = build_route(&plan("cluster: multi-hop\nto: 1.33\n"), &i).unwrap();
    let greens: Vec<(String, Minor)> = route
        .steps
        .iter()
        .filter_map(|s| match &s.spec {
            StepSpec::CreateGreen { group, kubelet, .. } => Some((group.name.clone(), (*kubelet)?)),
            _ => None,
        })
        .collect();
    // 1.24 may trail by two, later ones by three: 1.26, 1.29, 1.32, and then the target itself.
    let expected = [
        ("apps-green", 26),
        ("apps-blue", 29),
        ("apps-green", 32),
        ("apps-blue", 33),
    ];
    assert_eq!(greens, expected.map(|(n, v)| (n.to_owned(), Minor::new(v))));
    let ids = ids(&route);
    let unique: std::collections::BTreeSet<&&str> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len());
    assert!(
        ids.contains(&"drain-apps-blue") && ids.contains(&"drain-apps-blue-1.32"),
        "{ids:?}"
    );
}

#[test]
fn the_name_the_plan_gives_is_kept_for_the_last_green() {
    let mut i = empty_cluster("c", 27);
    add_group(&mut i, "apps-blue", 27, 3);
    let route = build_route(
        &plan("cluster: c\nto: 1.31\nnodeGroups: [{blue: apps-blue, green: apps-green}]\n"),
        &i,
    )
    .unwrap();
    let greens: Vec<&str> = ids(&route)
        .into_iter()
        .filter(|id| id.starts_with("green-"))
        .collect();
    assert_eq!(greens, ["green-apps-1-30", "green-apps-green"]);
}

#[test]
fn an_add_on_the_next_minor_does_not_run_is_bridged_before_the_hop() {
    let mut i = empty_cluster("c", 27);
    add_addon(&mut i, "coredns", "v1.9.3-eksbuild.11");
    add_offers(
        &mut i,
        "coredns",
        27,
        &[
            "v1.11.1-eksbuild.9",
            "*v1.10.1-eksbuild.18",
            "v1.9.3-eksbuild.11",
        ],
    );
    add_offers(
        &mut i,
        "coredns",
        28,
        &["v1.11.1-eksbuild.9", "*v1.10.1-eksbuild.18"],
    );
    i.addons[0].service_account_role_arn = Some("arn:aws:iam::123456789012:role/dns".to_owned());
    let route = build_route(&plan("cluster: c\nto: 1.28\n"), &i).unwrap();
    assert_eq!(
        ids(&route)[..2],
        ["addon-coredns-before-1.28", "control-plane-1.28"]
    );
    let StepSpec::Addon { change, .. } = &route.steps[0].spec else {
        panic!()
    };
    assert_eq!(change.version.as_str(), "v1.10.1-eksbuild.18");
    assert_eq!(change.resolve_conflicts, "PRESERVE");
    assert!(change.service_account_role_arn.is_some());
}

#[test]
fn the_network_add_on_climbs_one_minor_at_a_time() {
    let mut i = empty_cluster("c", 28);
    add_addon(&mut i, "vpc-cni", "v1.15.1-eksbuild.1");
    let all = [
        "*v1.19.2-eksbuild.1",
        "v1.18.3-eksbuild.3",
        "v1.17.1-eksbuild.1",
        "v1.16.4-eksbuild.2",
        "v1.16.0-eksbuild.1",
        "v1.15.1-eksbuild.1",
    ];
    add_offers(&mut i, "vpc-cni", 28, &all);
    add_offers(&mut i, "vpc-cni", 29, &all);
    let route = build_route(
        &plan("cluster: c\nto: 1.29\ncontrolPlane: {bake: 0s}\n"),
        &i,
    )
    .unwrap();
    assert_eq!(
        ids(&route),
        [
            "control-plane-1.29",
            "addon-vpc-cni-1.29-v1.16",
            "addon-vpc-cni-1.29-v1.17",
            "addon-vpc-cni-1.29-v1.18",
            "addon-vpc-cni-1.29"
        ]
    );
    let minimal = build_route(
        &plan("cluster: c\nto: 1.29\ncontrolPlane: {bake: 0s}\naddons: {policy: minimal}\n"),
        &i,
    )
    .unwrap();
    assert_eq!(ids(&minimal), ["control-plane-1.29"]);
}

#[test]
fn al2023_nodes_wait_for_a_network_add_on_that_knows_them() {
    let mut i = empty_cluster("c", 29);
    add_group(&mut i, "apps", 28, 3);
    add_addon(&mut i, "vpc-cni", "v1.15.1-eksbuild.1");
    add_offers(
        &mut i,
        "vpc-cni",
        29,
        &[
            "*v1.19.2-eksbuild.1",
            "v1.18.3-eksbuild.3",
            "v1.16.4-eksbuild.2",
            "v1.15.1-eksbuild.1",
        ],
    );
    let minimal = plan("cluster: c\nto: 1.29\naddons: {policy: minimal}\n");
    assert_eq!(
        ids(&build_route(&minimal, &i).unwrap())[..3],
        [
            "addon-vpc-cni-for-al2023-v1.16",
            "addon-vpc-cni-for-al2023-v1.18",
            "addon-vpc-cni-for-al2023"
        ]
    );
    let skipped = plan("cluster: c\nto: 1.29\naddons: {skip: [vpc-cni]}\n");
    assert_eq!(codes(&skipped, &i), ["EKSUP-R011"]);
}

#[test]
fn pins_are_met_and_never_go_down() {
    let i = expense_dev();
    let route = build_route(
        &plan("cluster: expense-dev\nto: 1.29\naddons: {pins: {vpc-cni: v1.20.1-eksbuild.1}}\n"),
        &i,
    )
    .unwrap();
    let cni: Vec<&str> = ids(&route)
        .into_iter()
        .filter(|id| id.contains("vpc-cni"))
        .collect();
    assert_eq!(cni, ["addon-vpc-cni-1.29-v1.19", "addon-vpc-cni-1.29"]);
    for pin in ["v1.17.0-eksbuild.1", "v1.21.9-eksbuild.9"] {
        assert_eq!(
            codes(
                &plan(&format!(
                    "cluster: expense-dev\nto: 1.29\naddons: {{pins: {{vpc-cni: {pin}}}}}\n"
                )),
                &i
            ),
            ["EKSUP-R010"]
        );
    }
}

#[test]
fn a_clone_leaves_out_what_is_not_its_own() {
    let mut i = expense_dev();
    // Marks of eksctl and CloudFormation are theirs, and these of eksup are an earlier run's.
    let blue = &mut i.nodegroups[0];
    blue.labels = string_map([
        ("colour", "blue"),
        ("alpha.eksctl.io/nodegroup-name", "expense-blue"),
    ]);
    blue.tags = string_map([
        ("team", "money"),
        ("aws:cloudformation:stack-name", "s"),
        ("alpha.eksctl.io/cluster-name", "c"),
        ("eksup.dev/run", "old"),
    ]);
    blue.taints = vec![
        crate::model::eks::NodegroupTaint {
            key: "dedicated".to_owned(),
            value: Some("x".to_owned()),
            effect: "NO_SCHEDULE".to_owned(),
        },
        crate::model::eks::NodegroupTaint {
            key: "eksup.dev/blue".to_owned(),
            value: Some("old".to_owned()),
            effect: "NO_SCHEDULE".to_owned(),
        },
    ];
    // An autoscaler has grown blue beyond what the node group says, and the template has the type.
    i.asgs.get_mut("eks-expense-blue").unwrap().desired = 5;
    with_template(&mut i, "expense-blue", None, Some("m6i.large"));
    let route = build_route(&plan("cluster: expense-dev\nto: 1.29\nnodeGroups: [{blue: expense-blue, labels: {colour: green}}]\n"), &i).unwrap();
    let group = route.steps.iter().find_map(|s| match &s.spec {
        StepSpec::CreateGreen { group, .. } => Some(group),
        _ => None,
    });
    let group = group.unwrap();
    assert_eq!(group.labels, string_map([("colour", "green")]));
    assert_eq!(
        group.tags,
        string_map([("team", "money"), ("eksup.dev/cloned-from", "expense-blue")])
    );
    assert_eq!(group.taints.len(), 1);
    // As large as blue is now, and no smaller at most.
    assert_eq!((group.scaling.desired, group.scaling.max), (5, 6));
    assert_eq!((group.disk_size, group.instance_types.len()), (None, 0));
    // EKS answers id and name and takes only one of them.
    let template = group.launch_template.as_ref().unwrap();
    assert_eq!(
        (
            template.id.as_deref(),
            template.name.as_deref(),
            template.version.as_deref()
        ),
        (Some("lt-1"), None, Some("4"))
    );
}

#[test]
fn al2_becomes_al2023_where_al2_ends() {
    let mut i = empty_cluster("c", 32);
    add_group(&mut i, "apps", 32, 3);
    i.nodegroups[0].ami_type = Some("AL2_x86_64".to_owned());
    with_template(&mut i, "apps", None, None);
    let to_33 = plan("cluster: c\nto: 1.33\n");
    let route = build_route(&to_33, &i).unwrap();
    let types: Vec<Option<String>> = route
        .steps
        .iter()
        .filter_map(|s| {
            if let StepSpec::CreateGreen { group, .. } = &s.spec {
                Some(group.ami_type.clone())
            } else {
                None
            }
        })
        .collect();
    assert_eq!(types, [Some("AL2023_x86_64_STANDARD".to_owned())]);
    assert!(route.notes.iter().any(|n| n.contains("AL2_x86_64")));
    use base64::Engine;
    i.launch_templates[0].user_data = Some(
        base64::engine::general_purpose::STANDARD.encode("#!/bin/bash\n/etc/eks/bootstrap.sh c"),
    );
    assert_eq!(codes(&to_33, &i), ["EKSUP-R009"]);
}

#[test]
fn an_image_of_its_own_is_replaced_by_the_plans_or_stays_while_skew_allows() {
    let mut i = empty_cluster("c", 29);
    add_group(&mut i, "gpu-blue", 29, 2);
    with_template(&mut i, "gpu-blue", Some("ami-0aaaaaaaaaaaaaaaa"), None);
    // Nobody names the group, and its kubelets may lag by one minor: it stays.
    let route = build_route(&plan("cluster: c\nto: 1.30\n"), &i).unwrap();
    assert!(
        !ids(&route).iter().any(|id| id.starts_with("green-"))
            && route
                .notes
                .iter()
                .any(|n| n.contains("stays at kubelet 1.29")),
        "{route:?}"
    );
    // Named, it has to move, and only the plan can say with which image.
    assert_eq!(
        codes(
            &plan("cluster: c\nto: 1.30\nnodeGroups: [{blue: gpu-blue}]\n"),
            &i
        ),
        ["EKSUP-R004"]
    );
    // Four minors on its kubelets may not stay.
    assert_eq!(codes(&plan("cluster: c\nto: 1.33\n"), &i), ["EKSUP-R004"]);
    // With an image the template gets a version first, and green is made from that.
    let with_image =
        plan("cluster: c\nto: 1.30\nnodeGroups: [{blue: gpu-blue, ami: ami-0bbbbbbbbbbbbbbbb}]\n");
    let route = build_route(&with_image, &i).unwrap();
    let at = route
        .steps
        .iter()
        .position(|s| s.id == "template-gpu-green")
        .unwrap();
    assert!(
        matches!(&route.steps[at].spec, StepSpec::LaunchTemplate { template, source_version: 4, image } if template == "lt-1" && image == "ami-0bbbbbbbbbbbbbbbb")
    );
    assert!(
        matches!(&route.steps[at + 1].spec, StepSpec::CreateGreen { group, template_from: Some(_), kubelet: Some(_), .. } if group.ami_type.is_none() && group.release_version.is_none())
    );
    // One image has one kubelet, and on the way to 1.33 the group has to stop in between.
    assert_eq!(
        codes(
            &plan(
                "cluster: c\nto: 1.33\nnodeGroups: [{blue: gpu-blue, ami: ami-0bbbbbbbbbbbbbbbb}]\n"
            ),
            &i
        ),
        ["EKSUP-R005"]
    );
}

#[test]
fn canary_bakes_after_the_first_node() {
    let mut p = expense_plan();
    p.strategy = crate::plan::Strategy::Canary;
    let route = build_route(&p, &expense_dev()).unwrap();
    let drain = route
        .steps
        .iter()
        .find_map(|s| {
            if let StepSpec::Drain { drain, .. } = &s.spec {
                Some(drain)
            } else {
                None
            }
        })
        .unwrap();
    assert_eq!(drain.canary_bake, Some(p.drain.canary_bake));
}

#[test]
fn when_eks_wants_groups_to_match_they_move_before_every_hop() {
    let mut i = empty_cluster("c", 27);
    add_group(&mut i, "apps-blue", 26, 3);
    let p = plan("cluster: c\nto: 1.28\ncontrolPlane: {bake: 0s}\nretire: {soak: 0s}\n");
    let route = replan_for_matching_nodes(&p, &i).unwrap();
    let ids: Vec<&str> = ids(&route)
        .into_iter()
        .filter(|id| id.starts_with("green") || id.starts_with("control"))
        .collect();
    assert_eq!(
        ids,
        ["green-apps-green", "control-plane-1.28", "green-apps-blue"]
    );
}

#[test]
fn what_the_plan_leaves_behind_out_of_skew_is_a_problem_by_name() {
    let mut i = empty_cluster("c", 27);
    add_group(&mut i, "apps", 27, 3);
    add_group(&mut i, "old", 24, 1);
    assert_eq!(
        codes(
            &plan("cluster: c\nto: 1.28\nnodeGroups: [{blue: apps}]\n"),
            &i
        ),
        ["EKSUP-R003"]
    );
    let mut own = empty_cluster("c", 27);
    own.nodes.push(unmanaged_node("by-hand", 24, "us-east-1a"));
    assert_eq!(codes(&plan("cluster: c\nto: 1.28\n"), &own), ["EKSUP-R003"]);
    own.nodes[0]
        .labels
        .insert("karpenter.sh/nodepool".to_owned(), "default".to_owned());
    assert!(build_route(&plan("cluster: c\nto: 1.28\n"), &own).is_ok());
    assert_eq!(codes(&plan("cluster: c\nto: 1.26\n"), &own), ["EKSUP-R001"]);
    assert_eq!(
        codes(
            &plan("cluster: c\nto: 1.28\nnodeGroups: [{blue: nope}]\n"),
            &i
        )[0],
        "EKSUP-R002"
    );
}

#[test]
fn a_green_somebody_else_made_is_not_taken() {
    let mut i = expense_dev();
    add_group(&mut i, "expense-green", 27, 0);
    let named = plan(
        "cluster: expense-dev\nto: 1.29\nnodeGroups: [{blue: expense-blue, green: expense-green}]\n",
    );
    assert_eq!(codes(&named, &i), ["EKSUP-R006"]);
    let by_rule = plan("cluster: expense-dev\nto: 1.29\nnodeGroups: [{blue: expense-blue}]\n");
    assert!(ids(&build_route(&by_rule, &i).unwrap()).contains(&"green-expense-1-29"));
}

#[test]
fn a_blue_kept_at_zero_is_not_moved_again() {
    let mut i = empty_cluster("c", 29);
    add_group(&mut i, "apps-blue", 27, 0);
    i.nodegroups[0].taints = vec![crate::model::eks::NodegroupTaint {
        key: "eksup.dev/blue".to_owned(),
        value: None,
        effect: "NO_SCHEDULE".to_owned(),
    }];
    add_group(&mut i, "apps-green", 29, 3);
    assert_eq!(
        build_route(&plan("cluster: c\nto: 1.29\n"), &i)
            .unwrap()
            .steps,
        []
    );
}

#[test]
fn on_rollback_blue_is_made_whole_before_traffic_or_pods_return_to_it() {
    let route = build_route(&expense_plan(), &expense_dev()).unwrap();
    let back: Vec<&str> = route
        .rollback_order()
        .iter()
        .map(|s| s.id.as_str())
        .collect();
    assert_eq!(back.len(), route.steps.len());
    assert_eq!(
        back[..8],
        [
            "release-expense-green",
            "retire-expense-blue",
            "soak-expense-blue",
            "hold-expense-blue",
            "shift-expense-green-tg",
            "cordon-expense-blue",
            "drain-expense-blue",
            "register-expense-green-tg",
        ]
    );
}

#[test]
fn each_migration_of_a_long_way_makes_its_own_blue_whole() {
    let mut i = empty_cluster("multi-hop", 24);
    add_group(&mut i, "apps-blue", 24, 3);
    let route = build_route(&plan("cluster: multi-hop\nto: 1.33\n"), &i).unwrap();
    let back = route.rollback_order();
    assert_eq!(back.len(), route.steps.len());
    let mut whole = std::collections::BTreeSet::new();
    for step in &back {
        match &step.spec {
            StepSpec::HoldBlue { blue, .. } => drop(whole.insert(blue.clone())),
            StepSpec::Drain { blue, .. } => {
                assert!(
                    whole.contains(blue),
                    "{blue} is drained back before it is whole"
                );
            }
            // The green of an earlier migration is the blue of the next.
            StepSpec::CreateGreen { blue, .. } => drop(whole.remove(blue)),
            _ => {}
        }
    }
}
