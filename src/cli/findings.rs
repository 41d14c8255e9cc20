//! Findings and obstacles as one table, and what they mean for a command.

use std::fmt::Write as _;

use super::error::{CliError, Kind};
use crate::ready::{Finding, Severity};
use crate::report::Paint;
use crate::report::markdown::cell;

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Blocker => "blocker",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

/// How many block.
pub fn blocking(found: &[Finding]) -> usize {
    found
        .iter()
        .filter(|f| f.severity == Severity::Blocker)
        .count()
}

/// The findings for people, the heaviest first.
pub fn text(found: &[Finding], paint: Paint) -> String {
    let mut out = String::new();
    let mut sorted: Vec<&Finding> = found.iter().collect();
    sorted.sort_by_key(|f| f.severity);
    for f in sorted {
        let weight = match f.severity {
            Severity::Blocker => paint.red("block"),
            Severity::Warning => paint.yellow("warn "),
            Severity::Info => paint.dim("note "),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{weight} {} {}: {}",
            f.code,
            paint.bold(&f.subject),
            f.detail
        );
        if !f.fix.is_empty() {
            let _ = writeln!(out, "      {} {}", paint.dim("way out:"), f.fix);
        }
    }
    out
}

/// The findings as a Markdown table.
pub fn markdown(found: &[Finding]) -> String {
    if found.is_empty() {
        return "No findings.\n".to_owned();
    }
    let mut out =
        "| | code | object | finding | way out |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for f in found {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            word(f.severity),
            f.code,
            cell(&f.subject),
            cell(&f.detail),
            cell(&f.fix)
        );
    }
    out
}

/// The findings for machines.
pub fn json(found: &[Finding]) -> serde_json::Value {
    found
        .iter()
        .map(|f| {
            serde_json::json!({
                "severity": word(f.severity), "code": f.code, "object": f.subject,
                "detail": f.detail, "fix": f.fix,
            })
        })
        .collect()
}

/// The end of a command that blocking findings stop.
pub fn not_ready(cluster: &str, found: &[Finding], next: &str) -> CliError {
    let blocks: Vec<&Finding> = found
        .iter()
        .filter(|f| f.severity == Severity::Blocker)
        .collect();
    let first = blocks
        .first()
        .map(|f| format!("{} {}", f.code, f.subject))
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
