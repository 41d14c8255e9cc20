//! EC2's filters, and the shapes its lists share.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;

/// Whether an object passes every filter; `values` gives the object's values for a filter's name, None when EC2 has no
/// such filter. Tags are filtered here.
pub fn passes_filters(
    input: Input,
    tags: &BTreeMap<String, String>,
    values: impl Fn(&str) -> Option<Vec<String>>,
) -> Result<bool, AwsError> {
    // All filters must pass, and within one any of its values.
    for filter in input.get_list("Filter").iter().map(Input) {
        let (name, wanted) = (
            filter.get_text("Name").unwrap_or_default(),
            filter.get_text_list("Value"),
        );
        let have = match name.strip_prefix("tag:") {
            Some(key) => tags.get(key).cloned().into_iter().collect(),
            None if name == "tag-key" => tags.keys().cloned().collect(),
            // A filter that EC2 does not have is an error, not a filter that matches nothing.
            None => values(name).ok_or_else(|| {
                AwsError::new(
                    400,
                    "InvalidParameterValue",
                    format!("The filter '{name}' is invalid"),
                )
            })?,
        };
        // Values may hold the wildcards `*` and `?`.
        if !have
            .iter()
            .any(|h| wanted.iter().any(|w| matches_pattern(w, h)))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether `text` fits `pattern`, where `*` is any text and `?` any character.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            let rest = &pattern[1..];
            text.char_indices()
                .map(|(i, _)| i)
                .chain([text.len()])
                .any(|i| matches_pattern(rest, &text[i..]))
        }
        (Some('?'), Some(c)) => matches_pattern(&pattern[1..], &text[c.len_utf8()..]),
        (Some(p), Some(c)) if p == c => {
            matches_pattern(&pattern[p.len_utf8()..], &text[c.len_utf8()..])
        }
        (None, Some(_)) | (Some(_), _) => false,
    }
}

/// `tagSet`.
pub fn tag_set(tags: &BTreeMap<String, String>) -> Value {
    tags.iter()
        .map(|(k, v)| json!({"key": k, "value": v}))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        assert!(matches_pattern(
            "amazon-eks-*-1.29-*",
            "amazon-eks-node-1.29-v20261105"
        ));
        assert!(!matches_pattern(
            "amazon-eks-*-1.28-*",
            "amazon-eks-node-1.29-v20261105"
        ));
        assert!(matches_pattern("t3.?arge", "t3.large") && !matches_pattern("t3", "t3.large"));
    }
}
