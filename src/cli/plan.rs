//! `eksup plan`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::{Format, PlanArg};
use super::carry::{peek, route_of};
use super::context::Context;
use super::error::{CliError, Kind};
use super::findings::{self, blocking, not_ready};
use super::gates::{self, Said};
use super::journey::agrees;
use super::reach::promise;
use super::route::{self, DoneSteps};
use super::saved::Saved;
use super::start::online;
use super::ui::Ui;
use super::{offline, permissions};
use crate::model::{Inventory, Timestamp};
use crate::plan::Plan;
use crate::ready::Finding;
use crate::route::Route;

/// Show findings, the route step by step with every object it touches, points of no return, and how long it takes
///
/// Writes nothing to the cluster.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// Save the plan for `eksup apply FILE`, which refuses when the cluster has drifted since
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// End with 10 when there is something to do, 0 when there is nothing
    #[arg(long)]
    detailed_exitcode: bool,
    /// Plan for this snapshot instead of the live cluster; your own permissions are not asked about
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    snapshot: Option<PathBuf>,
}

/// Shows the plan.
pub fn run(cx: &Context, args: PlanArgs) -> Result<(), CliError> {
    let Some(snapshot) = &args.snapshot else {
        return online(run_live(cx, args));
    };
    let (path, plan) = cx.plan(&args.plan)?;
    let inventory = offline::read(snapshot, &plan)?;
    let now = inventory.taken_at;
    conclude(cx, &args, Drafted::new(path, plan, inventory, now))
}

async fn run_live(cx: &Context, args: PlanArgs) -> Result<(), CliError> {
    let (path, plan) = cx.plan(&args.plan)?;
    let reached = cx.reach(&plan.cluster, plan.region.as_deref()).await?;
    let state = peek(&reached).await?.filter(|s| !s.is_closed());
    if let Some(state) = &state {
        agrees(state, &plan, &reached.cluster.arn)?;
        let route = route_of(state)?;
        let done = state.steps.iter().filter(|s| s.status.is_over()).count();
        cx.ui.say(&format!(
            "run {} is open: {done} of {} steps are done; `eksup apply` goes on with it",
            state.run,
            state.steps.len()
        ));
        let now = reached.clock.now();
        let said = gates::say(&plan, &route, Some(state), now)?;
        let over = state.steps.iter().filter(|s| s.status.is_over());
        let done = over.map(|s| s.id.clone()).collect();
        show(&cx.ui, Some((&route, &done)), &[], &said, None)?;
        return pending(&args, &cx.again("apply", &args.plan));
    }
    let inventory = reached.read_for_upgrade(&plan, &cx.ui).await?;
    let mut drafted = Drafted::new(path, plan, inventory, reached.clock.now());
    let (plan, route) = (&drafted.plan, drafted.route.as_ref());
    let missing = permissions::missing(&reached, plan, route, &drafted.inventory).await?;
    drafted.found.extend(missing);
    conclude(cx, &args, drafted)
}

/// A plan over what was read, with what speaks against it.
struct Drafted {
    path: PathBuf,
    plan: Plan,
    inventory: Inventory,
    route: Option<Route>,
    found: Vec<Finding>,
    now: Timestamp,
}

impl Drafted {
    /// Draws the route for what was read, and judges it.
    fn new(path: PathBuf, plan: Plan, inventory: Inventory, now: Timestamp) -> Self {
        let (route, found) = route::survey(&plan, &inventory);
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
fn conclude(cx: &Context, args: &PlanArgs, drafted: Drafted) -> Result<(), CliError> {
    let Drafted {
        path,
        plan,
        inventory,
        route,
        found,
        now,
    } = drafted;
    let said = match &route {
        Some(route) => gates::say(&plan, route, None, now)?,
        None => Said::default(),
    };
    let done = DoneSteps::new();
    let shown = route.as_ref().map(|r| (r, &done));
    show(&cx.ui, shown, &found, &said, Some(now))?;
    let Some(route) = route.filter(|_| blocking(&found) == 0) else {
        return Err(not_ready(
            &plan.cluster,
            &found,
            &offline::again(cx.again("plan", &args.plan), args.snapshot.as_ref()),
        ));
    };
    let mut next = cx.again("apply", &args.plan);
    if let Some(out) = &args.out {
        save(&path, out, &route, &inventory)?;
        cx.ui.say(&format!("saved to {}", out.display()));
        next = format!("eksup apply {}", out.display());
    }
    if route.steps.is_empty() {
        cx.ui.say(&format!(
            "nothing to do: cluster {} is as the plan wants it",
            plan.cluster
        ));
        return Ok(());
    }
    pending(args, &next)
}

fn pending(args: &PlanArgs, next: &str) -> Result<(), CliError> {
    if !args.detailed_exitcode {
        return Ok(());
    }
    Err(
        CliError::new(Kind::ChangesPending, "there is something to do, as shown")
            .standing(vec![
                "nothing was changed: traffic and nodes are as they were".to_owned(),
            ])
            .next(next),
    )
}

fn save(path: &Path, out: &Path, route: &Route, inventory: &Inventory) -> Result<(), CliError> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        CliError::new(
            Kind::PlanInvalid,
            format!("cannot read {} again: {e}", path.display()),
        )
    })?;
    Saved::new(path.display().to_string(), text, route.clone(), inventory).write(out)
}

/// Shows findings and what is left of a route in the form that was asked for, and how far back it goes when it would begin
/// `now`.
pub fn show(
    ui: &Ui,
    route: Option<(&Route, &DoneSteps)>,
    found: &[Finding],
    said: &Said,
    now: Option<Timestamp>,
) -> Result<(), CliError> {
    let back = route
        .zip(now)
        .map(|((r, _), now)| promise(r, now))
        .unwrap_or_default();
    match ui.format {
        Format::Text => {
            let mut text = String::new();
            if !found.is_empty() {
                text += &findings::text(found, ui.out_paint);
                text.push('\n');
            }
            if let Some((route, done)) = route {
                text += &route::text(route, done, ui.out_paint);
            }
            for line in &said.lines {
                text += &format!("{line}\n");
            }
            if !back.is_empty() {
                text += &format!("\nway back:\n  {}\n", back.join("\n  "));
            }
            ui.out(&text)
        }
        Format::Markdown => {
            let mut text = route
                .map(|(route, done)| route::markdown(route, done))
                .unwrap_or_default();
            for line in said.lines.iter().chain(&back) {
                text += &format!("\n- {line}");
            }
            text += &format!("\n{}", findings::markdown(found));
            ui.out(&text)
        }
        Format::Json => {
            ui.out_json(&crate::report::json::version())?;
            ui.out_json(&serde_json::json!({
                "type": "plan",
                "route": route.map(|(route, done)| route::json(route, done)),
                "gates": said.json,
                "findings": findings::json(found),
                "blocking": blocking(found),
                "rollback": back,
            }))
        }
    }
}
