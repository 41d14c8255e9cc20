//! Findings that say the same of many objects, told once.

use std::collections::BTreeMap;

use super::{Finding, Severity};

/// What several objects have in common: weight, code, and what to do.
pub struct FindingGroup<'a> {
    pub severity: Severity,
    pub code: &'a str,
    pub fix: &'a str,
    /// The first of each object and detail, in the order of the findings.
    pub members: Vec<&'a Finding>,
}

impl<'a> FindingGroup<'a> {
    /// What is said of all of its objects, where it is the same.
    pub fn shared_detail(&self) -> Option<&'a str> {
        let first = self.members.first()?;
        let same = self.members.iter().all(|f| f.detail == first.detail);
        same.then_some(first.detail.as_str())
    }

    /// All of its objects, separated by commas.
    pub fn join_subjects(&self) -> String {
        let subjects: Vec<&str> = self.members.iter().map(|f| f.subject.as_str()).collect();
        subjects.join(", ")
    }

    /// What is said, with each object before its part where it differs.
    pub fn full_detail(&self) -> String {
        if let Some(detail) = self.shared_detail() {
            return detail.to_owned();
        }
        let members = self.members.iter();
        let parts: Vec<String> = members
            .map(|f| format!("{}: {}", f.subject, f.detail))
            .collect();
        parts.join("; ")
    }

    /// How many objects it is about, in words, where there is more than one.
    pub fn describe_count(&self) -> Option<String> {
        let kinds = self.members.iter().map(|f| subject_kind(&f.subject));
        let mut kinds: Vec<&str> = kinds.collect();
        kinds.sort_unstable();
        kinds.dedup();
        let number = self.members.len();
        let what = match kinds.as_slice() {
            ["pod"] => "pods",
            ["volume"] => "volumes",
            [one] if !is_workload(one) => "objects",
            all if all.iter().all(|k| is_workload(k)) => "workloads",
            _ => "objects",
        };
        (number > 1).then(|| format!("{number} {what}"))
    }
}

/// The word that a subject begins with.
fn subject_kind(subject: &str) -> &str {
    subject.split(' ').next().unwrap_or_default()
}

/// Kinds are spelled with a capital; what else is found begins with a small letter.
fn is_workload(kind: &str) -> bool {
    kind.starts_with(|c: char| c.is_ascii_uppercase()) && kind != "PodDisruptionBudget"
}

/// Puts together what has the same weight, code and fix, the heaviest first.
pub fn group_findings(found: &[Finding]) -> Vec<FindingGroup<'_>> {
    let mut groups: Vec<FindingGroup<'_>> = Vec::new();
    let mut sorted: Vec<&Finding> = found.iter().collect();
    sorted.sort_by_key(|f| f.severity);
    let mut by_key: BTreeMap<(Severity, &str, &str), usize> = BTreeMap::new();
    // Findings that share a fix are one thing to do, so the fix is part of the key.
    for finding in sorted {
        let key = (
            finding.severity,
            finding.code.as_str(),
            finding.fix.as_str(),
        );
        let at = *by_key.entry(key).or_insert_with(|| {
            groups.push(FindingGroup {
                severity: finding.severity,
                code: &finding.code,
                fix: &finding.fix,
                members: Vec::new(),
            });
            groups.len() - 1
        });
        groups[at].members.push(finding);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ready::Code;

    fn finding(code: Code, subject: &str, detail: &str, fix: &str) -> Finding {
        Finding::new(code, subject, detail, fix)
    }

    #[test]
    fn what_is_to_be_done_once_is_told_once() {
        let found = [
            finding(Code::SingleReplica, "Deployment a/b", "down", "accept it"),
            finding(Code::EmptyDir, "Deployment a/b", "loses x", "consent"),
            finding(Code::SingleReplica, "StatefulSet a/c", "down", "accept it"),
            finding(Code::EmptyDir, "StatefulSet a/c", "loses y", "consent"),
            finding(Code::EmptyDir, "pod a/d", "loses z", "something else"),
        ];
        let groups = group_findings(&found);
        let told: Vec<(&str, Option<String>, String)> = groups
            .iter()
            .map(|g| (g.code, g.describe_count(), g.full_detail()))
            .collect();
        let two = Some("2 workloads".to_owned());
        let each = "Deployment a/b: loses x; StatefulSet a/c: loses y".to_owned();
        assert_eq!(
            told,
            [
                ("EKSUP-P006", two.clone(), each),
                ("EKSUP-P006", None, "loses z".to_owned()),
                ("EKSUP-P012", two, "down".to_owned()),
            ]
        );
        assert_eq!(groups[2].join_subjects(), "Deployment a/b, StatefulSet a/c");
    }
}
