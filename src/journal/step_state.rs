//! What a journal says of one step.

use jiff::Timestamp;
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

/// What the rollback has done with a step so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UndoState {
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
    pub attempt_started_at: Option<Timestamp>,
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
        self.attempt_started_at = Some(at);
        self.acts_of_earlier_attempts = self.acts;
        self.last_act = None;
        self.last_act_at = None;
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
        true
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
            acts: 0,
            attempt: 0,
            attempt_started_at: None,
            acts_of_earlier_attempts: 0,
            back: None,
            note: None,
        }
    }
}
