//! `eksup status`.

use clap::Args;
use serde_json::json;

use super::args::refuse_markdown;
use super::args::{OutputFormat, PlanArg};
use super::context::CommandContext;
use crate::engine::state_diff;
use crate::journal::{LeaseRecord, RunPhase, RunState, RunStore, StepState, StepStatus};
use crate::model::Timestamp;
use crate::report::text::{format_duration, time_between};
use crate::route::Route;
use crate::run::cluster_connection::ClusterConnection;
use crate::run::error::RunError;
use crate::run::journal_status::status_lines;
use crate::run::kube_store::KubeRunStore;
use crate::run::plan_gates::{self, GateSummary};
use crate::run::stored_run::{check_own_run, read_run_state, stored_route};
use crate::run::version_rollback::LastHop;
use crate::run::{live_status, rollback_scope, version_rollback};

/// Show where the run stands, from the journal and the live cluster
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    plan: PlanArg,
}

/// Shows the run from its journal and the cluster as it is now.
pub async fn show_status(cx: &CommandContext, args: StatusArgs) -> Result<(), RunError> {
    refuse_markdown(cx.ui.format)?;
    let (cluster, region) = cx.cluster_and_region(&args.plan)?;
    let reached = cx.connect_cluster(&cluster, region.as_deref()).await?;
    let (state, foreign) = match read_run_state(&reached).await? {
        // What is said below of a run would not be true of one that is elsewhere.
        Some(state) => match check_own_run(&state, &reached.cluster.arn) {
            Ok(()) => (Some(state), None),
            Err(error) => (None, Some(error)),
        },
        None => (None, None),
    };
    if let Some(error) = &foreign {
        cx.ui.print_note(&format!("{}:", error.message));
        for hint in &error.hints {
            cx.ui.print_note(&format!("  {hint}"));
        }
    }
    let lock = KubeRunStore(reached.kube.clone()).read_lease().await?;
    let route = state.as_ref().map(stored_route).transpose()?;
    let said = match (cx.load_plan(&args.plan), &state, &route) {
        (Ok((_, plan)), Some(state), Some(route)) if !state.is_closed() => {
            // A plan that has been changed since is `apply`'s to refuse.
            plan_gates::summarize_gates(&plan, route, Some(state), reached.clock.now())
                .unwrap_or_default()
        }
        (Ok(_) | Err(_), Some(_) | None, Some(_) | None) => GateSummary::default(),
    };
    // Read from the cluster itself: after a crash the journal may be an act behind.
    let live = live_status::read_live_status(&reached, state.as_ref(), route.as_ref()).await?;
    let rollback_text = match (&state, &route) {
        (Some(state), Some(route)) => describe_rollback(&reached, state, route).await?,
        (Some(_) | None, Some(_) | None) => Vec::new(),
    };
    if cx.ui.format == OutputFormat::Json {
        cx.ui
            .write_json_line(&crate::report::json::version_line())?;
        let state = state.as_ref().map(|s| {
            json!({
                "run": s.run, "phase": s.phase, "outcome": s.outcome, "paused": s.paused,
                "openedAt": s.opened_at, "updatedAt": s.updated_at, "planDigest": s.plan_digest,
                "steps": s.steps.iter().map(|t| json!({
                    "step": t.id, "status": t.status, "startedAt": t.started_at,
                    "endedAt": t.ended_at, "acts": t.acts, "note": step_note(t),
                })).collect::<Vec<_>>(),
            })
        });
        let holder = lock.map(|l| l.holder).filter(|h| !h.is_empty());
        return cx.ui.write_json_line(&json!({"type": "status", "cluster": cluster, "run": state, "lock": holder, "gates": said.json, "live": live.lines, "marks": live.marks, "rollback": rollback_text}));
    }
    let mut text = String::new();
    match (&state, &route) {
        (Some(state), Some(route)) => {
            text += &render_status(cx, &reached, state, route, lock.as_ref(), &said.lines);
        }
        (Some(_) | None, Some(_) | None) => text += &format!("cluster {cluster} has no run\n"),
    }
    for (title, lines) in [
        ("rollback", &rollback_text),
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
    cx.ui.write_result(&text)
}

fn render_status(
    cx: &CommandContext,
    reached: &ClusterConnection,
    state: &RunState,
    route: &Route,
    lock: Option<&LeaseRecord>,
    gates: &[String],
) -> String {
    let paint = cx.ui.out_paint;
    let now = reached.clock.now();
    // An outcome ends everything, and a pause says more than a phase.
    let how = match (state.phase, state.outcome, &state.paused) {
        (_, Some(outcome), _) => outcome.as_str().replace('_', " "),
        (_, None, Some(why)) => format!("paused: {why}"),
        (RunPhase::Rollback, None, None) => "being rolled back".to_owned(),
        (RunPhase::Forward | RunPhase::Closed, None, None) => "under way".to_owned(),
    };
    let mut text = format!(
        "run {} of {} {} -> {}: {}\n",
        paint.bold(&state.run),
        route.cluster,
        route.from,
        route.to,
        paint.bold(&how)
    );
    text += &format!(
        "last record {} ago",
        format_duration(time_between(state.updated_at, now))
    );
    // Times of the lock are another machine's, and only shown.
    match lock.filter(|l| !l.holder.is_empty()) {
        Some(lock) => {
            let ago = lock
                .renewed_at
                .map(|at| format_duration(time_between(at, now)))
                .unwrap_or_default();
            text += &format!("; {} holds the lock, renewed {ago} ago\n\n", lock.holder);
        }
        None => text += "; no process holds the lock\n\n",
    }
    for line in gates {
        text += &format!("{line}\n");
    }
    for (i, step) in route.steps.iter().enumerate() {
        let Some(s) = state.find_step(&step.id) else {
            continue;
        };
        let mark = match s.status {
            StepStatus::Done | StepStatus::Skipped => paint.green("done"),
            StepStatus::Failed | StepStatus::UndoFailed => paint.red("failed"),
            StepStatus::Started | StepStatus::Begun => paint.yellow("under way"),
            StepStatus::Undoing => paint.yellow("being rolled back"),
            StepStatus::Undone => paint.dim("rolled back"),
            StepStatus::Pending => paint.dim("to do"),
        };
        // The note tells why a step failed, which is what a person looks for first.
        let note = step_note(s).map(|n| format!(", {n}")).unwrap_or_default();
        text += &format!("{:>3}. {}: {mark}{note}\n", i + 1, step.title);
    }
    text.push('\n');
    for line in status_lines(state, route, None) {
        text += &format!("{line}\n");
    }
    text
}

/// How a step was done, or why it failed. Once it is being rolled back, how it was done is no longer so.
fn step_note(step: &StepState) -> Option<&str> {
    match step.status {
        StepStatus::Undoing | StepStatus::Undone => None,
        StepStatus::Pending
        | StepStatus::Started
        | StepStatus::Begun
        | StepStatus::Done
        | StepStatus::Skipped
        | StepStatus::Failed
        | StepStatus::UndoFailed => step.note.as_deref(),
    }
}

/// What is said of EKS's own rollback of a hop that may still be rolled back at `now`. `blockers`: what stands in the way.
fn describe_hop(hop: &LastHop, blockers: &[String], now: Timestamp) -> String {
    match hop.rollback_deadline() {
        Some(until) if until < now => format!(
            "the control plane stays at {}: EKS could roll it back until {}",
            hop.to,
            state_diff::format_time(until)
        ),
        Some(_) if !blockers.is_empty() => format!(
            "the control plane stays at {}, EKS would not roll it back to {} now: {}",
            hop.to,
            hop.from,
            blockers.join("; ")
        ),
        Some(until) => format!(
            "`eksup rollback --control-plane` can roll {} back to {} until {} (7 days after the hop), while no kubelet is at {}",
            hop.to,
            hop.from,
            state_diff::format_time(until),
            hop.to
        ),
        None => format!("the hop to {} is in progress; it cannot be stopped", hop.to),
    }
}

/// Up to where a rollback is possible, and until when.
async fn describe_rollback(
    reached: &ClusterConnection,
    state: &RunState,
    route: &Route,
) -> Result<Vec<String>, RunError> {
    let now = reached.clock.now();
    let blues = rollback_scope::read_blue_states(reached, state, route).await?;
    let scope = rollback_scope::compute_scope(state, route, false, &blues);
    let mut lines = Vec::new();
    match &scope.barrier {
        Some((step, why)) => lines.push(format!("`{step}` cannot be rolled back: {why}")),
        None => lines.extend(next_no_return(state, route)),
    }
    if scope.is_worthwhile {
        let first = scope.undone.last().cloned().unwrap_or_default();
        lines.push(format!(
            "`eksup rollback` rolls back everything from the last step to `{first}`"
        ));
    }
    if let Some(hop) = version_rollback::find_last_hop(state, route) {
        // What `rollback --control-plane` would refuse with is said here, and not offered.
        let blockers = match hop.rollback_deadline() {
            Some(until) if until >= now => {
                let with_hop = rollback_scope::compute_scope(state, route, true, &blues);
                let facts = version_rollback::read_facts(reached, &hop).await?;
                version_rollback::rollback_blockers(&facts, &hop, route, &with_hop, now)
            }
            Some(_) | None => Vec::new(),
        };
        lines.push(describe_hop(&hop, &blockers, now));
    }
    Ok(lines)
}

/// The next point of no return.
fn next_no_return(state: &RunState, route: &Route) -> Option<String> {
    let open = |id: &str| state.find_step(id).is_some_and(|s| !s.status.is_over());
    let next = route
        .steps
        .iter()
        .find(|s| s.no_return.is_some() && open(&s.id) && rollback_scope::ends_rollback(&s.spec))?;
    Some(format!("everything can be rolled back until `{}`", next.id))
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
        assert_eq!(step_note(&step("undone")), None);
        assert_eq!(step_note(&step("undoing")), None);
        assert!(step_note(&step("done")).is_some() && step_note(&step("undoFailed")).is_some());
    }

    #[test]
    fn a_control_plane_that_newer_kubelets_hold_is_not_offered_back() {
        let hop = LastHop {
            step: "control-plane-1.29".into(),
            from: Minor::new(28),
            to: Minor::new(29),
            done: Some(at(0)),
        };
        let open = describe_hop(&hop, &[], at(60));
        assert!(
            open.starts_with("`eksup rollback --control-plane` can"),
            "{open}"
        );
        let held = describe_hop(
            &hop,
            &["no kubelet may be newer than 1.28".to_owned()],
            at(60),
        );
        assert!(
            held.contains("stays at 1.29") && held.contains("no kubelet"),
            "{held}"
        );
        assert!(!held.contains("--control-plane"), "{held}");
        let late = describe_hop(&hop, &[], at(8 * 24 * 3600));
        assert!(late.contains("could roll it back until"), "{late}");
    }
}
