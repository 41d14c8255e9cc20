//! CloudFormation templates in YAML: their short forms of functions are written out, so that what is read is the same as of a
//! template in JSON.

use granit_parser::{Event, Parser, ScalarStyle, Tag, options};
use serde_json::{Map, Value};

/// How deep values may lie in each other.
const MAX_DEPTH: usize = 100;

/// Reads a template in YAML as the same template in JSON.
///
/// # Errors
/// What is wrong in it, as text.
pub fn read_yaml(text: &str) -> Result<Value, String> {
    let options = options! { emit_comments: false };
    let mut reader = YamlReader {
        parser: Parser::new_from_str_with_options(text, options),
        depth: 0,
    };
    loop {
        match reader.next_event()? {
            Event::StreamStart | Event::DocumentStart(..) => {}
            Event::StreamEnd | Event::DocumentEnd => return Err("it is empty".to_owned()),
            first => return reader.read_value(first),
        }
    }
}

struct YamlReader<'t> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    depth: usize,
}

impl<'t> YamlReader<'t> {
    fn next_event(&mut self) -> Result<Event<'t>, String> {
        let next = self.parser.next();
        let next = next.ok_or_else(|| "it ends too early".to_owned())?;
        next.map(|(event, _)| event).map_err(|e| e.to_string())
    }

    /// The value that begins with this event.
    fn read_value(&mut self, first: Event<'t>) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("its values lie more than {MAX_DEPTH} deep"));
        }
        let value = match first {
            Event::Scalar(text, style, _, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = match plain {
                    true => plain_value(&text),
                    false => Value::String(text.into_owned()),
                };
                apply_tag(value, tag.as_deref())
            }
            Event::SequenceStart(_, _, tag) => {
                let items = self.read_items()?;
                apply_tag(Value::Array(items), tag.as_deref())
            }
            Event::MappingStart(_, _, tag) => {
                let members = self.read_members()?;
                apply_tag(Value::Object(members), tag.as_deref())
            }
            Event::Alias(_) => {
                Err("it has an alias, which CloudFormation does not take".to_owned())
            }
            _ => Err("a value is missing".to_owned()),
        };
        self.depth -= 1;
        value
    }

    fn read_items(&mut self) -> Result<Vec<Value>, String> {
        let mut items = Vec::new();
        loop {
            match self.next_event()? {
                Event::SequenceEnd => return Ok(items),
                item => items.push(self.read_value(item)?),
            }
        }
    }

    fn read_members(&mut self) -> Result<Map<String, Value>, String> {
        let mut members = Map::new();
        loop {
            let key = match self.next_event()? {
                Event::MappingEnd => return Ok(members),
                Event::Scalar(key, _, _, None) => key.into_owned(),
                _ => return Err("one of its keys is no text".to_owned()),
            };
            let value = self.next_event()?;
            let value = self.read_value(value)?;
            if members.insert(key.clone(), value).is_some() {
                return Err(format!("it has {key} twice in one place"));
            }
        }
    }
}

/// What a plain scalar means. A number that JSON would spell otherwise, such as 1.30 or 007, stays text: CloudFormation makes
/// a number of it where a property wants one.
fn plain_value(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => number.into(),
            Ok(_) | Err(_) => text.into(),
        },
    }
}

/// The value with the function that a tag is short for.
fn apply_tag(value: Value, tag: Option<&Tag>) -> Result<Value, String> {
    let Some(tag) = tag else {
        return Ok(value);
    };
    if tag.core_suffix() == Some("str") || tag.suffix().is_empty() {
        return Ok(value);
    }
    if tag.handle() != "!" {
        return Err(format!("it has the tag {tag}, which is no function"));
    }
    let (function, value) = match (tag.suffix(), value) {
        (name @ ("Ref" | "Condition"), value) => (name.to_owned(), value),
        // A.B.C names attribute B.C of resource A.
        ("GetAtt", Value::String(path)) => {
            let (resource, attribute) = path.split_once('.').unwrap_or((&path, ""));
            ("Fn::GetAtt".to_owned(), [resource, attribute].into())
        }
        (name, value) => (format!("Fn::{name}"), value),
    };
    Ok(Value::Object(Map::from_iter([(function, value)])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn short_forms_are_written_out_wherever_they_stand() {
        let yaml = r#"
Conditions:
  HasImage: !Not [!Equals [!Ref Image, ""]]
Resources:
  Group: # of nodes
    Type: AWS::AutoScaling::AutoScalingGroup
    Condition: HasImage
    Properties:
      Version: !GetAtt Template.LatestVersionNumber
      Nested: !GetAtt Stack.Outputs.Name
      Listed: !GetAtt [Template, Arn]
      Image: !If
        - HasImage
        - !Ref Image
        - Ref: Parameter
      Zones: !Split [",", !ImportValue "zones"]
      UserData:
        Fn::Base64: !Sub |
          #!/bin/bash
          /etc/eks/bootstrap.sh ${Cluster} !Ref
      Either: !And [!Condition A, Condition: B]
"#;
        let read = read_yaml(yaml).unwrap();
        assert_eq!(
            read["Conditions"]["HasImage"],
            json!({"Fn::Not": [{"Fn::Equals": [{"Ref": "Image"}, ""]}]})
        );
        let group = &read["Resources"]["Group"];
        assert_eq!(group["Condition"], "HasImage");
        assert_eq!(
            group["Properties"],
            json!({
                "Version": {"Fn::GetAtt": ["Template", "LatestVersionNumber"]},
                "Nested": {"Fn::GetAtt": ["Stack", "Outputs.Name"]},
                "Listed": {"Fn::GetAtt": ["Template", "Arn"]},
                "Image": {"Fn::If": ["HasImage", {"Ref": "Image"}, {"Ref": "Parameter"}]},
                "Zones": {"Fn::Split": [",", {"Fn::ImportValue": "zones"}]},
                "UserData": {"Fn::Base64": {"Fn::Sub": "#!/bin/bash\n/etc/eks/bootstrap.sh ${Cluster} !Ref\n"}},
                "Either": {"Fn::And": [{"Condition": "A"}, {"Condition": "B"}]},
            })
        );
    }

    #[test]
    fn a_scalar_keeps_its_spelling_where_json_would_spell_it_otherwise() {
        let yaml = "[2012-10-17, 1.30, 007, -1, 443, true, '443', !!str 1, yes, 0x1F, null, 99999999999999999999]";
        assert_eq!(
            read_yaml(yaml).unwrap(),
            json!([
                "2012-10-17",
                "1.30",
                "007",
                -1,
                443,
                true,
                "443",
                "1",
                "yes",
                "0x1F",
                null,
                "99999999999999999999"
            ])
        );
    }

    #[test]
    fn what_cloudformation_would_not_have_taken_is_told() {
        let deep = "- ".repeat(MAX_DEPTH + 1);
        for (yaml, why) in [
            ("", "empty"),
            ("a: [1", ""),
            ("a: &x 1\nb: *x", "alias"),
            ("a: 1\na: 2", "a twice"),
            ("? [1]\n: 2", "no text"),
            ("a: !!binary aGk=", "no function"),
            (deep.as_str(), "deep"),
        ] {
            let problem = read_yaml(yaml).unwrap_err();
            assert!(problem.contains(why), "{yaml}: {problem}");
        }
    }
}
