//! Who is told of what.

use super::keys::keys;
use super::read::Reader;
use super::tree::Node;
use super::types::Notify;

/// Events a notification can ask for; the names are those of `docs/events.md`.
pub const EVENTS: &[&str] = &[
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
const BY_DEFAULT: &[&str] = &[
    "run_opened",
    "step_failed",
    "undo_failed",
    "run_paused",
    "run_closed",
];

/// Reads `notify`.
pub fn read(r: &mut Reader, node: &Node) -> Vec<Notify> {
    let mut all = Vec::new();
    for (i, item) in r
        .list(node, "notify", "- webhook: {url: https://example.com/hook}")
        .iter()
        .enumerate()
    {
        let path = format!("notify[{i}]");
        let f = r.fields(item, &path, keys("notify"));
        match (f.get("webhook"), f.get("sns")) {
            (Some(n), None) => {
                let f = r.fields(n, &format!("{path}.webhook"), keys("notify.webhook"));
                let on = on(r, f.get("on"), &f.path_of("on"));
                let url = f.get("url").map(|n| {
                    let rule =
                        "write an address that begins with `https://` (or `http://localhost`)";
                    r.text_where(
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
                    None => r.note(
                        "plan::missing",
                        f.at,
                        format!("`{}` is missing", f.path_of("url")),
                        "write `url: https://...`",
                    ),
                }
            }
            (None, Some(n)) => {
                let f = r.fields(n, &format!("{path}.sns"), keys("notify.sns"));
                let on = on(r, f.get("on"), &f.path_of("on"));
                let topic = f.get("topic").map(|n| {
                    let rule = "write the ARN of an SNS topic";
                    r.text_where(
                        n,
                        &f.path_of("topic"),
                        "arn:aws:sns:eu-central-1:123456789012:upgrades",
                        rule,
                        |t| t.starts_with("arn:") && t.contains(":sns:"),
                    )
                });
                match topic {
                    Some(topic) => all.extend(topic.map(|topic| Notify::Sns { topic, on })),
                    None => r.note(
                        "plan::missing",
                        f.at,
                        format!("`{}` is missing", f.path_of("topic")),
                        "write `topic: arn:aws:sns:...`",
                    ),
                }
            }
            (Some(_), Some(_)) => r.note(
                "plan::contradiction",
                f.at,
                format!("`{path}` is both a webhook and an SNS topic"),
                "make two entries of it",
            ),
            (None, None) => r.note(
                "plan::missing",
                f.at,
                format!("`{path}` says nothing to tell"),
                "write `- webhook: {url: https://...}` or `- sns: {topic: arn:aws:sns:...}`",
            ),
        }
    }
    all
}

fn on(r: &mut Reader, node: Option<&Node>, path: &str) -> Vec<String> {
    let Some(node) = node else {
        return BY_DEFAULT.iter().map(|e| (*e).to_owned()).collect();
    };
    let words: Vec<(&str, &str)> = EVENTS.iter().map(|e| (*e, *e)).collect();
    let items = r.list(node, path, "[run_closed]");
    items
        .iter()
        .enumerate()
        .filter_map(|(i, item)| r.choice(item, &format!("{path}[{i}]"), &words))
        .map(str::to_owned)
        .collect()
}
