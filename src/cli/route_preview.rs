//! What is ahead, shown before anything is done.

use super::args::OutputFormat;
use super::context::CommandContext;
use super::route_view::DoneSteps;
use super::ui::Ui;
use super::{findings, route_view};
use crate::model::Timestamp;
use crate::ready::Finding;
use crate::route::Route;
use crate::run::assess::{PendingRoute, PlanInput, assess_cluster};
use crate::run::cluster_connection::ClusterConnection;
use crate::run::context::RunCommands;
use crate::run::error::RunError;
use crate::run::not_ready::count_blockers;
use crate::run::output::RunOutput;
use crate::run::plan_gates::{self, GateSummary};
use crate::run::rollback_scope::preview_rollback;
use crate::run::run_checks::check_step_id;
use crate::run::stored_run::stored_route;

/// Finds out what is ahead and shows it; `None` when there is nothing to do.
pub async fn prepare_route(
    cx: &CommandContext,
    reached: &ClusterConnection,
    plan_input: &PlanInput,
    until: Option<&str>,
    commands: &RunCommands,
    live: Option<&dyn RunOutput>,
) -> Result<Option<PendingRoute>, RunError> {
    let found = assess_cluster(reached, plan_input, live, commands).await?;
    let now = reached.clock.now();
    // An open run is not judged again: what blocks a new one may be what it is about to fix.
    if let Some(state) = &found.open_run {
        let route = stored_route(state)?;
        check_step_id(&route, until)?;
        let said = plan_gates::summarize_gates(&plan_input.plan, &route, Some(state), now)?;
        let done = state.steps.iter().filter(|s| s.status.is_over()).count();
        let n = state.steps.len();
        cx.ui.print_note(&format!(
            "run {} is open: {done} of {n} steps are done",
            state.run
        ));
        let over = state.steps.iter().filter(|s| s.status.is_over());
        let over: DoneSteps = over.map(|s| s.id.clone()).collect();
        for step in route.steps.iter().filter(|s| !over.contains(&s.id)) {
            cx.ui
                .print_note(&format!("  to do: {}, {}", step.id, step.title));
        }
        for line in said.lines {
            cx.ui.print_note(&line);
        }
    } else {
        let said = match &found.route {
            Some(route) => plan_gates::summarize_gates(&plan_input.plan, route, None, now)?,
            None => GateSummary::default(),
        };
        let (route, findings) = (found.route.as_ref(), &found.findings);
        match cx.ui.format {
            OutputFormat::Text => cx
                .ui
                .print_note(&render_preview(cx, route, findings, &said, now)),
            OutputFormat::Json | OutputFormat::Markdown => {
                let done = DoneSteps::new();
                show_route(
                    &cx.ui,
                    route.map(|r| (r, &done)),
                    findings,
                    &said,
                    Some(now),
                )?;
            }
        }
    }
    // Shown before this can refuse, so that a reader sees what blocks.
    let ahead = found.into_pending_route(&plan_input.plan, &commands.resume)?;
    match &ahead {
        Some(ahead) => {
            if let Some(route) = &ahead.new_route {
                check_step_id(route, until)?;
            }
        }
        None => cx.ui.print_note(&format!(
            "nothing to do: cluster {} is as the plan describes it",
            plan_input.plan.cluster
        )),
    }
    Ok(ahead)
}

/// Shows findings and what is left of a route in the form that was asked for, and how far back it goes when it would begin
/// `now`.
pub fn show_route(
    ui: &Ui,
    route: Option<(&Route, &DoneSteps)>,
    found: &[Finding],
    said: &GateSummary,
    now: Option<Timestamp>,
) -> Result<(), RunError> {
    // How far back a rollback goes is a promise for a run that begins now; an open one is told by `status`.
    let back = route
        .zip(now)
        .map(|((r, _), now)| preview_rollback(r, now))
        .unwrap_or_default();
    match ui.format {
        OutputFormat::Text => {
            let mut text = String::new();
            if !found.is_empty() {
                text += &findings::render_text(found, ui.out_paint);
                text.push('\n');
            }
            if let Some((route, done)) = route {
                text += &route_view::render_text(route, done, ui.out_paint);
            }
            for line in &said.lines {
                text += &format!("{line}\n");
            }
            if !back.is_empty() {
                text += &format!("\nrollback:\n  {}\n", back.join("\n  "));
            }
            ui.write_result(&text)
        }
        OutputFormat::Markdown => {
            let mut text = route
                .map(|(route, done)| route_view::render_markdown(route, done))
                .unwrap_or_default();
            for line in said.lines.iter().chain(&back) {
                text += &format!("\n- {line}");
            }
            text += &format!("\n{}", findings::render_markdown(found));
            ui.write_result(&text)
        }
        OutputFormat::Json => {
            ui.write_json_line(&crate::report::json::version_line())?;
            ui.write_json_line(&serde_json::json!({
                "type": "plan",
                "route": route.map(|(route, done)| route_view::render_json(route, done)),
                "gates": said.json,
                "findings": findings::render_json(found),
                "blocking": count_blockers(found),
                "rollback": back,
            }))
        }
    }
}

/// What is about to be done is said beside the run's own output.
fn render_preview(
    cx: &CommandContext,
    route: Option<&Route>,
    found: &[Finding],
    said: &GateSummary,
    now: Timestamp,
) -> String {
    let mut text = findings::render_text(found, cx.ui.paint);
    if let Some(route) = route {
        text += &route_view::render_text(route, &DoneSteps::new(), cx.ui.paint);
        let back = preview_rollback(route, now);
        if !back.is_empty() {
            text += &format!("\nrollback:\n  {}\n", back.join("\n  "));
        }
    }
    for line in &said.lines {
        text += &format!("{line}\n");
    }
    text
}
