//! `eksup rollback`.

use clap::Args;

use super::args::PlanArg;
use super::context::CommandContext;
use super::signals;
use crate::engine::stop;
use crate::journal::RunState;
use crate::route::Route;
use crate::run::context::{RunContext, RunRequest};
use crate::run::error::{RunError, RunErrorKind, usage_error};
use crate::run::execute::execute_run;
use crate::run::holder::make_holder_identity;
use crate::run::journal_status::status_lines;
use crate::run::rollback_scope;
use crate::run::run_checks::{check_can_roll_back, check_rollback_worthwhile};
use crate::run::run_target::RunTarget;
use crate::run::stored_run::{read_run_state, stored_route};
use crate::run::unless_stopped::unless_stopped;
use crate::run::version_rollback::{check_version_rollback, is_under_way};

/// Roll the run back: traffic and pods return to blue, green is deleted
///
/// Ends with exit code 5 when everything is rolled back that can be; what stays is shown before and after. The control
/// plane and its add-ons stay as they are unless --control-plane is given: blue also works with a newer control plane.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// Also use EKS's own version rollback; refused before anything is changed if it is not possible (the last minor only,
    /// within 7 days after that hop, with no kubelet of that minor left and no rollback insight in ERROR or UNKNOWN)
    #[arg(long)]
    control_plane: bool,
    /// Do not ask for confirmation; required without a terminal
    #[arg(short = 'y', long, overrides_with = "auto_approve")]
    auto_approve: bool,
}

/// What is asked before anything is touched.
pub const ROLLBACK_QUESTION: &str = "Roll this run back?";

/// Returns where the run is, as it is shown before the question.
pub fn describe_run(state: &RunState, route: &Route) -> Vec<String> {
    let mut lines = vec![format!(
        "run {} ({} -> {}):",
        state.run, route.from, route.to
    )];
    lines.extend(
        status_lines(state, route, None)
            .iter()
            .map(|line| format!("  {line}")),
    );
    lines
}

/// Rolls the run of a cluster back, as far as that goes.
pub async fn roll_back_run(cx: &CommandContext, args: RollbackArgs) -> Result<(), RunError> {
    let (cluster, region) = cx.cluster_and_region(&args.plan)?;
    // The flags are part of the command that continues the rollback after a pause.
    let mut flags = Vec::new();
    if args.control_plane {
        flags.push("--control-plane".to_owned());
    }
    if args.auto_approve {
        flags.push("--auto-approve".to_owned());
    }
    let commands = cx.run_commands("rollback", &args.plan, flags, None);
    // Refused before anything is read: a pipeline must not wait for an answer that never comes.
    if !args.auto_approve && !cx.ui.env.stdin_terminal {
        return Err(usage_error(
            "there is no terminal to ask for confirmation: use --auto-approve",
        )
        .with_next_command(format!("{} --auto-approve", commands.resume)));
    }
    let (asker, stop) = stop::stop_channel();
    signals::listen_for_signals(asker, cx.ui.clone())?;
    let reached = unless_stopped(&stop, cx.connect_cluster(&cluster, region.as_deref())).await?;
    // No plan is needed: the run has its own in the checkpoint.
    let Some(state) = unless_stopped(&stop, read_run_state(&reached)).await? else {
        return Err(RunError::new(
            RunErrorKind::Mismatch,
            format!("cluster {cluster} has no run to roll back"),
        )
        .with_next_command(commands.plan));
    };
    // Everything that could refuse comes before the question, and the question before anything is touched.
    check_can_roll_back(&state, &reached.cluster.arn, &commands.plan)?;
    let route = stored_route(&state)?;
    for line in describe_run(&state, &route) {
        cx.ui.print_note(&line);
    }
    let under_way = unless_stopped(&stop, is_under_way(&reached, &state, &route)).await?;
    let control_plane = args.control_plane || under_way;
    if under_way && !args.control_plane {
        cx.ui.print_note(
            "EKS rolls the control plane back already, which cannot be stopped: this goes on as with --control-plane",
        );
    }
    let scope = unless_stopped(
        &stop,
        rollback_scope::read_scope(&reached, &state, &route, control_plane),
    )
    .await?;
    // Nothing that moved workloads is left to roll back: said instead of asked.
    check_rollback_worthwhile(&state, &scope)
        .map_err(|e| e.or_next_command(&cx.command_again("status", &args.plan)))?;
    if control_plane {
        let plain = cx.command_again("rollback", &args.plan);
        check_version_rollback(&reached, &state, &route, &scope, &plain).await?;
    }
    // What is rolled back, what stays and whose cluster it is stand right above the question.
    for line in scope.describe_lines() {
        cx.ui.print_note(&format!("  {line}"));
    }
    let target = unless_stopped(&stop, async {
        Ok::<_, RunError>(RunTarget::read(&reached).await)
    })
    .await?;
    cx.ui.print_note(&target.describe());
    if !args.auto_approve && !unless_stopped(&stop, cx.ui.confirm(ROLLBACK_QUESTION)).await? {
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
        accept_short: Vec::new(),
        live: true,
    };
    execute_run(&context, RunRequest::Rollback { control_plane })
        .await
        .map(drop)
}
