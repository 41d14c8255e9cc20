//! Where words go: results on stdout, everything else on stderr, in the form that was asked for.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use indicatif::ProgressDrawTarget;

use super::args::{Color, Format, Global};
use super::error::{CliError, Kind};
use crate::report::bars::Bars;
use crate::report::ci::{Github, Gitlab, annotation};
use crate::report::file::Recorder;
use crate::report::json::{self, Json};
use crate::report::lines::Lines;
use crate::report::markdown::Markdown;
use crate::report::{Paint, Sink};

/// What of the environment changes how things are said. Read once.
#[derive(Clone, Debug, Default)]
pub struct Env {
    pub no_color: bool,
    pub ci: bool,
    pub github: bool,
    pub gitlab: bool,
    pub github_summary: Option<PathBuf>,
    pub stdin_terminal: bool,
    pub stderr_terminal: bool,
    pub stdout_terminal: bool,
}

impl Env {
    /// Reads the environment.
    pub fn read() -> Self {
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
            stdin_terminal: io::stdin().is_terminal(),
            stderr_terminal: io::stderr().is_terminal(),
            stdout_terminal: io::stdout().is_terminal(),
        }
    }
}

/// How things are said.
#[derive(Clone, Debug)]
pub struct Ui {
    pub format: Format,
    pub env: Env,
    pub bars: bool,
    /// Colours on stderr and on stdout.
    pub paint: Paint,
    pub out_paint: Paint,
}

impl Ui {
    /// Decides once how things are said.
    pub fn new(global: &Global, env: Env) -> Self {
        let color = |terminal: bool| match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !env.no_color,
        };
        Self {
            format: global.format.general().unwrap_or(Format::Text),
            bars: env.stderr_terminal && !env.ci && !global.no_progress,
            paint: Paint {
                on: color(env.stderr_terminal),
            },
            out_paint: Paint {
                on: color(env.stdout_terminal),
            },
            env,
        }
    }

    /// A result, on stdout.
    pub fn out(&self, text: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(stdout_failed)
    }

    /// One JSON object on a line of stdout.
    pub fn out_json(&self, value: &impl serde::Serialize) -> Result<(), CliError> {
        json::write(&mut io::stdout().lock(), value).map_err(stdout_failed)
    }

    /// Words beside the result, on stderr. Nobody listening is no failure.
    pub fn say(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// The same, where there is no `Ui` at hand.
    pub fn complain(text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// The last word of a command that does not end with 0.
    pub fn fail(&self, error: &CliError) {
        if error.silent {
            return;
        }
        if self.format == Format::Json {
            let _ = json::write(&mut io::stdout().lock(), &error.json());
        }
        if self.env.github {
            self.annotate(error);
        }
        let _ = write!(io::stderr().lock(), "{}", error.text(self.paint, 100));
    }

    fn annotate(&self, error: &CliError) {
        let mut err = io::stderr().lock();
        if let Some(plan) = &error.plan {
            for p in &plan.problems {
                let level = format!(
                    "error file={},line={},col={}",
                    plan.name, p.at.line, p.at.column
                );
                let line =
                    annotation(&level, p.code, &p.to_string()).replacen(" title=", ",title=", 1);
                let _ = writeln!(err, "{line}");
            }
        } else if error.kind != Kind::ChangesPending {
            let _ = writeln!(err, "{}", annotation("error", "eksup", &error.message));
        }
    }

    /// Asks a question on the terminal; only `yes` is yes. The answer is waited for beside the runtime, so that a signal
    /// is heard meanwhile.
    pub async fn confirm(&self, question: &str) -> Result<bool, CliError> {
        let _ = write!(io::stderr().lock(), "{question} Only `yes` is accepted: ");
        let answer = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            io::stdin().read_line(&mut answer).map(|_| answer)
        });
        let read = answer.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        let answer =
            read.map_err(|e| CliError::new(Kind::Usage, format!("no answer could be read: {e}")))?;
        Ok(answer.trim() == "yes")
    }

    /// The sinks of a run. Nothing is recorded without a folder.
    pub fn sinks(&self, record: Option<&std::path::Path>) -> Result<Vec<Box<dyn Sink>>, CliError> {
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if self.env.gitlab {
            sinks.push(Box::new(Gitlab::new(io::stderr())));
        }
        if self.bars {
            sinks.push(Box::new(Bars::new(
                ProgressDrawTarget::stderr(),
                self.paint,
            )));
        } else {
            sinks.push(Box::new(Lines::new(io::stderr(), self.paint)));
        }
        match self.format {
            Format::Text => {}
            Format::Json => sinks.push(Box::new(Json::new(io::stdout()).map_err(stdout_failed)?)),
            Format::Markdown => sinks.push(Box::new(Markdown::new(io::stdout()))),
        }
        if self.env.github || self.env.github_summary.is_some() {
            let summary = self.env.github_summary.clone();
            sinks.push(Box::new(Github::new(io::stderr(), summary)));
        }
        if let Some(dir) = record {
            sinks.push(Box::new(Recorder::new(dir)));
        }
        Ok(sinks)
    }
}

fn stdout_failed(error: io::Error) -> CliError {
    let mut failed = CliError::new(
        Kind::Unexpected,
        format!("cannot write the result: {error}"),
    );
    failed.silent = error.kind() == io::ErrorKind::BrokenPipe;
    failed
}
