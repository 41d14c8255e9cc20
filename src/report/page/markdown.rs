//! The report as Markdown that GitHub and GitLab render: for a pull request, an issue, a chat.

use std::fmt::Write as _;

use super::charts::{drain_time, short_node};
use super::sections::{MAX_POD_ROWS, failed_step, listed_waits, version_cell, version_rows};
use super::words::{
    NOT_RECORDED, approval_words, end_words, full_moment, moment, pod_time_words, state_word,
    time_words, wait_word,
};
use super::{Activity, RunEnd, RunReport, StepReport};
use crate::report::markdown::escape_cell;
use crate::report::text::{format_duration, time_between};
use crate::report::wording::{PauseWords, tidy_text};

/// Rows of nodes in Markdown.
const MAX_NODE_ROWS: usize = 30;

/// Renders a report as Markdown.
pub fn render_report_markdown(report: &RunReport) -> String {
    let mut out = MarkdownText::default();
    head(&mut out, report);
    steps(&mut out, report);
    traffic(&mut out, report);
    nodes_and_pods(&mut out, report);
    waits(&mut out, report);
    findings(&mut out, report);
    calls(&mut out, report);
    versions(&mut out, report);
    if !report.notices.is_empty() {
        out.heading("Notices");
        for (at, text) in &report.notices {
            out.item(&format!("{} {text}", moment(*at, report)));
        }
    }
    out.0
}

/// Markdown as it grows: a blank line before each block, or tables and lists run into each other.
#[derive(Default)]
struct MarkdownText(String);

impl MarkdownText {
    fn line(&mut self, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{text}");
    }

    fn heading(&mut self, text: &str) {
        self.line(&format!("\n### {text}\n"));
    }

    fn paragraph(&mut self, text: &str) {
        self.line(&format!("\n{}", escape_text(text)));
    }

    fn item(&mut self, text: &str) {
        self.line(&format!("- {}", escape_text(text)));
    }

    fn table(&mut self, columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        self.line(&format!("| {} |", columns.join(" | ")));
        self.line(&format!("|{}", " --- |".repeat(columns.len())));
        for row in rows {
            let cells: Vec<String> = row.iter().map(|c| escape_cell(c)).collect();
            self.line(&format!("| {} |", cells.join(" | ")));
        }
    }
}

/// Text outside a table: one line, and no tags.
fn escape_text(text: &str) -> String {
    text.replace('<', "&lt;").replace(['\r', '\n'], " ")
}

fn head(out: &mut MarkdownText, report: &RunReport) {
    let (word, _) = end_words(report);
    let name = format!("{} {} to {}", report.cluster, report.from, report.to);
    // In the heading, as this text is pasted beside reports of real runs.
    let kind = if report.rehearsal == Some(true) {
        " (rehearsal)"
    } else {
        ""
    };
    out.line(&format!(
        "## {}{kind}: {}",
        escape_cell(&name),
        word.to_lowercase()
    ));
    // How it ended: a pause tells how the run goes on; a run without a last word tells its failed step.
    match (&report.end, &report.summary) {
        (RunEnd::Paused { why, resume }, _) => {
            let words = PauseWords::new(why, report.rehearsal == Some(true));
            out.paragraph(&format!("{}.", words.to_markdown(resume)));
        }
        (_, Some(summary)) => out.paragraph(summary),
        (_, None) => {
            if let Some((step, note)) = failed_step(report) {
                out.paragraph(&format!("{} failed: {}", step.title, tidy_text(note)));
            }
        }
    }
    // Who ran it, where and when. What the events do not hold is said to be unrecorded, never left out.
    let (time, estimate) = time_words(report);
    let or_not = |text: &Option<String>| text.clone().unwrap_or_else(|| NOT_RECORDED.to_owned());
    let callers = match report.callers().as_slice() {
        [] => NOT_RECORDED.to_owned(),
        callers => callers.join(", "),
    };
    let opened = report
        .opened
        .map_or_else(|| NOT_RECORDED.to_owned(), full_moment);
    out.line("");
    out.table(
        &["", ""],
        [
            ["run".to_owned(), report.run.clone()],
            ["begun".to_owned(), opened],
            ["time".to_owned(), format!("{time}, {estimate}")],
            ["account".to_owned(), or_not(&report.account)],
            ["region".to_owned(), or_not(&report.region)],
            ["run by".to_owned(), callers],
            ["approved by".to_owned(), approval_words(report)],
        ]
        .map(Vec::from),
    );
    // Also told below the table, because a report of a rehearsal may be read as one of a cluster.
    if report.rehearsal == Some(true) {
        out.paragraph("A rehearsal against the twin; nothing real was changed.");
    }
}

fn steps(out: &mut MarkdownText, report: &RunReport) {
    out.heading("Steps");
    let rows = report.steps.iter().enumerate().map(|(i, step)| {
        vec![
            (i + 1).to_string(),
            step.title.clone(),
            state_word(step, report).to_owned(),
            if step.spans.is_empty() {
                String::new()
            } else {
                format_duration(step.time_spent(|a| a != Activity::Undo))
            },
            step.estimate
                .map_or_else(|| NOT_RECORDED.to_owned(), format_duration),
            step_notes(step),
        ]
    });
    out.table(&["#", "step", "state", "took", "estimated", "how"], rows);
    // Times without a process explain why steps took longer than they worked.
    for gap in &report.gaps {
        let time = format_duration(time_between(gap.from, gap.to));
        let why = gap
            .why
            .as_deref()
            .unwrap_or("the process ended without a word");
        out.paragraph(&format!(
            "No process for {time} from {}: {why}",
            moment(gap.from, report)
        ));
    }
}

fn step_notes(step: &StepReport) -> String {
    let back = step.undo_note.as_ref().map(|note| {
        let time = format_duration(step.time_spent(|a| a == Activity::Undo));
        format!("rolled back in {time}: {note}")
    });
    let notes = [step.note.clone(), back];
    tidy_text(&notes.into_iter().flatten().collect::<Vec<_>>().join("; "))
}

fn traffic(out: &mut MarkdownText, report: &RunReport) {
    for traffic in &report.traffic {
        out.heading(&format!("Traffic: {}", escape_cell(&traffic.title)));
        let shares = super::charts::share_points(traffic);
        let rows = shares
            .iter()
            .map(|(at, percent)| vec![moment(*at, report), format!("{percent}%")]);
        out.table(&["time", "on green"], rows);
    }
}

fn nodes_and_pods(out: &mut MarkdownText, report: &RunReport) {
    let mut drained: Vec<_> = report
        .nodes
        .iter()
        .filter(|n| n.spans.iter().any(|s| s.state.is_of_drain()))
        .collect();
    if drained.is_empty() {
        return;
    }
    // A comment on a merge request has a bound: the slowest nodes are kept, and the others counted.
    let left_out = drained.len().saturating_sub(MAX_NODE_ROWS);
    if left_out > 0 {
        drained.sort_by_key(|n| std::cmp::Reverse(drain_time(n)));
        drained.truncate(MAX_NODE_ROWS);
    }
    out.heading("Nodes");
    let rows = drained.iter().map(|node| {
        vec![
            short_node(&node.name).to_owned(),
            node.pods
                .map_or_else(|| NOT_RECORDED.to_owned(), |n| n.to_string()),
            format_duration(drain_time(node)),
        ]
    });
    out.table(&["node", "pods", "until empty"], rows);
    if left_out > 0 {
        out.paragraph(&format!("{left_out} more were empty sooner."));
    }
    // Pods are named even where their times are not: a reader must see that they are missing.
    out.heading("Pods that took longest to move");
    let Some(pods) = &report.pods else {
        out.line("How long each pod took is not recorded.");
        return;
    };
    let mut slowest: Vec<_> = pods.iter().collect();
    slowest.sort_by_key(|p| std::cmp::Reverse(p.total()));
    let rows = slowest.iter().take(MAX_POD_ROWS).map(|pod| {
        let (spent, why) = pod_time_words(pod);
        vec![
            pod.pod.clone(),
            short_node(&pod.node).to_owned(),
            format_duration(pod.total()),
            spent,
            why.unwrap_or_default().to_owned(),
        ]
    });
    out.table(&["pod", "node", "took", "of it", "why"], rows);
}

fn waits(out: &mut MarkdownText, report: &RunReport) {
    let (waits, left_out) = listed_waits(report);
    if waits.is_empty() {
        return;
    }
    out.heading("What it waited for");
    let rows = waits.iter().map(|wait| {
        vec![
            format_duration(time_between(wait.from, wait.to)),
            wait_word(wait.activity).to_owned(),
            wait.step.clone(),
            wait.why.clone(),
        ]
    });
    out.table(&["for", "kind", "step", "what"], rows);
    if left_out > 0 {
        out.paragraph(&format!("Shorter waits that are not listed: {left_out}."));
    }
}

fn findings(out: &mut MarkdownText, report: &RunReport) {
    out.heading("Findings and consents");
    match &report.findings {
        // An event file of an earlier version has none: that is not the same as no findings.
        None => out.item(&format!("findings are {NOT_RECORDED}")),
        Some(found) if found.is_empty() => out.item("no findings"),
        Some(found) => {
            for f in found {
                out.item(&format!(
                    "{} {} {}: {}",
                    f.severity, f.code, f.object, f.detail
                ));
            }
        }
    }
    // What the plan gave consent to, which an auditor reads beside the findings.
    match &report.consents {
        None => out.item(&format!("consents are {NOT_RECORDED}")),
        Some(consents) if consents.is_empty() => out.item("the plan keeps the defaults"),
        Some(consents) => {
            for c in consents {
                let object = c.object.as_ref().map(|o| format!(" ({o})"));
                out.item(&format!(
                    "consent {} {}{}",
                    c.key,
                    c.value,
                    object.unwrap_or_default()
                ));
            }
        }
    }
}

fn calls(out: &mut MarkdownText, report: &RunReport) {
    out.heading("Calls and retries");
    match &report.calls {
        None => out.item(&format!("how many calls were made is {NOT_RECORDED}")),
        Some(calls) => {
            let made: u64 = calls.iter().map(|c| c.made).sum();
            let throttled: u64 = calls.iter().map(|c| c.throttled).sum();
            let failed: u64 = calls.iter().map(|c| c.failed).sum();
            out.item(&format!(
                "{made} calls, {throttled} throttled, {failed} with an error"
            ));
        }
    }
    for r in &report.retries {
        out.item(&format!("{} times in {}: {}", r.times, r.step, r.error));
    }
}

fn versions(out: &mut MarkdownText, report: &RunReport) {
    out.heading("Versions before and after");
    let rows = version_rows(report);
    if rows.is_empty() {
        out.line("Versions are not recorded.");
        return;
    }
    let read = (
        report.versions.before.is_some(),
        report.versions.after.is_some(),
    );
    let cells = rows.iter().map(|row| {
        vec![
            row.kind.to_owned(),
            row.name.to_owned(),
            version_cell(row.before, read.0),
            version_cell(row.after, read.1),
        ]
    });
    out.table(&["kind", "object", "before", "after"], cells);
}
