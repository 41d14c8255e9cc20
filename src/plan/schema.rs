//! The JSON Schema of the plan file, for editors and pipelines, made from the tables of [`super::keys`].

use serde_json::{Map, Value, json};

use super::keys::{
    Choice, KeyDefault, KeyMap, MapRule, PlanKey, TextCheck, TextRule, UPGRADE_PLAN, ValueKind,
};

/// Returns the schema.
pub fn json_schema() -> Value {
    let mut writer = SchemaWriter::default();
    let mut schema = writer.describe_map(&UPGRADE_PLAN);
    let more = [
        ("$schema", "https://json-schema.org/draft/2020-12/schema"),
        ("$id", "https://eksup.dev/schema/v1/upgrade-plan.json"),
        ("title", UPGRADE_PLAN.schema),
    ];
    for (key, text) in more {
        schema[key] = text.into();
    }
    schema["$defs"] = Value::Object(writer.definitions);
    schema
}

#[derive(Default)]
struct SchemaWriter {
    definitions: Map<String, Value>,
    /// Whether the keys are those of a part of a map, whose defaults are the plan's own.
    in_part: bool,
}

impl SchemaWriter {
    /// A reference to a definition, which is made where it is not there yet.
    fn refer_to(&mut self, name: &str, define: impl FnOnce(&mut Self) -> Value) -> Value {
        if !self.definitions.contains_key(name) {
            let definition = define(self);
            self.definitions.insert(name.to_owned(), definition);
        }
        json!({"$ref": format!("#/$defs/{name}")})
    }

    fn describe_map(&mut self, map: &'static KeyMap) -> Value {
        let mut schema = match map.rule {
            MapRule::Any | MapRule::Checked(_) => self.describe_object(map.keys, false),
            MapRule::OneKey => {
                let each = map.keys.iter().map(std::slice::from_ref);
                let each: Vec<Value> = each.map(|key| self.describe_object(key, true)).collect();
                json!({"oneOf": each})
            }
        };
        if !map.meaning.is_empty() {
            schema["description"] = map.meaning.into();
        }
        schema
    }

    /// An object with these keys and no others; all of them, or those that have no default, are required.
    fn describe_object(&mut self, keys: &'static [PlanKey], all_required: bool) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for key in keys {
            let must = all_required || matches!(key.default, KeyDefault::Required);
            if must {
                required.push(key.name);
            }
            properties.insert(key.name.to_owned(), self.describe_key(key, must));
        }
        let mut schema =
            json!({"type": "object", "additionalProperties": false, "properties": properties});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }

    fn describe_key(&mut self, key: &'static PlanKey, required: bool) -> Value {
        let mut schema = self.describe_kind(&key.kind);
        if !required {
            schema = or_null(schema);
        }
        let default = match key.default {
            _ if self.in_part => " Default: the plan's own.".to_owned(),
            KeyDefault::Written(text) => format!(" Default: {text}."),
            KeyDefault::Absent(text) if !required => format!(" Default: {text}."),
            KeyDefault::Absent(_) | KeyDefault::Required | KeyDefault::OfItsKeys => String::new(),
        };
        let more = if key.more.is_empty() { "" } else { " " };
        schema["description"] = format!("{}{more}{}{default}", key.meaning, key.more).into();
        schema
    }

    fn describe_kind(&mut self, kind: &'static ValueKind) -> Value {
        match kind {
            // A number too: without quotes YAML reads `1.30` as one.
            ValueKind::Version => self.refer_to("TargetSchema", |_| {
                json!({
                    "description": "A minor version. Quotes are not needed: eksup reads `1.30` as it is written.",
                    "anyOf": [
                        {"type": "string", "pattern": r"^1\.[0-9]{2}$"},
                        {"type": "number"},
                    ],
                })
            }),
            ValueKind::Text(rule) => self.describe_text(rule),
            // Kinds that occur at many keys are written once and referred to.
            ValueKind::Duration { .. } => self.refer_to("DurationSchema", |_| {
                json!({
                    "description": "A number with a unit, such as `30s`, `5m`, `1h30m`, `2d`.",
                    "type": "string",
                    "pattern": "^(0|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?)$",
                })
            }),
            // Bounds are in the schema, so that an editor shows them before eksup does.
            ValueKind::Integer { least, most } => {
                json!({"type": "integer", "minimum": least, "maximum": most})
            }
            ValueKind::Percent => self.refer_to("PercentSchema", |_| {
                json!({"type": "integer", "minimum": 1, "maximum": 100})
            }),
            ValueKind::Boolean => json!({"type": "boolean"}),
            ValueKind::Choice(choice) => self.describe_choice(choice),
            ValueKind::Map(map) => self.refer_to(map.schema, |w| w.describe_map(map)),
            ValueKind::PartOf { schema, map } => self.refer_to(schema, |w| {
                w.in_part = true;
                let part = w.describe_object(map.keys, false);
                w.in_part = false;
                part
            }),
            // Both forms are offered, so that an editor completes either.
            ValueKind::ChoiceOrMap {
                schema,
                choice,
                map,
            } => self.refer_to(schema, |w| {
                let word = w.describe_choice(choice);
                let map = w.refer_to(map.schema, |w| w.describe_map(map));
                json!({"anyOf": [word, map]})
            }),
            ValueKind::NamedValues { values, .. } => {
                json!({"type": "object", "additionalProperties": self.describe_kind(values)})
            }
            ValueKind::List { items, .. } => {
                json!({"type": "array", "items": self.describe_kind(items)})
            }
        }
    }

    fn describe_text(&mut self, rule: &'static TextRule) -> Value {
        let mut schema = json!({"type": "string"});
        if let Some(pattern) = rule.pattern {
            schema["pattern"] = pattern.into();
        }
        if !rule.known.is_empty() {
            schema["examples"] = json!(rule.known);
        }
        if let TextCheck::Always(text) = rule.check {
            schema["const"] = text.into();
        }
        match rule.schema {
            Some(name) => self.refer_to(name, |_| schema),
            None => schema,
        }
    }

    fn describe_choice(&mut self, choice: &'static Choice) -> Value {
        self.refer_to(choice.schema, |_| {
            if choice.words.iter().all(|w| w.meaning.is_empty()) {
                let words: Vec<&str> = choice.words.iter().map(|w| w.spelling).collect();
                return json!({"type": "string", "enum": words});
            }
            let each = choice.words.iter().map(|word| {
                let value = word.value();
                let kind = if value.is_boolean() {
                    "boolean"
                } else {
                    "string"
                };
                json!({"type": kind, "const": value, "description": as_sentence(word.meaning)})
            });
            json!({"oneOf": each.collect::<Vec<_>>()})
        })
    }
}

/// The same, or null: a key that is left empty has its default where it holds a list or a map.
fn or_null(mut schema: Value) -> Value {
    match schema.get("type").cloned() {
        Some(kind) => {
            schema["type"] = json!([kind, "null"]);
            schema
        }
        None => json!({"anyOf": [schema, {"type": "null"}]}),
    }
}

/// A meaning as a sentence of its own.
fn as_sentence(meaning: &str) -> String {
    let (first, rest) = meaning.split_at(meaning.len().min(1));
    format!("{}{rest}.", first.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_plans_fit_the_schema_and_a_wrong_one_does_not() {
        let validator = jsonschema::validator_for(&json_schema()).unwrap();
        let mut seen = 0;
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/plans")).unwrap() {
            let path = entry.unwrap().path();
            let value: Value =
                serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let errors: Vec<String> = validator
                .iter_errors(&value)
                .map(|e| format!("{}: {e}", e.instance_path()))
                .collect();
            assert_eq!(errors, Vec::<String>::new(), "{}", path.display());
            seen += 1;
        }
        assert!(seen >= 7);
        let wrong = serde_json::json!({"cluster": "c", "to": "1.30", "drian": {}});
        assert!(!validator.is_valid(&wrong));
    }
}
