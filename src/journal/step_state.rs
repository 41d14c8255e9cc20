//! What a journal says of one step.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::present;

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepStatus {
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

impl StepStatus {
    /// Whether the run goes on to the next step.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Skipped)
    }
}

/// A stretch of time in which nobody carried the run, or that only a clock says has passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    /// How long it was. Negative where the clock that tells its end is behind the one that told its beginning: moving by
    /// that much brings times of the one over to the other, so that clocks of two machines never have to agree.
    pub length: SignedDuration,
    /// When it ended. Nothing has happened after it, whatever another machine's clock said.
    pub end: Timestamp,
    /// Whether it is a clock that was set back, and with it every time it has told.
    pub corrects_clock: bool,
}

impl Gap {
    /// From when on something counts that counted from `from` before.
    pub fn move_time(self, from: Timestamp) -> Timestamp {
        from.saturating_add(self.length)
            .unwrap_or(from)
            .min(self.end)
    }

    fn moves(self, from: Timestamp) -> bool {
        self.move_time(from) != from
    }

    /// Moves what an act counts from, and its own time only where the clock that told it was wrong.
    fn move_act(self, at: &mut Option<Timestamp>, counts_from: &mut Option<Timestamp>) {
        if let Some(from) = counts_from.or(*at)
            && self.moves(from)
        {
            *counts_from = Some(self.move_time(from));
        }
        if self.corrects_clock {
            *at = at.map(|at| self.move_time(at));
        }
    }
}

/// What the rollback has done with a step so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UndoState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_act: Option<Value>,
    /// When that was begun, as it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_act_at: Option<Timestamp>,
    /// As the field of the same name in [`StepState`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_act_counts_from: Option<Timestamp>,
    #[serde(default)]
    pub acts: u32,
    /// How many times taking it back failed and was taken up again.
    #[serde(default)]
    pub attempt: u32,
}

/// What the journal knows of one step.
///
/// A time that ends in `_at` is that of a record, as it happened: it is compared with AWS's times, and EKS's seven days
/// count from it. A time that ends in `_counts_from` is moved by each stretch in which nobody carried the run: deadlines
/// and bakes count from it, and nothing else does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepState {
    pub id: String,
    pub status: StepStatus,
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
    /// When that was begun, as it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_act_at: Option<Timestamp>,
    /// From when on deadlines and bakes of the last act count; absent where that is when it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_act_counts_from: Option<Timestamp>,
    /// How many acts were begun, forward only.
    #[serde(default)]
    pub acts: u32,
    /// How many times the step failed and was taken up again; 0 for the first attempt.
    #[serde(default)]
    pub attempt: u32,
    /// From when on deadlines and bakes of the last attempt count; absent where that is when the step began.
    #[serde(
        default,
        alias = "attemptStartedAt",
        skip_serializing_if = "Option::is_none"
    )]
    pub attempt_counts_from: Option<Timestamp>,
    /// How many acts earlier attempts had begun.
    #[serde(default)]
    pub acts_of_earlier_attempts: u32,
    /// The rollback; the fields above stay as the way up left them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<UndoState>,
    /// How it was done, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl StepState {
    /// A failed step begins again once a person has looked: its deadlines and bakes count from here.
    pub(super) fn retry_failed(&mut self, at: Timestamp) {
        if self.status != StepStatus::Failed {
            return;
        }
        self.status = if self.acts == 0 {
            StepStatus::Started
        } else {
            StepStatus::Begun
        };
        self.attempt = self.attempt.saturating_add(1);
        self.attempt_counts_from = Some(at);
        self.acts_of_earlier_attempts = self.acts;
        self.last_act = None;
        self.last_act_at = None;
        self.last_act_counts_from = None;
    }

    /// Begins a failed rollback of the step again once a person has looked. Returns whether it had failed.
    pub(super) fn retry_failed_undo(&mut self) -> bool {
        if self.status != StepStatus::UndoFailed {
            return false;
        }
        self.status = StepStatus::Undoing;
        let back = self.back.get_or_insert_default();
        back.attempt += 1;
        back.last_act = None;
        back.last_act_at = None;
        back.last_act_counts_from = None;
        true
    }

    /// Takes a stretch in which nobody carried the run out of what deadlines and bakes count.
    pub(super) fn exclude_gap(&mut self, gap: Gap) {
        match self.status {
            StepStatus::Started | StepStatus::Begun | StepStatus::Failed => {
                if let Some(from) = self.attempt_counts_from.or(self.started_at)
                    && gap.moves(from)
                {
                    self.attempt_counts_from = Some(gap.move_time(from));
                }
                gap.move_act(&mut self.last_act_at, &mut self.last_act_counts_from);
            }
            StepStatus::Undoing | StepStatus::UndoFailed => {
                if let Some(back) = &mut self.back {
                    gap.move_act(&mut back.last_act_at, &mut back.last_act_counts_from);
                }
            }
            StepStatus::Pending | StepStatus::Done | StepStatus::Skipped | StepStatus::Undone => {}
        }
    }

    pub(super) fn new_pending(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            status: StepStatus::Pending,
            started_at: None,
            ended_at: None,
            before: None,
            last_act: None,
            last_act_at: None,
            last_act_counts_from: None,
            acts: 0,
            attempt: 0,
            attempt_counts_from: None,
            acts_of_earlier_attempts: 0,
            back: None,
            note: None,
        }
    }
}
