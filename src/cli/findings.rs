//! Findings and obstacles as one table, and what they mean for a command.

use std::fmt::Write as _;

use super::error::{CliError, Kind};
use crate::report::Paint;
use crate::report::markdown::cell;
use crate::route::RouteProblem;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    Block,
    Warn,
    Note,
}

impl Weight {
    /// As people and machines read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Warn => "warn",
            Self::Note => "note",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub weight: Weight,
    /// Such as `EKSUP-R009`.
    pub code: String,
    /// The object.
    pub subject: String,
    pub detail: String,
    /// The way out.
    pub fix: String,
}

impl From<&RouteProblem> for Found {
    fn from(problem: &RouteProblem) -> Self {
        Self {
            weight: Weight::Block,
            code: problem.what.code().to_owned(),
            subject: problem.subject.clone(),
            detail: problem.detail.clone(),
            fix: problem.fix.clone(),
        }
    }
}

/// How many block.
pub fn blocking(found: &[Found]) -> usize {
    found.iter().filter(|f| f.weight == Weight::Block).count()
}

/// The findings for people, the heaviest first.
pub fn text(found: &[Found], paint: Paint) -> String {
    let mut out = String::new();
    let mut sorted: Vec<&Found> = found.iter().collect();
    sorted.sort_by_key(|f| f.weight);
    for f in sorted {
        let weight = match f.weight {
            Weight::Block => paint.red("block"),
            Weight::Warn => paint.yellow("warn "),
            Weight::Note => paint.dim("note "),
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
pub fn markdown(found: &[Found]) -> String {
    if found.is_empty() {
        return "No findings.\n".to_owned();
    }
    let mut out =
        "| | code | object | finding | way out |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for f in found {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            f.weight.as_str(),
            f.code,
            cell(&f.subject),
            cell(&f.detail),
            cell(&f.fix)
        );
    }
    out
}

/// The findings for machines.
pub fn json(found: &[Found]) -> serde_json::Value {
    found
        .iter()
        .map(|f| {
            serde_json::json!({
                "severity": f.weight.as_str(), "code": f.code, "object": f.subject,
                "detail": f.detail, "fix": f.fix,
            })
        })
        .collect()
}

/// The end of a command that blocking findings stop.
pub fn not_ready(cluster: &str, found: &[Found], next: &str) -> CliError {
    let blocks: Vec<&Found> = found.iter().filter(|f| f.weight == Weight::Block).collect();
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
