//! The event stream in a local file, for `eksup report`. It goes on across processes of the same run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::json;
use super::sink::EventSink;
use super::view::RunView;
use crate::event::{EventKind, RunEvent};

/// Writes `<dir>/<run>/events.jsonl`, from the run's first event on.
pub struct EventRecorder {
    dir: PathBuf,
    file: Option<File>,
    early: Vec<RunEvent>,
}

impl EventRecorder {
    /// Records below `dir`; the folder is made when the run has a name.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            file: None,
            early: Vec::new(),
        }
    }

    fn open_file(&mut self, run: &str) -> io::Result<File> {
        let folder = self.dir.join(run);
        fs::create_dir_all(&folder)?;
        let path = folder.join("events.jsonl");
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        if file.metadata()?.len() == 0 {
            json::write_line(&mut file, &json::version_line())?;
        }
        for event in std::mem::take(&mut self.early) {
            json::write_line(&mut file, &event)?;
        }
        Ok(file)
    }
}

impl EventSink for EventRecorder {
    fn sink_name(&self) -> &'static str {
        "the event file"
    }

    fn show_event(&mut self, _view: &RunView, event: &RunEvent) -> io::Result<()> {
        if let EventKind::RunOpened { run, .. } | EventKind::RunResumed { run, .. } = &event.kind {
            self.file = Some(self.open_file(run)?);
        }
        match &mut self.file {
            Some(file) => json::write_line(file, event),
            None => {
                self.early.push(event.clone());
                Ok(())
            }
        }
    }

    fn finish_output(&mut self, _view: &RunView) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

/// Reads a recorded stream. Lines of unknown types are skipped, as the schema asks of every reader; a torn last line
/// too.
pub fn read_events(path: &Path) -> io::Result<Vec<RunEvent>> {
    let text = fs::read_to_string(path)?;
    let mut events = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let value: serde_json::Value = match serde_json::from_str(line) {
            Ok(value) => value,
            Err(_) if number + 1 == text.lines().count() && !text.ends_with('\n') => break,
            Err(error) => {
                return Err(io::Error::other(format!(
                    "line {} is no event: {error}",
                    number + 1
                )));
            }
        };
        if let Ok(event) = serde_json::from_value(value) {
            events.push(event);
        }
    }
    Ok(events)
}
