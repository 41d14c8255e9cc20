//! Taking a run back in more than one go.

use super::drive::Direction;
use super::retry::RetryDecision;
use super::run::{Engine, RunOutcome, RunSubject};
use super::stop;
use super::test_support::{RaiseStep, ToyWorld};
use crate::journal::memory_store::MemoryRunStore;
use crate::journal::{
    CheckpointStore, JOURNAL_FORMAT, Journal, OpenedEntry, StepState, StepStatus,
};

const STEPS: [&str; 3] = ["a", "b", "c"];

fn opened() -> OpenedEntry {
    OpenedEntry {
        format: JOURNAL_FORMAT,
        run: "r1".into(),
        plan_digest: "d".into(),
        cluster_arn: "arn".into(),
        steps: STEPS.map(String::from).to_vec(),
        route: serde_json::json!({}),
        plan: serde_json::Value::Null,
        workloads: Default::default(),
    }
}

/// One process that rolls the run back, or carries it forward first.
async fn process(
    toy: &ToyWorld,
    memory: &MemoryRunStore,
    keep: &[&str],
) -> (RunOutcome, Vec<(StepStatus, u32)>) {
    let steps: Vec<_> = STEPS
        .iter()
        .map(|s| RaiseStep::plain_step(s, &[1]))
        .collect();
    let (_asker, stop) = stop::stop_channel();
    let remote = std::sync::Arc::new(memory.clone());
    let store = CheckpointStore::new(remote, std::sync::Arc::new(|_| {}));
    let mut journal = Journal::load(Box::new(store)).await.unwrap();
    // What the process finds decides what it does first, as with the command.
    let fresh = journal.run_state().is_none();
    let closed = journal.run_state().is_some_and(|s| s.is_closed());
    let mut engine = Engine {
        world: toy,
        steps: &steps,
        journal: &mut journal,
        lease: None,
        stop,
        pause_after: None,
        gates: super::RunGates::default(),
        resume_command: "eksup apply".into(),
        last_act_end: None,
    };
    if fresh {
        let about = RunSubject {
            cluster: "c".into(),
            from: "1.27".into(),
            to: "1.28".into(),
        };
        engine.open_run(opened(), about).await.unwrap();
        assert_eq!(engine.run_forward().await.unwrap(), RunOutcome::Done);
    } else if !closed {
        engine.resume_run("me").await.unwrap();
    }
    let keep = keep.iter().map(|s| (*s).to_owned()).collect();
    let ended = engine.roll_back(keep, Default::default()).await.unwrap();
    let steps = &journal.run_state().unwrap().steps;
    let steps = steps
        .iter()
        .map(|s| (s.status, s.back.as_ref().map_or(0, |b| b.attempt)));
    (ended, steps.collect())
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_at_first_may_be_rolled_back_later() {
    let (toy, memory) = (ToyWorld::new(), MemoryRunStore::default());
    let (ended, _) = process(&toy, &memory, &["a"]).await;
    assert_eq!(
        ended,
        RunOutcome::RolledBack {
            kept: vec!["a".into()]
        }
    );
    assert_eq!(
        (
            toy.get_number("a"),
            toy.get_number("b"),
            toy.get_number("c")
        ),
        (1, 0, 0)
    );
    let (ended, _) = process(&toy, &memory, &[]).await;
    assert_eq!(ended, RunOutcome::RolledBack { kept: vec![] });
    assert_eq!(toy.get_number("a"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_is_stuck_may_end_without_the_step_it_is_stuck_at() {
    let (toy, memory) = (ToyWorld::new(), MemoryRunStore::default());
    // `b` cannot be rolled back: a refusal is borne for half a minute, and this one lasts.
    let denied = |toy: &ToyWorld| {
        let many = vec![("b".to_owned(), crate::model::ErrorClass::Denied); 10];
        *toy.undo_errors.lock().unwrap() = many;
    };
    denied(&toy);
    let (ended, steps) = process(&toy, &memory, &[]).await;
    assert!(
        matches!(&ended, RunOutcome::Stuck { step, closed: false, .. } if step == "b"),
        "{ended:?}"
    );
    assert_eq!(steps[1].0, StepStatus::UndoFailed);
    denied(&toy);
    let (_, steps) = process(&toy, &memory, &[]).await;
    // The second try has tokens of its own.
    assert_eq!(steps[1], (StepStatus::UndoFailed, 1));
    toy.undo_errors.lock().unwrap().clear();
    let (ended, _) = process(&toy, &memory, &["b"]).await;
    assert_eq!(
        ended,
        RunOutcome::RolledBack {
            kept: vec!["b".into()]
        }
    );
    assert_eq!(
        (
            toy.get_number("a"),
            toy.get_number("b"),
            toy.get_number("c")
        ),
        (0, 1, 0)
    );
}

#[test]
fn a_rollback_counts_its_own_acts_and_not_those_of_the_way_up() {
    let step = |back: u32| -> StepState {
        let back = serde_json::json!({"acts": back});
        let step =
            serde_json::json!({"id": "a", "status": "undoing", "acts": 20_000, "back": back});
        serde_json::from_value(step).unwrap()
    };
    let back = Direction::Rollback {
        before: serde_json::Value::Null,
        early: false,
    };
    assert_eq!(Direction::Forward.count_acts(&step(3)), 20_000);
    assert_eq!(back.count_acts(&step(3)), 3);
}

#[test]
fn a_rollback_has_no_other_route_and_is_stuck_where_one_is_asked_for() {
    let back = Direction::Rollback {
        before: serde_json::Value::Null,
        early: false,
    };
    let stuck = back.limit_decision(RetryDecision::Reroute);
    assert!(matches!(stuck, RetryDecision::Stuck { denied: None }));
    let forward = Direction::Forward.limit_decision(RetryDecision::Reroute);
    assert!(matches!(forward, RetryDecision::Reroute));
}
