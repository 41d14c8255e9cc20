//! The marks of CI systems: annotations and a step summary on GitHub, sections on GitLab.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;

use super::markdown::render_markdown;
use super::sink::EventSink;
use super::view::RunView;
use crate::event::{EventKind, RunEvent};

/// GitHub: errors and warnings as annotations, and the table in the step summary.
pub struct GithubSink<O> {
    out: O,
    summary: Option<PathBuf>,
}

impl<O: Write + Send> GithubSink<O> {
    /// Annotations go to `out`, the table to the file that `GITHUB_STEP_SUMMARY` names.
    pub fn new(out: O, summary: Option<PathBuf>) -> Self {
        Self { out, summary }
    }
}

impl<O: Write + Send> EventSink for GithubSink<O> {
    fn sink_name(&self) -> &'static str {
        "github"
    }

    fn show_event(&mut self, _view: &RunView, event: &RunEvent) -> io::Result<()> {
        // Only what somebody should look at becomes an annotation: a page of them is read by nobody.
        let (level, title, text) = match &event.kind {
            EventKind::StepFailed { step, error } => {
                ("error", format!("eksup: {step} failed"), error)
            }
            EventKind::UndoFailed { step, error } => (
                "error",
                format!("eksup: {step} could not be rolled back"),
                error,
            ),
            EventKind::Notice { text, .. } => ("warning", "eksup".to_owned(), text),
            EventKind::RunPaused { why, .. } => ("warning", "eksup: paused".to_owned(), why),
            EventKind::RunOpened { .. }
            | EventKind::RunResumed { .. }
            | EventKind::StepStarted { .. }
            | EventKind::ActBegan { .. }
            | EventKind::StepDone { .. }
            | EventKind::StepSkipped { .. }
            | EventKind::Retrying { .. }
            | EventKind::UndoBegan { .. }
            | EventKind::UndoDone { .. }
            | EventKind::Progress(_)
            | EventKind::RunClosed { .. }
            | EventKind::RunFacts(_)
            | EventKind::VersionsRead(_)
            | EventKind::ApprovalGiven(_)
            | EventKind::NodeChanged(_)
            | EventKind::PodChanged(_)
            | EventKind::TrafficRead(_)
            | EventKind::CallsMade { .. } => return Ok(()),
        };
        writeln!(self.out, "{}", format_annotation(level, &title, text))
    }

    fn finish_output(&mut self, view: &RunView) -> io::Result<()> {
        self.out.flush()?;
        let Some(path) = self.summary.as_ref().filter(|_| !view.run.is_empty()) else {
            return Ok(());
        };
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(render_markdown(view).as_bytes())
    }
}

/// A workflow command, escaped as GitHub's runner unescapes it.
pub fn format_annotation(level: &str, title: &str, text: &str) -> String {
    let data = |s: &str| {
        s.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let property = data(title).replace(':', "%3A").replace(',', "%2C");
    format!("::{level} title={property}::{}", data(text))
}

/// GitLab: each step is a section that folds.
pub struct GitlabSink<O> {
    out: O,
    open: Option<String>,
}

impl<O: Write + Send> GitlabSink<O> {
    /// Sections go to `out`, before the lines.
    pub fn new(out: O) -> Self {
        Self { out, open: None }
    }

    fn close_section(&mut self, event: &RunEvent) -> io::Result<()> {
        match self.open.take() {
            Some(id) => write!(
                self.out,
                "\u{1b}[0Ksection_end:{}:{id}\r\u{1b}[0K",
                event.at.as_second()
            ),
            None => Ok(()),
        }
    }
}

impl<O: Write + Send> EventSink for GitlabSink<O> {
    fn sink_name(&self) -> &'static str {
        "gitlab"
    }

    fn show_event(&mut self, _view: &RunView, event: &RunEvent) -> io::Result<()> {
        match &event.kind {
            EventKind::StepStarted { step, title } => {
                self.close_section(event)?;
                // GitLab takes no other characters in a section's name.
                let id: String = step
                    .chars()
                    .map(|c| {
                        if c.is_ascii_alphanumeric() || "_.-".contains(c) {
                            c
                        } else {
                            '_'
                        }
                    })
                    .collect();
                let at = event.at.as_second();
                writeln!(
                    self.out,
                    "\u{1b}[0Ksection_start:{at}:{id}\r\u{1b}[0K{title}"
                )?;
                self.open = Some(id);
                Ok(())
            }
            EventKind::RunPaused { .. }
            | EventKind::RunClosed { .. }
            | EventKind::StepFailed { .. } => self.close_section(event),
            EventKind::RunOpened { .. }
            | EventKind::RunResumed { .. }
            | EventKind::ActBegan { .. }
            | EventKind::StepDone { .. }
            | EventKind::StepSkipped { .. }
            | EventKind::Retrying { .. }
            | EventKind::UndoBegan { .. }
            | EventKind::UndoDone { .. }
            | EventKind::UndoFailed { .. }
            | EventKind::Progress(_)
            | EventKind::Notice { .. }
            | EventKind::RunFacts(_)
            | EventKind::VersionsRead(_)
            | EventKind::ApprovalGiven(_)
            | EventKind::NodeChanged(_)
            | EventKind::PodChanged(_)
            | EventKind::TrafficRead(_)
            | EventKind::CallsMade { .. } => Ok(()),
        }
    }

    fn finish_output(&mut self, _view: &RunView) -> io::Result<()> {
        self.out.flush()
    }
}
