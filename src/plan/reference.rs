//! The key reference in `docs/plan.md`: each table between `<!-- keys of NAME -->` and `<!-- end of keys -->` is written from
//! [`super::keys`]. With `INSTA_UPDATE=always` the test rewrites the file.

use std::path::Path;

use super::keys::{Choice, KeyDefault, KeyMap, PlanKey, UPGRADE_PLAN, ValueKind};

const BEGIN: &str = "<!-- keys of ";
const END: &str = "<!-- end of keys -->";

/// The rows of a map's keys, and of the maps in them; `seen` has the maps that are described already.
fn describe_keys(map: &'static KeyMap, prefix: &str, seen: &mut Vec<&'static str>) -> String {
    let mut out = String::new();
    for key in map.keys {
        let path = format!("{prefix}{}", key.name);
        out += &describe_key(key, &path);
        if let Some((inner, brackets)) = map_within(&key.kind)
            && !seen.contains(&inner.schema)
        {
            seen.push(inner.schema);
            out += &describe_keys(inner, &format!("{path}{brackets}."), seen);
        }
    }
    out
}

fn describe_key(key: &PlanKey, path: &str) -> String {
    let default = match key.default {
        KeyDefault::Required => "required".to_owned(),
        KeyDefault::Written(text) => format!("`{text}`"),
        KeyDefault::Absent(text) => text.to_owned(),
        KeyDefault::OfItsKeys => "of its keys".to_owned(),
    };
    let mut parts = vec![key.meaning.to_owned()];
    // Words with a meaning of their own get a sentence each; plain ones are only listed.
    let words = choice_within(&key.kind).map_or(&[][..], |choice| choice.words);
    if words.iter().all(|word| word.meaning.is_empty()) {
        parts.push(list_words("One of", words.iter().map(|word| word.spelling)));
    } else {
        let words = words.iter();
        parts.extend(words.map(|word| format!("`{}`: {}.", word.spelling, word.meaning)));
    }
    parts.push(list_words(
        "The kinds are",
        known_texts(&key.kind).iter().copied(),
    ));
    parts.push(describe_bounds(&key.kind));
    parts.push(key.more.to_owned());
    // Most keys have only some of these parts.
    parts.retain(|part| !part.is_empty());
    let example = key.example.replace('|', "\\|");
    format!(
        "| `{path}` | {default} | `{example}` | {} |\n",
        parts.join(" ")
    )
}

/// The bounds that a person may want to know of; every duration ends at seven days.
fn describe_bounds(kind: &ValueKind) -> String {
    match kind {
        ValueKind::Duration { least } if least.as_secs() > 1 => {
            format!("At least `{}`.", super::duration::format_duration(*least))
        }
        ValueKind::Integer { least, most } if *most < 1_000 => format!("From {least} to {most}."),
        ValueKind::Duration { .. }
        | ValueKind::Integer { .. }
        | ValueKind::Version
        | ValueKind::Text(_)
        | ValueKind::Percent
        | ValueKind::Boolean
        | ValueKind::Choice(_)
        | ValueKind::Map(_)
        | ValueKind::PartOf { .. }
        | ValueKind::ChoiceOrMap { .. }
        | ValueKind::NamedValues { .. }
        | ValueKind::List { .. } => String::new(),
    }
}

/// The map in a value, and how a path goes into it.
fn map_within(kind: &ValueKind) -> Option<(&'static KeyMap, &'static str)> {
    match kind {
        ValueKind::Map(map) | ValueKind::ChoiceOrMap { map, .. } => Some((map, "")),
        ValueKind::List { items, .. } => map_within(items).map(|(map, _)| (map, "[]")),
        ValueKind::Version
        | ValueKind::Text(_)
        | ValueKind::Duration { .. }
        | ValueKind::Integer { .. }
        | ValueKind::Percent
        | ValueKind::Boolean
        | ValueKind::Choice(_)
        | ValueKind::PartOf { .. }
        | ValueKind::NamedValues { .. } => None,
    }
}

fn choice_within(kind: &ValueKind) -> Option<&'static Choice> {
    match kind {
        ValueKind::Choice(choice) | ValueKind::ChoiceOrMap { choice, .. } => Some(choice),
        ValueKind::NamedValues { values: inner, .. } | ValueKind::List { items: inner, .. } => {
            choice_within(inner)
        }
        ValueKind::Version
        | ValueKind::Text(_)
        | ValueKind::Duration { .. }
        | ValueKind::Integer { .. }
        | ValueKind::Percent
        | ValueKind::Boolean
        | ValueKind::PartOf { .. }
        | ValueKind::Map(_) => None,
    }
}

fn list_words(lead: &str, words: impl Iterator<Item = &'static str>) -> String {
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    if words.is_empty() {
        return String::new();
    }
    format!("{lead} {}.", words.join(", "))
}

fn known_texts(kind: &ValueKind) -> &'static [&'static str] {
    if let ValueKind::List { items, .. } = kind {
        return known_texts(items);
    }
    if let ValueKind::Text(rule) = kind {
        return rule.known;
    }
    &[]
}

/// The table of a part of the plan: `plan` for the top level alone, else the name of one of its keys.
fn key_table(part: &str) -> String {
    let rows = if part == "plan" {
        let keys = UPGRADE_PLAN.keys.iter();
        keys.map(|key| describe_key(key, key.name)).collect()
    } else {
        let key = UPGRADE_PLAN
            .find_key(part)
            .unwrap_or_else(|| panic!("the plan has no key {part}"));
        let (map, _) = map_within(&key.kind).unwrap_or_else(|| panic!("{part} holds no map"));
        describe_keys(map, "", &mut Vec::new())
    };
    format!("| key | default | example | meaning, and why |\n| --- | --- | --- | --- |\n{rows}")
}

/// The text with each of its tables as it should be, and the parts that have one.
fn with_key_tables(text: &str) -> (String, Vec<&str>) {
    let mut out = String::new();
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (part, after) = after.split_once(" -->").expect("the marker ends");
        let (_, after) = after.split_once(END).expect("the table has an end");
        out += &format!("{before}{BEGIN}{part} -->\n\n{}\n{END}", key_table(part));
        parts.push(part);
        rest = after;
    }
    (out + rest, parts)
}

#[test]
fn the_document_describes_every_key_as_the_tables_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plan.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (wanted, parts) = with_key_tables(&text);
    for key in UPGRADE_PLAN.keys {
        assert!(
            map_within(&key.kind).is_none() || parts.contains(&key.name),
            "docs/plan.md has no table of {}",
            key.name
        );
    }
    assert!(parts.contains(&"plan"));
    if text == wanted {
        return;
    }
    if std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always") {
        std::fs::write(&path, wanted).unwrap();
        return;
    }
    let new_lines = wanted.lines().filter(|line| !text.contains(line));
    panic!(
        "docs/plan.md is not what src/plan/keys says; INSTA_UPDATE=always rewrites it. New lines:\n{}",
        new_lines.collect::<Vec<_>>().join("\n")
    );
}
