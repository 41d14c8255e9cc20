//! PATCH: which kind of patch it is, and server-side apply.

use serde_json::{Map, Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{list_at, list_at_mut, remove_at, set_at, text_at, value_at};
use super::super::status::ApiFailure;
use super::merge::{json_patch, merge_key_of, merge_patch, strategic_merge};
use super::{RequestTarget, content_type, read_body, write};
use crate::twin::answer::Answer;
use crate::wire::Request;

/// Patches an object.
pub fn patch_object(
    cluster: &mut SimCluster,
    target: &RequestTarget,
    request: &Request,
) -> Result<Answer, ApiFailure> {
    // The content type may carry parameters after the kind.
    let kind = content_type(request)
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned();
    let patch = read_body(request)?;
    // Server-side apply creates what is missing, so it looks for the object itself.
    if kind == "application/apply-patch+yaml" {
        return apply_object(cluster, target, patch);
    }
    let old = cluster
        .store
        .get_object(&target.object_key())
        .cloned()
        .ok_or_else(|| target.not_found())?;
    // The version is removed, so that only a patch that names one is refused for a newer object.
    let mut new = Value::clone(&old);
    remove_at(&mut new, "metadata.resourceVersion");
    // Custom resources have no strategic merge: the server does not know their lists' keys.
    match kind.as_str() {
        "application/merge-patch+json" => merge_patch(&mut new, &patch),
        "application/strategic-merge-patch+json" if target.kind.builtin => {
            strategic_merge(&mut new, &patch);
        }
        "application/json-patch+json" => {
            let operations = patch
                .as_array()
                .ok_or_else(|| ApiFailure::bad_request("json patch is no list"))?;
            // A test on the version is answered by what is stored.
            set_at(
                &mut new,
                "metadata.resourceVersion",
                text_at(&old, "metadata.resourceVersion"),
            );
            json_patch(&mut new, operations).map_err(|why| {
                let details = json!({"causes": [{"message": why}]});
                let message = "the server rejected our request due to an error in our request";
                ApiFailure {
                    details: Some(details),
                    ..ApiFailure::new(422, "Invalid", message)
                }
            })?;
        }
        _ => {
            let message = "the body of the request was in an unknown format - accepted media types include: \
                           application/json-patch+json, application/merge-patch+json, \
                           application/strategic-merge-patch+json, application/apply-patch+yaml";
            return Err(ApiFailure::new(415, "UnsupportedMediaType", message));
        }
    }
    // A map that the patch emptied goes from the object, as it does in the real server's types.
    write::remove_empty_maps(&mut new);
    let done = write::update_object(cluster, target, &old, new)?;
    Ok(target.answer_object(200, &done))
}

/// Server-side apply: what the manager names is set, what it named before and names no more is taken away.
fn apply_object(
    cluster: &mut SimCluster,
    target: &RequestTarget,
    mut applied: Value,
) -> Result<Answer, ApiFailure> {
    // The server refuses these before it looks at the object: no manager, managed fields in the body, no kind.
    let manager = target.query.get("fieldManager").to_owned();
    if manager.is_empty() {
        let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        return Err(ApiFailure::new(422, "Invalid", message));
    }
    if value_at(&applied, "metadata.managedFields").is_some() {
        return Err(ApiFailure::bad_request(
            "metadata.managedFields must be nil",
        ));
    }
    if text_at(&applied, "kind").is_empty() || text_at(&applied, "apiVersion").is_empty() {
        return Err(ApiFailure::bad_request(
            "invalid object type: apiVersion and kind are required",
        ));
    }
    // The version and what identifies the object are no fields that a manager owns.
    let asked = text_at(&applied, "metadata.resourceVersion").to_owned();
    remove_at(&mut applied, "metadata.resourceVersion");
    let mut content = applied.clone();
    for key in [
        "apiVersion",
        "kind",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
    ] {
        remove_at(&mut content, key);
    }
    if value_at(&content, "metadata").is_some_and(|m| m == &json!({})) {
        remove_at(&mut content, "metadata");
    }
    // What is owned is what the request names, whether or not it changes anything.
    let fields = field_set_of(&content);
    let entry = json!({
        "manager": manager, "operation": "Apply", "apiVersion": target.kind.api_version(),
        "time": cluster.timestamp_text(), "fieldsType": "FieldsV1", "fieldsV1": fields,
    });
    // An object that does not exist is created with this manager as the owner of everything in it.
    let Some(old) = cluster.store.get_object(&target.object_key()).cloned() else {
        set_at(&mut applied, "metadata.name", target.name.clone());
        if target.kind.namespaced {
            set_at(&mut applied, "metadata.namespace", target.ns.clone());
        }
        set_at(&mut applied, "metadata.managedFields", json!([entry]));
        let made = cluster.create_object(target.res, applied, target.is_dry_run())?;
        return Ok(target.answer_object(201, &made));
    };
    // Only an entry for apply of the same manager is replaced; what it changed by update stays an entry of its own.
    let others =
        |e: &&Value| text_at(e, "manager") != manager || text_at(e, "operation") != "Apply";
    let entries = list_at(&old, "metadata.managedFields");
    // Forcing takes the fields over instead of refusing.
    if !target.query.is_true("force") {
        check_conflicts(
            target,
            &old,
            &applied,
            &fields,
            entries.iter().filter(others),
        )?;
    }
    let mut new = Value::clone(&old);
    remove_at(&mut new, "metadata.resourceVersion");
    // What this manager named before and names no longer is removed, unless another one names it as well.
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
        remove_abandoned(&mut new, before, &fields, &kept);
    }
    remove_at(&mut content, "metadata.resourceVersion");
    merge_applied("", &mut new, &content);
    let managed = list_at_mut(&mut new, "metadata.managedFields");
    managed.retain(|e| others(&e));
    managed.push(entry);
    // A version in the request makes the apply conditional, like any other write.
    if !asked.is_empty() {
        set_at(&mut new, "metadata.resourceVersion", asked);
    }
    let done = write::update_object(cluster, target, &old, new)?;
    Ok(target.answer_object(200, &done))
}

/// The lists that apply merges by key; the others belong to one manager as a whole. Unlike in a strategic merge, a
/// node's taints are one such.
fn apply_merge_key(field: &str, items: &[Value]) -> Option<&'static str> {
    if field == "taints" {
        None
    } else {
        merge_key_of(field, items)
    }
}

/// The set of fields a manager names, as `FieldsV1`.
fn field_set_of(value: &Value) -> Value {
    let Value::Object(map) = value else {
        return json!({});
    };
    let mut fields = Map::new();
    for (key, value) in map {
        let inner = match value {
            Value::Object(_) => field_set_of(value),
            // A list with a merge key is owned item by item; any other one as a whole.
            Value::Array(items) => match apply_merge_key(key, items) {
                Some(by) => items
                    .iter()
                    .map(|item| {
                        (
                            format!("k:{}", json!({by: item.get(by)})),
                            field_set_of(item),
                        )
                    })
                    .collect(),
                None => json!({}),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => json!({}),
        };
        fields.insert(format!("f:{key}"), inner);
    }
    Value::Object(fields)
}

fn is_leaf_field(fields: &Value) -> bool {
    fields
        .as_object()
        .is_none_or(|f| f.keys().all(|k| k == "."))
}

/// Refuses to change what another manager applied to another value.
fn check_conflicts<'a>(
    target: &RequestTarget,
    old: &Value,
    applied: &Value,
    fields: &Value,
    others: impl Iterator<Item = &'a Value>,
) -> Result<(), ApiFailure> {
    let mut causes = Vec::new();
    // Only what others applied can conflict; what they wrote by update can be taken over.
    for other in others.filter(|e| text_at(e, "operation") == "Apply") {
        let mut paths = Vec::new();
        if let Some(theirs) = other.get("fieldsV1") {
            collect_clashes(
                fields,
                theirs,
                Some(applied),
                Some(old),
                &mut String::new(),
                &mut paths,
            );
        }
        let manager = text_at(other, "manager");
        let cause = |path| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager:?}"), "field": path});
        causes.extend(paths.into_iter().map(cause));
    }
    if causes.is_empty() {
        return Ok(());
    }
    // The text lists each conflict with its manager and path, as clients print it.
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
        .map(|c| format!("{}: {}", text_at(c, "message"), text_at(c, "field")))
        .collect();
    let message = format!("Apply failed with {n} {plural}: {}", told.join("\n"));
    let details = json!({"name": target.name, "kind": target.kind.plural, "causes": causes});
    Err(ApiFailure {
        details: Some(details),
        ..ApiFailure::new(409, "Conflict", message)
    })
}

fn collect_clashes(
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
        // Values are compared, too: two managers that want the same value do not conflict.
        let (new, old) = (follow_field_key(new, key), follow_field_key(old, key));
        let length = path.len();
        match key.strip_prefix("f:") {
            Some(name) => {
                path.push('.');
                path.push_str(name);
            }
            None => path.push_str(&format!("[{}]", key.trim_start_matches("k:"))),
        }
        // At a leaf of either side the two share the whole field.
        if is_leaf_field(mine) || is_leaf_field(theirs) {
            if new != old {
                out.push(path.clone());
            }
        } else {
            collect_clashes(mine, theirs, new, old, path, out);
        }
        path.truncate(length);
    }
}

/// What a `FieldsV1` key leads to.
fn follow_field_key<'a>(value: Option<&'a Value>, key: &str) -> Option<&'a Value> {
    match key.strip_prefix("f:") {
        Some(name) => value?.get(name),
        None => value?
            .as_array()?
            .iter()
            .find(|item| is_item_for_key(item, key)),
    }
}

fn is_item_for_key(item: &Value, key: &str) -> bool {
    let wanted: Option<Value> = key
        .strip_prefix("k:")
        .and_then(|k| serde_json::from_str(k).ok());
    wanted
        .as_ref()
        .and_then(Value::as_object)
        .is_some_and(|w| w.iter().all(|(k, v)| item.get(k) == Some(v)))
}

/// Takes away what was named before, is named no more, and nobody else named.
fn remove_abandoned(value: &mut Value, before: &Value, now: &Value, others: &[&Value]) {
    for (key, fields) in before.as_object().into_iter().flatten() {
        let theirs: Vec<&Value> = others.iter().filter_map(|o| o.get(key)).collect();
        // Nobody names the field any more, so it goes; otherwise only parts of it can be abandoned.
        match (now.get(key), theirs.is_empty()) {
            (None, true) => match (key.strip_prefix("f:"), &mut *value) {
                (Some(name), Value::Object(map)) => {
                    map.remove(name);
                }
                (None, Value::Array(list)) => list.retain(|item| !is_item_for_key(item, key)),
                _ => {}
            },
            (now, _) => {
                let inner = match (key.strip_prefix("f:"), &mut *value) {
                    (Some(name), Value::Object(map)) => map.get_mut(name),
                    (None, Value::Array(list)) => {
                        list.iter_mut().find(|item| is_item_for_key(item, key))
                    }
                    _ => None,
                };
                // A leaf has no parts that could be abandoned.
                if let Some(inner) = inner
                    && !is_leaf_field(fields)
                {
                    remove_abandoned(inner, fields, now.unwrap_or(&Value::Null), &theirs);
                }
            }
        }
    }
}

/// Puts what is applied over what is there.
fn merge_applied(field: &str, target: &mut Value, applied: &Value) {
    match applied {
        Value::Object(map) => {
            let target = super::super::json::as_object_mut(target);
            for (key, value) in map {
                merge_applied(key, target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        // A list with a key is merged by it, so that the items of others stay where they are.
        Value::Array(items) => match (apply_merge_key(field, items), target.as_array_mut()) {
            (Some(by), Some(there)) => {
                for item in items {
                    match there
                        .iter_mut()
                        .find(|old| old.get(by).is_some() && old.get(by) == item.get(by))
                    {
                        Some(old) => merge_applied("", old, item),
                        None => there.push(item.clone()),
                    }
                }
            }
            _ => *target = applied.clone(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            *target = applied.clone();
        }
    }
}
