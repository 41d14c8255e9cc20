//! `eksup apply`.

use clap::Args;

use super::args::PlanArg;
use super::context::CommandContext;
use super::plan_input::read_plan_input;
use super::route_preview::prepare_route;
use super::signals;
use crate::engine::stop;
use crate::plan::plan_digest;
use crate::run::context::{RunCommands, RunContext, RunRequest};
use crate::run::credential_expiry;
use crate::run::error::{RunError, RunErrorKind, usage_error};
use crate::run::execute::execute_run;
use crate::run::holder::make_holder_identity;
use crate::run::run_target::RunTarget;
use crate::run::unless_stopped::unless_stopped;

/// Run or resume the upgrade
///
/// The same command continues a run that was stopped, here or on another machine.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// Do not ask for confirmation; required without a terminal
    #[arg(short = 'y', long, overrides_with = "auto_approve")]
    auto_approve: bool,
    /// Pause after this step
    #[arg(long, value_name = "STEP")]
    until: Option<String>,
    /// End with exit code 0 if the run pauses as the plan or --until asks for: at the end of a window, before an approval,
    /// after a step; as a step of GitHub Actions it has the output `paused`
    #[arg(long, overrides_with = "pause_ok")]
    pause_ok: bool,
    /// Do not require that this workload has as many Ready pods as when the run began, because it was scaled down on
    /// purpose: kind, namespace and name as in the message, such as "StrimziPodSet shop/kafka"
    #[arg(long, value_name = "WORKLOAD")]
    accept_short: Vec<String>,
}

/// The commands of the run: each that goes on with it says again what was said of this one.
fn apply_commands(cx: &CommandContext, args: &ApplyArgs) -> RunCommands {
    let mut flags = Vec::new();
    if args.auto_approve {
        flags.push("--auto-approve".to_owned());
    }
    if args.pause_ok {
        flags.push("--pause-ok".to_owned());
    }
    for workload in &args.accept_short {
        flags.extend(["--accept-short".to_owned(), workload.clone()]);
    }
    cx.run_commands("apply", &args.plan, flags, args.until.as_deref())
}

/// Runs or resumes the upgrade.
pub async fn apply_plan(cx: &CommandContext, args: ApplyArgs) -> Result<(), RunError> {
    // Everything that needs no cluster is checked first, so that a mistake costs nothing.
    let plan_input = read_plan_input(cx, &args.plan)?;
    let commands = apply_commands(cx, &args);
    if !args.auto_approve && !cx.ui.env.stdin_terminal {
        return Err(usage_error(
            "there is no terminal to ask for confirmation: use --auto-approve",
        )
        .with_hint("`eksup plan` shows what would be done")
        .with_next_command(format!("{} --auto-approve", commands.resume)));
    }
    // From here on a signal is heard at any moment, and nothing is changed before the run is open.
    let (asker, stop) = stop::stop_channel();
    signals::listen_for_signals(asker, cx.ui.clone())?;
    let ready = async {
        let (cluster, region) = (&plan_input.plan.cluster, plan_input.plan.region.as_deref());
        let reached = cx.connect_cluster(cluster, region).await?;
        let until = args.until.as_deref();
        // Reading, judging and showing, which change nothing.
        let ahead =
            prepare_route(cx, &reached, &plan_input, until, &commands, Some(&cx.ui)).await?;
        let Some(ahead) = ahead else { return Ok(None) };
        // A session that is too short is told before the question, while another one can still be got.
        if let Some(end) = credential_expiry::read_session_end(&reached).await
            && let Some(note) =
                credential_expiry::expiry_warning(&end, ahead.estimate, reached.clock.now())
        {
            cx.ui.print_note(&note);
        }
        let target = RunTarget::read(&reached).await;
        cx.ui.print_note(&target.describe());
        // Asked last, with the whole route and its findings on the screen.
        let yes = args.auto_approve || cx.ui.confirm("Apply this upgrade?").await?;
        Ok::<_, RunError>(Some((reached, ahead, yes)))
    };
    let Some((reached, route, yes)) = unless_stopped(&stop, ready).await? else {
        return Ok(());
    };
    if !yes {
        return Err(RunError::new(RunErrorKind::Cancelled, "not confirmed")
            .with_next_command(commands.resume));
    }
    let context = RunContext {
        output: &cx.ui,
        reached: &reached,
        stop,
        holder: make_holder_identity(),
        commands,
        record_dir: Some(cx.global.run_dir.clone()),
        accept_short: args.accept_short.clone(),
        live: true,
    };
    let digest = plan_digest(&plan_input.plan);
    let request = RunRequest::Apply {
        plan: &plan_input.plan,
        digest,
        route: route.new_route,
        until: args.until,
        judged: route.judged,
    };
    // A pause that was asked for is a success with `--pause-ok`.
    let view = match execute_run(&context, request).await {
        Err(pause) if args.pause_ok && pause.is_planned_pause => {
            return cx.ui.report_planned_pause(&pause);
        }
        ended => ended?,
    };
    let folder = cx.global.run_dir.join(&view.run);
    cx.ui.print_note(&format!(
        "report: eksup report --run {} -o report.html",
        folder.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::commands::{Cli, Command};
    use super::super::ui::{Ui, UiEnv};
    use super::*;

    #[test]
    fn the_command_that_goes_on_stops_where_this_one_was_to_and_accepts_the_same() {
        let typed = "eksup apply p.yaml --auto-approve --until drain-x --accept-short";
        let words = typed.split(' ').chain(["StatefulSet shop/db"]);
        let cli = Cli::try_parse_from(words).unwrap();
        let Command::Apply(args) = cli.command else {
            panic!("not apply")
        };
        let ui = Ui::new(&cli.global, UiEnv::default());
        let commands = apply_commands(&CommandContext::new(cli.global, ui), &args);
        let beyond = "eksup apply p.yaml --auto-approve --accept-short 'StatefulSet shop/db'";
        assert_eq!(commands.beyond_until, beyond);
        assert_eq!(commands.resume, format!("{beyond} --until drain-x"));
    }
}
