//! An error as people and machines read it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::plan::{PlanErrors, PlanProblem};
use crate::report::Painter;
use crate::report::wording::{MAX_LINE_WIDTH, fit_lines, tidy_text};
use crate::run::error::{RunError, RunErrorKind};

/// More problems of a plan are counted and not shown.
pub const MAX_SHOWN_PROBLEMS: usize = 20;

/// Renders an error for people: what, where things are, hints, and the next command. `width`: of the terminal, in
/// columns. `is_rehearsal`: of a rehearsal, whose end is nobody's cluster's.
pub fn render_error(error: &RunError, paint: Painter, width: usize, is_rehearsal: bool) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    if let Some(plan) = &error.plan {
        let theme = if paint.on {
            miette::GraphicalTheme::unicode()
        } else {
            miette::GraphicalTheme::unicode_nocolor()
        };
        let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(width);
        for problem in plan.problems.iter().take(MAX_SHOWN_PROBLEMS) {
            let report = LocatedProblem { problem, plan };
            let _ = handler.render_report(&mut out, &report);
        }
        let left_out = &plan.problems[plan.problems.len().min(MAX_SHOWN_PROBLEMS)..];
        if !left_out.is_empty() {
            let _ = writeln!(out, "  {}\n", describe_left_out(left_out));
        }
    }
    // What a run may end with in good order is no error in the eyes of a reader, and is not red.
    let head = match error.kind {
        RunErrorKind::Paused => paint.yellow("paused"),
        RunErrorKind::Cancelled => paint.yellow("cancelled"),
        RunErrorKind::ChangesPending => paint.yellow("changes pending"),
        RunErrorKind::RolledBack => paint.yellow("rolled back"),
        RunErrorKind::Unexpected
        | RunErrorKind::Usage
        | RunErrorKind::PlanInvalid
        | RunErrorKind::NotReady
        | RunErrorKind::Stuck
        | RunErrorKind::Locked
        | RunErrorKind::Mismatch
        | RunErrorKind::Expired => paint.red("error"),
    };
    // A mistake in what was typed is the same in both.
    let typed = matches!(error.kind, RunErrorKind::Usage | RunErrorKind::PlanInvalid);
    let kind = if is_rehearsal && !typed {
        " (rehearsal)"
    } else {
        ""
    };
    let _ = writeln!(out, "{head}{kind}: {}", tidy_text(&error.message));
    // Then where things stand, what else may help, and last the one command that goes on.
    for line in &error.state {
        let line = format!("  {}", tidy_text(line));
        let _ = writeln!(out, "{}", fit_lines(&line, MAX_LINE_WIDTH));
    }
    for hint in &error.hints {
        let _ = writeln!(out, "hint: {hint}");
    }
    if let Some(next) = &error.next {
        let _ = writeln!(out, "next: {}", paint.bold(next));
    }
    out
}

/// `and 2980 more: 2970 plan::unknown_key, 10 plan::wrong_type`.
pub fn describe_left_out(problems: &[PlanProblem]) -> String {
    let mut by_code: BTreeMap<&str, usize> = BTreeMap::new();
    for problem in problems {
        *by_code.entry(problem.code).or_default() += 1;
    }
    let codes = by_code
        .iter()
        .map(|(code, count)| format!("{count} {code}"));
    let codes: Vec<String> = codes.collect();
    format!("and {} more: {}", problems.len(), codes.join(", "))
}

/// The error for machines: the last line of a stream.
pub fn error_to_json(error: &RunError) -> serde_json::Value {
    let problems = error.plan.iter().flat_map(|p| &p.problems).map(|p| {
        serde_json::json!({
            "code": p.code, "line": p.at.line, "column": p.at.column,
            "message": p.message, "help": p.help,
        })
    });
    serde_json::json!({
        "type": "error",
        "kind": error.kind.as_str(),
        "exitCode": error.kind.exit_code(),
        "message": error.message,
        "state": error.state,
        "hints": error.hints,
        "next": error.next,
        "problems": problems.collect::<Vec<_>>(),
    })
}

/// One problem together with the text it points at.
#[derive(Debug)]
struct LocatedProblem<'a> {
    problem: &'a crate::plan::PlanProblem,
    plan: &'a PlanErrors,
}

impl std::fmt::Display for LocatedProblem<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for LocatedProblem<'_> {}

impl miette::Diagnostic for LocatedProblem<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.problem.code()
    }
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.problem
            .help
            .as_ref()
            .map(|h| Box::new(h) as Box<dyn std::fmt::Display>)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        self.problem.labels()
    }
    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.plan.source_code()
    }
}
