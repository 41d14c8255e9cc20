//! HashiCorp's configuration language, as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum HclValue {
    Text(String),
    /// An expression, such as an address; written as it is.
    Expression(String),
    Number(i64),
    Bool(bool),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
    Object(Vec<HclItem>),
}

/// What stands in a body.
#[derive(Clone, Debug, PartialEq)]
pub enum HclItem {
    Comment(String),
    Attribute(String, HclValue),
    /// The words before the brace, and the body.
    Block(String, Vec<HclItem>),
    Blank,
}

impl HclItem {
    pub fn text(name: &str, value: impl Into<String>) -> Self {
        Self::Attribute(name.to_owned(), HclValue::Text(value.into()))
    }

    pub fn number(name: &str, value: impl Into<i64>) -> Self {
        Self::Attribute(name.to_owned(), HclValue::Number(value.into()))
    }

    pub fn expression(name: &str, value: impl Into<String>) -> Self {
        Self::Attribute(name.to_owned(), HclValue::Expression(value.into()))
    }

    pub fn flag(name: &str, value: bool) -> Self {
        Self::Attribute(name.to_owned(), HclValue::Bool(value))
    }

    pub fn list<'a>(name: &str, values: impl IntoIterator<Item = &'a String>) -> Self {
        let values = values.into_iter().cloned().collect();
        Self::Attribute(name.to_owned(), HclValue::List(values))
    }

    pub fn comment(text: impl Into<String>) -> Self {
        Self::Comment(text.into())
    }

    /// `unknown: WHAT, WHY`.
    pub fn unknown(what: &str, why: &str) -> Self {
        Self::Comment(format!("unknown: {what}, {why}"))
    }

    pub fn block(header: impl Into<String>, body: Vec<Self>) -> Self {
        Self::Block(header.into(), body)
    }

    /// The attribute, or a comment that says that it is not known.
    pub fn text_or_unknown(name: &str, value: Option<&String>, why: &str) -> Self {
        match value {
            Some(value) => Self::text(name, value),
            None => Self::unknown(name, why),
        }
    }

    fn is_long(&self) -> bool {
        match self {
            Self::Block(..) => true,
            Self::Attribute(_, value) => value.is_long(),
            Self::Comment(_) | Self::Blank => false,
        }
    }
}

impl HclValue {
    /// Whether it takes more than one line.
    fn is_long(&self) -> bool {
        match self {
            Self::List(values) => values.len() > 2,
            Self::Map(map) => !map.is_empty(),
            Self::Object(items) => !items.is_empty(),
            Self::Text(_) | Self::Expression(_) | Self::Number(_) | Self::Bool(_) => false,
        }
    }
}

/// Writes a body as `terraform fmt` would: two columns, equals signs of neighbours in one column.
pub fn write_hcl(items: &[HclItem]) -> String {
    let mut out = String::new();
    write_items(&mut out, items, 0);
    out
}

fn write_items(out: &mut String, items: &[HclItem], depth: usize) {
    let pad = "  ".repeat(depth);
    for (i, item) in items.iter().enumerate() {
        // What takes several lines stands apart from its neighbours, except from a comment that is about it.
        let before = i.checked_sub(1).and_then(|i| items.get(i));
        let apart = before.is_some_and(|before| {
            before.is_long() || (item.is_long() && matches!(before, HclItem::Attribute(..)))
        });
        if apart && *item != HclItem::Blank && before != Some(&HclItem::Blank) {
            out.push('\n');
        }
        match item {
            HclItem::Blank => out.push('\n'),
            // Writing to a String cannot fail.
            HclItem::Comment(text) => {
                let _ = writeln!(out, "{pad}# {}", one_line(text));
            }
            HclItem::Attribute(name, value) => {
                let width = name_width(items, i);
                let _ = write!(out, "{pad}{name:<width$} = ");
                write_value(out, value, depth);
                out.push('\n');
            }
            HclItem::Block(header, body) => {
                let _ = writeln!(out, "{pad}{header} {{");
                write_items(out, body, depth + 1);
                let _ = writeln!(out, "{pad}}}");
            }
        }
    }
}

/// The width of the names in the run of short attributes that item `i` is in.
fn name_width(items: &[HclItem], i: usize) -> usize {
    let short = |item: &&HclItem| matches!(item, HclItem::Attribute(..)) && !item.is_long();
    if items[i].is_long() {
        return 0;
    }
    let before = items[..i].iter().rev().take_while(short);
    let after = items[i..].iter().take_while(short);
    let name = |item: &HclItem| match item {
        HclItem::Attribute(name, _) => name.len(),
        HclItem::Comment(_) | HclItem::Block(..) | HclItem::Blank => 0,
    };
    before.chain(after).map(name).max().unwrap_or(0)
}

fn write_value(out: &mut String, value: &HclValue, depth: usize) {
    let pad = "  ".repeat(depth + 1);
    let end = "  ".repeat(depth);
    match value {
        HclValue::Text(text) => out.push_str(&quote_hcl(text)),
        HclValue::Expression(text) => out.push_str(text),
        HclValue::Number(n) => out.push_str(&n.to_string()),
        HclValue::Bool(b) => out.push_str(&b.to_string()),
        HclValue::List(values) => {
            let quoted: Vec<String> = values.iter().map(|v| quote_hcl(v)).collect();
            if value.is_long() {
                let lines = quoted.iter().map(|q| format!("{pad}{q},\n"));
                *out += &format!("[\n{}{end}]", lines.collect::<String>());
            } else {
                *out += &format!("[{}]", quoted.join(", "));
            }
        }
        HclValue::Map(map) if map.is_empty() => out.push_str("{}"),
        HclValue::Map(map) => {
            let width = map.keys().map(|k| quote_hcl(k).chars().count()).max();
            let width = width.unwrap_or(0);
            out.push_str("{\n");
            for (key, value) in map {
                let key = quote_hcl(key);
                let _ = writeln!(out, "{pad}{key:<width$} = {}", quote_hcl(value));
            }
            let _ = write!(out, "{end}}}");
        }
        HclValue::Object(items) if items.is_empty() => out.push_str("{}"),
        HclValue::Object(items) => {
            out.push_str("{\n");
            write_items(out, items, depth + 1);
            let _ = write!(out, "{end}}}");
        }
    }
}

/// A quoted string that is only text: no interpolation and no directive begins in it.
pub fn quote_hcl(text: &str) -> String {
    let mut out = String::from("\"");
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // The sign is doubled only where it would begin something.
            '$' | '%' if chars.peek() == Some(&'{') => {
                out.push(c);
                out.push(c);
            }
            // Of `$$${` the scanner takes the first two signs together, and the third would begin something.
            '$' | '%' if chars.peek() == Some(&c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A name as Terraform takes it for a resource: what is none of its letters becomes an underscore.
pub fn identifier(name: &str) -> String {
    let word: String = name
        .chars()
        .map(|c| match c.is_ascii_alphanumeric() {
            true => c,
            false => '_',
        })
        .collect();
    match word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        true => word,
        false => format!("_{word}"),
    }
}

/// A comment ends with its line: whatever would begin another one is a space.
pub fn one_line(text: &str) -> String {
    text.chars()
        .map(
            |c| match c.is_control() || c == '\u{2028}' || c == '\u{2029}' {
                true => ' ',
                false => c,
            },
        )
        .collect()
}
