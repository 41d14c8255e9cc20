//! Where a run's words go.

use std::path::Path;

use super::error::RunError;
use crate::report::EventSink;

/// Where a run's words go: the terminal of a command.
pub trait RunOutput: Send + Sync {
    /// Prints words beside the result.
    fn print_note(&self, text: &str);

    /// Opens the sinks of a run. Nothing is recorded without a folder.
    fn open_sinks(&self, record: Option<&Path>) -> Result<Vec<Box<dyn EventSink>>, RunError>;
}
