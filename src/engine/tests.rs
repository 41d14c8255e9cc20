use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::ProptestConfig;
use tokio::time::Instant;

use super::gates::RunGates;
use super::run::{Engine, EngineError, PauseAfter, PlannedStep, RunOutcome, RunSubject};
use super::step::UndoKind;
use super::stop::{self, StopSignal};
use super::test_support::{DyingStore, RaiseStep, ToyWorld};
use crate::event::EventKind;
use crate::journal::memory_store::MemoryRunStore;
use crate::journal::{
    CheckpointStore, FileLog, FinalOutcome, JOURNAL_FORMAT, Journal, JournalStore, OpenedEntry,
    RunPhase, StepStatus, file,
};
use crate::model::ErrorClass;

pub(super) fn opened(steps: &[PlannedStep<ToyWorld>]) -> OpenedEntry {
    OpenedEntry {
        format: JOURNAL_FORMAT,
        run: "r1".into(),
        plan_digest: "d".into(),
        cluster_arn: "arn".into(),
        steps: steps.iter().map(|s| s.id.clone()).collect(),
        route: serde_json::json!({}),
        plan: serde_json::Value::Null,
        workloads: Default::default(),
    }
}

pub(super) fn about() -> RunSubject {
    RunSubject {
        cluster: "c".into(),
        from: "1.27".into(),
        to: "1.28".into(),
    }
}

pub(super) fn engine<'a>(
    toy: &'a ToyWorld,
    steps: &'a [PlannedStep<ToyWorld>],
    journal: &'a mut Journal,
    stop: &StopSignal,
) -> Engine<'a, ToyWorld> {
    let resume = "eksup apply".into();
    Engine {
        world: toy,
        steps,
        journal,
        lease: None,
        stop: stop.clone(),
        pause_after: None,
        gates: RunGates::default(),
        resume_command: resume,
        last_act_end: None,
    }
}

/// One process: opens or resumes, then runs.
pub(super) async fn process(
    toy: &ToyWorld,
    steps: &[PlannedStep<ToyWorld>],
    store: Box<dyn JournalStore>,
    back: bool,
) -> Result<RunOutcome, EngineError> {
    let (_asker, stop) = stop::stop_channel();
    let mut journal = Journal::load(store).await?;
    let fresh = journal.run_state().is_none();
    let mut engine = engine(toy, steps, &mut journal, &stop);
    if fresh {
        engine.open_run(opened(steps), about()).await?;
    } else if engine.run_state()?.is_closed() {
        return Ok(RunOutcome::Done);
    } else {
        engine.resume_run("me").await?;
    }
    if engine.run_state()?.phase == RunPhase::Forward {
        match engine.run_forward().await? {
            RunOutcome::Stuck { .. } if back => {}
            other => return Ok(other),
        }
    }
    engine.roll_back(Vec::new(), Default::default()).await
}

pub(super) fn three_steps() -> Vec<PlannedStep<ToyWorld>> {
    vec![
        RaiseStep::plain_step("a", &[1]),
        RaiseStep::plain_step("was-so", &[7]),
        RaiseStep::plain_step("weights", &[25, 50, 100]),
        RaiseStep::plain_step("c", &[3]),
    ]
}

pub(super) fn fresh_toy() -> ToyWorld {
    let toy = ToyWorld::new();
    toy.set_number("was-so", 7);
    toy
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_through_its_steps_and_what_was_so_is_skipped() {
    let (toy, steps, folder) = (fresh_toy(), three_steps(), tempfile::tempdir().unwrap());
    let path = folder.path().join("journal.jsonl");
    let ended = process(&toy, &steps, Box::new(FileLog::open(&path).unwrap()), false).await;
    assert_eq!(ended.unwrap(), RunOutcome::Done);
    assert_eq!(
        *toy.acts.lock().unwrap(),
        ["a=1", "weights=25", "weights=50", "weights=100", "c=3"]
    );
    let state = crate::journal::RunState::fold_records(&file::read_records(&path).unwrap())
        .unwrap()
        .unwrap();
    let status: Vec<_> = state.steps.iter().map(|s| s.status).collect();
    assert_eq!(
        status,
        [
            StepStatus::Done,
            StepStatus::Skipped,
            StepStatus::Done,
            StepStatus::Done
        ]
    );
    assert_eq!(state.outcome, Some(FinalOutcome::Done));
}

/// Forward, then a refusal, then everything back.
fn up_and_down() -> Vec<PlannedStep<ToyWorld>> {
    let mut steps = three_steps();
    steps.push(RaiseStep::plain_step("foreign", &[1]));
    steps
}

/// Kills the process at every record of a run, with and without a torn line, and lets the next one go on.
async fn crash_at_every_record(steps: fn() -> Vec<PlannedStep<ToyWorld>>, back: bool) -> usize {
    let toy = || {
        let toy = fresh_toy();
        toy.set_number("foreign", 99);
        toy
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |n: &str| folder.path().join(format!("{n}.jsonl"));
    let whole = toy();
    let unbroken = process(
        &whole,
        &steps(),
        open(&path("whole"), usize::MAX, false),
        back,
    )
    .await;
    let unbroken = unbroken.unwrap();
    let records = file::read_records(&path("whole")).unwrap().len();
    for n in 0..records {
        for torn in [false, true] {
            let toy = toy();
            let path = path(&format!("{n}-{torn}"));
            process(&toy, &steps(), open(&path, n, torn), back)
                .await
                .unwrap_err();
            let again = process(&toy, &steps(), open(&path, usize::MAX, false), back).await;
            assert_eq!(again.unwrap(), unbroken, "died at record {n}, torn: {torn}");
            assert_eq!(
                toy.numbers_now(),
                whole.numbers_now(),
                "died at record {n}, torn: {torn}"
            );
        }
    }
    records
}

fn open(path: &Path, left: usize, torn: bool) -> Box<dyn JournalStore> {
    Box::new(DyingStore::open(path, left, torn))
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_record_ends_in_the_same_world() {
    assert_eq!(crash_at_every_record(three_steps, false).await, 15);
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_record_of_a_rollback_ends_in_the_world_before() {
    assert_eq!(crash_at_every_record(up_and_down, true).await, 24);
    let toy = fresh_toy();
    toy.set_number("foreign", 99);
    let before = toy.numbers_now();
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("j"), usize::MAX, false);
    let ended = process(&toy, &up_and_down(), store, true).await.unwrap();
    assert_eq!(ended, RunOutcome::RolledBack { kept: Vec::new() });
    for (name, number) in toy.numbers_now() {
        assert_eq!(number, before.get(&name).copied().unwrap_or(0), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_crash_while_resuming_is_no_different() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..15 {
        let toy = fresh_toy();
        let path = folder.path().join(n.to_string());
        let mut crashes = 0;
        let steps = three_steps();
        while process(&toy, &steps, open(&path, 2 + n % 3, n % 2 == 0), false)
            .await
            .is_err()
        {
            crashes += 1;
            assert!(crashes < 200, "no end with {n}");
        }
        assert_eq!(toy.get_number("weights"), 100);
        assert_eq!(toy.get_number("c"), 3);
    }
}

pub(super) fn in_cluster(memory: &MemoryRunStore) -> Box<dyn JournalStore> {
    Box::new(CheckpointStore::new(
        Arc::new(memory.clone()),
        Arc::new(|_| {}),
    ))
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_the_api_server_costs_nothing() {
    use crate::journal::memory_store::StoreFault;
    for fault in [StoreFault::Lost, StoreFault::AnswerLost] {
        for call in 0..17 {
            let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
            memory.fault_at(call, fault);
            let ended = process(&toy, &three_steps(), in_cluster(&memory), false)
                .await
                .unwrap();
            assert_eq!(ended, RunOutcome::Done, "{fault:?} at call {call}");
            assert_eq!(toy.acts.lock().unwrap().len(), 5);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_while_it_cannot_be_written_down() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
    let (_asker, stop) = stop::stop_channel();
    let steps = three_steps();
    let mut engine = engine(&toy, &steps, &mut journal, &stop);
    engine.open_run(opened(&steps), about()).await.unwrap();
    memory.set_unavailable(true);
    let start = Instant::now();
    let ended = engine.run_forward().await;
    assert!(matches!(ended, Err(EngineError::Journal(_))), "{ended:?}");
    assert!((1200..1300).contains(&start.elapsed().as_secs()));
    assert!(toy.acts.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_writer_stops_the_run_before_its_next_act() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let steps = three_steps();
    let mut ours = Journal::load(in_cluster(&memory)).await.unwrap();
    let (_asker, stop) = stop::stop_channel();
    let mut engine = engine(&toy, &steps, &mut ours, &stop);
    engine.open_run(opened(&steps), about()).await.unwrap();
    let mut theirs = Journal::load(in_cluster(&memory)).await.unwrap();
    let at = "2026-11-21T09:00:00Z".parse().unwrap();
    let entry = crate::journal::JournalEntry::Resumed {
        by: "them".into(),
        unattended_seconds: 0,
    };
    theirs.append_at(at, entry).await.unwrap();
    let ended = engine.run_forward().await;
    let lost = matches!(
        ended,
        Err(EngineError::Journal(
            crate::journal::JournalError::FenceLost
        ))
    );
    assert!(lost, "{ended:?}");
    assert!(toy.acts.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_wakes_a_wait_and_the_next_process_goes_on() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    // A step that waits until a gate opens.
    let gated = || {
        let gate = Some("gate");
        let undo = UndoKind::Restore;
        vec![
            RaiseStep {
                name: "g",
                path: vec![1, 2],
                gate,
                undo,
                has_no_effect: false,
            }
            .into_planned_step(),
        ]
    };
    let (asker, stop) = stop::stop_channel();
    let steps = gated();
    let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
    let mut first = engine(&toy, &steps, &mut journal, &stop);
    first.open_run(opened(&steps), about()).await.unwrap();
    let start = Instant::now();
    // The wait would last without end; the stop must end it at once, and in good order.
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        asker.request_stop();
    });
    let ended = first.run_forward().await.unwrap();
    assert!(matches!(ended, RunOutcome::Paused { .. }), "{ended:?}");
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(matches!(
        toy.emitted_events().last(),
        Some(EventKind::RunPaused { .. })
    ));
    // The gate opens while nobody runs, and the next process goes on.
    toy.set_number("gate", 1);
    assert_eq!(
        process(&toy, &steps, in_cluster(&memory), false)
            .await
            .unwrap(),
        RunOutcome::Done
    );
    assert_eq!(toy.get_number("g"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_change_wakes_a_wait_long_before_its_recheck() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let step = RaiseStep {
        name: "g",
        path: vec![1],
        gate: Some("gate"),
        undo: UndoKind::Restore,
        has_no_effect: false,
    };
    let other = toy.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(20)).await;
        other.set_number("gate", 1);
    });
    let start = Instant::now();
    process(
        &toy,
        &[step.into_planned_step()],
        in_cluster(&memory),
        false,
    )
    .await
    .unwrap();
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn failures_that_pass_are_retried_aloud_and_the_act_is_journaled_once() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    *toy.errors.lock().unwrap() = vec![
        ErrorClass::Conflict,
        ErrorClass::Throttled,
        ErrorClass::Transient,
    ];
    let steps = [RaiseStep::plain_step("a", &[1])];
    assert_eq!(
        process(&toy, &steps, in_cluster(&memory), false)
            .await
            .unwrap(),
        RunOutcome::Done
    );
    let count = |f: fn(&EventKind) -> bool| toy.emitted_events().iter().filter(|e| f(e)).count();
    assert_eq!(count(|e| matches!(e, EventKind::Retrying { .. })), 3);
    assert_eq!(count(|e| matches!(e, EventKind::ActBegan { .. })), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_denied_names_its_action_and_can_be_resumed_once_allowed() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    *toy.errors.lock().unwrap() = vec![ErrorClass::Denied; 4];
    let steps = [RaiseStep::plain_step("a", &[1])];
    let ended = process(&toy, &steps, in_cluster(&memory), false)
        .await
        .unwrap();
    let RunOutcome::Stuck {
        denied,
        closed: false,
        ..
    } = ended
    else {
        panic!("{ended:?}")
    };
    assert_eq!(denied.as_deref(), Some("toy:Raise"));
    toy.errors.lock().unwrap().clear();
    assert_eq!(
        process(&toy, &steps, in_cluster(&memory), false)
            .await
            .unwrap(),
        RunOutcome::Done
    );
}

#[tokio::test(start_paused = true)]
async fn an_expired_credential_pauses_after_one_fresh_try() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    *toy.errors.lock().unwrap() = vec![ErrorClass::Expired; 2];
    let steps = [RaiseStep::plain_step("a", &[1])];
    let ended = process(&toy, &steps, in_cluster(&memory), false)
        .await
        .unwrap();
    assert!(matches!(ended, RunOutcome::Expired { .. }), "{ended:?}");
    assert_eq!(
        process(&toy, &steps, in_cluster(&memory), false)
            .await
            .unwrap(),
        RunOutcome::Done
    );
}

#[tokio::test(start_paused = true)]
async fn an_act_that_never_takes_is_stopped() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let step = RaiseStep {
        name: "a",
        path: vec![1],
        gate: None,
        undo: UndoKind::Restore,
        has_no_effect: true,
    };
    let ended = process(
        &toy,
        &[step.into_planned_step()],
        in_cluster(&memory),
        false,
    )
    .await
    .unwrap();
    assert!(matches!(ended, RunOutcome::Stuck { .. }), "{ended:?}");
    assert_eq!(toy.acts.lock().unwrap().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_act_shows_before_done_and_now() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
    let (asker, stop) = stop::stop_channel();
    let steps = [RaiseStep {
        name: "g",
        path: vec![1, 2],
        gate: Some("gate"),
        undo: UndoKind::Restore,
        has_no_effect: false,
    }
    .into_planned_step()];
    toy.set_number("gate", 1);
    let mut first = engine(&toy, &steps, &mut journal, &stop);
    first.open_run(opened(&steps), about()).await.unwrap();
    *toy.errors.lock().unwrap() = vec![ErrorClass::Transient];
    tokio::spawn(async move { asker.request_stop() });
    first.run_forward().await.unwrap();
    toy.set_number("g", 55);
    let ended = process(&toy, &steps, in_cluster(&memory), false)
        .await
        .unwrap();
    let RunOutcome::Stuck { why, .. } = ended else {
        panic!("{ended:?}")
    };
    for part in ["not ours", "before: 0", "asked:  set g to 1", "now:    55"] {
        assert!(why.contains(part), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_act_shows_how_the_world_was_just_before_it() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    *toy.errors.lock().unwrap() = vec![ErrorClass::Invalid];
    let steps = [RaiseStep::plain_step("a", &[1])];
    let ended = process(&toy, &steps, in_cluster(&memory), false)
        .await
        .unwrap();
    let RunOutcome::Stuck { why, .. } = ended else {
        panic!("{ended:?}")
    };
    for part in ["asked:  set a to 1", "now:    as it was before the run"] {
        assert!(why.contains(part), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_point_of_no_return_ends_a_rollback_without_touching_what_lies_before_it() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let undo = UndoKind::Impossible("the group is gone".into());
    let steps = [
        RaiseStep::plain_step("early", &[1]),
        RaiseStep {
            name: "gone",
            path: vec![1],
            gate: None,
            undo,
            has_no_effect: false,
        }
        .into_planned_step(),
        RaiseStep::plain_step("late", &[1]),
        RaiseStep::plain_step("foreign", &[1]),
    ];
    toy.set_number("foreign", 99);
    let ended = process(&toy, &steps, in_cluster(&memory), true)
        .await
        .unwrap();
    let RunOutcome::Stuck {
        step, closed: true, ..
    } = ended
    else {
        panic!("{ended:?}")
    };
    assert_eq!(step, "gone");
    assert_eq!(
        (
            toy.get_number("early"),
            toy.get_number("gone"),
            toy.get_number("late")
        ),
        (1, 1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn until_pauses_after_its_step_however_often_it_is_asked_for() {
    let asked = Some(PauseAfter {
        step: "weights".to_owned(),
        continue_command: "eksup apply beyond".to_owned(),
    });
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let steps = three_steps();
    let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
    let (_asker, stop) = stop::stop_channel();
    let mut first = engine(&toy, &steps, &mut journal, &stop);
    first.pause_after = asked.clone();
    first.open_run(opened(&steps), about()).await.unwrap();
    for again in [false, true] {
        if again {
            first.resume_run("the next").await.unwrap();
        }
        let ended = first.run_forward().await.unwrap();
        let RunOutcome::Paused { resume, .. } = ended else {
            panic!("{ended:?}")
        };
        assert_eq!(resume, "eksup apply beyond");
        assert_eq!((toy.get_number("weights"), toy.get_number("c")), (100, 0));
    }
}

proptest::proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn crashes_in_any_pattern_end_in_the_same_world(
        cuts in proptest::collection::vec((1usize..6, proptest::bool::ANY), 0..12)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (toy, folder) = (fresh_toy(), tempfile::tempdir().unwrap());
            let path = folder.path().join("j");
            let steps = three_steps();
            for (left, torn) in cuts {
                let _ = process(&toy, &steps, open(&path, left, torn), false).await;
            }
            let last = process(&toy, &steps, open(&path, usize::MAX, false), false).await.unwrap();
            assert_eq!(last, RunOutcome::Done);
            assert_eq!((toy.get_number("a"), toy.get_number("weights"), toy.get_number("c")), (1, 100, 3));
        });
    }
}
