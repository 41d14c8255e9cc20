//! XML from JSON values, as AWS's query services write it.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::Value;

/// Writes the members of `value` as elements; an item of a list is an element named `item`.
pub fn write_members(value: &Value, item: &str) -> String {
    let mut out = String::new();
    if let Value::Object(map) = value {
        for (name, value) in map {
            write_element(&mut out, name, value, item);
        }
    }
    out
}

fn write_element(out: &mut String, name: &str, value: &Value, item: &str) {
    // Writing to a String cannot fail.
    // A value that is absent writes nothing, and a list writes its items under one name.
    match value {
        Value::Null => {}
        Value::Array(items) => {
            let _ = write!(out, "<{name}>");
            for value in items {
                write_element(out, item, value, item);
            }
            let _ = write!(out, "</{name}>");
        }
        Value::Object(map) => {
            let _ = write!(out, "<{name}>");
            for (inner, value) in map {
                write_element(out, inner, value, item);
            }
            let _ = write!(out, "</{name}>");
        }
        // Text is the only value that has to be escaped.
        Value::String(text) => {
            for part in ["<", name, ">", &*escape_text(text), "</", name, ">"] {
                out.push_str(part);
            }
        }
        Value::Bool(_) | Value::Number(_) => {
            let _ = write!(out, "<{name}>{value}</{name}>");
        }
    }
}

/// Escapes text for XML.
pub fn escape_text(text: &str) -> Cow<'_, str> {
    if !text.contains(['<', '>', '&', '"', '\r']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            // A reader of XML would make a plain one part of a line's end.
            '\r' => out.push_str("&#xD;"),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_wrapped_and_text_is_escaped() {
        let xml = write_members(
            &json!({"Tags": [{"Key": "a<b", "Value": 1}], "Empty": [], "Nothing": null}),
            "member",
        );
        assert_eq!(
            xml,
            "<Empty></Empty><Tags><member><Key>a&lt;b</Key><Value>1</Value></member></Tags>"
        );
    }
}
