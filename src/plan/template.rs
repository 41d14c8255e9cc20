//! The plan that `eksup init` writes, made from the tables of [`super::keys`]: what was found in the cluster, the defaults that
//! a person looks at first, and as comments what else there is.

use std::collections::BTreeMap;

use super::keys::{
    Choice, InitUse, KeyDefault, KeyMap, NODE_GROUP, PlanKey, TextCheck, UPGRADE_PLAN, ValueKind,
};

/// Longest line of a comment.
const COMMENT_WIDTH: usize = 110;

/// What is known of the cluster, by the path of the key that holds it.
#[derive(Default)]
pub struct PlanTemplate {
    values: BTreeMap<&'static str, String>,
    examples: BTreeMap<&'static str, String>,
    notes: BTreeMap<&'static str, String>,
}

impl PlanTemplate {
    /// Gives a key its value, as YAML: on the key's line, or where it begins with a line break on the lines below, which are
    /// indented already.
    pub fn set_value(&mut self, path: &'static str, yaml: impl Into<String>) {
        self.values.insert(path, yaml.into());
    }

    /// Shows a value of a key as a comment.
    pub fn show_example(&mut self, path: &'static str, yaml: impl Into<String>) {
        self.examples.insert(path, yaml.into());
    }

    /// Gives the list of node groups: of each its name, as YAML, and a comment. The first shows what else can be said.
    pub fn set_node_groups(&mut self, path: &'static str, groups: &[(String, String)]) {
        let mut list = String::new();
        for (i, (name, note)) in groups.iter().enumerate() {
            list += &format!("\n{}", wrap_comment(note, "  "));
            for key in NODE_GROUP.keys.iter() {
                match key.init {
                    InitUse::Written => list += &format!("  - {}: {name}", key.name),
                    InitUse::Shown if i == 0 => {
                        list += &format!("\n{}", self.render_key(key, "", "    ").trim_end());
                    }
                    InitUse::Shown | InitUse::LeftOut => {}
                }
            }
        }
        self.set_value(path, list);
    }

    /// Says something about a key beside its meaning.
    pub fn add_note(&mut self, path: &'static str, text: impl Into<String>) {
        self.notes.insert(path, text.into());
    }

    /// The text of the plan.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for key in UPGRADE_PLAN.keys {
            let block = self.render_key(key, "", "");
            // A key with a map or a comment is set apart.
            let apart = block.starts_with('#') || block.contains(":\n");
            if apart && !out.is_empty() && !out.ends_with("\n\n") {
                out.push('\n');
            }
            out += &block;
            if apart {
                out.push('\n');
            }
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    }

    fn render_key(&self, key: &PlanKey, parent: &str, indent: &str) -> String {
        let path = format!("{parent}{}", key.name);
        let given = self.values.get(path.as_str());
        let example = self.examples.get(path.as_str());
        // Keys that few need are left out of a first plan.
        if given.is_none() && example.is_none() && key.init == InitUse::LeftOut {
            return String::new();
        }
        // A section is written as a whole, with the keys in it one level deeper.
        if let (ValueKind::Map(map), InitUse::Written, None) = (&key.kind, key.init, given) {
            let keys = self.render_keys(map, &format!("{path}."), &format!("{indent}  "));
            return format!(
                "{}{indent}{}:\n{keys}",
                self.comment(key, &path, indent),
                key.name
            );
        }
        // What was found or is a written default is in force; the rest is an example behind `#`.
        let (mark, value) = match (given, key.init, &key.default) {
            (Some(value), _, _) => ("", value.as_str()),
            (None, InitUse::Written, KeyDefault::Written(default)) => ("", *default),
            (None, InitUse::Written | InitUse::Shown | InitUse::LeftOut, _) => {
                ("# ", example.map_or(key.example, String::as_str))
            }
        };
        let space = if value.starts_with('\n') { "" } else { " " };
        let comment = self.comment(key, &path, indent);
        format!("{comment}{indent}{mark}{}:{space}{value}\n", key.name)
    }

    fn render_keys(&self, map: &KeyMap, parent: &str, indent: &str) -> String {
        let keys = map.keys.iter();
        keys.map(|key| self.render_key(key, parent, indent))
            .collect()
    }

    /// What a key means, which words it takes, and what is noted about it.
    fn comment(&self, key: &PlanKey, path: &str, indent: &str) -> String {
        if matches!(key.kind, ValueKind::Text(rule) if matches!(rule.check, TextCheck::Always(_))) {
            return String::new();
        }
        let mut out = wrap_comment(key.meaning, indent);
        for word in choice_of(&key.kind).map_or(&[][..], |choice| choice.words) {
            if !word.meaning.is_empty() {
                out += &wrap_comment(&format!("  {}: {}", word.spelling, word.meaning), indent);
            }
        }
        if let Some(note) = self.notes.get(path) {
            out += &wrap_comment(note, indent);
        }
        out
    }
}

fn choice_of(kind: &ValueKind) -> Option<&'static Choice> {
    match kind {
        ValueKind::Choice(choice) => Some(choice),
        ValueKind::Version
        | ValueKind::Text(_)
        | ValueKind::Duration { .. }
        | ValueKind::Integer { .. }
        | ValueKind::Percent
        | ValueKind::Boolean
        | ValueKind::Map(_)
        | ValueKind::PartOf { .. }
        | ValueKind::ChoiceOrMap { .. }
        | ValueKind::NamedValues { .. }
        | ValueKind::List { .. } => None,
    }
}

/// A text in lines of comment.
fn wrap_comment(text: &str, indent: &str) -> String {
    let stem = text.trim_start();
    let hang = &text[..text.len() - stem.len()];
    let mut out = String::new();
    let mut line = String::new();
    for word in stem.split(' ') {
        if !line.is_empty() && indent.len() + hang.len() + line.len() + word.len() > COMMENT_WIDTH {
            out += &format!("{indent}# {hang}{line}\n");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    out + &format!("{indent}# {hang}{line}\n")
}
