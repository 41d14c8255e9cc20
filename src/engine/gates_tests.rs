//! Windows and approvals: nothing new begins without, and what has begun is finished.

use std::time::Duration;

use jiff::SignedDuration;

use super::gates::RunGates;
use super::run::{EngineError, PlannedStep, RunOutcome};
use super::step::UndoKind;
use super::stop;
use super::test_support::{GATE_BUSY, RaiseStep, ToyWorld};
use super::tests::{about, engine, fresh_toy, in_cluster, opened, three_steps};
use crate::event::EventKind;
use crate::journal::memory_store::MemoryRunStore;
use crate::journal::{Journal, JournalError, approval, checkpoint_store};
use crate::model::Windows;
use crate::model::maintenance_window::Window;

const RUN: &str = "r1";

/// Every day from 22:00 to 23:00.
fn evenings() -> RunGates {
    RunGates {
        windows: Windows(vec![Window {
            days: Vec::new(),
            from: 22 * 60,
            to: 23 * 60,
            time_zone: "UTC".into(),
        }]),
        ..RunGates::default()
    }
}

fn approving(steps: &[&str]) -> RunGates {
    RunGates {
        approvals: steps.iter().map(|s| (*s).to_owned()).collect(),
        approve_command: "eksup approve p.yaml".into(),
        ..RunGates::default()
    }
}

/// One process: opens or resumes, then goes forward.
async fn go(
    toy: &ToyWorld,
    memory: &MemoryRunStore,
    steps: &[PlannedStep<ToyWorld>],
    gates: RunGates,
) -> Result<RunOutcome, EngineError> {
    let (_asker, stop) = stop::stop_channel();
    let mut journal = Journal::load(in_cluster(memory)).await?;
    let fresh = journal.run_state().is_none();
    let mut engine = engine(toy, steps, &mut journal, &stop);
    engine.gates = gates;
    if fresh {
        engine.open_run(opened(steps), about()).await?;
    } else {
        engine.resume_run("me").await?;
    }
    engine.run_forward().await
}

/// Lets the clock read this, today.
fn be(toy: &ToyWorld, clock: &str) {
    let at = format!("2026-11-21T{clock}:00Z").parse().unwrap();
    toy.clock.jump_by(toy.clock.now().duration_until(at));
}

#[tokio::test(start_paused = true)]
async fn outside_the_windows_nothing_begins_and_the_same_command_goes_on_within() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let RunOutcome::Paused { why, .. } =
        go(&toy, &memory, &three_steps(), evenings()).await.unwrap()
    else {
        panic!()
    };
    assert!(why.contains("opens Sat 2026-11-21 22:00 UTC"), "{why}");
    assert!(toy.acts.lock().unwrap().is_empty());
    be(&toy, "22:10");
    let ended = go(&toy, &memory, &three_steps(), evenings()).await.unwrap();
    assert_eq!(ended, RunOutcome::Done);
}

#[tokio::test(start_paused = true)]
async fn what_has_begun_is_finished_and_the_next_part_waits_for_the_next_window() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    *toy.act_time.lock().unwrap() = Duration::from_secs(25 * 60);
    be(&toy, "22:00");
    // `a` takes until 22:25 and the first share until 22:50; the second begins then and ends at 23:15, outside.
    let ended = go(&toy, &memory, &three_steps(), evenings()).await.unwrap();
    assert!(matches!(ended, RunOutcome::Paused { .. }), "{ended:?}");
    assert_eq!(
        *toy.acts.lock().unwrap(),
        ["a=1", "weights=25", "weights=50"]
    );
    let again = go(&toy, &memory, &three_steps(), evenings()).await.unwrap();
    assert!(matches!(again, RunOutcome::Paused { .. }), "{again:?}");
    toy.clock.jump_by(SignedDuration::from_hours(23));
    assert_eq!(
        go(&toy, &memory, &three_steps(), evenings()).await.unwrap(),
        RunOutcome::Done
    );
}

#[tokio::test(start_paused = true)]
async fn a_step_with_something_under_way_is_not_left_before_that_has_come_to_rest() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let step = || {
        [RaiseStep {
            name: "g",
            path: vec![1, 2],
            gate: Some("gate"),
            undo: UndoKind::Restore,
            has_no_effect: false,
        }
        .into_planned_step()]
    };
    toy.set_number("gate", GATE_BUSY);
    *toy.act_time.lock().unwrap() = Duration::from_secs(20 * 60);
    be(&toy, "22:50");
    let other = toy.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(40 * 60)).await;
        other.set_number("gate", 1);
    });
    let ended = go(&toy, &memory, &step(), evenings()).await.unwrap();
    assert!(matches!(ended, RunOutcome::Paused { .. }), "{ended:?}");
    assert_eq!(toy.get_number("g"), 1);
    let now = toy.clock.now().to_string();
    assert!(now.starts_with("2026-11-21T23:30:0"), "{now}");
}

#[tokio::test(start_paused = true)]
async fn taking_back_waits_for_no_window_and_no_approval() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    be(&toy, "22:00");
    go(&toy, &memory, &three_steps(), evenings()).await.unwrap();
    toy.clock.jump_by(SignedDuration::from_hours(5));
    let (_asker, stop) = stop::stop_channel();
    let steps = three_steps();
    let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
    let mut back = engine(&toy, &steps, &mut journal, &stop);
    back.gates = RunGates {
        approvals: approving(&["a", "c", "weights"]).approvals,
        ..evenings()
    };
    let ended = back
        .roll_back(Vec::new(), Default::default())
        .await
        .unwrap();
    assert!(matches!(ended, RunOutcome::RolledBack { .. }), "{ended:?}");
    assert_eq!((toy.get_number("a"), toy.get_number("c")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_step_begins_only_when_a_person_has_approved_it_for_this_very_run() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let gates = || approving(&["weights"]);
    let waits = go(&toy, &memory, &three_steps(), gates()).await.unwrap();
    let RunOutcome::Unapproved { step, approve } = waits else {
        panic!("{waits:?}")
    };
    assert_eq!(
        (step.as_str(), approve.as_str()),
        ("weights", "eksup approve p.yaml weights")
    );
    assert!(matches!(
        toy.emitted_events().last(),
        Some(EventKind::RunPaused { .. })
    ));
    assert_eq!(*toy.acts.lock().unwrap(), ["a=1"]);
    // Of an earlier run, and of another step.
    memory.annotate_checkpoint(&approval::annotation_key("weights"), "r0");
    memory.annotate_checkpoint(&approval::annotation_key("c"), RUN);
    let waits = go(&toy, &memory, &three_steps(), gates()).await.unwrap();
    assert!(matches!(waits, RunOutcome::Unapproved { .. }), "{waits:?}");
    let at = toy.clock.now();
    memory.annotate_checkpoint(
        &approval::annotation_key("weights"),
        &approval::annotation_value(RUN, "Ann", at),
    );
    assert_eq!(
        go(&toy, &memory, &three_steps(), gates()).await.unwrap(),
        RunOutcome::Done
    );
    let state = checkpoint_store::parse_checkpoint(&memory.stored_text().unwrap()).unwrap();
    assert_eq!(state.approvals.len(), 1);
    assert_eq!(
        (state.approvals[0].by.as_str(), state.approvals[0].at),
        ("Ann", at)
    );
}

#[tokio::test(start_paused = true)]
async fn an_annotation_at_any_moment_is_kept_and_stops_nobody() {
    for n in 0..24 {
        let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
        *toy.look_time.lock().unwrap() = Duration::from_secs(1);
        let (somebody, looks) = (memory.clone(), n);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(500) * looks).await;
            somebody.annotate_checkpoint("example.com/note", "hello");
            somebody.annotate_checkpoint(&approval::annotation_key("c"), RUN);
        });
        let gates = if n > 0 {
            approving(&["c"])
        } else {
            RunGates::default()
        };
        let ended = go(&toy, &memory, &three_steps(), gates.clone())
            .await
            .unwrap();
        if !matches!(ended, RunOutcome::Done) {
            assert!(
                matches!(ended, RunOutcome::Unapproved { .. }),
                "{n}: {ended:?}"
            );
            tokio::time::sleep(Duration::from_secs(60)).await;
            let ended = go(&toy, &memory, &three_steps(), gates).await.unwrap();
            assert_eq!(ended, RunOutcome::Done, "{n}");
        }
        if n > 0 {
            assert_eq!(
                memory
                    .annotations()
                    .get("example.com/note")
                    .map(String::as_str),
                Some("hello"),
                "{n}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_text_is_another_writer_even_when_approvals_come_and_go() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let steps = three_steps();
    let (_asker, stop) = stop::stop_channel();
    let mut ours = Journal::load(in_cluster(&memory)).await.unwrap();
    let mut engine = engine(&toy, &steps, &mut ours, &stop);
    engine.gates = approving(&["a"]);
    engine.open_run(opened(&steps), about()).await.unwrap();
    let mut theirs = Journal::load(in_cluster(&memory)).await.unwrap();
    let entry = crate::journal::JournalEntry::Resumed {
        by: "them".into(),
        unattended_seconds: 0,
    };
    theirs.append_at(toy.clock.now(), entry).await.unwrap();
    memory.annotate_checkpoint(&approval::annotation_key("a"), RUN);
    let ended = engine.run_forward().await;
    assert!(
        matches!(ended, Err(EngineError::Journal(JournalError::FenceLost))),
        "{ended:?}"
    );
    assert!(toy.acts.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_rehearsal_waits_for_windows_and_approves_by_itself() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let gates = RunGates {
        approvals: approving(&["a", "c"]).approvals,
        is_rehearsal: true,
        ..evenings()
    };
    let ended = go(&toy, &memory, &three_steps(), gates).await.unwrap();
    assert_eq!(ended, RunOutcome::Done);
    assert!(toy.clock.now().to_string().starts_with("2026-11-21T22:0"));
}
