//! The event stream in a local file, for `eksup report`. It goes on across processes of the same run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::json;
use super::sink::Sink;
use super::view::View;
use crate::event::{Event, Kind};

/// Writes `<dir>/<run>/events.jsonl`, from the run's first event on.
pub struct Recorder {
    dir: PathBuf,
    file: Option<File>,
    early: Vec<Event>,
}

impl Recorder {
    /// Records below `dir`; the folder is made when the run has a name.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            file: None,
            early: Vec::new(),
        }
    }

    fn open(&mut self, run: &str) -> io::Result<File> {
        let folder = self.dir.join(run);
        fs::create_dir_all(&folder)?;
        let path = folder.join("events.jsonl");
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        if file.metadata()?.len() == 0 {
            json::write(&mut file, &json::version())?;
        }
        for event in std::mem::take(&mut self.early) {
            json::write(&mut file, &event)?;
        }
        Ok(file)
    }
}

impl Sink for Recorder {
    fn name(&self) -> &'static str {
        "the event file"
    }

    fn event(&mut self, _view: &View, event: &Event) -> io::Result<()> {
        if let Kind::RunOpened { run, .. } | Kind::RunResumed { run, .. } = &event.kind {
            self.file = Some(self.open(run)?);
        }
        match &mut self.file {
            Some(file) => json::write(file, event),
            None => {
                self.early.push(event.clone());
                Ok(())
            }
        }
    }

    fn finish(&mut self, _view: &View) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

/// Reads a recorded stream. Lines of unknown types are skipped, as the schema asks of every reader; a torn last line
/// too.
pub fn read(path: &Path) -> io::Result<Vec<Event>> {
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
