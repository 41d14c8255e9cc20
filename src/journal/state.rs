//! The state of a run, folded from its records by one table.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bound::Bound;
use super::error::JournalError;
use super::record::{Entry, FORMAT, Opened, Outcome, Record, present};
use super::table::{Mark, rule};

/// A process that died and was followed sooner than this has left nothing late: deadlines do not count anew.
const ABSENCE: SignedDuration = SignedDuration::from_mins(5);

/// Which way a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    Forward,
    Back,
    Closed,
}

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    Pending,
    Started,
    Begun,
    Done,
    Skipped,
    Failed,
    Undoing,
    Undone,
    UndoFailed,
}

impl Status {
    /// Whether the run goes on to the next step.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Skipped)
    }
}

/// What the way back has done with a step so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_act: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_act_at: Option<Timestamp>,
    #[serde(default)]
    pub acts: u32,
    /// How many times taking it back failed and was taken up again.
    #[serde(default)]
    pub attempt: u32,
}

/// What the journal knows of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepState {
    pub id: String,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The before-image of the first act; later ones are of our own making.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub before: Option<Value>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub last_act: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_act_at: Option<Timestamp>,
    /// How many acts were begun, forward only.
    #[serde(default)]
    pub acts: u32,
    /// How many times the step failed and was taken up again; 0 for the first attempt.
    #[serde(default)]
    pub attempt: u32,
    /// When the last attempt began, without the time in which nobody carried the run; absent where that is when the step
    /// began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_at: Option<Timestamp>,
    /// How many acts earlier attempts had begun.
    #[serde(default)]
    pub earlier_acts: u32,
    /// The way back; the fields above stay as the way up left them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<BackState>,
    /// How it was done, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A step that a person has approved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approval {
    pub step: String,
    pub by: String,
    /// When it was given, or found where that is not known.
    pub at: Timestamp,
}

/// The state of a run. Its JSON and what it is bound to are the checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunState {
    pub format: u32,
    pub run: String,
    pub plan_digest: String,
    pub cluster_arn: String,
    pub opened_at: Timestamp,
    /// The next record's number.
    pub next_seq: u64,
    /// When the last record was written.
    pub updated_at: Timestamp,
    /// Who took the run up last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    pub phase: Phase,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why the last process paused; absent while one runs, or when it crashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// When it was last taken up after a pause, or the clock had moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// Steps that taking back leaves as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// What was approved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// Since when the step that is taken back now has been looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_at: Option<Timestamp>,
    /// Workloads that were short when the rollback began, with the Ready pods they had then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub short_at_rollback: BTreeMap<String, u32>,
    pub steps: Vec<StepState>,
    #[serde(skip)]
    pub bound: Arc<Bound>,
}

impl RunState {
    /// Opens a run from its first record.
    pub fn open(record: &Record) -> Result<Self, JournalError> {
        let Entry::Opened(Opened {
            format,
            run,
            plan_digest,
            cluster_arn,
            steps,
            route,
            plan,
            workloads,
        }) = &record.entry
        else {
            return Err(illegal(record, "a run begins with `opened`"));
        };
        if *format > FORMAT {
            return Err(JournalError::NewerFormat {
                found: *format,
                ours: FORMAT,
            });
        }
        if record.seq != 0 {
            return Err(illegal(record, "a run's first record has number 0"));
        }
        if let Some(twice) = steps
            .iter()
            .enumerate()
            .find(|(i, s)| steps[..*i].contains(s))
        {
            return Err(illegal(
                record,
                &format!("step `{}` is there twice", twice.1),
            ));
        }
        let bound = Bound::new(run, route.clone(), plan.clone(), workloads.clone())
            .map_err(|e| illegal(record, &e.to_string()))?;
        Ok(Self {
            format: *format,
            run: run.clone(),
            plan_digest: plan_digest.clone(),
            cluster_arn: cluster_arn.clone(),
            opened_at: record.at,
            next_seq: 1,
            updated_at: record.at,
            by: None,
            phase: Phase::Forward,
            outcome: None,
            paused: None,
            resumed_at: None,
            keep: Vec::new(),
            approvals: Vec::new(),
            back_at: None,
            short_at_rollback: BTreeMap::new(),
            steps: steps.iter().map(|id| StepState::pending(id)).collect(),
            bound: Arc::new(bound),
        })
    }

    /// Folds all records of one run.
    pub fn fold<'a>(
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Result<Option<Self>, JournalError> {
        let mut state: Option<Self> = None;
        for record in records {
            match &mut state {
                // A closed run may be followed by a new one.
                Some(state) if !(state.is_closed() && matches!(record.entry, Entry::Opened(_))) => {
                    state.apply(record)?;
                }
                Some(_) | None => state = Some(Self::open(record)?),
            }
        }
        Ok(state)
    }

    /// Takes one more record, or says why it is not allowed and stays as it was.
    pub fn apply(&mut self, record: &Record) -> Result<(), JournalError> {
        if record.seq != self.next_seq {
            return Err(illegal(
                record,
                &format!("the next record has number {}", self.next_seq),
            ));
        }
        if self.paused.is_some() && !matches!(record.entry, Entry::Resumed { .. }) {
            return Err(illegal(record, "the run is paused"));
        }
        match &record.entry {
            Entry::Opened(_) => return Err(illegal(record, "the run is open already")),
            Entry::Started { step } => {
                self.in_order(record, step)?;
                self.mark(record, step, Mark::Started)?.started_at = Some(record.at);
            }
            Entry::Approved {
                step,
                by,
                granted_at,
            } => {
                self.may_approve(record, step)?;
                self.approvals.push(Approval {
                    step: step.clone(),
                    by: by.clone(),
                    at: granted_at.unwrap_or(record.at),
                });
            }
            Entry::Began { step, before, act } => {
                let first = self.step(step).is_some_and(|s| s.acts == 0);
                if first && before.is_none() {
                    return Err(illegal(record, "the first act needs the before-image"));
                }
                let state = self.mark(record, step, Mark::Began)?;
                if first {
                    state.before = before.clone();
                }
                state.last_act = Some(act.clone());
                state.last_act_at = Some(record.at);
                state.acts = state.acts.saturating_add(1);
            }
            Entry::Done { step, how } => self.end(record, step, Mark::Done, how)?,
            Entry::Skipped { step, how } => self.end(record, step, Mark::Skipped, how)?,
            Entry::Failed { step, error } => self.end(record, step, Mark::Failed, error)?,
            Entry::Paused { why } => {
                if self.is_closed() {
                    return Err(illegal(record, "the run is closed"));
                }
                self.paused = Some(why.clone());
            }
            Entry::Resumed { by, unwatched } => {
                if self.is_closed() {
                    return Err(illegal(record, "the run is closed"));
                }
                let since = record.at.duration_since(self.updated_at);
                let since = since.max(SignedDuration::ZERO);
                // Who paused wrote it down then; who died may have watched for long after the last record.
                let (gap, absence) = match self.paused.take() {
                    Some(_) => (since, SignedDuration::ZERO),
                    None => {
                        let unwatched = SignedDuration::from_secs((*unwatched).max(0));
                        (unwatched.min(since), ABSENCE)
                    }
                };
                self.time_out(gap, record.at);
                if gap > absence {
                    self.resumed_at = Some(record.at);
                }
                self.by = Some(by.clone());
                match self.phase {
                    Phase::Forward => self.steps.iter_mut().for_each(|s| s.take_up(record.at)),
                    Phase::Back => {
                        for step in &mut self.steps {
                            if step.take_back_up() {
                                self.back_at = Some(record.at);
                            }
                        }
                    }
                    Phase::Closed => {}
                }
            }
            Entry::ClockMoved { seconds } => {
                if self.is_closed() {
                    return Err(illegal(record, "the run is closed"));
                }
                self.time_out(SignedDuration::from_secs(*seconds), record.at);
                self.resumed_at = Some(record.at);
            }
            Entry::UndoStarted { keep, workloads } => {
                // While a run is taken back, and even after, more or less of it may be asked for; what is back stays
                // back.
                let may = match (self.phase, self.outcome) {
                    (Phase::Forward | Phase::Back, _)
                    | (Phase::Closed, Some(Outcome::Done | Outcome::RolledBack)) => true,
                    (Phase::Closed, _) => false,
                };
                if !may {
                    return Err(illegal(record, "the run is already taken back"));
                }
                self.phase = Phase::Back;
                self.outcome = None;
                self.keep = keep.clone();
                self.short_at_rollback.extend(workloads.clone());
                self.back_at = Some(record.at);
            }
            Entry::UndoBegan {
                step,
                act,
                workloads,
            } => {
                for (name, ready) in workloads {
                    let asked = self.short_at_rollback.entry(name.clone()).or_default();
                    *asked = (*asked).max(*ready);
                }
                let back = self
                    .mark(record, step, Mark::UndoBegan)?
                    .back
                    .get_or_insert_default();
                back.last_act = Some(act.clone());
                back.last_act_at = Some(record.at);
                back.acts = back.acts.saturating_add(1);
            }
            Entry::UndoDone { step } => {
                self.mark(record, step, Mark::UndoDone)?.ended_at = Some(record.at);
                self.back_at = Some(record.at);
            }
            Entry::UndoFailed { step, error } => self.end(record, step, Mark::UndoFailed, error)?,
            Entry::Closed { outcome } => {
                self.may_close(record, *outcome)?;
                self.phase = Phase::Closed;
                self.outcome = Some(*outcome);
            }
        }
        self.next_seq = self.next_seq.saturating_add(1);
        self.updated_at = record.at;
        Ok(())
    }

    /// What cannot be, in a state that was read and not folded; none, in one that eksup has written.
    pub fn nonsense(&self) -> Option<String> {
        // The run's name is a folder's on this machine.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.run.is_empty() || !self.run.chars().all(plain) {
            return Some(format!("{:?} is no run's name", self.run));
        }
        if self.bound.run() != self.run {
            let of = self.bound.run();
            return Some(format!("its plan and route are those of run {of:?}"));
        }
        let twice = |(i, s): &(usize, &StepState)| self.steps[..*i].iter().any(|e| e.id == s.id);
        if let Some((_, step)) = self.steps.iter().enumerate().find(twice) {
            return Some(format!("step {:?} is there twice", step.id));
        }
        if self.is_closed() != self.outcome.is_some() {
            return Some(format!(
                "the phase is {:?}, the outcome {:?}",
                self.phase, self.outcome
            ));
        }
        None
    }

    /// Whether the run has ended.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// What is known of a step.
    pub fn step(&self, id: &str) -> Option<&StepState> {
        self.steps.iter().find(|s| s.id == id)
    }

    /// Whether a step was approved in this run.
    pub fn approved(&self, id: &str) -> bool {
        self.approvals.iter().any(|a| a.step == id)
    }

    /// The first step that is not over.
    pub fn current(&self) -> Option<&StepState> {
        self.steps.iter().find(|s| !s.status.is_over())
    }

    /// The steps that are to be taken back, in the order in which that is done.
    pub fn to_undo(&self) -> impl Iterator<Item = &StepState> {
        self.steps
            .iter()
            .rev()
            .filter(|s| s.acts > 0 && s.status != Status::Undone && !self.keep.contains(&s.id))
    }

    fn mark(
        &mut self,
        record: &Record,
        id: &str,
        mark: Mark,
    ) -> Result<&mut StepState, JournalError> {
        let phase = self.phase;
        let Some(step) = self.steps.iter_mut().find(|s| s.id == id) else {
            return Err(illegal(record, &format!("the run has no step `{id}`")));
        };
        let rule = rule(mark);
        let acted = step.acts > 0;
        if phase != rule.phase {
            return Err(illegal(record, &format!("the run is in phase {phase:?}")));
        }
        if !rule.from.contains(&step.status) || rule.acted.is_some_and(|a| a != acted) {
            let acts = step.acts;
            return Err(illegal(
                record,
                &format!("the step is {:?} after {acts} acts", step.status),
            ));
        }
        step.status = rule.to;
        Ok(step)
    }

    fn end(
        &mut self,
        record: &Record,
        id: &str,
        mark: Mark,
        note: &str,
    ) -> Result<(), JournalError> {
        let step = self.mark(record, id, mark)?;
        step.ended_at = Some(record.at);
        step.note = Some(note.to_owned());
        Ok(())
    }

    fn in_order(&self, record: &Record, id: &str) -> Result<(), JournalError> {
        match self.current() {
            Some(first) if first.id != id => {
                Err(illegal(record, &format!("step `{}` comes first", first.id)))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn may_approve(&self, record: &Record, id: &str) -> Result<(), JournalError> {
        let Some(step) = self.step(id) else {
            return Err(illegal(record, &format!("the run has no step `{id}`")));
        };
        if self.phase != Phase::Forward {
            return Err(illegal(
                record,
                &format!("the run is in phase {:?}", self.phase),
            ));
        }
        if step.status != Status::Pending || self.approved(id) {
            return Err(illegal(record, "the step needs no approval any more"));
        }
        Ok(())
    }

    /// Time in which nobody carried the run, or that only a clock says has passed, is not counted: what is under way
    /// has waited that much less. Nothing has happened after `now`, whatever another machine's clock said.
    fn time_out(&mut self, gap: SignedDuration, now: Timestamp) {
        let moved = |at: Timestamp| at.saturating_add(gap).unwrap_or(at).min(now);
        for step in self.steps.iter_mut().filter(|s| !s.status.is_over()) {
            if let Some(began) = step.attempt_at.or(step.started_at)
                && moved(began) != began
            {
                step.attempt_at = Some(moved(began));
            }
            step.last_act_at = step.last_act_at.map(moved);
        }
    }

    fn may_close(&self, record: &Record, outcome: Outcome) -> Result<(), JournalError> {
        let (phase, open) = match outcome {
            Outcome::Done => (Phase::Forward, self.current()),
            Outcome::RolledBack => (Phase::Back, self.to_undo().next()),
            Outcome::Stuck => (Phase::Back, None),
            Outcome::Rerouted => (Phase::Forward, None),
        };
        if self.phase != phase {
            return Err(illegal(
                record,
                &format!("the run is in phase {:?}", self.phase),
            ));
        }
        match open {
            Some(step) => Err(illegal(
                record,
                &format!("step `{}` is {:?}", step.id, step.status),
            )),
            None => Ok(()),
        }
    }
}

impl StepState {
    /// A failed step begins anew once a person has looked: its deadlines and bakes count from here.
    fn take_up(&mut self, at: Timestamp) {
        if self.status != Status::Failed {
            return;
        }
        self.status = if self.acts == 0 {
            Status::Started
        } else {
            Status::Begun
        };
        self.attempt = self.attempt.saturating_add(1);
        self.attempt_at = Some(at);
        self.earlier_acts = self.acts;
        self.last_act = None;
        self.last_act_at = None;
    }

    /// The same for a step that could not be taken back; whether it is one.
    fn take_back_up(&mut self) -> bool {
        if self.status != Status::UndoFailed {
            return false;
        }
        self.status = Status::Undoing;
        let back = self.back.get_or_insert_default();
        back.attempt += 1;
        back.last_act = None;
        back.last_act_at = None;
        true
    }

    fn pending(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            status: Status::Pending,
            started_at: None,
            ended_at: None,
            before: None,
            last_act: None,
            last_act_at: None,
            acts: 0,
            attempt: 0,
            attempt_at: None,
            earlier_acts: 0,
            back: None,
            note: None,
        }
    }
}

fn illegal(record: &Record, why: &str) -> JournalError {
    let entry = match record.entry.name() {
        (name, Some(step)) => format!("{name} {step}"),
        (name, None) => name.to_owned(),
    };
    JournalError::Illegal {
        seq: record.seq,
        entry,
        why: why.to_owned(),
    }
}
