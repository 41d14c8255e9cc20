//! `eksup status`.

use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use serde_json::json;

use super::args::refuse_markdown;
use super::args::{OutputFormat, PlanArg};
use super::context::CommandContext;
use crate::journal::{
    FinalOutcome, LeaseRecord, RunPhase, RunState, RunStore, StepState, StepStatus,
};
use crate::model::Timestamp;
use crate::plan::plan_digest;
use crate::report::text::{format_duration, time_between};
use crate::report::wording::{MAX_LINE_WIDTH, fit_lines, tidy_text};
use crate::route::Route;
use crate::run::cluster_connection::ClusterConnection;
use crate::run::context::RunCommands;
use crate::run::error::{RunError, RunErrorKind};
use crate::run::journal_status::status_lines;
use crate::run::kube_store::KubeRunStore;
use crate::run::live_status::{self, LiveStatus};
use crate::run::plan_gates::{self, GateSummary};
use crate::run::rollback_status::{RollbackStatus, read_rollback};
use crate::run::run_checks::continued_rollback;
use crate::run::run_times::RunTimes;
use crate::run::stored_run::{check_own_run, read_run_state, stored_route};

/// Show where the run stands, from the journal and the live cluster
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// Show it again every few seconds until the run ends
    #[arg(long)]
    watch: bool,
}

/// How often `--watch` reads again.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// Shows the run from its journal and the cluster as it is now.
pub async fn show_status(cx: &CommandContext, args: StatusArgs) -> Result<(), RunError> {
    refuse_markdown(cx.ui.format)?;
    let (cluster, region) = cx.cluster_and_region(&args.plan)?;
    let reached = cx.connect_cluster(&cluster, region.as_deref()).await?;
    if cx.ui.format == OutputFormat::Json {
        cx.ui
            .write_json_line(&crate::report::json::version_line())?;
    }
    loop {
        let read = read_status(cx, &args.plan, &reached).await?;
        let text = render_reading(cx, &reached, &read);
        // A screen is drawn again in its place; a log and a program get the status once more.
        let redraws = args.watch && cx.ui.env.stdout_terminal && cx.ui.format == OutputFormat::Text;
        let ahead = if redraws {
            "\u{1b}[H\u{1b}[2J\u{1b}[3J"
        } else {
            ""
        };
        cx.ui.write_result(&format!("{ahead}{text}"))?;
        let open = read.state.as_ref().is_some_and(|s| !s.is_closed());
        if !args.watch || !open {
            return Ok(());
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

/// Returns what one look at the run shows: text, or a line of JSON.
pub async fn render_status_screen(
    cx: &CommandContext,
    plan: &PlanArg,
    reached: &ClusterConnection,
) -> Result<String, RunError> {
    let read = read_status(cx, plan, reached).await?;
    Ok(render_reading(cx, reached, &read))
}

fn render_reading(
    cx: &CommandContext,
    reached: &ClusterConnection,
    read: &StatusReading,
) -> String {
    match cx.ui.format {
        OutputFormat::Json => format!("{}\n", status_to_json(reached, read)),
        OutputFormat::Text | OutputFormat::Markdown => render_text(cx, reached, read),
    }
}

/// What one look found.
struct StatusReading {
    state: Option<RunState>,
    route: Option<Route>,
    lock: Option<LeaseRecord>,
    gates: GateSummary,
    live: LiveStatus,
    rollback: Option<RollbackStatus>,
    times: Option<RunTimes>,
    /// What to do next, and the command.
    next: Option<(String, String)>,
    /// Whether the plan that was named is another than the run's.
    is_other_plan: bool,
}

async fn read_status(
    cx: &CommandContext,
    plan_arg: &PlanArg,
    reached: &ClusterConnection,
) -> Result<StatusReading, RunError> {
    let now = reached.clock.now();
    // What is said below of a run would not be true of one that is elsewhere.
    let state = match read_run_state(reached).await? {
        Some(state) => match check_own_run(&state, &reached.cluster.arn) {
            Ok(()) => Some(state),
            Err(foreign) => {
                cx.ui.print_note(&format!("{}:", foreign.message));
                for hint in &foreign.hints {
                    cx.ui.print_note(&format!("  {hint}"));
                }
                None
            }
        },
        None => None,
    };
    let lock = KubeRunStore(reached.kube.clone()).read_lease().await?;
    let lock = lock.filter(|l| !l.holder.is_empty());
    let route = state.as_ref().map(stored_route).transpose()?;
    let plan = cx.load_plan(plan_arg).ok().map(|(_, plan)| plan);
    let open = state.as_ref().filter(|s| !s.is_closed());
    let is_other_plan = match (&plan, open) {
        (Some(plan), Some(state)) => plan_digest(plan) != state.plan_digest,
        (Some(_) | None, Some(_) | None) => false,
    };
    // A plan that has been changed since is `apply`'s to refuse.
    let plan = plan.filter(|_| !is_other_plan);
    let gates = match (&plan, open, &route) {
        (Some(plan), Some(state), Some(route)) => {
            plan_gates::summarize_run_gates(reached, plan, route, state)
                .await
                .or_else(|error| {
                    // A word of the plan that names no step is `apply`'s to refuse.
                    let is_of_plan = error.kind == RunErrorKind::PlanInvalid;
                    is_of_plan.then(GateSummary::default).ok_or(error)
                })?
        }
        (Some(_) | None, Some(_) | None, Some(_) | None) => GateSummary::default(),
    };
    // Read from the cluster itself: after a crash the journal may be an act behind.
    let live = live_status::read_live_status(reached, state.as_ref(), route.as_ref()).await?;
    let (rollback, times) = match (&state, &route) {
        (Some(state), Some(route)) => {
            let windows = plan.map(|p| p.windows).unwrap_or_default();
            (
                Some(read_rollback(reached, state, route).await?),
                Some(RunTimes::new(state, route, &windows, now)),
            )
        }
        (Some(_) | None, Some(_) | None) => (None, None),
    };
    let commands = cx.run_commands("apply", plan_arg, Vec::new(), None);
    // A command with another plan than the run's would only be refused.
    let next = state
        .as_ref()
        .filter(|_| !is_other_plan)
        .zip(route.as_ref())
        .and_then(|(state, route)| next_command(state, route, lock.is_some(), &gates, &commands));
    Ok(StatusReading {
        state,
        route,
        lock,
        gates,
        live,
        rollback,
        times,
        next,
        is_other_plan,
    })
}

fn status_to_json(reached: &ClusterConnection, read: &StatusReading) -> serde_json::Value {
    let run = read
        .state
        .as_ref()
        .zip(read.route.as_ref())
        .map(|(s, route)| {
            // A step that the journal does not have is left out.
            let steps = route.steps.iter().filter_map(|step| {
            let t = s.find_step(&step.id)?;
            Some(json!({
                "step": t.id, "title": step.title, "status": t.status, "startedAt": t.started_at,
                "endedAt": t.ended_at, "acts": t.acts, "note": step_note(t),
                "estimateSeconds": step.estimate.as_secs(),
            }))
        });
            json!({
                "run": s.run, "from": route.from, "to": route.to,
                "phase": s.phase, "outcome": s.outcome, "paused": s.paused,
                "openedAt": s.opened_at, "updatedAt": s.updated_at, "planDigest": s.plan_digest,
                "steps": steps.collect::<Vec<_>>(),
            })
        });
    // The expiry is counted by the holder's own clock, as the times of the lock are.
    let lock = read.lock.as_ref().map(|lock| {
        let lasts = lock
            .duration_seconds
            .map(|s| SignedDuration::from_secs(s.into()));
        let expires =
            (lock.renewed_at.zip(lasts)).and_then(|(at, lasts)| at.checked_add(lasts).ok());
        json!({"holder": lock.holder, "renewedAt": lock.renewed_at, "expiresAt": expires})
    });
    // Keys are always there, with null for what does not apply, so that a reader need not tell absent from empty.
    json!({
        "type": "status",
        "at": reached.clock.now(),
        "cluster": reached.cluster.name,
        "run": run,
        "lock": lock,
        "times": read.times,
        "next": read.next.as_ref().map(|(_, command)| command),
        "otherPlan": read.is_other_plan,
        "gates": read.gates.json,
        "live": read.live.data,
        "marks": read.live.marks,
        "rollback": read.rollback,
    })
}

fn render_text(cx: &CommandContext, reached: &ClusterConnection, read: &StatusReading) -> String {
    let mut text = String::new();
    match (&read.state, &read.route) {
        (Some(state), Some(route)) => {
            text += &render_status(cx, reached, state, route, read);
        }
        // Without a route in the journal there is no run to tell of.
        (Some(_) | None, Some(_) | None) => {
            text += &format!("cluster {} has no run\n", reached.cluster.name);
        }
    }
    let rollback = read
        .rollback
        .as_ref()
        .map(|r| r.describe(reached.clock.now()));
    // Below the run what is read of the cluster itself; a part without lines has no title.
    for (title, lines) in [
        ("rollback", &rollback.unwrap_or_default()),
        ("live", &read.live.lines),
        ("left of the run", &read.live.marks),
    ] {
        if !lines.is_empty() {
            text += &format!("{title}:\n");
        }
        for line in lines {
            text += &format!(
                "{}\n",
                fit_lines(&format!("  {}", tidy_text(line)), MAX_LINE_WIDTH)
            );
        }
    }
    if let Some((what, command)) = &read.next {
        text += &format!("next: {} ({what})\n", cx.ui.out_paint.bold(command));
    }
    text
}

fn render_status(
    cx: &CommandContext,
    reached: &ClusterConnection,
    state: &RunState,
    route: &Route,
    read: &StatusReading,
) -> String {
    let paint = cx.ui.out_paint;
    let now = reached.clock.now();
    // An outcome ends everything, and a pause says more than a phase.
    let how = match (state.phase, state.outcome, &state.paused) {
        (_, Some(outcome), _) => outcome.as_str().replace('_', " "),
        (_, None, Some(why)) => format!("paused: {why}"),
        (_, None, None) if let Some(step) = find_stuck_step(state, read) => {
            format!("stuck at `{}`", step.id)
        }
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
    if let Some(times) = &read.times {
        text += &format!("{}\n", times.describe(now));
    }
    text += &format!(
        "last record {} ago",
        format_duration(time_between(state.updated_at, now))
    );
    // Times of the lock are another machine's, and only shown.
    match &read.lock {
        Some(lock) => {
            let ago = lock
                .renewed_at
                .map(|at| format_duration(time_between(at, now)))
                .unwrap_or_default();
            text += &format!("; {} holds the lock, renewed {ago} ago\n\n", lock.holder);
        }
        None => text += "; no process holds the lock\n\n",
    }
    if read.is_other_plan {
        text += "the plan that was named is not the plan of this run: windows and approvals are not shown; name the plan this run was opened with\n";
    }
    // Windows and approvals come before the steps, because they say why nothing moves.
    for line in &read.gates.lines {
        text += &format!("{}\n", tidy_text(line));
    }
    for (i, step) in route.steps.iter().enumerate() {
        let Some(s) = state.find_step(&step.id) else {
            continue;
        };
        let word = step_word(s.status, state.is_closed());
        let mark = match s.status {
            StepStatus::Done | StepStatus::Skipped => paint.green(word),
            StepStatus::Failed | StepStatus::UndoFailed => paint.red(word),
            StepStatus::Started | StepStatus::Begun | StepStatus::Undoing => paint.yellow(word),
            StepStatus::Undone | StepStatus::Pending => paint.dim(word),
        };
        // The note tells why a step failed, which is what a person looks for first.
        let note = step_note(s).map(|n| format!(", {}", tidy_text(n)));
        let preposition = if s.status == StepStatus::Done {
            "in"
        } else {
            "for"
        };
        let took = step_time(s, state.is_closed(), now)
            .map(|t| format!(" {preposition} {}", format_duration(t)));
        let line = format!(
            "{:>3}. {}: {mark}{}{}",
            i + 1,
            step.title,
            took.unwrap_or_default(),
            note.unwrap_or_default()
        );
        text += &format!("{}\n", fit_lines(&line, MAX_LINE_WIDTH));
    }
    // What the run has changed so far, from the journal alone.
    text.push('\n');
    for line in status_lines(state, route, None) {
        text += &format!("{line}\n");
    }
    text
}

/// The step that failed, once the process that met the failure has ended.
fn find_stuck_step<'a>(state: &'a RunState, read: &StatusReading) -> Option<&'a StepState> {
    let failed = |s: &&StepState| matches!(s.status, StepStatus::Failed | StepStatus::UndoFailed);
    let failed = state.steps.iter().find(failed);
    failed.filter(|_| read.lock.is_none())
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

/// How far a step is. In a closed run nothing is carried on.
fn step_word(status: StepStatus, is_closed: bool) -> &'static str {
    match (status, is_closed) {
        (StepStatus::Done | StepStatus::Skipped, _) => "done",
        (StepStatus::Failed | StepStatus::UndoFailed, _) => "failed",
        (StepStatus::Started | StepStatus::Begun | StepStatus::Undoing, true) => "not finished",
        (StepStatus::Started | StepStatus::Begun, false) => "under way",
        (StepStatus::Undoing, false) => "being rolled back",
        (StepStatus::Undone, _) => "rolled back",
        (StepStatus::Pending, true) => "not begun",
        (StepStatus::Pending, false) => "to do",
    }
}

/// How long a step took or has been under way.
fn step_time(step: &StepState, is_closed: bool, now: Timestamp) -> Option<Duration> {
    let until = match step.status {
        StepStatus::Done => step.ended_at?,
        StepStatus::Started | StepStatus::Begun if is_closed => return None,
        StepStatus::Started | StepStatus::Begun => now,
        StepStatus::Pending
        | StepStatus::Skipped
        | StepStatus::Failed
        | StepStatus::Undoing
        | StepStatus::Undone
        | StepStatus::UndoFailed => return None,
    };
    Some(time_between(step.started_at?, until))
}

/// What continues the run, and why that.
fn next_command(
    state: &RunState,
    route: &Route,
    is_held: bool,
    gates: &GateSummary,
    commands: &RunCommands,
) -> Option<(String, String)> {
    let next = |what: &str, command: &str| Some((what.to_owned(), command.to_owned()));
    // While a process holds the lock any command would only be refused.
    if is_held {
        return None;
    }
    match (state.phase, state.outcome) {
        // A tool that owns what was replaced is told last. Whether it has been told, nothing in the cluster says.
        (RunPhase::Closed, Some(FinalOutcome::Done)) => {
            let (tools, handback) = (route.owner_names()?, commands.handback.as_ref()?);
            next(&format!("prints what {tools} has to be told"), handback)
        }
        (RunPhase::Closed, _) => next("plans a new run", &commands.plan),
        (RunPhase::Rollback, _) => continued_rollback(state, route, commands)
            .and_then(|rollback| next("continues the rollback", &rollback)),
        (RunPhase::Forward, _) => {
            let first = state.steps.iter().find(|s| !s.status.is_over());
            // An approval counts as missing only while its step has not begun.
            let waits = first.filter(|step| {
                let asked = &gates.json["approvals"];
                asked.get(&step.id).is_some_and(serde_json::Value::is_null)
                    && step.status == StepStatus::Pending
            });
            match (waits, &commands.approve) {
                (Some(step), Some(approve)) => next(
                    &format!("then `{}`", commands.resume),
                    &format!("{approve} {}", step.id),
                ),
                (Some(_) | None, Some(_) | None) => next("continues the run", &commands.resume),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{JOURNAL_FORMAT, JournalEntry, OpenedEntry, Record};

    #[test]
    fn in_a_closed_run_no_step_is_under_way_or_takes_time() {
        let begun: StepState = serde_json::from_value(json!({
            "id": "hop", "status": "begun", "acts": 1, "startedAt": "2026-11-21T08:00:00Z",
        }))
        .unwrap();
        let now = "2026-11-21T09:00:00Z".parse().unwrap();
        assert_eq!(step_word(begun.status, false), "under way");
        assert!(step_time(&begun, false, now).is_some());
        assert_eq!(step_word(begun.status, true), "not finished");
        assert_eq!(step_time(&begun, true, now), None);
    }

    #[test]
    fn after_a_run_of_a_group_that_a_tool_owns_the_tool_is_told_next() {
        let plan = crate::plan::parse_plan("p", "cluster: expense-dev\nto: 1.29\n").unwrap();
        let mut inventory = crate::route::fixture::expense_dev();
        let state = |route: &Route| {
            let mut state = RunState::from_opening(&Record {
                seq: 0,
                at: "2026-11-21T08:00:00Z".parse().unwrap(),
                entry: JournalEntry::Opened(OpenedEntry {
                    format: JOURNAL_FORMAT,
                    run: "r1".into(),
                    plan_digest: "d".into(),
                    cluster_arn: "arn".into(),
                    steps: route.steps.iter().map(|s| s.id.clone()).collect(),
                    route: serde_json::to_value(route).unwrap(),
                    plan: serde_json::Value::Null,
                    workloads: Default::default(),
                }),
            })
            .unwrap();
            state.phase = RunPhase::Closed;
            state.outcome = Some(FinalOutcome::Done);
            state
        };
        let commands = RunCommands {
            handback: Some("eksup handback p.yaml".to_owned()),
            ..RunCommands::default()
        };
        let next = |inventory: &crate::model::Inventory| {
            let route = crate::route::build_route(&plan, inventory).unwrap();
            next_command(
                &state(&route),
                &route,
                false,
                &GateSummary::default(),
                &commands,
            )
        };
        assert_eq!(next(&inventory), None);
        let tag = ("alpha.eksctl.io/nodegroup-name", "expense-blue");
        inventory.nodegroups[0].tags = [(tag.0.to_owned(), tag.1.to_owned())].into();
        let (what, command) = next(&inventory).unwrap();
        assert_eq!(command, "eksup handback p.yaml");
        assert_eq!(what, "prints what eksctl has to be told");
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
}
