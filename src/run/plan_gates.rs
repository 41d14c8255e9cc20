//! A plan's windows and approvals for one route: for the engine, and in words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::cluster_connection::ClusterConnection;
use super::context::RunContext;
use super::error::{RunError, RunErrorKind};
use super::kube_store::KubeRunStore;
use crate::engine::RunGates;
use crate::journal::{RunState, RunStore, StepStatus, approval};
use crate::model::{Timestamp, maintenance_window::WindowState};
use crate::plan::Plan;
use crate::report::text::format_duration;
use crate::route::{self, Route, RouteStep};

/// What is said of windows and approvals.
#[derive(Clone, Debug, Default)]
pub struct GateSummary {
    pub lines: Vec<String>,
    pub json: Value,
}

/// What the engine is held to.
pub fn engine_gates(
    plan: &Plan,
    route: &Route,
    context: &RunContext<'_>,
) -> Result<RunGates, RunError> {
    Ok(RunGates {
        approvals: steps_to_approve(plan, route)?,
        windows: plan.windows.clone(),
        approve_command: context.commands.approve.clone().unwrap_or_default(),
        is_rehearsal: !context.live,
    })
}

/// The steps that wait for an approval; a word that names none is refused, because it would guard nothing.
pub fn steps_to_approve(plan: &Plan, route: &Route) -> Result<BTreeSet<String>, RunError> {
    route::step_gates::steps_awaiting_approval(&plan.approvals, route).map_err(|unknown| {
        let text = format!(
            "`approvals.before` names {}, which the route has no step for",
            quote_words(&unknown)
        );
        let mut error = RunError::new(RunErrorKind::PlanInvalid, text);
        for word in &unknown {
            let near = route::step_patterns::StepPattern(word).near_words(route);
            error = error.with_hint(format!("near `{word}` are {}", quote_words(&near)));
        }
        error.with_hint("`eksup plan` shows every step with its id")
    })
}

fn quote_words(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    quoted.join(", ")
}

/// Windows and approvals of what is left of an open run, with the approvals that no process has taken up yet.
pub async fn summarize_run_gates(
    reached: &ClusterConnection,
    plan: &Plan,
    route: &Route,
    state: &RunState,
) -> Result<GateSummary, RunError> {
    let stored = KubeRunStore(reached.kube.clone()).read_checkpoint().await?;
    let left = stored.map(|stored| stored.annotations).unwrap_or_default();
    summarize_gates(plan, route, Some((state, &left)), reached.clock.now())
}

/// Windows and approvals of a route, or of what is left of it where a run is open: that with the annotations of its
/// checkpoint. Nothing where the plan has neither.
pub fn summarize_gates(
    plan: &Plan,
    route: &Route,
    run: Option<(&RunState, &BTreeMap<String, String>)>,
    now: Timestamp,
) -> Result<GateSummary, RunError> {
    let state = run.map(|(state, _)| state);
    let mut said = GateSummary::default();
    let waits = steps_to_approve(plan, route)?;
    // Only what is left can still wait for a window or a person.
    let left: Vec<&RouteStep> = route
        .steps
        .iter()
        .filter(|s| {
            state
                .and_then(|st| st.find_step(&s.id))
                .is_none_or(|s| !s.status.is_over())
        })
        .collect();
    if !plan.windows.0.is_empty() {
        describe_windows(&mut said, plan, &left, now);
    }
    for id in &waits {
        let given = state.and_then(|s| s.approvals.iter().find(|a| a.step == *id));
        // A step that has begun was let through, by an approval or before the plan asked for one.
        let begun = state
            .and_then(|s| s.find_step(id))
            .is_some_and(|s| s.status != StepStatus::Pending);
        // One that lies on the checkpoint counts as soon as a process comes to the step.
        let left = run.and_then(|(state, left)| approval::find_approval(left, &state.run, id));
        // What the journal has taken in goes before the annotation, which anybody may change later.
        let (how, json) = match (given, left) {
            (Some(a), _) => (
                format!("was approved by {} at {}", a.by, a.at),
                json!({"by": a.by, "at": a.at, "takenUp": true}),
            ),
            (None, _) if begun => ("has begun".to_owned(), Value::Null),
            (None, Some(left)) => {
                let at = left.at.map(|at| format!(" at {at}")).unwrap_or_default();
                (
                    format!(
                        "was approved by {}{at}; the run has not read the approval yet",
                        left.by
                    ),
                    json!({"by": left.by, "at": left.at, "takenUp": false}),
                )
            }
            (None, None) => (
                "does not begin before it is approved (`eksup approve`)".to_owned(),
                Value::Null,
            ),
        };
        said.lines.push(format!("approval: `{id}` {how}"));
        said.json["approvals"][id] = json;
    }
    Ok(said)
}

fn describe_windows(said: &mut GateSummary, plan: &Plan, left: &[&RouteStep], now: Timestamp) {
    let all = &plan.windows;
    let each: Vec<String> = all.0.iter().map(ToString::to_string).collect();
    let stand = match all.state_at(now) {
        WindowState::Always => String::new(),
        WindowState::Open { until } => format!("open until {}", all.format_time(until)),
        WindowState::Closed { opens } => format!("closed, opens {}", all.format_time(opens)),
    };
    said.lines
        .push(format!("windows: {}; {stand}", each.join("; ")));
    // The forecast is of estimates and for people. The engine asks the windows themselves.
    let forecast = route::step_gates::forecast_run(left.iter().copied(), all, now);
    said.lines.push(match forecast.pauses.first() {
        _ if left.is_empty() => "windows: nothing is left to begin".to_owned(),
        None => format!(
            "windows: by the estimates the run ends {} without a pause",
            all.format_time(forecast.ends)
        ),
        Some((step, until)) => format!(
            "windows: by the estimates the run pauses {} (first at `{step}`, until {}) and ends {}",
            times_text(forecast.pauses.len()),
            all.format_time(*until),
            all.format_time(forecast.ends)
        ),
    });
    // A step that no window can hold is begun all the same; somebody has to know it beforehand.
    for (step, time) in &forecast.too_long {
        said.lines.push(format!(
            "warning: `{step}` takes about {}, longer than any window is open; once begun, it is finished outside of the window",
            format_duration(*time)
        ));
    }
    said.json["windows"] = json!({
        "windows": each,
        "open": matches!(all.state_at(now), WindowState::Open { .. }),
        "ends": forecast.ends,
        "pauses": forecast.pauses.iter().map(|(s, t)| json!({"step": s, "until": t})).collect::<Vec<_>>(),
        "tooLong": forecast.too_long.iter().map(|(s, _)| s).collect::<Vec<_>>(),
    });
}

fn times_text(n: usize) -> String {
    match n {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}
