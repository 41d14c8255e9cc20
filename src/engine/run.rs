//! The engine: what it holds, and how a run can end.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::gates::Gates;
use super::ground::Ground;
use super::step::{AnyStep, RollbackPart};
use super::stop::{self, Stop, Urgency};
use crate::event::Kind;
use crate::event::kinds::StepTitle;
use crate::journal::{Entry, Journal, JournalError, Lock, LockError, Opened, Outcome, RunState};
use crate::model::Class;

/// New credentials have this long to be fetched before the one fresh try.
const RENEWAL: Duration = Duration::from_secs(1);

/// A step with its name.
pub struct Planned<W> {
    pub id: String,
    pub title: String,
    pub step: Box<dyn AnyStep<W>>,
    /// Its place on the way back; of steps with the same, the last one goes first.
    pub back: usize,
    pub part: RollbackPart,
}

/// What a run is about, for those who watch.
#[derive(Clone, Debug)]
pub struct About {
    pub cluster: String,
    pub from: String,
    pub to: String,
}

/// How a process's part in a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every step is done.
    Done,
    /// Everything but the steps of `kept` is taken back.
    RolledBack { kept: Vec<String> },
    /// Stopped between two acts; the same command goes on.
    Paused { why: String },
    /// Stopped at once; the journal says what was begun.
    Dropped,
    /// Stopped, and the journal could not be told in time; it says what was begun.
    Unrecorded,
    /// Stopped before a step that nobody has approved yet; the command that approves it.
    Unapproved { step: String, approve: String },
    /// Credentials ran out; the same command goes on with fresh ones.
    Expired { step: String, why: String },
    /// The cluster does not allow the route; another has to be made.
    Reroute { step: String, why: String },
    /// A person must look.
    Stuck {
        step: String,
        why: String,
        /// The action that is not allowed, where that is why.
        denied: Option<String>,
        /// Whether the run is closed: what is left cannot be taken back.
        closed: bool,
    },
}

/// Why the engine could not go on keeping its journal.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The journal has a step that the program was not given.
    #[error("the journal has no open run")]
    NoRun,
    /// Asked to stop, and the journal could not be written to in time.
    #[error(
        "stopped by a signal while the run's checkpoint in the cluster could not be written; it says what was begun"
    )]
    Stopped,
    /// The program and the journal disagree.
    #[error("the run has a step `{0}` that this eksup does not know")]
    UnknownStep(String),
}

/// Carries one run through its steps.
pub struct Engine<'a, W> {
    pub world: &'a W,
    pub steps: &'a [Planned<W>],
    pub journal: &'a mut Journal,
    /// Absent only where nobody else can write the journal.
    pub lock: Option<&'a Lock>,
    pub stop: Stop,
    /// Pause after this step.
    pub until: Option<String>,
    /// What must be so before something new begins.
    pub gates: Gates,
    /// The command that goes on after a pause.
    pub resume: String,
    /// The step that acted last in this process, and when its act was over, by a timer that nobody sets.
    pub acted: Option<(String, Instant)>,
}

impl<W: Ground> Engine<'_, W> {
    /// Opens a run.
    pub async fn open(&mut self, opened: Opened, about: About) -> Result<(), EngineError> {
        let run = opened.run.clone();
        self.append(Entry::Opened(opened)).await?;
        let About { cluster, from, to } = about;
        self.world.emit(Kind::RunOpened {
            run,
            cluster,
            from,
            to,
            steps: self.titles(),
        });
        Ok(())
    }

    /// Takes up the run that the journal has.
    pub async fn resume(&mut self, by: &str) -> Result<(), EngineError> {
        let before = self.lock.and_then(Lock::before);
        let unwatched = before.map_or(0, |at| self.world.now().duration_since(at).as_secs());
        let entry = Entry::Resumed {
            by: by.to_owned(),
            unwatched,
        };
        self.append(entry).await?;
        self.tell_resumed(by)
    }

    /// Tells those who watch which run it is and how far it has come.
    pub(super) fn tell_resumed(&self, by: &str) -> Result<(), EngineError> {
        let state = self.state()?;
        let run = state.run.clone();
        let done = state
            .steps
            .iter()
            .filter(|s| s.status.is_over())
            .map(|s| s.id.clone())
            .collect();
        let by = by.to_owned();
        self.world.emit(Kind::RunResumed {
            run,
            by,
            steps: self.titles(),
            done,
        });
        Ok(())
    }

    /// Runs what is left of the run.
    pub async fn forward(&mut self) -> Result<Ended, EngineError> {
        self.guarded(None).await
    }

    /// Takes back what the run did, the last first; the steps of `keep` stay as they are. `short`: the workloads that are
    /// short as this begins, with the Ready pods they have.
    pub async fn back(
        &mut self,
        keep: Vec<String>,
        short: BTreeMap<String, u32>,
    ) -> Result<Ended, EngineError> {
        self.guarded(Some((keep, short))).await
    }

    /// Closes the run because another route is needed; a new run may be opened.
    pub async fn close_rerouted(&mut self) -> Result<(), EngineError> {
        self.append(Entry::Closed {
            outcome: Outcome::Rerouted,
        })
        .await?;
        let outcome = Outcome::Rerouted.as_str().to_owned();
        let summary = "the cluster asks for another route; a new run follows".to_owned();
        self.world.emit(Kind::RunClosed { outcome, summary });
        Ok(())
    }

    /// Drops everything when the lock is lost or the second stop comes.
    async fn guarded(
        &mut self,
        back: Option<(Vec<String>, BTreeMap<String, u32>)>,
    ) -> Result<Ended, EngineError> {
        let (stop, lock) = (self.stop.clone(), self.lock);
        let lost = async {
            match lock {
                Some(lock) => lock.lost().await,
                None => std::future::pending().await,
            }
        };
        let all = async {
            match back {
                None => self.all_forward().await,
                Some((keep, short)) => self.all_back(keep, short).await,
            }
        };
        tokio::select! {
            biased;
            () = stop.asked(Urgency::Now) => Ok(Ended::Dropped),
            lost = lost => Err(lost.into()),
            ended = all => match ended {
                Err(EngineError::Stopped) => Ok(Ended::Unrecorded),
                other => other,
            },
        }
    }

    /// Writes an entry down, however long that takes; but when the run is asked to stop, only for moments more. Where
    /// the API server does not know us any more, once more with new credentials.
    pub(super) async fn append(&mut self, entry: Entry) -> Result<(), EngineError> {
        let (world, stop) = (self.world, self.stop.clone());
        let now = move || world.now();
        let written = async {
            match self.journal.append_now(&now, entry.clone()).await {
                Err(JournalError::Remote(error)) if error.class == Class::Expired => {
                    self.world.renew();
                    tokio::time::sleep(RENEWAL).await;
                    self.journal.append_now(&now, entry).await
                }
                other => other,
            }
        };
        tokio::select! {
            biased;
            written = written => Ok(written?),
            () = stop.overdue(stop::RECORD) => Err(EngineError::Stopped),
        }
    }

    pub(super) fn state(&self) -> Result<&RunState, EngineError> {
        self.journal.state().ok_or(EngineError::NoRun)
    }

    pub(super) async fn pause(&mut self, why: String) -> Result<Ended, EngineError> {
        self.append(Entry::Paused { why: why.clone() }).await?;
        self.world.emit(Kind::RunPaused {
            why: why.clone(),
            resume: self.resume.clone(),
        });
        Ok(Ended::Paused { why })
    }

    pub(super) fn since(&self, then: Option<Timestamp>) -> std::time::Duration {
        let now = self.world.now();
        then.and_then(|t| now.duration_since(t).try_into().ok())
            .unwrap_or_default()
    }

    fn titles(&self) -> Vec<StepTitle> {
        self.steps
            .iter()
            .map(|s| StepTitle {
                step: s.id.clone(),
                title: s.title.clone(),
            })
            .collect()
    }
}
