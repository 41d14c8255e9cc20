//! What a process knows of a run before its first event: the whole route with its estimates, and from the journal what
//! earlier processes did. For whoever draws the run; it is no event, and no record of one.

use std::time::Duration;

use jiff::Timestamp;

/// A run as route and journal have it when a process takes it up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOutline {
    pub run: String,
    pub cluster: String,
    pub from: String,
    pub to: String,
    /// Whether it runs against the twin.
    pub is_rehearsal: bool,
    /// When the run was opened; `None` for one that is about to be.
    pub opened: Option<Timestamp>,
    pub steps: Vec<StepOutline>,
}

/// One step of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepOutline {
    pub step: String,
    pub title: String,
    pub estimate: Duration,
    pub mark: OutlineMark,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    /// How it was done, or why it failed.
    pub note: Option<String>,
}

/// How far earlier processes came with a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutlineMark {
    #[default]
    Pending,
    Running,
    Done,
    Skipped,
    Failed,
    Undone,
}
