//! PATCH: which kind of patch it is, and server-side apply.

use serde_json::{Map, Value, json};

use super::super::cluster::Cluster;
use super::super::json::{at, list, list_mut, set, text, unset};
use super::super::status::Failure;
use super::merge::{json_patch, key_of, merge, strategic};
use super::{Target, body, content_type, write};
use crate::twin::answer::Answer;
use crate::wire::Request;

/// Patches an object.
pub fn patch(cluster: &mut Cluster, target: &Target, request: &Request) -> Result<Answer, Failure> {
    let kind = content_type(request)
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    let patch = body(request)?;
    if kind == "application/apply-patch+yaml" {
        return apply(cluster, target, patch);
    }
    let old = cluster
        .store
        .get(&target.key())
        .cloned()
        .ok_or_else(|| target.missing())?;
    let mut new = Value::clone(&old);
    unset(&mut new, "metadata.resourceVersion");
    match kind.as_str() {
        "application/merge-patch+json" => merge(&mut new, &patch),
        "application/strategic-merge-patch+json" if target.kind.builtin => {
            strategic(&mut new, &patch)
        }
        "application/json-patch+json" => {
            let operations = patch
                .as_array()
                .ok_or_else(|| Failure::bad_request("json patch is no list"))?;
            // A test on the version is answered by what is stored.
            set(
                &mut new,
                "metadata.resourceVersion",
                text(&old, "metadata.resourceVersion"),
            );
            json_patch(&mut new, operations).map_err(|why| {
                let details = json!({"causes": [{"message": why}]});
                let message = "the server rejected our request due to an error in our request";
                Failure {
                    details: Some(details),
                    ..Failure::new(422, "Invalid", message)
                }
            })?;
        }
        _ => {
            let message = "the body of the request was in an unknown format - accepted media types include: \
                           application/json-patch+json, application/merge-patch+json, \
                           application/strategic-merge-patch+json, application/apply-patch+yaml";
            return Err(Failure::new(415, "UnsupportedMediaType", message));
        }
    }
    write::tidy(&mut new);
    let done = write::update(cluster, target, &old, new)?;
    Ok(target.answer(200, &done))
}

/// Server-side apply: what the manager names is set, what it named before and names no more is taken away.
fn apply(cluster: &mut Cluster, target: &Target, mut applied: Value) -> Result<Answer, Failure> {
    let manager = target.query.get("fieldManager").to_owned();
    if manager.is_empty() {
        let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        return Err(Failure::new(422, "Invalid", message));
    }
    if at(&applied, "metadata.managedFields").is_some() {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    if text(&applied, "kind").is_empty() || text(&applied, "apiVersion").is_empty() {
        return Err(Failure::bad_request(
            "invalid object type: apiVersion and kind are required",
        ));
    }
    let asked = text(&applied, "metadata.resourceVersion").to_owned();
    unset(&mut applied, "metadata.resourceVersion");
    let mut content = applied.clone();
    for key in [
        "apiVersion",
        "kind",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
    ] {
        unset(&mut content, key);
    }
    if at(&content, "metadata").is_some_and(|m| m == &json!({})) {
        unset(&mut content, "metadata");
    }
    let fields = fields_of(&content);
    let entry = json!({
        "manager": manager, "operation": "Apply", "apiVersion": target.kind.api_version(),
        "time": cluster.stamp(), "fieldsType": "FieldsV1", "fieldsV1": fields,
    });
    let Some(old) = cluster.store.get(&target.key()).cloned() else {
        set(&mut applied, "metadata.name", target.name.clone());
        if target.kind.namespaced {
            set(&mut applied, "metadata.namespace", target.ns.clone());
        }
        set(&mut applied, "metadata.managedFields", json!([entry]));
        let made = cluster.create(target.res, applied, target.dry())?;
        return Ok(target.answer(201, &made));
    };
    let others = |e: &&Value| text(e, "manager") != manager || text(e, "operation") != "Apply";
    let entries = list(&old, "metadata.managedFields");
    if !target.query.yes("force") {
        conflicts(
            target,
            &old,
            &applied,
            &fields,
            entries.iter().filter(others),
        )?;
    }
    let mut new = Value::clone(&old);
    unset(&mut new, "metadata.resourceVersion");
    let before = entries
        .iter()
        .find(|e| !others(e))
        .and_then(|e| e.get("fieldsV1"));
    if let Some(before) = before {
        let kept: Vec<&Value> = entries
            .iter()
            .filter(others)
            .filter_map(|e| e.get("fieldsV1"))
            .collect();
        abandon(&mut new, before, &fields, &kept);
    }
    unset(&mut content, "metadata.resourceVersion");
    overlay("", &mut new, &content);
    let managed = list_mut(&mut new, "metadata.managedFields");
    managed.retain(|e| others(&e));
    managed.push(entry);
    if !asked.is_empty() {
        set(&mut new, "metadata.resourceVersion", asked);
    }
    let done = write::update(cluster, target, &old, new)?;
    Ok(target.answer(200, &done))
}

/// The lists that apply merges by key; the others belong to one manager as a whole. Unlike in a strategic merge, a
/// node's taints are one such.
fn apply_key(field: &str, items: &[Value]) -> Option<&'static str> {
    if field == "taints" {
        None
    } else {
        key_of(field, items)
    }
}

/// The set of fields a manager names, as `FieldsV1`.
fn fields_of(value: &Value) -> Value {
    let Value::Object(map) = value else {
        return json!({});
    };
    let mut fields = Map::new();
    for (key, value) in map {
        let inner = match value {
            Value::Object(_) => fields_of(value),
            Value::Array(items) => match apply_key(key, items) {
                Some(by) => items
                    .iter()
                    .map(|item| (format!("k:{}", json!({by: item.get(by)})), fields_of(item)))
                    .collect(),
                None => json!({}),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => json!({}),
        };
        fields.insert(format!("f:{key}"), inner);
    }
    Value::Object(fields)
}

fn is_leaf(fields: &Value) -> bool {
    fields
        .as_object()
        .is_none_or(|f| f.keys().all(|k| k == "."))
}

/// Refuses to change what another manager applied to another value.
fn conflicts<'a>(
    target: &Target,
    old: &Value,
    applied: &Value,
    fields: &Value,
    others: impl Iterator<Item = &'a Value>,
) -> Result<(), Failure> {
    let mut causes = Vec::new();
    for other in others.filter(|e| text(e, "operation") == "Apply") {
        let mut paths = Vec::new();
        if let Some(theirs) = other.get("fieldsV1") {
            clashes(
                fields,
                theirs,
                Some(applied),
                Some(old),
                &mut String::new(),
                &mut paths,
            );
        }
        let manager = text(other, "manager");
        let cause = |path| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager:?}"), "field": path});
        causes.extend(paths.into_iter().map(cause));
    }
    if causes.is_empty() {
        return Ok(());
    }
    let (plural, n) = (
        if causes.len() == 1 {
            "conflict"
        } else {
            "conflicts"
        },
        causes.len(),
    );
    let told: Vec<String> = causes
        .iter()
        .map(|c| format!("{}: {}", text(c, "message"), text(c, "field")))
        .collect();
    let message = format!("Apply failed with {n} {plural}: {}", told.join("\n"));
    let details = json!({"name": target.name, "kind": target.kind.plural, "causes": causes});
    Err(Failure {
        details: Some(details),
        ..Failure::new(409, "Conflict", message)
    })
}

fn clashes(
    mine: &Value,
    theirs: &Value,
    new: Option<&Value>,
    old: Option<&Value>,
    path: &mut String,
    out: &mut Vec<String>,
) {
    for (key, mine) in mine.as_object().into_iter().flatten() {
        let Some(theirs) = theirs.get(key) else {
            continue;
        };
        let (new, old) = (step(new, key), step(old, key));
        let length = path.len();
        match key.strip_prefix("f:") {
            Some(name) => {
                path.push('.');
                path.push_str(name);
            }
            None => path.push_str(&format!("[{}]", key.trim_start_matches("k:"))),
        }
        if is_leaf(mine) || is_leaf(theirs) {
            if new != old {
                out.push(path.clone());
            }
        } else {
            clashes(mine, theirs, new, old, path, out);
        }
        path.truncate(length);
    }
}

/// What a `FieldsV1` key leads to.
fn step<'a>(value: Option<&'a Value>, key: &str) -> Option<&'a Value> {
    match key.strip_prefix("f:") {
        Some(name) => value?.get(name),
        None => value?.as_array()?.iter().find(|item| is_item(item, key)),
    }
}

fn is_item(item: &Value, key: &str) -> bool {
    let wanted: Option<Value> = key
        .strip_prefix("k:")
        .and_then(|k| serde_json::from_str(k).ok());
    wanted
        .as_ref()
        .and_then(Value::as_object)
        .is_some_and(|w| w.iter().all(|(k, v)| item.get(k) == Some(v)))
}

/// Takes away what was named before, is named no more, and nobody else named.
fn abandon(value: &mut Value, before: &Value, now: &Value, others: &[&Value]) {
    for (key, fields) in before.as_object().into_iter().flatten() {
        let theirs: Vec<&Value> = others.iter().filter_map(|o| o.get(key)).collect();
        match (now.get(key), theirs.is_empty()) {
            (None, true) => match (key.strip_prefix("f:"), &mut *value) {
                (Some(name), Value::Object(map)) => {
                    map.remove(name);
                }
                (None, Value::Array(list)) => list.retain(|item| !is_item(item, key)),
                _ => {}
            },
            (now, _) => {
                let inner = match (key.strip_prefix("f:"), &mut *value) {
                    (Some(name), Value::Object(map)) => map.get_mut(name),
                    (None, Value::Array(list)) => list.iter_mut().find(|item| is_item(item, key)),
                    _ => None,
                };
                if let Some(inner) = inner
                    && !is_leaf(fields)
                {
                    abandon(inner, fields, now.unwrap_or(&Value::Null), &theirs);
                }
            }
        }
    }
}

/// Puts what is applied over what is there.
fn overlay(field: &str, target: &mut Value, applied: &Value) {
    match applied {
        Value::Object(map) => {
            let target = super::super::json::object(target);
            for (key, value) in map {
                overlay(key, target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        Value::Array(items) => match (apply_key(field, items), target.as_array_mut()) {
            (Some(by), Some(there)) => {
                for item in items {
                    match there
                        .iter_mut()
                        .find(|old| old.get(by).is_some() && old.get(by) == item.get(by))
                    {
                        Some(old) => overlay("", old, item),
                        None => there.push(item.clone()),
                    }
                }
            }
            _ => *target = applied.clone(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            *target = applied.clone()
        }
    }
}
