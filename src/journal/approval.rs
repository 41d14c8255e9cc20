//! A person's consent to begin a step, left as an annotation on the run's ConfigMap: `kubectl annotate` can write it
//! while nobody holds the run, and a process that does hold it takes it over into the journal.
//!
//! The key names the step and the value the run, so that an approval of an earlier run never counts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// Prefix of the annotation that approves a step; the step's id follows it.
pub const APPROVAL_KEY_PREFIX: &str = "approve.eksup.dev/";
/// What Kubernetes allows behind the prefix.
const MAX_KEY_NAME_LENGTH: usize = 63;

/// An approval as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedApproval {
    /// Who, as far as the annotation says.
    pub by: String,
    /// When, where the annotation says it.
    pub at: Option<Timestamp>,
}

/// The annotation that approves `step`. A step whose id does not fit has a shorter one with a digest.
pub fn annotation_key(step: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if step.len() <= MAX_KEY_NAME_LENGTH
        && step.chars().all(plain)
        && ends(step.chars().next())
        && ends(step.chars().last())
    {
        return format!("{APPROVAL_KEY_PREFIX}{step}");
    }
    // The digest keeps two long ids that begin alike apart.
    let digest = hex::encode(Sha256::digest(step));
    let short: String = step
        .chars()
        .map(|c| if plain(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(MAX_KEY_NAME_LENGTH - 9)
        .collect();
    format!("{APPROVAL_KEY_PREFIX}{short}-{}", &digest[..8])
}

/// Returns the annotation's value: the run, who approved, and when.
pub fn annotation_value(run: &str, by: &str, at: Timestamp) -> String {
    format!("{run} by {by} at {at}")
}

/// What an annotation's value says for `run`: nothing, where it is of another run.
pub fn parse_annotation_value(run: &str, value: &str) -> Option<GrantedApproval> {
    // The value may be the run's id alone, as a person types it with `kubectl annotate`.
    let rest = value.trim().strip_prefix(run)?;
    let nobody = || "whoever annotated the ConfigMap".to_owned();
    if rest.is_empty() {
        return Some(GrantedApproval {
            by: nobody(),
            at: None,
        });
    }
    let rest = rest.strip_prefix(' ')?;
    let (who, at) = match rest.rsplit_once(" at ") {
        Some((who, at)) => (who, at.parse().ok()),
        None => (rest, None),
    };
    let by = who.strip_prefix("by ").map_or_else(nobody, str::to_owned);
    Some(GrantedApproval { by, at })
}

/// The approval of `step` for `run` among `annotations`.
pub fn find_approval(
    annotations: &BTreeMap<String, String>,
    run: &str,
    step: &str,
) -> Option<GrantedApproval> {
    parse_annotation_value(run, annotations.get(&annotation_key(step))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approval_is_of_one_run_and_says_who_and_when_where_it_can() {
        let at: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let full = annotation_value("20261121-080000-ab12", "Ann at Example", at);
        let granted = parse_annotation_value("20261121-080000-ab12", &full).unwrap();
        assert_eq!(
            (granted.by.as_str(), granted.at),
            ("Ann at Example", Some(at))
        );
        assert!(parse_annotation_value("20261121-080000-ab12", "20261121-080000-ab12").is_some());
        for other in [
            "",
            "yes",
            "true",
            "20261120-080000-zz99",
            "20261121-080000-ab123",
            "20261121-080000-ab1",
        ] {
            assert_eq!(
                parse_annotation_value("20261121-080000-ab12", other),
                None,
                "{other}"
            );
        }
    }

    #[test]
    fn every_step_has_a_key_of_its_own_that_kubernetes_takes() {
        assert_eq!(
            annotation_key("drain-apps-blue"),
            "approve.eksup.dev/drain-apps-blue"
        );
        let long = "x".repeat(80);
        let other = format!("{long}y");
        let keys = [
            annotation_key(&long),
            annotation_key(&other),
            annotation_key("a/b"),
            annotation_key("a-b"),
            annotation_key("-a_"),
        ];
        for (i, k) in keys.iter().enumerate() {
            let name = k.strip_prefix(APPROVAL_KEY_PREFIX).unwrap();
            assert!(name.len() <= MAX_KEY_NAME_LENGTH, "{k}");
            assert!(name.starts_with(|c: char| c.is_ascii_alphanumeric()), "{k}");
            assert!(name.ends_with(|c: char| c.is_ascii_alphanumeric()), "{k}");
            assert!(!keys[..i].contains(k), "{k}");
        }
    }
}
