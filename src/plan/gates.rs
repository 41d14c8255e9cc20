//! When something new may begin, and what a person approves first.

use super::keys::keys;
use super::read::Reader;
use super::suggest::nearest;
use super::tree::{Node, What};
use super::types::Approvals;
use crate::model::Windows;
use crate::model::window::{Day, MIDNIGHT, Window, zone};

/// What a plan means that names no zone.
const ZONE: &str = "UTC";

/// Reads `windows`.
pub fn windows(r: &mut Reader, node: &Node) -> Windows {
    let items = r.list(node, "windows", "- {from: \"22:00\", to: \"04:00\"}");
    let windows = items.iter().enumerate();
    Windows(
        windows
            .filter_map(|(i, item)| window(r, item, &format!("windows[{i}]")))
            .collect(),
    )
}

fn window(r: &mut Reader, node: &Node, path: &str) -> Option<Window> {
    let f = r.fields(node, path, keys("windows"));
    let mut days = Vec::new();
    if let Some(node) = f.get("days") {
        let path = f.path_of("days");
        for (i, item) in r.list(node, &path, "[mon, tue]").iter().enumerate() {
            let Some(day) = r.choice(item, &format!("{path}[{i}]"), &Day::ALL) else {
                continue;
            };
            if days.contains(&day) {
                r.note(
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
        None => Some(ZONE.to_owned()),
        Some(node) => {
            let rule = "write a zone's name as the IANA database has it";
            let path = f.path_of("timeZone");
            r.text_where(node, &path, "Europe/Berlin", rule, |t| zone(t).is_some())
        }
    };
    let mut time = |key: &str, last: u16| match f.get(key) {
        Some(node) => {
            let rule = "write hours and minutes, as a clock of 24 hours shows them";
            let text = r.text_where(node, &f.path_of(key), "22:00", rule, |t| {
                minutes(t).is_some_and(|m| m <= last)
            });
            text.as_deref().and_then(minutes)
        }
        None => super::read::missing(r, &f, key, &format!("{key}: \"22:00\"")),
    };
    let (from, to) = (time("from", MIDNIGHT - 1), time("to", MIDNIGHT));
    if from.is_some() && from == to {
        r.note(
            "plan::contradiction",
            f.at("to"),
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
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |t: &str| {
        (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit()))
            .then(|| t.parse::<u16>().ok())
            .flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= MIDNIGHT).then_some(all)
}

/// Reads `approvals`. Whether a word names a step is seen when there is a route.
pub fn approvals(r: &mut Reader, node: &Node) -> Approvals {
    let f = r.fields(node, "approvals", keys("approvals"));
    let Some(node) = f.get("before") else {
        return Approvals::default();
    };
    let mut before = r.texts(node, "approvals.before", "drain");
    let items: &[Node] = match &node.what {
        What::List(items) => items,
        What::Null | What::Scalar { .. } | What::Map(_) => &[],
    };
    for item in items {
        let What::Scalar { text, .. } = &item.what else {
            continue;
        };
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if text.trim().is_empty() || text.chars().all(word) {
            continue;
        }
        let help = match nearest(text, KINDS.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write a step's id as `eksup plan` shows it, or a kind of step".to_owned(),
        };
        r.note(
            "plan::value",
            item.at,
            format!("`{}` is no step", super::read::shorten(text)),
            help,
        );
    }
    before.sort_unstable();
    Approvals { before }
}

/// The kinds of steps, by which approvals can be asked for; the route holds itself to them by a test.
pub const KINDS: &[&str] = &[
    "add-to-rules",
    "addon",
    "attach-targets",
    "bake",
    "control-plane",
    "create-green",
    "detach-targets",
    "drain",
    "hold-blue",
    "hold-green",
    "launch-template",
    "release-green",
    "retire",
    "shield-blue",
    "shift",
    "soak",
];
