//! `eksup rollback`.

use std::collections::BTreeSet;

use clap::Args;

use super::apply::holder;
use super::args::PlanArg;
use super::carry::{Errand, Trip, carry, peek, route_of};
use super::context::{Context, Reached};
use super::error::{CliError, Kind};
use super::journey::{in_time, may_go_back};
use super::reach::{self, Reach};
use super::signals::{self, unless_stopped};
use super::standing::standing;
use super::start::usage;
use super::window;
use crate::engine::stop;
use crate::journal::RunState;
use crate::route::Route;

/// Take the run back: traffic to blue, blue in service, green away
///
/// Ends with 5 when everything is taken back that can be; what stays is said before and after. The control plane and its
/// add-ons stay as they are unless --control-plane is given: blue runs as well below a newer control plane.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// Also use EKS's own version rollback; refused before anything is touched where it is not possible (the last minor
    /// only, within 7 days of its end, no kubelet of that minor left, no rollback insight in ERROR or UNKNOWN)
    #[arg(long)]
    control_plane: bool,
    /// Do not ask; needed without a terminal
    #[arg(long)]
    auto_approve: bool,
}

/// Refuses, before traffic or nodes are touched, when EKS would not take the control plane back.
pub async fn open_window(
    reached: &Reached,
    state: &RunState,
    route: &Route,
    reach: &Reach,
    plain: &str,
) -> Result<(), CliError> {
    let refused = |text: String| {
        CliError::new(Kind::NotReady, text)
            .standing(standing(state, route, None))
            .hint("nothing was changed")
            .hint(format!(
                "`{plain}` takes everything else back and leaves the control plane and its add-ons as they are: blue runs as well below it"
            ))
            .next(plain)
    };
    // What is left of a way back that ended right after EKS's part.
    if window::went_back(state, route) {
        return Ok(());
    }
    let Some(hop) = window::last_hop(state, route) else {
        return Err(refused(format!(
            "run {} has not touched the control plane, so there is no version to take back",
            state.run
        )));
    };
    let facts = window::facts(reached, &hop).await?;
    let against = window::against(&facts, &hop, route, reach, reached.clock.now());
    if against.is_empty() {
        return Ok(());
    }
    Err(refused(format!(
        "the control plane cannot go from {} back to {}:\n  - {}",
        hop.to,
        hop.from,
        against.join("\n  - ")
    )))
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
    may_go_back(&state)?;
    let reach = unless_stopped(
        &stop,
        reach::read(&reached, &state, &route, args.control_plane),
    )
    .await?;
    in_time(&state, &reach).map_err(|e| e.or_next(&cx.again("status", &args.plan)))?;
    if args.control_plane {
        let plain = cx.again("rollback", &args.plan);
        open_window(&reached, &state, &route, &reach, &plain).await?;
    }
    for line in reach.lines() {
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
        accept_short: Vec::new(),
        passed_over: BTreeSet::new(),
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
