use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::ProptestConfig;
use tokio::time::Instant;

use super::gates::Gates;
use super::run::{About, Ended, Engine, EngineError, Planned};
use super::step::Undo;
use super::stop::{self, Stop};
use super::toy::{Dying, Raise, Toy};
use crate::event::Kind;
use crate::journal::memory::Memory;
use crate::journal::{
    FORMAT, FileLog, InCluster, Journal, Lock, Opened, Outcome, Phase, Status, Store, file,
};
use crate::model::{Class, Clock};

pub(super) fn opened(steps: &[Planned<Toy>]) -> Opened {
    Opened {
        format: FORMAT,
        run: "r1".into(),
        plan_digest: "d".into(),
        cluster_arn: "arn".into(),
        steps: steps.iter().map(|s| s.id.clone()).collect(),
        route: serde_json::json!({}),
        plan: serde_json::Value::Null,
        workloads: Default::default(),
    }
}

pub(super) fn about() -> About {
    About {
        cluster: "c".into(),
        from: "1.27".into(),
        to: "1.28".into(),
    }
}

pub(super) fn engine<'a>(
    toy: &'a Toy,
    steps: &'a [Planned<Toy>],
    journal: &'a mut Journal,
    stop: &Stop,
) -> Engine<'a, Toy> {
    let resume = "eksup apply".into();
    Engine {
        world: toy,
        steps,
        journal,
        lock: None,
        stop: stop.clone(),
        until: None,
        gates: Gates::default(),
        resume,
        acted: None,
    }
}

/// One process: opens or resumes, then runs.
pub(super) async fn process(
    toy: &Toy,
    steps: &[Planned<Toy>],
    store: Box<dyn Store>,
    back: bool,
) -> Result<Ended, EngineError> {
    let (_asker, stop) = stop::channel();
    let mut journal = Journal::load(store).await?;
    let fresh = journal.state().is_none();
    let mut engine = engine(toy, steps, &mut journal, &stop);
    if fresh {
        engine.open(opened(steps), about()).await?;
    } else if engine.state()?.is_closed() {
        return Ok(Ended::Done);
    } else {
        engine.resume("me").await?;
    }
    if engine.state()?.phase == Phase::Forward {
        match engine.forward().await? {
            Ended::Stuck { .. } if back => {}
            other => return Ok(other),
        }
    }
    engine.back(Vec::new(), Default::default()).await
}

pub(super) fn three() -> Vec<Planned<Toy>> {
    vec![
        Raise::plain("a", &[1]),
        Raise::plain("was-so", &[7]),
        Raise::plain("weights", &[25, 50, 100]),
        Raise::plain("c", &[3]),
    ]
}

pub(super) fn fresh_toy() -> Toy {
    let toy = Toy::new();
    toy.set("was-so", 7);
    toy
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_through_its_steps_and_what_was_so_is_skipped() {
    let (toy, steps, folder) = (fresh_toy(), three(), tempfile::tempdir().unwrap());
    let path = folder.path().join("journal.jsonl");
    let ended = process(&toy, &steps, Box::new(FileLog::open(&path).unwrap()), false).await;
    assert_eq!(ended.unwrap(), Ended::Done);
    assert_eq!(
        *toy.acts.lock().unwrap(),
        ["a=1", "weights=25", "weights=50", "weights=100", "c=3"]
    );
    let state = crate::journal::RunState::fold(&file::read(&path).unwrap())
        .unwrap()
        .unwrap();
    let status: Vec<_> = state.steps.iter().map(|s| s.status).collect();
    assert_eq!(
        status,
        [Status::Done, Status::Skipped, Status::Done, Status::Done]
    );
    assert_eq!(state.outcome, Some(Outcome::Done));
}

/// Forward, then a refusal, then everything back.
fn up_and_down() -> Vec<Planned<Toy>> {
    let mut steps = three();
    steps.push(Raise::plain("foreign", &[1]));
    steps
}

/// Kills the process at every record of a run, with and without a torn line, and lets the next one go on.
async fn sweep(steps: fn() -> Vec<Planned<Toy>>, back: bool) -> usize {
    let toy = || {
        let toy = fresh_toy();
        toy.set("foreign", 99);
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
    let records = file::read(&path("whole")).unwrap().len();
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
                toy.image(),
                whole.image(),
                "died at record {n}, torn: {torn}"
            );
        }
    }
    records
}

fn open(path: &Path, left: usize, torn: bool) -> Box<dyn Store> {
    Box::new(Dying::open(path, left, torn))
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_record_ends_in_the_same_world() {
    assert_eq!(sweep(three, false).await, 15);
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_record_of_a_rollback_ends_in_the_world_before() {
    assert_eq!(sweep(up_and_down, true).await, 24);
    let toy = fresh_toy();
    toy.set("foreign", 99);
    let before = toy.image();
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("j"), usize::MAX, false);
    let ended = process(&toy, &up_and_down(), store, true).await.unwrap();
    assert_eq!(ended, Ended::RolledBack { kept: Vec::new() });
    for (name, number) in toy.image() {
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
        let steps = three();
        while process(&toy, &steps, open(&path, 2 + n % 3, n % 2 == 0), false)
            .await
            .is_err()
        {
            crashes += 1;
            assert!(crashes < 200, "no end with {n}");
        }
        assert_eq!(toy.get("weights"), 100);
        assert_eq!(toy.get("c"), 3);
    }
}

pub(super) fn in_cluster(memory: &Memory) -> Box<dyn Store> {
    Box::new(InCluster::new(Arc::new(memory.clone()), Arc::new(|_| {})))
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_the_api_server_costs_nothing() {
    use crate::journal::memory::Fault;
    for fault in [Fault::Lost, Fault::AnswerLost] {
        for call in 0..17 {
            let (toy, memory) = (fresh_toy(), Memory::default());
            memory.fault_at(call, fault);
            let ended = process(&toy, &three(), in_cluster(&memory), false)
                .await
                .unwrap();
            assert_eq!(ended, Ended::Done, "{fault:?} at call {call}");
            assert_eq!(toy.acts.lock().unwrap().len(), 5);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_while_it_cannot_be_written_down() {
    let (toy, memory) = (fresh_toy(), Memory::default());
    let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
    let (_asker, stop) = stop::channel();
    let steps = three();
    let mut engine = engine(&toy, &steps, &mut journal, &stop);
    engine.open(opened(&steps), about()).await.unwrap();
    memory.away(true);
    let start = Instant::now();
    let ended = engine.forward().await;
    assert!(matches!(ended, Err(EngineError::Journal(_))), "{ended:?}");
    assert!((1200..1300).contains(&start.elapsed().as_secs()));
    assert!(toy.acts.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_writer_stops_the_run_before_its_next_act() {
    let (toy, memory) = (fresh_toy(), Memory::default());
    let steps = three();
    let mut ours = Journal::load(in_cluster(&memory)).await.unwrap();
    let (_asker, stop) = stop::channel();
    let mut engine = engine(&toy, &steps, &mut ours, &stop);
    engine.open(opened(&steps), about()).await.unwrap();
    let mut theirs = Journal::load(in_cluster(&memory)).await.unwrap();
    let at = "2026-11-21T09:00:00Z".parse().unwrap();
    let entry = crate::journal::Entry::Resumed {
        by: "them".into(),
        unwatched: 0,
    };
    theirs.append(at, entry).await.unwrap();
    let ended = engine.forward().await;
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
    let (toy, memory) = (fresh_toy(), Memory::default());
    let gated = || {
        let gate = Some("gate");
        let undo = Undo::Restore;
        vec![
            Raise {
                name: "g",
                path: vec![1, 2],
                gate,
                undo,
                feeble: false,
            }
            .planned(),
        ]
    };
    let (asker, stop) = stop::channel();
    let steps = gated();
    let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
    let mut first = engine(&toy, &steps, &mut journal, &stop);
    first.open(opened(&steps), about()).await.unwrap();
    let start = Instant::now();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        asker.ask();
    });
    let ended = first.forward().await.unwrap();
    assert!(matches!(ended, Ended::Paused { .. }), "{ended:?}");
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(matches!(toy.events().last(), Some(Kind::RunPaused { .. })));
    toy.set("gate", 1);
    assert_eq!(
        process(&toy, &steps, in_cluster(&memory), false)
            .await
            .unwrap(),
        Ended::Done
    );
    assert_eq!(toy.get("g"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_change_wakes_a_wait_long_before_its_recheck() {
    let (toy, memory) = (fresh_toy(), Memory::default());
    let step = Raise {
        name: "g",
        path: vec![1],
        gate: Some("gate"),
        undo: Undo::Restore,
        feeble: false,
    };
    let other = toy.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(20)).await;
        other.set("gate", 1);
    });
    let start = Instant::now();
    process(&toy, &[step.planned()], in_cluster(&memory), false)
        .await
        .unwrap();
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn failures_that_pass_are_retried_aloud_and_the_act_is_journaled_once() {
    let (toy, memory) = (fresh_toy(), Memory::default());
    *toy.troubles.lock().unwrap() = vec![Class::Conflict, Class::Throttled, Class::Transient];
    let steps = [Raise::plain("a", &[1])];
    assert_eq!(
        process(&toy, &steps, in_cluster(&memory), false)
            .await
            .unwrap(),
        Ended::Done
    );
    let count = |f: fn(&Kind) -> bool| toy.events().iter().filter(|e| f(e)).count();
    assert_eq!(count(|e| matches!(e, Kind::Retrying { .. })), 3);
    assert_eq!(count(|e| matches!(e, Kind::ActBegan { .. })), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_denied_names_its_action_and_can_be_resumed_once_allowed() {
    let (toy, memory) = (fresh_toy(), Memory::default());
    *toy.troubles.lock().unwrap() = vec![Class::Denied; 4];
    let steps = [Raise::plain("a", &[1])];
    let ended = process(&toy, &steps, in_cluster(&memory), false)
        .await
        .unwrap();
    let Ended::Stuck {
        denied,
        closed: false,
        ..
    } = ended
    else {
        panic!("{ended:?}")
    };
    assert_eq!(denied.as_deref(), Some("toy:Raise"));
    toy.troubles.lock().unwrap().clear();
    assert_eq!(
        process(&toy, &steps, in_cluster(&memory), false)
            .await
            .unwrap(),
        Ended::Done
    );
}

#[tokio::test(start_paused = true)]
async fn an_expired_credential_pauses_after_one_fresh_try() {
    let (toy, memory) = (fresh_toy(), Memory::default());
    *toy.troubles.lock().unwrap() = vec![Class::Expired; 2];
    let steps = [Raise::plain("a", &[1])];
    let ended = process(&toy, &steps, in_cluster(&memory), false)
        .await
        .unwrap();
    assert!(matches!(ended, Ended::Expired { .. }), "{ended:?}");
    assert_eq!(
        process(&toy, &steps, in_cluster(&memory), false)
            .await
            .unwrap(),
        Ended::Done
    );
}

#[tokio::test(start_paused = true)]
async fn an_act_that_never_takes_is_stopped() {
    let (toy, memory) = (fresh_toy(), Memory::default());
    let step = Raise {
        name: "a",
        path: vec![1],
        gate: None,
        undo: Undo::Restore,
        feeble: true,
    };
    let ended = process(&toy, &[step.planned()], in_cluster(&memory), false)
        .await
        .unwrap();
    assert!(matches!(ended, Ended::Stuck { .. }), "{ended:?}");
    assert_eq!(toy.acts.lock().unwrap().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_act_shows_before_done_and_now() {
    let (toy, memory) = (fresh_toy(), Memory::default());
    let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
    let (asker, stop) = stop::channel();
    let steps = [Raise {
        name: "g",
        path: vec![1, 2],
        gate: Some("gate"),
        undo: Undo::Restore,
        feeble: false,
    }
    .planned()];
    toy.set("gate", 1);
    let mut first = engine(&toy, &steps, &mut journal, &stop);
    first.open(opened(&steps), about()).await.unwrap();
    *toy.troubles.lock().unwrap() = vec![Class::Transient];
    tokio::spawn(async move { asker.ask() });
    first.forward().await.unwrap();
    toy.set("g", 55);
    let ended = process(&toy, &steps, in_cluster(&memory), false)
        .await
        .unwrap();
    let Ended::Stuck { why, .. } = ended else {
        panic!("{ended:?}")
    };
    for part in ["not ours", "before: 0", "asked:  set g to 1", "now:    55"] {
        assert!(why.contains(part), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_act_shows_how_the_world_was_just_before_it() {
    let (toy, memory) = (fresh_toy(), Memory::default());
    *toy.troubles.lock().unwrap() = vec![Class::Invalid];
    let steps = [Raise::plain("a", &[1])];
    let ended = process(&toy, &steps, in_cluster(&memory), false)
        .await
        .unwrap();
    let Ended::Stuck { why, .. } = ended else {
        panic!("{ended:?}")
    };
    for part in ["asked:  set a to 1", "now:    as it was before the run"] {
        assert!(why.contains(part), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_point_of_no_return_ends_a_rollback_without_touching_what_lies_before_it() {
    let (toy, memory) = (fresh_toy(), Memory::default());
    let undo = Undo::Impossible("the group is gone".into());
    let steps = [
        Raise::plain("early", &[1]),
        Raise {
            name: "gone",
            path: vec![1],
            gate: None,
            undo,
            feeble: false,
        }
        .planned(),
        Raise::plain("late", &[1]),
        Raise::plain("foreign", &[1]),
    ];
    toy.set("foreign", 99);
    let ended = process(&toy, &steps, in_cluster(&memory), true)
        .await
        .unwrap();
    let Ended::Stuck {
        step, closed: true, ..
    } = ended
    else {
        panic!("{ended:?}")
    };
    assert_eq!(step, "gone");
    assert_eq!(
        (toy.get("early"), toy.get("gone"), toy.get("late")),
        (1, 1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn until_pauses_after_its_step() {
    let (toy, memory) = (fresh_toy(), Memory::default());
    let steps = three();
    let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
    let (_asker, stop) = stop::channel();
    let mut first = engine(&toy, &steps, &mut journal, &stop);
    first.until = Some("weights".into());
    first.open(opened(&steps), about()).await.unwrap();
    assert!(matches!(
        first.forward().await.unwrap(),
        Ended::Paused { .. }
    ));
    assert_eq!((toy.get("weights"), toy.get("c")), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lock_stops_a_wait_at_once() {
    let (toy, memory) = (fresh_toy(), Memory::default());
    let clock = Clock::starting_at("2026-11-21T08:00:00Z".parse().unwrap());
    let remote = Arc::new(memory.clone());
    let lock = Lock::take(remote.clone(), clock.clone(), "us", &|_| {})
        .await
        .unwrap();
    let steps = [Raise {
        name: "g",
        path: vec![1],
        gate: Some("gate"),
        undo: Undo::Restore,
        feeble: false,
    }
    .planned()];
    let mut journal = Journal::load(in_cluster(&memory)).await.unwrap();
    let (_asker, stop) = stop::channel();
    let mut engine = engine(&toy, &steps, &mut journal, &stop);
    engine.lock = Some(&lock);
    engine.open(opened(&steps), about()).await.unwrap();
    tokio::spawn(async move {
        use crate::journal::Remote;
        tokio::time::sleep(Duration::from_secs(33)).await;
        let held = remote.read_lock().await.unwrap().unwrap();
        let held = crate::journal::Held {
            holder: "them".into(),
            ..held
        };
        remote.write_lock(&held, clock.now()).await.unwrap();
    });
    let start = Instant::now();
    let ended = engine.forward().await;
    assert!(matches!(ended, Err(EngineError::Lock(_))), "{ended:?}");
    let late = start.elapsed() - Duration::from_secs(33);
    assert!(late <= crate::journal::lock::RENEW, "{late:?}");
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
            let steps = three();
            for (left, torn) in cuts {
                let _ = process(&toy, &steps, open(&path, left, torn), false).await;
            }
            let last = process(&toy, &steps, open(&path, usize::MAX, false), false).await.unwrap();
            assert_eq!(last, Ended::Done);
            assert_eq!((toy.get("a"), toy.get("weights"), toy.get("c")), (1, 100, 3));
        });
    }
}
