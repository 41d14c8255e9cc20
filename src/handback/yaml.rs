//! YAML, as text: block style, every string quoted.

use std::fmt::Write as _;

use super::hcl::one_line;

/// A value of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum YamlValue {
    Text(String),
    Number(i64),
    Bool(bool),
    List(Vec<YamlValue>),
    Map(Vec<YamlItem>),
}

/// What stands in a mapping.
#[derive(Clone, Debug, PartialEq)]
pub enum YamlItem {
    Comment(String),
    /// A key that is a plain word or is quoted, and its value.
    Entry(String, YamlValue),
}

impl YamlItem {
    pub fn text(key: &str, value: impl Into<String>) -> Self {
        Self::Entry(key.to_owned(), YamlValue::Text(value.into()))
    }

    pub fn number(key: &str, value: impl Into<i64>) -> Self {
        Self::Entry(key.to_owned(), YamlValue::Number(value.into()))
    }

    pub fn flag(key: &str, value: bool) -> Self {
        Self::Entry(key.to_owned(), YamlValue::Bool(value))
    }

    pub fn map(key: &str, items: Vec<YamlItem>) -> Self {
        Self::Entry(key.to_owned(), YamlValue::Map(items))
    }

    pub fn list(key: &str, values: Vec<YamlValue>) -> Self {
        Self::Entry(key.to_owned(), YamlValue::List(values))
    }

    pub fn texts<'a>(key: &str, values: impl IntoIterator<Item = &'a String>) -> Self {
        let values = values.into_iter().cloned().map(YamlValue::Text);
        Self::list(key, values.collect())
    }

    /// A mapping of strings whose keys are anybody's.
    pub fn strings<'a>(
        key: &str,
        values: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        let entries = values
            .into_iter()
            .map(|(k, v)| Self::Entry(quote_yaml(k), YamlValue::Text(v.clone())));
        Self::map(key, entries.collect())
    }

    pub fn comment(text: impl Into<String>) -> Self {
        Self::Comment(text.into())
    }

    pub fn unknown(what: &str, why: &str) -> Self {
        Self::Comment(format!("unknown: {what}, {why}"))
    }
}

/// Writes a document.
pub fn write_yaml(items: &[YamlItem]) -> String {
    let mut out = String::new();
    write_map(&mut out, items, 0);
    out
}

fn write_map(out: &mut String, items: &[YamlItem], depth: usize) {
    let pad = "  ".repeat(depth);
    for item in items {
        match item {
            // Writing to a String cannot fail.
            YamlItem::Comment(text) => {
                let _ = writeln!(out, "{pad}# {}", one_line(text));
            }
            YamlItem::Entry(key, value) => {
                let _ = write!(out, "{pad}{key}:");
                write_value(out, value, depth);
            }
        }
    }
}

/// Writes what follows a key or a dash, and the end of the line.
fn write_value(out: &mut String, value: &YamlValue, depth: usize) {
    match value {
        YamlValue::Text(text) => *out += &format!(" {}\n", quote_yaml(text)),
        YamlValue::Number(n) => *out += &format!(" {n}\n"),
        YamlValue::Bool(b) => *out += &format!(" {b}\n"),
        YamlValue::List(values) if values.is_empty() => out.push_str(" []\n"),
        YamlValue::List(values) => {
            out.push('\n');
            for value in values {
                write_list_item(out, value, depth + 1);
            }
        }
        // A mapping of nothing but comments would be null.
        YamlValue::Map(items) if !items.iter().any(is_entry) => {
            out.push_str(" {}\n");
            write_map(out, items, depth + 1);
        }
        YamlValue::Map(items) => {
            out.push('\n');
            write_map(out, items, depth + 1);
        }
    }
}

/// A mapping in a list begins beside its dash.
fn write_list_item(out: &mut String, value: &YamlValue, depth: usize) {
    let pad = "  ".repeat(depth);
    match value {
        YamlValue::Map(items) if items.iter().any(is_entry) => {
            let mut text = String::new();
            write_map(&mut text, items, depth + 1);
            // The first line is as much shorter as the dash is wide.
            let _ = write!(out, "{pad}- {}", text.trim_start());
        }
        value @ (YamlValue::Text(_)
        | YamlValue::Number(_)
        | YamlValue::Bool(_)
        | YamlValue::List(_)
        | YamlValue::Map(_)) => {
            let _ = write!(out, "{pad}-");
            write_value(out, value, depth);
        }
    }
}

fn is_entry(item: &YamlItem) -> bool {
    matches!(item, YamlItem::Entry(..))
}

/// A double-quoted string: JSON's, with what YAML does not take as it is escaped too.
pub fn quote_yaml(text: &str) -> String {
    let mut out = String::new();
    for c in serde_json::Value::from(text).to_string().chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}
