//! Of the two times of an act: when it happened, and from when on its deadlines count.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    FinalOutcome, JOURNAL_FORMAT, JournalEntry, OpenedEntry, Record, RunState, StepState,
    checkpoint_store,
};

/// A run whose records are written at given minutes.
struct TimedRun(RunState);

fn minute(minute: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + minute * 60).unwrap()
}

fn resumed(unattended_minutes: i64) -> JournalEntry {
    JournalEntry::Resumed {
        by: "the next".into(),
        unattended_seconds: unattended_minutes * 60,
    }
}

fn paused() -> JournalEntry {
    JournalEntry::Paused { why: "w".into() }
}

impl TimedRun {
    /// A run of one step that acts at minute 1.
    fn acting() -> Self {
        let entry = JournalEntry::Opened(OpenedEntry {
            format: JOURNAL_FORMAT,
            run: "r1".into(),
            plan_digest: "d".into(),
            cluster_arn: "arn".into(),
            steps: vec!["hop".into()],
            route: json!({}),
            plan: Value::Null,
            workloads: Default::default(),
        });
        let opened = Record {
            seq: 0,
            at: minute(0),
            entry,
        };
        let mut run = Self(RunState::from_opening(&opened).unwrap());
        run.record(0, JournalEntry::Started { step: "hop".into() });
        let act = JournalEntry::Began {
            step: "hop".into(),
            before: Some(Value::Null),
            act: json!("update"),
        };
        run.record(1, act);
        run
    }

    /// The same, rolled back since minute 10; its undo acts at minute 11.
    fn going_back() -> Self {
        let mut run = Self::acting();
        let how = "h".to_owned();
        let step = "hop".to_owned();
        run.record(5, JournalEntry::Done { step, how });
        let outcome = FinalOutcome::Done;
        run.record(6, JournalEntry::Closed { outcome });
        let (keep, workloads) = (Vec::new(), Default::default());
        run.record(10, JournalEntry::RollbackStarted { keep, workloads });
        let undo = JournalEntry::UndoBegan {
            step: "hop".into(),
            act: json!("undo"),
            workloads: Default::default(),
        };
        run.record(11, undo);
        run
    }

    fn record(&mut self, at: i64, entry: JournalEntry) {
        let (seq, at) = (self.0.next_seq, minute(at));
        self.0.apply_record(&Record { seq, at, entry }).unwrap();
    }

    fn step(&self) -> &StepState {
        &self.0.steps[0]
    }

    /// How many minutes a deadline of the act has run at this minute.
    fn act_age(&self, now: i64) -> i64 {
        let step = self.step();
        let from = step.last_act_counts_from.or(step.last_act_at).unwrap();
        minute(now).duration_since(from).as_mins()
    }
}

#[test]
fn a_pause_moves_what_deadlines_count_from_and_never_when_an_act_happened() {
    let mut run = TimedRun::acting();
    run.record(4, paused());
    run.record(604, resumed(0));
    assert_eq!(run.step().last_act_at, Some(minute(1)));
    assert_eq!(run.step().started_at, Some(minute(0)));
    assert_eq!(run.act_age(606), 5);
    // The next act is of its own time again.
    let act = JournalEntry::Began {
        step: "hop".into(),
        before: None,
        act: json!("update"),
    };
    run.record(607, act);
    assert_eq!(run.step().last_act_at, Some(minute(607)));
    assert_eq!(run.act_age(610), 3);
}

#[test]
fn a_rollback_that_was_paused_is_no_later_than_when_it_paused() {
    let mut run = TimedRun::going_back();
    run.record(12, paused());
    run.record(72, resumed(0));
    let back = run.step().back.clone().unwrap();
    assert_eq!(back.last_act_at, Some(minute(11)));
    assert_eq!(back.last_act_counts_from, Some(minute(71)));
    assert_eq!(run.0.undo_counts_from, Some(minute(70)));
    // What the way up did is over, and nothing of it counts any more.
    assert_eq!(run.step().last_act_counts_from, None);
    // A crash is a pause too, from when the lock was renewed last.
    run.record(172, resumed(60));
    assert_eq!(run.0.undo_counts_from, Some(minute(130)));
    run.record(173, JournalEntry::ClockMoved { seconds: 600 });
    assert_eq!(run.0.undo_counts_from, Some(minute(140)));
}

#[test]
fn the_next_machines_clock_may_differ_without_a_deadline_passing_or_waiting_longer() {
    for ahead in [-3000, -7, 0, 7, 3000] {
        // Minute 4 by the old clock; an hour passes, by a clock that is ahead or behind.
        let mut run = TimedRun::acting();
        run.record(4, paused());
        run.record(64 + ahead, resumed(0));
        assert_eq!(run.act_age(64 + ahead), 3, "paused, {ahead}");
        // The lock was renewed at minute 4 after the last record.
        let mut run = TimedRun::acting();
        run.record(64 + ahead, resumed(60 + ahead));
        assert_eq!(run.act_age(64 + ahead), 3, "died, {ahead}");
    }
}

#[test]
fn a_clock_that_was_set_back_takes_the_times_it_told_with_it() {
    let mut run = TimedRun::acting();
    run.record(-59, JournalEntry::ClockMoved { seconds: -3600 });
    assert_eq!(run.step().last_act_at, Some(minute(-59)));
    assert_eq!(run.act_age(-55), 4);
    // A suspend moves it forward: the act happened when it did.
    run.record(5, JournalEntry::ClockMoved { seconds: 3600 });
    assert_eq!(run.step().last_act_at, Some(minute(-59)));
}

#[test]
fn a_checkpoint_that_names_its_times_as_before_is_read() {
    let mut run = TimedRun::going_back();
    run.0.steps[0].attempt_counts_from = Some(minute(3));
    let mut text = checkpoint_store::checkpoint_text(&run.0).unwrap();
    let mut value: Value = serde_json::from_str(&text.state).unwrap();
    let state = value.as_object_mut().unwrap();
    let undo = state.remove("undoCountsFrom").unwrap();
    state.insert("undoStartedAt".into(), undo);
    state.insert("resumedAt".into(), json!(minute(9)));
    let step = state["steps"][0].as_object_mut().unwrap();
    let attempt = step.remove("attemptCountsFrom").unwrap();
    step.insert("attemptStartedAt".into(), attempt);
    text.state = value.to_string();
    assert_eq!(checkpoint_store::parse_checkpoint(&text).unwrap(), run.0);
}

#[test]
fn a_deadline_counts_on_from_where_it_stood_over_any_number_of_pauses() {
    let mut run = TimedRun::acting();
    let mut now = 1;
    for pause in [1, 90, 60 * 24] {
        now += 2;
        run.record(now, paused());
        now += pause;
        run.record(now, resumed(0));
    }
    assert_eq!(run.act_age(now), 6);
    let whole = minute(now).duration_since(run.step().last_act_at.unwrap());
    assert!(whole > SignedDuration::from_hours(24));
}
