//! A run as a Markdown table, for a step summary or a pull request.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::sink::Sink;
use super::text::{between, took};
use super::view::View;
use crate::event::Event;

/// Writes the table once the run is over.
pub struct Markdown<O> {
    out: O,
}

impl<O: Write + Send> Markdown<O> {
    /// Writes to `out`.
    pub fn new(out: O) -> Self {
        Self { out }
    }
}

impl<O: Write + Send> Sink for Markdown<O> {
    fn name(&self) -> &'static str {
        "markdown"
    }

    fn event(&mut self, _view: &View, _event: &Event) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, view: &View) -> io::Result<()> {
        self.out.write_all(markdown(view).as_bytes())?;
        self.out.flush()
    }
}

/// The run as Markdown.
pub fn markdown(view: &View) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "## eksup: `{}` {} -> {}\n",
        view.cluster, view.from, view.to
    );
    let total = view
        .opened
        .zip(view.now)
        .map(|(a, b)| took(between(a, b)))
        .unwrap_or_default();
    let state = match (&view.outcome, &view.paused, &view.summary) {
        (Some(outcome), _, Some(summary)) => {
            format!("**{}**: {summary}", outcome.replace('_', " "))
        }
        (Some(outcome), _, None) => format!("**{}**", outcome.replace('_', " ")),
        (None, Some((why, resume)), _) => format!("**paused**: {why}. Go on with `{resume}`"),
        (None, None, _) => "**not finished**".to_owned(),
    };
    let _ = writeln!(out, "Run `{}`, {total}. {}\n", view.run, cell(&state));
    let _ = writeln!(
        out,
        "| # | step | state | took | how |\n| --: | --- | --- | --: | --- |"
    );
    for (i, step) in view.steps.iter().enumerate() {
        let time = step
            .started
            .zip(step.ended)
            .map(|(a, b)| took(between(a, b)));
        let note = step.note.clone().unwrap_or_default();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            i + 1,
            cell(&step.title),
            step.mark.as_str(),
            time.unwrap_or_default(),
            cell(&note)
        );
    }
    if !view.notices.is_empty() {
        let _ = writeln!(out);
        for (_, text) in &view.notices {
            let _ = writeln!(out, "- {}", cell(text));
        }
    }
    out
}

/// Text that stays inside its cell.
pub fn cell(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace('<', "&lt;")
        .replace(['\r', '\n'], " ")
}
