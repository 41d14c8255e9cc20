//! From the command line to an exit code.

use std::process::ExitCode;

use clap::Parser;

use super::args::{Cli, Command, Format};
use super::context::Context;
use super::error::{CliError, Kind};
use super::ui::{Env, Ui};
use super::{
    apply, approve, check, completions, init, man, plan, policy, rehearse, report, rollback,
    schema, snapshot, status, twin,
};

/// Parses, runs, and ends with the exit code. No runtime is made before the arguments are known to need one.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let code = if error.use_stderr() {
                Kind::Usage.code()
            } else {
                0
            };
            return ExitCode::from(code);
        }
    };
    let ui = Ui::new(&cli.global, Env::read());
    let cx = Context::new(cli.global, ui);
    let ended = cx.log_to_file().and_then(|()| run(&cx, cli.command));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.silent => ExitCode::SUCCESS,
        Err(error) => {
            let unchanged =
                "nothing was changed by this command; traffic and nodes are as they were";
            let error = error.standing(vec![unchanged.to_owned()]).or_next(&typed());
            cx.ui.fail(&error);
            ExitCode::from(error.kind.code())
        }
    }
}

/// The command as it was typed: what one gives again once the cause is mended.
fn typed() -> String {
    let word = |w: String| {
        let plain = w
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./=:,@".contains(c));
        if plain && !w.is_empty() {
            w
        } else {
            format!("'{}'", w.replace('\'', r"'\''"))
        }
    };
    let words = std::env::args().skip(1).map(word);
    std::iter::once("eksup".to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

fn run(cx: &Context, command: Command) -> Result<(), CliError> {
    if cx.global.format.general().is_none() && !matches!(command, Command::Policy(_)) {
        return Err(usage(
            "only `eksup policy` can be written so; use --format text, json or markdown",
        ));
    }
    match command {
        Command::Init(args) => online(init::run(cx, args)),
        Command::Check(args) => check::run(cx, args),
        Command::Plan(args) => plan::run(cx, args),
        Command::Apply(args) => online(apply::run(cx, args)),
        Command::Approve(args) => online(approve::run(cx, args)),
        Command::Status(args) => online(status::run(cx, args)),
        Command::Rollback(args) => online(rollback::run(cx, args)),
        Command::Rehearse(args) => rehearse::run(cx, args),
        Command::Snapshot(args) => online(snapshot::run(cx, args)),
        Command::Report(args) => report::run(cx, args),
        Command::Policy(args) => policy::run(cx, args),
        Command::Twin(args) => online(twin::run(cx, args)),
        Command::Schema(args) => schema::run(cx, args),
        Command::Completions(args) => completions::run(cx, args),
        Command::Man(args) => man::run(cx, args),
    }
}

/// Runs what needs the network.
pub(super) fn online<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| CliError::new(Kind::Unexpected, format!("no runtime: {e}")))?;
    let ended = runtime.block_on(work);
    // Calls that hang must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    ended
}

/// Usage that only the whole picture shows to be wrong.
pub(super) fn usage(message: impl Into<String>) -> CliError {
    CliError::new(Kind::Usage, message)
}

/// For results that have no Markdown of their own.
pub(super) fn no_markdown(format: Format) -> Result<(), CliError> {
    match format {
        Format::Markdown => Err(usage(
            "this result has no Markdown form; use --format text or json",
        )),
        Format::Text | Format::Json => Ok(()),
    }
}
