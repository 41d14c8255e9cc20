//! The event types. They are the interface between a run and whoever watches it; `docs/events.md` is their schema.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::facts::{
    ApprovalNote, CallCount, NodeStatusChange, PodStatusChange, RunFacts, TrafficReading,
    VersionReading,
};

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEvent {
    pub at: Timestamp,
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened. Readers must ignore types they do not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum EventKind {
    /// A run was opened, with its steps in order.
    RunOpened {
        run: String,
        cluster: String,
        from: String,
        to: String,
        steps: Vec<StepTitle>,
    },
    /// This process took up a run that another began.
    RunResumed {
        run: String,
        by: String,
        steps: Vec<StepTitle>,
        done: Vec<String>,
    },
    /// A step was looked at for the first time.
    StepStarted { step: String, title: String },
    /// An act is about to be done; the journal already has it.
    ActBegan { step: String, what: String },
    /// A step is seen to be done.
    StepDone {
        step: String,
        how: String,
        #[serde(rename = "tookSeconds", with = "seconds")]
        took: Duration,
    },
    /// A step was already so before the run touched it.
    StepSkipped { step: String, how: String },
    /// A call failed and will be tried again.
    Retrying {
        step: String,
        error: String,
        class: String,
        #[serde(rename = "afterSeconds", with = "seconds")]
        after: Duration,
    },
    /// A step cannot go on.
    StepFailed { step: String, error: String },
    /// A step is being rolled back.
    UndoBegan { step: String },
    /// A step has been rolled back.
    UndoDone { step: String, how: String },
    /// A step could not be rolled back.
    UndoFailed { step: String, error: String },
    /// How a step gets on; lossy.
    Progress(StepProgress),
    /// Something worth a line that is no failure.
    Notice { step: Option<String>, text: String },
    /// The process stops with the run unfinished.
    RunPaused { why: String, resume: String },
    /// The run has ended: done, rolled_back, stuck or rerouted.
    RunClosed { outcome: String, summary: String },
    /// Whose process this is, and what it is held to.
    RunFacts(Box<RunFacts>),
    /// Which versions the cluster has.
    VersionsRead(VersionReading),
    /// A person's approval was taken over.
    ApprovalGiven(ApprovalNote),
    /// A node changed on its way out of service.
    NodeChanged(NodeStatusChange),
    /// A pod that has to leave its node waits, or goes.
    PodChanged(PodStatusChange),
    /// Targets and weights of both colours, where they have changed.
    TrafficRead(Box<TrafficReading>),
    /// The calls of this process, as it ends.
    CallsMade { calls: Vec<CallCount> },
}

/// A step as it is named to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTitle {
    pub step: String,
    pub title: String,
}

/// How a step gets on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepProgress {
    pub step: String,
    /// What it does or waits for, naming the objects.
    pub why: String,
    /// How many of `total` are done, when that can be counted.
    pub done: Option<u64>,
    pub total: Option<u64>,
    /// What is counted: nodes, pods, targets, percent.
    pub unit: Option<String>,
    /// A part of the step with a bar of its own, such as a node being drained.
    pub part: Option<String>,
}

/// Durations are seconds with a fraction, as other tools read them.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64((value.as_secs_f64() * 1000.0).round() / 1000.0)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}
