//! `eksup report`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::OutputFormat;
use super::context::CommandContext;
use crate::report::{page, recording};
use crate::run::error::{RunError, RunErrorKind, usage_error};

/// Write a run's report: one self-contained page, or Markdown
///
/// It has timeline, nodes, pods, traffic, waits, findings, calls and versions, as the events in the run's folder tell them;
/// no call is made to the cluster.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A run's folder or its `events.jsonl`; the default is the newest run in the run folder
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
    /// The file to write; Markdown goes to standard output without it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes one page about a run, from its recorded events.
pub fn write_report(cx: &CommandContext, args: ReportArgs) -> Result<(), RunError> {
    // A run's folder, its file, or the newest run there is.
    let path = match args.run {
        Some(path) if path.is_dir() => path.join("events.jsonl"),
        Some(path) => path,
        None => newest_recording(&cx.global.run_dir)?,
    };
    let events = recording::read_events(&path)
        .map_err(|e| usage_error(format!("cannot read {}: {e}", path.display())))?;
    let report = page::build_report(&events);
    // A file of another kind, or one cut off before its first event, would give an empty page that looks like a run.
    if report.run.is_empty() {
        return Err(usage_error(format!("{} has no run in it", path.display()))
            .with_hint("name the `events.jsonl` of a run, or its folder"));
    }
    let text = match cx.ui.format {
        OutputFormat::Markdown => page::render_report_markdown(&report),
        OutputFormat::Text => page::render_page(&report),
        OutputFormat::Json => {
            return Err(usage_error("a report has no JSON form")
                .with_hint(format!("the run's events are in {}", path.display())));
        }
    };
    // A page of HTML is nothing to print on a terminal; Markdown is.
    let output = match (args.output, cx.ui.format) {
        (Some(output), _) => output,
        (None, OutputFormat::Markdown) => return cx.ui.write_result(&text),
        (None, OutputFormat::Text | OutputFormat::Json) => {
            return Err(usage_error("name the page to write with --output")
                .with_next_command("eksup report -o report.html"));
        }
    };
    std::fs::write(&output, text).map_err(|e| {
        RunError::new(
            RunErrorKind::Unexpected,
            format!("cannot write {}: {e}", output.display()),
        )
    })?;
    cx.ui
        .print_note(&format!("wrote {} (run {})", output.display(), report.run));
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
