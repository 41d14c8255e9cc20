//! A toy world for the engine's tests: numbers that steps raise, and a store that dies when told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::env::EngineEnv;
use super::refusal::StepRefusal;
use super::run::PlannedStep;
use super::step::{
    Decision, RollbackHistory, RollbackPart, Step, StepError, StepHistory, UndoKind,
};
use crate::event::EventKind;
use crate::journal::run_store::StoreFuture;
use crate::journal::{FileLog, JournalError, JournalStore, MakeRecord, Record, RunState, file};
use crate::model::{ApiError, Clock, ErrorClass};

/// Numbers by name, and what goes wrong with calls.
#[derive(Clone)]
pub struct ToyWorld {
    pub numbers: Arc<Mutex<BTreeMap<String, u32>>>,
    pub events: Arc<Mutex<Vec<EventKind>>>,
    pub errors: Arc<Mutex<Vec<ErrorClass>>>,
    /// What goes wrong with setting a number to 0, once each.
    pub undo_errors: Arc<Mutex<Vec<(String, ErrorClass)>>>,
    pub acts: Arc<Mutex<Vec<String>>>,
    pub change_counter: watch::Sender<u64>,
    /// How long a look and an act take.
    pub look_time: Arc<Mutex<Duration>>,
    pub act_time: Arc<Mutex<Duration>>,
    /// How often new credentials were asked for.
    pub renewal_count: Arc<Mutex<u32>>,
    pub clock: Clock,
}

impl ToyWorld {
    pub fn new() -> Self {
        Self {
            numbers: Arc::default(),
            events: Arc::default(),
            errors: Arc::default(),
            undo_errors: Arc::default(),
            acts: Arc::default(),
            change_counter: watch::channel(0).0,
            look_time: Arc::default(),
            act_time: Arc::default(),
            renewal_count: Arc::default(),
            clock: Clock::starting_at("2026-11-21T08:00:00Z".parse().unwrap()),
        }
    }

    pub fn set_number(&self, name: &str, to: u32) {
        self.numbers.lock().unwrap().insert(name.into(), to);
        self.change_counter.send_modify(|n| *n += 1);
    }

    pub fn get_number(&self, name: &str) -> u32 {
        self.numbers
            .lock()
            .unwrap()
            .get(name)
            .copied()
            .unwrap_or_default()
    }

    pub fn numbers_now(&self) -> BTreeMap<String, u32> {
        self.numbers.lock().unwrap().clone()
    }

    pub fn emitted_events(&self) -> Vec<EventKind> {
        self.events.lock().unwrap().clone()
    }
}

impl EngineEnv for ToyWorld {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
    fn emit_event(&self, kind: EventKind) {
        self.events.lock().unwrap().push(kind);
    }
    fn subscribe_changes(&self) -> watch::Receiver<u64> {
        self.change_counter.subscribe()
    }
    fn renew_credentials(&self) {
        *self.renewal_count.lock().unwrap() += 1;
    }
}

/// Raises a number through `path`; refuses numbers it does not know; waits while `gate` is 0.
pub struct RaiseStep {
    pub name: &'static str,
    pub path: Vec<u32>,
    pub gate: Option<&'static str>,
    pub undo: UndoKind,
    /// Acts that change nothing.
    pub has_no_effect: bool,
}

impl RaiseStep {
    pub fn plain_step(name: &'static str, path: &[u32]) -> PlannedStep<ToyWorld> {
        Self {
            name,
            path: path.to_vec(),
            gate: None,
            undo: UndoKind::Restore,
            has_no_effect: false,
        }
        .into_planned_step()
    }

    pub fn into_planned_step(self) -> PlannedStep<ToyWorld> {
        PlannedStep {
            id: self.name.into(),
            title: format!("raise {}", self.name),
            step: Box::new(self),
            rollback_place: 0,
            rollback_part: RollbackPart::Alone,
        }
    }
}

impl Step<ToyWorld> for RaiseStep {
    type Observation = (u32, u32);
    type BeforeImage = u32;
    type Act = u32;

    async fn observe_state(&self, world: &ToyWorld) -> Result<(u32, u32), StepError> {
        sleep_for(&world.look_time).await;
        Ok((
            world.get_number(self.name),
            self.gate.map_or(1, |g| world.get_number(g)),
        ))
    }

    fn decide_next(
        &self,
        seen: &(u32, u32),
        _past: &StepHistory,
        _now: Timestamp,
    ) -> Decision<u32> {
        let end = self.path.last().copied().unwrap_or_default();
        match self.path.iter().position(|p| *p == seen.0) {
            _ if seen.0 == end => Decision::Done(format!("{} is {end}", self.name)),
            _ if seen.1 == 0 => Decision::Wait {
                why: format!("the gate of {} is closed", self.name),
                recheck: Duration::from_secs(60),
            },
            Some(i) => Decision::Act(self.path[i + 1]),
            None if seen.0 == 0 => Decision::Act(self.path[0]),
            None => Decision::Refuse(StepRefusal::new(format!(
                "{} is {}, which is not ours",
                self.name, seen.0
            ))),
        }
    }

    fn before_image(&self, seen: &(u32, u32)) -> u32 {
        seen.0
    }

    async fn perform_act(&self, world: &ToyWorld, act: &u32) -> Result<(), StepError> {
        sleep_for(&world.act_time).await;
        let trouble = world.errors.lock().unwrap().pop();
        let back = {
            let mut troubles = world.undo_errors.lock().unwrap();
            let of_this = troubles
                .iter()
                .position(|(n, _)| *act == 0 && n == self.name);
            of_this.map(|i| troubles.remove(i).1)
        };
        let trouble = trouble.or(back);
        if let Some(class) = trouble {
            return Err(ApiError::new("toy:Raise", class, "no").into());
        }
        world
            .acts
            .lock()
            .unwrap()
            .push(format!("{}={act}", self.name));
        if !self.has_no_effect {
            world.numbers.lock().unwrap().insert(self.name.into(), *act);
        }
        Ok(())
    }

    fn undo_kind(&self) -> UndoKind {
        self.undo.clone()
    }

    fn decide_undo(
        &self,
        before: &u32,
        seen: &(u32, u32),
        _trail: &RollbackHistory,
        _now: Timestamp,
    ) -> Decision<u32> {
        if seen.0 == *before {
            Decision::Done(format!("{} is {before} again", self.name))
        } else {
            Decision::Act(*before)
        }
    }

    fn describe_act(&self, act: &u32) -> String {
        format!("set {} to {act}", self.name)
    }

    fn begins_new_part(&self, _act: &u32) -> bool {
        self.path.len() > 1
    }

    fn is_at_rest(&self, seen: &(u32, u32)) -> bool {
        seen.1 != GATE_BUSY
    }
}

/// A gate that lets acts through and says that something is under way.
pub const GATE_BUSY: u32 = 2;

async fn sleep_for(time: &Mutex<Duration>) {
    let time = *time.lock().unwrap();
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// A file that dies at its n-th record, with or without leaving half of it.
pub struct DyingStore {
    path: PathBuf,
    log: FileLog,
    left: usize,
    torn: bool,
}

impl DyingStore {
    pub fn open(path: &Path, left: usize, torn: bool) -> Self {
        Self {
            path: path.into(),
            log: FileLog::open(path).unwrap(),
            left,
            torn,
        }
    }
}

impl JournalStore for DyingStore {
    fn load_state(&mut self) -> StoreFuture<'_, Result<Option<RunState>, JournalError>> {
        Box::pin(async move { RunState::fold_records(&file::read_records(&self.path)?) })
    }

    fn save_record<'a>(
        &'a mut self,
        make: &'a MakeRecord<'a>,
    ) -> StoreFuture<'a, Result<(Record, RunState), JournalError>> {
        Box::pin(async move {
            let made = make()?;
            let record = &made.0;
            if self.left == 0 {
                if self.torn {
                    let line = serde_json::to_vec(record).unwrap();
                    let mut bytes = std::fs::read(&self.path).unwrap();
                    bytes.extend(&line[..line.len() / 2]);
                    std::fs::write(&self.path, bytes).unwrap();
                }
                let source = std::io::Error::other("the process died");
                return Err(JournalError::Io {
                    path: self.path.clone(),
                    source,
                });
            }
            self.left -= 1;
            self.log.append_record(record)?;
            Ok(made)
        })
    }
}
