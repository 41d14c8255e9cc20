//! Lines, for CI and for terminals without bars: each lifecycle event at once, progress at most every 30 s a step.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;

use super::sink::EventSink;
use super::text::{Painter, format_duration, time_between, time_of_day};
use super::view::RunView;
use crate::event::{EventKind, RunEvent, StepProgress};

/// The same step is not told of more often.
const PROGRESS_LINE_INTERVAL: Duration = Duration::from_secs(30);

/// A sink that writes one line an event, for logs and terminals without bars.
pub struct LineSink<O> {
    out: O,
    paint: Painter,
    said: BTreeMap<(String, Option<String>), Timestamp>,
}

impl<O: Write + Send> LineSink<O> {
    /// Returns a sink that writes to `out`, coloured as `paint` says.
    pub fn new(out: O, paint: Painter) -> Self {
        Self {
            out,
            paint,
            said: BTreeMap::new(),
        }
    }

    /// Returns whether progress of `step`, or of a `part` of it, is to be written at `at`: its last line is
    /// `PROGRESS_LINE_INTERVAL` old, or there is none. It counts as written then.
    fn is_due(&mut self, at: Timestamp, step: &str, part: Option<&str>) -> bool {
        let key = (step.to_owned(), part.map(str::to_owned));
        let due = self
            .said
            .get(&key)
            .is_none_or(|last| time_between(*last, at) >= PROGRESS_LINE_INTERVAL);
        if due {
            self.said.insert(key, at);
        }
        due
    }
}

impl<O: Write + Send> EventSink for LineSink<O> {
    fn sink_name(&self) -> &'static str {
        "lines"
    }

    fn show_event(&mut self, view: &RunView, event: &RunEvent) -> io::Result<()> {
        let due = if let EventKind::Progress(StepProgress { step, part, .. }) = &event.kind {
            self.is_due(event.at, step, part.as_deref())
        } else if let EventKind::Retrying { step, .. } = &event.kind {
            self.is_due(event.at, step, Some("retrying"))
        } else {
            true
        };
        match event_line(view, event, self.paint).filter(|_| due) {
            Some(line) => writeln!(
                self.out,
                "{} {line}",
                self.paint.dim(&time_of_day(event.at))
            ),
            None => Ok(()),
        }
    }

    fn finish_output(&mut self, _view: &RunView) -> io::Result<()> {
        self.out.flush()
    }
}

/// One event as a line, without its time.
pub fn event_line(view: &RunView, event: &RunEvent, paint: Painter) -> Option<String> {
    Some(match &event.kind {
        EventKind::RunOpened {
            run,
            cluster,
            from,
            to,
            steps,
        } => {
            format!("run {run}: {cluster} {from} -> {to}, {} steps", steps.len())
        }
        EventKind::RunResumed {
            run, steps, done, ..
        } => {
            format!(
                "run {run} continues: {} of {} steps are done",
                done.len(),
                steps.len()
            )
        }
        EventKind::StepStarted { step, title } => {
            format!("{} {}: {title}", step_place(view, step), paint.bold(step))
        }
        EventKind::ActBegan { step, what } => format!("{step}: {what}"),
        EventKind::StepDone {
            step,
            how,
            took: time,
        } => {
            let done = paint.green("done");
            format!(
                "{} {step}: {done} in {}, {how}",
                step_place(view, step),
                format_duration(*time)
            )
        }
        EventKind::StepSkipped { step, how } => {
            format!(
                "{} {step}: {}, {how}",
                step_place(view, step),
                paint.green("was so already")
            )
        }
        EventKind::Retrying {
            step, error, after, ..
        } => {
            format!(
                "{step}: {}, again in {}",
                paint.yellow(error),
                format_duration(*after)
            )
        }
        EventKind::StepFailed { step, error } => {
            format!(
                "{} {step}: {}, {error}",
                step_place(view, step),
                paint.red("failed")
            )
        }
        EventKind::UndoBegan { step } => format!("{step}: taking it back"),
        EventKind::UndoDone { step, how } => {
            format!("{step}: {}, {how}", paint.green("rolled back"))
        }
        EventKind::UndoFailed { step, error } => {
            format!("{step}: {}, {error}", paint.red("could not be rolled back"))
        }
        // Progress of a step that the view does not know has no line.
        EventKind::Progress(progress) => progress_line(view, event.at, progress)?,
        EventKind::Notice {
            step: Some(step),
            text,
        } => format!("{step}: {}", paint.yellow(text)),
        EventKind::Notice { step: None, text } => paint.yellow(text),
        EventKind::RunPaused { why, resume } => {
            format!(
                "run {}: {}, {why}; continue with `{resume}`",
                view.run,
                paint.yellow("paused")
            )
        }
        EventKind::RunClosed { outcome, summary } => {
            let outcome = match outcome.as_str() {
                "done" => paint.green("done"),
                _ => paint.red(&outcome.replace('_', " ")),
            };
            format!("run {}: {outcome}, {summary}", view.run)
        }
        // The report's.
        EventKind::RunFacts(_)
        | EventKind::VersionsRead(_)
        | EventKind::ApprovalGiven(_)
        | EventKind::NodeChanged(_)
        | EventKind::PodChanged(_)
        | EventKind::TrafficRead(_)
        | EventKind::CallsMade { .. } => return None,
    })
}

/// `drain-blue ip-10-0-1-7: 3/9 pods, waiting 4m10s, PDB shop/web allows 0 of 3`.
fn progress_line(view: &RunView, at: Timestamp, progress: &StepProgress) -> Option<String> {
    let (_, step) = view.find_step(&progress.step)?;
    let (label, count) = match &progress.part {
        Some(part) => (format!("{} {part}", step.id), step.parts.get(part)?),
        None => (step.id.clone(), &step.count),
    };
    let mut line = format!("{label}: ");
    if let (Some(done), Some(total)) = (count.done, count.total) {
        let unit = count.unit.as_deref().unwrap_or_default();
        line += &format!("{done}/{total} {unit}")
            .trim_end()
            .replace("/100 percent", "%");
        line += ", ";
    }
    let still = count.moved.map(|m| time_between(m, at)).unwrap_or_default();
    if still >= Duration::from_secs(1) {
        line += &format!("waiting {}, ", format_duration(still));
    }
    Some(line + &progress.why)
}

fn step_place(view: &RunView, step: &str) -> String {
    match view.find_step(step) {
        Some((at, _)) => format!("[{at}/{}]", view.steps.len()),
        None => "[-]".to_owned(),
    }
}
