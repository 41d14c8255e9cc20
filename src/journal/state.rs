//! The state of a run, folded from its records by one table.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::error::JournalError;
use super::record::{FinalOutcome, JOURNAL_FORMAT, JournalEntry, OpenedEntry, Record};
use super::run_binding::RunBinding;
use super::step_state::Gap;
pub use super::step_state::{StepState, StepStatus, UndoState};
use super::transitions::{Transition, transition_rule};

/// Which way a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunPhase {
    Forward,
    Rollback,
    Closed,
}

/// A step that a person has approved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepApproval {
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
    pub phase: RunPhase,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<FinalOutcome>,
    /// Why the last process paused; absent while one runs, or when it crashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Written by earlier versions; nothing counts from it.
    #[serde(default, rename = "resumedAt", skip_serializing)]
    _resumed_at: IgnoredAny,
    /// Steps that taking back leaves as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// What was approved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<StepApproval>,
    /// From when on deadlines of the step that is rolled back now count: since it has been looked at, without the time in
    /// which nobody carried the run.
    #[serde(
        default,
        alias = "undoStartedAt",
        skip_serializing_if = "Option::is_none"
    )]
    pub undo_counts_from: Option<Timestamp>,
    /// Workloads that were short when the rollback began, with the Ready pods they had then.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub short_at_rollback: BTreeMap<String, u32>,
    pub steps: Vec<StepState>,
    #[serde(skip)]
    pub binding: Arc<RunBinding>,
}

impl RunState {
    /// Opens a run from its first record.
    pub fn from_opening(record: &Record) -> Result<Self, JournalError> {
        let JournalEntry::Opened(OpenedEntry {
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
            return Err(illegal_record(record, "a run begins with `opened`"));
        };
        // The format is judged before anything else is: what another one means is not known here.
        if *format != JOURNAL_FORMAT {
            return Err(JournalError::OtherFormat {
                found: *format,
                ours: JOURNAL_FORMAT,
            });
        }
        // The first record has number 0. Any other means that records before it were lost, and with them acts that
        // would have to be known.
        if record.seq != 0 {
            return Err(illegal_record(record, "a run's first record has number 0"));
        }
        // Records name their step by id, so two steps of one id could not be told apart.
        if let Some(twice) = steps
            .iter()
            .enumerate()
            .find(|(i, s)| steps[..*i].contains(s))
        {
            return Err(illegal_record(
                record,
                &format!("step `{}` is there twice", twice.1),
            ));
        }
        let bound = RunBinding::new(run, route.clone(), plan.clone(), workloads.clone())
            .map_err(|e| illegal_record(record, &e.to_string()))?;
        Ok(Self {
            format: *format,
            run: run.clone(),
            plan_digest: plan_digest.clone(),
            cluster_arn: cluster_arn.clone(),
            opened_at: record.at,
            next_seq: 1,
            updated_at: record.at,
            by: None,
            phase: RunPhase::Forward,
            outcome: None,
            paused: None,
            _resumed_at: IgnoredAny,
            keep: Vec::new(),
            approvals: Vec::new(),
            undo_counts_from: None,
            short_at_rollback: BTreeMap::new(),
            steps: steps.iter().map(|id| StepState::new_pending(id)).collect(),
            binding: Arc::new(bound),
        })
    }

    /// Folds all records of one run.
    pub fn fold_records<'a>(
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Result<Option<Self>, JournalError> {
        let mut state: Option<Self> = None;
        for record in records {
            match &mut state {
                // A closed run may be followed by a new one.
                Some(state)
                    if !(state.is_closed() && matches!(record.entry, JournalEntry::Opened(_))) =>
                {
                    state.apply_record(record)?;
                }
                Some(_) | None => state = Some(Self::from_opening(record)?),
            }
        }
        Ok(state)
    }

    /// Takes one more record, or says why it is not allowed and stays as it was.
    pub fn apply_record(&mut self, record: &Record) -> Result<(), JournalError> {
        // A gap or a repeat is another writer's work, or a lost record. Neither may be folded over.
        if record.seq != self.next_seq {
            return Err(illegal_record(
                record,
                &format!("the next record has number {}", self.next_seq),
            ));
        }
        if self.paused.is_some() && !matches!(record.entry, JournalEntry::Resumed { .. }) {
            return Err(illegal_record(record, "the run is paused"));
        }
        match &record.entry {
            JournalEntry::Opened(_) => {
                return Err(illegal_record(record, "the run is open already"));
            }
            JournalEntry::Started { step } => {
                self.check_step_order(record, step)?;
                self.apply_transition(record, step, Transition::Started)?
                    .started_at = Some(record.at);
            }
            JournalEntry::Approved {
                step,
                by,
                granted_at,
            } => {
                self.check_may_approve(record, step)?;
                self.approvals.push(StepApproval {
                    step: step.clone(),
                    by: by.clone(),
                    at: granted_at.unwrap_or(record.at),
                });
            }
            JournalEntry::Began { step, before, act } => {
                // Without the before-image of the first act the step could never be rolled back.
                let first = self.find_step(step).is_some_and(|s| s.acts == 0);
                if first && before.is_none() {
                    return Err(illegal_record(
                        record,
                        "the first act needs the before-image",
                    ));
                }
                let state = self.apply_transition(record, step, Transition::Began)?;
                if first {
                    state.before = before.clone();
                }
                state.last_act = Some(act.clone());
                state.last_act_at = Some(record.at);
                state.last_act_counts_from = None;
                state.acts = state.acts.saturating_add(1);
            }
            JournalEntry::Done { step, how } => {
                self.end_step(record, step, Transition::Done, how)?;
            }
            JournalEntry::Skipped { step, how } => {
                self.end_step(record, step, Transition::Skipped, how)?;
            }
            JournalEntry::Failed { step, error } => {
                self.end_step(record, step, Transition::Failed, error)?;
            }
            JournalEntry::Paused { why } => {
                if self.is_closed() {
                    return Err(illegal_record(record, "the run is closed"));
                }
                self.paused = Some(why.clone());
            }
            JournalEntry::Resumed {
                by,
                unattended_seconds,
            } => {
                if self.is_closed() {
                    return Err(illegal_record(record, "the run is closed"));
                }
                // How long nobody carried the run. It is taken out of what is under way, so that a deadline does not
                // pass in a pause. Who paused wrote it down then; who died may have watched for long after the last
                // record.
                let since = record.at.duration_since(self.updated_at);
                let length = match self.paused.take() {
                    Some(_) => since,
                    None => SignedDuration::from_secs(*unattended_seconds).min(since),
                };
                self.exclude_gap(Gap {
                    length,
                    end: record.at,
                    corrects_clock: false,
                });
                self.by = Some(by.clone());
                // Whoever takes a failed run up has looked: its failed step begins a new attempt, with times of its
                // own.
                match self.phase {
                    RunPhase::Forward => self
                        .steps
                        .iter_mut()
                        .for_each(|s| s.retry_failed(record.at)),
                    RunPhase::Rollback => {
                        for step in &mut self.steps {
                            if step.retry_failed_undo() {
                                self.undo_counts_from = Some(record.at);
                            }
                        }
                    }
                    RunPhase::Closed => {}
                }
            }
            JournalEntry::ClockMoved { seconds } => {
                if self.is_closed() {
                    return Err(illegal_record(record, "the run is closed"));
                }
                // A suspend only moves a clock forward: one that went back was set, and was wrong before.
                self.exclude_gap(Gap {
                    length: SignedDuration::from_secs(*seconds),
                    end: record.at,
                    corrects_clock: *seconds < 0,
                });
            }
            JournalEntry::RollbackStarted { keep, workloads } => {
                // While a run is rolled back, and even after, more or less of it may be asked for; what is back stays
                // back.
                let may = match (self.phase, self.outcome) {
                    (RunPhase::Forward | RunPhase::Rollback, _)
                    | (RunPhase::Closed, Some(FinalOutcome::Done | FinalOutcome::RolledBack)) => {
                        true
                    }
                    (RunPhase::Closed, _) => false,
                };
                if !may {
                    return Err(illegal_record(record, "the run is already rolled back"));
                }
                // A rollback may be asked for again with more or fewer steps to keep, so its clock begins again each
                // time.
                self.phase = RunPhase::Rollback;
                self.outcome = None;
                self.keep = keep.clone();
                self.short_at_rollback.extend(workloads.clone());
                self.undo_counts_from = Some(record.at);
            }
            // What workloads had at their best in the rollback is kept: less than that later is a loss and not an old
            // shortage.
            JournalEntry::UndoBegan {
                step,
                act,
                workloads,
            } => {
                let back = self
                    .apply_transition(record, step, Transition::UndoBegan)?
                    .back
                    .get_or_insert_default();
                back.last_act = Some(act.clone());
                back.last_act_at = Some(record.at);
                back.last_act_counts_from = None;
                back.acts = back.acts.saturating_add(1);
                for (name, ready) in workloads {
                    let asked = self.short_at_rollback.entry(name.clone()).or_default();
                    *asked = (*asked).max(*ready);
                }
            }
            // The clock of the rollback begins again with each step that is back: every step has the whole time to wait
            // for its own conditions.
            JournalEntry::UndoDone { step } => {
                self.apply_transition(record, step, Transition::UndoDone)?
                    .ended_at = Some(record.at);
                self.undo_counts_from = Some(record.at);
            }
            JournalEntry::UndoFailed { step, error } => {
                self.end_step(record, step, Transition::UndoFailed, error)?;
            }
            JournalEntry::Closed { outcome } => {
                self.check_may_close(record, *outcome)?;
                self.phase = RunPhase::Closed;
                self.outcome = Some(*outcome);
            }
        }
        self.next_seq = self.next_seq.saturating_add(1);
        self.updated_at = record.at;
        Ok(())
    }

    /// What cannot be, in a state that was read and not folded; none, in one that eksup has written.
    pub fn find_inconsistency(&self) -> Option<String> {
        // The run's name is a folder's on this machine.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.run.is_empty() || !self.run.chars().all(plain) {
            return Some(format!("{:?} is no run's name", self.run));
        }
        // Both keys of the ConfigMap must be of one run: somebody may have restored only one of them.
        if self.binding.run_id() != self.run {
            let of = self.binding.run_id();
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
        self.phase == RunPhase::Closed
    }

    /// What is known of a step.
    pub fn find_step(&self, id: &str) -> Option<&StepState> {
        self.steps.iter().find(|s| s.id == id)
    }

    /// Whether a step was approved in this run.
    pub fn is_approved(&self, id: &str) -> bool {
        self.approvals.iter().any(|a| a.step == id)
    }

    /// The first step that is not over.
    pub fn current_step(&self) -> Option<&StepState> {
        self.steps.iter().find(|s| !s.status.is_over())
    }

    /// The steps that are to be rolled back, in the order in which that is done.
    pub fn steps_to_undo(&self) -> impl Iterator<Item = &StepState> {
        self.steps
            .iter()
            .rev()
            .filter(|s| s.acts > 0 && s.status != StepStatus::Undone && !self.keep.contains(&s.id))
    }

    fn apply_transition(
        &mut self,
        record: &Record,
        id: &str,
        mark: Transition,
    ) -> Result<&mut StepState, JournalError> {
        let phase = self.phase;
        let Some(step) = self.steps.iter_mut().find(|s| s.id == id) else {
            return Err(illegal_record(
                record,
                &format!("the run has no step `{id}`"),
            ));
        };
        // One table says what may follow what, for live records and for files alike.
        let rule = transition_rule(mark);
        let acted = step.acts > 0;
        // A record of the other direction comes from a process that did not see the phase change, and its act must not
        // be folded in.
        if phase != rule.phase {
            return Err(illegal_record(
                record,
                &format!("the run is in phase {phase:?}"),
            ));
        }
        if !rule.from.contains(&step.status) || rule.acted.is_some_and(|a| a != acted) {
            let acts = step.acts;
            return Err(illegal_record(
                record,
                &format!("the step is {:?} after {acts} acts", step.status),
            ));
        }
        step.status = rule.to;
        Ok(step)
    }

    fn end_step(
        &mut self,
        record: &Record,
        id: &str,
        mark: Transition,
        note: &str,
    ) -> Result<(), JournalError> {
        let step = self.apply_transition(record, id, mark)?;
        step.ended_at = Some(record.at);
        step.note = Some(note.to_owned());
        Ok(())
    }

    fn check_step_order(&self, record: &Record, id: &str) -> Result<(), JournalError> {
        match self.current_step() {
            Some(first) if first.id != id => Err(illegal_record(
                record,
                &format!("step `{}` comes first", first.id),
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn check_may_approve(&self, record: &Record, id: &str) -> Result<(), JournalError> {
        let Some(step) = self.find_step(id) else {
            return Err(illegal_record(
                record,
                &format!("the run has no step `{id}`"),
            ));
        };
        // A rollback and a closed run begin no step any more.
        if self.phase != RunPhase::Forward {
            return Err(illegal_record(
                record,
                &format!("the run is in phase {:?}", self.phase),
            ));
        }
        if step.status != StepStatus::Pending || self.is_approved(id) {
            return Err(illegal_record(
                record,
                "the step needs no approval any more",
            ));
        }
        Ok(())
    }

    /// A stretch in which nobody carried the run is not counted: what is under way has waited that much less.
    fn exclude_gap(&mut self, gap: Gap) {
        for step in &mut self.steps {
            step.exclude_gap(gap);
        }
        self.undo_counts_from = self.undo_counts_from.map(|from| gap.move_time(from));
    }

    fn check_may_close(&self, record: &Record, outcome: FinalOutcome) -> Result<(), JournalError> {
        // Each outcome belongs to one phase, and the first two promise that no step is left.
        let (phase, open) = match outcome {
            FinalOutcome::Done => (RunPhase::Forward, self.current_step()),
            FinalOutcome::RolledBack => (RunPhase::Rollback, self.steps_to_undo().next()),
            FinalOutcome::Stuck => (RunPhase::Rollback, None),
            FinalOutcome::Rerouted => (RunPhase::Forward, None),
        };
        if self.phase != phase {
            return Err(illegal_record(
                record,
                &format!("the run is in phase {:?}", self.phase),
            ));
        }
        match open {
            Some(step) => Err(illegal_record(
                record,
                &format!("step `{}` is {:?}", step.id, step.status),
            )),
            None => Ok(()),
        }
    }
}

fn illegal_record(record: &Record, why: &str) -> JournalError {
    let entry = match record.entry.name_and_step() {
        (name, Some(step)) => format!("{name} {step}"),
        (name, None) => name.to_owned(),
    };
    JournalError::IllegalRecord {
        seq: record.seq,
        entry,
        why: why.to_owned(),
    }
}
