//! Who is told of what.

use super::keys::known_keys;
use super::tree::TreeNode;
use super::types::Notify;
use super::value_reader::ValueReader;

/// Events a notification can ask for; the names are those of `docs/events.md`.
pub const NOTIFIABLE_EVENTS: &[&str] = &[
    "run_opened",
    "run_resumed",
    "step_started",
    "step_done",
    "step_skipped",
    "step_failed",
    "retrying",
    "undo_began",
    "undo_done",
    "undo_failed",
    "notice",
    "run_paused",
    "run_closed",
];

/// What is sent where a plan does not say.
const DEFAULT_NOTIFY_EVENTS: &[&str] = &[
    "run_opened",
    "step_failed",
    "undo_failed",
    "run_paused",
    "run_closed",
];

/// Reads `notify`.
pub fn read_notify(r: &mut ValueReader, node: &TreeNode) -> Vec<Notify> {
    let mut all = Vec::new();
    for (i, item) in r
        .read_list(node, "notify", "- webhook: {url: https://example.com/hook}")
        .iter()
        .enumerate()
    {
        let path = format!("notify[{i}]");
        let f = r.read_fields(item, &path, known_keys("notify"));
        match (f.get("webhook"), f.get("sns")) {
            (Some(n), None) => {
                let f = r.read_fields(n, &format!("{path}.webhook"), known_keys("notify.webhook"));
                let on = read_event_names(r, f.get("on"), &f.path_of("on"));
                let url = f.get("url").map(|n| {
                    let rule =
                        "write an address that begins with `https://` (or `http://localhost`)";
                    r.read_text_where(
                        n,
                        &f.path_of("url"),
                        "https://example.com/hook",
                        rule,
                        |t| {
                            t.starts_with("https://")
                                || t.starts_with("http://localhost")
                                || t.starts_with("http://127.0.0.1")
                        },
                    )
                });
                match url {
                    Some(url) => all.extend(url.map(|url| Notify::Webhook { url, on })),
                    None => r.note_problem(
                        "plan::missing",
                        f.at,
                        format!("`{}` is missing", f.path_of("url")),
                        "write `url: https://...`",
                    ),
                }
            }
            (None, Some(n)) => {
                let f = r.read_fields(n, &format!("{path}.sns"), known_keys("notify.sns"));
                let on = read_event_names(r, f.get("on"), &f.path_of("on"));
                let topic = f.get("topic").map(|n| {
                    let rule = "write the ARN of an SNS topic";
                    r.read_text_where(
                        n,
                        &f.path_of("topic"),
                        "arn:aws:sns:eu-central-1:123456789012:upgrades",
                        rule,
                        |t| t.starts_with("arn:") && t.contains(":sns:"),
                    )
                });
                match topic {
                    Some(topic) => all.extend(topic.map(|topic| Notify::Sns { topic, on })),
                    None => r.note_problem(
                        "plan::missing",
                        f.at,
                        format!("`{}` is missing", f.path_of("topic")),
                        "write `topic: arn:aws:sns:...`",
                    ),
                }
            }
            (Some(_), Some(_)) => r.note_problem(
                "plan::contradiction",
                f.at,
                format!("`{path}` is both a webhook and an SNS topic"),
                "make two entries of it",
            ),
            (None, None) => r.note_problem(
                "plan::missing",
                f.at,
                format!("`{path}` says nothing to tell"),
                "write `- webhook: {url: https://...}` or `- sns: {topic: arn:aws:sns:...}`",
            ),
        }
    }
    all
}

fn read_event_names(r: &mut ValueReader, node: Option<&TreeNode>, path: &str) -> Vec<String> {
    let Some(node) = node else {
        return DEFAULT_NOTIFY_EVENTS
            .iter()
            .map(|e| (*e).to_owned())
            .collect();
    };
    let words: Vec<(&str, &str)> = NOTIFIABLE_EVENTS.iter().map(|e| (*e, *e)).collect();
    let items = r.read_list(node, path, "[run_closed]");
    items
        .iter()
        .enumerate()
        .filter_map(|(i, item)| r.read_choice(item, &format!("{path}[{i}]"), &words))
        .map(str::to_owned)
        .collect()
}
