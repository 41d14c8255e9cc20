//! The patches as functions: merge (RFC 7386), strategic merge, JSON patch (RFC 6902).

use serde_json::{Map, Value};

/// By a list's field name: the key its items are merged by. Lists that are not here are replaced whole.
const LIST_MERGE_KEYS: &[(&str, &str)] = &[
    ("addresses", "type"),
    ("conditions", "type"),
    ("containers", "name"),
    ("env", "name"),
    ("ephemeralContainers", "name"),
    ("hostAliases", "ip"),
    ("imagePullSecrets", "name"),
    ("initContainers", "name"),
    ("ownerReferences", "uid"),
    ("podIPs", "ip"),
    ("secrets", "name"),
    ("taints", "key"),
    ("topologySpreadConstraints", "topologyKey"),
    ("volumeDevices", "devicePath"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];

/// The key of the items of `field`; a Service's ports go by number, a container's by its own.
pub fn merge_key_of(field: &str, items: &[Value]) -> Option<&'static str> {
    if field == "ports" {
        let in_container = items.iter().any(|i| i.get("containerPort").is_some());
        return Some(if in_container {
            "containerPort"
        } else {
            "port"
        });
    }
    LIST_MERGE_KEYS
        .iter()
        .find(|(name, _)| *name == field)
        .map(|(_, key)| *key)
}

/// RFC 7386: null takes away, maps merge, the rest is replaced.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let target = super::super::json::as_object_mut(target);
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge_patch(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Kubernetes' strategic merge: as merge, but lists with a key merge item by item, and directives are obeyed.
pub fn strategic_merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    // Directives of the patch come before its fields: they decide what of the target is left to merge into.
    if patch.get("$patch").is_some_and(|p| p == "replace") {
        *target = Value::Object(
            patch
                .iter()
                .filter(|(k, _)| *k != "$patch")
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        );
        return;
    }
    let target = super::super::json::as_object_mut(target);
    if let Some(kept) = patch.get("$retainKeys").and_then(Value::as_array) {
        target.retain(|k, _| kept.iter().any(|kept| kept == k.as_str()));
    }
    // A null removes the field; lists are merged by their key where they have one.
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(Value::Array(list)) = target.get_mut(field) {
                list.retain(|item| !gone.contains(item));
            }
        } else if key.starts_with('$') {
            // `$setElementOrder` is heeded below, when its list is merged.
        } else if value.is_null() {
            target.remove(key);
        } else if let Value::Array(items) = value {
            let list = target
                .entry(key.clone())
                .or_insert_with(|| Value::Array(Vec::new()));
            merge_list(key, list, items);
        } else {
            strategic_merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
    // The order is set last, when all items of the list are there.
    for (key, order) in patch
        .iter()
        .filter_map(|(k, v)| Some((k.strip_prefix("$setElementOrder/")?, v)))
    {
        if let (Some(Value::Array(list)), Some(order)) = (target.get_mut(key), order.as_array()) {
            reorder_list(key, list, order);
        }
    }
}

fn merge_list(field: &str, target: &mut Value, items: &[Value]) {
    let Some(list) = target.as_array_mut() else {
        *target = Value::Array(items.to_vec());
        return;
    };
    let directive = |item: &Value| {
        item.get("$patch")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    // Finalizers are plain words that are merged as a set, so a patch cannot remove another's by leaving it out.
    if field == "finalizers" {
        for item in items {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
        return;
    }
    // A list without a merge key is replaced as a whole, and so is one whose patch says so.
    let replaces = items.iter().any(|i| {
        directive(i).as_deref() == Some("replace") && i.as_object().is_some_and(|o| o.len() == 1)
    });
    let plain = || {
        items
            .iter()
            .filter(|i| directive(i).is_none())
            .cloned()
            .collect()
    };
    let Some(key) = merge_key_of(field, items).filter(|_| !replaces) else {
        *list = plain();
        return;
    };
    // Items are told apart by the merge key; one with a delete directive removes its counterpart.
    for item in items {
        let place = list
            .iter()
            .position(|old| old.get(key).is_some() && old.get(key) == item.get(key));
        match (directive(item).as_deref(), place) {
            (Some("delete"), Some(place)) => {
                list.remove(place);
            }
            (Some("delete"), None) => {}
            (_, Some(place)) => strategic_merge(&mut list[place], item),
            (_, None) => {
                let mut new = Value::Object(Map::new());
                strategic_merge(&mut new, item);
                list.push(new);
            }
        }
    }
}

fn reorder_list(field: &str, list: &mut [Value], order: &[Value]) {
    let key = merge_key_of(field, list);
    let place = |item: &Value| {
        order.iter().position(|o| match key {
            Some(key) => o.get(key) == item.get(key),
            None => o == item,
        })
    };
    list.sort_by_key(|item| place(item).unwrap_or(usize::MAX));
}

/// RFC 6902; the error is the server's text.
pub fn json_patch(target: &mut Value, operations: &[Value]) -> Result<(), String> {
    // The operations are done in order. The caller gives a copy, so the first one that fails refuses the whole patch.
    for operation in operations {
        let part = |key: &str| {
            operation
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (op, path) = (part("op"), part("path"));
        let value = || operation.get("value").cloned().unwrap_or(Value::Null);
        match op {
            "add" => add_at(target, path, value())?,
            "remove" => {
                remove_at(target, path)?;
            }
            "replace" => {
                *target
                    .pointer_mut(path)
                    .ok_or_else(|| missing_path("replace", path))? = value();
            }
            "move" => {
                let moved = remove_at(target, part("from"))?;
                add_at(target, path, moved)?;
            }
            "copy" => {
                let copied = target
                    .pointer(part("from"))
                    .cloned()
                    .ok_or_else(|| missing_path("copy", part("from")))?;
                add_at(target, path, copied)?;
            }
            // A test of a path that is missing compares with null, as the real server does.
            "test" => {
                if target.pointer(path).unwrap_or(&Value::Null) != &value() {
                    return Err(format!("testing value {path} failed: test failed"));
                }
            }
            _ => return Err(format!("Unexpected kind: {op}")),
        }
    }
    Ok(())
}

fn missing_path(op: &str, path: &str) -> String {
    format!("{op} operation does not apply: doc is missing path: {path}: missing value")
}

fn split_pointer(path: &str) -> Result<(&str, String), String> {
    let (parent, key) = path
        .rsplit_once('/')
        .ok_or_else(|| missing_path("add", path))?;
    Ok((parent, key.replace("~1", "/").replace("~0", "~")))
}

fn add_at(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, key) = split_pointer(path)?;
    match target.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.insert(key, value);
            Ok(())
        }
        Some(Value::Array(list)) => {
            // A dash means the end of the list, and an index may be at most one past it.
            let place = if key == "-" {
                Some(list.len())
            } else {
                key.parse().ok()
            };
            let place = place
                .filter(|p| *p <= list.len())
                .ok_or_else(|| missing_path("add", path))?;
            list.insert(place, value);
            Ok(())
        }
        _ => Err(missing_path("add", path)),
    }
}

fn remove_at(target: &mut Value, path: &str) -> Result<Value, String> {
    let (parent, key) = split_pointer(path)?;
    let taken = match target.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(&key),
        Some(Value::Array(list)) => key
            .parse()
            .ok()
            .filter(|p| *p < list.len())
            .map(|p: usize| list.remove(p)),
        _ => None,
    };
    taken.ok_or_else(|| missing_path("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_replaces_lists_and_takes_nulls_away() {
        let mut v = json!({"a": [1, 2], "b": {"c": 1, "d": 2}});
        merge_patch(
            &mut v,
            &json!({"a": [3], "b": {"c": null}, "e": {"f": null, "g": 1}}),
        );
        assert_eq!(v, json!({"a": [3], "b": {"d": 2}, "e": {"g": 1}}));
    }

    #[test]
    fn a_strategic_patch_merges_taints_by_key_and_tolerations_not_at_all() {
        let mut v = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}], "tolerations": [{"key": "x"}]}});
        strategic_merge(
            &mut v,
            &json!({"spec": {"taints": [{"key": "b", "effect": "NoSchedule"}], "tolerations": [{"key": "y"}]}}),
        );
        let taints =
            json!([{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoSchedule"}]);
        assert_eq!(
            v,
            json!({"spec": {"taints": taints, "tolerations": [{"key": "y"}]}})
        );
        strategic_merge(
            &mut v,
            &json!({"spec": {"taints": [{"$patch": "delete", "key": "a"}]}}),
        );
        assert_eq!(
            v["spec"]["taints"],
            json!([{"key": "b", "effect": "NoSchedule"}])
        );
        strategic_merge(
            &mut v,
            &json!({"spec": {"taints": [{"$patch": "replace"}, {"key": "c"}]}}),
        );
        assert_eq!(v["spec"]["taints"], json!([{"key": "c"}]));
        strategic_merge(
            &mut v,
            &json!({"spec": {"unschedulable": null, "taints": null}}),
        );
        assert_eq!(v, json!({"spec": {"tolerations": [{"key": "y"}]}}));
    }

    #[test]
    fn containers_and_their_env_merge_by_name() {
        let mut v = json!({"containers": [{"name": "a", "image": "x:1", "env": [{"name": "K", "value": "1"}]}, {"name": "b"}]});
        strategic_merge(
            &mut v,
            &json!({"containers": [{"name": "a", "image": "x:2", "env": [{"name": "L", "value": "2"}]}]}),
        );
        assert_eq!(
            v["containers"][0],
            json!({"name": "a", "image": "x:2", "env": [{"name": "K", "value": "1"}, {"name": "L", "value": "2"}]})
        );
        assert_eq!(v["containers"][1], json!({"name": "b"}));
    }

    #[test]
    fn directives_of_kubectl_are_obeyed() {
        let mut v = json!({"finalizers": ["a", "b"], "volumes": [{"name": "x"}, {"name": "y"}], "strategy": {"type": "RollingUpdate", "rollingUpdate": {}}});
        strategic_merge(
            &mut v,
            &json!({
                "$deleteFromPrimitiveList/finalizers": ["a"],
                "$setElementOrder/volumes": [{"name": "y"}, {"name": "x"}],
                "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
            }),
        );
        assert_eq!(
            v,
            json!({"finalizers": ["b"], "volumes": [{"name": "y"}, {"name": "x"}], "strategy": {"type": "Recreate"}})
        );
    }

    #[test]
    fn a_json_patch_tests_before_it_changes() {
        let mut v = json!({"metadata": {"labels": {"a/b": "1"}}, "list": [1, 2]});
        let patch = json!([
            {"op": "test", "path": "/metadata/labels/a~1b", "value": "1"},
            {"op": "remove", "path": "/metadata/labels/a~1b"},
            {"op": "add", "path": "/list/-", "value": 3},
            {"op": "replace", "path": "/list/0", "value": 0},
        ]);
        json_patch(&mut v, patch.as_array().unwrap()).unwrap();
        assert_eq!(v, json!({"metadata": {"labels": {}}, "list": [0, 2, 3]}));
        assert!(
            json_patch(
                &mut v,
                &[json!({"op": "test", "path": "/list/0", "value": 9})]
            )
            .is_err()
        );
        assert!(json_patch(&mut v, &[json!({"op": "remove", "path": "/nothing"})]).is_err());
    }
}
