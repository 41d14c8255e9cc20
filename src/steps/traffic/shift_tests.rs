//! What a shift of weights decides, forward and in a rollback.

use super::*;
use crate::model::elb::{ListenerRule, TargetHealth};

fn shift() -> ShiftStep {
    ShiftStep::new(
        "shift".into(),
        ShiftSpec {
            rules: vec!["r".into()],
            blue: "b".into(),
            green: "g".into(),
            steps: vec![10, 50, 100],
            bake: Duration::from_secs(60),
            min_healthy_percent: 100,
            timeout: Duration::from_secs(600),
            back_on_unhealthy: true,
            blue_away: false,
            every_zone: true,
        },
    )
}

fn target(id: &str, state: &str) -> TargetHealth {
    TargetHealth {
        id: id.into(),
        port: None,
        zone: None,
        state: state.into(),
        reason: None,
    }
}

fn seen(blue: i32, green: i32, state: &str) -> TrafficObservation {
    let weigh = |arn: &str, weight| WeightedTargetGroup {
        arn: arn.into(),
        weight,
    };
    TrafficObservation {
        blue_steady: false,
        rules: vec![ListenerRule {
            arn: "r".into(),
            listener: "l".into(),
            priority: "10".into(),
            is_default: false,
            conditions: vec![],
            forward: vec![weigh("b", blue), weigh("g", green)],
            stickiness_seconds: None,
            rest: serde_json::Value::Null,
            tags: Default::default(),
        }],
        green: vec![target("i-1", state)],
        blue: vec![target("i-2", "healthy")],
        short: Default::default(),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

fn past(act: &ShiftAct) -> StepHistory {
    StepHistory {
        started_at: Some(at(0)),
        last_act_at: Some(at(0)),
        last_act: serde_json::to_value(act).ok(),
        acts: 1,
        ..StepHistory::default()
    }
}

#[test]
fn a_zone_without_a_healthy_target_stops_the_shift_but_not_behind_a_local_service() {
    let mut spec = shift().spec;
    spec.min_healthy_percent = 50;
    let mut dark = seen(100, 0, "healthy");
    dark.green.push(target("i-3", "unhealthy"));
    for (target, zone) in dark.green.iter_mut().zip(["a", "b"]) {
        target.zone = Some(zone.to_owned());
    }
    let decide = |spec: &ShiftSpec| {
        let shift = ShiftStep::new("shift".into(), spec.clone());
        shift.decide_next(&dark, &StepHistory::default(), at(0))
    };
    let Decision::Wait { why, .. } = decide(&spec) else {
        panic!("shifts onto a dark zone")
    };
    assert!(why.contains("none healthy in b"), "{why}");
    spec.every_zone = false;
    assert!(matches!(decide(&spec), Decision::Act(_)));
}

#[test]
fn traffic_rises_step_by_step_and_bakes_between() {
    let shift = shift();
    let Decision::Act(first) =
        shift.decide_next(&seen(100, 0, "healthy"), &StepHistory::default(), at(0))
    else {
        panic!()
    };
    assert_eq!(first.percent, 10);
    assert!(matches!(
        shift.decide_next(&seen(90, 10, "healthy"), &past(&first), at(59)),
        Decision::Wait { .. }
    ));
    let Decision::Act(second) = shift.decide_next(&seen(90, 10, "healthy"), &past(&first), at(60))
    else {
        panic!()
    };
    assert_eq!(second.percent, 50);
}

#[test]
fn a_new_attempt_bakes_the_share_that_it_finds_on_green_as_long_as_stickiness_asks() {
    let shift = shift();
    let retried = StepHistory {
        started_at: Some(at(0)),
        attempt: 1,
        ..StepHistory::default()
    };
    let decide = |seen: &TrafficObservation, now| shift.decide_next(seen, &retried, at(now));
    let half = seen(50, 50, "healthy");
    assert!(matches!(decide(&half, 59), Decision::Wait { .. }));
    assert!(matches!(decide(&half, 60), Decision::Act(act) if act.percent == 100));
    let mut sticky = seen(0, 100, "healthy");
    sticky.rules[0].stickiness_seconds = Some(300);
    assert!(matches!(decide(&sticky, 299), Decision::Wait { .. }));
    assert!(matches!(decide(&sticky, 300), Decision::Done(_)));
    // Nothing is on green yet, so there is nothing to watch.
    let none = decide(&seen(100, 0, "healthy"), 0);
    assert!(matches!(none, Decision::Act(act) if act.percent == 10));
}

#[test]
fn no_traffic_goes_to_a_green_that_is_not_healthy() {
    assert!(matches!(
        shift().decide_next(&seen(100, 0, "unhealthy"), &StepHistory::default(), at(0)),
        Decision::Wait { .. }
    ));
}

#[test]
fn a_green_that_falls_ill_gives_the_traffic_back_and_the_run_stops() {
    let shift = shift();
    let raised = shift.shift_to(50, &seen(90, 10, "healthy"), None);
    let Decision::Act(back) = shift.decide_next(&seen(50, 50, "unhealthy"), &past(&raised), at(10))
    else {
        panic!()
    };
    assert_eq!(back.percent, 0);
    assert!(
        matches!(shift.decide_next(&seen(100, 0, "unhealthy"), &past(&back), at(20)), Decision::Refuse(why) if why.to_string().contains("back on blue"))
    );
}

#[test]
fn weights_that_somebody_else_wrote_stop_the_shift() {
    let shift = shift();
    let raised = shift.shift_to(10, &seen(100, 0, "healthy"), None);
    assert!(
        matches!(shift.decide_next(&seen(63, 37, "healthy"), &past(&raised), at(100)), Decision::Refuse(why) if why.to_string().contains("somebody else"))
    );
}

#[test]
fn a_write_that_did_not_take_is_done_again_while_green_is_healthy_and_is_nobodys_change() {
    let shift = shift();
    let asked = shift.shift_to(10, &seen(100, 0, "healthy"), None);
    let mut now = seen(100, 0, "healthy");
    assert_eq!(
        shift.decide_next(&now, &past(&asked), at(1)),
        Decision::Act(asked.clone())
    );
    // Somebody has put a third target group into the rule just then: that change stays, and the share is written.
    now.rules[0].forward.push(WeightedTargetGroup {
        arn: "canary".into(),
        weight: 5,
    });
    let Decision::Act(again) = shift.decide_next(&now, &past(&asked), at(1)) else {
        panic!()
    };
    assert_eq!(again.set[0].was, now.rules[0].forward);
    assert!(
        again.set[0]
            .forward
            .iter()
            .any(|t| t.arn == "canary" && t.weight == 5)
    );
    let ill = shift.decide_next(&seen(100, 0, "unhealthy"), &past(&asked), at(1));
    assert!(matches!(ill, Decision::Wait { .. }), "{ill:?}");
}

#[test]
fn weights_that_somebody_puts_back_as_they_were_are_not_written_over() {
    let shift = shift();
    let raised = shift.shift_to(10, &seen(100, 0, "healthy"), None);
    let written = StepHistory {
        acted_at: Some(at(1)),
        ..past(&raised)
    };
    let decide = |seconds| shift.decide_next(&seen(100, 0, "healthy"), &written, at(seconds));
    // A write may take a moment to show.
    assert_eq!(decide(2), Decision::Act(raised.clone()));
    assert!(
        matches!(decide(100), Decision::Refuse(why) if why.to_string().contains("somebody else"))
    );
}

#[test]
fn of_two_rules_the_one_that_somebody_else_has_written_is_not_written_over() {
    let shift = shift();
    let mut both = seen(100, 0, "healthy");
    let second = ListenerRule {
        arn: "r2".into(),
        ..both.rules[0].clone()
    };
    both.rules.push(second);
    let asked = shift.shift_to(10, &both, None);
    let weights = |blue, green| seen(blue, green, "healthy").rules[0].forward.clone();
    both.rules[0].forward = weights(90, 10);
    let rest = shift.decide_next(&both, &past(&asked), at(1));
    assert!(
        matches!(&rest, Decision::Act(act) if act.percent == 10 && act.set.len() == 1),
        "{rest:?}"
    );
    both.rules[1].forward = weights(70, 30);
    let foreign = shift.decide_next(&both, &past(&asked), at(1));
    assert!(
        matches!(&foreign, Decision::Refuse(why) if why.to_string().contains("somebody else")),
        "{foreign:?}"
    );
}

#[test]
fn restoring_brings_the_first_weights_back_whatever_came_between() {
    let shift = shift();
    let before = shift.before_image(&seen(100, 0, "healthy"));
    let trail = RollbackHistory::default();
    let Decision::Act(act) = shift.decide_undo(&before, &seen(50, 50, "healthy"), &trail, at(0))
    else {
        panic!()
    };
    assert_eq!(act.percent, 0);
    assert!(matches!(
        shift.decide_undo(&before, &seen(100, 0, "healthy"), &trail, at(0)),
        Decision::Done(_)
    ));
}

#[test]
fn weights_that_were_no_percents_come_back_as_they_were() {
    let shift = shift();
    let before = shift.before_image(&seen(1, 0, "healthy"));
    let Decision::Act(act) = shift.decide_undo(
        &before,
        &seen(0, 100, "healthy"),
        &RollbackHistory::default(),
        at(0),
    ) else {
        panic!()
    };
    let weights: Vec<i32> = act.set[0].forward.iter().map(|t| t.weight).collect();
    assert_eq!(weights, [1, 0]);
}

#[test]
fn a_blue_that_never_turns_healthy_again_is_stuck_and_not_waited_for_forever() {
    let shift = shift();
    let before = shift.before_image(&seen(100, 0, "healthy"));
    let mut now = seen(0, 100, "healthy");
    now.blue = vec![target("i-2", "unhealthy")];
    let trail = |started: i64| RollbackHistory {
        rollback: StepHistory {
            started_at: Some(at(started)),
            ..StepHistory::default()
        },
        ..RollbackHistory::default()
    };
    assert!(matches!(
        shift.decide_undo(&before, &now, &trail(0), at(599)),
        Decision::Wait { .. }
    ));
    assert!(matches!(
        shift.decide_undo(&before, &now, &trail(0), at(601)),
        Decision::Refuse(why) if why.to_string().contains("traffic stays where it is")
    ));
}

#[test]
fn no_weight_is_raised_while_a_workload_is_short() {
    let shift = shift();
    let mut short = seen(100, 0, "healthy");
    short.short.workloads = vec![crate::steps::workload_health::ShortWorkload {
        name: "Deployment shop/web".into(),
        ready: 1,
        needed: 2,
        why: "pod shop/web-x on g1: ImagePullBackOff".into(),
    }];
    let decide = |seen: &TrafficObservation| {
        shift.decide_next(seen, &StepHistory::default(), Timestamp::UNIX_EPOCH)
    };
    assert!(matches!(decide(&short), Decision::Wait { why, .. } if why.contains("1 of 2")));
    short.short.lasted = shift.spec.timeout + Duration::from_secs(1);
    assert!(
        matches!(decide(&short), Decision::Refuse(why) if why.to_string().contains("ImagePullBackOff"))
    );
    short.short.workloads.clear();
    assert!(matches!(decide(&short), Decision::Act(_)));
}

fn rolled_back_from(started: i64) -> RollbackHistory {
    RollbackHistory {
        rollback: StepHistory {
            started_at: Some(at(started)),
            ..StepHistory::default()
        },
        ..RollbackHistory::default()
    }
}

#[test]
fn where_green_serves_nothing_the_rest_of_the_rollback_goes_on_and_only_at_its_end_a_person_is_asked()
 {
    let shift = shift();
    let before = shift.before_image(&seen(100, 0, "healthy"));
    let mut now = seen(0, 100, "unhealthy");
    now.blue = vec![target("i-2", "unhealthy")];
    let decide = |now: &TrafficObservation, s: i64| {
        shift.decide_undo(&before, now, &rolled_back_from(0), at(s))
    };
    let Decision::Yield {
        refusal, overdue, ..
    } = decide(&now, 599)
    else {
        panic!("{:?}", decide(&now, 599))
    };
    let why = refusal.to_string();
    assert!(!overdue && why.contains("green serves nothing"), "{why}");
    assert!(matches!(
        decide(&now, 601),
        Decision::Yield { overdue: true, .. }
    ));
    // What is not judged yet may serve.
    now.green = vec![target("i-1", "initial")];
    assert!(matches!(decide(&now, 599), Decision::Wait { .. }));
}

#[test]
fn weights_follow_blues_healthy_targets_in_steps_and_never_go_up_on_green_again() {
    let shift = shift();
    let before = shift.before_image(&seen(100, 0, "healthy"));
    let blue = |states: [&str; 3]| {
        let target = |(i, state): (usize, &&str)| target(&format!("i-{i}"), state);
        states.iter().enumerate().map(target).collect::<Vec<_>>()
    };
    let mut now = seen(0, 100, "unhealthy");
    now.blue = blue(["healthy", "unhealthy", "unhealthy"]);
    let decide =
        |now: &TrafficObservation| shift.decide_undo(&before, now, &rolled_back_from(0), at(1));
    let Decision::Act(act) = decide(&now) else {
        panic!()
    };
    assert_eq!(act.percent, 67);
    now.rules[0].forward = act.set[0].forward.clone();
    assert!(matches!(
        decide(&now),
        Decision::Yield { overdue: false, .. }
    ));
    // One less than a moment ago: green gets nothing back for that.
    now.blue = blue(["healthy", "healthy", "unhealthy"]);
    let Decision::Act(act) = decide(&now) else {
        panic!()
    };
    assert_eq!(act.percent, 34);
    now.rules[0].forward = act.set[0].forward.clone();
    now.blue = blue(["healthy", "unhealthy", "unhealthy"]);
    assert!(matches!(decide(&now), Decision::Yield { .. }));
    now.blue_steady = true;
    let Decision::Act(act) = decide(&now) else {
        panic!()
    };
    assert_eq!(act.percent, 0);
}
