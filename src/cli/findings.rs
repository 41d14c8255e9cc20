//! Findings and obstacles as one table, and what they mean for a command.

use std::fmt::Write as _;

use super::error::{CliError, Kind};
use super::finding_groups::group_findings;
use crate::ready::{Code, Finding, Severity};
use crate::report::Paint;
use crate::report::markdown::cell;

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Blocker => "blocker",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

/// How many block, told as they are: once for all objects with the same way out.
pub fn blocking(found: &[Finding]) -> usize {
    let groups = group_findings(found);
    let blockers = groups.iter().filter(|g| g.severity == Severity::Blocker);
    blockers.count()
}

/// The findings for people, the heaviest first.
pub fn text(found: &[Finding], paint: Paint) -> String {
    let mut out = String::new();
    for group in group_findings(found) {
        let weight = match group.severity {
            Severity::Blocker => paint.red("block"),
            Severity::Warning => paint.yellow("warn "),
            Severity::Info => paint.dim("note "),
        };
        // Writing to a String cannot fail.
        let _ = match (group.count(), group.shared_detail()) {
            (None, _) => writeln!(
                out,
                "{weight} {} {}: {}",
                group.code,
                paint.bold(&group.subjects()),
                group.detail()
            ),
            (Some(count), Some(detail)) => {
                let heading = writeln!(
                    out,
                    "{weight} {} {}: {detail}",
                    group.code,
                    paint.bold(&count)
                );
                heading.and_then(|()| write!(out, "{}", wrap(&group.subjects())))
            }
            (Some(count), None) => {
                let title = Code::find(group.code).map_or("", Code::title);
                let heading = writeln!(
                    out,
                    "{weight} {} {}: {title}",
                    group.code,
                    paint.bold(&count)
                );
                let mut members = group.members.iter();
                heading.and_then(|()| {
                    members.try_for_each(|f| writeln!(out, "        {}: {}", f.subject, f.detail))
                })
            }
        };
        if !group.fix.is_empty() {
            let _ = writeln!(out, "      {} {}", paint.dim("way out:"), group.fix);
        }
    }
    out
}

/// The longest line of a list of objects.
const LIST_WIDTH: usize = 112;

/// A list of objects in lines of a readable length.
fn wrap(list: &str) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for part in list.split_inclusive(", ") {
        if !line.is_empty() && line.len() + part.len() > LIST_WIDTH {
            let _ = writeln!(out, "        {}", line.trim_end());
            line.clear();
        }
        line.push_str(part);
    }
    let _ = writeln!(out, "        {line}");
    out
}

/// The findings as a Markdown table.
pub fn markdown(found: &[Finding]) -> String {
    if found.is_empty() {
        return "No findings.\n".to_owned();
    }
    let mut out =
        "| | code | object | finding | way out |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for group in group_findings(found) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            word(group.severity),
            group.code,
            cell(&group.subjects()),
            cell(&group.detail()),
            cell(group.fix)
        );
    }
    out
}

/// The findings for machines: `object` and `detail` for all, `objects` one by one.
pub fn json(found: &[Finding]) -> serde_json::Value {
    let groups = group_findings(found);
    let groups = groups.iter().map(|group| {
        let objects: Vec<serde_json::Value> = group
            .members
            .iter()
            .map(|f| serde_json::json!({"object": f.subject, "detail": f.detail}))
            .collect();
        serde_json::json!({
            "severity": word(group.severity), "code": group.code, "object": group.subjects(),
            "detail": group.detail(), "fix": group.fix, "objects": objects,
        })
    });
    groups.collect()
}

/// The end of a command that blocking findings stop.
pub fn not_ready(cluster: &str, found: &[Finding], next: &str) -> CliError {
    let groups = group_findings(found);
    let blocks: Vec<_> = groups
        .iter()
        .filter(|g| g.severity == Severity::Blocker)
        .collect();
    let first = blocks
        .first()
        .map(|g| format!("{} {}", g.code, g.count().unwrap_or_else(|| g.subjects())))
        .unwrap_or_default();
    let more = match blocks.len() {
        0 | 1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    CliError::new(
        Kind::NotReady,
        format!("cluster {cluster} is not ready: {first}{more}"),
    )
    .standing(vec![
        "nothing was changed: traffic and nodes are as they were".to_owned(),
    ])
    .next(next)
}
