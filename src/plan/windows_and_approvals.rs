//! When something new may begin, and what a person approves first.

use super::keys::known_keys;
use super::suggest::nearest_word;
use super::tree::{TreeNode, TreeValue};
use super::types::Approvals;
use super::value_reader::ValueReader;
use crate::model::Windows;
use crate::model::maintenance_window::{Day, END_OF_DAY_MINUTES, Window, find_time_zone};

/// What a plan means that names no zone.
const DEFAULT_TIME_ZONE: &str = "UTC";

/// Reads `windows`.
pub fn read_windows(r: &mut ValueReader, node: &TreeNode) -> Windows {
    let items = r.read_list(node, "windows", "- {from: \"22:00\", to: \"04:00\"}");
    let windows = items.iter().enumerate();
    Windows(
        windows
            .filter_map(|(i, item)| read_window(r, item, &format!("windows[{i}]")))
            .collect(),
    )
}

fn read_window(r: &mut ValueReader, node: &TreeNode, path: &str) -> Option<Window> {
    let f = r.read_fields(node, path, known_keys("windows"));
    let mut days = Vec::new();
    if let Some(node) = f.get("days") {
        let path = f.path_of("days");
        for (i, item) in r.read_list(node, &path, "[mon, tue]").iter().enumerate() {
            let Some(day) = r.read_choice(item, &format!("{path}[{i}]"), &Day::ALL) else {
                continue;
            };
            if days.contains(&day) {
                r.note_problem(
                    "plan::duplicate",
                    item.at,
                    format!("`{path}` has a day twice"),
                    "remove one of the two",
                );
            } else {
                days.push(day);
            }
        }
    }
    days.sort_unstable();
    let time_zone = match f.get("timeZone") {
        None => Some(DEFAULT_TIME_ZONE.to_owned()),
        Some(node) => {
            let rule = "write a zone's name as the IANA database has it";
            let path = f.path_of("timeZone");
            r.read_text_where(node, &path, "Europe/Berlin", rule, |t| {
                find_time_zone(t).is_some()
            })
        }
    };
    let mut time = |key: &str, last: u16| match f.get(key) {
        Some(node) => {
            let rule = "write hours and minutes, as a clock of 24 hours shows them";
            let text = r.read_text_where(node, &f.path_of(key), "22:00", rule, |t| {
                parse_minutes(t).is_some_and(|m| m <= last)
            });
            text.as_deref().and_then(parse_minutes)
        }
        None => super::value_reader::note_missing(r, &f, key, &format!("{key}: \"22:00\"")),
    };
    let (from, to) = (
        time("from", END_OF_DAY_MINUTES - 1),
        time("to", END_OF_DAY_MINUTES),
    );
    if from.is_some() && from == to {
        r.note_problem(
            "plan::contradiction",
            f.location_of("to"),
            format!("`{path}` closes at the very time it opens"),
            "write another time; a whole day is `from: \"00:00\"`, `to: \"24:00\"`",
        );
    }
    Some(Window {
        days,
        from: from?,
        to: to?,
        time_zone: time_zone?,
    })
}

/// Minutes from midnight of `HH:MM`; `24:00` is the day's end.
fn parse_minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |t: &str| {
        (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit()))
            .then(|| t.parse::<u16>().ok())
            .flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= END_OF_DAY_MINUTES).then_some(all)
}

/// Reads `approvals`. Whether a word names a step is seen when there is a route.
pub fn read_approvals(r: &mut ValueReader, node: &TreeNode) -> Approvals {
    let f = r.read_fields(node, "approvals", known_keys("approvals"));
    let Some(node) = f.get("before") else {
        return Approvals::default();
    };
    let mut before = r.read_texts(node, "approvals.before", "drain");
    let items: &[TreeNode] = match &node.what {
        TreeValue::List(items) => items,
        TreeValue::Null | TreeValue::Scalar { .. } | TreeValue::Map(_) => &[],
    };
    for item in items {
        let TreeValue::Scalar { text, .. } = &item.what else {
            continue;
        };
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if text.trim().is_empty() || text.chars().all(word) {
            continue;
        }
        let help = match nearest_word(text, STEP_KINDS.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write a step's id as `eksup plan` shows it, or a kind of step".to_owned(),
        };
        r.note_problem(
            "plan::value",
            item.at,
            format!("`{}` is no step", super::value_reader::shorten_text(text)),
            help,
        );
    }
    before.sort_unstable();
    Approvals { before }
}

/// The kinds of steps, by which approvals can be asked for; the route holds itself to them by a test.
pub const STEP_KINDS: &[&str] = &[
    "add-to-rules",
    "addon",
    "attach-targets",
    "bake",
    "control-plane",
    "cordon-blue",
    "create-green",
    "detach-targets",
    "drain",
    "hold-blue",
    "hold-green",
    "launch-template",
    "release-green",
    "retire",
    "shift",
    "soak",
];
