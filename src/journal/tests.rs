use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::checkpoint_store;
use super::memory_store::{MemoryRunStore, StoreFault};
use super::transitions::{Transition, transition_rule};
use super::*;
use crate::model::{Clock, ErrorClass, Timestamp};

const STEPS: [&str; 3] = ["a", "b", "c"];

fn at(n: u64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + n as i64).unwrap()
}

fn opened() -> JournalEntry {
    JournalEntry::Opened(OpenedEntry {
        format: JOURNAL_FORMAT,
        run: "r1".into(),
        plan_digest: "d".into(),
        cluster_arn: "arn".into(),
        steps: STEPS.map(String::from).to_vec(),
        route: json!({"cluster": "c"}),
        plan: serde_json::Value::Null,
        workloads: Default::default(),
    })
}

fn state() -> RunState {
    RunState::from_opening(&Record {
        seq: 0,
        at: at(0),
        entry: opened(),
    })
    .unwrap()
}

fn step(i: usize) -> String {
    STEPS[i].into()
}

fn entry() -> impl Strategy<Value = JournalEntry> {
    // A few steps only, so that most records meet one that has records already.
    let s = (0usize..3).prop_map(step);
    prop_oneof![
        s.clone().prop_map(|step| JournalEntry::Started { step }),
        (s.clone(), any::<bool>(), 0..3).prop_map(|(step, b, act)| JournalEntry::Began {
            step,
            before: b.then(|| json!(0)),
            act: json!(act)
        }),
        s.clone().prop_map(|step| JournalEntry::Done {
            step,
            how: "h".into()
        }),
        s.clone().prop_map(|step| JournalEntry::Skipped {
            step,
            how: "h".into()
        }),
        s.clone().prop_map(|step| JournalEntry::Failed {
            step,
            error: "e".into()
        }),
        Just(JournalEntry::Paused { why: "w".into() }),
        // A clock that was set back makes the time negative.
        (-90i64..900).prop_map(|unattended_seconds| JournalEntry::Resumed {
            by: "me".into(),
            unattended_seconds
        }),
        s.clone().prop_map(|step| JournalEntry::Approved {
            step,
            by: "Ann".into(),
            granted_at: None
        }),
        (-90i64..90).prop_map(|seconds| JournalEntry::ClockMoved { seconds }),
        Just(JournalEntry::RollbackStarted {
            keep: vec!["a".into()],
            workloads: Default::default(),
        }),
        (s.clone(), 0u32..3).prop_map(|(step, ready)| JournalEntry::UndoBegan {
            step,
            act: json!(0),
            workloads: [("Deployment shop/web".to_owned(), ready)].into(),
        }),
        s.clone().prop_map(|step| JournalEntry::UndoDone { step }),
        s.prop_map(|step| JournalEntry::UndoFailed {
            step,
            error: "e".into()
        }),
        prop_oneof![
            Just(FinalOutcome::Done),
            Just(FinalOutcome::RolledBack),
            Just(FinalOutcome::Stuck)
        ]
        .prop_map(|outcome| JournalEntry::Closed { outcome }),
    ]
}

proptest! {
    #[test]
    fn whatever_is_written_the_state_stays_sound(
        entries in prop::collection::vec(entry(), 0..120)
    ) {
        let mut state = state();
        let mut records = vec![Record { seq: 0, at: at(0), entry: opened() }];
        for entry in entries {
            let record = Record { seq: state.next_seq, at: at(state.next_seq), entry };
            let before = state.clone();
            match state.apply_record(&record) {
                Ok(()) => records.push(record),
                Err(_) => prop_assert_eq!(&state, &before),
            }
            for (i, s) in state.steps.iter().enumerate() {
                prop_assert_eq!(s.before.is_some(), s.acts > 0);
                if s.status != StepStatus::Pending {
                    let earlier_over = state.steps[..i].iter().all(|e| e.status.is_over());
                    prop_assert!(earlier_over || state.phase != RunPhase::Forward);
                }
                match s.status {
                    StepStatus::Skipped | StepStatus::Pending | StepStatus::Started => {
                        prop_assert_eq!(s.acts, 0);
                    }
                    StepStatus::Done | StepStatus::Begun | StepStatus::Undoing | StepStatus::Undone
                    | StepStatus::UndoFailed => prop_assert!(s.acts > 0),
                    StepStatus::Failed => {}
                }
            }
            if state.outcome == Some(FinalOutcome::Done) {
                prop_assert!(state.steps.iter().all(|s| s.status.is_over()));
            }
        }
        // The same again from its records, from its lines, and from its checkpoint.
        prop_assert_eq!(RunState::fold_records(&records).unwrap().unwrap(), state.clone());
        let text: Vec<String> = records.iter().map(|r| serde_json::to_string(r).unwrap()).collect();
        let read: Vec<Record> = text.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
        prop_assert_eq!(&read, &records);
        let checkpoint = checkpoint_store::checkpoint_text(&state).unwrap();
        prop_assert_eq!(checkpoint_store::parse_checkpoint(&checkpoint).unwrap(), state);
    }
}

#[test]
fn no_mark_leaves_a_step_that_is_over_and_back_never_goes_forward() {
    for mark in [
        Transition::Started,
        Transition::Began,
        Transition::Done,
        Transition::Skipped,
        Transition::Failed,
    ] {
        let rule = transition_rule(mark);
        assert_eq!(rule.phase, RunPhase::Forward);
        assert!(!rule.from.iter().any(|s| s.is_over()), "{mark:?}");
    }
    for mark in [
        Transition::UndoBegan,
        Transition::UndoDone,
        Transition::UndoFailed,
    ] {
        let rule = transition_rule(mark);
        assert_eq!((rule.phase, rule.acted), (RunPhase::Rollback, Some(true)));
        assert!(!rule.from.contains(&StepStatus::Undone), "{mark:?}");
        assert!(!rule.from.contains(&StepStatus::Skipped), "{mark:?}");
    }
}

#[test]
fn the_first_before_image_wins() {
    let mut state = state();
    let mut put = |entry| {
        let record = Record {
            seq: state.next_seq,
            at: at(state.next_seq),
            entry,
        };
        state.apply_record(&record).unwrap();
    };
    put(JournalEntry::Started { step: step(0) });
    put(JournalEntry::Began {
        step: step(0),
        before: Some(json!(0)),
        act: json!(25),
    });
    put(JournalEntry::Began {
        step: step(0),
        before: Some(json!(25)),
        act: json!(50),
    });
    let a = state.find_step("a").unwrap();
    assert_eq!(
        (a.before.clone(), a.acts, a.last_act.clone()),
        (Some(json!(0)), 2, Some(json!(50)))
    );
}

#[test]
fn a_torn_last_line_is_dropped_and_cut_off_and_any_other_bad_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/journal.jsonl");
    let first = Record {
        seq: 0,
        at: at(0),
        entry: opened(),
    };
    FileLog::open(&path).unwrap().append_record(&first).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend(br#"{"seq":1,"at":"20"#);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(
        file::read_records(&path).unwrap(),
        std::slice::from_ref(&first)
    );
    let second = Record {
        seq: 1,
        at: at(1),
        entry: JournalEntry::Resumed {
            by: "me".into(),
            unattended_seconds: 0,
        },
    };
    FileLog::open(&path)
        .unwrap()
        .append_record(&second)
        .unwrap();
    assert_eq!(file::read_records(&path).unwrap(), [first, second]);
    std::fs::write(&path, "{}\n{}\n").unwrap();
    let error = file::read_records(&path).unwrap_err().to_string();
    assert!(error.contains("line 1 is no record"), "{error}");
}

#[test]
fn another_format_is_refused_and_an_unknown_field_too() {
    let mut value = serde_json::to_value(state()).unwrap();
    let parse = |value: &serde_json::Value| {
        let mut text = checkpoint_store::checkpoint_text(&state()).unwrap();
        text.state = value.to_string();
        checkpoint_store::parse_checkpoint(&text)
    };
    value["later"] = json!(1);
    let unknown = parse(&value);
    assert!(
        matches!(unknown, Err(JournalError::Unreadable(_))),
        "{unknown:?}"
    );
    for format in [JOURNAL_FORMAT - 1, JOURNAL_FORMAT + 1] {
        value["format"] = json!(format);
        let other = parse(&value);
        assert!(
            matches!(other, Err(JournalError::OtherFormat { found, .. }) if found == format),
            "{other:?}"
        );
    }
}

#[test]
fn a_route_that_is_missing_or_of_another_run_is_no_checkpoint() {
    let text = checkpoint_store::checkpoint_text(&state()).unwrap();
    assert_eq!(checkpoint_store::parse_checkpoint(&text).unwrap(), state());
    let other = text.bound.replace("\"run\":\"", "\"run\":\"other-");
    assert_ne!(other, *text.bound);
    for bound in ["", "{}", &other] {
        let bound = bound.into();
        let state = text.state.clone();
        let read = checkpoint_store::parse_checkpoint(&CheckpointText { state, bound });
        assert!(matches!(read, Err(JournalError::Unreadable(_))), "{read:?}");
    }
    let torn = CheckpointText {
        bound: "{".into(),
        ..text
    };
    let error = checkpoint_store::parse_checkpoint(&torn)
        .unwrap_err()
        .to_string();
    assert!(error.contains("in `bound`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_run_too_large_for_a_config_map_is_refused_before_it_is_written() {
    let memory = MemoryRunStore::default();
    let mut journal = Journal::load(store(&memory)).await.unwrap();
    let JournalEntry::Opened(mut huge) = opened() else {
        unreachable!()
    };
    huge.route = json!("x".repeat(1_100_000));
    let error = journal
        .append_at(at(0), JournalEntry::Opened(huge))
        .await
        .unwrap_err();
    assert!(matches!(error, JournalError::TooLarge { .. }), "{error}");
    assert_eq!(memory.stored_text(), None);
}

/// When step `a` is said to have started, by a record whose write found the API server away for two minutes.
async fn started_while_away(answer_lost: bool) -> SignedDuration {
    let (memory, clock) = (MemoryRunStore::default(), Clock::starting_at(at(0)));
    let mut journal = Journal::load(store(&memory)).await.unwrap();
    journal.append_at(at(0), opened()).await.unwrap();
    if answer_lost {
        memory.fault_at(2, StoreFault::AnswerLost);
    }
    let away = memory.clone();
    memory.set_unavailable(!answer_lost);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        away.set_unavailable(true);
        tokio::time::sleep(Duration::from_secs(120)).await;
        away.set_unavailable(false);
    });
    let now = move || clock.now();
    let started = JournalEntry::Started { step: step(0) };
    journal.append_now(&now, started).await.unwrap();
    let stored = checkpoint_store::parse_checkpoint(&memory.stored_text().unwrap()).unwrap();
    assert_eq!(Some(&stored), journal.run_state());
    stored.steps[0].started_at.unwrap().duration_since(at(0))
}

#[tokio::test(start_paused = true)]
async fn a_record_that_could_not_be_written_for_minutes_says_when_it_was_written() {
    let late = started_while_away(false).await.as_secs();
    assert!((105..=130).contains(&late), "{late} s");
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_answer_was_lost_minutes_ago_is_the_one_that_counts() {
    assert!(started_while_away(true).await.as_secs() < 1);
}

#[tokio::test(start_paused = true)]
async fn a_closed_run_may_be_followed_by_a_new_one_and_an_open_one_may_not() {
    let memory = MemoryRunStore::default();
    let mut journal = Journal::load(store(&memory)).await.unwrap();
    journal.append_at(at(0), opened()).await.unwrap();
    assert!(journal.append_at(at(1), opened()).await.is_err());
    journal
        .append_at(
            at(1),
            JournalEntry::RollbackStarted {
                keep: vec![],
                workloads: Default::default(),
            },
        )
        .await
        .unwrap();
    journal
        .append_at(
            at(2),
            JournalEntry::Closed {
                outcome: FinalOutcome::RolledBack,
            },
        )
        .await
        .unwrap();
    journal.append_at(at(3), opened()).await.unwrap();
    let read = Journal::load(store(&memory)).await.unwrap();
    assert_eq!(
        read.run_state().map(|s| (s.next_seq, s.phase)),
        Some((1, RunPhase::Forward))
    );
}

#[tokio::test(start_paused = true)]
async fn a_failing_copy_never_stops_a_run() {
    let memory = MemoryRunStore::default();
    let mut journal = Journal::load(store(&memory)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let blocker = folder.path().join("file");
    std::fs::write(&blocker, "").unwrap();
    journal.copy_to(FileLog::open(&blocker.join("journal.jsonl")));
    journal.append_at(at(0), opened()).await.unwrap();
    assert!(journal.copy_error().is_some());
}

fn store(memory: &MemoryRunStore) -> Box<dyn JournalStore> {
    Box::new(CheckpointStore::new(
        Arc::new(memory.clone()),
        Arc::new(|_| {}),
    ))
}

fn clock() -> Clock {
    Clock::starting_at("2026-11-21T08:00:00Z".parse().unwrap())
}

async fn take(memory: &MemoryRunStore, who: &str) -> Result<RunLease, LeaseError> {
    RunLease::acquire(Arc::new(memory.clone()), clock(), who, &|_| {}).await
}

#[tokio::test(start_paused = true)]
async fn a_living_holder_is_named_and_a_dead_one_is_followed_after_a_full_duration() {
    let memory = MemoryRunStore::default();
    let first = take(&memory, "one").await.unwrap();
    let start = Instant::now();
    match take(&memory, "two").await {
        Err(LeaseError::Busy { holder, .. }) => assert_eq!(holder, "one"),
        other => panic!("{:?}", other.err()),
    }
    assert!(start.elapsed() <= Duration::from_secs(14));
    // Dropped without being released: a crash.
    drop(first);
    let start = Instant::now();
    let said = AtomicU32::new(0);
    let say = |_| {
        said.fetch_add(1, Ordering::Relaxed);
    };
    let second = RunLease::acquire(Arc::new(memory.clone()), clock(), "two", &say);
    let second = second.await.unwrap();
    assert!((30..35).contains(&start.elapsed().as_secs()));
    assert_eq!(said.load(Ordering::Relaxed), 1);
    second.release(true).await;
    let start = Instant::now();
    take(&memory, "three").await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_holder_without_an_api_server_waits_and_holds_on_when_it_is_back() {
    let memory = MemoryRunStore::default();
    let lock = take(&memory, "one").await.unwrap();
    memory.set_unavailable(true);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let other = memory.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        other.set_unavailable(false);
    });
    let start = Instant::now();
    lock.wait_until_held().await.unwrap();
    assert!(
        (29..33).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_may_not_be_renewed_any_more_ends_the_run_and_names_the_call() {
    let memory = MemoryRunStore::default();
    let lock = take(&memory, "one").await.unwrap();
    for call in 2..100 {
        memory.fault_at(call, StoreFault::Denied);
    }
    let start = Instant::now();
    let lost = lock.wait_until_lost().await;
    assert!(
        matches!(&lost, LeaseError::Api(e) if e.class == ErrorClass::Denied),
        "{lost}"
    );
    assert!(start.elapsed() < Duration::from_secs(40));
    assert!(matches!(
        lock.wait_until_held().await,
        Err(LeaseError::Api(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_is_lost_does_not_lose_the_lock() {
    let memory = MemoryRunStore::default();
    let lock = take(&memory, "one").await.unwrap();
    for call in 2..12 {
        memory.fault_at(call, StoreFault::AnswerLost);
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    lock.wait_until_held().await.unwrap();
    assert_eq!(memory.lease_holder().as_deref(), Some("one"));
}

#[tokio::test(start_paused = true)]
async fn since_when_nobody_holds_the_lock_is_known_even_where_the_answer_of_taking_it_is_lost() {
    let (memory, clock) = (MemoryRunStore::default(), clock());
    let take = |who| RunLease::acquire(Arc::new(memory.clone()), clock.clone(), who, &|_| {});
    let first = take("one").await.unwrap();
    assert_eq!(first.previous_renewal(), None);
    first.release(true).await;
    let released = clock.now();
    tokio::time::sleep(Duration::from_secs(1000)).await;
    // Taking and giving back were a read and a write each.
    memory.fault_at(5, StoreFault::AnswerLost);
    assert_eq!(
        take("two").await.unwrap().previous_renewal(),
        Some(released)
    );
}

#[tokio::test(start_paused = true)]
async fn a_process_that_recorded_nothing_does_not_hide_since_when_nobody_watched() {
    let (memory, clock) = (MemoryRunStore::default(), clock());
    let take = |who| RunLease::acquire(Arc::new(memory.clone()), clock.clone(), who, &|_| {});
    take("one").await.unwrap().release(true).await;
    let watched_until = clock.now();
    for idle in ["two", "three"] {
        tokio::time::sleep(Duration::from_secs(1000)).await;
        let lock = take(idle).await.unwrap();
        assert_eq!(lock.previous_renewal(), Some(watched_until));
        lock.release(false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_has_just_started_may_refuse_the_lock_for_moments_but_not_for_good() {
    let memory = MemoryRunStore::default();
    (0..4).for_each(|call| memory.fault_at(call, StoreFault::Denied));
    take(&memory, "one").await.unwrap();
    let memory = MemoryRunStore::default();
    (0..100).for_each(|call| memory.fault_at(call, StoreFault::Denied));
    let start = Instant::now();
    let refused = take(&memory, "one").await;
    assert!(matches!(refused, Err(LeaseError::Api(e)) if e.class == ErrorClass::Denied));
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_before_image_of_nothing_is_still_there_after_being_written_and_read() {
    let began = JournalEntry::Began {
        step: "a".into(),
        before: Some(serde_json::Value::Null),
        act: serde_json::Value::Null,
    };
    let text = serde_json::to_string(&began).unwrap();
    assert_eq!(serde_json::from_str::<JournalEntry>(&text).unwrap(), began);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_does_not_say_how_long_it_is_good_for_is_watched_as_long_as_ours() {
    let memory = MemoryRunStore::default();
    let held = LeaseRecord {
        holder: "one".into(),
        renewed_at: None,
        duration_seconds: None,
        transitions: 0,
        version: String::new(),
    };
    memory.write_lease(&held, at(0)).await.unwrap();
    let start = Instant::now();
    take(&memory, "two").await.unwrap();
    assert!((30..35).contains(&start.elapsed().as_secs()));
}
