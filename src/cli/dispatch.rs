//! From the command line to an exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

use super::commands::{Cli, Command};
use super::context::{CommandContext, quote_for_shell};
use super::runtime::run_with_network;
use super::ui::{Ui, UiEnv};
use super::{
    apply, approve, check, completions, handback, init, man, plan, policy, rehearse, report,
    rollback, schema, snapshot, status, twin,
};
use crate::run::error::usage_error;
use crate::run::error::{RunError, RunErrorKind};

/// Parses, runs, and ends with the exit code. No runtime is made before the arguments are known to need one.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            if let Some(hint) = habit_hint(&error) {
                // Standard error that is gone takes no message either.
                let _ = writeln!(std::io::stderr(), "\nhint: {hint}");
            }
            let code = if error.use_stderr() {
                RunErrorKind::Usage.exit_code()
            } else {
                0
            };
            return ExitCode::from(code);
        }
    };
    let mut ui = Ui::new(&cli.global, UiEnv::read_environment());
    ui.is_rehearsal = matches!(cli.command, Command::Rehearse(_));
    let cx = CommandContext::new(cli.global, ui);
    // Every error leaves here with its kind's exit code and a next command, whatever it came through.
    let may_change = matches!(
        cli.command,
        Command::Apply(_) | Command::Rollback(_) | Command::Approve(_)
    );
    let ended = cx
        .log_to_file()
        .and_then(|()| run_command(&cx, cli.command));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.silent => ExitCode::SUCCESS,
        Err(error) => {
            // A wrong command line is not given again, and a command that changes nothing need not say so.
            let mut error = error;
            if may_change {
                let unchanged =
                    "nothing was changed by this command; traffic and nodes are unchanged";
                error = error.with_state(vec![unchanged.to_owned()]);
            }
            if error.kind != RunErrorKind::Usage {
                error = error.or_next_command(&typed_command());
            }
            cx.ui.report_error(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

/// What to write here instead of what other tools call it.
fn habit_hint(error: &clap::Error) -> Option<&'static str> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let ContextValue::String(argument) = error.get(ContextKind::InvalidArg)? else {
        return None;
    };
    match argument.as_str() {
        "-o" | "--output" => Some("results are written as JSON with --format json"),
        "--json" => Some("write --format json"),
        "-f" | "--file" => Some("the plan file is given without a flag"),
        "--yes" | "-auto-approve" => Some("write --auto-approve, or -y"),
        _ => None,
    }
}

/// The command as it was typed: what one gives again once the cause is fixed.
fn typed_command() -> String {
    let typed = std::env::args_os()
        .skip(1)
        .map(|w| w.to_string_lossy().into_owned());
    let words: Vec<String> = std::iter::once("eksup".to_owned()).chain(typed).collect();
    quote_for_shell(&words)
}

fn run_command(cx: &CommandContext, command: Command) -> Result<(), RunError> {
    // The flag is global, and two of its formats are of one command alone.
    if cx.global.format.general_format().is_none() && !matches!(command, Command::Policy(_)) {
        return Err(usage_error(
            "only `eksup policy` has this format; use --format text, json or markdown",
        ));
    }
    // Commands that may do without a network start their runtime themselves.
    match command {
        Command::Init(args) => run_with_network(init::init_plan(cx, args)),
        Command::Check(args) => check::check_cluster(cx, args),
        Command::Plan(args) => plan::show_plan(cx, args),
        Command::Apply(args) => run_with_network(apply::apply_plan(cx, args)),
        Command::Approve(args) => run_with_network(approve::approve_step(cx, args)),
        Command::Status(args) => run_with_network(status::show_status(cx, args)),
        Command::Rollback(args) => run_with_network(rollback::roll_back_run(cx, args)),
        Command::Handback(args) => run_with_network(handback::print_handback(cx, args)),
        Command::Rehearse(args) => rehearse::rehearse_plan(cx, args),
        Command::Snapshot(args) => run_with_network(snapshot::take_snapshot(cx, args)),
        Command::Report(args) => report::write_report(cx, args),
        Command::Policy(args) => policy::print_policy(cx, args),
        Command::Twin(args) => run_with_network(twin::serve_twin(cx, args)),
        Command::Schema(args) => schema::print_schema(cx, args),
        Command::Completions(args) => completions::print_completions(cx, Cli::command(), args),
        Command::Man(args) => man::write_man_pages(cx, Cli::command(), args),
    }
}
