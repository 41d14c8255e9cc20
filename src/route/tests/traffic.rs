//! Routes by how traffic comes to blue.

use super::{codes, expense_plan, ids, plan};
use crate::model::elb::{ClassicBalancer, WeightedTargetGroup};
use crate::model::scheduling::HostPort;
use crate::route::fixture::*;
use crate::route::*;

#[test]
fn without_a_pair_green_joins_blues_own_target_group() {
    let i = expense_dev();
    let route = build_route(&plan("cluster: expense-dev\nto: 1.29\n"), &i).unwrap();
    let ids = ids(&route);
    let place = |id: &str| {
        ids.iter()
            .position(|i| *i == id)
            .unwrap_or_else(|| panic!("{id} in {ids:?}"))
    };
    assert!(place("attach-expense-green-expense-blue-tg") < place("drain-expense-blue"));
    assert!(place("drain-expense-blue") < place("detach-expense-blue-expense-blue-tg"));
    assert!(place("detach-expense-blue-expense-blue-tg") < place("retire-expense-blue"));
}

#[test]
fn with_the_local_policy_pods_go_first_and_nodes_leave_before_them() {
    let mut i = expense_dev();
    // Only a node with a pod of its own is healthy, so the pods have to move before traffic can be shifted.
    i.services[0].external_traffic_policy = Some("Local".to_owned());
    let route = build_route(&expense_plan(), &i).unwrap();
    let tail: Vec<&str> = ids(&route)
        .into_iter()
        .skip_while(|id| *id != "hold-expense-green")
        .skip(1)
        .collect();
    assert_eq!(
        tail,
        [
            "attach-expense-green-expense-green-tg",
            "attach-expense-green-expense-blue-tg",
            "cordon-expense-blue",
            "drain-expense-blue",
            "register-expense-green-tg",
            "shift-expense-green-tg",
            "detach-expense-green-expense-blue-tg",
            "soak-expense-blue",
            "retire-expense-blue",
            "release-expense-green",
        ]
    );
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
    // Or a node would get requests after its pods have left it.
    assert_eq!(drain.deregister_from, [tg_arn("expense-blue-tg")]);
    assert!(
        route
            .notes
            .iter()
            .any(|n| n.contains("externalTrafficPolicy Local"))
    );
}

#[test]
fn a_rollback_fills_targets_then_weights_return_then_blue_opens_and_last_green_leaves_the_rules() {
    let mut i = expense_dev();
    i.services[0].external_traffic_policy = Some("Local".to_owned());
    let route = build_route(&expense_plan(), &i).unwrap();
    let back: Vec<&str> = route
        .rollback_order()
        .iter()
        .map(|s| s.id.as_str())
        .collect();
    assert_eq!(
        back[..12],
        [
            "release-expense-green",
            "retire-expense-blue",
            "soak-expense-blue",
            "hold-expense-blue",
            "detach-expense-green-expense-blue-tg",
            "shift-expense-green-tg",
            "cordon-expense-blue",
            "drain-expense-blue",
            "register-expense-green-tg",
            "attach-expense-green-expense-blue-tg",
            "attach-expense-green-expense-green-tg",
            "hold-expense-green",
        ]
    );
}

#[test]
fn what_a_controller_owns_is_left_alone_and_a_plan_that_names_it_is_refused() {
    let mut i = expense_dev();
    i.rules[0].tags = string_map([
        ("ingress.k8s.aws/stack", "expense/frontend"),
        ("elbv2.k8s.aws/cluster", "expense-dev"),
    ]);
    assert_eq!(codes(&expense_plan(), &i), ["EKSUP-T005"]);
    for group in &mut i.target_groups {
        group.tags = string_map([("elbv2.k8s.aws/cluster", "expense-dev")]);
    }
    i.asgs
        .get_mut("eks-expense-blue")
        .unwrap()
        .target_groups
        .clear();
    let route = build_route(&plan("cluster: expense-dev\nto: 1.29\n"), &i).unwrap();
    assert!(
        !ids(&route)
            .iter()
            .any(|id| id.starts_with("attach") || id.starts_with("shift"))
    );
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
    assert_eq!(drain.leave_target_groups, [tg_arn("expense-blue-tg")]);
}

#[test]
fn a_route_of_the_plan_that_cannot_work_is_told_by_its_cause() {
    let base = "cluster: expense-dev\nto: 1.29\ntraffic: {routes: [{rule: RULE, blue: BLUE, green: GREEN}]}\n";
    let with = |rule: &str, blue: &str, green: &str| {
        plan(
            &base
                .replace("RULE", rule)
                .replace("BLUE", blue)
                .replace("GREEN", green),
        )
    };
    // Each with one cause: a target group that does not exist, a port without a listener, a rule that sends nothing to
    // blue.
    let i = expense_dev();
    assert_eq!(
        codes(&with("every", "expense-blue-tg", "nope"), &i),
        ["EKSUP-T001"]
    );
    let alb = "{loadBalancer: expense-dev-alb, port: 443}";
    assert_eq!(
        codes(&with(alb, "expense-blue-tg", "expense-green-tg"), &i),
        ["EKSUP-T003"]
    );
    let default = "{loadBalancer: expense-dev-alb, port: 80}";
    assert_eq!(
        codes(&with(default, "expense-blue-tg", "expense-green-tg"), &i),
        ["EKSUP-T004"]
    );
    // With pods as targets a group has nothing to do with blue's or green's nodes.
    let mut ip = expense_dev();
    ip.target_groups[1].target_type = "ip".to_owned();
    assert_eq!(
        codes(&with("every", "expense-blue-tg", "expense-green-tg"), &ip),
        ["EKSUP-T002"]
    );
    // Nobody is behind blue's target group.
    let mut empty = expense_dev();
    empty
        .asgs
        .get_mut("eks-expense-blue")
        .unwrap()
        .target_groups
        .clear();
    empty.target_health.clear();
    assert_eq!(
        codes(
            &with("every", "expense-blue-tg", "expense-green-tg"),
            &empty
        ),
        ["EKSUP-T006"]
    );
}

#[test]
fn a_target_group_of_blue_that_was_not_read_is_no_target_group_that_is_not_there() {
    let plan = plan("cluster: expense-dev\nto: 1.29\n");
    let mut unread = expense_dev();
    unread
        .target_groups
        .retain(|g| g.arn != tg_arn("expense-blue-tg"));
    let problems = build_route(&plan, &unread).unwrap_err();
    let found: Vec<(&str, &str)> = problems
        .iter()
        .map(|p| (p.what.code(), p.subject.as_str()))
        .collect();
    assert_eq!(found, [("EKSUP-T007", "target group expense-blue-tg")]);

    let mut none = expense_dev();
    none.target_groups.clear();
    none.target_health.clear();
    assert_eq!(codes(&plan, &none), ["EKSUP-T007"]);

    let mut no_asg = expense_dev();
    no_asg.asgs.clear();
    assert!(codes(&plan, &no_asg).contains(&"EKSUP-T007"));
}

#[test]
fn rolling_grows_green_as_blue_shrinks_and_shifts_last() {
    let mut p = expense_plan();
    p.strategy = crate::plan::Strategy::Rolling;
    let route = build_route(&p, &expense_dev()).unwrap();
    let ids = ids(&route);
    let place = |id: &str| ids.iter().position(|i| *i == id).unwrap();
    assert!(place("drain-expense-blue") < place("shift-expense-green-tg"));
    let create = &route.steps[place("green-expense-green")];
    assert!(
        matches!(&create.spec, StepSpec::CreateGreen { group, surge: Some(1), .. } if group.scaling.desired == 1 && group.scaling.max == 6)
    );
}

#[test]
fn recreate_empties_blue_first_and_deletes_it_last() {
    let mut p = expense_plan();
    p.strategy = crate::plan::Strategy::Recreate;
    let route = build_route(&p, &expense_dev()).unwrap();
    let tail: Vec<&str> = ids(&route)
        .into_iter()
        .skip_while(|id| *id != "addon-coredns-1.29")
        .skip(1)
        .collect();
    assert_eq!(
        tail,
        [
            "hold-expense-blue",
            "cordon-expense-blue",
            "drain-expense-blue",
            "empty-expense-blue",
            "green-expense-green",
            "hold-expense-green",
            "attach-expense-green-expense-green-tg",
            "register-expense-green-tg",
            "shift-expense-green-tg",
            "soak-expense-blue",
            "retire-expense-blue",
            "release-expense-green",
        ]
    );
}

#[test]
fn what_elb_would_refuse_in_the_rule_is_told_before_the_hops() {
    let sticky = |seconds: Option<i32>, name: &str| {
        let mut i = expense_dev();
        let mut groups = i.target_groups.iter_mut();
        groups.find(|g| g.name == name).unwrap().sticky = true;
        i.rules[0].stickiness_seconds = seconds;
        build_route(&expense_plan(), &i)
    };
    for name in ["expense-blue-tg", "expense-green-tg"] {
        let problems = sticky(None, name).unwrap_err();
        assert_eq!(problems[0].what.code(), "EKSUP-T020");
        assert!(
            problems[0].detail.contains(name) && problems[0].fix.contains("stickiness.enabled"),
            "{problems:?}"
        );
        // With stickiness of the rule itself ELB takes it.
        assert!(sticky(Some(60), name).is_ok());
    }
    let with_idle = |idle: usize| {
        let mut i = expense_dev();
        for n in 0..idle {
            i.rules[0].forward.push(WeightedTargetGroup {
                arn: tg_arn(&format!("idle-{n}")),
                weight: 0,
            });
        }
        build_route(&expense_plan(), &i)
    };
    assert!(with_idle(3).is_ok());
    let problems = with_idle(4).unwrap_err();
    assert_eq!(problems[0].what.code(), "EKSUP-T020");
    assert!(problems[0].fix.contains("idle-3"), "{problems:?}");
}

#[test]
fn targets_registered_one_by_one_leave_one_by_one_unless_green_would_answer_at_another_port() {
    let by_hand = |port: i32| {
        let mut i = expense_dev();
        i.asgs.values_mut().for_each(|a| a.target_groups.clear());
        let targets = i.target_health.values_mut().flatten();
        targets.for_each(|t| t.port = Some(port));
        build_route(&plan("cluster: expense-dev\nto: 1.29\n"), &i)
    };
    let route = by_hand(30080).unwrap();
    let ids = ids(&route);
    assert!(ids.contains(&"attach-expense-green-expense-blue-tg"));
    assert!(ids.contains(&"detach-expense-blue-expense-blue-tg"));
    assert!(
        route.notes.iter().any(|n| n.contains("one by one")),
        "{:?}",
        route.notes
    );
    let problems = by_hand(8080).unwrap_err();
    assert_eq!(problems[0].what.code(), "EKSUP-T021");
    assert!(problems[0].detail.contains("8080"), "{problems:?}");
}

#[test]
fn a_target_group_of_a_service_is_left_to_its_controller_in_every_migration() {
    let mut i = expense_dev();
    let mut groups = i.target_groups.iter_mut();
    groups.find(|g| g.name == "expense-blue-tg").unwrap().tags = string_map([
        ("kubernetes.io/service-name", "expense/frontend"),
        ("kubernetes.io/cluster/expense-dev", "owned"),
    ]);
    i.asgs.values_mut().for_each(|a| a.target_groups.clear());
    let route = build_route(&plan("cluster: expense-dev\nto: 1.33\n"), &i);
    let steps = match &route {
        Ok(route) => &route.steps,
        Err(problems) => panic!("{problems:?}"),
    };
    assert!(
        !steps
            .iter()
            .any(|s| matches!(s.spec, StepSpec::AttachTargets { .. }))
    );
    let left: Vec<&Vec<String>> = steps
        .iter()
        .filter_map(|s| match &s.spec {
            StepSpec::Drain { drain, .. } => Some(&drain.leave_target_groups),
            _ => None,
        })
        .collect();
    assert!(left.len() >= 2, "{left:?}");
    assert!(
        left.iter().all(|l| **l == [tg_arn("expense-blue-tg")]),
        "{left:?}"
    );
}

#[test]
fn green_joins_a_classic_load_balancer_of_the_users_own_and_one_that_was_not_read_blocks() {
    let classic = |tags: std::collections::BTreeMap<String, String>| {
        let mut i = expense_dev();
        i.classic_balancers.push(ClassicBalancer {
            name: "old".to_owned(),
            vpc: Some("vpc-1".to_owned()),
            zones: vec![],
            instance_ports: vec![30080],
            tags,
        });
        let asg = i.asgs.get_mut("eks-expense-blue").unwrap();
        asg.load_balancers.push("old".to_owned());
        i
    };
    let plan = plan("cluster: expense-dev\nto: 1.29\n");
    let route = build_route(&plan, &classic(string_map([("team", "expense")]))).unwrap();
    let own = ids(&route);
    let place = |id: &str| own.iter().position(|i| *i == id).unwrap();
    assert!(place("attach-expense-green-old") < place("drain-expense-blue"));
    assert!(place("drain-expense-blue") < place("detach-expense-blue-old"));
    let service = classic(string_map([(
        "kubernetes.io/service-name",
        "expense/frontend",
    )]));
    let route = build_route(&plan, &service).unwrap();
    assert!(!ids(&route).iter().any(|id| id.ends_with("-old")));
    let left = route.steps.iter().find_map(|s| match &s.spec {
        StepSpec::Drain { drain, .. } => Some(drain.leave_target_groups.clone()),
        _ => None,
    });
    assert_eq!(left.unwrap(), ["old".to_owned()]);
    let mut unread = classic(string_map([]));
    unread.classic_balancers.clear();
    assert_eq!(codes(&plan, &unread), ["EKSUP-T007"]);
}

#[test]
fn behind_a_host_port_pods_go_first_as_with_the_local_policy() {
    let mut i = expense_dev();
    i.services.iter_mut().for_each(|s| s.node_ports.clear());
    let on_blue = |p: &&mut crate::model::kube::Pod| {
        !p.is_daemon_pod()
            && p.node
                .as_ref()
                .is_some_and(|n| n.starts_with("expense-blue"))
    };
    let pod = i.pods.iter_mut().find(on_blue).unwrap();
    pod.scheduling.host_ports = vec![HostPort::tcp_port(30080)];
    let route = build_route(&expense_plan(), &i).unwrap();
    let ids = ids(&route);
    let place = |id: &str| ids.iter().position(|i| *i == id).unwrap();
    assert!(place("drain-expense-blue") < place("shift-expense-green-tg"));
    let deregisters = |s: &RouteStep| match &s.spec {
        StepSpec::Drain { drain, .. } => drain.deregister_from == [tg_arn("expense-blue-tg")],
        _ => false,
    };
    assert!(route.steps.iter().any(deregisters));
    assert!(
        route
            .notes
            .iter()
            .any(|n| n.contains("port 30080 of their own nodes")),
        "{:?}",
        route.notes
    );
}
