use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use super::incluster;
use super::memory::{Fault, Memory};
use super::table::{Mark, rule};
use super::*;
use crate::model::{Class, Clock, Timestamp};

const STEPS: [&str; 3] = ["a", "b", "c"];

fn at(n: u64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + n as i64).unwrap()
}

fn opened() -> Entry {
    Entry::Opened(Opened {
        format: FORMAT,
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
    RunState::open(&Record {
        seq: 0,
        at: at(0),
        entry: opened(),
    })
    .unwrap()
}

fn step(i: usize) -> String {
    STEPS[i].into()
}

fn entry() -> impl Strategy<Value = Entry> {
    let s = (0usize..3).prop_map(step);
    prop_oneof![
        s.clone().prop_map(|step| Entry::Started { step }),
        (s.clone(), any::<bool>(), 0..3).prop_map(|(step, b, act)| Entry::Began {
            step,
            before: b.then(|| json!(0)),
            act: json!(act)
        }),
        s.clone().prop_map(|step| Entry::Done {
            step,
            how: "h".into()
        }),
        s.clone().prop_map(|step| Entry::Skipped {
            step,
            how: "h".into()
        }),
        s.clone().prop_map(|step| Entry::Failed {
            step,
            error: "e".into()
        }),
        Just(Entry::Paused { why: "w".into() }),
        (-90i64..900).prop_map(|unwatched| Entry::Resumed {
            by: "me".into(),
            unwatched
        }),
        s.clone().prop_map(|step| Entry::Approved {
            step,
            by: "Ann".into(),
            granted_at: None
        }),
        (-90i64..90).prop_map(|seconds| Entry::ClockMoved { seconds }),
        Just(Entry::UndoStarted {
            keep: vec!["a".into()],
            workloads: Default::default(),
        }),
        s.clone().prop_map(|step| Entry::UndoBegan {
            step,
            act: json!(0),
            workloads: Default::default(),
        }),
        s.clone().prop_map(|step| Entry::UndoDone { step }),
        s.prop_map(|step| Entry::UndoFailed {
            step,
            error: "e".into()
        }),
        prop_oneof![
            Just(Outcome::Done),
            Just(Outcome::RolledBack),
            Just(Outcome::Stuck)
        ]
        .prop_map(|outcome| Entry::Closed { outcome }),
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
            match state.apply(&record) {
                Ok(()) => records.push(record),
                Err(_) => prop_assert_eq!(&state, &before),
            }
            for (i, s) in state.steps.iter().enumerate() {
                prop_assert_eq!(s.before.is_some(), s.acts > 0);
                if s.status != Status::Pending {
                    let earlier_over = state.steps[..i].iter().all(|e| e.status.is_over());
                    prop_assert!(earlier_over || state.phase != Phase::Forward);
                }
                match s.status {
                    Status::Skipped | Status::Pending | Status::Started => {
                        prop_assert_eq!(s.acts, 0);
                    }
                    Status::Done | Status::Begun | Status::Undoing | Status::Undone
                    | Status::UndoFailed => prop_assert!(s.acts > 0),
                    Status::Failed => {}
                }
            }
            if state.outcome == Some(Outcome::Done) {
                prop_assert!(state.steps.iter().all(|s| s.status.is_over()));
            }
        }
        // The same again from its records, from its lines, and from its checkpoint.
        prop_assert_eq!(RunState::fold(&records).unwrap().unwrap(), state.clone());
        let text: Vec<String> = records.iter().map(|r| serde_json::to_string(r).unwrap()).collect();
        let read: Vec<Record> = text.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
        prop_assert_eq!(&read, &records);
        let checkpoint = incluster::text(&state).unwrap();
        prop_assert_eq!(incluster::parse(&checkpoint).unwrap(), state);
    }
}

#[test]
fn no_mark_leaves_a_step_that_is_over_and_back_never_goes_forward() {
    for mark in [
        Mark::Started,
        Mark::Began,
        Mark::Done,
        Mark::Skipped,
        Mark::Failed,
    ] {
        let rule = rule(mark);
        assert_eq!(rule.phase, Phase::Forward);
        assert!(!rule.from.iter().any(|s| s.is_over()), "{mark:?}");
    }
    for mark in [Mark::UndoBegan, Mark::UndoDone, Mark::UndoFailed] {
        let rule = rule(mark);
        assert_eq!((rule.phase, rule.acted), (Phase::Back, Some(true)));
        assert!(!rule.from.contains(&Status::Undone), "{mark:?}");
        assert!(!rule.from.contains(&Status::Skipped), "{mark:?}");
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
        state.apply(&record).unwrap();
    };
    put(Entry::Started { step: step(0) });
    put(Entry::Began {
        step: step(0),
        before: Some(json!(0)),
        act: json!(25),
    });
    put(Entry::Began {
        step: step(0),
        before: Some(json!(25)),
        act: json!(50),
    });
    let a = state.step("a").unwrap();
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
    FileLog::open(&path).unwrap().append(&first).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend(br#"{"seq":1,"at":"20"#);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(file::read(&path).unwrap(), std::slice::from_ref(&first));
    let second = Record {
        seq: 1,
        at: at(1),
        entry: Entry::Resumed {
            by: "me".into(),
            unwatched: 0,
        },
    };
    FileLog::open(&path).unwrap().append(&second).unwrap();
    assert_eq!(file::read(&path).unwrap(), [first, second]);
    std::fs::write(&path, "{}\n{}\n").unwrap();
    let error = file::read(&path).unwrap_err().to_string();
    assert!(error.contains("line 1 is no record"), "{error}");
}

#[test]
fn a_newer_format_is_refused_and_an_unknown_field_too() {
    let mut value = serde_json::to_value(state()).unwrap();
    let parse = |value: &serde_json::Value| {
        let mut text = incluster::text(&state()).unwrap();
        text.state = value.to_string();
        incluster::parse(&text)
    };
    value["later"] = json!(1);
    let unknown = parse(&value);
    assert!(
        matches!(unknown, Err(JournalError::Unreadable(_))),
        "{unknown:?}"
    );
    value["format"] = json!(FORMAT + 1);
    let newer = parse(&value);
    assert!(
        matches!(newer, Err(JournalError::NewerFormat { .. })),
        "{newer:?}"
    );
}

#[test]
fn a_route_that_is_missing_or_of_another_run_is_no_checkpoint() {
    let text = incluster::text(&state()).unwrap();
    assert_eq!(incluster::parse(&text).unwrap(), state());
    let other = text.bound.replace("\"run\":\"", "\"run\":\"other-");
    assert_ne!(other, *text.bound);
    for bound in ["", "{}", &other] {
        let bound = bound.into();
        let state = text.state.clone();
        let read = incluster::parse(&Text { state, bound });
        assert!(matches!(read, Err(JournalError::Unreadable(_))), "{read:?}");
    }
    let torn = Text {
        bound: "{".into(),
        ..text
    };
    let error = incluster::parse(&torn).unwrap_err().to_string();
    assert!(error.contains("in `bound`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_run_too_large_for_a_config_map_is_refused_before_it_is_written() {
    let memory = Memory::default();
    let mut journal = Journal::load(store(&memory)).await.unwrap();
    let Entry::Opened(mut huge) = opened() else {
        unreachable!()
    };
    huge.route = json!("x".repeat(1_100_000));
    let error = journal
        .append(at(0), Entry::Opened(huge))
        .await
        .unwrap_err();
    assert!(matches!(error, JournalError::TooLarge { .. }), "{error}");
    assert_eq!(memory.text(), None);
}

/// When step `a` is said to have started, by a record whose write found the API server away for two minutes.
async fn started_while_away(answer_lost: bool) -> SignedDuration {
    let (memory, clock) = (Memory::default(), Clock::starting_at(at(0)));
    let mut journal = Journal::load(store(&memory)).await.unwrap();
    journal.append(at(0), opened()).await.unwrap();
    if answer_lost {
        memory.fault_at(2, Fault::AnswerLost);
    }
    let away = memory.clone();
    memory.away(!answer_lost);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        away.away(true);
        tokio::time::sleep(Duration::from_secs(120)).await;
        away.away(false);
    });
    let now = move || clock.now();
    let started = Entry::Started { step: step(0) };
    journal.append_now(&now, started).await.unwrap();
    let stored = incluster::parse(&memory.text().unwrap()).unwrap();
    assert_eq!(Some(&stored), journal.state());
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
    let memory = Memory::default();
    let mut journal = Journal::load(store(&memory)).await.unwrap();
    journal.append(at(0), opened()).await.unwrap();
    assert!(journal.append(at(1), opened()).await.is_err());
    journal
        .append(
            at(1),
            Entry::UndoStarted {
                keep: vec![],
                workloads: Default::default(),
            },
        )
        .await
        .unwrap();
    journal
        .append(
            at(2),
            Entry::Closed {
                outcome: Outcome::RolledBack,
            },
        )
        .await
        .unwrap();
    journal.append(at(3), opened()).await.unwrap();
    let read = Journal::load(store(&memory)).await.unwrap();
    assert_eq!(
        read.state().map(|s| (s.next_seq, s.phase)),
        Some((1, Phase::Forward))
    );
}

#[tokio::test(start_paused = true)]
async fn a_failing_copy_never_stops_a_run() {
    let memory = Memory::default();
    let mut journal = Journal::load(store(&memory)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let blocker = folder.path().join("file");
    std::fs::write(&blocker, "").unwrap();
    journal.copy_to(FileLog::open(&blocker.join("journal.jsonl")));
    journal.append(at(0), opened()).await.unwrap();
    assert!(journal.copy_failed().is_some());
}

fn store(memory: &Memory) -> Box<dyn Store> {
    Box::new(InCluster::new(Arc::new(memory.clone()), Arc::new(|_| {})))
}

fn clock() -> Clock {
    Clock::starting_at("2026-11-21T08:00:00Z".parse().unwrap())
}

async fn take(memory: &Memory, who: &str) -> Result<Lock, LockError> {
    Lock::take(Arc::new(memory.clone()), clock(), who, &|_| {}).await
}

#[tokio::test(start_paused = true)]
async fn a_living_holder_is_named_and_a_dead_one_is_followed_after_a_full_duration() {
    let memory = Memory::default();
    let first = take(&memory, "one").await.unwrap();
    let start = Instant::now();
    match take(&memory, "two").await {
        Err(LockError::Busy { holder, .. }) => assert_eq!(holder, "one"),
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
    let second = Lock::take(Arc::new(memory.clone()), clock(), "two", &say);
    let second = second.await.unwrap();
    assert!((30..35).contains(&start.elapsed().as_secs()));
    assert_eq!(said.load(Ordering::Relaxed), 1);
    second.release().await;
    let start = Instant::now();
    take(&memory, "three").await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_holder_without_an_api_server_waits_and_holds_on_when_it_is_back() {
    let memory = Memory::default();
    let lock = take(&memory, "one").await.unwrap();
    memory.away(true);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let other = memory.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        other.away(false);
    });
    let start = Instant::now();
    lock.confirm().await.unwrap();
    assert!(
        (29..33).contains(&start.elapsed().as_secs()),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_may_not_be_renewed_any_more_ends_the_run_and_names_the_call() {
    let memory = Memory::default();
    let lock = take(&memory, "one").await.unwrap();
    for call in 2..100 {
        memory.fault_at(call, Fault::Denied);
    }
    let start = Instant::now();
    let lost = lock.lost().await;
    assert!(
        matches!(&lost, LockError::Api(e) if e.class == Class::Denied),
        "{lost}"
    );
    assert!(start.elapsed() < Duration::from_secs(40));
    assert!(matches!(lock.confirm().await, Err(LockError::Api(_))));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_is_lost_does_not_lose_the_lock() {
    let memory = Memory::default();
    let lock = take(&memory, "one").await.unwrap();
    for call in 2..12 {
        memory.fault_at(call, Fault::AnswerLost);
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    lock.confirm().await.unwrap();
    assert_eq!(memory.holder().as_deref(), Some("one"));
}

#[tokio::test(start_paused = true)]
async fn since_when_nobody_holds_the_lock_is_known_even_where_the_answer_of_taking_it_is_lost() {
    let (memory, clock) = (Memory::default(), clock());
    let take = |who| Lock::take(Arc::new(memory.clone()), clock.clone(), who, &|_| {});
    let first = take("one").await.unwrap();
    assert_eq!(first.before(), None);
    first.release().await;
    let released = clock.now();
    tokio::time::sleep(Duration::from_secs(1000)).await;
    // Taking and giving back were a read and a write each.
    memory.fault_at(5, Fault::AnswerLost);
    assert_eq!(take("two").await.unwrap().before(), Some(released));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_has_just_started_may_refuse_the_lock_for_moments_but_not_for_good() {
    let memory = Memory::default();
    (0..4).for_each(|call| memory.fault_at(call, Fault::Denied));
    take(&memory, "one").await.unwrap();
    let memory = Memory::default();
    (0..100).for_each(|call| memory.fault_at(call, Fault::Denied));
    let start = Instant::now();
    let refused = take(&memory, "one").await;
    assert!(matches!(refused, Err(LockError::Api(e)) if e.class == Class::Denied));
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_before_image_of_nothing_is_still_there_after_being_written_and_read() {
    let began = Entry::Began {
        step: "a".into(),
        before: Some(serde_json::Value::Null),
        act: serde_json::Value::Null,
    };
    let text = serde_json::to_string(&began).unwrap();
    assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), began);
}
