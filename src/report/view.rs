//! What a run looks like so far: a fold over events for lines, bars and tables. The report's page has one of its own
//! (`page::fold`), which keeps what only the page shows.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::text::time_between;
use super::wording::step_time_left;
use crate::event::outline::{OutlineMark, RunOutline};
use crate::event::{EventKind, RunEvent, StepProgress};

/// How far a step has come, as seen from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepMark {
    #[default]
    Pending,
    Running,
    Done,
    Skipped,
    Failed,
    Undoing,
    Undone,
    UndoFailed,
}

impl StepMark {
    /// Whether the step is over, and as it should be.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Skipped)
    }

    /// Whether a person has to look at the step.
    pub fn has_failed(self) -> bool {
        matches!(self, Self::Failed | Self::UndoFailed)
    }

    /// Returns the mark as reports show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "to do",
            Self::Running => "running",
            Self::Done => "done",
            Self::Skipped => "no change needed",
            Self::Failed => "failed",
            Self::Undoing => "being rolled back",
            Self::Undone => "rolled back",
            Self::UndoFailed => "could not be rolled back",
        }
    }
}

/// A counted thing: a step, or a part of one such as a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProgressCount {
    pub why: String,
    pub done: Option<u64>,
    pub total: Option<u64>,
    pub unit: Option<String>,
    pub began: Option<Timestamp>,
    /// When it last got on: an act, or one more done.
    pub moved: Option<Timestamp>,
}

impl ProgressCount {
    fn add_progress(&mut self, at: Timestamp, progress: &StepProgress) {
        self.began.get_or_insert(at);
        if (progress.done.is_some() && progress.done != self.done) || self.moved.is_none() {
            self.moved = Some(at);
        }
        self.why.clone_from(&progress.why);
        // A wait that the engine tells carries no count: the last one stands.
        self.done = progress.done.or(self.done);
        self.total = progress.total.or(self.total);
        if progress.unit.is_some() {
            self.unit.clone_from(&progress.unit);
        }
    }

    /// Whether everything that is counted is done.
    pub fn is_full(&self) -> bool {
        self.total.is_some() && self.done >= self.total
    }
}

/// One step as its events tell it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepView {
    pub id: String,
    pub title: String,
    pub mark: StepMark,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    /// How it was done, or why it failed.
    pub note: Option<String>,
    pub count: ProgressCount,
    /// By name: nodes being drained and the like.
    pub parts: BTreeMap<String, ProgressCount>,
    pub last_act: Option<String>,
    /// How long it is expected to take; `None` where only events are known.
    pub estimate: Option<Duration>,
}

/// A run as its events tell it so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunView {
    pub run: String,
    pub cluster: String,
    pub from: String,
    pub to: String,
    pub steps: Vec<StepView>,
    pub opened: Option<Timestamp>,
    /// The time of the last event.
    pub now: Option<Timestamp>,
    pub outcome: Option<String>,
    pub summary: Option<String>,
    /// Why it stands, and the command that goes on.
    pub paused: Option<(String, String)>,
    pub notices: Vec<(Timestamp, String)>,
    /// Whether it runs against the twin.
    pub is_rehearsal: bool,
    /// When the last of its processes took it up.
    pub taken_up: Option<Timestamp>,
}

/// How far a run has come by the estimates of its steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EstimatedProgress {
    /// From 0 to 1.
    pub share: f64,
    pub left: Duration,
}

impl RunView {
    /// Folds a whole stream of events into a view.
    #[cfg(test)]
    pub fn from_events<'a>(events: impl IntoIterator<Item = &'a RunEvent>) -> Self {
        let mut view = Self::default();
        events.into_iter().for_each(|e| view.apply_event(e));
        view
    }

    /// Takes in what route and journal have of the run before its first event.
    pub fn apply_outline(&mut self, outline: RunOutline) {
        // Of another run only the notices of checks stay, which came before it was opened.
        if self.run != outline.run {
            let notices = std::mem::take(&mut self.notices);
            *self = Self {
                notices,
                now: self.now,
                ..Self::default()
            };
        }
        self.run = outline.run;
        self.cluster = outline.cluster;
        self.from = outline.from;
        self.to = outline.to;
        self.is_rehearsal = outline.is_rehearsal;
        self.opened = outline.opened.or(self.opened);
        for known in outline.steps {
            let step = self.step_entry(&known.step);
            step.title = known.title;
            step.estimate = Some(known.estimate);
            step.mark = match known.mark {
                // What had begun or failed is looked at again before it runs.
                OutlineMark::Pending | OutlineMark::Running | OutlineMark::Failed => {
                    StepMark::Pending
                }
                OutlineMark::Done => StepMark::Done,
                OutlineMark::Skipped => StepMark::Skipped,
                OutlineMark::Undone => StepMark::Undone,
            };
            step.started = known.started;
            step.ended = known.ended;
            step.note = known.note;
        }
    }

    /// How far the run has come by the estimates of its steps; `None` where they are not known.
    pub fn estimate_progress(&self) -> Option<EstimatedProgress> {
        let now = self.now?;
        let (mut all, mut left) = (Duration::ZERO, Duration::ZERO);
        for step in &self.steps {
            let estimate = step.estimate?;
            all += estimate;
            left += match step.mark {
                StepMark::Done | StepMark::Skipped => Duration::ZERO,
                StepMark::Running => {
                    // A pause between two processes is no work.
                    let from = step.started.max(self.taken_up).unwrap_or(now);
                    let by_estimate = estimate.saturating_sub(time_between(from, now));
                    step_time_left(&step.count.why)
                        .unwrap_or(by_estimate)
                        .min(estimate)
                }
                StepMark::Pending
                | StepMark::Failed
                | StepMark::Undoing
                | StepMark::Undone
                | StepMark::UndoFailed => estimate,
            };
        }
        if all.is_zero() {
            return None;
        }
        Some(EstimatedProgress {
            share: 1.0 - left.as_secs_f64() / all.as_secs_f64(),
            left,
        })
    }

    /// Whether steps are being rolled back.
    pub fn is_rolling_back(&self) -> bool {
        let back = |mark| {
            matches!(
                mark,
                StepMark::Undoing | StepMark::Undone | StepMark::UndoFailed
            )
        };
        self.steps.iter().any(|s| back(s.mark))
    }

    /// Takes one more event into the view.
    pub fn apply_event(&mut self, event: &RunEvent) {
        // Folded from events alone, so that a report of a file shows what a terminal showed.
        let at = event.at;
        self.now = Some(at);
        match &event.kind {
            EventKind::RunOpened {
                run,
                cluster,
                from,
                to,
                steps,
            } => {
                // Notices of checks come before the run is opened; all else of an earlier run in the same file is
                // forgotten.
                let known = self.run == *run;
                *self = Self {
                    run: run.clone(),
                    cluster: cluster.clone(),
                    from: from.clone(),
                    to: to.clone(),
                    opened: Some(at),
                    now: Some(at),
                    taken_up: Some(at),
                    notices: std::mem::take(&mut self.notices),
                    // What is known beforehand of this run, and of no other.
                    steps: if known {
                        std::mem::take(&mut self.steps)
                    } else {
                        Vec::new()
                    },
                    is_rehearsal: known && self.is_rehearsal,
                    ..Self::default()
                };
                for title in steps {
                    self.step_entry(&title.step).title.clone_from(&title.title);
                }
            }
            EventKind::RunResumed {
                run, steps, done, ..
            } => {
                self.run.clone_from(run);
                self.paused = None;
                self.outcome = None;
                self.taken_up = Some(at);
                self.opened.get_or_insert(at);
                for title in steps {
                    self.step_entry(&title.step).title.clone_from(&title.title);
                }
                // The file may begin with a later process: steps of which it has no event are done all the same.
                for id in done {
                    let step = self.step_entry(id);
                    if step.mark == StepMark::Pending {
                        step.mark = StepMark::Done;
                    }
                }
            }
            EventKind::StepStarted { step, title } => {
                let step = self.step_entry(step);
                step.title.clone_from(title);
                step.mark = StepMark::Running;
                step.started.get_or_insert(at);
            }
            // Each act shows that the step goes on, and what it does now.
            EventKind::ActBegan { step, what } => {
                let step = self.mark_running(step, at);
                step.last_act = Some(what.clone());
                step.count.why.clone_from(what);
                step.count.moved = Some(at);
            }
            EventKind::StepDone { step, how, .. } => self.end_step(step, at, StepMark::Done, how),
            EventKind::StepSkipped { step, how } => self.end_step(step, at, StepMark::Skipped, how),
            EventKind::Retrying { step, .. } => {
                self.mark_running(step, at);
            }
            EventKind::StepFailed { step, error } => {
                self.end_step(step, at, StepMark::Failed, error);
            }
            EventKind::UndoBegan { step } => self.step_entry(step).mark = StepMark::Undoing,
            EventKind::UndoDone { step, how } => self.end_step(step, at, StepMark::Undone, how),
            EventKind::UndoFailed { step, error } => {
                self.end_step(step, at, StepMark::UndoFailed, error);
            }
            EventKind::Progress(progress) => self.apply_progress(at, progress),
            EventKind::Notice { text, .. } => self.notices.push((at, text.clone())),
            // Shown until the run is resumed.
            EventKind::RunPaused { why, resume } => {
                self.paused = Some((why.clone(), resume.clone()));
            }
            EventKind::RunClosed { outcome, summary } => {
                self.outcome = Some(outcome.clone());
                self.summary = Some(summary.clone());
            }
            EventKind::RunFacts(facts) => self.is_rehearsal = facts.rehearsal,
            // The report's.
            EventKind::VersionsRead(_)
            | EventKind::ApprovalGiven(_)
            | EventKind::NodeChanged(_)
            | EventKind::PodChanged(_)
            | EventKind::TrafficRead(_)
            | EventKind::CallsMade { .. } => {}
        }
    }

    /// The step of that id, with its place from 1.
    pub fn find_step(&self, id: &str) -> Option<(usize, &StepView)> {
        self.steps
            .iter()
            .enumerate()
            .find(|(_, s)| s.id == id)
            .map(|(i, s)| (i + 1, s))
    }

    /// How many steps are over.
    pub fn count_finished(&self) -> usize {
        self.steps.iter().filter(|s| s.mark.is_over()).count()
    }

    fn apply_progress(&mut self, at: Timestamp, progress: &StepProgress) {
        let step = self.mark_running(&progress.step, at);
        match &progress.part {
            Some(part) => step
                .parts
                .entry(part.clone())
                .or_default()
                .add_progress(at, progress),
            None => step.count.add_progress(at, progress),
        }
    }

    fn mark_running(&mut self, id: &str, at: Timestamp) -> &mut StepView {
        let step = self.step_entry(id);
        step.started.get_or_insert(at);
        match step.mark {
            StepMark::Pending | StepMark::Failed => step.mark = StepMark::Running,
            StepMark::UndoFailed => step.mark = StepMark::Undoing,
            StepMark::Running
            | StepMark::Done
            | StepMark::Skipped
            | StepMark::Undoing
            | StepMark::Undone => {}
        }
        step
    }

    fn end_step(&mut self, id: &str, at: Timestamp, mark: StepMark, note: &str) {
        let step = self.step_entry(id);
        step.started.get_or_insert(at);
        step.ended = Some(at);
        step.mark = mark;
        step.note = Some(note.to_owned());
    }

    fn step_entry(&mut self, id: &str) -> &mut StepView {
        let at = self
            .steps
            .iter()
            .position(|s| s.id == id)
            .unwrap_or_else(|| {
                self.steps.push(StepView {
                    id: id.to_owned(),
                    title: id.to_owned(),
                    ..StepView::default()
                });
                self.steps.len() - 1
            });
        &mut self.steps[at]
    }
}
