//! Lines, for CI and for terminals without bars: each lifecycle event at once, progress at most every 30 s a step.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;

use super::sink::Sink;
use super::text::{Paint, between, clock, took};
use super::view::View;
use crate::event::{Event, Kind, Progress};

/// The same step is not told of more often.
const EVERY: Duration = Duration::from_secs(30);

/// Writes lines.
pub struct Lines<O> {
    out: O,
    paint: Paint,
    said: BTreeMap<(String, Option<String>), Timestamp>,
}

impl<O: Write + Send> Lines<O> {
    /// Lines to `out`.
    pub fn new(out: O, paint: Paint) -> Self {
        Self {
            out,
            paint,
            said: BTreeMap::new(),
        }
    }

    /// Whether it is time to tell of this step again.
    fn due(&mut self, at: Timestamp, step: &str, part: Option<&str>) -> bool {
        let key = (step.to_owned(), part.map(str::to_owned));
        let due = self
            .said
            .get(&key)
            .is_none_or(|last| between(*last, at) >= EVERY);
        if due {
            self.said.insert(key, at);
        }
        due
    }
}

impl<O: Write + Send> Sink for Lines<O> {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn event(&mut self, view: &View, event: &Event) -> io::Result<()> {
        let due = if let Kind::Progress(Progress { step, part, .. }) = &event.kind {
            self.due(event.at, step, part.as_deref())
        } else if let Kind::Retrying { step, .. } = &event.kind {
            self.due(event.at, step, Some("retrying"))
        } else {
            true
        };
        match line(view, event, self.paint).filter(|_| due) {
            Some(line) => writeln!(self.out, "{} {line}", self.paint.dim(&clock(event.at))),
            None => Ok(()),
        }
    }

    fn finish(&mut self, _view: &View) -> io::Result<()> {
        self.out.flush()
    }
}

/// One event as a line, without its time.
pub fn line(view: &View, event: &Event, paint: Paint) -> Option<String> {
    Some(match &event.kind {
        Kind::RunOpened {
            run,
            cluster,
            from,
            to,
            steps,
        } => {
            format!("run {run}: {cluster} {from} -> {to}, {} steps", steps.len())
        }
        Kind::RunResumed {
            run, steps, done, ..
        } => {
            format!(
                "run {run} goes on: {} of {} steps are done",
                done.len(),
                steps.len()
            )
        }
        Kind::StepStarted { step, title } => {
            format!("{} {}: {title}", place(view, step), paint.bold(step))
        }
        Kind::ActBegan { step, what } => format!("{step}: {what}"),
        Kind::StepDone {
            step,
            how,
            took: time,
        } => {
            let done = paint.green("done");
            format!(
                "{} {step}: {done} in {}, {how}",
                place(view, step),
                took(*time)
            )
        }
        Kind::StepSkipped { step, how } => {
            format!(
                "{} {step}: {}, {how}",
                place(view, step),
                paint.green("was so already")
            )
        }
        Kind::Retrying {
            step, error, after, ..
        } => {
            format!("{step}: {}, again in {}", paint.yellow(error), took(*after))
        }
        Kind::StepFailed { step, error } => {
            format!(
                "{} {step}: {}, {error}",
                place(view, step),
                paint.red("failed")
            )
        }
        Kind::UndoBegan { step } => format!("{step}: taking it back"),
        Kind::UndoDone { step, how } => format!("{step}: {}, {how}", paint.green("taken back")),
        Kind::UndoFailed { step, error } => {
            format!("{step}: {}, {error}", paint.red("could not be taken back"))
        }
        Kind::Progress(progress) => waiting(view, event.at, progress)?,
        Kind::Notice {
            step: Some(step),
            text,
        } => format!("{step}: {}", paint.yellow(text)),
        Kind::Notice { step: None, text } => paint.yellow(text),
        Kind::RunPaused { why, resume } => {
            format!(
                "run {}: {}, {why}; go on with `{resume}`",
                view.run,
                paint.yellow("paused")
            )
        }
        Kind::RunClosed { outcome, summary } => {
            let outcome = match outcome.as_str() {
                "done" => paint.green("done"),
                _ => paint.red(&outcome.replace('_', " ")),
            };
            format!("run {}: {outcome}, {summary}", view.run)
        }
    })
}

/// `drain-blue ip-10-0-1-7: 3/9 pods, waiting 4m10s, PDB shop/web allows 0 of 3`.
fn waiting(view: &View, at: Timestamp, progress: &Progress) -> Option<String> {
    let (_, step) = view.find(&progress.step)?;
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
    let still = count.moved.map(|m| between(m, at)).unwrap_or_default();
    if still >= Duration::from_secs(1) {
        line += &format!("waiting {}, ", took(still));
    }
    Some(line + &progress.why)
}

fn place(view: &View, step: &str) -> String {
    match view.find(step) {
        Some((at, _)) => format!("[{at}/{}]", view.steps.len()),
        None => "[-]".to_owned(),
    }
}
