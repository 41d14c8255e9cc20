//! Records in a local file, one a line: the full story for the report, and a store of its own.
//!
//! A record is on the disk before [`FileLog::append_record`] returns. A process that dies while writing leaves a torn last
//! line; it is dropped on read and cut off before the next append. Any other bad line is an error with its number.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::error::JournalError;
use super::record::Record;
use super::run_store::StoreFuture;
use super::state::RunState;
use super::store::{JournalStore, MakeRecord};

/// A local file with one record a line, for the report. The run does not depend on it.
#[derive(Debug)]
pub struct FileLog {
    path: PathBuf,
    file: File,
}

impl FileLog {
    /// Opens the file, creating it and its folder, and cuts off a torn last line.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io {
            path: path.to_owned(),
            source,
        };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(folder) = folder {
            fs::create_dir_all(folder).map_err(io)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(io)?;
        // A torn last line is of a process that died while it wrote. Cut off, the next record begins on a line of its
        // own.
        let bytes = fs::read(path).map_err(io)?;
        let whole = whole_lines(&bytes).len();
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(io)?;
            file.sync_data().map_err(io)?;
        }
        // A new file is only there after a crash once its folder says so.
        File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|d| d.sync_all())
            .map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Writes one record to the disk.
    pub fn append_record(&mut self, record: &Record) -> Result<(), JournalError> {
        let io = |source| JournalError::Io {
            path: self.path.clone(),
            source,
        };
        let mut line = serde_json::to_vec(record).map_err(|e| io(e.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(io)?;
        self.file.sync_data().map_err(io)
    }
}

/// Reads every record of a file; none when there is no file.
pub fn read_records(path: &Path) -> Result<Vec<Record>, JournalError> {
    match fs::read(path) {
        Ok(bytes) => parse_records(path, &bytes),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(JournalError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

fn parse_records(path: &Path, bytes: &[u8]) -> Result<Vec<Record>, JournalError> {
    whole_lines(bytes)
        .split(|b| *b == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(i, line)| {
            serde_json::from_slice(line).map_err(|e| JournalError::BadLine {
                path: path.to_owned(),
                number: i + 1,
                why: e.to_string(),
            })
        })
        .collect()
}

/// The lines that were written to their end.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    &bytes[..end]
}

impl JournalStore for FileLog {
    fn load_state(&mut self) -> StoreFuture<'_, Result<Option<RunState>, JournalError>> {
        Box::pin(async move { RunState::fold_records(&read_records(&self.path)?) })
    }

    fn save_record<'a>(
        &'a mut self,
        make: &'a MakeRecord<'a>,
    ) -> StoreFuture<'a, Result<(Record, RunState), JournalError>> {
        Box::pin(async move {
            let made = make()?;
            self.append_record(&made.0)?;
            Ok(made)
        })
    }
}
