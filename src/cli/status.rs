//! `eksup status`.

use clap::Args;
use serde_json::json;

use super::args::{Format, PlanArg};
use super::carry::{peek, route_of};
use super::context::{Context, Reached};
use super::error::CliError;
use super::gates::{self, Said};
use super::remote::InKube;
use super::standing::standing;
use super::start::no_markdown;
use super::{reach, whereabouts, window};
use crate::engine::three;
use crate::journal::{Held, Phase, Remote, RunState, Status};
use crate::report::text::{between, took};
use crate::route::Route;

/// Show where the run stands, from the journal and the live cluster
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    plan: PlanArg,
}

/// Shows where things stand.
pub async fn run(cx: &Context, args: StatusArgs) -> Result<(), CliError> {
    no_markdown(cx.ui.format)?;
    let (cluster, region) = cx.cluster(&args.plan)?;
    let reached = cx.reach(&cluster, region.as_deref()).await?;
    let state = peek(&reached).await?;
    let lock = InKube(reached.kube.clone()).read_lock().await?;
    let route = state.as_ref().map(route_of).transpose()?;
    let said = match (cx.plan(&args.plan), &state, &route) {
        (Ok((_, plan)), Some(state), Some(route)) if !state.is_closed() => {
            // A plan that has been changed since is `apply`'s to refuse.
            gates::say(&plan, route, Some(state), reached.clock.now()).unwrap_or_default()
        }
        (Ok(_) | Err(_), Some(_) | None, Some(_) | None) => Said::default(),
    };
    let live = whereabouts::read(&reached, state.as_ref(), route.as_ref()).await?;
    let way_back = match (&state, &route) {
        (Some(state), Some(route)) => way_back(&reached, state, route).await?,
        (Some(_) | None, Some(_) | None) => Vec::new(),
    };
    if cx.ui.format == Format::Json {
        cx.ui.out_json(&crate::report::json::version())?;
        let state = state.as_ref().map(|s| {
            json!({
                "run": s.run, "phase": s.phase, "outcome": s.outcome, "paused": s.paused,
                "openedAt": s.opened_at, "updatedAt": s.updated_at, "planDigest": s.plan_digest,
                "steps": s.steps.iter().map(|t| json!({
                    "step": t.id, "status": t.status, "startedAt": t.started_at,
                    "endedAt": t.ended_at, "acts": t.acts, "note": t.note,
                })).collect::<Vec<_>>(),
            })
        });
        let holder = lock.map(|l| l.holder).filter(|h| !h.is_empty());
        return cx.ui.out_json(&json!({"type": "status", "cluster": cluster, "run": state, "lock": holder, "gates": said.json, "live": live.lines, "marks": live.marks, "rollback": way_back}));
    }
    let mut text = String::new();
    match (&state, &route) {
        (Some(state), Some(route)) => {
            text += &told(cx, &reached, state, route, lock.as_ref(), &said.lines);
        }
        (Some(_) | None, Some(_) | None) => text += &format!("cluster {cluster} has no run\n"),
    }
    for (title, lines) in [
        ("rollback", &way_back),
        ("live", &live.lines),
        ("left of the run", &live.marks),
    ] {
        if !lines.is_empty() {
            text += &format!("{title}:\n");
        }
        for line in lines {
            text += &format!("  {line}\n");
        }
    }
    cx.ui.out(&text)
}

fn told(
    cx: &Context,
    reached: &Reached,
    state: &RunState,
    route: &Route,
    lock: Option<&Held>,
    gates: &[String],
) -> String {
    let paint = cx.ui.out_paint;
    let now = reached.clock.now();
    let how = match (state.phase, state.outcome, &state.paused) {
        (_, Some(outcome), _) => outcome.as_str().replace('_', " "),
        (_, None, Some(why)) => format!("paused: {why}"),
        (Phase::Back, None, None) => "being taken back".to_owned(),
        (Phase::Forward | Phase::Closed, None, None) => "under way".to_owned(),
    };
    let mut text = format!(
        "run {} of {} {} -> {}: {}\n",
        paint.bold(&state.run),
        route.cluster,
        route.from,
        route.to,
        paint.bold(&how)
    );
    text += &format!("last record {} ago", took(between(state.updated_at, now)));
    match lock.filter(|l| !l.holder.is_empty()) {
        Some(lock) => {
            let ago = lock
                .renewed_at
                .map(|at| took(between(at, now)))
                .unwrap_or_default();
            text += &format!("; {} holds the lock, renewed {ago} ago\n\n", lock.holder);
        }
        None => text += "; nobody holds the lock\n\n",
    }
    for line in gates {
        text += &format!("{line}\n");
    }
    for (i, step) in route.steps.iter().enumerate() {
        let Some(s) = state.step(&step.id) else {
            continue;
        };
        let mark = match s.status {
            Status::Done | Status::Skipped => paint.green("done"),
            Status::Failed | Status::UndoFailed => paint.red("failed"),
            Status::Started | Status::Begun => paint.yellow("under way"),
            Status::Undoing => paint.yellow("being taken back"),
            Status::Undone => paint.dim("taken back"),
            Status::Pending => paint.dim("to do"),
        };
        let note = s
            .note
            .as_ref()
            .map(|n| format!(", {n}"))
            .unwrap_or_default();
        text += &format!("{:>3}. {}: {mark}{note}\n", i + 1, step.title);
    }
    text.push('\n');
    for line in standing(state, route, None) {
        text += &format!("{line}\n");
    }
    text
}

/// Up to where a rollback is possible, and until when.
async fn way_back(
    reached: &Reached,
    state: &RunState,
    route: &Route,
) -> Result<Vec<String>, CliError> {
    let now = reached.clock.now();
    let blues = reach::blues(reached, state, route).await?;
    let reach = reach::reach(state, route, false, &blues);
    let mut lines = Vec::new();
    match &reach.barrier {
        Some((step, why)) => lines.push(format!("`{step}` cannot be taken back: {why}")),
        None => lines.extend(ahead(state, route)),
    }
    if reach.worth {
        let first = reach.back.last().cloned().unwrap_or_default();
        lines.push(format!(
            "`eksup rollback` takes back everything down to `{first}`"
        ));
    }
    if let Some(hop) = window::last_hop(state, route) {
        lines.push(match hop.until() {
            Some(until) if until < now => format!(
                "the control plane stays at {}: EKS could take it back until {}",
                hop.to,
                three::at(until)
            ),
            Some(until) => format!(
                "`eksup rollback --control-plane` can take {} back to {} until {} (7 days after the hop), while no kubelet is at {}",
                hop.to,
                hop.from,
                three::at(until),
                hop.to
            ),
            None => format!("the hop to {} is under way; it cannot be stopped", hop.to),
        });
    }
    Ok(lines)
}

/// The next point of no return.
fn ahead(state: &RunState, route: &Route) -> Option<String> {
    let open = |id: &str| state.step(id).is_some_and(|s| !s.status.is_over());
    let next = route
        .steps
        .iter()
        .find(|s| s.no_return.is_some() && open(&s.id) && reach::ends_the_way_back(&s.spec))?;
    Some(format!("everything can be taken back until `{}`", next.id))
}
