//! What of a template refers to what.

use std::collections::BTreeSet;

use serde_json::Value;

/// The names that a resource refers to, in its properties or by DependsOn.
pub fn dependencies_of(resource: &Value) -> BTreeSet<String> {
    let mut named = references_in(resource.get("Properties").unwrap_or(&Value::Null));
    match resource.get("DependsOn") {
        Some(Value::String(one)) => drop(named.insert(one.clone())),
        Some(Value::Array(all)) => {
            named.extend(all.iter().filter_map(|v| v.as_str().map(str::to_owned)));
        }
        Some(_) | None => {}
    }
    named
}

/// The parameters and resources that `Ref`, `Fn::GetAtt` and `Fn::Sub` name; pseudo parameters are left out.
pub fn references_in(value: &Value) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    visit_names(value, &mut |path| {
        let name = path.split('.').next().unwrap_or(path);
        named.insert(name.to_owned());
    });
    named
}

/// The attributes of resources that a value has, as `RESOURCE.ATTRIBUTE`.
pub fn attributes_in(value: &Value) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    visit_names(value, &mut |path| {
        if path.contains('.') {
            named.insert(path.to_owned());
        }
    });
    named
}

/// Tells each name of `Ref` and `Fn::Sub`, and each `RESOURCE.ATTRIBUTE`.
fn visit_names(value: &Value, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::Array(items) => items.iter().for_each(|v| visit_names(v, visit)),
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("Ref", Value::String(name)) if !name.starts_with("AWS::") => visit(name),
                    ("Ref", Value::String(_)) => {}
                    ("Fn::GetAtt", Value::String(path)) => visit(path),
                    ("Fn::GetAtt", Value::Array(path)) => {
                        let parts: Vec<&str> = path.iter().filter_map(Value::as_str).collect();
                        visit(&parts.join("."));
                    }
                    ("Fn::Sub", Value::String(text)) => names_in_text(text).for_each(&mut *visit),
                    ("Fn::Sub", Value::Array(parts)) => {
                        let own = parts.get(1).and_then(Value::as_object);
                        let text = parts.first().and_then(Value::as_str).unwrap_or_default();
                        let given = |name: &&str| own.is_some_and(|o| o.contains_key(*name));
                        names_in_text(text)
                            .filter(|n| !given(n))
                            .for_each(&mut *visit);
                        parts.iter().skip(1).for_each(|v| visit_names(v, visit));
                    }
                    (_, value) => visit_names(value, visit),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The names in `${...}` of a text.
fn names_in_text(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split("${").skip(1);
    let inner = parts.filter_map(|part| part.split_once('}').map(|(name, _)| name));
    inner.filter(|name| !name.starts_with('!') && !name.starts_with("AWS::"))
}

/// Names of exports that a template imports, as far as they are written out.
pub fn imports_of(template: &Value) -> BTreeSet<String> {
    fn collect(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Array(items) => items.iter().for_each(|v| collect(v, into)),
            Value::Object(map) => {
                for (key, value) in map {
                    match (key.as_str(), value) {
                        ("Fn::ImportValue", Value::String(name)) => drop(into.insert(name.clone())),
                        (_, value) => collect(value, into),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = BTreeSet::new();
    collect(template, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_resource_refers_to_is_found_in_every_form() {
        let resource = json!({
            "DependsOn": ["A"],
            "Properties": {
                "One": {"Ref": "B"},
                "Two": [{"Fn::GetAtt": ["C", "Arn"]}, {"Fn::GetAtt": "D.Arn"}],
                "Three": {"Fn::Sub": "${E}-${F.Arn}-${AWS::StackName}-${!G}"},
                "Four": {"Fn::Sub": ["${H}${I}", {"I": {"Ref": "J"}}]},
                "Five": {"Ref": "AWS::Region"},
            },
        });
        let found: Vec<String> = dependencies_of(&resource).into_iter().collect();
        assert_eq!(found, ["A", "B", "C", "D", "E", "F", "H", "J"]);
        let attributes: Vec<String> = attributes_in(&resource["Properties"]).into_iter().collect();
        assert_eq!(attributes, ["C.Arn", "D.Arn", "F.Arn"]);
    }
}
