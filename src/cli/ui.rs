//! Where words go: results on stdout, everything else on stderr, in the form that was asked for.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use indicatif::ProgressDrawTarget;

use super::args::{ColorChoice, GlobalArgs, OutputFormat};
use super::error_text::{MAX_SHOWN_PROBLEMS, error_to_json, render_error};
use super::findings;
use super::text_wrap::wrap_lines;
use crate::ready::Finding;
use crate::report::ci::{GithubSink, GitlabSink, append_summary, format_annotation};
use crate::report::json::{self, JsonSink};
use crate::report::lines::LineSink;
use crate::report::markdown::MarkdownSink;
use crate::report::progress_bars::ProgressBars;
use crate::report::recording::EventRecorder;
use crate::report::wording::tidy_text;
use crate::report::{EventSink, Painter};
use crate::run::atomic_file::write_error;
use crate::run::error::{RunError, RunErrorKind};
use crate::run::output::RunOutput;

/// What of the environment changes how things are said. Read once.
#[derive(Clone, Debug, Default)]
pub struct UiEnv {
    pub no_color: bool,
    pub ci: bool,
    pub github: bool,
    pub gitlab: bool,
    pub github_summary: Option<PathBuf>,
    /// The file for a step's outputs.
    pub github_output: Option<PathBuf>,
    pub stdin_terminal: bool,
    pub stderr_terminal: bool,
    pub stdout_terminal: bool,
}

impl UiEnv {
    /// Reads once what of the environment and the terminals changes the output.
    pub fn read_environment() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let on =
            |name| std::env::var(name).is_ok_and(|v| !v.is_empty() && v != "false" && v != "0");
        Self {
            no_color: set("NO_COLOR") || std::env::var("TERM").is_ok_and(|t| t == "dumb"),
            ci: on("CI"),
            github: on("GITHUB_ACTIONS"),
            gitlab: on("GITLAB_CI"),
            github_summary: std::env::var_os("GITHUB_STEP_SUMMARY")
                .filter(|v| !v.is_empty())
                .map(PathBuf::from),
            github_output: std::env::var_os("GITHUB_OUTPUT")
                .filter(|v| !v.is_empty())
                .map(PathBuf::from),
            stdin_terminal: io::stdin().is_terminal(),
            stderr_terminal: io::stderr().is_terminal(),
            stdout_terminal: io::stdout().is_terminal(),
        }
    }
}

/// Where a command's words go, and in which form.
#[derive(Clone, Debug)]
pub struct Ui {
    pub format: OutputFormat,
    pub env: UiEnv,
    pub bars: bool,
    /// Colours on stderr and on stdout.
    pub paint: Painter,
    pub out_paint: Painter,
    /// Whether it is a rehearsal that is told.
    pub is_rehearsal: bool,
}

impl Ui {
    /// Decides once how things are said.
    pub fn new(global: &GlobalArgs, env: UiEnv) -> Self {
        let color = |terminal: bool| match global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !env.no_color,
        };
        Self {
            format: global.format.general_format().unwrap_or(OutputFormat::Text),
            bars: env.stderr_terminal && !env.ci && !global.no_progress,
            paint: Painter {
                on: color(env.stderr_terminal),
            },
            out_paint: Painter {
                on: color(env.stdout_terminal),
            },
            is_rehearsal: false,
            env,
        }
    }

    /// Writes a result to stdout. A reader that has gone is a silent error.
    pub fn write_result(&self, text: &str) -> Result<(), RunError> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(stdout_failed)
    }

    /// One JSON object on a line of stdout.
    pub fn write_json_line(&self, value: &impl serde::Serialize) -> Result<(), RunError> {
        json::write_line(&mut io::stdout().lock(), value).map_err(stdout_failed)
    }

    /// Words beside the result, on stderr. Nobody listening is no failure.
    pub fn print_note(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Writes a line to standard error where no `Ui` is at hand.
    pub fn print_to_stderr(text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// The last word of a command that does not end with 0.
    pub fn report_error(&self, error: &RunError) {
        if error.silent {
            return;
        }
        if self.format == OutputFormat::Json {
            let _ = json::write_line(&mut io::stdout().lock(), &error_to_json(error));
        }
        if self.env.github {
            self.annotate_error(error);
        }
        let _ = write!(
            io::stderr().lock(),
            "{}",
            render_error(error, self.paint, 100, self.is_rehearsal)
        );
    }

    /// Tells a pause that was asked for as a result: to people, to machines and to the job.
    pub fn report_planned_pause(&self, pause: &RunError) -> Result<(), RunError> {
        self.report_error(pause);
        let Some(path) = &self.env.github_output else {
            return Ok(());
        };
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(b"paused=true\n"))
            .map_err(|error| write_error(path, &error))
    }

    fn annotate_error(&self, error: &RunError) {
        let mut err = io::stderr().lock();
        // A problem of a plan is shown at its line in the change under review.
        if let Some(plan) = &error.plan {
            for p in plan.problems.iter().take(MAX_SHOWN_PROBLEMS) {
                let level = format!(
                    "error file={},line={},col={}",
                    plan.name, p.at.line, p.at.column
                );
                let line = format_annotation(&level, p.code, &p.to_string())
                    .replacen(" title=", ",title=", 1);
                let _ = writeln!(err, "{line}");
            }
            return;
        }
        let level = match error.kind {
            // Findings have an annotation each.
            RunErrorKind::ChangesPending | RunErrorKind::NotReady => return,
            RunErrorKind::Paused | RunErrorKind::Cancelled => "notice",
            RunErrorKind::RolledBack => "warning",
            RunErrorKind::Unexpected
            | RunErrorKind::Usage
            | RunErrorKind::PlanInvalid
            | RunErrorKind::Stuck
            | RunErrorKind::Locked
            | RunErrorKind::Mismatch
            | RunErrorKind::Expired => "error",
        };
        // A rehearsal's failure must not look like one of a cluster.
        let title = if self.is_rehearsal {
            "eksup rehearsal"
        } else {
            "eksup"
        };
        let line = format_annotation(level, title, &tidy_text(&error.message));
        let _ = writeln!(err, "{line}");
    }

    /// Annotates findings and adds `markdown` to the step summary, where GitHub runs this.
    pub fn annotate_findings(&self, found: &[Finding], markdown: &str) {
        if self.env.github {
            for line in findings::annotate_findings(found) {
                self.print_note(&line);
            }
        }
        if let Some(path) = &self.env.github_summary
            && let Err(error) = append_summary(path, markdown)
        {
            self.print_note(&format!(
                "warning: the step summary was not written: {error}"
            ));
        }
    }

    /// Asks a question on the terminal; only `yes` is yes. The answer is waited for beside the runtime, so that a signal
    /// is heard meanwhile.
    pub async fn confirm(&self, question: &str) -> Result<bool, RunError> {
        let _ = write!(io::stderr().lock(), "{question} Only `yes` is accepted: ");
        let answer = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            io::stdin().read_line(&mut answer).map(|_| answer)
        });
        let read = answer.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        let answer = read.map_err(|e| {
            RunError::new(RunErrorKind::Usage, format!("no answer could be read: {e}"))
        })?;
        Ok(answer.trim() == "yes")
    }
}

impl RunOutput for Ui {
    fn print_note(&self, text: &str) {
        Self::print_note(self, text);
    }

    fn open_sinks(
        &self,
        record: Option<&std::path::Path>,
    ) -> Result<Vec<Box<dyn EventSink>>, RunError> {
        let mut sinks: Vec<Box<dyn EventSink>> = Vec::new();
        // The order matters on a shared stream: a section opens before its lines, and the record comes last, as it may
        // fail.
        if self.env.gitlab {
            sinks.push(Box::new(GitlabSink::new(io::stderr())));
        }
        if self.env.github || self.env.github_summary.is_some() {
            let summary = self.env.github_summary.clone();
            sinks.push(Box::new(GithubSink::new(io::stderr(), summary)));
        }
        if self.bars {
            sinks.push(Box::new(ProgressBars::new(
                ProgressDrawTarget::stderr(),
                Box::new(terminal_width),
                self.paint,
            )));
        } else {
            sinks.push(Box::new(LineSink::new(io::stderr(), self.paint)));
        }
        // Results go to stdout and nothing else does, so that they can be read by programs.
        match self.format {
            OutputFormat::Text => {}
            OutputFormat::Json => sinks.push(Box::new(
                JsonSink::new(io::stdout()).map_err(stdout_failed)?,
            )),
            OutputFormat::Markdown => sinks.push(Box::new(MarkdownSink::new(io::stdout()))),
        }
        if let Some(dir) = record {
            sinks.push(Box::new(EventRecorder::new(dir)));
        }
        Ok(sinks)
    }
}

/// Columns of the terminal on stderr; 80 where it does not say.
pub fn terminal_width() -> usize {
    let size = console::Term::stderr().size_checked();
    size.map_or(80, |(_, columns)| usize::from(columns))
}

/// Text whose lines are no wider than the terminal; as it is where there is none.
pub fn fit_terminal(text: &str, terminal: &console::Term) -> String {
    match terminal.size_checked() {
        Some((_, columns)) => wrap_lines(text, usize::from(columns).max(40)),
        None => text.to_owned(),
    }
}

/// Columns of the terminal on stdout, or those that the environment names; 80 where neither does.
pub fn page_columns() -> usize {
    let size = console::Term::stdout().size_checked();
    let named = || std::env::var("COLUMNS").ok()?.parse().ok();
    size.map(|(_, columns)| usize::from(columns))
        .or_else(named)
        .unwrap_or(80)
}

fn stdout_failed(error: io::Error) -> RunError {
    let mut failed = RunError::new(
        RunErrorKind::Unexpected,
        format!("cannot write the result: {error}"),
    );
    failed.silent = error.kind() == io::ErrorKind::BrokenPipe;
    failed
}
