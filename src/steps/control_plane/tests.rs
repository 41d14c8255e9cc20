use std::collections::BTreeMap;

use super::*;
use crate::model::aws_status::ClusterStatus;
use crate::model::eks::{Insight, InsightsRefresh};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn step() -> ControlPlaneStep {
    ControlPlaneStep::new(
        "control-plane-1.28".into(),
        Minor::new(27),
        Minor::new(28),
        Duration::from_secs(3600),
        false,
    )
}

fn seen(version: u16, status: &str, server: u16) -> ControlPlaneObservation {
    ControlPlaneObservation {
        cluster: Cluster {
            name: "c".into(),
            arn: "arn".into(),
            version: Minor::new(version),
            status: status.into(),
            endpoint: None,
            certificate_authority: None,
            platform_version: None,
            role_arn: None,
            vpc_id: None,
            subnet_ids: vec![],
            security_group_ids: vec![],
            cluster_security_group_id: None,
            service_ipv4_cidr: None,
            ip_family: None,
            support_type: None,
            authentication_mode: None,
            auto_mode: false,
            health: vec![],
            tags: BTreeMap::new(),
            created_at: None,
        },
        updates: vec![],
        server: Ok(Minor::new(server)),
        readiness: None,
    }
}

fn update(status: UpdateStatus, created: &str) -> Update {
    Update {
        id: "u1".into(),
        status,
        kind: "VersionUpdate".into(),
        params: BTreeMap::from([("Version".to_owned(), "1.28".to_owned())]),
        created_at: Some(at(created)),
        errors: vec![],
    }
}

const NOW: &str = "2026-11-21T09:00:00Z";

#[test]
fn eks_alone_saying_so_is_not_done() {
    let decision = step().decide_next(&seen(28, "ACTIVE", 27), &StepHistory::default(), at(NOW));
    assert!(matches!(decision, Decision::Wait { why, .. } if why.contains("still reports 1.27")));
    assert!(matches!(
        step().decide_next(&seen(28, "ACTIVE", 28), &StepHistory::default(), at(NOW)),
        Decision::Done(_)
    ));
}

#[test]
fn an_api_server_behind_a_proxy_of_another_version_is_not_waited_for_forever() {
    let decision = step().decide_next(&seen(28, "ACTIVE", 36), &StepHistory::default(), at(NOW));
    assert!(matches!(decision, Decision::Done(how) if how.contains("1.36")));
}

#[test]
fn an_update_in_flight_is_adopted() {
    let mut seen = seen(27, "UPDATING", 27);
    seen.updates
        .push(update(UpdateStatus::InProgress, "2026-11-21T08:55:00Z"));
    let adopt = ControlPlaneAct::Adopt {
        update: "u1".into(),
    };
    assert_eq!(
        step().decide_next(&seen, &StepHistory::default(), at(NOW)),
        Decision::Act(adopt.clone())
    );
    assert_eq!(step().before_image(&seen), Minor::new(27));
    // Then it is waited for, and its end is the hop's end.
    let past = StepHistory {
        last_act: Some(serde_json::to_value(&adopt).unwrap()),
        last_act_at: Some(at(NOW)),
        acts: 1,
        ..StepHistory::default()
    };
    assert!(
        matches!(step().decide_next(&seen, &past, at(NOW)), Decision::Wait { why, .. } if why.contains("u1"))
    );
    // It began before it was adopted, and is still the one that counts when it fails.
    seen.cluster.status = ClusterStatus::Active;
    seen.updates[0].status = UpdateStatus::Failed;
    assert!(
        matches!(step().decide_next(&seen, &past, at(NOW)), Decision::Refuse(why) if why.to_string().contains("u1"))
    );
}

#[test]
fn an_update_of_another_kind_or_to_another_version_is_waited_for_and_not_adopted() {
    for change in [
        |u: &mut Update| u.kind = "LoggingUpdate".into(),
        |u: &mut Update| drop(u.params.insert("Version".into(), "1.29".into())),
    ] {
        let mut seen = seen(27, "UPDATING", 27);
        let mut other = update(UpdateStatus::InProgress, "2026-11-21T08:55:00Z");
        change(&mut other);
        seen.updates.push(other);
        assert!(matches!(
            step().decide_next(&seen, &StepHistory::default(), at(NOW)),
            Decision::Wait { .. }
        ));
    }
}

#[test]
fn the_version_before_an_adopted_hop_is_known_though_the_cluster_shows_the_new_one() {
    let mut seen = seen(28, "UPDATING", 28);
    seen.updates
        .push(update(UpdateStatus::InProgress, "2026-11-21T08:55:00Z"));
    assert_eq!(step().before_image(&seen), Minor::new(27));
}

#[test]
fn a_failed_update_of_an_earlier_day_does_not_stop_a_new_try() {
    let mut seen = seen(27, "ACTIVE", 27);
    seen.updates
        .push(update(UpdateStatus::Failed, "2026-11-20T08:55:00Z"));
    assert_eq!(
        step().decide_next(&seen, &StepHistory::default(), at(NOW)),
        Decision::Act(ControlPlaneAct::Update {
            to: Minor::new(28),
            attempt: CallAttempt::default()
        })
    );
    let past = StepHistory {
        last_act_at: Some(at("2026-11-20T08:55:00Z")),
        acts: 1,
        ..StepHistory::default()
    };
    assert!(matches!(
        step().decide_next(&seen, &past, at(NOW)),
        Decision::Refuse(_)
    ));
}

#[test]
fn a_cluster_two_minors_away_is_refused() {
    assert!(matches!(
        step().decide_next(&seen(26, "ACTIVE", 26), &StepHistory::default(), at(NOW)),
        Decision::Refuse(_)
    ));
}

#[test]
fn the_old_demand_that_node_groups_match_is_recognised() {
    assert!(is_version_skew_refusal(
        "Nodegroups eks-stg-gp must be updated to match cluster version 1.18 before updating cluster version"
    ));
}

#[test]
fn a_failed_update_is_found_by_when_its_act_happened_however_long_the_run_paused_since() {
    let mut seen = seen(27, "ACTIVE", 27);
    seen.updates
        .push(update(UpdateStatus::Failed, "2026-11-20T08:55:00Z"));
    let past = StepHistory {
        last_act_at: Some(at("2026-11-20T08:55:00Z")),
        last_act_counts_from: Some(at(NOW)),
        acts: 1,
        ..StepHistory::default()
    };
    assert!(matches!(
        step().decide_next(&seen, &past, at(NOW)),
        Decision::Refuse(why) if why.to_string().contains("u1")
    ));
}

#[test]
fn an_update_is_too_old_only_beyond_what_two_clocks_may_differ() {
    let mut seen = seen(27, "UPDATING", 27);
    let begun = at(NOW) - step().update_time_limit() - SignedDuration::from_secs(100);
    seen.updates
        .push(update(UpdateStatus::InProgress, &begun.to_string()));
    let past = StepHistory {
        last_act: Some(serde_json::json!({"adopt": {"update": "u1"}})),
        acts: 1,
        ..StepHistory::default()
    };
    let decide = |now| step().decide_next(&seen, &past, now);
    assert!(matches!(decide(at(NOW)), Decision::Wait { .. }));
    let later = at(NOW) + SignedDuration::from_secs(60);
    assert!(matches!(decide(later), Decision::Refuse(_)));
}

/// A rollback that has had EKS judge its insights again: what it decides when that and the nodes are so.
fn decide_rollback(
    insights: Vec<Insight>,
    (running, failed): (bool, bool),
    kubelet: Option<Minor>,
    minutes: i64,
) -> Decision<ControlPlaneAct> {
    let mut seen = seen(28, "ACTIVE", 28);
    seen.readiness = Some(RollbackReadiness {
        insights,
        refresh: Some(InsightsRefresh {
            running,
            failed,
            started_at: Some(at(NOW)),
            message: "no access".into(),
        }),
        kubelets: vec![("n1".into(), kubelet)],
    });
    let trail = RollbackHistory {
        rollback: StepHistory {
            started_at: Some(at(NOW)),
            last_act: serde_json::to_value(ControlPlaneAct::Refresh).ok(),
            last_act_at: Some(at(NOW)),
            acts: 1,
            ..StepHistory::default()
        },
        ..RollbackHistory::default()
    };
    let now = at(NOW) + SignedDuration::from_mins(minutes);
    step().decide_undo(&Minor::new(27), &seen, &trail, now)
}

fn insight(status: &str) -> Insight {
    Insight {
        id: "i".into(),
        name: "Cluster health issues".into(),
        category: "ROLLBACK_READINESS".into(),
        kubernetes_version: Some(Minor::new(27)),
        status: status.into(),
        reason: String::new(),
        description: String::new(),
        last_refresh: None,
        recommendation: None,
        resources: vec![],
    }
}

#[test]
fn a_control_plane_is_rolled_back_only_on_insights_that_eks_has_judged_again_and_that_pass() {
    let (judged, old) = ((false, false), Some(Minor::new(27)));
    let asks = decide_rollback(vec![insight("PASSING")], judged, old, 1);
    assert!(
        matches!(&asks, Decision::Act(ControlPlaneAct::Update { to, .. }) if *to == Minor::new(27)),
        "{asks:?}"
    );
    let refused = |insights, refresh, minutes, part: &str| {
        let decision = decide_rollback(insights, refresh, old, minutes);
        let Decision::Refuse(why) = &decision else {
            panic!("{decision:?}")
        };
        assert!(why.to_string().contains(part), "{why}");
    };
    refused(
        vec![insight("PASSING")],
        (false, true),
        1,
        "it failed: no access",
    );
    refused(
        vec![insight("PASSING")],
        (true, false),
        31,
        "it did not end within 30 minutes",
    );
    refused(vec![], judged, 1, "offers no rollback");
    refused(vec![insight("PENDING")], judged, 1, "is PENDING");
    // Insights on another version say nothing of this one.
    let mut other = insight("PASSING");
    other.kubernetes_version = Some(Minor::new(26));
    refused(vec![other], judged, 1, "offers no rollback");
}

#[test]
fn a_kubelet_whose_version_cannot_be_read_holds_the_control_plane_where_it_is() {
    let decide = |kubelet, minutes| {
        decide_rollback(vec![insight("PASSING")], (false, false), kubelet, minutes)
    };
    for kubelet in [None, Some(Minor::new(28))] {
        assert!(matches!(decide(kubelet, 1), Decision::Wait { why, .. } if why.contains("n1")));
        assert!(matches!(decide(kubelet, 31), Decision::Refuse(_)));
    }
}
