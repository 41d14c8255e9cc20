//! The keys of one entry of `windows`, and of `approvals`: when something may begin, and who says so first.

use super::{
    InitUse, KeyDefault, KeyMap, ListRule, MapRule, PlanKey, ValueKind, choice, text_rules,
};
use crate::plan::value_reader::{MapFields, ReadValues, ValueReader};
use crate::plan::words::DAY_WORDS;

pub static WINDOW: KeyMap = KeyMap {
    schema: "WindowSchema",
    meaning: "It opens on each of the days at `from` and closes at `to`, the next day where that is not later.",
    rule: MapRule::Checked(is_open_for_some_time),
    keys: &[
        PlanKey {
            name: "days",
            kind: ValueKind::List {
                items: &ValueKind::Choice(&choice("DaySchema", DAY_WORDS)),
                rule: ListRule::Unique,
            },
            default: KeyDefault::Absent("every day"),
            example: "[mon, tue]",
            meaning: "The days on which it opens.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "from",
            kind: ValueKind::Text(&text_rules::OPENING_TIME),
            default: KeyDefault::Required,
            example: "\"22:00\"",
            meaning: "When it opens, as `HH:MM`.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "to",
            kind: ValueKind::Text(&text_rules::CLOSING_TIME),
            default: KeyDefault::Required,
            example: "\"04:00\"",
            meaning: "When it closes, as `HH:MM`: on the next day where that is not later than `from`; `24:00` is the day's end.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "timeZone",
            kind: ValueKind::Text(&text_rules::TIME_ZONE),
            default: KeyDefault::Written("UTC"),
            example: "Europe/Berlin",
            meaning: "A zone of the IANA database.",
            more: "The data come with eksup. The window follows the zone's clock: the night on which clocks go forward is an hour shorter. A time that clocks skip counts as if they did not, and of one that is there twice the first counts.",
            init: InitUse::LeftOut,
        },
    ],
};

fn is_open_for_some_time(r: &mut ValueReader, f: &MapFields<'_>, values: &ReadValues) -> bool {
    let (from, to) = (values.get("from"), values.get("to"));
    if from.is_some() && from == to {
        r.note_problem(
            "plan::contradiction",
            f.location_of("to"),
            format!("`{}` closes at the very time it opens", f.path),
            "write another time; a whole day is `from: \"00:00\"`, `to: \"24:00\"`",
        );
    }
    true
}

pub static APPROVALS: KeyMap = KeyMap {
    schema: "ApprovalsSchema",
    meaning: "",
    rule: MapRule::Any,
    keys: &[PlanKey {
        name: "before",
        kind: ValueKind::List {
            items: &ValueKind::Text(&text_rules::STEP),
            rule: ListRule::Unique,
        },
        default: KeyDefault::Absent("none"),
        example: "[drain, retire]",
        meaning: "Steps by the ids that `eksup plan` shows, kinds of steps such as `drain` or `retire`, or patterns of either such as `drain-*`.",
        more: "`*` stands for any text. A pattern that matches no step, and a word that is neither a step nor a kind, are refused: they would guard nothing.",
        init: InitUse::LeftOut,
    }],
};
