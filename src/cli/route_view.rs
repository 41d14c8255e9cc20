//! A route as people and machines read it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use super::route_summary::{BeforeAfter, PlannedRoute, step_group};
use super::text_wrap::wrap_text;
use crate::report::Painter;
use crate::report::markdown::escape_cell;
use crate::report::text::format_estimate;
use crate::route::{Route, RouteStep, StepSpec};

/// Ids of the steps of an open run that are over, and so no part of what is left.
pub type DoneSteps = BTreeSet<String>;

/// From that many lines of steps on, headings have no blank line before them.
const LONG_ROUTE_LINES: usize = 24;
/// Further lines of a note stand under its first word.
const NOTE_INDENT: usize = 6;

/// Columns of a step's number, at least.
const LEAST_NUMBER_WIDTH: usize = 4;
/// Columns of the headline's words.
const KEY_WIDTH: usize = 14;

/// Columns that the last cell of a row has at least.
const LEAST_AFTER: usize = 16;

/// What is left of the route, for people. `gates`: what is said of windows and approvals. With `details`, each step has
/// its id, what it touches and why it stands there. Longer text than `page_width` columns is broken.
pub fn render_text(
    planned: &PlannedRoute<'_>,
    gates: &[String],
    (details, page_width): (bool, usize),
    paint: Painter,
) -> String {
    let route = planned.route;
    let title = format!("{}: {} -> {}", route.cluster, route.from, route.to);
    // Writing to a String cannot fail.
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{}, {}\n",
        paint.bold(&title),
        planned.describe_count()
    );
    // The head: key and value, in two columns. A key that repeats is shown once.
    let mut last = String::new();
    for (key, text) in planned.headline(gates) {
        let text = wrap_text(&text, page_width - KEY_WIDTH);
        for (i, line) in text.iter().enumerate() {
            let key = if i == 0 && key != last {
                key.as_str()
            } else {
                ""
            };
            let _ = writeln!(out, "{}{line}", paint.dim(&format!("{key:KEY_WIDTH$}")));
        }
        last = key;
    }
    // What the cluster looks like before and after, before the steps that make it so.
    let rows = planned.before_and_after();
    if !rows.is_empty() {
        let _ = write!(out, "\n{}", render_before_after(&rows, page_width, paint));
    }
    // Of a run that is open the steps that are done are named only.
    let over = route.steps.iter().map(|s| s.id.as_str());
    let over: Vec<&str> = over.filter(|id| planned.done.contains(*id)).collect();
    if !over.is_empty() {
        let _ = writeln!(out, "\ndone already: {}", over.join(", "));
    }
    // The steps under their parts. One that is in no part stays under the heading before it.
    let mut group = "";
    let lines = fold_steps(planned, details);
    let widest = lines.iter().map(|line| line.number_text().len()).max();
    let width = widest.unwrap_or_default().max(LEAST_NUMBER_WIDTH);
    let space = match lines.len() < LONG_ROUTE_LINES || details {
        true => "\n",
        false => "",
    };
    if space.is_empty() {
        let _ = writeln!(out);
    }
    for line in lines {
        let step = line.step;
        if let Some(own) = step_group(&step.spec).filter(|own| *own != group) {
            let _ = writeln!(out, "{space}{}", paint.bold(own));
            group = own;
        }
        let line = step_line(planned, &line, (width, page_width), paint);
        let _ = writeln!(out, "{line}");
        if details {
            write_details(&mut out, planned, (step, page_width), paint);
        }
    }
    // Notes come last: they explain choices and ask for nothing.
    if !route.notes.is_empty() {
        let _ = writeln!(out);
        for note in merge_notes(&route.notes) {
            let _ = writeln!(
                out,
                "{}",
                wrap_text(&format!("note: {note}"), page_width - NOTE_INDENT).join("\n      ")
            );
        }
    }
    // The hint is left out where nothing is left to do.
    if !details && planned.steps_left().next().is_some() {
        let hint = "`eksup plan --details` shows each step's id, what it touches and why";
        let _ = writeln!(out, "\n{}", paint.dim(hint));
    }
    out
}

/// Notes that say the same of several target groups, as one.
fn merge_notes(notes: &[String]) -> Vec<String> {
    const ONE: &str = "Target group ";
    let mut merged: Vec<(Vec<&str>, &str)> = Vec::new();
    for note in notes {
        let of_group = note.strip_prefix(ONE).and_then(|n| n.split_once(": "));
        let Some((name, text)) = of_group else {
            merged.push((Vec::new(), note));
            continue;
        };
        let same = |(names, said): &&mut (Vec<&str>, &str)| !names.is_empty() && *said == text;
        match merged.iter_mut().find(same) {
            Some((names, _)) => names.push(name),
            None => merged.push((vec![name], text)),
        }
    }
    let texts = merged
        .into_iter()
        .map(|(names, text)| match names.as_slice() {
            [] => text.to_owned(),
            [name] => format!("{ONE}{name}: {text}"),
            names => format!("Target groups {}: {text}", names.join(", ")),
        });
    texts.collect()
}

/// A line of the steps: one step, or several in a row that do the same to one group after another.
struct StepLine<'a> {
    step: &'a RouteStep,
    numbers: std::ops::RangeInclusive<usize>,
    title: String,
    estimate: Duration,
}

/// The steps that are left, a line each; without `details` those that do the same in a row share one.
fn fold_steps<'a>(planned: &PlannedRoute<'a>, details: bool) -> Vec<StepLine<'a>> {
    let mut lines: Vec<StepLine<'a>> = Vec::new();
    // What a title says beside the group's name, and the names so far.
    let mut last: Option<(String, Vec<&str>)> = None;
    for (i, step) in planned.steps_left() {
        // A green is kept from scale-down as soon as it is there.
        if let (StepSpec::HoldGreen { green }, Some(line), false) =
            (&step.spec, lines.last_mut(), details)
            && line
                .step
                .spec
                .created_group()
                .is_some_and(|g| g.name == *green)
            && planned.step_marks(step).is_empty()
        {
            line.numbers = *line.numbers.start()..=i;
            line.estimate += step.estimate;
            continue;
        }
        // A version of a template is made for the green that follows it.
        if let (StepSpec::CreateGreen { template_from, .. }, Some(line), false) =
            (&step.spec, lines.last_mut(), details)
            && let Some((template, how)) = made_template(&line.step.spec)
            && template_from.as_deref() == Some(template)
            && planned.step_marks(line.step).is_empty()
        {
            line.step = step;
            line.numbers = *line.numbers.start()..=i;
            line.title = format!("{}, {how}", step.title);
            line.estimate += step.estimate;
            continue;
        }
        let named = step.spec.serial_group().filter(|_| !details);
        let marks = planned.step_marks(step).concat();
        let pattern = named.map(|name| (step.title.replacen(name, "\0", 1) + &marks, name));
        let same = match (&pattern, &last) {
            (Some((pattern, _)), Some((before, _))) => pattern == before,
            (Some(_) | None, _) => false,
        };
        if let (true, Some(line), Some((text, names)), Some((_, name))) =
            (same, lines.last_mut(), &mut last, &pattern)
        {
            names.push(name);
            line.numbers = *line.numbers.start()..=i;
            let text = text.strip_suffix(&marks).unwrap_or(text);
            line.title = text.replacen('\0', &names.join(", "), 1);
            line.estimate += step.estimate;
            continue;
        }
        last = pattern.map(|(pattern, name)| (pattern, vec![name]));
        lines.push(StepLine {
            step,
            numbers: i..=i,
            title: step.title.clone(),
            estimate: step.estimate,
        });
    }
    lines
}

impl StepLine<'_> {
    fn number_text(&self) -> String {
        let (first, last) = (self.numbers.start(), self.numbers.end());
        match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        }
    }
}

fn step_line(
    planned: &PlannedRoute<'_>,
    line: &StepLine<'_>,
    (width, page_width): (usize, usize),
    paint: Painter,
) -> String {
    let time = paint.dim(&format!("{:>6}", format_estimate(line.estimate)));
    let step = line.step;
    let marks: Vec<String> = planned
        .step_marks(step)
        .into_iter()
        .map(|mark| format!(" [{}]", paint.yellow(mark)))
        .collect();
    // Further lines of a title stand under its first word.
    let indent = width + 10;
    let title = wrap_text(&line.title, page_width - indent);
    let title = title.join(&format!("\n{:indent$}", ""));
    let number = line.number_text();
    format!("{number:>width$}. {time}  {title}{}", marks.concat())
}

fn write_details(
    out: &mut String,
    planned: &PlannedRoute<'_>,
    (step, page_width): (&RouteStep, usize),
    paint: Painter,
) {
    let mut add = |label: &str, text: &str| {
        let lines = wrap_text(&format!("{label}{text}"), page_width - 14);
        let _ = writeln!(out, "              {}", lines.join("\n                "));
    };
    add("", &paint.dim(&step.id));
    if !step.touches.is_empty() {
        add("touches ", &planned.touches(step));
    }
    if let Some(why) = &step.why {
        add("", why);
    }
    if let Some(why) = &step.no_return {
        add(&format!("{}: ", paint.yellow("no rollback")), why);
    }
}

/// Columns as wide as their longest cell; the last one is broken where the page ends.
fn render_before_after(rows: &[BeforeAfter], page_width: usize, paint: Painter) -> String {
    let width = |cell: fn(&BeforeAfter) -> &str, title: &str| {
        let cells = rows.iter().map(|row| cell(row).chars().count());
        cells.max().unwrap_or_default().max(title.len())
    };
    let what = width(|r| &r.what, "");
    let before = width(|r| &r.before, "before");
    let mut out = String::new();
    let title = format!("{:what$}  {:before$}  after", "", "before");
    let _ = writeln!(out, "{}", paint.dim(&title));
    for row in rows {
        let start = what + before + 4;
        let after = wrap_text(
            &row.after,
            page_width.saturating_sub(start).max(LEAST_AFTER),
        );
        let after = after.join(&format!("\n{:start$}", ""));
        let line = format!("{:what$}  {:before$}  {after}", row.what, row.before);
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// What is left of the route, as Markdown. Tables have blank lines around them, without which GitHub shows no table.
pub fn render_markdown(planned: &PlannedRoute<'_>, gates: &[String]) -> String {
    let route = planned.route;
    let mut out = format!("{}.\n\n", planned.describe_count());
    // The head as a list.
    for (key, text) in planned.headline(gates) {
        let _ = writeln!(out, "- **{}**: {}", escape_cell(&key), escape_cell(&text));
    }
    // Before and after as a table; a route without changes has none.
    let rows = planned.before_and_after();
    if !rows.is_empty() {
        let _ = writeln!(out, "\n| | before | after |\n| --- | --- | --- |");
        for row in &rows {
            let cells = [&row.what, &row.before, &row.after].map(|cell| escape_cell(cell));
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        }
    }
    let _ = writeln!(
        out,
        "\n| # | part | step | about | |\n| --: | --- | --- | --: | --- |"
    );
    // The part is shown in its first row only.
    let mut group = "";
    for (i, step) in planned.steps_left() {
        let own = step_group(&step.spec).unwrap_or(group);
        let shown = if own == group { "" } else { own };
        group = own;
        let marks = planned.step_marks(step);
        let _ = writeln!(
            out,
            "| {i} | {shown} | {} | {} | {} |",
            escape_cell(&step.title),
            format_estimate(step.estimate),
            marks.join(", ")
        );
    }
    let _ = writeln!(
        out,
        // Ids and reasons are folded away, as a reviewer looks for the steps first.
        "\n<details><summary>What each step touches, and why</summary>\n\n| # | id | touches | why |\n| --: | --- | --- | --- |"
    );
    for (i, step) in planned.steps_left() {
        let no_return = step
            .no_return
            .as_ref()
            .map(|why| format!("no rollback: {why}"));
        let why: Vec<String> = step.why.iter().cloned().chain(no_return).collect();
        let _ = writeln!(
            out,
            "| {i} | `{}` | {} | {} |",
            step.id,
            escape_cell(&planned.touches(step)),
            escape_cell(&why.join("; "))
        );
    }
    let _ = writeln!(out, "\n</details>");
    // Notes come last: they explain choices and ask for nothing.
    for (i, note) in route.notes.iter().enumerate() {
        let space = if i == 0 { "\n" } else { "" };
        let _ = writeln!(out, "{space}- {}", escape_cell(note));
    }
    out
}

/// The heading of a page about a route.
pub fn markdown_title(route: &Route) -> String {
    format!(
        "## eksup: `{}` {} -> {}\n",
        route.cluster, route.from, route.to
    )
}

/// The time the steps that are left are expected to take.
fn estimate_left(route: &Route, done: &DoneSteps) -> Duration {
    let left = route.steps.iter().filter(|s| !done.contains(&s.id));
    left.map(|s| s.estimate).sum()
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

/// The template that a step makes or makes a version of, and how a green gets it.
fn made_template(spec: &StepSpec) -> Option<(&str, String)> {
    if let StepSpec::LaunchTemplate { template, .. } = spec {
        return Some((template, format!("by a new version of {template}")));
    }
    if let StepSpec::ConfigurationTemplate {
        configuration,
        template,
        ..
    } = spec
    {
        let how = format!("by launch template {template}, made of {configuration}");
        return Some((template, how));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Timestamp, Windows};
    use crate::route;
    use crate::route::fixture::expense_dev;

    fn route() -> Route {
        let plan = crate::plan::parse_plan("p", "cluster: expense-dev\nto: 1.29\n").unwrap();
        route::build_route(&plan, &expense_dev()).unwrap()
    }

    /// Shows a route of the fixture, as far as `done`, with `approvals`.
    fn show(done: &DoneSteps, approvals: &BTreeSet<String>) -> (String, String) {
        let (route, inventory, windows) = (route(), expense_dev(), Windows::default());
        let planned = PlannedRoute {
            route: &route,
            done,
            inventory: Some(&inventory),
            windows: &windows,
            approvals,
            now: Timestamp::from_second(1_790_000_000).unwrap(),
        };
        (
            render_text(&planned, &[], (false, 80), Painter::default()),
            render_markdown(&planned, &[]),
        )
    }

    #[test]
    fn the_plan_of_an_open_run_is_what_is_left_of_it() {
        let route = route();
        let done: DoneSteps = route.steps[..2].iter().map(|s| s.id.clone()).collect();
        let (first, third) = (&route.steps[0], &route.steps[2]);
        let (n, left) = (route.steps.len(), route.steps.len() - 2);
        let (text, page) = show(&done, &BTreeSet::new());
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
        let third_line = text.lines().find(|l| l.contains(&third.title)).unwrap();
        assert!(third_line.trim_start().starts_with("3. "), "{text}");
        assert!(page.contains("| 3 |") && !page.contains("| 1 |"), "{page}");
        let json = render_json(&route, &done);
        let steps = json["steps"].as_array().unwrap();
        let over: Vec<bool> = steps.iter().map(|s| s["done"] == true).collect();
        assert_eq!(over.iter().filter(|d| **d).count(), 2);
        assert_eq!(steps.len(), n);
    }

    #[test]
    fn a_plan_names_nodes_irreversible_steps_and_approvals_and_no_arn() {
        let approvals = BTreeSet::from(["drain-expense-blue".to_owned()]);
        let (text, page) = show(&DoneSteps::new(), &approvals);
        for part in [
            "3 before, at most 6 meanwhile, 3 after; zones us-east-1a",
            "is emptied, one node at a time [after approval]",
            "Control plane 1.28 to 1.29 [no rollback]",
            "expense-green: 1.29, 3 nodes",
        ] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
        assert!(!text.contains("arn:") && !page.contains("arn:"), "{page}");
        let long = text.lines().filter(|l| l.chars().count() > 100);
        assert_eq!(long.collect::<Vec<_>>(), Vec::<&str>::new());
    }

    #[test]
    fn a_step_that_waits_for_an_approval_shares_no_line() {
        let approvals = BTreeSet::from(["hold-expense-green".to_owned()]);
        let (text, _) = show(&DoneSteps::new(), &approvals);
        let mark = "Nodes of expense-green: kept from scale-down [after approval]";
        assert!(text.contains(mark), "{text}");
        let (text, _) = show(&DoneSteps::new(), &BTreeSet::new());
        assert!(!text.contains("Nodes of expense-green: kept"), "{text}");
    }

    #[test]
    fn markdown_tables_have_blank_lines_around_them() {
        let (_, page) = show(&DoneSteps::new(), &BTreeSet::new());
        let lines: Vec<&str> = page.lines().collect();
        for pair in lines.windows(2) {
            let table = |line: &str| line.starts_with('|');
            let apart = pair[0].is_empty() || pair[1].is_empty();
            assert!(table(pair[0]) == table(pair[1]) || apart, "{pair:?}");
        }
    }

    #[test]
    fn the_plan_of_a_new_run_is_the_whole_route() {
        let (text, _) = show(&DoneSteps::new(), &BTreeSet::new());
        let n = route().steps.len();
        assert!(text.contains(&format!("{n} steps\n")) && !text.contains("done already"));
    }
}
