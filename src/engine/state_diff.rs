//! The three states a refusal shows: what was before, what the run did, what is now. Only what differs is named.

use crate::model::elb;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

/// More differences than a person reads at night.
const MAX_DIFFERENCES_SHOWN: usize = 12;

/// A time as people read it.
pub fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Three lines to stand below a refusal. `now` is absent where it could not be read.
pub fn describe_states(before: &Value, done: &str, now: Option<&Value>) -> String {
    let differing = now.map(|now| differing_fields(before, now));
    // Unknown is said as such: a reader must not take it for "as before".
    let (was, is) = match &differing {
        None => (
            join_fields(&flatten_value(before), MAX_DIFFERENCES_SHOWN),
            "it could not be read".to_owned(),
        ),
        Some(fields) if fields.is_empty() => (
            join_fields(&flatten_value(before), MAX_DIFFERENCES_SHOWN),
            "as it was before the run".to_owned(),
        ),
        // Only the fields that differ, so that a person sees the change and not the whole object.
        Some(fields) => {
            let pick = |n: usize| -> Vec<(String, String)> {
                fields
                    .iter()
                    .map(|(name, values)| (name.clone(), values[n].clone()))
                    .collect()
            };
            (
                join_fields(&pick(0), MAX_DIFFERENCES_SHOWN),
                join_fields(&pick(1), MAX_DIFFERENCES_SHOWN),
            )
        }
    };
    let mut text = String::new();
    if !was.is_empty() {
        text += &format!("\n  before: {was}");
    }
    text += &format!("\n  asked:  {done}\n  now:    {is}");
    text
}

/// The fields in which two readings differ, each with both values.
pub fn differing_fields(before: &Value, now: &Value) -> Vec<(String, [String; 2])> {
    let (was, is): (BTreeMap<_, _>, BTreeMap<_, _>) = (
        flatten_value(before).into_iter().collect(),
        flatten_value(now).into_iter().collect(),
    );
    let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let none = || "none".to_owned();
    names
        .into_iter()
        .map(|name| {
            let value = |side: &BTreeMap<String, String>| side.get(name).cloned();
            (name.clone(), value(&was), value(&is))
        })
        .filter(|(_, was, is)| was != is)
        .map(|(name, was, is)| (name, [was.unwrap_or_else(none), is.unwrap_or_else(none)]))
        .collect()
}

fn join_fields(fields: &[(String, String)], most: usize) -> String {
    let mut parts: Vec<String> = fields
        .iter()
        .take(most)
        .map(|(name, value)| {
            if name.is_empty() {
                value.clone()
            } else {
                format!("{name} {value}")
            }
        })
        .collect();
    if fields.len() > most {
        parts.push(format!("and {} more", fields.len() - most));
    }
    parts.join(", ")
}

/// Every leaf of a value with a name people know it by.
fn flatten_value(value: &Value) -> Vec<(String, String)> {
    let mut out = Vec::new();
    collect_leaves(String::new(), value, &mut out);
    out
}

fn collect_leaves(name: String, value: &Value, out: &mut Vec<(String, String)>) {
    let under = |member: &str| {
        if name.is_empty() {
            split_camel_case(member)
        } else {
            format!("{name} {}", split_camel_case(member))
        }
    };
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (member, value) in members {
                // What somebody configured may hold what nobody else should read.
                if member == "configurationValues" {
                    if let Some(text) = value.as_str() {
                        out.push((under(member), fingerprint_text(text)));
                    }
                } else {
                    collect_leaves(under(member), value, out);
                }
            }
        }
        Value::Array(items) if items.iter().all(|i| !i.is_object() && !i.is_array()) => {
            let texts: Vec<String> = items.iter().map(leaf_text).collect();
            if !texts.is_empty() {
                out.push((name, texts.join(" ")));
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                match split_off_name(item) {
                    // A list's item is known by its name, so that two readings are compared item by item whatever their
                    // order.
                    Some((key, rest)) => {
                        let name = if name.is_empty() || name.ends_with("forward") {
                            name.trim_end_matches("forward").to_owned() + &key
                        } else {
                            format!("{name} {key}")
                        };
                        collect_leaves(name, &rest, out);
                    }
                    None => {
                        collect_leaves(format!("{name} {}", i + 1).trim().to_owned(), item, out);
                    }
                }
            }
        }
        leaf_value => out.push((name, leaf_text(leaf_value))),
    }
}

/// An item of a list that has a name of its own, and the rest of it.
fn split_off_name(item: &Value) -> Option<(String, Value)> {
    let mut members = item.as_object()?.clone();
    for (key, word) in [
        ("rule", "rule "),
        ("arn", ""),
        ("name", ""),
        ("key", ""),
        ("asg", ""),
    ] {
        if let Some(Value::String(text)) = members.get(key) {
            let named = format!("{word}{}", shorten_arn(text));
            members.remove(key);
            return Some((named, Value::Object(members)));
        }
    }
    None
}

fn leaf_text(value: &Value) -> String {
    match value {
        Value::String(text) => shorten_arn(text),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

/// An ARN's end; the rest of it is the same everywhere.
fn shorten_arn(text: &str) -> String {
    if !text.starts_with("arn:") {
        return text.to_owned();
    }
    let resource = text.rsplit(':').next().unwrap_or(text);
    match resource.split('/').next() {
        Some("targetgroup") => elb::short_name(text).to_owned(),
        Some("listener-rule" | "listener") => elb::short_rule(text),
        Some(_) | None => resource.to_owned(),
    }
}

/// Returns a member's name in words: `maxSize` as `max size`.
fn split_camel_case(member: &str) -> String {
    // A label or a taint's key stays as it is.
    if !member.chars().all(|c| c.is_ascii_alphanumeric()) {
        return member.to_owned();
    }
    let mut out = String::new();
    for c in member.chars() {
        if c.is_ascii_uppercase() {
            out.push(' ');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Says that a text is another without showing it.
fn fingerprint_text(text: &str) -> String {
    use sha2::{Digest, Sha256};
    let hash = hex::encode(Sha256::digest(text));
    format!("({} characters, sha256 {})", text.len(), &hash[..8])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_named_in_words_and_without_whole_arns() {
        let tg = |n: &str| {
            format!("arn:aws:elasticloadbalancing:us-east-1:111122223333:targetgroup/{n}/0123")
        };
        let rule = "arn:aws:elasticloadbalancing:us-east-1:111122223333:listener-rule/app/alb/50dc/f2f7/9683";
        let rules = |b: i32, g: i32| json!([{"rule": rule, "forward": [{"arn": tg("blue"), "weight": b}, {"arn": tg("green"), "weight": g}]}]);
        let text = describe_states(
            &rules(100, 0),
            "10% on green in 1 rule",
            Some(&rules(100, 37)),
        );
        assert_eq!(
            text,
            "\n  before: rule alb/9683 green weight 0\n  asked:  10% on green in 1 rule\n  now:    rule alb/9683 green weight 37"
        );
    }

    #[test]
    fn a_world_that_is_as_before_says_so_and_one_that_cannot_be_read_too() {
        let before = json!({"maxSize": 4, "taints": []});
        let same = describe_states(&before, "x", Some(&before));
        assert!(
            same.contains("before: max size 4") && same.contains("now:    as it was before"),
            "{same}"
        );
        assert!(describe_states(&before, "x", None).contains("could not be read"));
        assert!(
            describe_states(&json!("1.27"), "x", Some(&json!("1.26"))).contains("before: 1.27")
        );
    }

    #[test]
    fn an_add_ons_configuration_is_never_shown() {
        let with = |v: &str| json!({"change": {"name": "vpc-cni", "configurationValues": v}});
        let text = describe_states(
            &with("{\"env\":\"old\"}"),
            "x",
            Some(&with("{\"env\":\"new\"}")),
        );
        assert!(
            text.contains("configuration values (") && !text.contains("env"),
            "{text}"
        );
    }
}
