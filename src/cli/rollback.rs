//! `eksup rollback`.

use clap::Args;

use super::apply::holder;
use super::args::PlanArg;
use super::carry::{Errand, Trip, carry, peek, route_of};
use super::context::Context;
use super::error::{CliError, Kind};
use super::signals::{self, unless_stopped};
use super::standing::standing;
use super::start::usage;
use crate::engine::stop;

/// Take the run back: traffic to blue, blue in service, green away
///
/// Ends with 5 when everything is taken back. The control plane and its add-ons stay as they are unless --control-plane
/// is given: blue runs as well below a newer control plane.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// Also use EKS's own version rollback, where it is still possible (one minor, within 7 days)
    #[arg(long)]
    control_plane: bool,
    /// Do not ask; needed without a terminal
    #[arg(long)]
    auto_approve: bool,
}

/// Takes the run back.
pub async fn run(cx: &Context, args: RollbackArgs) -> Result<(), CliError> {
    let (cluster, region) = cx.cluster(&args.plan)?;
    let mut resume = cx.again("rollback", &args.plan);
    if args.control_plane {
        resume += " --control-plane";
    }
    if !args.auto_approve && !cx.ui.env.stdin_terminal {
        return Err(
            usage("without a terminal nobody can be asked: give --auto-approve")
                .next(format!("{resume} --auto-approve")),
        );
    }
    let (asker, stop) = stop::channel();
    signals::listen(asker, cx.ui.clone())?;
    let reached = unless_stopped(&stop, cx.reach(&cluster, region.as_deref())).await?;
    let Some(state) = unless_stopped(&stop, peek(&reached)).await? else {
        return Err(CliError::new(
            Kind::Mismatch,
            format!("cluster {cluster} has no run to take back"),
        )
        .next(cx.again("plan", &args.plan)));
    };
    let route = route_of(&state)?;
    cx.ui.say(&format!(
        "run {} ({} -> {}) stands so:",
        state.run, route.from, route.to
    ));
    for line in standing(&state, &route, None) {
        cx.ui.say(&format!("  {line}"));
    }
    if !args.auto_approve && !unless_stopped(&stop, cx.ui.confirm("Take it back?")).await? {
        return Err(CliError::new(Kind::Paused, "not confirmed; nothing was done").next(resume));
    }
    if args.auto_approve {
        resume += " --auto-approve";
    }
    let trip = Trip {
        ui: &cx.ui,
        reached: &reached,
        stop,
        holder: holder(),
        resume,
        record: Some(cx.global.run_dir.clone()),
        live: true,
    };
    carry(
        &trip,
        Errand::Back {
            control_plane: args.control_plane,
        },
    )
    .await
    .map(drop)
}
