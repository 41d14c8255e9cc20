//! `eksup report`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::context::Context;
use super::error::{CliError, Kind};
use super::start::usage;
use crate::report::{View, file, html};

/// Write one self-contained page: timeline, traffic, drains, waits and why
///
/// It is made from the events that a run left in its folder; nothing is asked of the cluster.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A run's folder or its `events.jsonl`; without it, the newest run in the run folder
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
    /// The page
    #[arg(short, long, value_name = "FILE.html")]
    output: PathBuf,
}

/// Writes the page.
pub fn run(cx: &Context, args: ReportArgs) -> Result<(), CliError> {
    let path = match args.run {
        Some(path) if path.is_dir() => path.join("events.jsonl"),
        Some(path) => path,
        None => newest(&cx.global.run_dir)?,
    };
    let events =
        file::read(&path).map_err(|e| usage(format!("cannot read {}: {e}", path.display())))?;
    let view = View::of(&events);
    if view.run.is_empty() {
        return Err(usage(format!("{} has no run in it", path.display()))
            .hint("name the `events.jsonl` of a run, or its folder"));
    }
    std::fs::write(&args.output, html::html(&view)).map_err(|e| {
        CliError::new(
            Kind::Unexpected,
            format!("cannot write {}: {e}", args.output.display()),
        )
    })?;
    cx.ui.say(&format!(
        "wrote {} (run {})",
        args.output.display(),
        view.run
    ));
    Ok(())
}

/// Runs are named by when they began.
fn newest(dir: &Path) -> Result<PathBuf, CliError> {
    let runs = std::fs::read_dir(dir).into_iter().flatten();
    runs.filter_map(|entry| entry.ok().map(|e| e.path().join("events.jsonl")))
        .filter(|path| path.is_file())
        .max()
        .ok_or_else(|| {
            usage(format!("there is no run in `{}`", dir.display()))
                .hint("name one with --run, or the folder of runs with --run-dir")
        })
}
