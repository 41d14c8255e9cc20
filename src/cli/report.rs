//! `eksup report`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::context::CommandContext;
use crate::report::{RunView, html, recording};
use crate::run::error::{RunError, RunErrorKind, usage_error};

/// Write one self-contained page: timeline, traffic, drains, waits and why
///
/// It is made from the events in a run's folder; no call is made to the cluster.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A run's folder or its `events.jsonl`; the default is the newest run in the run folder
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
    /// The page
    #[arg(short, long, value_name = "FILE.html")]
    output: PathBuf,
}

/// Writes one page about a run, from its recorded events.
pub fn write_report(cx: &CommandContext, args: ReportArgs) -> Result<(), RunError> {
    let path = match args.run {
        Some(path) if path.is_dir() => path.join("events.jsonl"),
        Some(path) => path,
        None => newest_recording(&cx.global.run_dir)?,
    };
    let events = recording::read_events(&path)
        .map_err(|e| usage_error(format!("cannot read {}: {e}", path.display())))?;
    let view = RunView::from_events(&events);
    // A file of another kind, or one cut off before its first event, would give an empty page that looks like a run.
    if view.run.is_empty() {
        return Err(usage_error(format!("{} has no run in it", path.display()))
            .with_hint("name the `events.jsonl` of a run, or its folder"));
    }
    std::fs::write(&args.output, html::render_page(&view)).map_err(|e| {
        RunError::new(
            RunErrorKind::Unexpected,
            format!("cannot write {}: {e}", args.output.display()),
        )
    })?;
    cx.ui.print_note(&format!(
        "wrote {} (run {})",
        args.output.display(),
        view.run
    ));
    Ok(())
}

/// Runs are named by when they began.
fn newest_recording(dir: &Path) -> Result<PathBuf, RunError> {
    let runs = std::fs::read_dir(dir).into_iter().flatten();
    runs.filter_map(|entry| entry.ok().map(|e| e.path().join("events.jsonl")))
        .filter(|path| path.is_file())
        .max()
        .ok_or_else(|| {
            usage_error(format!("there is no run in `{}`", dir.display()))
                .with_hint("name one with --run, or the folder of runs with --run-dir")
        })
}
