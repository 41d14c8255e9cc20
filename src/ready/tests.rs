//! Findings for clusters as people have them.

mod access;
mod groups;
mod losses;
mod stacks;
mod unread;

use super::*;
use crate::model::aws_status::AddonStatus;
use crate::model::aws_status::ClusterStatus;
use crate::model::elb::TargetHealth;
use crate::model::kube::{Selector, TargetGroupBinding, Toleration};
use crate::model::volumes::{NodeVolume, NodeVolumeSource};
use crate::model::{Inventory, Minor};
use crate::plan::{Plan, parse_plan};
use crate::route::build_route;
use crate::route::fixture::*;

pub(super) fn plan(rest: &str) -> Plan {
    let text = format!("cluster: expense-dev\nto: 1.29\n{rest}");
    parse_plan("plan.yaml", &text)
        .map_err(|e| e.problems)
        .unwrap()
}

pub(super) fn paired(rest: &str) -> Plan {
    plan(&format!(
        "traffic: {{routes: [{{rule: every, blue: expense-blue-tg, green: expense-green-tg}}]}}\n{rest}"
    ))
}

pub(super) fn judged(plan: &Plan, inventory: &Inventory) -> Vec<Finding> {
    let findings = check_readiness(plan, inventory, &build_route(plan, inventory));
    for finding in &findings {
        assert!(Code::parse_code(&finding.code).is_some(), "{finding:?}");
        assert!(
            !finding.subject.is_empty() && !finding.detail.is_empty() && !finding.fix.is_empty(),
            "{finding:?}"
        );
    }
    findings
}

pub(super) fn of(findings: &[Finding], code: Code) -> Vec<(Severity, String)> {
    let some = findings.iter().filter(|f| f.code == code.as_str());
    some.map(|f| (f.severity, f.subject.clone())).collect()
}

/// What a change to expense-dev adds to its findings.
pub(super) fn with(plan: &Plan, change: impl FnOnce(&mut Inventory)) -> Vec<Finding> {
    let mut inventory = expense_dev();
    let before = judged(plan, &inventory);
    change(&mut inventory);
    let after = judged(plan, &inventory);
    after.into_iter().filter(|f| !before.contains(f)).collect()
}

pub(super) fn only(findings: &[Finding], code: Code, severity: Severity, subject: &str) {
    assert_eq!(
        of(findings, code),
        [(severity, subject.to_owned())],
        "{findings:#?}"
    );
}

#[test]
fn expense_dev_is_ready_with_two_warnings() {
    let findings = judged(&paired(""), &expense_dev());
    let short: Vec<(Severity, &str, &str)> = findings
        .iter()
        .map(|f| (f.severity, f.code.as_str(), f.subject.as_str()))
        .collect();
    assert_eq!(
        short,
        [
            (Severity::Warning, "EKSUP-P012", "Deployment expense/redis"),
            (Severity::Warning, "EKSUP-P012", "StatefulSet expense/mysql"),
        ]
    );
}

#[test]
fn a_cluster_that_is_there_has_no_findings() {
    let mut i = empty_cluster("c", 29);
    add_group(&mut i, "apps", 29, 3);
    i.cluster.status = ClusterStatus::Updating;
    assert_eq!(
        check_readiness(
            &Plan::with_defaults("c", Minor::new(29)),
            &i,
            &build_route(&Plan::with_defaults("c", Minor::new(29)), &i)
        ),
        []
    );
}

#[test]
fn the_control_plane_must_be_healthy_and_have_room() {
    let p = paired("");
    only(
        &with(&p, |i| i.cluster.status = ClusterStatus::Updating),
        Code::ClusterNotActive,
        Severity::Blocker,
        "cluster expense-dev",
    );
    let full = with(&p, |i| {
        i.subnets.iter_mut().take(2).for_each(|s| s.free_ips = 4);
    });
    only(
        &full,
        Code::ControlPlaneIps,
        Severity::Blocker,
        "cluster expense-dev",
    );
    let one = with(&p, |i| i.subnets[0].free_ips = 4);
    assert_eq!(of(&one, Code::ControlPlaneIps), []);
    let gone = with(&p, |i| {
        i.cluster_versions.retain(|v| v.version != Minor::new(28));
    });
    only(
        &gone,
        Code::TargetNotOffered,
        Severity::Blocker,
        "cluster expense-dev",
    );
    let ending = with(&p, |i| {
        for version in &mut i.cluster_versions {
            version.end_of_standard_support = Some("2026-12-02T00:00:00Z".parse().unwrap());
        }
    });
    only(
        &ending,
        Code::TargetSupport,
        Severity::Warning,
        "cluster expense-dev",
    );
}

#[test]
fn an_insight_in_error_weighs_what_the_plan_says() {
    let insight = |i: &mut Inventory| {
        i.insights.push(crate::model::eks::Insight {
            id: "1".to_owned(),
            name: "Deprecated APIs removed in Kubernetes v1.29".to_owned(),
            category: "UPGRADE_READINESS".to_owned(),
            kubernetes_version: Some(Minor::new(29)),
            status: "ERROR".into(),
            reason: "Deprecated API usage detected.".to_owned(),
            description: String::new(),
            last_refresh: None,
            recommendation: Some("Update manifests.".to_owned()),
            resources: vec!["/apis/flowcontrol.apiserver.k8s.io/v1beta2/flowschemas".to_owned()],
        });
    };
    for (policy, severity) in [
        ("block", Severity::Blocker),
        ("warn", Severity::Warning),
        ("ignore", Severity::Info),
    ] {
        let p = paired(&format!("controlPlane: {{insights: {policy}}}\n"));
        only(
            &with(&p, insight),
            Code::InsightError,
            severity,
            "insight Deprecated APIs removed in Kubernetes v1.29 for 1.29",
        );
    }
}

#[test]
fn a_budget_that_never_lets_go_is_told_apart_from_one_that_is_short() {
    let redis = |i: &mut Inventory| add_pdb(i, "expense", "redis", 1, 1);
    let subject = "PodDisruptionBudget expense/redis";
    only(
        &with(&paired(""), redis),
        Code::BudgetNever,
        Severity::Blocker,
        subject,
    );
    only(
        &with(&paired("drain: {singleReplicas: surge}\n"), redis),
        Code::BudgetNever,
        Severity::Info,
        subject,
    );
    only(
        &with(&paired("drain: {onDeadline: delete}\n"), redis),
        Code::BudgetNever,
        Severity::Warning,
        subject,
    );
    // A StatefulSet's restart takes the old pod first: no surge helps it.
    let mysql = |i: &mut Inventory| add_pdb(i, "expense", "mysql", 1, 1);
    only(
        &with(&paired("drain: {singleReplicas: surge}\n"), mysql),
        Code::BudgetNever,
        Severity::Blocker,
        "PodDisruptionBudget expense/mysql",
    );
    let zero = with(&paired(""), |i| {
        i.pdbs[1].min_available = None;
        i.pdbs[1].max_unavailable = Some("0".to_owned());
        i.pdbs[1].allowed = 0;
    });
    only(
        &zero,
        Code::BudgetNever,
        Severity::Blocker,
        "PodDisruptionBudget expense/backend",
    );
    let short = with(&paired(""), |i| {
        i.pdbs[1].allowed = 0;
        i.pdbs[1].current_healthy = 2;
    });
    only(
        &short,
        Code::BudgetShort,
        Severity::Warning,
        "PodDisruptionBudget expense/backend",
    );
    assert_eq!(of(&short, Code::BudgetNever), []);
}

#[test]
fn a_sick_pod_under_a_budget_blocks_unless_the_budget_lets_it_go() {
    let sicken = |i: &mut Inventory| {
        i.pods
            .iter_mut()
            .filter(|p| p.labels["app"] == "backend")
            .take(2)
            .for_each(|p| p.ready = false);
        i.pdbs[1].allowed = 0;
        i.pdbs[1].current_healthy = 1;
    };
    only(
        &with(&paired(""), sicken),
        Code::SickUnderBudget,
        Severity::Blocker,
        "PodDisruptionBudget expense/backend",
    );
    let lets_go = with(&paired(""), |i| {
        sicken(i);
        i.pdbs[1].unhealthy_policy = Some("AlwaysAllow".to_owned());
    });
    assert_eq!(of(&lets_go, Code::SickUnderBudget), []);
}

#[test]
fn two_budgets_on_a_pod_are_named() {
    let found = with(&paired(""), |i| {
        let mut second = i.pdbs[0].clone();
        second.key.name = "frontend-too".to_owned();
        i.pdbs.push(second);
    });
    let two: Vec<&Finding> = found
        .iter()
        .filter(|f| f.code == Code::TwoBudgets.as_str())
        .collect();
    // One of its two pods is like the other.
    assert_eq!(two.len(), 1);
    assert_eq!(two[0].subject, "Deployment expense/frontend");
    assert!(
        two[0]
            .detail
            .contains("expense/frontend and expense/frontend-too"),
        "{}",
        two[0].detail
    );
}

/// An emptyDir that a server keeps its data in.
pub(super) fn data_volume() -> NodeVolume {
    NodeVolume {
        name: "data".to_owned(),
        source: NodeVolumeSource::EmptyDir {
            medium: String::new(),
            size_limited: false,
        },
        mounts: Vec::new(),
    }
}

#[test]
fn what_would_be_lost_needs_consent() {
    let lose = |i: &mut Inventory| {
        i.pods[0].owner = None;
        i.pods[1].node_volumes = vec![data_volume()];
    };
    let found = with(&paired(""), lose);
    assert_eq!(of(&found, Code::BarePod).len(), 1);
    assert_eq!(
        of(&found, Code::EmptyDir),
        [(Severity::Blocker, "Deployment expense/frontend".to_owned())]
    );
    let agreed = with(&paired("drain: {barePods: evict, emptyDir: evict}\n"), lose);
    assert_eq!(
        (of(&agreed, Code::BarePod), of(&agreed, Code::EmptyDir)),
        (vec![], vec![])
    );
}

#[test]
fn a_pod_that_only_blue_can_run_is_found() {
    let pin = |key: &'static str, value: &'static str| {
        move |i: &mut Inventory| {
            for node in &mut i.nodes {
                node.labels
                    .entry(key.to_owned())
                    .or_insert_with(|| value.to_owned());
            }
            i.pods[0].node_selector = string_map([(key, value)]);
        }
    };
    let pod = "Deployment expense/frontend";
    only(
        &with(
            &paired(""),
            pin("eks.amazonaws.com/nodegroup", "expense-blue"),
        ),
        Code::PinnedToBlue,
        Severity::Blocker,
        pod,
    );
    only(
        &with(&paired(""), pin("kubernetes.io/hostname", "expense-blue-0")),
        Code::PinnedToBlue,
        Severity::Blocker,
        pod,
    );
    only(
        &with(&paired(""), pin("set-by-hand", "yes")),
        Code::PinnedToBlue,
        Severity::Blocker,
        pod,
    );
    for (key, value) in [
        ("topology.kubernetes.io/zone", "us-east-1a"),
        ("kubernetes.io/arch", "amd64"),
        ("colour", "blue"),
    ] {
        assert_eq!(
            of(&with(&paired(""), pin(key, value)), Code::PinnedToBlue),
            [],
            "{key}"
        );
    }
    // The plan gives green another colour, and the pod asks for blue's.
    let recoloured = paired("nodeGroups: [{blue: expense-blue, labels: {colour: green}}]\n");
    only(
        &with(&recoloured, pin("colour", "blue")),
        Code::PinnedToBlue,
        Severity::Blocker,
        pod,
    );
}

#[test]
fn a_pod_must_tolerate_what_the_plan_adds() {
    let tainted = paired(
        "nodeGroups: [{blue: expense-blue, taints: [{key: dedicated, value: x, effect: NoSchedule}]}]\n",
    );
    assert!(
        of(&judged(&tainted, &expense_dev()), Code::NewTaint)
            .contains(&(Severity::Blocker, "Deployment expense/frontend".to_owned()))
    );
    let tolerating = with(&paired(""), |i| {
        i.pods[0].tolerations = vec![Toleration {
            key: None,
            operator: "Exists".to_owned(),
            value: None,
            effect: None,
        }];
    });
    only(
        &tolerating,
        Code::ToleratesBlue,
        Severity::Warning,
        "Deployment expense/frontend",
    );
}

#[test]
fn volumes_must_find_their_zone_on_green() {
    let zone = with(&paired(""), |i| {
        i.volumes[0].zones = vec!["us-east-1f".to_owned()];
    });
    only(
        &zone,
        Code::VolumeZone,
        Severity::Blocker,
        "volume expense-mysql of StatefulSet expense/mysql",
    );
    let local = with(&paired(""), |i| {
        i.volumes[0].nodes = vec!["expense-blue-0".to_owned()];
    });
    only(
        &local,
        Code::LocalVolume,
        Severity::Blocker,
        "volume expense-mysql of StatefulSet expense/mysql",
    );
}

#[test]
fn blue_must_fit_on_green() {
    let huge = |i: &mut Inventory| {
        i.pods
            .iter_mut()
            .filter(|p| p.labels["app"] == "backend")
            .for_each(|p| p.requests.cpu_millis = 500);
    };
    // 1330 millicores of a node are left beside its DaemonSets: three of 500 fit, and the small ones beside them.
    assert_eq!(of(&with(&paired(""), huge), Code::DoesNotFit), []);
    let too_much = |i: &mut Inventory| {
        huge(i);
        i.pods
            .iter_mut()
            .filter(|p| p.labels["app"] == "frontend")
            .for_each(|p| p.requests.cpu_millis = 1_200);
    };
    // Green may grow to six, so it is a warning; with no room to grow it blocks.
    only(
        &with(&paired(""), too_much),
        Code::DoesNotFit,
        Severity::Warning,
        "node group expense-green",
    );
    let capped = with(&paired(""), |i| {
        too_much(i);
        i.nodegroups[0].scaling.max = 3;
    });
    only(
        &capped,
        Code::DoesNotFit,
        Severity::Blocker,
        "node group expense-green",
    );
}

#[test]
fn a_group_of_another_tool_is_not_deleted_without_consent() {
    let own = |i: &mut Inventory| {
        i.nodegroups[0].tags = string_map([("alpha.eksctl.io/nodegroup-name", "expense-blue")]);
    };
    only(
        &with(&paired(""), own),
        Code::GroupOwned,
        Severity::Blocker,
        "node group expense-blue",
    );
    for agreed in [
        "nodeGroups: [{blue: expense-blue, deleteOwned: true}]\n",
        "retire: {then: keep-at-zero}\n",
    ] {
        assert_eq!(of(&with(&paired(agreed), own), Code::GroupOwned), []);
    }
}

#[test]
fn green_needs_addresses() {
    let few = with(&paired(""), |i| {
        i.subnets.iter_mut().for_each(|s| s.free_ips = 5);
    });
    assert_eq!(
        of(&few, Code::GreenIps).first().map(|f| f.0),
        Some(Severity::Warning)
    );
}

#[test]
fn add_ons_must_be_well_and_run_on_every_minor_of_the_way() {
    let sick = with(&paired(""), |i| i.addons[0].status = AddonStatus::Degraded);
    only(
        &sick,
        Code::AddonStatus,
        Severity::Blocker,
        "add-on aws-ebs-csi-driver",
    );
    let dead_end = with(&paired(""), |i| {
        let by_minor = i.addon_catalog.get_mut("coredns").unwrap();
        by_minor
            .get_mut(&Minor::new(29))
            .unwrap()
            .retain(|o| o.version < i.addons[1].version);
        add_offers(i, "coredns", 29, &["v1.9.0-eksbuild.1"]);
    });
    only(
        &dead_end,
        Code::AddonIncompatible,
        Severity::Blocker,
        "add-on coredns",
    );
    let own = with(&paired(""), |i| i.addons.retain(|a| a.name != "kube-proxy"));
    only(
        &own,
        Code::AddonSelfManaged,
        Severity::Warning,
        "add-on kube-proxy",
    );
}

#[test]
fn a_binding_that_sees_only_blue_would_leave_green_without_traffic() {
    let found = with(&plan(""), |i| {
        i.target_group_bindings.push(TargetGroupBinding {
            key: crate::model::kube::NamespacedName::new("expense", "frontend"),
            target_group_arn: Some(tg_arn("other")),
            target_type: Some("instance".to_owned()),
            service: Some("frontend".to_owned()),
            node_selector: Some(Selector {
                match_labels: string_map([("eks.amazonaws.com/nodegroup", "expense-blue")]),
                expressions: Vec::new(),
            }),
            multi_cluster: false,
        });
    });
    only(
        &found,
        Code::BindingToBlue,
        Severity::Blocker,
        "TargetGroupBinding expense/frontend",
    );
}

#[test]
fn sticky_rules_local_services_and_sick_targets_are_told() {
    let sticky = with(&paired(""), |i| i.rules[0].stickiness_seconds = Some(3_600));
    assert_eq!(of(&sticky, Code::Sticky).len(), 1);
    let alone = with(&paired(""), |i| {
        i.services[0].external_traffic_policy = Some("Local".to_owned());
        i.pods.retain(|p| p.key.name != "frontend-7d8f-1");
    });
    only(
        &alone,
        Code::LocalPolicy,
        Severity::Warning,
        "service expense/frontend",
    );
    let sick = with(&paired(""), |i| {
        let targets: &mut Vec<TargetHealth> =
            i.target_health.get_mut(&tg_arn("expense-blue-tg")).unwrap();
        targets[0].state = "unhealthy".into();
    });
    only(
        &sick,
        Code::UnhealthyNow,
        Severity::Warning,
        "target group expense-blue-tg",
    );
}

#[test]
fn insights_that_could_not_be_read_block() {
    let unread = |i: &mut Inventory| {
        i.unread.push(crate::model::inventory::Unread {
            op: "eks:ListInsights".to_owned(),
            why: "denied".to_owned(),
        });
    };
    let insights = with(&paired(""), unread);
    only(
        &insights,
        Code::Unread,
        Severity::Blocker,
        "eks:ListInsights",
    );
    only(
        &insights,
        Code::InsightsMissing,
        Severity::Blocker,
        "cluster expense-dev",
    );
}

#[test]
fn an_obstacle_of_the_route_is_a_blocker_and_the_rest_is_judged_too() {
    let p = plan("nodeGroups: [{blue: nope}]\n");
    let findings = judged(&p, &expense_dev());
    only(
        &findings,
        Code::NoSuchGroup,
        Severity::Blocker,
        "node group nope",
    );
}

#[test]
fn nobody_panics_over_a_cluster_of_nothing() {
    let empty = empty_cluster("c", 27);
    judged(&Plan::with_defaults("c", Minor::new(33)), &empty);
}
