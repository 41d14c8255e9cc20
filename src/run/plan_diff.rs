//! The plan as a run keeps it, and what differs when another is given. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::plan::{Plan, duration};

/// A plan of thousands of lines must not fill the checkpoint; beyond this only a digest of each part is kept.
const MAX_KEPT_PLAN_BYTES: usize = 32 * 1024;
/// What such a key holds is kept as a digest: it may be, or contain, a secret.
const SECRET_KEYS: &[&str] = &[
    "url", "token", "secret", "password", "header", "headers", "webhook", "topic",
];
/// More differences than a person reads.
const MAX_LISTED_DIFFERENCES: usize = 20;

/// The plan as the journal keeps it: every default filled in, secrets as digests.
pub fn plan_for_journal(plan: &Plan) -> Value {
    // A plan is plain data with text keys, so that writing it cannot fail.
    let mut value = serde_json::to_value(plan).unwrap_or_default();
    digest_secrets(&mut value);
    if value.to_string().len() <= MAX_KEPT_PLAN_BYTES {
        return value;
    }
    // Too large for a checkpoint: large parts become digests, by which it is still told that they differ.
    if let Value::Object(members) = &mut value {
        for part in members.values_mut() {
            if part.to_string().len() > MAX_KEPT_PLAN_BYTES / 16 {
                *part = Value::String(short_digest(&part.to_string()));
            }
        }
    }
    value
}

fn short_digest(text: &str) -> String {
    let hash = hex::encode(Sha256::digest(text));
    format!("(sha256 {})", &hash[..12])
}

fn digest_secrets(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(text) if SECRET_KEYS.contains(&key.to_lowercase().as_str()) => {
                        *text = short_digest(text);
                    }
                    other => digest_secrets(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(digest_secrets),
        _ => {}
    }
}

/// What differs between the plan of a run and another one: each key with its old and new value.
pub fn plan_differences(was: &Value, is: &Value) -> Vec<String> {
    if was.is_null() {
        return vec!["the run was begun by an eksup that did not keep its plan".to_owned()];
    }
    let (was, is) = (flatten_leaves(was), flatten_leaves(is));
    let mut lines = Vec::new();
    let mut keys: Vec<&String> = was.keys().chain(is.keys()).collect();
    keys.sort();
    keys.dedup();
    // Keys of either plan: one that was removed differs too.
    for key in keys {
        match (was.get(key), is.get(key)) {
            (Some(was), Some(is)) if was != is => lines.push(format!("{key}: {was} -> {is}")),
            (Some(was), None) => lines.push(format!("{key}: {was} -> (not set)")),
            (None, Some(is)) => lines.push(format!("{key}: (not set) -> {is}")),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    let n = lines.len();
    if n > MAX_LISTED_DIFFERENCES {
        lines.truncate(MAX_LISTED_DIFFERENCES);
        lines.push(format!("and {} more", n - MAX_LISTED_DIFFERENCES));
    }
    lines
}

/// Every leaf by the path a plan file has it under.
fn flatten_leaves(value: &Value) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    collect_leaves(String::new(), value, &mut out);
    out
}

fn collect_leaves(path: String, value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            // A duration is two numbers in the journal, and one word in a plan.
            if let Some(time) = duration_text(value) {
                out.insert(path, time);
                return;
            }
            for (key, value) in members {
                let key = to_camel_case(key);
                let under = if path.is_empty() {
                    key
                } else {
                    format!("{path}.{key}")
                };
                collect_leaves(under, value, out);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (i, item) in items.iter().enumerate() {
                // Node groups are known by their blue, so that an entry that is added does not shift all the others.
                let name = item.get("blue").and_then(Value::as_str);
                let at = name.map_or_else(|| (i + 1).to_string(), str::to_owned);
                collect_leaves(format!("{path}[{at}]"), item, out);
            }
        }
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().map(leaf_text).collect();
            if !texts.is_empty() {
                out.insert(path, format!("[{}]", texts.join(", ")));
            }
        }
        other => drop(out.insert(path, leaf_text(other))),
    }
}

fn leaf_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A duration, which serde writes as seconds and nanoseconds.
fn duration_text(value: &Value) -> Option<String> {
    let members = value.as_object()?;
    if members.len() != 2 || !members.contains_key("secs") || !members.contains_key("nanos") {
        return None;
    }
    Duration::deserialize(value)
        .ok()
        .map(duration::format_duration)
}

fn to_camel_case(key: &str) -> String {
    // Keys of maps (labels, pins) stay as somebody wrote them.
    if !key.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
        return key.to_owned();
    }
    let mut words = key.split('_');
    let mut out = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        out += &first.to_uppercase();
        out += rest;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::parse_plan;

    fn plan(rest: &str) -> Plan {
        parse_plan("p", &format!("cluster: prod\nto: 1.30\n{rest}")).unwrap()
    }

    #[test]
    fn the_keys_that_changed_are_named_as_the_file_spells_them() {
        let was = plan_for_journal(&plan(
            "drain: {podDeadline: 15m}\nnodeGroups: [{blue: a}]\n",
        ));
        let is = plan_for_journal(&plan(
            "drain: {podDeadline: 20m, parallel: 3}\nnodeGroups: [{blue: a, green: b}]\n",
        ));
        assert_eq!(
            plan_differences(&was, &is),
            [
                "drain.parallel: 1 -> 3",
                "drain.podDeadline: 15m -> 20m",
                "nodeGroups[a].green: (not set) -> b"
            ]
        );
        assert!(plan_differences(&was, &was).is_empty());
    }

    #[test]
    fn of_a_group_s_settings_only_those_that_differ_from_the_plan_s_are_named() {
        let with = |entry: &str, tie: &str| {
            plan_for_journal(&plan(&format!(
                "nodeGroups: [{entry}]\ntraffic: {{routes: [{{blue: x, green: y{tie}}}]}}\n"
            )))
        };
        let was = with("{blue: a, drain: {parallel: 1}}", "");
        let is = with(
            "{blue: a, drain: {parallel: 2, podDeadline: 20m}, traffic: {bake: 1m}}",
            ", nodeGroup: a",
        );
        assert_eq!(
            plan_differences(&was, &is),
            [
                "nodeGroups[a].drain.parallel: (not set) -> 2",
                "nodeGroups[a].drain.podDeadline: (not set) -> 20m",
                "nodeGroups[a].traffic.bake: (not set) -> 1m",
                "traffic.routes[x].nodeGroup: (not set) -> a",
            ]
        );
    }

    #[test]
    fn a_secret_is_told_apart_and_never_kept() {
        let with = |token: &str| {
            plan_for_journal(&plan(&format!(
                "notify: [{{webhook: {{url: \"https://hooks.example.com/{token}\"}}}}]\n"
            )))
        };
        let (was, is) = (with("s3cr3t-one"), with("s3cr3t-two"));
        let lines = plan_differences(&was, &is);
        assert_eq!(lines.len(), 1, "{lines:?}");
        for text in [was.to_string(), is.to_string(), lines.join("")] {
            assert!(!text.contains("s3cr3t"), "{text}");
        }
    }

    #[test]
    fn a_huge_plan_is_kept_as_digests_of_its_parts() {
        let groups: Vec<String> = (0..2000)
            .map(|i| format!("  - {{blue: group-{i}, green: other-{i}}}"))
            .collect();
        let huge = plan(&format!("nodeGroups:\n{}\n", groups.join("\n")));
        let kept = plan_for_journal(&huge);
        assert!(
            kept.to_string().len() < MAX_KEPT_PLAN_BYTES,
            "{}",
            kept.to_string().len()
        );
        let mut other = huge.clone();
        other.node_groups.pop();
        let lines = plan_differences(&kept, &plan_for_journal(&other));
        assert!(
            matches!(lines.as_slice(), [one] if one.starts_with("nodeGroups: (sha256 ")),
            "{lines:?}"
        );
    }
}
