//! The tables of the page. On a narrow screen each row is a block in which every cell names its column.

use std::time::Duration;

use maud::{Markup, html};

use super::charts::{self, drain_time, short_node};
use super::words::{
    NOT_RECORDED, count_words, moment, node_words, pod_time_words, state_word, wait_word,
};
use super::{NodePhase, NodeReport, RunReport, StepReport, TrafficReport, WaitReport};
use crate::event::facts::{ColourTraffic, ObjectVersion};
use crate::report::text::{format_duration, time_between};
use crate::report::view::StepMark;

/// Rows of pods, the slowest first.
pub const MAX_POD_ROWS: usize = 20;
/// Rows of waits, the longest first.
pub const MAX_WAIT_ROWS: usize = 40;
/// Shorter waits are left out.
const MIN_LISTED_WAIT: Duration = Duration::from_secs(5);

/// The step that the run stands at in failure, with what it said.
pub fn failed_step(report: &RunReport) -> Option<(&StepReport, &str)> {
    report.steps.iter().find_map(|step| match step.mark {
        StepMark::Failed => Some((step, step.note.as_deref()?)),
        StepMark::UndoFailed => Some((step, step.undo_note.as_deref()?)),
        StepMark::Pending
        | StepMark::Running
        | StepMark::Done
        | StepMark::Skipped
        | StepMark::Undoing
        | StepMark::Undone => None,
    })
}

/// A table. A column's name ends with how it is set: `>` numbers at the right, `.` words that stay on one line, `~` an id
/// that may be broken anywhere.
fn table(columns: &[&'static str], rows: Vec<Vec<Markup>>) -> Markup {
    let columns: Vec<(&str, &str)> = columns.iter().map(|c| split_column(c)).collect();
    // Roles are written out, because a table that is laid out as blocks is none any more for a screen reader.
    html! {
        table role="table" {
            thead role="rowgroup" {
                tr role="row" {
                    @for (name, class) in &columns {
                        th role="columnheader" scope="col" class=[Some(class).filter(|c| !c.is_empty())] { (name) }
                    }
                }
            }
            tbody role="rowgroup" {
                @for row in rows {
                    tr role="row" {
                        @for (i, (cell, (name, class))) in row.into_iter().zip(&columns).enumerate() {
                            @let class = if i == 0 { format!("main {class}") } else { (*class).to_owned() };
                            @let label = Some(name).filter(|_| i > 0);
                            td role="cell" class=[Some(class.trim()).filter(|c| !c.is_empty())] data-label=[label] { (cell) }
                        }
                    }
                }
            }
        }
    }
}

fn split_column(column: &'static str) -> (&'static str, &'static str) {
    let set = [('>', "r"), ('.', "s"), ('~', "id")];
    set.into_iter()
        .find_map(|(mark, class)| Some((column.strip_suffix(mark)?, class)))
        .unwrap_or((column, ""))
}

fn text(words: impl AsRef<str>) -> Markup {
    html! { (words.as_ref()) }
}

/// The nodes as a drawing and as a table.
pub fn render_nodes(report: &RunReport) -> Markup {
    let drained: Vec<&NodeReport> = report
        .nodes
        .iter()
        .filter(|n| n.spans.iter().any(|s| s.state.is_of_drain()))
        .collect();
    // Only nodes that a drain touched have a row; the others have nothing to tell.
    let rows = drained.iter().map(|node| {
        let began = node.spans.iter().find(|s| s.state.is_of_drain());
        vec![
            text(short_node(&node.name)),
            text(node.group.as_deref().unwrap_or(NOT_RECORDED)),
            text(node.pods.map_or_else(String::new, |n| n.to_string())),
            text(began.map_or_else(String::new, |s| moment(s.from, report))),
            text(format_duration(drain_time(node))),
            text(node_waits(node)),
            text(node.gone.map_or_else(String::new, |at| moment(at, report))),
        ]
    });
    let columns = [
        "node~",
        "group~",
        "pods>",
        "drain began.",
        "until empty>",
        "waited for",
        "gone.",
    ];
    // The slowest is what a reader looks for, so it is told in words above the drawing.
    let slowest = drained.iter().max_by_key(|n| drain_time(n));
    html! {
        @if let Some(slowest) = slowest {
            p.soft {
                (count_words(drained.len() as u64, "node was drained", "nodes were drained"))
                "; the slowest, " (short_node(&slowest.name)) ", took " (format_duration(drain_time(slowest))) "."
            }
        }
        (charts::draw_nodes(report))
        @if !drained.is_empty() {
            details {
                summary { "Table of the " (count_words(drained.len() as u64, "drained node", "drained nodes")) }
                (table(&columns, rows.collect()))
            }
        }
    }
}

fn node_waits(node: &NodeReport) -> String {
    let mut parts = Vec::new();
    for state in [
        NodePhase::WaitingBudget,
        NodePhase::WaitingReplacement,
        NodePhase::WaitingVolume,
        NodePhase::WaitingTarget,
        NodePhase::WaitingJob,
    ] {
        // Each cause with the time of all its spans, however often it came back.
        let of_state = node.spans.iter().filter(|s| s.state == state);
        let time: Duration = of_state.clone().map(|s| time_between(s.from, s.to)).sum();
        if let Some(first) = of_state.clone().next() {
            let why = first.why.as_deref().map(|w| format!(": {w}"));
            parts.push(format!(
                "{} {}{}",
                node_words(state).0.trim_start_matches("waiting for "),
                format_duration(time),
                why.unwrap_or_default()
            ));
        }
    }
    parts.join("; ")
}

/// The pods that took longest, and why; `None` where no pod had to move.
pub fn render_pods(report: &RunReport) -> Option<Markup> {
    let Some(pods) = &report.pods else {
        // Without a drain there is nothing to record.
        let drained = report
            .nodes
            .iter()
            .any(|n| n.spans.iter().any(|s| s.state.is_of_drain()));
        return drained
            .then(|| html! { p.soft { "How long each pod took is " (NOT_RECORDED) "." } });
    };
    // The slowest first: the others are alike, and a cluster may have thousands of pods.
    let mut slowest: Vec<_> = pods.iter().collect();
    slowest.sort_by_key(|p| std::cmp::Reverse(p.total()));
    let shown = slowest.iter().take(MAX_POD_ROWS);
    let rows = shown.map(|pod| {
        let (spent, why) = pod_time_words(pod);
        let end = match pod.gone {
            Some(at) => moment(at, report),
            None => "still there".to_owned(),
        };
        vec![
            text(&pod.pod),
            text(short_node(&pod.node)),
            text(format_duration(pod.total())),
            text(spent),
            text(why.unwrap_or_default()),
            text(end),
        ]
    });
    let columns = ["pod~", "node~", "took>", "of it", "why", "had left."];
    // Pods that are still there are listed, but not counted as moved.
    let moved = pods.iter().filter(|p| p.gone.is_some()).count();
    Some(html! {
        p.soft {
            (count_words(moved as u64, "pod left its node", "pods left their nodes"))
            @if pods.len() > MAX_POD_ROWS { "; the " (MAX_POD_ROWS) " that took longest:" } @else { "." }
        }
        (table(&columns, rows.collect()))
    })
}

/// Traffic of each pair of target groups.
pub fn render_traffic(report: &RunReport) -> Markup {
    html! {
        @for traffic in &report.traffic {
            @if report.traffic.len() > 1 { h3 { (traffic.title) } }
            (charts::draw_traffic(report, traffic))
            (traffic_table(report, traffic))
        }
    }
}

fn traffic_table(report: &RunReport, traffic: &TrafficReport) -> Markup {
    // What was not read is said so: an empty cell would read as 0.
    let health = |colour: &ColourTraffic| match (colour.healthy, colour.targets) {
        (Some(healthy), Some(targets)) => format!("{healthy} of {targets} healthy"),
        _ => NOT_RECORDED.to_owned(),
    };
    let share =
        |percent: Option<u64>| percent.map_or_else(|| NOT_RECORDED.to_owned(), |p| format!("{p}%"));
    // Without counted requests their columns would be empty, so they are left out.
    let counted = |c: &ColourTraffic| c.requests.is_some();
    let requests = traffic
        .readings
        .iter()
        .any(|(_, r)| counted(&r.blue) || counted(&r.green));
    let mut columns = vec!["time.", "on green>", "green's targets", "blue's targets"];
    if requests {
        columns.extend(["requests to green>", "requests to blue>"]);
    }
    let number = |n: Option<u64>| n.map_or_else(|| "not counted".to_owned(), |n| n.to_string());
    // Events of an eksup without readings hold only the shares that were set.
    let rows: Vec<Vec<Markup>> = if traffic.readings.is_empty() {
        let shares = traffic.shares.iter();
        shares
            .map(|(at, percent)| {
                vec![
                    text(moment(*at, report)),
                    text(share(Some(*percent))),
                    text(NOT_RECORDED),
                    text(NOT_RECORDED),
                ]
            })
            .collect()
    } else {
        let readings = traffic.readings.iter();
        readings
            .map(|(at, r)| {
                let mut row = vec![
                    text(moment(*at, report)),
                    text(share(r.green_percent)),
                    text(health(&r.green)),
                    text(health(&r.blue)),
                ];
                if requests {
                    row.push(text(number(r.green.requests)));
                    row.push(text(number(r.blue.requests)));
                }
                row
            })
            .collect()
    };
    html! {
        (table(&columns, rows))
        @if !requests { p.note { "Requests were not counted; shares are what the rules were set to." } }
    }
}

/// Every step: how it ended, how long it took, what it did.
pub fn render_steps(report: &RunReport) -> Markup {
    let rows = report.steps.iter().enumerate().map(|(i, step)| {
        vec![
            html! { (i + 1) ". " (step.title) " " code { (step.id) } },
            html! { span class=(mark_class(step.mark)) { (state_word(step, report)) } },
            text(step_time(step)),
            text(
                step.estimate
                    .map_or_else(|| NOT_RECORDED.to_owned(), format_duration),
            ),
            render_how(report, step),
        ]
    });
    table(
        &["step", "state", "took>", "estimated>", "how"],
        rows.collect(),
    )
}

fn step_time(step: &StepReport) -> String {
    use super::Activity;
    if step.spans.is_empty() {
        return String::new();
    }
    let undo = step.time_spent(|a| a == Activity::Undo);
    let forward = step.time_spent(|a| a != Activity::Undo);
    if step.spans.iter().any(|s| s.activity == Activity::Undo) {
        format!(
            "{} and {} back",
            format_duration(forward),
            format_duration(undo)
        )
    } else {
        format_duration(forward)
    }
}

fn render_how(report: &RunReport, step: &StepReport) -> Markup {
    html! {
        @if let Some(note) = &step.note { (note.trim_end_matches('.')) "." }
        @if let Some(note) = &step.undo_note { " Rolled back: " (note.trim_end_matches('.')) "." }
        @if step.retries > 0 { " (" (count_words(u64::from(step.retries), "retry", "retries")) ")" }
        @if let Some(why) = &step.no_return { " " span.warn { "Cannot be rolled back: " (why) "." } }
        @if !step.acts.is_empty() {
            details {
                summary { (count_words(step.acts.len() as u64, "action", "actions")) }
                ul { @for (at, what) in &step.acts { li { span.soft { (moment(*at, report)) } " " (what) } } }
            }
        }
    }
}

fn mark_class(mark: StepMark) -> &'static str {
    match mark {
        StepMark::Done | StepMark::Skipped => "ok",
        StepMark::Failed | StepMark::UndoFailed => "bad",
        StepMark::Undone | StepMark::Undoing | StepMark::Running => "warn",
        StepMark::Pending => "soft",
    }
}

/// The waits worth a row, the longest first, and how many are left out.
pub fn listed_waits(report: &RunReport) -> (Vec<&WaitReport>, usize) {
    let long = |w: &&WaitReport| time_between(w.from, w.to) >= MIN_LISTED_WAIT;
    let mut waits: Vec<&WaitReport> = report.waits.iter().filter(long).collect();
    waits.sort_by_key(|w| std::cmp::Reverse(time_between(w.from, w.to)));
    waits.truncate(MAX_WAIT_ROWS);
    let left_out = report.waits.len() - waits.len();
    (waits, left_out)
}

/// One row a wait.
pub fn render_waits(report: &RunReport) -> Option<Markup> {
    let (waits, left_out) = listed_waits(report);
    let rows = waits.iter().map(|wait| {
        vec![
            text(&wait.why),
            html! { code { (wait.step) } },
            text(wait_word(wait.activity)),
            text(moment(wait.from, report)),
            text(format_duration(time_between(wait.from, wait.to))),
        ]
    });
    (!waits.is_empty()).then(|| {
        html! {
            (table(&["what", "step~", "kind.", "from.", "for>"], rows.collect()))
            @if left_out > 0 { p.note { (count_words(left_out as u64, "shorter wait is", "shorter waits are")) " not listed." } }
        }
    })
}

/// What was known before, and what the plan consents to.
pub fn render_findings(report: &RunReport) -> Markup {
    html! {
        @match &report.findings {
            None => p.soft { "Findings are " (NOT_RECORDED) "." },
            Some(found) if found.is_empty() => p { "Nothing was found that speaks against the upgrade." },
            Some(found) => {
                @let rows = found.iter().map(|f| vec![
                    html! { span class={ "sev " (severity_class(&f.severity)) } { (f.severity) } " " code { (f.code) } },
                    text(&f.object),
                    text(&f.detail),
                    text(&f.fix),
                ]).collect();
                (table(&["finding.", "object", "detail", "fix"], rows))
            },
        }
        h3 { "What the plan consents to" }
        @match &report.consents {
            None => p.soft { "Consents are " (NOT_RECORDED) "." },
            Some(consents) if consents.is_empty() => p { "Nothing beyond the defaults." },
            Some(consents) => ul {
                @for c in consents {
                    li { code { (c.key) } " " (c.value) @if let Some(object) = &c.object { " (" (object) ")" } }
                }
            },
        }
    }
}

fn severity_class(severity: &str) -> &'static str {
    match severity {
        "blocker" => "bad",
        "warning" => "warn",
        _ => "soft",
    }
}

/// How often each call was made, and what was tried again.
pub fn render_calls(report: &RunReport) -> Markup {
    html! {
        // Retries first: they are why a run took longer, and calls are only numbers.
        @if report.retries.is_empty() {
            p { "No step had to try a call again." }
        } @else {
            @let rows = report.retries.iter().map(|r| vec![
                text(&r.error),
                html! { code { (r.step) } },
                text(&r.class),
                text(r.times.to_string()),
                text(format!("{} to {}", moment(r.first, report), moment(r.last, report))),
            ]).collect();
            (table(&["error", "step~", "kind.", "times>", "from, to"], rows))
        }
        @match &report.calls {
            // An eksup that counted no calls is told from one that made none.
            None => p.soft { "How many calls were made is " (NOT_RECORDED) "." },
            Some(calls) => {
                @let sum = |of: fn(&crate::event::facts::CallCount) -> u64| calls.iter().map(of).sum::<u64>();
                details {
                    summary {
                        (sum(|c| c.made)) " calls to AWS and Kubernetes: " (sum(|c| c.throttled)) " throttled, "
                        (sum(|c| c.failed)) " with an error"
                    }
                    @let rows = calls.iter().map(|c| vec![
                        text(&c.call),
                        text(c.made.to_string()),
                        text(c.throttled.to_string()),
                        text(c.failed.to_string()),
                    ]).collect();
                    (table(&["call~", "made>", "throttled>", "errors>"], rows))
                    p.note { "Errors include answers that were expected, such as of something that is not there, or of a budget that does not let a pod go." }
                }
            },
        }
    }
}

/// An object's version on both sides.
pub struct VersionRow<'a> {
    pub kind: &'a str,
    pub name: &'a str,
    pub before: Option<&'a ObjectVersion>,
    pub after: Option<&'a ObjectVersion>,
}

/// Pairs what was read before with what was read after.
pub fn version_rows(report: &RunReport) -> Vec<VersionRow<'_>> {
    fn of(side: Option<&(jiff::Timestamp, Vec<ObjectVersion>)>) -> &[ObjectVersion] {
        side.map(|(_, o)| o.as_slice()).unwrap_or_default()
    }
    let (before, after) = (
        of(report.versions.before.as_ref()),
        of(report.versions.after.as_ref()),
    );
    let mut rows: Vec<VersionRow<'_>> = Vec::new();
    for (objects, is_after) in [(before, false), (after, true)] {
        for object in objects {
            // Nodes of one group may have several versions at a time: each is a row of its own.
            let same = |r: &&mut VersionRow<'_>| {
                r.kind == object.kind && r.name == object.name && is_after && r.after.is_none()
            };
            match rows.iter_mut().find(same) {
                Some(row) => row.after = Some(object),
                None => rows.push(VersionRow {
                    kind: &object.kind,
                    name: &object.name,
                    before: Some(object).filter(|_| !is_after),
                    after: Some(object).filter(|_| is_after),
                }),
            }
        }
    }
    let order = ["control plane", "add-on", "node group", "nodes"];
    rows.sort_by_key(|r| order.iter().position(|k| *k == r.kind));
    rows
}

/// A version as a cell; `read`: that side was read at all.
pub fn version_cell(object: Option<&ObjectVersion>, read: bool) -> String {
    match (object, read) {
        (Some(object), _) => match &object.detail {
            Some(detail) => format!("{} ({detail})", object.version),
            None => object.version.clone(),
        },
        (None, true) => "not there".to_owned(),
        (None, false) => NOT_RECORDED.to_owned(),
    }
}

/// Versions of everything, before and after.
pub fn render_versions(report: &RunReport) -> Markup {
    let versions = &report.versions;
    let rows = version_rows(report);
    let (before, after) = (versions.before.is_some(), versions.after.is_some());
    let cells = rows.iter().map(|row| {
        let (old, new) = (
            version_cell(row.before, before),
            version_cell(row.after, after),
        );
        let changed = before && after && old != new;
        vec![
            text(row.name),
            text(row.kind),
            text(old),
            html! { @if changed { strong { (new) } } @else { span.same { (new) } } },
        ]
    });
    html! {
        @if rows.is_empty() {
            p.soft { "Versions are " (NOT_RECORDED) "." }
        } @else {
            (table(&["object~", "kind.", "before", "after"], cells.collect()))
        }
        @if !versions.unread.is_empty() { p.note { "Could not be read: " (versions.unread.join("; ")) } }
        @if let Some((at, _)) = &versions.after { p.note { "After: as read at " (moment(*at, report)) "." } }
    }
}

/// The processes that carried the run, and who let steps begin.
pub fn render_processes(report: &RunReport) -> Markup {
    let at = |t: Option<jiff::Timestamp>| t.map_or_else(String::new, |t| moment(t, report));
    let rows = report.processes.iter().map(|p| {
        vec![
            text(p.holder.as_deref().unwrap_or("process not recorded")),
            text(p.caller.as_deref().unwrap_or(NOT_RECORDED)),
            text(if p.rolls_back { "rollback" } else { "upgrade" }),
            text(at(p.from)),
            text(at(p.to)),
            text(p.ended.as_deref().unwrap_or("without a word")),
        ]
    });
    html! {
        (table(&["process~", "identity~", "way.", "from.", "to.", "ended"], rows.collect()))
        @if !report.approvals.is_empty() {
            h3 { "Approvals" }
            @let rows = report.approvals.iter().map(|a| vec![
                html! { code { (a.step) } },
                text(&a.by),
                text(a.given_at.map_or_else(|| NOT_RECORDED.to_owned(), |t| moment(t, report))),
            ]).collect();
            (table(&["step~", "by", "given at."], rows))
        }
        @if let Some(arn) = &report.cluster_arn { p.note { "Cluster " code { (arn) } } }
    }
}
