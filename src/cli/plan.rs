//! `eksup plan`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::PlanArg;
use super::context::CommandContext;
use super::offline;
use super::route_preview::{ShownRoute, offered_route, show_route};
use super::route_view::DoneSteps;
use super::runtime::run_with_network;
use crate::model::{Inventory, Timestamp};
use crate::plan::Plan;
use crate::ready::Finding;
use crate::route::Route;
use crate::run::error::{RunError, RunErrorKind, usage_error};
use crate::run::judged_route;
use crate::run::not_ready::{count_blockers, not_ready_error};
use crate::run::permissions;
use crate::run::plan_gates::{self, GateSummary};
use crate::run::run_checks::check_same_run;
use crate::run::run_target::RunTarget;
use crate::run::saved_plan::SavedPlan;
use crate::run::stored_run::{read_run_state, stored_route};

/// Show findings, the route step by step, points of no return, nodes, and how long it takes; `--details` has every object that it touches
///
/// Changes nothing in the cluster.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// Save the plan for `eksup apply FILE`, which refuses it if the cluster has drifted since then
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// End with exit code 10 if there is something to do, and with 0 if there is nothing
    #[arg(long)]
    detailed_exitcode: bool,
    /// Show of each step its id, which `--until` and `eksup approve` take, what it touches, and why it stands there
    #[arg(long)]
    details: bool,
    /// Plan for this snapshot instead of the live cluster; your own permissions are not checked
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    snapshot: Option<PathBuf>,
}

/// Shows findings and route of a plan, and saves them where that was asked for.
pub fn show_plan(cx: &CommandContext, args: PlanArgs) -> Result<(), RunError> {
    let Some(snapshot) = &args.snapshot else {
        return run_with_network(show_live_plan(cx, args));
    };
    let (path, plan) = cx.load_plan(&args.plan)?;
    let inventory = offline::read_inventory(snapshot, &plan)?;
    let now = inventory.taken_at;
    show_and_save(cx, &args, PlanDraft::new(path, plan, inventory, now))
}

async fn show_live_plan(cx: &CommandContext, args: PlanArgs) -> Result<(), RunError> {
    let (path, plan) = cx.load_plan(&args.plan)?;
    let reached = cx
        .connect_cluster(&plan.cluster, plan.region.as_deref())
        .await?;
    cx.ui
        .print_note(&RunTarget::read(&reached).await.describe());
    // An open run keeps its route, so that is what is shown, and not a new one.
    let state = read_run_state(&reached).await?.filter(|s| !s.is_closed());
    if let Some(state) = &state {
        if args.out.is_some() {
            return Err(usage_error(format!(
                "run {} is open, and --out saves the plan of a new run",
                state.run
            )));
        }
        let commands = cx.run_commands("plan", &args.plan, Vec::new(), None);
        check_same_run(state, &plan, &reached.cluster.arn, &commands)?;
        let route = stored_route(state)?;
        let done = state.steps.iter().filter(|s| s.status.is_over()).count();
        cx.ui.print_note(&format!(
            "run {} is open: {done} of {} steps are done; `eksup apply` continues it",
            state.run,
            state.steps.len()
        ));
        // Steps that are done are left out; findings are not judged again for a run that has begun.
        let now = reached.clock.now();
        let said = plan_gates::summarize_run_gates(&reached, &plan, &route, state).await?;
        let over = state.steps.iter().filter(|s| s.status.is_over());
        let shown = ShownRoute {
            plan: &plan,
            route: Some(&route),
            inventory: None,
            done: &over.map(|s| s.id.clone()).collect(),
            found: &[],
            said: &said,
            now,
            details: args.details,
        };
        show_route(&cx.ui, &shown)?;
        return check_pending(&args, &cx.command_again("apply", &args.plan));
    }
    let inventory = reached.read_for_upgrade(&plan, &cx.ui).await?;
    let mut drafted = PlanDraft::new(path, plan, inventory, reached.clock.now());
    let (plan, route) = (&drafted.plan, drafted.route.as_ref());
    // Missing permissions are found now, because a run would meet them only in the middle.
    let missing =
        permissions::find_missing_permissions(&reached, plan, route, &drafted.inventory).await?;
    drafted.found.extend(missing);
    show_and_save(cx, &args, drafted)
}

/// A plan over what was read, with what speaks against it.
struct PlanDraft {
    path: PathBuf,
    plan: Plan,
    inventory: Inventory,
    route: Option<Route>,
    found: Vec<Finding>,
    now: Timestamp,
}

impl PlanDraft {
    /// Draws the route for what was read, and judges it.
    fn new(path: PathBuf, plan: Plan, inventory: Inventory, now: Timestamp) -> Self {
        let (route, found) = judged_route::build_and_judge(&plan, &inventory);
        Self {
            path,
            plan,
            inventory,
            route,
            found,
            now,
        }
    }
}

/// Shows a drafted plan, and saves it where that was asked for.
fn show_and_save(cx: &CommandContext, args: &PlanArgs, drafted: PlanDraft) -> Result<(), RunError> {
    let PlanDraft {
        path,
        plan,
        inventory,
        route,
        found,
        now,
    } = drafted;
    // Windows and approvals are the route's, so without a route there are none.
    let said = match &route {
        Some(route) => plan_gates::summarize_gates(&plan, route, None, now)?,
        None => GateSummary::default(),
    };
    let shown = ShownRoute {
        plan: &plan,
        route: offered_route(route.as_ref(), &found),
        inventory: Some(&inventory),
        done: &DoneSteps::new(),
        found: &found,
        said: &said,
        now,
        details: args.details,
    };
    show_route(&cx.ui, &shown)?;
    // Shown first, then refused: a reader needs the route to understand what blocks it.
    let Some(route) = route.filter(|_| count_blockers(&found) == 0) else {
        return Err(not_ready_error(
            &plan.cluster,
            &found,
            &offline::with_snapshot_flag(
                cx.command_again("plan", &args.plan),
                args.snapshot.as_ref(),
            ),
        ));
    };
    // Without `--out` the plan's own file is what `apply` takes.
    let mut next = cx.command_again("apply", &args.plan);
    // Only a plan that nothing blocks is saved: `apply` would refuse any other.
    if let Some(out) = &args.out {
        save_plan(&path, out, &route, &inventory)?;
        cx.ui.print_note(&format!("saved to {}", out.display()));
        next = format!("eksup apply {}", out.display());
    }
    if route.steps.is_empty() {
        cx.ui.print_note(&format!(
            "nothing to do: cluster {} is as the plan describes it",
            plan.cluster
        ));
        return Ok(());
    }
    check_pending(args, &next)
}

fn check_pending(args: &PlanArgs, next: &str) -> Result<(), RunError> {
    if !args.detailed_exitcode {
        return Ok(());
    }
    Err(RunError::new(
        RunErrorKind::ChangesPending,
        "there is something to do, as shown",
    )
    .with_state(vec![
        "nothing was changed: traffic and nodes are unchanged".to_owned(),
    ])
    .with_next_command(next))
}

fn save_plan(
    path: &Path,
    out: &Path,
    route: &Route,
    inventory: &Inventory,
) -> Result<(), RunError> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        RunError::new(
            RunErrorKind::PlanInvalid,
            format!("cannot read {} again: {e}", path.display()),
        )
    })?;
    SavedPlan::new(path.display().to_string(), text, route.clone(), inventory).write_file(out)
}
