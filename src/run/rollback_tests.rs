//! How far back a run goes, and what keeps EKS from going with it. All pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::context::RunCommands;
use super::live_status::sizes_before_cordon;
use super::rollback_scope::{BlueState, RollbackScope, compute_scope, preview_rollback};
use super::version_rollback::{RollbackFacts, find_last_hop, rollback_blockers, rolled_back_to};
use crate::journal::{
    JOURNAL_FORMAT, JournalEntry, OpenedEntry, Record, RunBinding, RunState, StepState, StepStatus,
};
use crate::model::aws_status::ClusterStatus;
use crate::model::aws_status::VersionStatus;
use crate::model::eks::Insight;
use crate::model::{Inventory, Minor, Timestamp, Windows};
use crate::plan::parse_plan;
use crate::route::fixture::expense_dev;
use crate::route::{self, Route};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds.cast_signed()).unwrap()
}

pub(super) fn route() -> Route {
    let plan = parse_plan("p", "cluster: expense-dev\nto: 1.29\ntraffic: {routes: [{rule: every, blue: expense-blue-tg, green: expense-green-tg}]}\n").unwrap();
    route::build_route(&plan, &expense_dev()).unwrap()
}

/// The state after each step up to `until` has acted once and is done, a minute each.
pub(super) fn run(route: &Route, until: &str) -> RunState {
    let opened = OpenedEntry {
        format: JOURNAL_FORMAT,
        run: "r1".into(),
        plan_digest: "d".into(),
        cluster_arn: "arn".into(),
        steps: route.steps.iter().map(|s| s.id.clone()).collect(),
        route: serde_json::to_value(route).unwrap(),
        plan: serde_json::Value::Null,
        workloads: Default::default(),
    };
    let mut state = RunState::from_opening(&Record {
        seq: 0,
        at: at(0),
        entry: JournalEntry::Opened(opened),
    })
    .unwrap();
    for step in &route.steps {
        // Each step as the engine writes it, so that an illegal order would fail here.
        for entry in [
            JournalEntry::Started {
                step: step.id.clone(),
            },
            JournalEntry::Began {
                step: step.id.clone(),
                before: Some(json!("b")),
                act: json!("a"),
            },
            JournalEntry::Done {
                step: step.id.clone(),
                how: "h".into(),
            },
        ] {
            let seq = state.next_seq;
            let record = Record {
                seq,
                at: at(seq * 60),
                entry,
            };
            state.apply_record(&record).unwrap();
        }
        if step.id == until {
            return state;
        }
    }
    panic!("no step {until}");
}

pub(super) fn there() -> BTreeMap<String, BlueState> {
    BTreeMap::from([("retire-expense-blue".to_owned(), BlueState::Available)])
}

pub(super) fn gone() -> BTreeMap<String, BlueState> {
    BTreeMap::from([(
        "retire-expense-blue".to_owned(),
        BlueState::Unavailable("it is deleted".into()),
    )])
}

#[test]
fn without_the_flag_versions_stay_and_everything_else_rolls_back_last_first_but_traffic_before_pods()
 {
    let route = route();
    let state = run(&route, "drain-expense-blue");
    let found = compute_scope(&state, &route, false, &there());
    let order: Vec<&str> = found.undone.iter().map(String::as_str).collect();
    // Blue is whole before the traffic comes back to it.
    let first = [
        "hold-expense-blue",
        "shift-expense-green-tg",
        "cordon-expense-blue",
        "drain-expense-blue",
        "register-expense-green-tg",
    ];
    assert_eq!(order[..5], first);
    let kept: Vec<&str> = found.kept.iter().map(|(s, _)| s.as_str()).collect();
    assert!(kept.contains(&"control-plane-1.28") && kept.contains(&"control-plane-1.29"));
    assert!(found.is_worthwhile && !found.is_too_late());
    let text = found.describe_lines().join("\n");
    assert!(
        text.contains("versions stay without `--control-plane`"),
        "{text}"
    );
}

#[test]
fn with_the_flag_the_last_hop_rolls_back_and_the_earlier_ones_are_said_to_stay() {
    let route = route();
    let state = run(&route, "drain-expense-blue");
    let found = compute_scope(&state, &route, true, &there());
    assert_eq!(found.undone.last().unwrap(), "control-plane-1.29");
    let earlier = found.kept.iter().find(|(s, _)| s == "control-plane-1.28");
    assert!(earlier.unwrap().1.contains("the last hop only"));
}

#[test]
fn a_hop_that_eks_has_rolled_back_is_followed_by_no_second_one() {
    let route = route();
    let mut state = run(&route, "drain-expense-blue");
    assert_eq!(rolled_back_to(&state, &route), None);
    let hop = state
        .steps
        .iter_mut()
        .find(|s| s.id == "control-plane-1.29");
    hop.unwrap().status = StepStatus::Undone;
    assert_eq!(rolled_back_to(&state, &route), Some(Minor::new(28)));
    assert_eq!(find_last_hop(&state, &route).map(|h| h.step), None);
    let found = compute_scope(&state, &route, true, &there());
    assert!(!found.undone.iter().any(|s| s.starts_with("control-plane")));
}

#[test]
fn the_size_that_closing_blue_took_is_known_until_it_is_back() {
    let route = route();
    let mut state = run(&route, "cordon-expense-blue");
    let cordon = |s: &StepState| s.id == "cordon-expense-blue";
    let at = state.steps.iter().position(cordon).unwrap();
    state.steps[at].before = Some(json!({"max": 6}));
    let known = sizes_before_cordon(Some(&state), Some(&route));
    assert_eq!(known, BTreeMap::from([("expense-blue".to_owned(), 6)]));
    state.steps[at].status = StepStatus::Undone;
    assert!(sizes_before_cordon(Some(&state), Some(&route)).is_empty());
}

#[test]
fn a_retirement_that_has_only_begun_is_no_point_of_no_return() {
    let route = route();
    let state = run(&route, "retire-expense-blue");
    assert!(
        compute_scope(&state, &route, false, &there())
            .barrier
            .is_none()
    );
    let late = compute_scope(&state, &route, false, &gone());
    assert!(late.is_too_late(), "{late:?}");
    assert_eq!(late.barrier.unwrap().0, "retire-expense-blue");
}

#[test]
fn a_plan_says_until_when_and_until_which_step() {
    let preview = preview_rollback(&route(), &Windows::default(), at(0));
    let lines = preview.lines.join("\n");
    assert!(lines.contains("`retire-expense-blue`"), "{lines}");
    assert!(
        lines.contains("from 1.29 back to 1.28 until about "),
        "{lines}"
    );
    assert!(lines.contains("1.27 is out of reach"), "{lines}");
}

#[test]
fn a_rollback_is_promised_until_after_the_waits_for_windows() {
    let plan = parse_plan(
        "p",
        "cluster: c\nto: 1.30\nwindows: [{days: [sat], from: \"00:00\", to: \"01:00\"}]\n",
    )
    .unwrap();
    let always = preview_rollback(&route(), &Windows::default(), at(0));
    let held = preview_rollback(&route(), &plan.windows, at(0));
    let (step, begins) = held.until.unwrap();
    let (same, sooner) = always.until.unwrap();
    assert_eq!(step, same);
    // One hour a week is open, and the steps before take more than two.
    assert!(
        begins.duration_since(sooner).as_hours() > 2 * 7 * 24,
        "{begins}"
    );
    assert!(held.control_plane.unwrap().2 > always.control_plane.unwrap().2);
}

#[test]
fn the_window_counts_from_the_end_of_the_hop_or_from_its_beginning_when_nobody_saw_the_end() {
    let route = route();
    let mut state = run(&route, "control-plane-1.29");
    let hop = find_last_hop(&state, &route).unwrap();
    assert_eq!((hop.from, hop.to), (Minor::new(28), Minor::new(29)));
    let step = state
        .steps
        .iter_mut()
        .find(|s| s.id == "control-plane-1.29")
        .unwrap();
    let (began, ended) = (step.last_act_at.unwrap(), step.ended_at.unwrap());
    assert_eq!(hop.done, Some(ended));
    step.last_act_counts_from = Some(ended);
    assert_eq!(find_last_hop(&state, &route).unwrap().done, Some(began));
    let step = state
        .steps
        .iter_mut()
        .find(|s| s.id == "control-plane-1.29")
        .unwrap();
    step.last_act_counts_from = None;
    step.ended_at = Some(began + jiff::SignedDuration::from_hours(30));
    assert_eq!(find_last_hop(&state, &route).unwrap().done, Some(began));
}

/// The cluster after the run's last hop, with blue still at 1.27, and its facts.
fn facts(change: impl FnOnce(&mut Inventory)) -> RollbackFacts {
    let mut i = expense_dev();
    i.cluster.version = Minor::new(29);
    change(&mut i);
    let offers = |minor: u16| -> BTreeMap<_, Vec<_>> {
        let of = |name: &String| {
            let all = i
                .addon_catalog
                .get(name)
                .and_then(|m| m.get(&Minor::new(minor)));
            (name.clone(), all.cloned().unwrap_or_default())
        };
        i.addon_catalog.keys().map(of).collect()
    };
    if !i
        .insights
        .iter()
        .any(|i| i.category == "ROLLBACK_READINESS")
    {
        i.insights.push(insight("Cluster health issues", "PASSING"));
    }
    RollbackFacts {
        offers_now: offers(29),
        offers_before: offers(28),
        cluster: i.cluster,
        updates: vec![],
        insights: i.insights,
        versions: i.cluster_versions,
        nodes: i.nodes,
        addons: i.addons,
    }
}

fn insight(name: &str, status: &str) -> Insight {
    Insight {
        id: name.into(),
        name: name.into(),
        category: "ROLLBACK_READINESS".into(),
        kubernetes_version: Some(Minor::new(28)),
        status: status.into(),
        reason: "because".into(),
        description: String::new(),
        last_refresh: None,
        recommendation: None,
        resources: vec![],
    }
}

fn said(facts: &RollbackFacts, after: u64) -> String {
    let route = route();
    let state = run(&route, "drain-expense-blue");
    let hop = find_last_hop(&state, &route).unwrap();
    let scope: RollbackScope = compute_scope(&state, &route, true, &there());
    let done = hop.done.unwrap();
    let now = done + jiff::SignedDuration::from_secs(after.cast_signed());
    rollback_blockers(facts, &hop, &route, &scope, now).join("\n")
}

const DAY: u64 = 24 * 3600;

#[test]
fn nothing_is_said_against_a_fresh_hop_below_which_blue_still_runs() {
    assert_eq!(said(&facts(|_| {}), DAY), "");
    assert_eq!(said(&facts(|_| {}), 7 * DAY - 1), "");
}

#[test]
fn after_seven_days_it_is_too_late() {
    let text = said(&facts(|_| {}), 7 * DAY + 1);
    assert!(text.contains("7 days after it ended: until 20"), "{text}");
}

#[test]
fn a_kubelet_of_the_new_minor_stands_in_the_way_unless_the_rollback_deletes_its_node() {
    let with = |labels: &[(&str, &str)]| {
        facts(|i| {
            let mut node = crate::route::fixture::unmanaged_node("newer", 29, "us-east-1a");
            node.labels.remove("eks.amazonaws.com/nodegroup");
            for (k, v) in labels {
                node.labels.insert((*k).into(), (*v).into());
            }
            i.nodes.push(node);
        })
    };
    assert!(said(&with(&[]), DAY).contains("newer (not of a managed node group"));
    let karpenter = said(&with(&[("karpenter.sh/nodepool", "default")]), DAY);
    assert!(karpenter.contains("Karpenter"), "{karpenter}");
    let fargate = said(&with(&[("eks.amazonaws.com/compute-type", "fargate")]), DAY);
    assert!(fargate.contains("Fargate"), "{fargate}");
    let route = route();
    let green = route
        .steps
        .iter()
        .find_map(|s| match &s.spec {
            crate::route::StepSpec::CreateGreen { group, .. } => Some(group.name.clone()),
            _ => None,
        })
        .unwrap();
    assert_eq!(
        said(&with(&[("eks.amazonaws.com/nodegroup", &green)]), DAY),
        ""
    );
}

#[test]
fn what_eks_or_a_node_does_not_tell_stands_in_the_way() {
    let unlisted = facts(|i| i.cluster_versions.retain(|v| v.version != Minor::new(28)));
    assert!(said(&unlisted, DAY).contains("whether EKS supports 1.28 is unknown"));
    let strange = facts(|i| {
        let mut versions = i.cluster_versions.iter_mut();
        let version = versions.find(|v| v.version == Minor::new(28)).unwrap();
        version.status = "LIMITED_SUPPORT".into();
    });
    assert!(said(&strange, DAY).contains("it says `LIMITED_SUPPORT`"));
    let unread = |labels: &[(&str, &str)]| {
        facts(|i| {
            let mut node = crate::route::fixture::unmanaged_node("odd", 28, "us-east-1a");
            node.labels.remove("eks.amazonaws.com/nodegroup");
            for (k, v) in labels {
                node.labels.insert((*k).into(), (*v).into());
            }
            node.kubelet_version = "custom".into();
            i.nodes.push(node);
        })
    };
    let text = said(&unread(&[]), DAY);
    assert!(text.contains("odd (they report no version"), "{text}");
    let auto = unread(&[("eks.amazonaws.com/compute-type", "auto")]);
    assert_eq!(said(&auto, DAY), "");
}

#[test]
fn insights_in_error_or_unknown_stand_in_the_way_and_so_does_their_absence() {
    for status in ["ERROR", "UNKNOWN"] {
        let facts = facts(|i| i.insights = vec![insight("Incompatible API usage", status)]);
        let text = said(&facts, DAY);
        assert!(
            text.contains("Incompatible API usage") && text.contains(status),
            "{text}"
        );
    }
    let mut none = facts(|_| {});
    none.insights.clear();
    assert!(said(&none, DAY).contains("offers no rollback"));
    // Green's own kubelets are the reason, and green goes.
    let kubelet = facts(|i| {
        i.insights = vec![insight("Kubelet version rollback compatibility", "ERROR")];
    });
    assert_eq!(said(&kubelet, DAY), "");
}

#[test]
fn the_clusters_state_version_and_support_policy_count() {
    let busy = facts(|i| i.cluster.status = ClusterStatus::Updating);
    assert!(said(&busy, DAY).contains("UPDATING, not ACTIVE"));
    let further = facts(|i| i.cluster.version = Minor::new(30));
    assert!(said(&further, DAY).contains("the last hop only"));
    let back = facts(|i| i.cluster.version = Minor::new(28));
    assert_eq!(said(&back, DAY), "");
    let standard = facts(|i| {
        i.cluster.support_type = Some("STANDARD".into());
        for v in &mut i.cluster_versions {
            if v.version == Minor::new(28) {
                v.status = VersionStatus::ExtendedSupport;
            }
        }
        if i.cluster_versions
            .iter()
            .all(|v| v.version != Minor::new(28))
        {
            i.cluster_versions.push(crate::model::eks::ClusterVersion {
                version: Minor::new(28),
                status: "EXTENDED_SUPPORT".into(),
                default: false,
                patch: None,
                end_of_standard_support: None,
                end_of_extended_support: None,
            });
        }
    });
    assert!(said(&standard, DAY).contains("supportType=EXTENDED"));
}

#[test]
fn an_add_on_that_eks_does_not_list_for_the_minor_below_stands_in_the_way() {
    let unlisted = facts(|i| {
        let catalog = i.addon_catalog.get_mut("coredns").unwrap();
        catalog.insert(Minor::new(28), vec![]);
    });
    let text = said(&unlisted, DAY);
    assert!(
        text.contains("lists no version of add-on coredns for 1.28") && text.contains("--preserve"),
        "{text}"
    );
}

#[test]
fn an_add_on_that_the_minor_below_does_not_run_is_named_unless_the_run_takes_it_down() {
    let ours = facts(|i| {
        let proxy = i
            .addons
            .iter_mut()
            .find(|a| a.name == "kube-proxy")
            .unwrap();
        proxy.version = crate::model::AddonVersion::new("v1.29.15-eksbuild.2");
    });
    assert_eq!(said(&ours, DAY), "");
    let theirs = facts(|i| {
        i.addons.push(crate::model::eks::Addon {
            name: "their-addon".into(),
            version: crate::model::AddonVersion::new("v2.0.0"),
            ..i.addons[0].clone()
        });
        crate::route::fixture::add_offers(i, "their-addon", 29, &["v2.0.0", "v1.0.0"]);
        crate::route::fixture::add_offers(i, "their-addon", 28, &["v1.0.0"]);
    });
    let text = said(&theirs, DAY);
    assert!(
        text.contains("their-addon v2.0.0 does not run on 1.28: take it to v1.0.0 first"),
        "{text}"
    );
}

#[test]
fn a_run_resumed_with_an_edited_plan_names_every_key_that_differs() {
    let plan =
        |rest: &str| parse_plan("p", &format!("cluster: expense-dev\nto: 1.29\n{rest}")).unwrap();
    let (was, is) = (
        plan("drain: {parallel: 1}\n"),
        plan("drain: {parallel: 4}\n"),
    );
    let mut state = run(&route(), "control-plane-1.28");
    state.plan_digest = crate::plan::plan_digest(&was);
    let memo = super::plan_diff::plan_for_journal(&was);
    state.binding =
        Arc::new(RunBinding::new(&state.run, json!(route()), memo, Default::default()).unwrap());
    assert!(
        super::run_checks::check_same_run(&state, &was, "arn", &RunCommands::default()).is_ok()
    );
    let error =
        super::run_checks::check_same_run(&state, &is, "arn", &RunCommands::default()).unwrap_err();
    assert_eq!(error.kind.exit_code(), 9);
    assert!(
        error.message.contains("drain.parallel: 1 -> 4"),
        "{}",
        error.message
    );
}

#[test]
fn whatever_acts_on_a_run_of_another_cluster_is_refused_and_no_object_is_to_be_deleted() {
    let plan = parse_plan("p", "cluster: expense-dev\nto: 1.29\n").unwrap();
    let mut state = run(&route(), "drain-expense-blue");
    state.plan_digest = crate::plan::plan_digest(&plan);
    let commands = RunCommands::default();
    let check = |arn: &str| {
        [
            super::run_checks::check_can_roll_back(&state, arn, "eksup plan"),
            super::run_checks::check_same_run(&state, &plan, arn, &commands),
        ]
    };
    for own in check("arn") {
        own.unwrap();
    }
    for foreign in check("arn:elsewhere") {
        let error = foreign.unwrap_err();
        assert_eq!(error.kind.exit_code(), 9);
        assert!(error.hints[0].contains("--kubeconfig"), "{error:?}");
        let text = error.hints.join(" ");
        assert!(
            !text.contains("delete") && !text.contains("remove"),
            "{text}"
        );
    }
}

#[test]
fn a_rollback_that_apply_meets_is_continued_with_all_that_it_includes() {
    let plan = parse_plan("p", "cluster: expense-dev\nto: 1.29\n").unwrap();
    let commands = RunCommands {
        rollback: Some("eksup rollback p.yaml --region eu-west-1".into()),
        ..RunCommands::default()
    };
    let route = route();
    for (control_plane, next) in [
        (false, "eksup rollback p.yaml --region eu-west-1"),
        (
            true,
            "eksup rollback p.yaml --region eu-west-1 --control-plane",
        ),
    ] {
        let mut state = run(&route, "drain-expense-blue");
        let scope = compute_scope(&state, &route, control_plane, &there());
        let entry = JournalEntry::RollbackStarted {
            keep: scope.kept_steps(),
            workloads: Default::default(),
        };
        let (seq, at) = (state.next_seq, state.updated_at);
        state.apply_record(&Record { seq, at, entry }).unwrap();
        let met = super::run_checks::check_same_run(&state, &plan, "arn", &commands).unwrap_err();
        assert_eq!(met.next.as_deref(), Some(next));
    }
}

#[test]
fn a_pause_after_a_step_that_the_next_route_has_not_ends_the_command_before_it_begins() {
    let (route, check) = (route(), super::run_checks::check_pause_survives);
    let commands = RunCommands {
        plan: "eksup plan p.yaml".into(),
        ..RunCommands::default()
    };
    check(&route, None, &commands).unwrap();
    check(&route, Some("drain-expense-blue"), &commands).unwrap();
    let error = check(&route, Some("bake-elsewhere"), &commands).unwrap_err();
    assert_eq!(error.kind.exit_code(), 7);
    assert!(!error.is_planned_pause, "nobody asked for this one");
    assert!(error.message.contains("`bake-elsewhere`"), "{error:?}");
    assert_eq!(error.next.as_deref(), Some("eksup plan p.yaml"));
}

/// A run that made its last hop, and that hop.
pub(super) fn done_run() -> (RunState, super::version_rollback::LastHop) {
    let route = route();
    let state = run(&route, "control-plane-1.29");
    let hop = find_last_hop(&state, &route).unwrap();
    (state, hop)
}

/// A run of a group that a tool owns.
pub(super) fn run_of_owned_group() -> RunState {
    let mut route = route();
    let tags = [("managed-by".to_owned(), "terraform".to_owned())].into();
    let owner = crate::model::group_owner::GroupOwner::from_tags(&tags).unwrap();
    route.owners.insert("expense-blue".to_owned(), owner);
    run(&route, "retire-expense-blue")
}

#[test]
fn what_workloads_had_before_a_reroute_counts_only_for_the_route_that_follows_at_once() {
    let mut state = run(&route(), "control-plane-1.28");
    let closed = state.updated_at;
    let hour = jiff::SignedDuration::from_hours(1);
    let follows = super::run_checks::is_followed_by_route;
    assert!(!follows(&state, "arn", closed));
    state.outcome = Some(crate::journal::FinalOutcome::Rerouted);
    assert!(follows(&state, "arn", closed + hour / 6));
    assert!(!follows(&state, "arn", closed + hour * 2));
    assert!(!follows(&state, "arn:elsewhere", closed));
}
