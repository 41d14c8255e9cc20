//! The keys of one entry of `notify`.

use super::{
    Choice, InitUse, KeyDefault, KeyMap, ListRule, MapRule, PlanKey, ValueKind, choice,
    fitting_text,
};
use crate::plan::words::PlanWord;

pub static NOTIFY: KeyMap = KeyMap {
    schema: "NotifySchema",
    meaning: "",
    rule: MapRule::OneKey,
    keys: &[
        PlanKey {
            name: "webhook",
            kind: ValueKind::Map(&WEBHOOK),
            default: KeyDefault::Absent("none"),
            example: "{url: \"https://example.com/hook\"}",
            meaning: "An address that gets a POST for each event.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "sns",
            kind: ValueKind::Map(&SNS),
            default: KeyDefault::Absent("none"),
            example: "{topic: \"arn:aws:sns:eu-central-1:123456789012:upgrades\"}",
            meaning: "An SNS topic that gets a message for each event.",
            more: "",
            init: InitUse::LeftOut,
        },
    ],
};

static WEBHOOK: KeyMap = KeyMap {
    schema: "WebhookSchema",
    meaning: "",
    rule: MapRule::Any,
    keys: &[
        PlanKey {
            name: "url",
            kind: ValueKind::Text(&fitting_text(
                "https://example.com/hook",
                "write an address that begins with `https://` (or `http://localhost`)",
                |t| {
                    ["https://", "http://localhost", "http://127.0.0.1"]
                        .iter()
                        .any(|start| t.starts_with(start))
                },
            )),
            default: KeyDefault::Required,
            example: "\"https://example.com/hook\"",
            meaning: "The address, with `https`.",
            more: "",
            init: InitUse::LeftOut,
        },
        EVENTS_KEY,
    ],
};

static SNS: KeyMap = KeyMap {
    schema: "SnsSchema",
    meaning: "",
    rule: MapRule::Any,
    keys: &[
        PlanKey {
            name: "topic",
            kind: ValueKind::Text(&fitting_text(
                "arn:aws:sns:eu-central-1:123456789012:upgrades",
                "write the ARN of an SNS topic",
                |t| t.starts_with("arn:") && t.contains(":sns:"),
            )),
            default: KeyDefault::Required,
            example: "\"arn:aws:sns:eu-central-1:123456789012:upgrades\"",
            meaning: "The topic's ARN.",
            more: "",
            init: InitUse::LeftOut,
        },
        EVENTS_KEY,
    ],
};

/// The same of a webhook and of a topic. The default is what a person has to know.
const EVENTS_KEY: PlanKey = PlanKey {
    name: "on",
    kind: ValueKind::List {
        items: &ValueKind::Choice(&EVENT),
        rule: ListRule::Any,
    },
    default: KeyDefault::Written("[run_opened, step_failed, undo_failed, run_paused, run_closed]"),
    example: "[run_closed]",
    meaning: "The events that are sent; `docs/events.md` describes them.",
    more: "",
    init: InitUse::LeftOut,
};

/// Events that a notification can ask for; the names are those of `docs/events.md`.
static EVENT: Choice = choice(
    "EventSchema",
    &[
        event("run_opened"),
        event("run_resumed"),
        event("step_started"),
        event("step_done"),
        event("step_skipped"),
        event("step_failed"),
        event("retrying"),
        event("undo_began"),
        event("undo_done"),
        event("undo_failed"),
        event("notice"),
        event("run_paused"),
        event("run_closed"),
    ],
);

const fn event(spelling: &'static str) -> PlanWord {
    PlanWord {
        spelling,
        meaning: "",
    }
}
