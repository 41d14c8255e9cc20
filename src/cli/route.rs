//! A route, drawn and shown.

use std::fmt::Write as _;
use std::time::Duration;

use super::context::Reached;
use super::error::{CliError, Kind};
use super::findings::not_ready;
use crate::model::Inventory;
use crate::plan::Plan;
use crate::ready::{self, Code, Finding, Severity};
use crate::report::markdown::cell;
use crate::report::{Paint, took};
use crate::route::{self, Route};

/// Draws the route and judges the cluster for it. No route where something stands in its way.
pub fn survey(plan: &Plan, inventory: &Inventory) -> (Option<Route>, Vec<Finding>) {
    let drawn = route::build(plan, inventory);
    let found = ready::judge(plan, inventory, &drawn);
    (drawn.ok(), found)
}

/// Draws the route anew after EKS refused a hop until node groups match.
pub async fn again(plan: &Plan, reached: &Reached) -> Result<Route, CliError> {
    let inventory = reached.read(Some(plan.to)).await?;
    let drawn = route::replan_for_matching_nodes(plan, &inventory);
    let found = ready::judge(plan, &inventory, &drawn);
    // What the new route would rest on must have been read; everything else was judged when the run began.
    let unknown = |f: &Finding| f.code == Code::Unread.as_str() && f.severity == Severity::Blocker;
    match drawn {
        Ok(route) if !found.iter().any(unknown) => Ok(route),
        Ok(_) | Err(_) => {
            let mut error = not_ready(&plan.cluster, &found, "eksup plan");
            error.kind = Kind::Stuck;
            error.state.clear();
            Err(error)
        }
    }
}

/// The time all steps are expected to take.
pub fn estimate(route: &Route) -> Duration {
    route.steps.iter().map(|s| s.estimate).sum()
}

/// The route for people.
pub fn text(route: &Route, paint: Paint) -> String {
    let mut out = String::new();
    let n = route.steps.len();
    let total = took(estimate(route));
    // Writing to a String cannot fail.
    let title = format!("{}: {} -> {}", route.cluster, route.from, route.to);
    let _ = writeln!(out, "{}, {n} steps, about {total}\n", paint.bold(&title));
    for (i, step) in route.steps.iter().enumerate() {
        let about = paint.dim(&format!("about {}", took(step.estimate)));
        let _ = writeln!(out, "{:>3}. {}  {about}", i + 1, paint.bold(&step.title));
        let _ = writeln!(out, "     {}", paint.dim(&step.id));
        if !step.touches.is_empty() {
            let _ = writeln!(out, "     touches {}", step.touches.join(", "));
        }
        if let Some(why) = &step.why {
            let _ = writeln!(out, "     {why}");
        }
        if let Some(why) = &step.no_return {
            let _ = writeln!(out, "     {}: {why}", paint.yellow("no way back"));
        }
    }
    if !route.notes.is_empty() {
        let _ = writeln!(out);
        for note in &route.notes {
            let _ = writeln!(out, "- {note}");
        }
    }
    out
}

/// The route as Markdown.
pub fn markdown(route: &Route) -> String {
    let mut out = format!(
        "## eksup: `{}` {} -> {}\n\n{} steps, about {}.\n\n| # | step | touches | about | no way back |\n| --: | --- | --- | --: | --- |\n",
        route.cluster,
        route.from,
        route.to,
        route.steps.len(),
        took(estimate(route))
    );
    for (i, step) in route.steps.iter().enumerate() {
        let why = step
            .why
            .as_ref()
            .map(|w| format!("<br>{}", cell(w)))
            .unwrap_or_default();
        let _ = writeln!(
            out,
            "| {} | {}{why} | {} | {} | {} |",
            i + 1,
            cell(&step.title),
            cell(&step.touches.join(", ")),
            took(step.estimate),
            cell(step.no_return.as_deref().unwrap_or_default())
        );
    }
    for note in &route.notes {
        let _ = write!(out, "\n- {}", cell(note));
    }
    out + "\n"
}

/// The route for machines.
pub fn json(route: &Route) -> serde_json::Value {
    let steps: Vec<_> = route
        .steps
        .iter()
        .map(|s| {
            serde_json::json!({
                "step": s.id, "title": s.title, "touches": s.touches, "why": s.why,
                "noReturn": s.no_return, "estimateSeconds": s.estimate.as_secs(),
            })
        })
        .collect();
    serde_json::json!({
        "cluster": route.cluster, "from": route.from, "to": route.to, "steps": steps,
        "notes": route.notes, "estimateSeconds": estimate(route).as_secs(),
    })
}
