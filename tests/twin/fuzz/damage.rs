//! What can happen to a text: in its bytes, and in its structure.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};

/// What a reader hates to find.
const JUNK: &[&str] = &[
    "\0",
    "\u{feff}",
    "\u{2028}",
    "💥",
    "\u{202e}",
    "\t",
    "\r",
    "\n",
    "\n\n---\n",
    "...\n",
    "&a ",
    "*a",
    "<<: *a\n",
    "!!binary ",
    "!!python/object:os.system ",
    "%YAML 9.9\n---\n",
    "? ",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "#",
    "|\n",
    ">\n",
    "~",
    "null",
    "true",
    "-1",
    "0",
    "18446744073709551616",
    "99999999999999999999999999999999999",
    "1e999",
    "-1e-999",
    ".nan",
    ".inf",
    "\\u0000",
    "\\ud800",
    "%00",
    "<!DOCTYPE x [<!ENTITY a \"b\">]>",
    "&a;",
    "<![CDATA[",
    "]]>",
    "<a>",
    "</a>",
    "1.20",
    "292277026596-12-04T15:30:08Z",
    "9999999999h",
];

/// A change in the bytes.
#[derive(Clone, Debug)]
pub enum Cut {
    Truncate(Index),
    Remove(Index, usize),
    Repeat(Index, usize),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
}

/// Changes in the bytes.
pub fn cuts() -> impl Strategy<Value = Vec<Cut>> {
    let junk = prop_oneof![
        6 => proptest::sample::select(JUNK).prop_map(|s| s.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..8),
        1 => Just("[".repeat(4_000).into_bytes()),
        1 => Just("{\"a\":".repeat(2_000).into_bytes()),
        1 => Just("9".repeat(4_000).into_bytes()),
        1 => Just("a: &a [*a, *a, *a]\n".repeat(50).into_bytes()),
    ];
    let at = any::<Index>;
    let cut = prop_oneof![
        2 => at().prop_map(Cut::Truncate),
        2 => (at(), 1..40usize).prop_map(|(i, n)| Cut::Remove(i, n)),
        1 => (at(), 1..200usize).prop_map(|(i, n)| Cut::Repeat(i, n)),
        3 => (at(), any::<u8>()).prop_map(|(i, b)| Cut::Flip(i, b)),
        4 => (at(), junk).prop_map(|(i, j)| Cut::Insert(i, j)),
    ];
    vec(cut, 1..4)
}

/// `bytes` with the changes made.
pub fn cut(bytes: &[u8], cuts: &[Cut]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for cut in cuts {
        let place = |i: &Index| i.index(bytes.len() + 1);
        let span = |i: &Index, n: usize| {
            let at = place(i);
            at..(at + n).min(bytes.len())
        };
        match cut {
            Cut::Truncate(i) => bytes.truncate(place(i)),
            Cut::Remove(i, n) => drop(bytes.drain(span(i, *n))),
            Cut::Repeat(i, n) => {
                let part = bytes[span(i, *n)].to_vec();
                let at = place(i);
                bytes.splice(at..at, part);
            }
            Cut::Flip(i, b) => {
                let at = place(i);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= *b;
                }
            }
            Cut::Insert(i, junk) => {
                let at = place(i);
                bytes.splice(at..at, junk.iter().copied());
            }
        }
    }
    bytes
}

/// A change in the structure of a JSON value.
#[derive(Clone, Debug)]
pub enum Twist {
    /// Another value stands there.
    Replace(Index, Value),
    Remove(Index),
    /// A key nobody knows.
    Add(Index),
    /// An item again.
    Repeat(Index),
    /// What stands in one place stands in another too.
    Copy(Index, Index),
}

/// Changes in the structure.
pub fn twists() -> impl Strategy<Value = Vec<Twist>> {
    let strange = vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(0.5),
        json!(""),
        json!(" "),
        json!("💥\u{0}\u{202e}"),
        json!("x".repeat(5_000)),
        json!("../../etc/passwd"),
        json!("99999999999999999999"),
        json!("1.4294967296"),
        json!("-262143-01-01T00:00:00Z"),
        json!("9999-12-31T23:59:59Z"),
        json!([]),
        json!({}),
        json!([null]),
        json!({"": null}),
        (0..120).fold(json!(1), |inner, _| json!([inner])),
    ];
    let at = any::<Index>;
    let twist = prop_oneof![
        5 => (at(), proptest::sample::select(strange)).prop_map(|(i, v)| Twist::Replace(i, v)),
        3 => at().prop_map(Twist::Remove),
        1 => at().prop_map(Twist::Add),
        1 => at().prop_map(Twist::Repeat),
        2 => (at(), at()).prop_map(|(a, b)| Twist::Copy(a, b)),
    ];
    vec(twist, 1..4)
}

/// `value` with the changes made.
pub fn twist(value: &Value, twists: &[Twist]) -> Value {
    let mut value = value.clone();
    for twist in twists {
        let mut paths = Vec::new();
        places(&value, String::new(), &mut paths);
        let place = |i: &Index| i.get(&paths).clone();
        match twist {
            Twist::Replace(i, new) => {
                if let Some(old) = value.pointer_mut(&place(i)) {
                    *old = new.clone();
                }
            }
            Twist::Copy(from, to) => {
                let new = value.pointer(&place(from)).cloned().unwrap_or_default();
                if let Some(old) = value.pointer_mut(&place(to)) {
                    *old = new;
                }
            }
            Twist::Remove(i) => remove(&mut value, &place(i)),
            Twist::Add(i) => match value.pointer_mut(&place(i)) {
                Some(Value::Object(map)) => drop(map.insert("surplus".into(), json!(1))),
                Some(Value::Array(items)) => items.push(json!("surplus")),
                Some(_) | None => {}
            },
            Twist::Repeat(i) => {
                if let Some(Value::Array(items)) = value.pointer_mut(&place(i)) {
                    items.extend(items.clone());
                }
            }
        }
    }
    value
}

fn places(value: &Value, path: String, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(inner, format!("{path}/{key}"), out);
            }
        }
        Value::Array(items) => {
            for (i, inner) in items.iter().enumerate() {
                places(inner, format!("{path}/{i}"), out);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    out.push(path);
}

fn remove(value: &mut Value, path: &str) {
    let Some((parent, last)) = path.rsplit_once('/') else {
        *value = Value::Object(Map::new());
        return;
    };
    let key = last.replace("~1", "/").replace("~0", "~");
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.remove(&key)),
        Some(Value::Array(items)) => {
            if let Ok(i) = key.parse::<usize>() {
                items.remove(i);
            }
        }
        Some(_) | None => {}
    }
}

/// A change of either kind; a value whose structure is changed is written again.
#[derive(Clone, Debug)]
pub enum Damage {
    Bytes(Vec<Cut>),
    Structure(Vec<Twist>),
}

/// Changes of either kind.
pub fn damages() -> impl Strategy<Value = Damage> {
    prop_oneof![
        cuts().prop_map(Damage::Bytes),
        twists().prop_map(Damage::Structure)
    ]
}

/// JSON text with the changes made. What is no JSON is damaged in its bytes only.
pub fn damage(text: &[u8], damage: &Damage) -> Vec<u8> {
    match damage {
        Damage::Bytes(cuts) => cut(text, cuts),
        Damage::Structure(twists) => match serde_json::from_slice(text) {
            Ok(value) => twist(&value, twists).to_string().into_bytes(),
            Err(_) => text.to_vec(),
        },
    }
}
