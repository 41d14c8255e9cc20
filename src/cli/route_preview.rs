//! What is ahead, shown before anything is done.

use std::collections::BTreeSet;

use super::args::OutputFormat;
use super::context::CommandContext;
use super::route_summary::PlannedRoute;
use super::route_view::DoneSteps;
use super::ui::{Ui, fit_terminal, page_columns, terminal_width};
use super::{findings, route_view};
use crate::model::{Inventory, Timestamp};
use crate::plan::Plan;
use crate::ready::{Code, Finding};
use crate::report::Painter;
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

/// The route, where EKS offers every version on it: of another one, which may be hundreds of steps long, nothing is to be
/// learned.
pub fn offered_route<'a>(route: Option<&'a Route>, found: &[Finding]) -> Option<&'a Route> {
    let missing = |f: &Finding| f.code == Code::TargetNotOffered.as_str();
    route.filter(|_| !found.iter().any(missing))
}

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
        let said =
            plan_gates::summarize_run_gates(reached, &plan_input.plan, &route, state).await?;
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
    // A new route is shown as `plan` shows it.
    } else {
        let said = match &found.route {
            Some(route) => plan_gates::summarize_gates(&plan_input.plan, route, None, now)?,
            None => GateSummary::default(),
        };
        let shown = ShownRoute {
            plan: &plan_input.plan,
            route: offered_route(found.route.as_ref(), &found.findings),
            inventory: found.inventory.as_ref(),
            done: &DoneSteps::new(),
            found: &found.findings,
            said: &said,
            now,
            details: false,
        };
        match cx.ui.format {
            // What is about to be done is said beside the run's own output.
            OutputFormat::Text => {
                annotate_route(&cx.ui, &shown)?;
                cx.ui.print_note(&shown.render_text(
                    &console::Term::stderr(),
                    terminal_width(),
                    cx.ui.paint,
                )?);
            }
            OutputFormat::Json | OutputFormat::Markdown => show_route(&cx.ui, &shown)?,
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

/// Findings and what is left of a route.
pub struct ShownRoute<'a> {
    pub plan: &'a Plan,
    /// `None` where something stands in its way.
    pub route: Option<&'a Route>,
    pub inventory: Option<&'a Inventory>,
    pub done: &'a DoneSteps,
    pub found: &'a [Finding],
    pub said: &'a GateSummary,
    pub now: Timestamp,
    /// Whether each step has its id, what it touches and why.
    pub details: bool,
}

impl ShownRoute<'_> {
    /// Renders findings first, because they decide whether there is a run at all.
    fn render_text(
        &self,
        terminal: &console::Term,
        columns: usize,
        paint: Painter,
    ) -> Result<String, RunError> {
        let mut text = fit_terminal(&findings::render_text(self.found, paint), terminal);
        if let Some(route) = self.route {
            if !text.is_empty() {
                text.push('\n');
            }
            let approvals = plan_gates::steps_to_approve(self.plan, route)?;
            let planned = self.planned(route, &approvals);
            text += &route_view::render_text(
                &planned,
                &self.said.lines,
                (self.details, columns.clamp(80, 120)),
                paint,
            );
        }
        Ok(text)
    }

    fn render_markdown(&self) -> Result<String, RunError> {
        let mut text = match self.route {
            Some(route) => route_view::markdown_title(route),
            None => format!("## eksup: `{}` to {}\n", self.plan.cluster, self.plan.to),
        };
        text += &format!("\n{}", findings::render_markdown(self.found));
        if let Some(route) = self.route {
            let approvals = plan_gates::steps_to_approve(self.plan, route)?;
            let planned = self.planned(route, &approvals);
            text += &format!(
                "\n{}",
                route_view::render_markdown(&planned, &self.said.lines)
            );
        }
        Ok(text)
    }

    fn planned<'b>(
        &'b self,
        route: &'b Route,
        approvals: &'b BTreeSet<String>,
    ) -> PlannedRoute<'b> {
        PlannedRoute {
            route,
            done: self.done,
            inventory: self.inventory,
            windows: &self.plan.windows,
            approvals,
            now: self.now,
        }
    }
}

/// Annotates the findings and adds the plan to the step summary, where GitHub runs this.
fn annotate_route(ui: &Ui, shown: &ShownRoute<'_>) -> Result<(), RunError> {
    ui.annotate_findings(shown.found, &shown.render_markdown()?);
    Ok(())
}

/// Shows findings and what is left of a route in the form that was asked for.
pub fn show_route(ui: &Ui, shown: &ShownRoute<'_>) -> Result<(), RunError> {
    annotate_route(ui, shown)?;
    match ui.format {
        OutputFormat::Text => ui.write_result(&shown.render_text(
            &console::Term::stdout(),
            page_columns(),
            ui.out_paint,
        )?),
        OutputFormat::Markdown => ui.write_result(&shown.render_markdown()?),
        OutputFormat::Json => {
            // How far back a rollback goes is a promise for a run that begins now; an open one is told by `status`.
            let new_route = shown.route.filter(|_| shown.done.is_empty());
            let back = new_route
                .map(|r| preview_rollback(r, &shown.plan.windows, shown.now).lines)
                .unwrap_or_default();
            let route = shown
                .route
                .map(|route| route_view::render_json(route, shown.done));
            ui.write_json_line(&crate::report::json::version_line())?;
            ui.write_json_line(&serde_json::json!({
                "type": "plan",
                "route": route,
                "gates": shown.said.json,
                "findings": findings::render_json(shown.found),
                "blocking": count_blockers(shown.found),
                "rollback": back,
            }))
        }
    }
}
