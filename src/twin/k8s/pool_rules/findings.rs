//! What is wrong with a custom object, and how the API server says so.

use serde_json::{Value, json};

use super::super::json::value_at;
use super::super::kinds::ResourceKind;
use super::super::status::ApiFailure;
use crate::model::Minor;

/// The first minor whose messages about a rule name no type in front of the rule's words.
const PLAIN_RULES_SINCE: Minor = Minor::new(34);

/// What is wrong with an object.
#[derive(Default)]
pub struct Findings {
    /// Path, and why.
    pub schema: Vec<(String, String)>,
    /// The same of rules, which are not looked at where the types are wrong.
    pub rules: Vec<(String, &'static str, String)>,
    /// A member is missing or has a wrong type or value, so that rules are not looked at.
    pub unsound: bool,
}

impl Findings {
    /// Notes a member that is missing; whether it is there.
    pub fn required(&mut self, object: &Value, path: &str) -> bool {
        let there = value_at(object, path).is_some();
        if !there {
            self.schema
                .push((path.to_owned(), "Required value".to_owned()));
            self.unsound = true;
        }
        there
    }

    /// Notes a text that does not have the form of a pattern.
    pub fn pattern(
        &mut self,
        value: Option<&Value>,
        path: &str,
        pattern: &str,
        holds: fn(&str) -> bool,
    ) {
        let Some(value) = value.filter(|v| !v.is_null()) else {
            return;
        };
        match value.as_str() {
            Some(text) if holds(text) => {}
            Some(text) => {
                let why =
                    format!("Invalid value: {text:?}: {path} in body should match '{pattern}'");
                self.schema.push((path.to_owned(), why));
            }
            None => {
                let found = if value.is_number() {
                    "integer"
                } else {
                    "object"
                };
                let why = format!(
                    "Invalid value: \"{found}\": {path} in body must be of type string: \"{found}\""
                );
                self.schema.push((path.to_owned(), why));
                self.unsound = true;
            }
        }
    }

    /// Notes a text that is none of those that are known.
    pub fn one_of(&mut self, value: Option<&Value>, path: &str, known: &[&str]) {
        let Some(text) = value.and_then(Value::as_str) else {
            return;
        };
        if !known.contains(&text) {
            let told: Vec<String> = known.iter().map(|k| format!("{k:?}")).collect();
            let why = format!(
                "Unsupported value: {text:?}: supported values: {}",
                told.join(", ")
            );
            self.schema.push((path.to_owned(), why));
            self.unsound = true;
        }
    }

    /// Notes that a rule of the definition does not hold, with the type of what it is about.
    pub fn rule(&mut self, path: &str, kind: &'static str, why: impl Into<String>) {
        self.rules.push((path.to_owned(), kind, why.into()));
    }

    /// The API server's refusal, where anything is wrong.
    pub fn into_failure(
        self,
        version: Minor,
        kind: &ResourceKind,
        name: &str,
    ) -> Option<ApiFailure> {
        let plain = version >= PLAIN_RULES_SINCE;
        let mut found = self.schema;
        if self.unsound {
            let null = if plain { "null" } else { "\"null\"" };
            let why = format!(
                "Invalid value: {null}: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"
            );
            found.push(("<nil>".to_owned(), why));
        } else {
            found.extend(self.rules.into_iter().map(|(path, kind, why)| {
                let why = match (plain, kind) {
                    (true, _) | (_, "") => format!("Invalid value: {why}"),
                    (false, kind) => format!("Invalid value: \"{kind}\": {why}"),
                };
                (path, why)
            }));
        }
        refuse(kind, name, &found)
    }
}

/// The API server's refusal of all that was found.
fn refuse(kind: &ResourceKind, name: &str, found: &[(String, String)]) -> Option<ApiFailure> {
    let (first_field, first_why) = found.first()?;
    let mut failure = ApiFailure::invalid_field(kind, name, first_field, first_why);
    let told: Vec<String> = found.iter().map(|(f, why)| format!("{f}: {why}")).collect();
    if let [_, _, ..] = told.as_slice() {
        let named = format!("{}.{}", kind.kind, kind.group);
        failure.message = format!("{named} {name:?} is invalid: [{}]", told.join(", "));
    }
    let causes: Vec<Value> = found
        .iter()
        .map(|(field, why)| {
            let reason = match why.split_whitespace().next() {
                Some("Required") => "FieldValueRequired",
                Some("Unsupported") => "FieldValueNotSupported",
                Some("Duplicate") => "FieldValueDuplicate",
                Some("Too") => "FieldValueTooMany",
                _ => "FieldValueInvalid",
            };
            json!({"reason": reason, "message": why, "field": field})
        })
        .collect();
    if let Some(details) = &mut failure.details {
        details["causes"] = json!(causes);
    }
    Some(failure)
}
