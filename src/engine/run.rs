//! The engine: what it holds, and how a run can end.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::env::EngineEnv;
use super::gates::RunGates;
use super::refusal::NextStep;
use super::step::{DynStep, RollbackPart};
use super::stop::{self, StopSignal, StopUrgency};
use crate::event::EventKind;
use crate::event::kinds::StepTitle;
use crate::journal::{
    FinalOutcome, Journal, JournalEntry, JournalError, LeaseError, OpenedEntry, RunLease, RunState,
};
use crate::model::ErrorClass;

/// New credentials have this long to be fetched before the one fresh try.
const CREDENTIAL_RENEWAL_DELAY: Duration = Duration::from_secs(1);

/// A step with its name.
pub struct PlannedStep<W> {
    pub id: String,
    pub title: String,
    pub step: Box<dyn DynStep<W>>,
    /// Its place on rollback; of steps with the same, the last one goes first.
    pub rollback_place: usize,
    pub rollback_part: RollbackPart,
}

/// What a run is about, for those who watch.
#[derive(Clone, Debug)]
pub struct RunSubject {
    pub cluster: String,
    pub from: String,
    pub to: String,
}

/// How a process's part in a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// Every step is done.
    Done,
    /// Everything but the steps of `kept` is rolled back.
    RolledBack { kept: Vec<String> },
    /// Stopped between two acts.
    Paused {
        why: String,
        /// The command that goes on.
        resume: String,
        /// Whether the plan or the command line wanted it (a window, a step to stop after), and not a signal.
        planned: bool,
    },
    /// Aborted; the journal says which actions had begun.
    Dropped,
    /// Stopped, and the journal could not be written in time; it says which actions had begun.
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
        /// Which command continues once the cause is fixed.
        next: NextStep,
        /// Workloads that may have been made smaller on purpose.
        short_workloads: Vec<String>,
        /// The action that is not allowed, where that is why.
        denied: Option<String>,
        /// Whether the run is closed: what is left cannot be rolled back.
        closed: bool,
    },
}

/// Why the engine could not go on keeping its journal.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The journal has a step that the program was not given.
    #[error("the journal has no open run")]
    NoOpenRun,
    /// Asked to stop, and the journal could not be written to in time.
    #[error(
        "stopped by a signal while the run's checkpoint in the cluster could not be written; the checkpoint says which actions had begun"
    )]
    StoppedUnrecorded,
    /// The program and the journal disagree.
    #[error("the run has a step `{0}` that this eksup does not know")]
    UnknownStep(String),
}

/// A step after which the run pauses, as it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseAfter {
    pub step: String,
    /// The command that goes on beyond it: the same one would only stop here again.
    pub continue_command: String,
}

/// Takes one run through its steps.
pub struct Engine<'a, W> {
    pub world: &'a W,
    pub steps: &'a [PlannedStep<W>],
    pub journal: &'a mut Journal,
    /// Absent only where nobody else can write the journal.
    pub lease: Option<&'a RunLease>,
    pub stop: StopSignal,
    /// Where to pause, if anywhere.
    pub pause_after: Option<PauseAfter>,
    /// What must be so before something new begins.
    pub gates: RunGates,
    /// The command that goes on after a pause.
    pub resume_command: String,
    /// The step that acted last in this process, and when its act was over, by a timer that nobody sets.
    pub last_act_end: Option<(String, Instant)>,
}

impl<W: EngineEnv> Engine<'_, W> {
    /// Writes the run's first record, and announces the run once that is stored.
    pub async fn open_run(
        &mut self,
        opened: OpenedEntry,
        about: RunSubject,
    ) -> Result<(), EngineError> {
        let run = opened.run.clone();
        self.append_entry(JournalEntry::Opened(opened)).await?;
        let RunSubject { cluster, from, to } = about;
        self.world.emit_event(EventKind::RunOpened {
            run,
            cluster,
            from,
            to,
            steps: self.step_titles(),
        });
        Ok(())
    }

    /// Takes up the run that the journal has.
    pub async fn resume_run(&mut self, by: &str) -> Result<(), EngineError> {
        // By the clock of whoever held the lock before, as the times of its records are: what that clock differs by is in
        // the one as in the others, and cancels out.
        let unattended_since = match self.lease {
            // A lock that somebody has deleted says nothing of its last holder, and the last record is all that is known.
            Some(lease) => lease
                .previous_renewal()
                .or(Some(self.run_state()?.updated_at)),
            None => None,
        };
        let unattended_seconds =
            unattended_since.map_or(0, |at| self.world.now().duration_since(at).as_secs());
        let entry = JournalEntry::Resumed {
            by: by.to_owned(),
            unattended_seconds,
        };
        self.append_entry(entry).await?;
        self.emit_resumed(by)
    }

    /// Tells those who watch which run it is and how far it has come.
    pub(super) fn emit_resumed(&self, by: &str) -> Result<(), EngineError> {
        let state = self.run_state()?;
        let run = state.run.clone();
        let done = state
            .steps
            .iter()
            .filter(|s| s.status.is_over())
            .map(|s| s.id.clone())
            .collect();
        let by = by.to_owned();
        self.world.emit_event(EventKind::RunResumed {
            run,
            by,
            steps: self.step_titles(),
            done,
        });
        Ok(())
    }

    /// Runs what is left of the run.
    pub async fn run_forward(&mut self) -> Result<RunOutcome, EngineError> {
        self.run_until_stopped(None).await
    }

    /// Rolls back what the run did, the last first; the steps of `keep` stay as they are. `short`: the workloads that are
    /// short as this begins, with the Ready pods they have.
    pub async fn roll_back(
        &mut self,
        keep: Vec<String>,
        short: BTreeMap<String, u32>,
    ) -> Result<RunOutcome, EngineError> {
        self.run_until_stopped(Some((keep, short))).await
    }

    /// Closes the run because another route is needed; a new run may be opened.
    pub async fn close_rerouted(&mut self) -> Result<(), EngineError> {
        self.append_entry(JournalEntry::Closed {
            outcome: FinalOutcome::Rerouted,
        })
        .await?;
        let outcome = FinalOutcome::Rerouted.as_str().to_owned();
        let summary = "the cluster asks for another route; a new run follows".to_owned();
        self.world
            .emit_event(EventKind::RunClosed { outcome, summary });
        Ok(())
    }

    /// Drops everything when the lock is lost or the second stop comes.
    async fn run_until_stopped(
        &mut self,
        back: Option<(Vec<String>, BTreeMap<String, u32>)>,
    ) -> Result<RunOutcome, EngineError> {
        let (stop, lock) = (self.stop.clone(), self.lease);
        // Without a lock nobody else can write, and there is nothing to lose.
        let lost = async {
            match lock {
                Some(lock) => lock.wait_until_lost().await,
                None => std::future::pending().await,
            }
        };
        let all = async {
            match back {
                None => self.run_steps_forward().await,
                Some((keep, short)) => self.roll_back_steps(keep, short).await,
            }
        };
        tokio::select! {
            biased;
            // Stop and lock are asked before the run itself goes on, so that no further act begins once either says so.
            () = stop.wait_until_asked(StopUrgency::Now) => Ok(RunOutcome::Dropped),
            lost = lost => Err(lost.into()),
            ended = all => match ended {
                Err(EngineError::StoppedUnrecorded) => Ok(RunOutcome::Unrecorded),
                other => other,
            },
        }
    }

    /// Writes an entry down, however long that takes; but when the run is asked to stop, only for moments more. Where
    /// the API server does not know us any more, once more with new credentials.
    pub(super) async fn append_entry(&mut self, entry: JournalEntry) -> Result<(), EngineError> {
        let (world, stop) = (self.world, self.stop.clone());
        let now = move || world.now();
        // The record may be the one that a credential ran out under. It is tried once more, or the run could not even
        // pause.
        let written = async {
            match self.journal.append_now(&now, entry.clone()).await {
                Err(JournalError::StoreCall(error)) if error.class == ErrorClass::Expired => {
                    self.world.renew_credentials();
                    tokio::time::sleep(CREDENTIAL_RENEWAL_DELAY).await;
                    self.journal.append_now(&now, entry).await
                }
                other => other,
            }
        };
        tokio::select! {
            biased;
            written = written => Ok(written?),
            () = stop.wait_until_overdue(stop::RECORD_STOP_DEADLINE) => Err(EngineError::StoppedUnrecorded),
        }
    }

    pub(super) fn run_state(&self) -> Result<&RunState, EngineError> {
        self.journal.run_state().ok_or(EngineError::NoOpenRun)
    }

    pub(super) async fn pause_run(&mut self, why: String) -> Result<RunOutcome, EngineError> {
        let resume = self.resume_command.clone();
        self.pause_with_command(why, resume, false).await
    }

    /// Pauses where the plan wants it.
    pub(super) async fn pause_as_planned(
        &mut self,
        why: String,
    ) -> Result<RunOutcome, EngineError> {
        let resume = self.resume_command.clone();
        self.pause_with_command(why, resume, true).await
    }

    /// Pauses where that step is the one after which this was asked for.
    pub(super) async fn pause_if_asked_after(
        &mut self,
        step: &str,
    ) -> Result<Option<RunOutcome>, EngineError> {
        let Some(pause) = self.pause_after.clone().filter(|p| p.step == step) else {
            return Ok(None);
        };
        let why = format!("`{step}` is done, as asked");
        self.pause_with_command(why, pause.continue_command, true)
            .await
            .map(Some)
    }

    async fn pause_with_command(
        &mut self,
        why: String,
        resume: String,
        planned: bool,
    ) -> Result<RunOutcome, EngineError> {
        self.append_entry(JournalEntry::Paused { why: why.clone() })
            .await?;
        self.world.emit_event(EventKind::RunPaused {
            why: why.clone(),
            resume: resume.clone(),
        });
        Ok(RunOutcome::Paused {
            why,
            resume,
            planned,
        })
    }

    pub(super) fn elapsed_since(&self, then: Option<Timestamp>) -> std::time::Duration {
        let now = self.world.now();
        then.and_then(|t| now.duration_since(t).try_into().ok())
            .unwrap_or_default()
    }

    fn step_titles(&self) -> Vec<StepTitle> {
        self.steps
            .iter()
            .map(|s| StepTitle {
                step: s.id.clone(),
                title: s.title.clone(),
            })
            .collect()
    }
}
