//! A run as a Markdown table, for a step summary or a pull request.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::sink::EventSink;
use super::text::{format_duration, time_between};
use super::view::{RunView, StepMark, StepView};
use super::wording::{PauseWords, tidy_text};
use crate::event::RunEvent;

/// Writes the table once the run is over.
pub struct MarkdownSink<O> {
    out: O,
}

impl<O: Write + Send> MarkdownSink<O> {
    /// Returns a sink that writes the run to `out` once it has ended.
    pub fn new(out: O) -> Self {
        Self { out }
    }
}

impl<O: Write + Send> EventSink for MarkdownSink<O> {
    fn sink_name(&self) -> &'static str {
        "markdown"
    }

    fn show_event(&mut self, _view: &RunView, _event: &RunEvent) -> io::Result<()> {
        Ok(())
    }

    fn finish_output(&mut self, view: &RunView) -> io::Result<()> {
        self.out.write_all(render_markdown(view).as_bytes())?;
        self.out.flush()
    }
}

/// Renders a run as Markdown.
pub fn render_markdown(view: &RunView) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "## eksup: `{}` {} -> {}{}\n",
        view.cluster,
        view.from,
        view.to,
        if view.is_rehearsal {
            " (rehearsal)"
        } else {
            ""
        }
    );
    // The time is that of the whole run, with its pauses.
    let total = view
        .opened
        .zip(view.now)
        .map(|(a, b)| format_duration(time_between(a, b)))
        .unwrap_or_default();
    // The outcome goes before a pause, because a run that was paused and then ended has both.
    let state = match (&view.outcome, &view.paused, &view.summary) {
        (Some(outcome), _, Some(summary)) => {
            format!("**{}**: {summary}", outcome.replace('_', " "))
        }
        (Some(outcome), _, None) => format!("**{}**", outcome.replace('_', " ")),
        (None, Some((why, resume)), _) => {
            let words = PauseWords::new(why, view.is_rehearsal);
            format!("**paused**: {}", words.to_markdown(resume))
        }
        (None, None, _) => match view.steps.iter().find(|s| s.mark.has_failed()) {
            Some(step) => {
                let note = tidy_text(step.note.as_deref().unwrap_or_default());
                format!("**stuck** at {}: {note}", step.title)
            }
            None => "**not finished**".to_owned(),
        },
    };
    let _ = writeln!(
        out,
        "Run `{}`, {total}. {}\n",
        view.run,
        escape_cell(&state)
    );
    let _ = writeln!(
        out,
        "| # | step | state | took | how |\n| --: | --- | --- | --: | --- |"
    );
    // A row for every step, also those that have not begun.
    for (i, step) in view.steps.iter().enumerate() {
        let time = step
            .started
            .zip(step.ended)
            .map(|(a, b)| format_duration(time_between(a, b)));
        let note = tidy_text(step.note.as_deref().unwrap_or_default());
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            i + 1,
            escape_cell(&step.title),
            step_state(view, step),
            time.unwrap_or_default(),
            escape_cell(&note)
        );
    }
    // Below the table, as they are about the run and not about one step.
    if !view.notices.is_empty() {
        let _ = writeln!(out);
        for (_, text) in &view.notices {
            let _ = writeln!(out, "- {}", escape_cell(&tidy_text(text)));
        }
    }
    out
}

/// How a step stands. While the run is paused nothing is running.
fn step_state(view: &RunView, step: &StepView) -> &'static str {
    match step.mark {
        StepMark::Running if view.paused.is_some() => "stopped",
        mark => mark.as_str(),
    }
}

/// Text that stays inside its cell.
pub fn escape_cell(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace('<', "&lt;")
        .replace(['\r', '\n'], " ")
}
