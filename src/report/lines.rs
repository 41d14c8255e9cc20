//! Lines, for CI and for terminals without bars: each lifecycle event at once, progress when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;

use super::sink::EventSink;
use super::text::{Painter, day_of, format_duration, time_between, time_of_day};
use super::view::RunView;
use super::wording::{
    MAX_LINE_WIDTH, PauseWords, fit_lines, reason_without_times, steady_reason, tidy_text,
};
use crate::event::{EventKind, RunEvent, StepProgress};

/// Changes of the same step, or of the same part of it, are not told of more often.
const CHANGE_LINE_INTERVAL: Duration = Duration::from_secs(30);

/// While nothing changes, the same step is not told of more often.
const UNCHANGED_LINE_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// A sink that writes one line an event, for logs and terminals without bars.
pub struct LineSink<O> {
    out: O,
    paint: Painter,
    /// What was told of each step, or part of one.
    told: BTreeMap<(String, Option<String>), ToldReasons>,
    /// The day of the last line.
    day: Option<String>,
}

/// The reasons that lines of one step have given, and when the last of them was.
#[derive(Debug)]
struct ToldReasons {
    last: Timestamp,
    reasons: BTreeSet<String>,
}

impl<O: Write + Send> LineSink<O> {
    /// Returns a sink that writes to `out`, coloured as `paint` says.
    pub fn new(out: O, paint: Painter) -> Self {
        Self {
            out,
            paint,
            told: BTreeMap::new(),
            day: None,
        }
    }

    /// Returns whether `what` of `step`, or of a `part` of it, is to be written at `at`. It counts as written then.
    fn is_due(&mut self, at: Timestamp, step: &str, part: Option<&str>, what: String) -> bool {
        let key = (step.to_owned(), part.map(str::to_owned));
        let told = self.told.entry(key).or_insert_with(|| ToldReasons {
            last: Timestamp::UNIX_EPOCH,
            reasons: BTreeSet::new(),
        });
        // A step may look at two things in turn: what was told of it before is no change.
        let interval = if told.reasons.contains(&what) {
            UNCHANGED_LINE_INTERVAL
        } else {
            CHANGE_LINE_INTERVAL
        };
        let due = time_between(told.last, at) >= interval;
        if due {
            told.last = at;
            told.reasons.insert(what);
        }
        due
    }

    /// Writes the day where it is another than that of the last line.
    fn write_day(&mut self, at: Timestamp) -> io::Result<()> {
        match day_line(&mut self.day, at) {
            Some(line) => writeln!(self.out, "{}", self.paint.dim(&line)),
            None => Ok(()),
        }
    }
}

impl<O: Write + Send> EventSink for LineSink<O> {
    fn sink_name(&self) -> &'static str {
        "lines"
    }

    fn show_event(&mut self, view: &RunView, event: &RunEvent) -> io::Result<()> {
        // Progress and retries come every few seconds; one that says the same again is told at intervals only.
        let due = if let EventKind::Progress(progress) = &event.kind {
            let why = reason_without_times(&progress.why);
            let what = format!("{:?} {why}", progress.done);
            self.is_due(event.at, &progress.step, progress.part.as_deref(), what)
        } else if let EventKind::Retrying { step, error, .. } = &event.kind {
            let what = reason_without_times(error);
            self.is_due(event.at, step, Some("retrying"), what)
        } else {
            true
        };
        let Some(line) = event_line(view, event, self.paint).filter(|_| due) else {
            return Ok(());
        };
        self.write_day(event.at)?;
        let time = self.paint.dim(&time_of_day(event.at));
        writeln!(
            self.out,
            "{}",
            fit_lines(&format!("{time} {line}"), MAX_LINE_WIDTH)
        )
    }

    fn finish_output(&mut self, _view: &RunView) -> io::Result<()> {
        self.out.flush()
    }
}

/// Returns a line with the day and the zone where `at` is on another day than the `last` line, which it then is.
pub fn day_line(last: &mut Option<String>, at: Timestamp) -> Option<String> {
    let day = day_of(at);
    if last.as_ref() == Some(&day) {
        return None;
    }
    let line = format!("{day}, times are UTC");
    *last = Some(day);
    Some(line)
}

/// One event as a line, without its time.
pub fn event_line(view: &RunView, event: &RunEvent, paint: Painter) -> Option<String> {
    // Names of steps and runs are short; what is said of them may be anything.
    let tidy = tidy_text;
    let run_noun = if view.is_rehearsal {
        "rehearsal"
    } else {
        "run"
    };
    // The match lists every kind, so that a new event is not left out of the log by chance.
    Some(match &event.kind {
        EventKind::RunOpened {
            run,
            cluster,
            from,
            to,
            steps,
        } => {
            format!(
                "{run_noun} {run}: {cluster} {from} -> {to}, {} steps",
                steps.len()
            )
        }
        EventKind::RunResumed {
            run, steps, done, ..
        } => {
            format!(
                "{run_noun} {run} continues: {} of {} steps are done",
                done.len(),
                steps.len()
            )
        }
        EventKind::StepStarted { step, title } => {
            format!("{} {}: {title}", step_place(view, step), paint.bold(step))
        }
        EventKind::ActBegan { step, what } => format!("{step}: {}", tidy(what)),
        EventKind::StepDone {
            step,
            how,
            took: time,
        } => {
            let done = paint.green("done");
            format!(
                "{} {step}: {done} in {}, {}",
                step_place(view, step),
                format_duration(*time),
                tidy(how)
            )
        }
        EventKind::StepSkipped { step, how } => {
            format!(
                "{} {step}: {}, {}",
                step_place(view, step),
                paint.green("no change needed"),
                tidy(how)
            )
        }
        // Told in yellow: the step goes on by itself.
        EventKind::Retrying {
            step, error, after, ..
        } => {
            format!(
                "{step}: {}, again in {}",
                paint.yellow(&tidy(error)),
                format_duration(*after)
            )
        }
        EventKind::StepFailed { step, error } => {
            format!(
                "{} {step}: {}, {}",
                step_place(view, step),
                paint.red("failed"),
                tidy(error)
            )
        }
        // Lines of a rollback have no number, as its order is not the route's.
        EventKind::UndoBegan { step } => format!("{step}: rolling back"),
        EventKind::UndoDone { step, how } => {
            format!("{step}: {}, {}", paint.green("rolled back"), tidy(how))
        }
        EventKind::UndoFailed { step, error } => {
            format!(
                "{step}: {}, {}",
                paint.red("could not be rolled back"),
                tidy(error)
            )
        }
        // Progress of a step that the view does not know has no line.
        EventKind::Progress(progress) => progress_line(view, event.at, progress)?,
        EventKind::Notice {
            step: Some(step),
            text,
        } => format!("{step}: {}", paint.yellow(&tidy(text))),
        EventKind::Notice { step: None, text } => paint.yellow(&tidy(text)),
        EventKind::RunPaused { why, resume } => {
            let words = PauseWords::new(why, view.is_rehearsal);
            // A command is never cut.
            let reason = if words.has_command {
                words.reason
            } else {
                fit_lines(&words.reason, MAX_LINE_WIDTH / 2)
            };
            let paused = paint.yellow("paused");
            format!(
                "{run_noun} {}: {paused}, {reason}; {} `{resume}`",
                view.run, words.lead
            )
        }
        EventKind::RunClosed { outcome, summary } => {
            // Outcomes of a later version are told in their own word.
            let outcome = match outcome.as_str() {
                "done" => paint.green("done"),
                _ => paint.red(&outcome.replace('_', " ")),
            };
            format!("{run_noun} {}: {outcome}, {}", view.run, tidy(summary))
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
    // A part, such as a node of a drain, has a count of its own.
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
    // How long nothing has moved is what a person watches for.
    let still = count.moved.map(|m| time_between(m, at)).unwrap_or_default();
    if still >= Duration::from_secs(1) {
        line += &format!("waiting {}, ", format_duration(still));
    }
    Some(line + &steady_reason(&progress.why))
}

fn step_place(view: &RunView, step: &str) -> String {
    match view.find_step(step) {
        Some((at, _)) => format!("[{at}/{}]", view.steps.len()),
        None => "[-]".to_owned(),
    }
}
