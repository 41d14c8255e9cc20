//! Reading and writing objects as plain JSON, by dotted paths (`spec.nodeName`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The value at `path`, if there is one.
pub fn value_at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path_keys(path)
        .try_fold(value, |value, key| value.get(key))
        .filter(|v| !v.is_null())
}

/// The keys of a path. Paths are short and read all the time: a plain loop is several times faster than a search made for
/// long texts.
fn path_keys(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let here = rest?;
        let Some(dot) = here.bytes().position(|b| b == b'.') else {
            return rest.take();
        };
        rest = Some(&here[dot + 1..]);
        Some(&here[..dot])
    })
}

/// The text at `path`; empty when there is none.
pub fn text_at<'a>(value: &'a Value, path: &str) -> &'a str {
    value_at(value, path)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The number at `path`.
pub fn number_at(value: &Value, path: &str) -> Option<i64> {
    value_at(value, path).and_then(Value::as_i64)
}

/// Whether `true` stands at `path`.
pub fn flag_at(value: &Value, path: &str) -> bool {
    value_at(value, path)
        .and_then(Value::as_bool)
        .unwrap_or_default()
}

/// The list at `path`; empty when there is none.
pub fn list_at<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value_at(value, path)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The texts of the map at `path`, such as labels.
pub fn text_map_at(value: &Value, path: &str) -> BTreeMap<String, String> {
    let map = value_at(value, path).and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect()
}

/// Puts `new` at `path`, making the maps on the way.
pub fn set_at(value: &mut Value, path: &str, new: impl Into<Value>) {
    *slot_at(value, path) = new.into();
}

/// Takes away what is at `path`.
pub fn remove_at(value: &mut Value, path: &str) {
    let (parent, key) = match path.rsplit_once('.') {
        Some((parent, key)) => (
            path_keys(parent).try_fold(value, |value, key| value.get_mut(key)),
            key,
        ),
        None => (Some(value), path),
    };
    if let Some(Value::Object(map)) = parent {
        map.remove(key);
    }
}

/// Puts `new` at `path` unless something is there.
pub fn set_default_at(value: &mut Value, path: &str, new: impl Into<Value>) {
    let slot = slot_at(value, path);
    if slot.is_null() {
        *slot = new.into();
    }
}

/// The place at `path`, made (null) with the maps on the way when it is not there.
pub fn slot_at<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    path_keys(path).fold(value, |value, key| {
        let map = as_object_mut(value);
        // Nearly always it is there, and needs no copy of its key.
        if !map.contains_key(key) {
            map.insert(key.to_owned(), Value::Null);
        }
        &mut map[key]
    })
}

/// The map in `value`; anything else is replaced by an empty one.
pub fn as_object_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("it has just been made a map")
        }
    }
}

/// The list at `path`, made when it is not there.
pub fn list_at_mut<'a>(value: &'a mut Value, path: &str) -> &'a mut Vec<Value> {
    let slot = slot_at(value, path);
    if !slot.is_array() {
        *slot = json!([]);
    }
    match slot {
        Value::Array(list) => list,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            unreachable!("it has just been made a list")
        }
    }
}

/// The annotation or label `key` (which has dots of its own) under `metadata`.
pub fn find_annotation<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value_at(value, "metadata.annotations")?.get(key)?.as_str()
}

/// The label `key`.
pub fn find_label<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value_at(value, "metadata.labels")?.get(key)?.as_str()
}

/// The condition of type `kind` in `status.conditions`.
pub fn find_condition<'a>(value: &'a Value, kind: &str) -> Option<&'a Value> {
    list_at(value, "status.conditions")
        .iter()
        .find(|c| text_at(c, "type") == kind)
}

/// Puts a condition into `status.conditions`, over the one of its type; keeps the time of transition when its status
/// stays. Tells whether anything but times changed.
pub fn set_condition(value: &mut Value, mut condition: Value) -> bool {
    let kind = text_at(&condition, "type").to_owned();
    let conditions = list_at_mut(value, "status.conditions");
    match conditions.iter_mut().find(|c| text_at(c, "type") == kind) {
        // The time of transition is when the status changed, and not when it was last written.
        Some(old) => {
            if text_at(old, "status") == text_at(&condition, "status")
                && let Some(since) = old.get("lastTransitionTime")
            {
                condition["lastTransitionTime"] = since.clone();
            }
            // A condition that differs in nothing but times is not written, so that no watch hears of it.
            let same = |key: &str| old.get(key) == condition.get(key);
            let changed = !(same("status")
                && same("reason")
                && same("message")
                && same("observedGeneration"));
            if changed {
                *old = condition;
            }
            changed
        }
        None => {
            conditions.push(condition);
            true
        }
    }
}

/// A quantity of CPU (`250m`, `2`, `0.5`) in thousandths.
pub fn cpu_millis(value: Option<&Value>) -> i64 {
    // A hair is taken off, for 1.93 x 1000 is a hair over 1930.
    (parse_quantity(value) * 1000.0 - 1e-6).ceil() as i64
}

/// A quantity of anything else (`256Mi`, `20`), in units.
pub fn quantity_units(value: Option<&Value>) -> i64 {
    parse_quantity(value).ceil() as i64
}

fn parse_quantity(value: Option<&Value>) -> f64 {
    let Some(value) = value else { return 0.0 };
    let Some(text) = value.as_str() else {
        return value.as_f64().unwrap_or_default();
    };
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(split);
    let number = digits.parse::<f64>().unwrap_or_default();
    suffix_scale(suffix).map_or(0.0, |scale| number * scale)
}

/// What a quantity's suffix multiplies by (K8S-QTY-1); `None` for text that the API server refuses.
fn suffix_scale(suffix: &str) -> Option<f64> {
    let scale = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024f64.powi(1),
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        // What is left is an exponent of ten: a letter alone is exa.
        exponent => {
            let power = exponent.strip_prefix(['e', 'E'])?;
            10f64.powi(power.parse().ok()?)
        }
    };
    Some(scale)
}

/// An int-or-percent of `total`, rounded up or down.
pub fn scale_int_or_percent(value: Option<&Value>, total: i64, up: bool) -> Option<i64> {
    let value = value?;
    if let Some(n) = value.as_i64() {
        return Some(n);
    }
    let percent: i64 = value.as_str()?.strip_suffix('%')?.parse().ok()?;
    let product = percent * total;
    Some(if up {
        (product + 99) / 100
    } else {
        product / 100
    })
}

/// A duration as Go and people write it: `5s`, `1m30s`, `500ms`, `2h`.
pub fn parse_duration(text: &str) -> Option<std::time::Duration> {
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    // Each part has a number and a unit; a number without a unit is no duration.
    while !rest.is_empty() {
        let split = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (digits, tail) = rest.split_at(split);
        let end = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, after) = tail.split_at(end);
        let scale = match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += digits.parse::<f64>().ok()? * scale;
        rest = after;
    }
    Some(std::time::Duration::from_secs_f64(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        assert_eq!(cpu_millis(Some(&json!("1930m"))), 1930);
        assert_eq!(cpu_millis(Some(&json!("2"))), 2000);
        assert_eq!(cpu_millis(Some(&json!(0.5))), 500);
        assert_eq!(quantity_units(Some(&json!("7292Mi"))), 7292 * 1024 * 1024);
        assert_eq!(quantity_units(Some(&json!("35"))), 35);
        assert_eq!(quantity_units(None), 0);
    }

    #[test]
    fn every_suffix_and_exponent_of_a_quantity_counts() {
        let units = |text: &str| quantity_units(Some(&json!(text)));
        assert_eq!(units("1P"), 1_000_000_000_000_000);
        assert_eq!(units("2E"), 2_000_000_000_000_000_000);
        assert_eq!(units("1Pi"), 1 << 50);
        assert_eq!(units("1Ei"), 1 << 60);
        assert_eq!(units("1e3"), 1000);
        assert_eq!(units("1.5E3"), 1500);
        assert_eq!(units("5e+2"), 500);
        assert_eq!(cpu_millis(Some(&json!("25e-2"))), 250);
        assert_eq!(cpu_millis(Some(&json!("500000u"))), 500);
        assert_eq!(cpu_millis(Some(&json!("2500000000n"))), 2500);
        // The API server refuses these.
        assert_eq!((units("1x"), units("1e"), units("1Kib")), (0, 0, 0));
    }

    #[test]
    fn percents_round_as_asked() {
        assert_eq!(scale_int_or_percent(Some(&json!("25%")), 3, true), Some(1));
        assert_eq!(scale_int_or_percent(Some(&json!("25%")), 3, false), Some(0));
        assert_eq!(scale_int_or_percent(Some(&json!(2)), 3, false), Some(2));
        assert_eq!(scale_int_or_percent(None, 3, false), None);
    }

    #[test]
    fn durations_may_have_several_units() {
        assert_eq!(
            parse_duration("1m30s"),
            Some(std::time::Duration::from_secs(90))
        );
        assert_eq!(
            parse_duration("500ms"),
            Some(std::time::Duration::from_millis(500))
        );
        assert_eq!(parse_duration("soon"), None);
    }

    #[test]
    fn a_place_is_made_with_the_maps_on_the_way() {
        let mut v = json!({});
        set_at(&mut v, "a.b.c", 1);
        assert_eq!(v, json!({"a": {"b": {"c": 1}}}));
        remove_at(&mut v, "a.b.c");
        assert_eq!(v, json!({"a": {"b": {}}}));
    }
}
