//! The fold from events to a report.

use std::time::Duration;

use jiff::Timestamp;

use super::node_fold::NodeFold;
use super::wait_reason::{classify_reason, wait_key, without_countdown};
use super::{
    Activity, ProcessPart, RetryReport, RunEnd, RunGap, RunReport, StepReport, StepSpan,
    TrafficReport, WaitReport,
};
use crate::event::facts::{RunFacts, TrafficReading, VersionReading};
use crate::event::{EventKind, RunEvent, StepProgress, StepTitle};
use crate::report::view::StepMark;

/// Folds a run's events into its report.
pub fn build_report<'a>(events: impl IntoIterator<Item = &'a RunEvent>) -> RunReport {
    let mut fold = ReportFold::default();
    for event in events {
        fold.note_event(event);
    }
    fold.finish()
}

#[derive(Default)]
struct ReportFold {
    report: RunReport,
    nodes: NodeFold,
    last: Option<Timestamp>,
    /// Steps with an open span, by place.
    active: Vec<usize>,
    /// The process has said that it ends.
    said_end: bool,
    /// The process began with its facts; the word that it goes on follows.
    began_with_facts: bool,
    /// Why the run is paused, until a process goes on.
    pause: Option<String>,
}

impl ReportFold {
    fn note_event(&mut self, event: &RunEvent) {
        let at = event.at;
        match &event.kind {
            EventKind::RunOpened {
                run,
                cluster,
                from,
                to,
                steps,
            } => {
                // Notices of checks come before the run is opened.
                let notices = std::mem::take(&mut self.report.notices);
                *self = Self::default();
                self.report = RunReport {
                    run: run.clone(),
                    cluster: cluster.clone(),
                    from: from.clone(),
                    to: to.clone(),
                    opened: Some(at),
                    notices,
                    ..RunReport::default()
                };
                self.name_steps(steps);
                self.begin_process(at);
            }
            // Another process goes on, after a pause or the end of the one before.
            EventKind::RunResumed {
                run, steps, done, ..
            } => {
                self.report.run.clone_from(run);
                self.name_steps(steps);
                // Facts may come before this event: they have begun the process then.
                if !std::mem::take(&mut self.began_with_facts) {
                    self.begin_process(at);
                }
                // The file may begin with a later process.
                for id in done {
                    let step = self.step_entry(id);
                    if step.mark == StepMark::Pending {
                        step.mark = StepMark::Done;
                    }
                }
            }
            EventKind::RunFacts(facts) => self.note_facts(at, facts),
            // No activity yet: a step may look for a long time first, or wait for a window.
            EventKind::StepStarted { step, title } => {
                self.step_entry(step).title.clone_from(title);
                self.act_on(step, at, None);
            }
            // An act ends the wait that was shown, as the engine acts only when nothing holds it.
            EventKind::ActBegan { step, what } => {
                self.act_on(step, at, Some(Activity::Work));
                self.step_entry(step).acts.push((at, what.clone()));
                self.end_wait(step, at);
            }
            EventKind::StepDone { step, how, .. } => self.end_step(step, at, StepMark::Done, how),
            EventKind::StepSkipped { step, how } => self.end_step(step, at, StepMark::Skipped, how),
            EventKind::Retrying {
                step, error, class, ..
            } => {
                self.act_on(step, at, None);
                self.step_entry(step).retries += 1;
                self.note_retry(at, step, class, error);
            }
            EventKind::StepFailed { step, error } => {
                self.end_step(step, at, StepMark::Failed, error);
            }
            // The time until here was work, and what follows is the rollback.
            EventKind::UndoBegan { step } => {
                self.close_span(step, at);
                self.step_entry(step).mark = StepMark::Undoing;
                self.act_on(step, at, None);
            }
            EventKind::UndoDone { step, how } => self.end_step(step, at, StepMark::Undone, how),
            EventKind::UndoFailed { step, error } => {
                self.end_step(step, at, StepMark::UndoFailed, error);
            }
            EventKind::Progress(progress) => self.note_progress(at, progress),
            // An approval is told twice; its own event has who and when.
            EventKind::Notice { step, text } => {
                let text = match step {
                    Some(step) => format!("{step}: {text}"),
                    None => text.clone(),
                };
                self.report.notices.push((at, text));
            }
            // A pause ends the process, and the reason explains the gap to the next one.
            EventKind::RunPaused { why, resume } => {
                self.report.end = RunEnd::Paused {
                    why: why.clone(),
                    resume: resume.clone(),
                };
                self.pause = Some(why.clone());
                self.end_process(at, format!("paused: {why}"));
            }
            EventKind::RunClosed { outcome, summary } => {
                self.report.end = RunEnd::Closed(outcome.clone());
                self.report.summary = Some(summary.clone());
                self.pause = None;
                self.end_process(at, format!("{}: {summary}", outcome.replace('_', " ")));
            }
            EventKind::VersionsRead(reading) => self.note_versions(at, reading),
            EventKind::ApprovalGiven(note) => self.report.approvals.push(note.clone()),
            EventKind::NodeChanged(change) => self.nodes.note_node(at, change),
            EventKind::PodChanged(change) => self.nodes.note_pod(at, change),
            EventKind::TrafficRead(reading) => self.note_traffic(at, reading),
            EventKind::CallsMade { calls } => {
                // Each process counts its own.
                let sums = self.report.calls.get_or_insert_default();
                for call in calls {
                    match sums.iter_mut().find(|c| c.call == call.call) {
                        Some(sum) => {
                            sum.made += call.made;
                            sum.throttled += call.throttled;
                            sum.failed += call.failed;
                        }
                        None => sums.push(call.clone()),
                    }
                }
            }
        }
        // What a process tells after its last word is no part of the run's time.
        if !self.said_end || self.report.ended.is_none() {
            self.last = Some(at);
        }
    }

    fn note_facts(&mut self, at: Timestamp, facts: &RunFacts) {
        if self.said_end || self.report.processes.is_empty() {
            self.begin_process(at);
            self.began_with_facts = true;
        }
        let report = &mut self.report;
        report.rehearsal = Some(facts.rehearsal);
        let copy = |to: &mut Option<String>, from: &Option<String>| {
            if from.is_some() {
                to.clone_from(from);
            }
        };
        copy(&mut report.eksup, &facts.eksup);
        copy(&mut report.region, &facts.region);
        copy(&mut report.cluster_arn, &facts.cluster_arn);
        copy(&mut report.account, &facts.account);
        if let Some(process) = report.processes.last_mut() {
            copy(&mut process.holder, &facts.holder);
            copy(&mut process.caller, &facts.caller);
            process.rolls_back = facts.direction == "rollback";
        }
        // Only the process that opened the run has findings; a later one must not erase them.
        if facts.findings.is_some() {
            report.findings.clone_from(&facts.findings);
        }
        report.consents = Some(facts.consents.clone());
        // Where one step has no estimate the sum would be too small, so there is none.
        let estimates = facts.steps.iter().map(|s| s.estimate_seconds);
        let estimates: Option<u64> = estimates.sum();
        if let Some(seconds) = estimates.filter(|_| !facts.steps.is_empty()) {
            report.estimate = Some(Duration::from_secs(seconds));
        }
        let rolls_back = facts.direction == "rollback";
        for fact in &facts.steps {
            let step = self.step_entry(&fact.step);
            step.kind = Some(fact.kind.clone());
            step.estimate = fact.estimate_seconds.map(Duration::from_secs);
            step.no_return.clone_from(&fact.no_return);
            // A rollback asks nobody.
            step.needs_approval |= fact.needs_approval && !rolls_back;
        }
    }

    fn note_progress(&mut self, at: Timestamp, progress: &StepProgress) {
        self.nodes.note_count(at, progress);
        let id = &progress.step;
        // A count says how far a step is; only what the engine waits for says what it does.
        let counts = progress.done.is_some() || progress.part.is_some();
        if counts {
            self.act_on(id, at, None);
            if let (Some("percent"), Some(done)) = (progress.unit.as_deref(), progress.done) {
                let traffic = self.traffic_entry(id);
                if traffic.shares.last().is_none_or(|(_, last)| *last != done) {
                    traffic.shares.push((at, done));
                }
                traffic.until = Some(at);
            }
            return;
        }
        // The step's kind tells a bake from another wait with a similar text.
        let kind = self.step_entry(id).kind.clone();
        let activity = classify_reason(kind.as_deref(), &progress.why);
        self.act_on(id, at, Some(activity));
        let undoing = self.step_entry(id).mark == StepMark::Undoing;
        let key = wait_key(&progress.why);
        let waits = &mut self.report.waits;
        // Each step has one open wait at most: the newest.
        let open = |w: &&mut WaitReport| w.step == *id && w.to == wait_open();
        if let Some(wait) = waits.iter_mut().rev().find(open) {
            if wait.key == key {
                return;
            }
            wait.to = at;
        }
        waits.push(WaitReport {
            step: id.clone(),
            from: at,
            to: wait_open(),
            activity: if undoing { Activity::Undo } else { activity },
            why: without_countdown(&progress.why),
            key,
        });
    }

    fn note_traffic(&mut self, at: Timestamp, reading: &TrafficReading) {
        let traffic = self.traffic_entry(&reading.step);
        traffic.until = Some(at);
        traffic.readings.push((at, reading.clone()));
    }

    fn note_retry(&mut self, at: Timestamp, step: &str, class: &str, error: &str) {
        let retries = &mut self.report.retries;
        let same = |r: &&mut RetryReport| r.step == step && r.class == class && r.error == error;
        match retries.iter_mut().find(same) {
            Some(retry) => {
                retry.times += 1;
                retry.last = at;
            }
            None => retries.push(RetryReport {
                step: step.to_owned(),
                class: class.to_owned(),
                error: error.to_owned(),
                times: 1,
                first: at,
                last: at,
            }),
        }
    }

    fn note_versions(&mut self, at: Timestamp, reading: &VersionReading) {
        let versions = &mut self.report.versions;
        let read = Some((at, reading.objects.clone()));
        if reading.moment == "before" {
            versions.before = versions.before.take().or(read);
        } else {
            versions.after = read;
            versions.unread.clone_from(&reading.unread);
        }
    }

    fn begin_process(&mut self, at: Timestamp) {
        // The times between processes are told apart by whether the one before said why it ended.
        if let Some(last) = self.last.filter(|_| !self.report.processes.is_empty()) {
            // The process before has ended at its last event, whatever was open then.
            self.close_all(last);
            let to = self.report.processes.last().and_then(|p| p.to);
            self.report.gaps.push(RunGap {
                from: to.unwrap_or(last),
                to: at,
                why: if self.said_end {
                    Some(
                        self.pause
                            .clone()
                            .unwrap_or_else(|| "the run had ended".to_owned()),
                    )
                } else {
                    None
                },
            });
            if let Some(process) = self.report.processes.last_mut() {
                process.to.get_or_insert(last);
            }
        }
        self.report.opened.get_or_insert(at);
        // What an earlier process said of the end does not hold any more.
        self.report.ended = None;
        self.report.end = RunEnd::Unfinished;
        self.said_end = false;
        self.began_with_facts = false;
        self.pause = None;
        self.report.processes.push(ProcessPart {
            from: Some(at),
            ..ProcessPart::default()
        });
    }

    fn end_process(&mut self, at: Timestamp, how: String) {
        self.close_all(at);
        self.said_end = true;
        self.report.ended = Some(at);
        if let Some(process) = self.report.processes.last_mut() {
            process.to = Some(at);
            process.ended = Some(how);
        }
    }

    /// The step does something at `at`: what it did before, where that is not said.
    fn act_on(&mut self, id: &str, at: Timestamp, activity: Option<Activity>) {
        let place = self.step_place(id);
        let step = &mut self.report.steps[place];
        let undoing = matches!(step.mark, StepMark::Undoing | StepMark::UndoFailed);
        // An act after a failure is another attempt, forward or back.
        step.mark = match step.mark {
            StepMark::Pending | StepMark::Failed => StepMark::Running,
            StepMark::UndoFailed => StepMark::Undoing,
            other @ (StepMark::Running
            | StepMark::Done
            | StepMark::Skipped
            | StepMark::Undoing
            | StepMark::Undone) => other,
        };
        let is_open = self.active.contains(&place);
        // Without a word about it a step does what it did; the first time, that is work.
        let now = match (activity, step.spans.last()) {
            _ if undoing => Activity::Undo,
            (Some(activity), _) => activity,
            (None, Some(last)) if is_open => last.activity,
            (None, _) => Activity::Work,
        };
        // The same activity goes on in the same span, so that a bar is not cut at each event.
        if is_open && let Some(last) = step.spans.last_mut() {
            last.to = at;
            if last.activity == now {
                return;
            }
        }
        step.spans.push(StepSpan {
            from: at,
            to: at,
            activity: now,
        });
        if !is_open {
            self.active.push(place);
        }
    }

    fn close_span(&mut self, id: &str, at: Timestamp) {
        let place = self.step_place(id);
        if let Some(open) = self.active.iter().position(|p| *p == place) {
            self.active.remove(open);
            if let Some(last) = self.report.steps[place].spans.last_mut() {
                last.to = at;
            }
        }
        self.end_wait(id, at);
    }

    fn close_all(&mut self, at: Timestamp) {
        for place in std::mem::take(&mut self.active) {
            if let Some(last) = self.report.steps[place].spans.last_mut() {
                last.to = at;
            }
        }
        for wait in &mut self.report.waits {
            if wait.to == wait_open() {
                wait.to = at;
            }
        }
    }

    fn end_wait(&mut self, id: &str, at: Timestamp) {
        let open = |w: &&mut WaitReport| w.step == id && w.to == wait_open();
        if let Some(wait) = self.report.waits.iter_mut().rev().find(open) {
            wait.to = at;
        }
    }

    fn end_step(&mut self, id: &str, at: Timestamp, mark: StepMark, note: &str) {
        let place = self.step_place(id);
        if !self.active.contains(&place) && mark != StepMark::Undone {
            self.act_on(id, at, None);
        }
        self.close_span(id, at);
        let step = &mut self.report.steps[place];
        step.mark = mark;
        let undone = matches!(mark, StepMark::Undone | StepMark::UndoFailed);
        let slot = if undone {
            &mut step.undo_note
        } else {
            &mut step.note
        };
        *slot = Some(note.to_owned());
    }

    fn name_steps(&mut self, titles: &[StepTitle]) {
        for title in titles {
            self.step_entry(&title.step).title.clone_from(&title.title);
        }
    }

    fn step_place(&mut self, id: &str) -> usize {
        let found = self.report.steps.iter().position(|s| s.id == id);
        found.unwrap_or_else(|| {
            self.report.steps.push(StepReport {
                id: id.to_owned(),
                title: id.to_owned(),
                ..StepReport::default()
            });
            self.report.steps.len() - 1
        })
    }

    fn step_entry(&mut self, id: &str) -> &mut StepReport {
        let place = self.step_place(id);
        &mut self.report.steps[place]
    }

    fn traffic_entry(&mut self, id: &str) -> &mut TrafficReport {
        let found = self.report.traffic.iter().position(|t| t.step == id);
        let place = found.unwrap_or_else(|| {
            self.report.traffic.push(TrafficReport {
                step: id.to_owned(),
                ..TrafficReport::default()
            });
            self.report.traffic.len() - 1
        });
        &mut self.report.traffic[place]
    }

    fn finish(mut self) -> RunReport {
        let end = self.report.ended.or(self.last).unwrap_or_default();
        self.close_all(end);
        let mut report = self.report;
        report.ended.get_or_insert(end);
        (report.nodes, report.pods) = self.nodes.finish(end);
        for traffic in &mut report.traffic {
            if let Some(step) = report.steps.iter().find(|s| s.id == traffic.step) {
                traffic.title.clone_from(&step.title);
                traffic.acts.clone_from(&step.acts);
                traffic.until = traffic.until.max(step.spans.last().map(|s| s.to));
            }
        }
        if let Some(calls) = &mut report.calls {
            calls.sort_by(|a, b| b.made.cmp(&a.made).then_with(|| a.call.cmp(&b.call)));
        }
        report.waits.sort_by_key(|w| w.from);
        report
    }
}

/// The end of a wait that goes on.
fn wait_open() -> Timestamp {
    Timestamp::MAX
}
