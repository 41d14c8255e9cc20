//! Stops, suspends and clocks that are set: a process ends soon, and no wait ends early or never.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::Instant;

use super::run::{EngineError, RunOutcome};
use super::step::{Decision, Step, StepError, StepHistory, UndoKind};
use super::stop;
use super::test_support::{RaiseStep, ToyWorld};
use super::tests::{about, engine, fresh_toy, in_cluster, opened, process, three_steps};
use super::{DynStep, PlannedStep, RollbackPart};
use crate::event::EventKind;
use crate::journal::memory_store::{MemoryRunStore, StoreFault};
use crate::journal::{Journal, JournalError, RunLease};
use crate::model::{Clock, ErrorClass};

/// Beyond this a cancelled job is killed.
const SOON: Duration = Duration::from_secs(2);

/// What is wrong with the API server that keeps the journal, from the fifth second to the fortieth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    Away,
    Hangs,
}

/// A process that is asked to stop after `after`; how it ended, and how long after the request.
async fn stopped(
    toy: &ToyWorld,
    memory: &MemoryRunStore,
    wrong: Wrong,
    after: Duration,
) -> (Result<RunOutcome, EngineError>, Option<Duration>) {
    let (asker, stop) = stop::stop_channel();
    let steps = three_steps();
    let lock = RunLease::acquire(Arc::new(memory.clone()), toy.clock.clone(), "us", &|_| {})
        .await
        .unwrap();
    let mut journal = Journal::load(in_cluster(memory)).await.unwrap();
    let mut engine = engine(toy, &steps, &mut journal, &stop);
    engine.lease = Some(&lock);
    let start = Instant::now();
    let signal = tokio::spawn(async move {
        tokio::time::sleep(after).await;
        asker.request_stop();
        // The asker is kept: a closed channel is no request.
        std::future::pending::<()>().await;
    });
    let store = memory.clone();
    let faults = tokio::spawn(async move {
        let set = |on: bool| match wrong {
            Wrong::Nothing => {}
            Wrong::Away => store.set_unavailable(on),
            Wrong::Hangs => store.set_hanging(on),
        };
        tokio::time::sleep(Duration::from_secs(5)).await;
        set(true);
        tokio::time::sleep(Duration::from_secs(35)).await;
        set(false);
    });
    let ended = match engine.open_run(opened(&steps), about()).await {
        Ok(()) => engine.run_forward().await,
        Err(error) => Err(error),
    };
    signal.abort();
    faults.abort();
    memory.set_unavailable(false);
    memory.set_hanging(false);
    (ended, start.elapsed().checked_sub(after))
}

#[tokio::test(start_paused = true)]
async fn from_any_moment_a_stop_ends_the_process_soon_and_the_next_one_goes_on() {
    for wrong in [Wrong::Nothing, Wrong::Away, Wrong::Hangs] {
        let (mut paused, mut unrecorded, mut whole) = (0, 0, false);
        for n in 0u32.. {
            let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
            *toy.look_time.lock().unwrap() = Duration::from_secs(3);
            // Every other process has acts that end in time.
            let act = if n % 2 == 0 { 600 } else { 5000 };
            *toy.act_time.lock().unwrap() = Duration::from_millis(act);
            let (ended, late) = stopped(&toy, &memory, wrong, Duration::from_millis(370) * n).await;
            let case = format!("{wrong:?} {n}: {ended:?} {late:?}");
            match ended {
                Ok(RunOutcome::Done) => whole = true,
                Ok(RunOutcome::Paused { .. }) => paused += 1,
                Ok(RunOutcome::Unrecorded) | Err(EngineError::StoppedUnrecorded) => unrecorded += 1,
                _ => panic!("{case}"),
            }
            if whole {
                break;
            }
            assert!(late.is_some_and(|l| l < SOON), "{case}");
            let (looks, acts) = (toy.look_time.clone(), toy.act_time.clone());
            (*looks.lock().unwrap(), *acts.lock().unwrap()) = Default::default();
            let last = process(&toy, &three_steps(), in_cluster(&memory), false).await;
            assert_eq!(last.unwrap(), RunOutcome::Done, "{case}");
            let world = (
                toy.get_number("a"),
                toy.get_number("weights"),
                toy.get_number("c"),
            );
            assert_eq!(world, (1, 100, 3), "{case}");
        }
        assert!(whole && paused > 20, "{wrong:?}: {paused} paused");
        assert_eq!(
            unrecorded > 0,
            wrong != Wrong::Nothing,
            "{wrong:?}: {unrecorded}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_act_that_ends_in_time_is_finished_and_a_longer_one_is_cut_off() {
    for (act, done) in [(600, 1), (900, 0)] {
        let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
        *toy.act_time.lock().unwrap() = Duration::from_millis(act);
        let (ended, _) = stopped(&toy, &memory, Wrong::Nothing, Duration::from_millis(1)).await;
        let Ok(RunOutcome::Paused { why, .. }) = ended else {
            panic!("{ended:?}")
        };
        assert_eq!(toy.get_number("a"), done, "{why}");
        assert_eq!(why.contains("set a to 1"), done == 0, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_stop_ends_everything_at_once() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    *toy.act_time.lock().unwrap() = Duration::from_secs(60);
    let (asker, stop) = stop::stop_channel();
    let steps = three_steps();
    let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
    let mut engine = engine(&toy, &steps, &mut journal, &stop);
    engine.open_run(opened(&steps), about()).await.unwrap();
    let start = Instant::now();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        asker.request_stop();
        tokio::time::sleep(Duration::from_millis(100)).await;
        asker.request_stop();
    });
    assert_eq!(engine.run_forward().await.unwrap(), RunOutcome::Dropped);
    assert_eq!(start.elapsed(), Duration::from_millis(5100));
}

#[tokio::test(start_paused = true)]
async fn new_credentials_are_asked_for_before_the_one_fresh_try() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    *toy.errors.lock().unwrap() = vec![ErrorClass::Expired];
    let start = Instant::now();
    let ended = process(&toy, &three_steps(), in_cluster(&memory), false).await;
    assert_eq!(ended.unwrap(), RunOutcome::Done);
    assert_eq!(*toy.renewal_count.lock().unwrap(), 1);
    // At once, and not as throttling is borne.
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_does_not_know_us_any_more_is_tried_once_with_new_credentials() {
    let run = |second: bool| async move {
        let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
        memory.fault_at(4, StoreFault::Expired);
        if second {
            memory.fault_at(5, StoreFault::Expired);
        }
        let ended = process(&toy, &three_steps(), in_cluster(&memory), false).await;
        (ended, *toy.renewal_count.lock().unwrap())
    };
    let (ended, renewed) = run(false).await;
    assert_eq!((ended.unwrap(), renewed), (RunOutcome::Done, 1));
    let (ended, renewed) = run(true).await;
    let Err(EngineError::Journal(JournalError::StoreCall(error))) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!((error.class, renewed), (ErrorClass::Expired, 1));
}

/// Acts once, which takes a while, then watches for an hour.
struct Watch(Duration);

impl Step<ToyWorld> for Watch {
    type Observation = u32;
    type BeforeImage = u32;
    type Act = u32;

    async fn observe_state(&self, world: &ToyWorld) -> Result<u32, StepError> {
        Ok(world.get_number("w"))
    }
    fn decide_next(&self, seen: &u32, past: &StepHistory, now: jiff::Timestamp) -> Decision<u32> {
        let Some(last) = past.watched_from().filter(|_| *seen == 1) else {
            return Decision::Act(1);
        };
        let left = SignedDuration::from_hours(1) - now.duration_since(last);
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => Decision::Wait {
                why: "baking".into(),
                recheck: left.min(Duration::from_secs(60)),
            },
            _ => Decision::Done("baked".into()),
        }
    }
    fn before_image(&self, seen: &u32) -> u32 {
        *seen
    }
    async fn perform_act(&self, world: &ToyWorld, act: &u32) -> Result<(), StepError> {
        tokio::time::sleep(self.0).await;
        world.set_number("w", *act);
        Ok(())
    }
    fn undo_kind(&self) -> UndoKind {
        UndoKind::Nothing
    }
    fn decide_undo(
        &self,
        _: &u32,
        _: &u32,
        _: &super::RollbackHistory,
        _: jiff::Timestamp,
    ) -> Decision<u32> {
        Decision::Done(String::new())
    }
    fn describe_act(&self, _: &u32) -> String {
        "watch".into()
    }
}

fn watching() -> [PlannedStep<ToyWorld>; 1] {
    watching_after(Duration::ZERO)
}

fn watching_after(act: Duration) -> [PlannedStep<ToyWorld>; 1] {
    let step: Box<dyn DynStep<ToyWorld>> = Box::new(Watch(act));
    [PlannedStep {
        id: "w".into(),
        title: "watch".into(),
        step,
        rollback_place: 0,
        rollback_part: RollbackPart::Alone,
    }]
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_moved_ends_no_bake_early_and_holds_up_none() {
    for hours in [-30, -1, 1, 30] {
        let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
        let clock = toy.clock.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(600)).await;
            clock.jump_by(SignedDuration::from_hours(hours));
        });
        let start = Instant::now();
        let ended = process(&toy, &watching(), in_cluster(&memory), false).await;
        assert_eq!(ended.unwrap(), RunOutcome::Done);
        let took = start.elapsed().as_secs();
        assert!((3600..3720).contains(&took), "{hours} h: {took} s");
        let told =
            |e: &EventKind| matches!(e, EventKind::Notice { text, .. } if text.contains("clock"));
        assert_eq!(toy.emitted_events().iter().filter(|e| told(e)).count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bake_counts_from_when_the_act_was_over_however_long_it_was_tried() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let steps = watching_after(Duration::from_secs(900));
    let start = Instant::now();
    let ended = process(&toy, &steps, in_cluster(&memory), false).await;
    assert_eq!(ended.unwrap(), RunOutcome::Done);
    let took = start.elapsed().as_secs();
    assert!((4500..4620).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn a_wait_says_that_the_api_server_has_not_answered_for_a_while_and_only_then() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let (_asker, stop) = stop::stop_channel();
    let steps = watching();
    let lock = RunLease::acquire(Arc::new(memory.clone()), toy.clock.clone(), "us", &|_| {})
        .await
        .unwrap();
    let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
    let mut engine = engine(&toy, &steps, &mut journal, &stop);
    engine.lease = Some(&lock);
    engine.open_run(opened(&steps), about()).await.unwrap();
    let store = memory.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        store.set_unavailable(true);
        tokio::time::sleep(Duration::from_secs(300)).await;
        store.set_unavailable(false);
    });
    assert_eq!(engine.run_forward().await.unwrap(), RunOutcome::Done);
    let waits: Vec<bool> = toy
        .emitted_events()
        .iter()
        .filter_map(|e| match e {
            EventKind::Progress(p) => Some(p.why.contains("has not answered for a while")),
            _ => None,
        })
        .collect();
    let silent = waits.iter().filter(|w| **w).count();
    assert!(silent > 0 && silent < waits.len() / 2, "{waits:?}");
    assert_eq!((waits.first(), waits.last()), (Some(&false), Some(&false)));
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_pause_is_no_bake_and_another_machines_clock_holds_up_none() {
    // Ten minutes into the bake the process is stopped; the next one comes hours later, or on a machine whose clock is
    // behind.
    for hours in [5, -5] {
        let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
        let (asker, stop) = stop::stop_channel();
        let steps = watching();
        let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
        let mut first = engine(&toy, &steps, &mut journal, &stop);
        first.open_run(opened(&steps), about()).await.unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(600)).await;
            asker.request_stop();
        });
        assert!(matches!(
            first.run_forward().await.unwrap(),
            RunOutcome::Paused { .. }
        ));
        toy.clock.jump_by(SignedDuration::from_hours(hours));
        let start = Instant::now();
        let ended = process(&toy, &steps, in_cluster(&memory), false).await;
        assert_eq!(ended.unwrap(), RunOutcome::Done);
        let took = start.elapsed().as_secs();
        assert!((3000..3720).contains(&took), "{hours} h: {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_after_a_death_in_which_nobody_watched_is_no_bake() {
    // Ten minutes into the bake the process dies, and the next one comes at once, after minutes, or after hours.
    for minutes in [0, 3, 300] {
        let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
        let steps = watching();
        let (_asker, stop) = stop::stop_channel();
        for first in [true, false] {
            let remote = Arc::new(memory.clone());
            let lock = RunLease::acquire(remote, toy.clock.clone(), &format!("{first}"), &|_| {})
                .await
                .unwrap();
            let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
            let mut engine = engine(&toy, &steps, &mut journal, &stop);
            engine.lease = Some(&lock);
            if first {
                engine.open_run(opened(&steps), about()).await.unwrap();
                let whole = tokio::time::timeout(Duration::from_secs(600), engine.run_forward());
                assert!(whole.await.is_err());
                drop(lock);
                tokio::time::sleep(Duration::from_secs(minutes * 60)).await;
            } else {
                let start = Instant::now();
                engine.resume_run("the next").await.unwrap();
                assert_eq!(engine.run_forward().await.unwrap(), RunOutcome::Done);
                let took = start.elapsed().as_secs();
                assert!((3000..3040).contains(&took), "{minutes} min: {took} s");
                let again = engine.journal.run_state().unwrap().resumed_at.is_some();
                assert_eq!(again, minutes > 5, "deadlines count again after an absence");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_suspended_renews_its_lock_before_it_acts() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let remote: Arc<MemoryRunStore> = Arc::new(memory.clone());
    let lock = RunLease::acquire(remote.clone(), toy.clock.clone(), "us", &|_| {})
        .await
        .unwrap();
    lock.wait_until_held().await.unwrap();
    toy.clock.jump_by(SignedDuration::from_mins(5));
    let start = Instant::now();
    lock.wait_until_held().await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    // And where somebody has taken it meanwhile, nothing is done any more.
    toy.clock.jump_by(SignedDuration::from_mins(5));
    use crate::journal::RunStore;
    let held = remote.read_lease().await.unwrap().unwrap();
    let held = crate::journal::LeaseRecord {
        holder: "them".into(),
        ..held
    };
    remote.write_lease(&held, toy.clock.now()).await.unwrap();
    assert!(lock.wait_until_held().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lost_lock_stops_a_wait_at_once() {
    let (toy, memory) = (fresh_toy(), MemoryRunStore::default());
    let clock = Clock::starting_at("2026-11-21T08:00:00Z".parse().unwrap());
    let remote = Arc::new(memory.clone());
    let lock = RunLease::acquire(remote.clone(), clock.clone(), "us", &|_| {})
        .await
        .unwrap();
    let steps = [RaiseStep {
        name: "g",
        path: vec![1],
        gate: Some("gate"),
        undo: UndoKind::Restore,
        has_no_effect: false,
    }
    .into_planned_step()];
    let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
    let (_asker, stop) = stop::stop_channel();
    let mut engine = engine(&toy, &steps, &mut journal, &stop);
    engine.lease = Some(&lock);
    engine.open_run(opened(&steps), about()).await.unwrap();
    tokio::spawn(async move {
        use crate::journal::RunStore;
        tokio::time::sleep(Duration::from_secs(33)).await;
        let held = remote.read_lease().await.unwrap().unwrap();
        let held = crate::journal::LeaseRecord {
            holder: "them".into(),
            ..held
        };
        remote.write_lease(&held, clock.now()).await.unwrap();
    });
    let start = Instant::now();
    let ended = engine.run_forward().await;
    assert!(matches!(ended, Err(EngineError::Lease(_))), "{ended:?}");
    let late = start.elapsed() - Duration::from_secs(33);
    assert!(
        late <= crate::journal::lease::LEASE_RENEW_INTERVAL,
        "{late:?}"
    );
}
