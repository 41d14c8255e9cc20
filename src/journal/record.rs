//! Records: one a change of state, in order.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The format's version. A run of a newer format is refused.
pub const JOURNAL_FORMAT: u32 = 2;

/// One entry of the journal with its number and time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// 0 for the record that opens a run, then one more each.
    pub seq: u64,
    pub at: Timestamp,
    pub entry: JournalEntry,
}

/// What a run is bound to, once and for all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenedEntry {
    pub format: u32,
    /// The run's id.
    pub run: String,
    pub plan_digest: String,
    pub cluster_arn: String,
    /// The steps' ids, in order.
    pub steps: Vec<String>,
    /// The route as it was promised; never recomputed for this run.
    pub route: Value,
    /// The plan, every default filled in and secrets hidden.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub plan: Value,
    /// Ready pods of every workload as the run begins: what each step holds the workloads against.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workloads: BTreeMap<String, u32>,
}

/// What a record says: one change of the run's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum JournalEntry {
    /// The run begins.
    Opened(OpenedEntry),
    /// A step is looked at for the first time.
    Started { step: String },
    /// A person's approval of a step was found, before the step was looked at.
    Approved {
        step: String,
        by: String,
        /// When it was given, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        granted_at: Option<Timestamp>,
    },
    /// An act is about to be done. `before` comes with the step's first.
    Began {
        step: String,
        #[serde(
            default,
            deserialize_with = "present",
            skip_serializing_if = "Option::is_none"
        )]
        before: Option<Value>,
        act: Value,
    },
    /// A fresh look says that the step is done.
    Done { step: String, how: String },
    /// The first look said that there is nothing to do; never undone.
    Skipped { step: String, how: String },
    /// The step cannot go on until a person has looked; it may be taken up again.
    Failed { step: String, error: String },
    /// The process ends with the run unfinished.
    Paused { why: String },
    /// A process takes up the run. `unattended_seconds`: the seconds since another last showed that it was carrying it.
    Resumed {
        by: String,
        #[serde(default)]
        unattended_seconds: i64,
    },
    /// The machine's clock moved against its own timer; the times of what is under way move with it.
    ClockMoved { seconds: i64 },
    /// From here on the run is rolled back. The steps of `keep` stay as they are.
    RollbackStarted {
        keep: Vec<String>,
        /// Workloads that are short as the rollback begins, with the Ready pods they have: no more is asked of them.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        workloads: BTreeMap<String, u32>,
    },
    /// An act that takes a step back is about to be done.
    UndoBegan {
        step: String,
        act: Value,
        /// Workloads that have become more since the rollback began, with the Ready pods they have had: so many are asked of
        /// them from now on.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        workloads: BTreeMap<String, u32>,
    },
    /// A fresh look says that the step is rolled back.
    UndoDone { step: String },
    /// The step could not be rolled back.
    UndoFailed { step: String, error: String },
    /// The run ends.
    Closed { outcome: FinalOutcome },
}

/// What is there is there, even if it is `null`: the before-image of a step that needs none. Serde alone would read it
/// as absent.
pub(super) fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

/// How a closed run ended, as the checkpoint keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalOutcome {
    /// Every step is done.
    Done,
    /// Everything that was to be rolled back has been.
    RolledBack,
    /// A step cannot be rolled back, ever; what is left is for a person and a new run.
    Stuck,
    /// The cluster did not allow the route; a new run with another route follows.
    Rerouted,
}

impl FinalOutcome {
    /// Returns the outcome's name in events and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::RolledBack => "rolled_back",
            Self::Stuck => "stuck",
            Self::Rerouted => "rerouted",
        }
    }
}

impl JournalEntry {
    /// The entry's name and the step it speaks of, for messages.
    pub fn name_and_step(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Opened(_) => ("opened", None),
            Self::Started { step } => ("started", Some(step)),
            Self::Approved { step, .. } => ("approved", Some(step)),
            Self::Began { step, .. } => ("began", Some(step)),
            Self::Done { step, .. } => ("done", Some(step)),
            Self::Skipped { step, .. } => ("skipped", Some(step)),
            Self::Failed { step, .. } => ("failed", Some(step)),
            Self::Paused { .. } => ("paused", None),
            Self::Resumed { .. } => ("resumed", None),
            Self::ClockMoved { .. } => ("clockMoved", None),
            Self::RollbackStarted { .. } => ("rollbackStarted", None),
            Self::UndoBegan { step, .. } => ("undoBegan", Some(step)),
            Self::UndoDone { step } => ("undoDone", Some(step)),
            Self::UndoFailed { step, .. } => ("undoFailed", Some(step)),
            Self::Closed { .. } => ("closed", None),
        }
    }
}
