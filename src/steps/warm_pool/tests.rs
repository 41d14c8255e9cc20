use super::*;
use crate::model::asg::AsgInstance;
use crate::steps::closing::tests::node;
use crate::steps::evictable::tests::pod;

fn stopped() -> WarmPool {
    WarmPool {
        min: 2,
        max_prepared: None,
        state: "Stopped".into(),
        reuse: true,
    }
}

fn seen(pool: WarmPool, instances: &[&str]) -> WarmPoolObservation {
    let instance = |id: &&str| AsgInstance {
        id: (*id).to_owned(),
        zone: "us-east-1a".into(),
        lifecycle: "Warmed:Stopped".into(),
        healthy: true,
        protected: false,
    };
    WarmPoolObservation {
        reading: Some(WarmPoolReading {
            pool,
            deleting: false,
            instances: instances.iter().map(instance).collect(),
        }),
        pods: Vec::new(),
    }
}

fn at(minutes: i64) -> Timestamp {
    let began: Timestamp = "2026-11-20T08:00:00Z".parse().unwrap();
    began + jiff::SignedDuration::from_mins(minutes)
}

fn past() -> StepHistory {
    StepHistory {
        started_at: Some(at(0)),
        ..StepHistory::default()
    }
}

fn next(seen: &WarmPoolObservation, minutes: i64) -> Decision<WarmPoolAct> {
    RemoveWarmPoolStep::new("blue".into(), stopped(), false).decide_next(seen, &past(), at(minutes))
}

#[test]
fn blues_pool_is_emptied_and_then_deleted_and_seen_to_be_gone() {
    let emptied = stopped().emptied();
    let empty = WarmPoolAct::Empty {
        pool: emptied.clone(),
        mark: Some(stopped()),
    };
    assert_eq!(next(&seen(stopped(), &["i-1"]), 0), Decision::Act(empty));
    let ending = seen(emptied.clone(), &["i-1"]);
    assert!(matches!(next(&ending, 1), Decision::Wait { .. }));
    // A hook that nobody answers is for a person.
    assert!(matches!(next(&ending, 121), Decision::Refuse(_)));
    let mut empty = seen(emptied, &[]);
    assert_eq!(next(&empty, 2), Decision::Act(WarmPoolAct::Delete));
    empty.reading.as_mut().unwrap().deleting = true;
    assert!(matches!(next(&empty, 2), Decision::Wait { .. }));
    let gone = WarmPoolObservation::default();
    assert!(matches!(next(&gone, 2), Decision::Done(_)));
}

#[test]
fn a_pool_that_somebody_changed_since_the_plan_is_planned_again() {
    let other = WarmPool {
        min: 5,
        ..stopped()
    };
    let Decision::Refuse(refusal) = next(&seen(other, &["i-1"]), 0) else {
        panic!("it is taken away")
    };
    assert_eq!(refusal.next, NextStep::Replan);
}

#[test]
fn a_pod_on_a_ready_node_of_the_pool_is_not_lost_with_it() {
    let warm = |name: &str, id: &str, ready: &str| {
        let mut node = node(name);
        node.provider_id = Some(format!("aws:///us-east-1a/{id}"));
        node.ready = ready.to_owned();
        node
    };
    let nodes = [
        warm("warming", "i-1", "True"),
        warm("stopped", "i-2", "Unknown"),
        warm("in-service", "i-3", "True"),
    ];
    let pods = ["warming", "stopped", "in-service"].map(|n| pod(&format!("on-{n}"), n));
    let mut observed = seen(stopped(), &["i-1", "i-2"]);
    let reading = observed.reading.clone().unwrap();
    observed.pods = pods_on_pool(&reading, nodes.iter(), pods.iter());
    assert_eq!(observed.pods, ["shop/on-warming on warming"]);
    assert!(matches!(next(&observed, 1), Decision::Wait { .. }));
    assert!(matches!(next(&observed, 16), Decision::Refuse(_)));
}

#[test]
fn a_rollback_gives_blue_its_pool_back_and_does_not_wait_for_greens_to_end() {
    let blue = RemoveWarmPoolStep::new("blue".into(), stopped(), false);
    let had = seen(stopped(), &["i-1"]).before_image();
    let trail = RollbackHistory::default();
    let undo = |seen: &WarmPoolObservation| blue.decide_undo(&had, seen, &trail, at(0));
    let put = Decision::Act(WarmPoolAct::Put { pool: stopped() });
    assert_eq!(undo(&WarmPoolObservation::default()), put);
    assert_eq!(undo(&seen(stopped().emptied(), &[])), put);
    let mut deleting = seen(stopped().emptied(), &[]);
    deleting.reading.as_mut().unwrap().deleting = true;
    assert!(matches!(undo(&deleting), Decision::Wait { .. }));
    assert!(matches!(undo(&seen(stopped(), &[])), Decision::Done(_)));

    let green = AddWarmPoolStep::new("green".into(), stopped());
    let none = WarmPoolObservation::default().before_image();
    let undo = |seen: &WarmPoolObservation| green.decide_undo(&none, seen, &trail, at(0));
    let pool = stopped().emptied();
    let empty = Decision::Act(WarmPoolAct::Empty {
        pool: pool.clone(),
        mark: None,
    });
    assert_eq!(undo(&seen(stopped(), &["i-9"])), empty);
    assert!(matches!(undo(&seen(pool, &["i-9"])), Decision::Done(_)));
    assert!(matches!(
        undo(&WarmPoolObservation::default()),
        Decision::Done(_)
    ));
}

#[test]
fn a_pool_that_an_earlier_run_removed_is_given_back_by_this_one() {
    let put = Decision::Act(WarmPoolAct::Put { pool: stopped() });
    let none = WarmPoolObservation::default();
    for seen in [none, seen(stopped().emptied(), &["i-1"])] {
        let blue = RemoveWarmPoolStep::new("blue".into(), stopped(), true);
        // A step that has not acted is not undone.
        let mark = Decision::Act(WarmPoolAct::Mark { pool: stopped() });
        let mut past = past();
        assert_eq!(blue.decide_next(&seen, &past, at(0)), mark);
        past.acts = 1;
        assert_ne!(blue.decide_next(&seen, &past, at(0)), mark);
        let had = blue.before_image(&seen);
        let undo = blue.decide_undo(&had, &seen, &RollbackHistory::default(), at(0));
        assert_eq!(undo, put);
    }
}

#[test]
fn green_has_the_pool_when_it_is_seen() {
    let green = AddWarmPoolStep::new("green".into(), stopped());
    let next = |seen: &WarmPoolObservation| green.decide_next(seen, &past(), at(0));
    let put = Decision::Act(WarmPoolAct::Put { pool: stopped() });
    assert_eq!(next(&WarmPoolObservation::default()), put);
    assert_eq!(next(&seen(stopped().emptied(), &[])), put);
    assert!(matches!(next(&seen(stopped(), &[])), Decision::Done(_)));
}
