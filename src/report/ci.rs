//! The marks of CI systems: groups, annotations and a step summary on GitHub, sections on GitLab.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::markdown::render_markdown;
use super::sink::EventSink;
use super::view::RunView;
use super::wording::tidy_text;
use crate::event::{EventKind, RunEvent};

/// GitHub: each step is a group that folds, notices are annotations, and the table goes into the step summary.
pub struct GithubSink<O> {
    out: O,
    summary: Option<PathBuf>,
    is_group_open: bool,
}

impl<O: Write + Send> GithubSink<O> {
    /// Groups and annotations go to `out`, before the lines; the table to the file that `GITHUB_STEP_SUMMARY` names.
    pub fn new(out: O, summary: Option<PathBuf>) -> Self {
        Self {
            out,
            summary,
            is_group_open: false,
        }
    }

    fn close_group(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_group_open) {
            writeln!(self.out, "::endgroup::")?;
        }
        Ok(())
    }
}

impl<O: Write + Send> EventSink for GithubSink<O> {
    fn sink_name(&self) -> &'static str {
        "github"
    }

    fn show_event(&mut self, view: &RunView, event: &RunEvent) -> io::Result<()> {
        match step_boundary(view, &event.kind) {
            Some(StepBoundary::Begins { title, .. }) => {
                self.close_group()?;
                self.is_group_open = true;
                writeln!(self.out, "::group::{}", escape_data(&title))
            }
            Some(StepBoundary::Ends) => self.close_group(),
            // What ends a run is annotated by the command, once.
            None => {
                if let EventKind::Notice { text, .. } = &event.kind {
                    let line = format_annotation("notice", "eksup", &tidy_text(text));
                    writeln!(self.out, "{line}")?;
                }
                Ok(())
            }
        }
    }

    fn finish_output(&mut self, view: &RunView) -> io::Result<()> {
        self.close_group()?;
        self.out.flush()?;
        let Some(path) = self.summary.as_ref().filter(|_| !view.run.is_empty()) else {
            return Ok(());
        };
        append_summary(path, &render_markdown(view))
    }
}

/// Adds `markdown` to the step summary.
pub fn append_summary(path: &Path, markdown: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    writeln!(file, "{markdown}")
}

/// Where a step's lines begin and end in a log.
enum StepBoundary {
    Begins { step: String, title: String },
    Ends,
}

/// Returns whether the lines of a step begin or end with this event. The line that tells the end stands below the fold.
fn step_boundary(view: &RunView, kind: &EventKind) -> Option<StepBoundary> {
    // A step that the route does not have, such as one of a later version, has its id for a title.
    let begins = |step: &str, ahead: &str| {
        let (place, title) = match view.find_step(step) {
            Some((at, known)) => (
                format!("[{at}/{}] ", view.steps.len()),
                known.title.as_str(),
            ),
            None => (String::new(), step),
        };
        Some(StepBoundary::Begins {
            step: step.to_owned(),
            title: format!("{place}{ahead}{title}"),
        })
    };
    match kind {
        EventKind::StepStarted { step, .. } => begins(step, ""),
        EventKind::UndoBegan { step } => begins(step, "Roll back: "),
        // A pause and the end of the run close the section of the step that was open.
        EventKind::StepDone { .. }
        | EventKind::StepSkipped { .. }
        | EventKind::StepFailed { .. }
        | EventKind::UndoDone { .. }
        | EventKind::UndoFailed { .. }
        | EventKind::RunPaused { .. }
        | EventKind::RunClosed { .. } => Some(StepBoundary::Ends),
        EventKind::RunOpened { .. }
        | EventKind::RunResumed { .. }
        | EventKind::ActBegan { .. }
        | EventKind::Retrying { .. }
        | EventKind::Progress(_)
        | EventKind::Notice { .. }
        | EventKind::RunFacts(_)
        | EventKind::VersionsRead(_)
        | EventKind::ApprovalGiven(_)
        | EventKind::NodeChanged(_)
        | EventKind::PodChanged(_)
        | EventKind::TrafficRead(_)
        | EventKind::CallsMade { .. } => None,
    }
}

fn escape_data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// A workflow command, escaped as GitHub's runner unescapes it.
pub fn format_annotation(level: &str, title: &str, text: &str) -> String {
    let property = escape_data(title).replace(':', "%3A").replace(',', "%2C");
    format!("::{level} title={property}::{}", escape_data(text))
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

    fn show_event(&mut self, view: &RunView, event: &RunEvent) -> io::Result<()> {
        match step_boundary(view, &event.kind) {
            Some(StepBoundary::Begins { step, title }) => {
                self.close_section(event)?;
                // GitLab takes no other characters in a section's name.
                let known = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
                let id: String = step
                    .chars()
                    .map(|c| if known(c) { c } else { '_' })
                    .collect();
                let at = event.at.as_second();
                writeln!(
                    self.out,
                    "\u{1b}[0Ksection_start:{at}:{id}[collapsed=true]\r\u{1b}[0K{title}"
                )?;
                self.open = Some(id);
                Ok(())
            }
            Some(StepBoundary::Ends) => self.close_section(event),
            None => Ok(()),
        }
    }

    fn finish_output(&mut self, _view: &RunView) -> io::Result<()> {
        self.out.flush()
    }
}
