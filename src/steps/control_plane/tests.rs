use std::collections::BTreeMap;

use super::*;
use crate::model::aws_status::ClusterStatus;

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
    assert!(matches!(decision, Decision::Wait { why, .. } if why.contains("still answers 1.27")));
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
