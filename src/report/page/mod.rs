//! The page of `eksup report`, and its Markdown: one fold over a run's events, then pure drawing.
//!
//! What the events do not have, such as those of an earlier eksup, is `None` here and "not recorded" on the page; it is
//! never shown as none.

mod axis;
mod charts;
mod fold;
mod html;
mod markdown;
mod node_fold;
mod sections;
#[cfg(test)]
mod tests;
mod wait_reason;
mod words;

use std::time::Duration;

use jiff::Timestamp;

use super::view::StepMark;
use crate::event::facts::{
    ApprovalNote, CallCount, ConsentNote, FindingNote, ObjectVersion, TrafficReading,
};

pub use fold::build_report;
pub use html::render_page;
pub use markdown::render_report_markdown;

/// A run as its report shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunReport {
    pub run: String,
    pub cluster: String,
    pub from: String,
    pub to: String,
    pub rehearsal: Option<bool>,
    pub eksup: Option<String>,
    pub region: Option<String>,
    pub cluster_arn: Option<String>,
    pub account: Option<String>,
    /// When the first event that the file has was sent, and the last.
    pub opened: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub end: RunEnd,
    pub summary: Option<String>,
    /// Of all steps, as the route has it.
    pub estimate: Option<Duration>,
    pub processes: Vec<ProcessPart>,
    pub gaps: Vec<RunGap>,
    pub steps: Vec<StepReport>,
    pub nodes: Vec<NodeReport>,
    /// The pods that had to leave a node; `None` where no event tells of pods.
    pub pods: Option<Vec<PodReport>>,
    pub traffic: Vec<TrafficReport>,
    pub waits: Vec<WaitReport>,
    pub retries: Vec<RetryReport>,
    pub approvals: Vec<ApprovalNote>,
    pub findings: Option<Vec<FindingNote>>,
    pub consents: Option<Vec<ConsentNote>>,
    pub calls: Option<Vec<CallCount>>,
    pub versions: Versions,
    pub notices: Vec<(Timestamp, String)>,
}

/// How a run stands at the end of its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RunEnd {
    /// The events end without a word.
    #[default]
    Unfinished,
    /// Why, and the command that continues it.
    Paused { why: String, resume: String },
    /// `done`, `rolled_back`, `stuck` or `rerouted`.
    Closed(String),
}

/// One process's part in a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessPart {
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    pub rolls_back: bool,
    pub holder: Option<String>,
    pub caller: Option<String>,
    /// How it ended: what it said of a pause, or of the run's end.
    pub ended: Option<String>,
}

/// A time without a process.
#[derive(Clone, Debug, PartialEq)]
pub struct RunGap {
    pub from: Timestamp,
    pub to: Timestamp,
    /// Why it was paused; `None`: the process ended without a word.
    pub why: Option<String>,
}

/// What a step does in a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    Work,
    /// A bake or a soak: time that the plan asks for.
    Bake,
    /// A maintenance window is waited for.
    Window,
    Undo,
}

/// A stretch of a step's time.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpan {
    pub from: Timestamp,
    pub to: Timestamp,
    pub activity: Activity,
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepReport {
    pub id: String,
    pub title: String,
    pub kind: Option<String>,
    pub estimate: Option<Duration>,
    pub no_return: Option<String>,
    pub needs_approval: bool,
    pub mark: StepMark,
    pub spans: Vec<StepSpan>,
    /// How it was done, or why it failed; and the same of its rollback.
    pub note: Option<String>,
    pub undo_note: Option<String>,
    pub acts: Vec<(Timestamp, String)>,
    pub retries: u32,
}

impl StepReport {
    /// The time of its spans of `wanted` activities.
    pub fn time_spent(&self, wanted: impl Fn(Activity) -> bool) -> Duration {
        let spans = self.spans.iter().filter(|s| wanted(s.activity));
        spans.map(|s| super::text::time_between(s.from, s.to)).sum()
    }
}

/// A stretch of a node's time in one state.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSpan {
    pub state: NodePhase,
    pub from: Timestamp,
    pub to: Timestamp,
    pub why: Option<String>,
}

/// A node's state, as the page tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodePhase {
    Joined,
    Open,
    NotReady,
    Cordoned,
    Evicting,
    WaitingBudget,
    WaitingReplacement,
    WaitingVolume,
    WaitingTarget,
    WaitingJob,
    Empty,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeReport {
    pub name: String,
    pub group: Option<String>,
    /// The most pods that had to leave it.
    pub pods: Option<u64>,
    pub spans: Vec<NodeSpan>,
    pub gone: Option<Timestamp>,
}

/// A pod on its way off a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodReport {
    pub pod: String,
    pub node: String,
    pub from: Option<Timestamp>,
    /// When it had left.
    pub gone: Option<Timestamp>,
    pub last: Option<Timestamp>,
    /// By state: how long, and the first reason of it.
    pub spent: Vec<(String, Duration, Option<String>)>,
}

impl PodReport {
    /// The time from when it was to go until it had.
    pub fn total(&self) -> Duration {
        self.spent.iter().map(|(_, time, _)| *time).sum()
    }
}

/// Traffic of one step that shifts it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficReport {
    pub step: String,
    pub title: String,
    /// Both colours' targets; empty where only shares are recorded.
    pub readings: Vec<(Timestamp, TrafficReading)>,
    pub shares: Vec<(Timestamp, u64)>,
    pub acts: Vec<(Timestamp, String)>,
    pub until: Option<Timestamp>,
}

/// One wait, however often it was told.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitReport {
    pub step: String,
    pub from: Timestamp,
    pub to: Timestamp,
    pub activity: Activity,
    pub why: String,
    /// What makes two reports of it one wait.
    key: String,
}

/// Retries of one step for one reason.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryReport {
    pub step: String,
    pub class: String,
    pub error: String,
    pub times: u32,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// Versions before the first step and after the last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Versions {
    pub before: Option<(Timestamp, Vec<ObjectVersion>)>,
    pub after: Option<(Timestamp, Vec<ObjectVersion>)>,
    pub unread: Vec<String>,
}

impl RunReport {
    /// From the first event to the last.
    pub fn whole_time(&self) -> Option<Duration> {
        let (from, to) = (self.opened?, self.ended?);
        Some(super::text::time_between(from, to))
    }

    /// Without the times in which no process ran.
    pub fn running_time(&self) -> Option<Duration> {
        let gaps = self.gaps.iter();
        let gaps: Duration = gaps.map(|g| super::text::time_between(g.from, g.to)).sum();
        Some(self.whole_time()?.saturating_sub(gaps))
    }

    /// Who made the calls, each once; empty where it is not recorded.
    pub fn callers(&self) -> Vec<&str> {
        let mut callers: Vec<&str> = Vec::new();
        for caller in self.processes.iter().filter_map(|p| p.caller.as_deref()) {
            if !callers.contains(&caller) {
                callers.push(caller);
            }
        }
        callers
    }

    /// Whether the events come from an eksup that tells of facts beside the steps.
    pub fn has_facts(&self) -> bool {
        self.eksup.is_some()
    }
}
