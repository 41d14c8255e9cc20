//! Files and checkpoints: snapshots, journals, saved plans, events.

use std::collections::BTreeMap;
use std::sync::Arc;

use eksup::inventory::snapshot;
use eksup::journal::run_store::{CheckpointRecord, RunStore, StoreFuture};
use eksup::journal::{
    CheckpointStore, CheckpointText, Journal, JournalError, Record, RunState, checkpoint_store,
};
use eksup::model::lease_record::LeaseRecord;
use eksup::model::{ApiError, Clock, Timestamp};
use eksup::report::{page, recording as events};
use eksup::run::saved_plan::SavedPlan;
use eksup::twin::{Twin, scenario};
use proptest::prelude::*;
use serde_json::Value;

use super::damage::{cut, cuts, damage, damages};
use super::runs::run;

#[test]
fn a_damaged_snapshot_is_refused_or_rehearsed_from() {
    let bundled = include_bytes!("../../../src/twin/scenario/expense-dev.json");
    super::try_all(30, &damages(), |how| {
        let bytes = damage(bundled, &how);
        let text = String::from_utf8_lossy(&bytes);
        let Ok(snapshot) = snapshot::parse_snapshot(&text) else {
            return Ok(());
        };
        // What is read makes a world, and the world goes on.
        super::virtual_time(async {
            let twin = Twin::start(scenario::load_world(&snapshot, 1));
            tokio::time::sleep(std::time::Duration::from_secs(3_600)).await;
            let plan = eksup::plan::parse_plan("p", "cluster: expense-dev\nto: 1.28\n").unwrap();
            let clock = Clock::starting_at(snapshot.inventory.taken_at);
            drop(super::replies::read_over(twin.wire(), &clock, &plan).await);
        });
        Ok(())
    });
}

/// Whether everything in `text` is in `read` too, but for what is absent or at its default there.
fn covered(text: &Value, read: &Value) -> bool {
    match (text, read) {
        (Value::Object(text), Value::Object(read)) => text.iter().all(|(key, value)| {
            let empty =
                value.is_null() || *value == 0 || value.as_array().is_some_and(Vec::is_empty);
            read.get(key).map_or(empty, |read| covered(value, read))
        }),
        (Value::Array(text), Value::Array(read)) => {
            text.len() == read.len() && text.iter().zip(read).all(|(t, r)| covered(t, r))
        }
        // A time may be written in another way.
        (Value::String(text), Value::String(read)) => {
            let time = |t: &str| t.parse::<jiff::Timestamp>().ok();
            text == read || (time(text).is_some() && time(text) == time(read))
        }
        (Value::Number(text), Value::Number(read)) => text.as_f64() == read.as_f64(),
        (text, read) => text == read,
    }
}

/// The checkpoint with one of its two texts made into another.
fn with(state: bool, change: impl Fn(&[u8]) -> Vec<u8>) -> CheckpointText {
    let mut text = run().checkpoint.clone();
    let changed = |part: &str| String::from_utf8_lossy(&change(part.as_bytes())).into_owned();
    if state {
        text.state = changed(&text.state);
    } else {
        text.bound = changed(&text.bound).into();
    }
    text
}

#[test]
fn a_damaged_checkpoint_is_refused_or_read_whole() {
    super::try_all(400, &(any::<bool>(), damages()), |(state, how)| {
        let text = with(state, |part| damage(part, &how));
        let Ok(read) = checkpoint_store::parse_checkpoint(&text) else {
            return Ok(());
        };
        let written: Value = serde_json::from_str(&text.state).unwrap();
        let again = serde_json::to_value(&read).unwrap();
        prop_assert!(covered(&written, &again), "{written}\nwas read as\n{again}");
        let written: Value = serde_json::from_str(&text.bound).unwrap();
        let (route, plan) = (read.binding.promised_route(), read.binding.opened_plan());
        let workloads = read.binding.baseline_counts();
        let again = serde_json::json!({
            "run": read.run, "route": route, "plan": plan, "workloads": workloads,
        });
        prop_assert!(covered(&written, &again), "{written}\nwas read as\n{again}");
        Ok(())
    });
}

/// A cluster that has this checkpoint, over which nothing may be written.
struct StoredText(CheckpointText);

impl RunStore for StoredText {
    fn read_checkpoint(&self) -> StoreFuture<'_, Result<Option<CheckpointRecord>, ApiError>> {
        let record = CheckpointRecord {
            text: self.0.clone(),
            version: "1".to_owned(),
            annotations: BTreeMap::new(),
        };
        Box::pin(async { Ok(Some(record)) })
    }

    fn write_checkpoint<'a>(
        &'a self,
        text: &'a CheckpointText,
        _: Option<&'a CheckpointRecord>,
        _: &'a [String],
    ) -> StoreFuture<'a, Result<CheckpointRecord, ApiError>> {
        panic!("the checkpoint was written over with {text:?}")
    }

    fn read_lease(&self) -> StoreFuture<'_, Result<Option<LeaseRecord>, ApiError>> {
        Box::pin(async { Ok(None) })
    }

    fn write_lease<'a>(
        &'a self,
        held: &'a LeaseRecord,
        _: Timestamp,
    ) -> StoreFuture<'a, Result<LeaseRecord, ApiError>> {
        panic!("the lock was taken: {held:?}")
    }
}

#[test]
fn a_checkpoint_cut_short_anywhere_is_refused_and_no_new_run_is_begun_over_it() {
    let whole = &run().checkpoint;
    let places = (any::<bool>(), 0..whole.state.len().max(whole.bound.len()));
    super::try_all(200, &places, |(state, place)| {
        let text = with(state, |part| part[..place.min(part.len() - 1)].to_vec());
        let loaded = super::virtual_time(async {
            let store = CheckpointStore::new(Arc::new(StoredText(text)), Arc::new(|_| {}));
            Journal::load(Box::new(store))
                .await
                .map(|j| j.run_state().cloned())
        });
        prop_assert!(
            matches!(loaded, Err(JournalError::Unreadable(_))),
            "{loaded:?}"
        );
        Ok(())
    });
}

/// Reads a journal's bytes as its file is read.
fn journal(bytes: &[u8]) -> Result<Vec<Record>, JournalError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.jsonl");
    std::fs::write(&path, bytes).unwrap();
    eksup::journal::file::read_records(&path)
}

#[test]
fn a_journal_cut_short_anywhere_is_the_records_before() {
    let whole = &run().journal;
    let all = journal(whole).unwrap();
    let places = 0..whole.len();
    super::try_all(100, &places, |place| {
        let some = journal(&whole[..place]).unwrap();
        prop_assert_eq!(some.as_slice(), &all[..some.len()]);
        prop_assert_eq!(
            some.len(),
            whole[..place].iter().filter(|b| **b == b'\n').count()
        );
        prop_assert!(RunState::fold_records(&some).is_ok());
        Ok(())
    });
}

#[test]
fn a_damaged_journal_is_refused_at_a_line_or_by_what_it_says() {
    let whole = &run().journal;
    super::try_all(200, &cuts(), |cuts| {
        let bytes = cut(whole, &cuts);
        match journal(&bytes) {
            Ok(records) => drop(RunState::fold_records(&records)),
            Err(JournalError::BadLine { number, .. }) => {
                let lines = bytes.split(|b| *b == b'\n').count();
                prop_assert!((1..=lines).contains(&number));
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
        Ok(())
    });
}

#[test]
fn a_damaged_saved_plan_is_refused_or_a_plan() {
    let saved = run().saved.as_bytes();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("saved.json");
    super::try_all(200, &damages(), |how| {
        std::fs::write(&path, damage(saved, &how)).unwrap();
        match SavedPlan::read_file(&path) {
            Err(error) => prop_assert_eq!(error.kind.exit_code(), 2),
            // It is taken for a plan file then, and as such says what is wrong.
            Ok(None) => prop_assert!(eksup::plan::load_plan(&path).is_err()),
            Ok(Some(saved)) => {
                drop(eksup::plan::parse_plan(&saved.plan_name, &saved.plan_text));
                for step in &saved.route.steps {
                    drop(eksup::steps::build_step(step, &saved.route, "run", false));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_damaged_event_file_is_refused_or_a_page() {
    let recorded = &run().events;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.jsonl");
    super::try_all(60, &cuts(), |cuts| {
        std::fs::write(&path, cut(recorded, &cuts)).unwrap();
        if let Ok(events) = events::read_events(&path) {
            let report = page::build_report(&events);
            prop_assert!(page::render_page(&report).contains("</html>"));
            prop_assert!(!page::render_report_markdown(&report).is_empty());
        }
        Ok(())
    });
}
