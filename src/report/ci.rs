//! The marks of CI systems: annotations and a step summary on GitHub, sections on GitLab.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;

use super::markdown::markdown;
use super::sink::Sink;
use super::view::View;
use crate::event::{Event, Kind};

/// GitHub: errors and warnings as annotations, and the table in the step summary.
pub struct Github<O> {
    out: O,
    summary: Option<PathBuf>,
}

impl<O: Write + Send> Github<O> {
    /// Annotations go to `out`, the table to the file that `GITHUB_STEP_SUMMARY` names.
    pub fn new(out: O, summary: Option<PathBuf>) -> Self {
        Self { out, summary }
    }
}

impl<O: Write + Send> Sink for Github<O> {
    fn name(&self) -> &'static str {
        "github"
    }

    fn event(&mut self, _view: &View, event: &Event) -> io::Result<()> {
        let (level, title, text) = match &event.kind {
            Kind::StepFailed { step, error } => ("error", format!("eksup: {step} failed"), error),
            Kind::UndoFailed { step, error } => (
                "error",
                format!("eksup: {step} could not be taken back"),
                error,
            ),
            Kind::Notice { text, .. } => ("warning", "eksup".to_owned(), text),
            Kind::RunPaused { why, .. } => ("warning", "eksup: paused".to_owned(), why),
            Kind::RunOpened { .. }
            | Kind::RunResumed { .. }
            | Kind::StepStarted { .. }
            | Kind::ActBegan { .. }
            | Kind::StepDone { .. }
            | Kind::StepSkipped { .. }
            | Kind::Retrying { .. }
            | Kind::UndoBegan { .. }
            | Kind::UndoDone { .. }
            | Kind::Progress(_)
            | Kind::RunClosed { .. } => return Ok(()),
        };
        writeln!(self.out, "{}", annotation(level, &title, text))
    }

    fn finish(&mut self, view: &View) -> io::Result<()> {
        self.out.flush()?;
        let Some(path) = self.summary.as_ref().filter(|_| !view.run.is_empty()) else {
            return Ok(());
        };
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(markdown(view).as_bytes())
    }
}

/// A workflow command, escaped as GitHub's runner unescapes it.
pub fn annotation(level: &str, title: &str, text: &str) -> String {
    let data = |s: &str| {
        s.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let property = data(title).replace(':', "%3A").replace(',', "%2C");
    format!("::{level} title={property}::{}", data(text))
}

/// GitLab: each step is a section that folds.
pub struct Gitlab<O> {
    out: O,
    open: Option<String>,
}

impl<O: Write + Send> Gitlab<O> {
    /// Sections go to `out`, before the lines.
    pub fn new(out: O) -> Self {
        Self { out, open: None }
    }

    fn close(&mut self, event: &Event) -> io::Result<()> {
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

impl<O: Write + Send> Sink for Gitlab<O> {
    fn name(&self) -> &'static str {
        "gitlab"
    }

    fn event(&mut self, _view: &View, event: &Event) -> io::Result<()> {
        match &event.kind {
            Kind::StepStarted { step, title } => {
                self.close(event)?;
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
            Kind::RunPaused { .. } | Kind::RunClosed { .. } | Kind::StepFailed { .. } => {
                self.close(event)
            }
            Kind::RunOpened { .. }
            | Kind::RunResumed { .. }
            | Kind::ActBegan { .. }
            | Kind::StepDone { .. }
            | Kind::StepSkipped { .. }
            | Kind::Retrying { .. }
            | Kind::UndoBegan { .. }
            | Kind::UndoDone { .. }
            | Kind::UndoFailed { .. }
            | Kind::Progress(_)
            | Kind::Notice { .. } => Ok(()),
        }
    }

    fn finish(&mut self, _view: &View) -> io::Result<()> {
        self.out.flush()
    }
}
