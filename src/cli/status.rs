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
use super::window::Hop;
use super::{reach, whereabouts, window};
use crate::engine::three;
use crate::journal::{Held, Phase, Remote, RunState, Status, StepState};
use crate::model::Timestamp;
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
                    "endedAt": t.ended_at, "acts": t.acts, "note": note_of(t),
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
        let note = note_of(s).map(|n| format!(", {n}")).unwrap_or_default();
        text += &format!("{:>3}. {}: {mark}{note}\n", i + 1, step.title);
    }
    text.push('\n');
    for line in standing(state, route, None) {
        text += &format!("{line}\n");
    }
    text
}

/// How a step was done, or why it failed. Once it is being rolled back, how it was done is no longer so.
fn note_of(step: &StepState) -> Option<&str> {
    match step.status {
        Status::Undoing | Status::Undone => None,
        Status::Pending
        | Status::Started
        | Status::Begun
        | Status::Done
        | Status::Skipped
        | Status::Failed
        | Status::UndoFailed => step.note.as_deref(),
    }
}

/// What is said of EKS's own rollback of a hop that may still be rolled back at `now`. `blockers`: what stands in the way.
fn hop_line(hop: &Hop, blockers: &[String], now: Timestamp) -> String {
    match hop.until() {
        Some(until) if until < now => format!(
            "the control plane stays at {}: EKS could take it back until {}",
            hop.to,
            three::at(until)
        ),
        Some(_) if !blockers.is_empty() => format!(
            "the control plane stays at {}, EKS would not take it back to {} now: {}",
            hop.to,
            hop.from,
            blockers.join("; ")
        ),
        Some(until) => format!(
            "`eksup rollback --control-plane` can take {} back to {} until {} (7 days after the hop), while no kubelet is at {}",
            hop.to,
            hop.from,
            three::at(until),
            hop.to
        ),
        None => format!("the hop to {} is under way; it cannot be stopped", hop.to),
    }
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
        // What `rollback --control-plane` would refuse with is said here, and not offered.
        let blockers = match hop.until() {
            Some(until) if until >= now => {
                let with_hop = reach::reach(state, route, true, &blues);
                let facts = window::facts(reached, &hop).await?;
                window::against(&facts, &hop, route, &with_hop, now)
            }
            Some(_) | None => Vec::new(),
        };
        lines.push(hop_line(&hop, &blockers, now));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Minor;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_step_that_is_rolled_back_no_longer_says_how_it_was_done() {
        let step = |status: &str| -> StepState {
            let note = "the traffic of 1 rule is all on green";
            serde_json::from_value(
                json!({"id": "shift", "status": status, "acts": 1, "note": note}),
            )
            .unwrap()
        };
        assert_eq!(note_of(&step("undone")), None);
        assert_eq!(note_of(&step("undoing")), None);
        assert!(note_of(&step("done")).is_some() && note_of(&step("undoFailed")).is_some());
    }

    #[test]
    fn a_control_plane_that_newer_kubelets_hold_is_not_offered_back() {
        let hop = Hop {
            step: "control-plane-1.29".into(),
            from: Minor::new(28),
            to: Minor::new(29),
            done: Some(at(0)),
        };
        let open = hop_line(&hop, &[], at(60));
        assert!(
            open.starts_with("`eksup rollback --control-plane` can"),
            "{open}"
        );
        let held = hop_line(
            &hop,
            &["no kubelet may be newer than 1.28".to_owned()],
            at(60),
        );
        assert!(
            held.contains("stays at 1.29") && held.contains("no kubelet"),
            "{held}"
        );
        assert!(!held.contains("--control-plane"), "{held}");
        let late = hop_line(&hop, &[], at(8 * 24 * 3600));
        assert!(late.contains("could take it back until"), "{late}");
    }
}
