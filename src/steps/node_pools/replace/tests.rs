use super::*;
use crate::model::node_pool::NodePool;

fn step() -> ReplacePoolStep {
    let terms = ReplaceTerms {
        kubelet: Minor::new(29),
        budget: Some("1".into()),
        bake: Duration::from_secs(60),
        timeout: Duration::from_secs(3600),
    };
    ReplacePoolStep::new("run".into(), ReplacedNodes::Pool("general".into()), terms)
}

fn seen(budget: DriftBudget, old: &[&str], leaving: &[&str]) -> ReplaceObservation {
    let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect();
    ReplaceObservation {
        progress: ReplacementProgress {
            pool: Some(NodePool::default()),
            old: names(old),
            total: 3,
            leaving: names(leaving),
            ..ReplacementProgress::default()
        },
        budget,
        open_until: (budget == DriftBudget::Open).then(|| end_of_opening(NOW)),
        short: Shortage::default(),
        unchanged_for: Duration::ZERO,
        quiet_for: Duration::ZERO,
        fruitless: None,
    }
}

fn decide(seen: &ReplaceObservation, last: Option<&ReplaceAct>) -> Decision<ReplaceAct> {
    let past = StepHistory {
        last_act: last.map(|act| serde_json::to_value(act).unwrap()),
        ..StepHistory::default()
    };
    step().decide_next(seen, &past, NOW)
}

fn after_minutes(minutes: i64) -> Timestamp {
    NOW + jiff::SignedDuration::from_mins(minutes)
}

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

const CLOSED: ReplaceAct = ReplaceAct::Close { stuck: None };

#[test]
fn a_node_on_its_way_out_closes_the_budget_and_the_next_waits_until_the_watch_is_over() {
    let first = seen(DriftBudget::Held, &["a", "b"], &[]);
    assert_eq!(
        decide(&first, None),
        Decision::Act(ReplaceAct::Open { old: 2 })
    );
    let going = seen(DriftBudget::Open, &["a", "b"], &["a"]);
    assert_eq!(
        decide(&going, Some(&ReplaceAct::Open { old: 2 })),
        Decision::Act(CLOSED)
    );
    let going = seen(DriftBudget::Held, &["a", "b"], &["a"]);
    assert!(matches!(
        decide(&going, Some(&CLOSED)),
        Decision::Wait { .. }
    ));
    let mut gone = seen(DriftBudget::Held, &["b"], &[]);
    assert!(
        matches!(decide(&gone, Some(&CLOSED)), Decision::Wait { why, .. } if why.contains("60s left"))
    );
    gone.quiet_for = Duration::from_secs(60);
    assert_eq!(
        decide(&gone, Some(&CLOSED)),
        Decision::Act(ReplaceAct::Open { old: 1 })
    );
}

#[test]
fn a_node_that_went_between_two_looks_closes_the_budget_too() {
    let missed = seen(DriftBudget::Open, &["b"], &[]);
    let opened = ReplaceAct::Open { old: 2 };
    assert_eq!(decide(&missed, Some(&opened)), Decision::Act(CLOSED));
}

#[test]
fn an_open_budget_is_renewed_while_it_is_watched() {
    let opened = ReplaceAct::Open { old: 2 };
    let mut waits = seen(DriftBudget::Open, &["a", "b"], &[]);
    assert!(matches!(
        decide(&waits, Some(&opened)),
        Decision::Wait { .. }
    ));
    let renewed = ReplaceAct::Renew {
        old: 2,
        until: after_minutes(10),
    };
    // The second is an opening of a version that knew no end.
    for until in [Some(after_minutes(5)), None] {
        waits.open_until = until;
        let decided = decide(&waits, Some(&opened));
        assert_eq!(decided, Decision::Act(renewed.clone()));
    }
    // What it was opened with is still known.
    let missed = seen(DriftBudget::Open, &["b"], &[]);
    assert_eq!(decide(&missed, Some(&renewed)), Decision::Act(CLOSED));
}

#[test]
fn an_opening_that_ended_while_nobody_watched_begins_again_under_the_gates() {
    let mut ended = seen(DriftBudget::Open, &["a", "b"], &[]);
    ended.open_until = Some(NOW);
    let opened = ReplaceAct::Open { old: 2 };
    assert_eq!(decide(&ended, Some(&opened)), Decision::Act(CLOSED));
}

#[test]
fn the_last_node_is_watched_too() {
    let mut last = seen(DriftBudget::Held, &[], &[]);
    assert!(matches!(
        decide(&last, Some(&CLOSED)),
        Decision::Wait { .. }
    ));
    last.quiet_for = Duration::from_secs(60);
    assert!(matches!(decide(&last, Some(&CLOSED)), Decision::Done(_)));
}

#[test]
fn a_standstill_closes_the_budget_before_a_person_is_asked() {
    let mut stuck = seen(DriftBudget::Open, &["a"], &[]);
    stuck.unchanged_for = Duration::from_secs(3601);
    stuck.progress.blockers = vec!["PodDisruptionBudget shop/web".into()];
    let Decision::Act(act @ ReplaceAct::Close { stuck: Some(_) }) =
        decide(&stuck, Some(&ReplaceAct::Open { old: 1 }))
    else {
        panic!("the budget stays open");
    };
    let held = seen(DriftBudget::Held, &["a"], &[]);
    let refused = decide(&held, Some(&act));
    assert!(
        matches!(&refused, Decision::Refuse(why) if why.to_string().contains("shop/web")),
        "{refused:?}"
    );
}

#[test]
fn openings_of_which_nothing_comes_end_and_say_what_was_in_the_way() {
    let mut again = seen(DriftBudget::Held, &["a"], &[]);
    again.quiet_for = Duration::from_secs(60);
    again.fruitless = Some((Duration::from_secs(3600), Vec::new()));
    let opened = Decision::Act(ReplaceAct::Open { old: 1 });
    assert_eq!(decide(&again, Some(&CLOSED)), opened);
    again.fruitless = Some((Duration::from_secs(3601), vec!["no capacity".into()]));
    let refused = decide(&again, Some(&CLOSED));
    assert!(
        matches!(&refused, Decision::Refuse(why) if why.to_string().contains("no capacity")),
        "{refused:?}"
    );
}

#[test]
fn a_budget_that_somebody_took_off_is_set_again() {
    for off in [DriftBudget::Absent, DriftBudget::TakenOff] {
        let off = seen(off, &["a"], &[]);
        assert_eq!(decide(&off, None), Decision::Act(CLOSED));
    }
}

/// EKS takes a node back when its replacement does not come up, and begins again: the nodes that leave change each time.
#[test]
fn auto_mode_that_gets_no_machine_asks_a_person_although_it_begins_again_and_again() {
    let terms = ReplaceTerms {
        budget: None,
        ..step().terms
    };
    let step = ReplacePoolStep::new("run".into(), ReplacedNodes::AutoMode, terms);
    let decide = |hours: u64, troubles: &[&str]| {
        let mut seen = seen(DriftBudget::Absent, &["a"], &["a"]);
        let troubles = troubles.iter().map(|t| (*t).to_owned()).collect();
        seen.fruitless = Some((Duration::from_secs(hours * 3600 + 1), troubles));
        step.decide_next(&seen, &StepHistory::default(), NOW)
    };
    let Decision::Refuse(refusal) = decide(1, &["NodeClaim x: no capacity"]) else {
        panic!("the plan's time is over")
    };
    assert!(refusal.why.contains("no capacity"), "{}", refusal.why);
    assert!(matches!(decide(1, &[]), Decision::Wait { .. }));
    assert!(matches!(decide(2, &[]), Decision::Refuse(_)));
}
