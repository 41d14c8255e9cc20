//! Label and field selectors, as text in a request and as an object in a spec.

use std::collections::BTreeMap;

use serde_json::Value;

use super::json::{list_at, text_at, text_map_at, value_at};

/// Labels, in order.
pub type Labels = BTreeMap<String, String>;

/// A condition on labels. All of its terms must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelSelector {
    terms: Vec<SelectorTerm>,
    /// A null selector in a spec selects nothing.
    nothing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SelectorTerm {
    key: String,
    op: SelectorOperator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SelectorOperator {
    In,
    NotIn,
    Exists,
    Absent,
    Above,
    Below,
}

impl LabelSelector {
    /// Reads a `labelSelector` of a request: `a=b,c!=d,e,!f,g in (x,y),h notin (z)`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for part in split_outside_parens(text) {
            let part = part.trim();
            if !part.is_empty() {
                terms.push(
                    parse_term(part)
                        .ok_or_else(|| format!("unable to parse requirement: {part}"))?,
                );
            }
        }
        Ok(Self {
            terms,
            nothing: false,
        })
    }

    /// Reads a selector of a spec (`matchLabels`, `matchExpressions`); null selects nothing, empty everything.
    pub fn from_spec(value: Option<&Value>) -> Self {
        let Some(value) = value else {
            return Self {
                terms: Vec::new(),
                nothing: true,
            };
        };
        let mut selector = Self::from_map(&text_map_at(value, "matchLabels"));
        selector.terms.extend(
            list_at(value, "matchExpressions")
                .iter()
                .filter_map(parse_expression),
        );
        selector
    }

    /// Reads node selector expressions (a list of `key`, `operator`, `values`).
    pub fn from_expressions(expressions: &[Value]) -> Self {
        Self {
            terms: expressions.iter().filter_map(parse_expression).collect(),
            nothing: false,
        }
    }

    /// A selector of plain `key: value` pairs, as in a Service or a nodeSelector.
    pub fn from_map(map: &Labels) -> Self {
        let terms = map
            .iter()
            .map(|(k, v)| SelectorTerm {
                key: k.clone(),
                op: SelectorOperator::In,
                values: vec![v.clone()],
            })
            .collect();
        Self {
            terms,
            nothing: false,
        }
    }

    /// Also requires that a label has (`same`), or has not, this value.
    pub fn add_value(&mut self, key: &str, value: &str, same: bool) {
        self.terms.push(SelectorTerm {
            key: key.to_owned(),
            op: if same {
                SelectorOperator::In
            } else {
                SelectorOperator::NotIn
            },
            values: vec![value.to_owned()],
        });
    }

    /// Whether it has no terms (and selects everything).
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty() && !self.nothing
    }

    /// Whether an object with `labels` is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        !self.nothing
            && self
                .terms
                .iter()
                .all(|t| t.holds_for(labels.get(&t.key).map(String::as_str)))
    }

    /// Pairs that any selected object must have; they find candidates in an index.
    pub fn required_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.terms
            .iter()
            .filter(|t| t.op == SelectorOperator::In && t.values.len() == 1)
            .map(|t| (t.key.as_str(), t.values[0].as_str()))
    }
}

impl SelectorTerm {
    fn holds_for(&self, value: Option<&str>) -> bool {
        let above = |a: &str| {
            Some((
                a.parse::<i64>().ok()?,
                self.values.first()?.parse::<i64>().ok()?,
            ))
        };
        match self.op {
            SelectorOperator::In => value.is_some_and(|v| self.values.iter().any(|w| w == v)),
            SelectorOperator::NotIn => !value.is_some_and(|v| self.values.iter().any(|w| w == v)),
            SelectorOperator::Exists => value.is_some(),
            SelectorOperator::Absent => value.is_none(),
            SelectorOperator::Above => value.and_then(above).is_some_and(|(a, b)| a > b),
            SelectorOperator::Below => value.and_then(above).is_some_and(|(a, b)| a < b),
        }
    }
}

fn parse_expression(value: &Value) -> Option<SelectorTerm> {
    let op = match text_at(value, "operator") {
        "In" => SelectorOperator::In,
        "NotIn" => SelectorOperator::NotIn,
        "Exists" => SelectorOperator::Exists,
        "DoesNotExist" => SelectorOperator::Absent,
        "Gt" => SelectorOperator::Above,
        "Lt" => SelectorOperator::Below,
        _ => return None,
    };
    let values = list_at(value, "values")
        .iter()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect();
    Some(SelectorTerm {
        key: text_at(value, "key").to_owned(),
        op,
        values,
    })
}

fn split_outside_parens(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_term(part: &str) -> Option<SelectorTerm> {
    // A key with a character that no key has means that the text was not understood.
    let term = |key: &str, op, values: Vec<String>| {
        let key = key.trim();
        let sound = !key.is_empty() && !key.contains([' ', '(', ')', '=', '!']);
        sound.then(|| SelectorTerm {
            key: key.to_owned(),
            op,
            values,
        })
    };
    // Sets come first: their values may contain what looks like another operator.
    if let Some((head, tail)) = part.split_once('(') {
        let values = tail
            .strip_suffix(')')?
            .split(',')
            .map(|v| v.trim().to_owned())
            .collect();
        let mut words = head.split_whitespace();
        let (key, op) = (words.next()?, words.next()?);
        return match op {
            "in" => term(key, SelectorOperator::In, values),
            "notin" => term(key, SelectorOperator::NotIn, values),
            _ => None,
        };
    }
    // `!=` is looked for before `=`, of which it is a longer form.
    if let Some((key, value)) = part.split_once("!=") {
        return term(key, SelectorOperator::NotIn, vec![value.trim().to_owned()]);
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return term(key, SelectorOperator::In, vec![value.trim().to_owned()]);
    }
    match part.strip_prefix('!') {
        Some(key) => term(key, SelectorOperator::Absent, Vec::new()),
        None => term(part, SelectorOperator::Exists, Vec::new()),
    }
}

/// A `fieldSelector`: paths that must, or must not, have a value.
#[derive(Clone, Debug, Default)]
pub struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    /// Reads `spec.nodeName=x,status.phase!=Succeeded`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (path, equal, value) = if let Some((path, value)) = part.split_once("!=") {
                (path, false, value)
            } else if let Some((path, value)) =
                part.split_once("==").or_else(|| part.split_once('='))
            {
                (path, true, value)
            } else {
                return Err(format!(
                    "invalid field selector: {part:?}; can't understand {part:?}"
                ));
            };
            terms.push((path.to_owned(), equal, value.to_owned()));
        }
        Ok(Self(terms))
    }

    /// Whether `object` is selected.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, equal, value)| {
            let found = match value_at(object, path) {
                Some(Value::String(s)) => s == value,
                Some(Value::Bool(b)) => value.parse() == Ok(*b),
                Some(Value::Number(n)) => value.parse().is_ok_and(|v: serde_json::Number| v == *n),
                Some(Value::Null | Value::Array(_) | Value::Object(_)) => false,
                None => value.is_empty() || value == "false",
            };
            found == *equal
        })
    }

    /// The value the field must have, when it must have just one.
    pub fn required_value(&self, path: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(p, equal, _)| p == path && *equal)
            .map(|(_, _, value)| value.as_str())
    }

    /// The paths asked about.
    pub fn field_paths(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(path, _, _)| path.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn every_form_of_a_label_selector_is_understood() {
        let set = labels(&[("app", "web"), ("tier", "front"), ("n", "5")]);
        for (text, selected) in [
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("app in (web, api),tier notin (back)", true),
            ("app", true),
            ("!app", false),
            ("!colour", true),
            ("colour notin (blue)", true),
            ("", true),
        ] {
            assert_eq!(
                LabelSelector::parse(text).unwrap().matches(&set),
                selected,
                "{text}"
            );
        }
        assert!(LabelSelector::parse("a b c").is_err());
    }

    #[test]
    fn a_null_selector_selects_nothing_and_an_empty_one_everything() {
        assert!(!LabelSelector::from_spec(None).matches(&labels(&[])));
        assert!(LabelSelector::from_spec(Some(&json!({}))).matches(&labels(&[])));
    }

    #[test]
    fn fields_are_compared_as_text() {
        let pod = json!({"spec": {"nodeName": "a"}, "status": {"phase": "Running"}});
        for (text, selected) in [
            ("spec.nodeName=a", true),
            (
                "spec.nodeName=a,status.phase!=Succeeded,status.phase!=Failed",
                true,
            ),
            ("spec.nodeName=", false),
            ("spec.unschedulable=false", true),
        ] {
            assert_eq!(
                FieldSelector::parse(text).unwrap().matches(&pod),
                selected,
                "{text}"
            );
        }
        assert!(FieldSelector::parse("spec.nodeName").is_err());
    }
}
