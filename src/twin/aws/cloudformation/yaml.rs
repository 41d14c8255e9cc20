//! Templates in YAML: every short form of a function becomes the long one (CFN-21).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, json};
use serde_saphyr::options::AliasLimits;
use serde_saphyr::{MergeKeyPolicy, Options, Tagged};

use super::format::format_error;
use crate::twin::aws::error::AwsError;

/// Functions whose long form is `Fn::` and the name of their short form.
const FUNCTIONS: &[&str] = &[
    "And",
    "Base64",
    "Cidr",
    "Equals",
    "FindInMap",
    "GetAZs",
    "GetAtt",
    "If",
    "ImportValue",
    "Join",
    "Length",
    "Not",
    "Or",
    "Select",
    "Split",
    "Sub",
    "ToJsonString",
    "Transform",
];

/// Tags of YAML itself, such as `!!str`, which say no function.
const CORE_TAG_PREFIX: &str = "tag:yaml.org,2002:";

/// Reads a template; what is no map, and an alias, are refused.
pub fn read_yaml(text: &str) -> Result<Value, AwsError> {
    let mut no_aliases = AliasLimits::default();
    no_aliases.max_alias_expansions_per_anchor = 0;
    let options: Options = serde_saphyr::options! {
        alias_limits: no_aliases,
        merge_keys: MergeKeyPolicy::AsOrdinary,
    };
    let read: Result<Node, _> = serde_saphyr::from_str_with_options(text, options);
    let error = match read {
        Ok(Node(template)) if template.is_object() => return Ok(template),
        Ok(_) => return Err(format_error("unsupported structure.")),
        Err(error) => error,
    };
    let is_alias = matches!(
        error.without_snippet(),
        serde_saphyr::Error::AliasExpansionLimitExceeded { .. }
    );
    if is_alias {
        return Err(AwsError::validation_error(
            "Template error: YAML aliases are not allowed in CloudFormation templates",
        ));
    }
    let place = error.location().map(|at| {
        let (line, column) = (at.line(), at.column());
        format!(" (line {line}, column {column})")
    });
    Err(format_error(format_args!(
        "YAML not well-formed.{}",
        place.unwrap_or_default()
    )))
}

/// The long form of a function; none for a tag that CloudFormation does not know.
fn expand_short_form(tag: &str, argument: Value) -> Option<Value> {
    if tag == "!" || tag.starts_with(CORE_TAG_PREFIX) {
        return Some(argument);
    }
    let name = tag.strip_prefix('!')?;
    if matches!(name, "Ref" | "Condition") {
        return Some(json!({name: argument}));
    }
    let function = FUNCTIONS.contains(&name).then(|| format!("Fn::{name}"))?;
    let argument = match (name, argument) {
        // Everything after the first dot is the attribute, dots included.
        ("GetAtt", Value::String(path)) => {
            let (resource, attribute) = path.split_once('.')?;
            json!([resource, attribute])
        }
        (_, argument) => argument,
    };
    Some(json!({function: argument}))
}

/// A node of a template, its tag written out.
struct Node(Value);

/// A node without its own tag; those of what it holds are written out.
struct UntaggedNode(Value);

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Tagged(UntaggedNode(value), tag) = Tagged::deserialize(deserializer)?;
        let Some(tag) = tag else {
            return Ok(Self(value));
        };
        let expanded = expand_short_form(&tag, value);
        expanded
            .map(Self)
            .ok_or_else(|| D::Error::custom(format_args!("{tag} is no function")))
    }
}

impl<'de> Deserialize<'de> for UntaggedNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor).map(Self)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a node of a template")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Node(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((key, Node(value))) = members.next_entry::<String, Node>()? {
            all.insert(key, value);
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Value {
        let template = read_yaml(&format!("Value: {value}\n"));
        template.unwrap()["Value"].clone()
    }

    #[test]
    fn every_short_form_of_a_function_is_written_out() {
        for (short, long) in [
            ("!Ref A", json!({"Ref": "A"})),
            ("!Ref 'A'", json!({"Ref": "A"})),
            ("!Ref AWS::Region", json!({"Ref": "AWS::Region"})),
            ("!Condition A", json!({"Condition": "A"})),
            ("!GetAtt A.Arn", json!({"Fn::GetAtt": ["A", "Arn"]})),
            ("!GetAtt A.B.C", json!({"Fn::GetAtt": ["A", "B.C"]})),
            ("!GetAtt [A, Arn]", json!({"Fn::GetAtt": ["A", "Arn"]})),
            ("!Sub ${A}-b", json!({"Fn::Sub": "${A}-b"})),
            (
                "!Sub [\"${A}\", {A: !Ref B}]",
                json!({"Fn::Sub": ["${A}", {"A": {"Ref": "B"}}]}),
            ),
            ("!ImportValue a", json!({"Fn::ImportValue": "a"})),
            ("!Base64 text", json!({"Fn::Base64": "text"})),
            ("!GetAZs ''", json!({"Fn::GetAZs": ""})),
            (
                "!Equals [!Ref A, \"\"]",
                json!({"Fn::Equals": [{"Ref": "A"}, ""]}),
            ),
            (
                "!Not [!Condition A]",
                json!({"Fn::Not": [{"Condition": "A"}]}),
            ),
            (
                "!And [!Condition A, !Or [!Condition B, !Condition C]]",
                json!({"Fn::And": [{"Condition": "A"}, {"Fn::Or": [{"Condition": "B"}, {"Condition": "C"}]}]}),
            ),
            (
                "!If [A, !Ref B, !GetAtt C.D]",
                json!({"Fn::If": ["A", {"Ref": "B"}, {"Fn::GetAtt": ["C", "D"]}]}),
            ),
            (
                "!Join ['', [a, !Ref B]]",
                json!({"Fn::Join": ["", ["a", {"Ref": "B"}]]}),
            ),
            (
                "!Select [0, !Split [',', !ImportValue a]]",
                json!({"Fn::Select": [0, {"Fn::Split": [",", {"Fn::ImportValue": "a"}]}]}),
            ),
            (
                "!FindInMap [M, !Ref K, v]",
                json!({"Fn::FindInMap": ["M", {"Ref": "K"}, "v"]}),
            ),
            (
                "!Cidr [!Ref B, 6, 8]",
                json!({"Fn::Cidr": [{"Ref": "B"}, 6, 8]}),
            ),
            (
                "{'Fn::Base64': !Sub \"${A}\"}",
                json!({"Fn::Base64": {"Fn::Sub": "${A}"}}),
            ),
            ("!!str 5", json!("5")),
        ] {
            assert_eq!(read(short), long, "{short}");
        }
    }

    #[test]
    fn a_function_may_stand_over_a_block_of_lines() {
        let text = "UserData:\n  Fn::Base64:\n    !Sub |\n      #!/bin/bash\n      run ${Name} # not a comment\nImage: !If\n  - Given\n  - Ref: Own\n  - !Ref Published\n";
        let template = read_yaml(text).unwrap();
        assert_eq!(
            template["UserData"]["Fn::Base64"]["Fn::Sub"],
            "#!/bin/bash\nrun ${Name} # not a comment\n"
        );
        let image = json!({"Fn::If": ["Given", {"Ref": "Own"}, {"Ref": "Published"}]});
        assert_eq!(template["Image"], image);
    }

    #[test]
    fn scalars_are_what_they_look_like_and_dates_are_text() {
        let text = "Version: 2012-10-17\nProtocol: -1\nPort: 443\nPropagate: true\nQuoted: '443'\nText: nodes! all of them\nNone:\n";
        let expected = json!({"Version": "2012-10-17", "Protocol": -1, "Port": 443, "Propagate": true, "Quoted": "443", "Text": "nodes! all of them", "None": null});
        assert_eq!(read_yaml(text).unwrap(), expected);
    }

    #[test]
    fn aliases_unknown_tags_and_what_is_no_map_are_refused() {
        for (text, words) in [
            (
                "A: &a {B: c}\nD: *a\n",
                "Template error: YAML aliases are not allowed in CloudFormation templates",
            ),
            (
                "A: !Nothing b\n",
                "Template format error: YAML not well-formed.",
            ),
            (
                "A: !ImportValue !Sub b\n",
                "Template format error: YAML not well-formed.",
            ),
            ("A: [b\n", "Template format error: YAML not well-formed."),
            (
                "A: b\nA: c\n",
                "Template format error: YAML not well-formed. (line 2",
            ),
            (
                "just text\n",
                "Template format error: unsupported structure.",
            ),
        ] {
            let error = read_yaml(text).unwrap_err();
            assert_eq!(error.code, "ValidationError");
            assert!(
                error.message.starts_with(words),
                "{text}: {}",
                error.message
            );
        }
    }
}
