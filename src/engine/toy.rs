//! A toy world for the engine's tests: numbers that steps raise, and a store that dies when told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::ground::Ground;
use super::run::Planned;
use super::step::{Decision, Past, RollbackPart, Step, StepError, Trail, Undo};
use crate::event::Kind;
use crate::journal::remote::Boxed;
use crate::journal::{FileLog, JournalError, Make, Record, RunState, Store, file};
use crate::model::{ApiError, Class, Clock};

/// Numbers by name, and what goes wrong with calls.
#[derive(Clone)]
pub struct Toy {
    pub numbers: Arc<Mutex<BTreeMap<String, u32>>>,
    pub events: Arc<Mutex<Vec<Kind>>>,
    pub troubles: Arc<Mutex<Vec<Class>>>,
    /// What goes wrong with setting a number to 0, once each.
    pub back_troubles: Arc<Mutex<Vec<(String, Class)>>>,
    pub acts: Arc<Mutex<Vec<String>>>,
    pub bell: watch::Sender<u64>,
    /// How long a look and an act take.
    pub look: Arc<Mutex<Duration>>,
    pub act: Arc<Mutex<Duration>>,
    /// How often new credentials were asked for.
    pub renewed: Arc<Mutex<u32>>,
    pub clock: Clock,
}

impl Toy {
    pub fn new() -> Self {
        Self {
            numbers: Arc::default(),
            events: Arc::default(),
            troubles: Arc::default(),
            back_troubles: Arc::default(),
            acts: Arc::default(),
            bell: watch::channel(0).0,
            look: Arc::default(),
            act: Arc::default(),
            renewed: Arc::default(),
            clock: Clock::starting_at("2026-11-21T08:00:00Z".parse().unwrap()),
        }
    }

    pub fn set(&self, name: &str, to: u32) {
        self.numbers.lock().unwrap().insert(name.into(), to);
        self.bell.send_modify(|n| *n += 1);
    }

    pub fn get(&self, name: &str) -> u32 {
        self.numbers
            .lock()
            .unwrap()
            .get(name)
            .copied()
            .unwrap_or_default()
    }

    pub fn image(&self) -> BTreeMap<String, u32> {
        self.numbers.lock().unwrap().clone()
    }

    pub fn events(&self) -> Vec<Kind> {
        self.events.lock().unwrap().clone()
    }
}

impl Ground for Toy {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
    fn emit(&self, kind: Kind) {
        self.events.lock().unwrap().push(kind);
    }
    fn changed(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }
    fn renew(&self) {
        *self.renewed.lock().unwrap() += 1;
    }
}

/// Raises a number through `path`; refuses numbers it does not know; waits while `gate` is 0.
pub struct Raise {
    pub name: &'static str,
    pub path: Vec<u32>,
    pub gate: Option<&'static str>,
    pub undo: Undo,
    /// Acts that change nothing.
    pub feeble: bool,
}

impl Raise {
    pub fn plain(name: &'static str, path: &[u32]) -> Planned<Toy> {
        Self {
            name,
            path: path.to_vec(),
            gate: None,
            undo: Undo::Restore,
            feeble: false,
        }
        .planned()
    }

    pub fn planned(self) -> Planned<Toy> {
        Planned {
            id: self.name.into(),
            title: format!("raise {}", self.name),
            step: Box::new(self),
            back: 0,
            part: RollbackPart::Alone,
        }
    }
}

impl Step<Toy> for Raise {
    type Seen = (u32, u32);
    type Before = u32;
    type Act = u32;

    async fn observe(&self, world: &Toy) -> Result<(u32, u32), StepError> {
        pass(&world.look).await;
        Ok((world.get(self.name), self.gate.map_or(1, |g| world.get(g))))
    }

    fn decide(&self, seen: &(u32, u32), _past: &Past, _now: Timestamp) -> Decision<u32> {
        let end = self.path.last().copied().unwrap_or_default();
        match self.path.iter().position(|p| *p == seen.0) {
            _ if seen.0 == end => Decision::Done(format!("{} is {end}", self.name)),
            _ if seen.1 == 0 => Decision::Wait {
                why: format!("the gate of {} is closed", self.name),
                recheck: Duration::from_secs(60),
            },
            Some(i) => Decision::Act(self.path[i + 1]),
            None if seen.0 == 0 => Decision::Act(self.path[0]),
            None => Decision::Refuse(format!("{} is {}, which is not ours", self.name, seen.0)),
        }
    }

    fn before(&self, seen: &(u32, u32)) -> u32 {
        seen.0
    }

    async fn act(&self, world: &Toy, act: &u32) -> Result<(), StepError> {
        pass(&world.act).await;
        let trouble = world.troubles.lock().unwrap().pop();
        let back = {
            let mut troubles = world.back_troubles.lock().unwrap();
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
        if !self.feeble {
            world.numbers.lock().unwrap().insert(self.name.into(), *act);
        }
        Ok(())
    }

    fn undo(&self) -> Undo {
        self.undo.clone()
    }

    fn restore(
        &self,
        before: &u32,
        seen: &(u32, u32),
        _trail: &Trail,
        _now: Timestamp,
    ) -> Decision<u32> {
        if seen.0 == *before {
            Decision::Done(format!("{} is {before} again", self.name))
        } else {
            Decision::Act(*before)
        }
    }

    fn describe(&self, act: &u32) -> String {
        format!("set {} to {act}", self.name)
    }

    fn begins(&self, _act: &u32) -> bool {
        self.path.len() > 1
    }

    fn at_rest(&self, seen: &(u32, u32)) -> bool {
        seen.1 != BUSY
    }
}

/// A gate that lets acts through and says that something is under way.
pub const BUSY: u32 = 2;

async fn pass(time: &Mutex<Duration>) {
    let time = *time.lock().unwrap();
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// A file that dies at its n-th record, with or without leaving half of it.
pub struct Dying {
    path: PathBuf,
    log: FileLog,
    left: usize,
    torn: bool,
}

impl Dying {
    pub fn open(path: &Path, left: usize, torn: bool) -> Self {
        Self {
            path: path.into(),
            log: FileLog::open(path).unwrap(),
            left,
            torn,
        }
    }
}

impl Store for Dying {
    fn load(&mut self) -> Boxed<'_, Result<Option<RunState>, JournalError>> {
        Box::pin(async move { RunState::fold(&file::read(&self.path)?) })
    }

    fn save<'a>(
        &'a mut self,
        make: &'a Make<'a>,
    ) -> Boxed<'a, Result<(Record, RunState), JournalError>> {
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
            self.log.append(record)?;
            Ok(made)
        })
    }
}
