//! A route as people and machines read it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use crate::report::markdown::escape_cell;
use crate::report::{Painter, format_duration};
use crate::route::{Route, RouteStep};

/// Ids of the steps of an open run that are over, and so no part of what is left.
pub type DoneSteps = BTreeSet<String>;

/// The time the steps that are left are expected to take.
fn estimate_left(route: &Route, done: &DoneSteps) -> Duration {
    steps_left(route, done).map(|(_, s)| s.estimate).sum()
}

/// The steps that are left, each with its number on the whole route.
fn steps_left<'a>(
    route: &'a Route,
    done: &'a DoneSteps,
) -> impl Iterator<Item = (usize, &'a RouteStep)> {
    let numbered = route.steps.iter().enumerate();
    numbered
        .filter(|(_, s)| !done.contains(&s.id))
        .map(|(i, s)| (i + 1, s))
}

/// `26 steps`, or `12 of 26 steps left`.
fn how_many(route: &Route, done: &DoneSteps) -> String {
    let n = route.steps.len();
    match steps_left(route, done).count() {
        all if all == n => format!("{n} steps"),
        some => format!("{some} of {n} steps left"),
    }
}

/// What is left of the route, for people.
pub fn render_text(route: &Route, done: &DoneSteps, paint: Painter) -> String {
    let mut out = String::new();
    let n = how_many(route, done);
    let total = format_duration(estimate_left(route, done));
    // Writing to a String cannot fail.
    let title = format!("{}: {} -> {}", route.cluster, route.from, route.to);
    let _ = writeln!(out, "{}, {n}, about {total}\n", paint.bold(&title));
    let over: Vec<&str> = (route.steps.iter().map(|s| s.id.as_str()))
        .filter(|id| done.contains(*id))
        .collect();
    if !over.is_empty() {
        let _ = writeln!(out, "done already: {}\n", over.join(", "));
    }
    for (i, step) in steps_left(route, done) {
        let about = paint.dim(&format!("about {}", format_duration(step.estimate)));
        let _ = writeln!(out, "{:>3}. {}  {about}", i, paint.bold(&step.title));
        let _ = writeln!(out, "     {}", paint.dim(&step.id));
        if !step.touches.is_empty() {
            let _ = writeln!(out, "     touches {}", step.touches.join(", "));
        }
        if let Some(why) = &step.why {
            let _ = writeln!(out, "     {why}");
        }
        if let Some(why) = &step.no_return {
            let _ = writeln!(out, "     {}: {why}", paint.yellow("no rollback"));
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

/// What is left of the route, as Markdown.
pub fn render_markdown(route: &Route, done: &DoneSteps) -> String {
    let mut out = format!(
        "## eksup: `{}` {} -> {}\n\n{}, about {}.\n\n| # | step | touches | about | no rollback |\n| --: | --- | --- | --: | --- |\n",
        route.cluster,
        route.from,
        route.to,
        how_many(route, done),
        format_duration(estimate_left(route, done))
    );
    for (i, step) in steps_left(route, done) {
        let why = step
            .why
            .as_ref()
            .map(|w| format!("<br>{}", escape_cell(w)))
            .unwrap_or_default();
        let _ = writeln!(
            out,
            "| {} | {}{why} | {} | {} | {} |",
            i,
            escape_cell(&step.title),
            escape_cell(&step.touches.join(", ")),
            format_duration(step.estimate),
            escape_cell(step.no_return.as_deref().unwrap_or_default())
        );
    }
    for note in &route.notes {
        let _ = write!(out, "\n- {}", escape_cell(note));
    }
    out + "\n"
}

/// The whole route for machines; each step says whether it is done.
pub fn render_json(route: &Route, done: &DoneSteps) -> serde_json::Value {
    let steps: Vec<_> = route
        .steps
        .iter()
        .map(|s| {
            serde_json::json!({
                "step": s.id, "title": s.title, "touches": s.touches, "why": s.why,
                "noReturn": s.no_return, "estimateSeconds": s.estimate.as_secs(),
                "done": done.contains(&s.id),
            })
        })
        .collect();
    serde_json::json!({
        "cluster": route.cluster, "from": route.from, "to": route.to, "steps": steps,
        "notes": route.notes, "estimateSeconds": estimate_left(route, done).as_secs(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route;
    use crate::route::fixture::expense_dev;
    use crate::run::judged_route::estimate_route;

    fn route() -> Route {
        let plan = crate::plan::parse_plan("p", "cluster: expense-dev\nto: 1.29\n").unwrap();
        route::build_route(&plan, &expense_dev()).unwrap()
    }

    #[test]
    fn the_plan_of_an_open_run_is_what_is_left_of_it() {
        let route = route();
        let done: DoneSteps = route.steps[..2].iter().map(|s| s.id.clone()).collect();
        let (first, third) = (&route.steps[0], &route.steps[2]);
        let (n, left) = (route.steps.len(), route.steps.len() - 2);
        let plain = Painter::default();
        let text = render_text(&route, &done, plain);
        assert!(
            text.contains(&format!("{left} of {n} steps left")),
            "{text}"
        );
        assert!(
            text.contains(&format!("done already: {}, ", first.id)),
            "{text}"
        );
        assert!(!text.contains(&first.title), "{text}");
        // Numbers are those of the whole route, as `status` has them.
        assert!(text.contains(&format!("  3. {}", third.title)), "{text}");
        let spared: Duration = route.steps[..2].iter().map(|s| s.estimate).sum();
        assert_eq!(
            estimate_left(&route, &done) + spared,
            estimate_route(&route)
        );
        let page = render_markdown(&route, &done);
        assert!(page.contains("| 3 |") && !page.contains("| 1 |"), "{page}");
        let json = render_json(&route, &done);
        let steps = json["steps"].as_array().unwrap();
        let over: Vec<bool> = steps.iter().map(|s| s["done"] == true).collect();
        assert_eq!(over.iter().filter(|d| **d).count(), 2);
        assert_eq!(steps.len(), n);
    }

    #[test]
    fn the_plan_of_a_new_run_is_the_whole_route() {
        let route = route();
        let text = render_text(&route, &DoneSteps::new(), Painter::default());
        let n = route.steps.len();
        assert!(text.contains(&format!("{n} steps, about")) && !text.contains("done already"));
    }
}
