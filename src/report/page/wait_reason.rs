//! What a wait is about, without the countdown in its words: a wait that is told 238 times is one wait.

use super::Activity;

/// How a step that waits for a window begins its reason.
const WINDOW_WORDS: &str = "outside the maintenance windows";

/// What a step does by its kind, where the events have it, and by its words.
pub fn classify_reason(kind: Option<&str>, why: &str) -> Activity {
    if why.starts_with(WINDOW_WORDS) {
        Activity::Window
    } else if matches!(kind, Some("bake" | "soak")) || is_countdown(why) {
        Activity::Bake
    } else {
        Activity::Work
    }
}

/// `baking 299s more`, `control plane 1.28, 345s left: ...`.
fn is_countdown(why: &str) -> bool {
    let words: Vec<&str> = why.split(' ').collect();
    let bakes = |w: &[&str]| w[0] == "baking" && is_duration(w[1]) && w[2].starts_with("more");
    let lasts = |w: &[&str]| is_duration(w[0]) && w[1] == "left:";
    words.windows(3).any(bakes) || words.windows(2).any(lasts)
}

/// A duration as events write it: `45s`, `4m10s`, `1h02m`.
fn is_duration(word: &str) -> bool {
    let word = word.trim_end_matches([',', ':']);
    word.starts_with(|c: char| c.is_ascii_digit())
        && word.ends_with(['s', 'm', 'h'])
        && word
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, 's' | 'm' | 'h' | 'd'))
}

/// The reason without how long it has lasted or will last.
pub fn without_countdown(why: &str) -> String {
    let words: Vec<&str> = why.split(' ').collect();
    let mut out: Vec<String> = Vec::new();
    let mut i = 0;
    while i < words.len() {
        let next = words.get(i + 1).copied().unwrap_or_default();
        let after = words.get(i + 2).copied().unwrap_or_default();
        match words[i] {
            "baking" if is_duration(next) && after.starts_with("more") => {
                out.push(after.replacen("more", "baking", 1));
                i += 3;
            }
            "waiting" if is_duration(next) => i += 2,
            word if is_duration(word) && next == "left:" => {
                // `control plane 1.28, 345s left: all well` is `control plane 1.28: all well`.
                if let Some(last) = out.last_mut() {
                    *last = format!("{}:", last.trim_end_matches(','));
                }
                i += 2;
            }
            word => {
                out.push(word.to_owned());
                i += 1;
            }
        }
    }
    out.join(" ")
}

/// What two reports of one wait have in common: the words up to the first list, without numbers and ids.
pub fn wait_key(why: &str) -> String {
    let text = without_countdown(why);
    // The node that a drain's reason begins with belongs to the wait; what follows the next colon changes.
    let mut parts = text.splitn(3, ": ");
    let head = match (parts.next(), parts.next()) {
        (Some(first), Some(second)) if !first.contains(' ') => format!("{first}: {second}"),
        (Some(first), _) => first.to_owned(),
        (None, _) => String::new(),
    };
    let head = head.split("; ").next().unwrap_or_default();
    let words = head.split(' ').enumerate().map(|(i, word)| {
        let numbers = word.contains(|c: char| c.is_ascii_digit());
        if numbers && i > 0 { "#" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_countdown_is_one_wait_and_bakes_are_told_from_work() {
        let cases = [
            (
                "10% on green, baking 299s more, 3 of 3 targets healthy",
                "10% on green, baking 8s more, 3 of 3 targets healthy",
                "10% on green, baking, 3 of 3 targets healthy",
                Activity::Bake,
            ),
            (
                "control plane 1.28, 345s left: all nodes Ready",
                "control plane 1.28, 3s left: all nodes Ready",
                "control plane 1.28: all nodes Ready",
                Activity::Bake,
            ),
            (
                "baking 59s more after the last node",
                "baking 1s more after the last node",
                "baking after the last node",
                Activity::Bake,
            ),
            (
                "n1: waiting 1m05s, pods are stopping: a/b, a/c",
                "n1: waiting 9s, pods are stopping: a/c",
                "n1: pods are stopping: a/b, a/c",
                Activity::Work,
            ),
            (
                "node group g is CREATING; 1 of 3 nodes are Ready",
                "node group g is CREATING",
                "node group g is CREATING; 1 of 3 nodes are Ready",
                Activity::Work,
            ),
            (
                "outside the maintenance windows; the next one opens Sun",
                "outside the maintenance windows; the next one opens Sun",
                "outside the maintenance windows; the next one opens Sun",
                Activity::Window,
            ),
        ];
        // One wait, whatever its countdown says. By its text each poll would have been a wait of its own.
        for (first, later, text, activity) in cases {
            assert_eq!(wait_key(first), wait_key(later));
            assert_eq!(without_countdown(first), text);
            assert_eq!(classify_reason(None, first), activity, "{first}");
        }
        // Another node is another wait.
        assert_ne!(
            wait_key("n1: pods are stopping: a"),
            wait_key("n2: pods are stopping: a")
        );
    }
}
