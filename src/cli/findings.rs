//! Findings and obstacles as one table, and what they mean for a command.

use std::fmt::Write as _;

use crate::ready::finding_groups::group_findings;
use crate::ready::{Code, Finding, Severity};
use crate::report::Painter;
use crate::report::markdown::escape_cell;

fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Blocker => "blocker",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

/// The findings for people, the heaviest first.
pub fn render_text(found: &[Finding], paint: Painter) -> String {
    let mut out = String::new();
    for group in group_findings(found) {
        let weight = match group.severity {
            Severity::Blocker => paint.red("block"),
            Severity::Warning => paint.yellow("warn "),
            Severity::Info => paint.dim("note "),
        };
        // Writing to a String cannot fail.
        let _ = match (group.describe_count(), group.shared_detail()) {
            (None, _) => writeln!(
                out,
                "{weight} {} {}: {}",
                group.code,
                paint.bold(&group.join_subjects()),
                group.full_detail()
            ),
            (Some(count), Some(detail)) => {
                let heading = writeln!(
                    out,
                    "{weight} {} {}: {detail}",
                    group.code,
                    paint.bold(&count)
                );
                heading.and_then(|()| write!(out, "{}", wrap_list(&group.join_subjects())))
            }
            (Some(count), None) => {
                let title = Code::parse_code(group.code).map_or("", Code::title);
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
            let _ = writeln!(out, "      {} {}", paint.dim("fix:"), group.fix);
        }
    }
    out
}

/// The longest line of a list of objects.
const LIST_WIDTH: usize = 112;

/// A list of objects in lines of a readable length.
fn wrap_list(list: &str) -> String {
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
pub fn render_markdown(found: &[Finding]) -> String {
    if found.is_empty() {
        return "No findings.\n".to_owned();
    }
    let mut out =
        "| | code | object | finding | fix |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for group in group_findings(found) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            severity_word(group.severity),
            group.code,
            escape_cell(&group.join_subjects()),
            escape_cell(&group.full_detail()),
            escape_cell(group.fix)
        );
    }
    out
}

/// The findings for machines: `object` and `detail` for all, `objects` one by one.
pub fn render_json(found: &[Finding]) -> serde_json::Value {
    let groups = group_findings(found);
    let groups = groups.iter().map(|group| {
        let objects: Vec<serde_json::Value> = group
            .members
            .iter()
            .map(|f| serde_json::json!({"object": f.subject, "detail": f.detail}))
            .collect();
        serde_json::json!({
            "severity": severity_word(group.severity), "code": group.code, "object": group.join_subjects(),
            "detail": group.full_detail(), "fix": group.fix, "objects": objects,
        })
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::not_ready::count_blockers;

    fn of(code: Code, subject: &str, detail: &str) -> Finding {
        Finding::new(code, subject, detail, format!("fix {}", code.as_str()))
    }

    /// Two workloads with one fix, and two whose losses differ.
    fn found() -> Vec<Finding> {
        vec![
            of(Code::SingleReplica, "Deployment a/b", "down for a moment"),
            of(Code::SingleReplica, "StatefulSet a/c", "down for a moment"),
            of(Code::EmptyDir, "Deployment a/b", "loses x"),
            of(Code::EmptyDir, "StatefulSet a/c", "loses y"),
            of(Code::BarePod, "pod a/d", "gone"),
        ]
    }

    #[test]
    fn objects_with_one_way_out_are_listed_under_it() {
        let expected = "\
block EKSUP-P006 2 workloads: A pod would lose the data in its emptyDir
        Deployment a/b: loses x
        StatefulSet a/c: loses y
      fix: fix EKSUP-P006
block EKSUP-P005 pod a/d: gone
      fix: fix EKSUP-P005
warn  EKSUP-P012 2 workloads: down for a moment
        Deployment a/b, StatefulSet a/c
      fix: fix EKSUP-P012
";
        assert_eq!(render_text(&found(), Painter::default()), expected);
        assert_eq!(count_blockers(&found()), 2);
        // A heading, a rule, and a row for each.
        assert_eq!(render_markdown(&found()).lines().count(), 2 + 3);
    }

    #[test]
    fn a_machine_reads_every_object_of_a_finding() {
        let told = render_json(&found());
        assert_eq!(told.as_array().map(Vec::len), Some(3));
        assert_eq!(told[0]["object"], "Deployment a/b, StatefulSet a/c");
        let each = serde_json::json!([
            {"object": "Deployment a/b", "detail": "loses x"},
            {"object": "StatefulSet a/c", "detail": "loses y"},
        ]);
        assert_eq!(told[0]["objects"], each);
        assert_eq!(told[1]["object"], "pod a/d");
    }

    #[test]
    fn a_long_list_is_broken_into_lines_that_can_be_read() {
        let names: Vec<String> = (0..40)
            .map(|i| format!("Deployment shop/web-{i}"))
            .collect();
        let list = wrap_list(&names.join(", "));
        assert!(list.lines().count() > 5);
        assert!(list.lines().all(|l| l.len() <= LIST_WIDTH + 8), "{list}");
        let together: String = list.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(together, names.join(", "));
    }
}
