//! Findings and obstacles as one table, and what they mean for a command.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::ready::finding_groups::{FindingGroup, group_findings};
use crate::ready::{Code, Finding, Severity};
use crate::report::Painter;
use crate::report::ci::format_annotation;
use crate::report::markdown::escape_cell;

fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Blocker => "blocker",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

/// More of one code are counted and not listed, groups as well as objects of a group.
const MAX_SHOWN: usize = 20;

/// More details of one and the same object are counted.
const MAX_OF_ONE_OBJECT: usize = 3;

/// The object of a group of findings that are all about the same one.
fn only_subject<'a>(group: &FindingGroup<'a>) -> Option<&'a str> {
    let first = group.members.first()?;
    let same = group.members.iter().all(|f| f.subject == first.subject);
    same.then_some(first.subject.as_str())
}

/// The findings for people, the heaviest first.
pub fn render_text(found: &[Finding], paint: Painter) -> String {
    let mut out = String::new();
    for entry in capped_groups(found) {
        let group = match entry {
            CappedGroup::Shown(group) => group,
            CappedGroup::More { code, count } => {
                let _ = writeln!(out, "      and {count} more {code}");
                continue;
            }
        };
        let weight = match group.severity {
            Severity::Blocker => paint.red("blocker"),
            Severity::Warning => paint.yellow("warning"),
            Severity::Info => paint.dim("info   "),
        };
        // Writing to a String cannot fail.
        let _ = match (group.describe_count(), group.shared_detail()) {
            // One object: its own detail.
            (None, _) => writeln!(
                out,
                "{weight} {} {}: {}",
                group.code,
                paint.bold(&group.join_subjects()),
                group.full_detail()
            ),
            // Several with the same detail: it is told once, and they are listed.
            (Some(count), Some(detail)) => {
                let heading = writeln!(
                    out,
                    "{weight} {} {}: {detail}",
                    group.code,
                    paint.bold(&count)
                );
                heading.and_then(|()| write!(out, "{}", wrap_list(&capped_subjects(&group))))
            }
            // Several with details of their own: a line each, up to a bound.
            (Some(count), None) => {
                let title = Code::parse_code(group.code).map_or("", Code::title);
                let subject = only_subject(&group);
                let heading = subject.map_or(count, str::to_owned);
                let heading = writeln!(
                    out,
                    "{weight} {} {}: {title}",
                    group.code,
                    paint.bold(&heading)
                );
                // Of one object, such as a cluster with a dozen versions too many, a few details tell it all.
                let shown = if subject.is_some() {
                    MAX_OF_ONE_OBJECT
                } else {
                    MAX_SHOWN
                };
                let mut members = group.members.iter().take(shown);
                let listed = heading.and_then(|()| {
                    members.try_for_each(|f| match subject {
                        Some(_) => writeln!(out, "        {}", f.detail),
                        None => writeln!(out, "        {}: {}", f.subject, f.detail),
                    })
                });
                match group.members.len().saturating_sub(shown) {
                    0 => listed,
                    more => listed.and_then(|()| writeln!(out, "        and {more} more")),
                }
            }
        };
        if !group.fix.is_empty() {
            let _ = writeln!(out, "      {} {}", paint.dim("fix:"), group.fix);
        }
    }
    out
}

/// A group that is shown, or how many more there are of its code.
enum CappedGroup<'a> {
    Shown(FindingGroup<'a>),
    More { code: &'a str, count: usize },
}

/// The groups of findings, of each code no more than `MAX_SHOWN`, and how many are left out.
fn capped_groups(found: &[Finding]) -> Vec<CappedGroup<'_>> {
    let mut out: Vec<CappedGroup<'_>> = Vec::new();
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    for group in group_findings(found) {
        let seen = shown.entry(group.code).or_default();
        *seen += 1;
        if *seen <= MAX_SHOWN {
            out.push(CappedGroup::Shown(group));
            continue;
        }
        // Groups are sorted by weight, so those of one code need not be neighbours.
        let more = out.iter_mut().find_map(|entry| match entry {
            CappedGroup::More { code, count } if *code == group.code => Some(count),
            CappedGroup::More { .. } | CappedGroup::Shown(_) => None,
        });
        match more {
            Some(count) => *count += group.members.len(),
            None => out.push(CappedGroup::More {
                code: group.code,
                count: group.members.len(),
            }),
        }
    }
    out
}

/// The first objects of a group, and how many more there are.
fn capped_subjects(group: &FindingGroup<'_>) -> String {
    let first = group.members.iter().take(MAX_SHOWN);
    let first: Vec<&str> = first.map(|f| f.subject.as_str()).collect();
    match group.members.len().saturating_sub(MAX_SHOWN) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// One annotation a finding for GitHub, which shows ten of each level.
pub fn annotate_findings(found: &[Finding]) -> Vec<String> {
    let entries = capped_groups(found);
    let lines = entries.iter().map(|entry| match entry {
        CappedGroup::Shown(group) => {
            let level = match group.severity {
                Severity::Blocker => "error",
                Severity::Warning => "warning",
                Severity::Info => "notice",
            };
            // An annotation is one line of text, so long lists are cut.
            let object = match group.describe_count() {
                Some(count) => format!("{count} ({})", capped_subjects(group)),
                None => group.join_subjects(),
            };
            // Members that differ in their details share the code's title.
            let detail = match (group.shared_detail(), Code::parse_code(group.code)) {
                (Some(detail), _) => detail.to_owned(),
                (None, Some(code)) => code.title().to_owned(),
                (None, None) => String::new(),
            };
            let text = format!("{object}: {detail}\nfix: {}", group.fix);
            format_annotation(level, group.code, &text)
        }
        CappedGroup::More { code, count } => {
            format_annotation("notice", code, &format!("and {count} more {code}"))
        }
    });
    lines.collect()
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
    for entry in capped_groups(found) {
        let _ = match entry {
            CappedGroup::Shown(group) => writeln!(
                out,
                "| {} | {} | {} | {} | {} |",
                severity_word(group.severity),
                group.code,
                escape_cell(&capped_subjects(&group)),
                escape_cell(&capped_detail(&group)),
                escape_cell(group.fix)
            ),
            CappedGroup::More { code, count } => {
                writeln!(out, "| | {code} | and {count} more | | |")
            }
        };
    }
    out
}

/// What is said of a group; of many objects of which each has its own, the first.
fn capped_detail(group: &FindingGroup<'_>) -> String {
    if group.shared_detail().is_some() || group.members.len() <= MAX_SHOWN {
        return group.full_detail();
    }
    let first = group.members.iter().take(MAX_SHOWN);
    let parts: Vec<String> = first
        .map(|f| format!("{}: {}", f.subject, f.detail))
        .collect();
    let more = group.members.len() - MAX_SHOWN;
    format!("{}; and {more} more", parts.join("; "))
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
blocker EKSUP-P006 2 workloads: A pod would lose the data in its emptyDir
        Deployment a/b: loses x
        StatefulSet a/c: loses y
      fix: fix EKSUP-P006
blocker EKSUP-P005 pod a/d: gone
      fix: fix EKSUP-P005
warning EKSUP-P012 2 workloads: down for a moment
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
    fn three_thousand_findings_are_capped_and_counted() {
        let each = |i: usize| {
            of(
                Code::EmptyDir,
                &format!("Deployment a/b{i}"),
                &format!("loses {i}"),
            )
        };
        let mut found: Vec<Finding> = (0..3000).map(each).collect();
        // Of another code with a fix of its own for each.
        found.extend((0..30).map(|i| {
            let subject = format!("pod a/c{i}");
            Finding::new(Code::BarePod, subject, "gone", format!("fix {i}"))
        }));
        let text = render_text(&found, Painter::default());
        assert!(text.lines().count() < 70, "{text}");
        assert!(
            text.contains("3000 workloads") && text.contains("and 2980 more"),
            "{text}"
        );
        assert!(text.contains("and 10 more EKSUP-P005"), "{text}");
        assert!(render_markdown(&found).lines().count() < 30);
        let annotations = annotate_findings(&found);
        assert_eq!(annotations.len(), 1 + 20 + 1);
        assert!(
            annotations[0].starts_with("::error title=EKSUP-P006::3000 workloads (Deployment a/b0")
        );
    }

    #[test]
    fn a_dozen_versions_of_one_cluster_are_one_finding_of_four_lines() {
        let each = (34..46).map(|m| {
            let detail = format!("EKS does not offer 1.{m}");
            Finding::new(Code::EmptyDir, "cluster c", detail, "choose another")
        });
        let text = render_text(&each.collect::<Vec<_>>(), Painter::default());
        assert_eq!(text.lines().count(), 1 + 3 + 1 + 1, "{text}");
        assert!(
            text.contains(" cluster c: ") && text.contains("        and 9 more\n"),
            "{text}"
        );
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
