//! Texts of events as a log or a terminal shows them: durations in words, no ids and countdowns, long lists cut.
//!
//! Events keep the whole text; only what is shown is shortened.

use std::time::Duration;

use super::text::format_duration;

/// A line of a log is no longer than this, in characters.
pub const MAX_LINE_WIDTH: usize = 240;

/// Returns `text` with seconds as durations (`3601s` is `1h`), without fractions of a timestamp's second and without
/// ids of EKS updates.
pub fn tidy_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive([' ', '\n']) {
        let word = part.trim_end_matches([' ', '\n']);
        let space = &part[word.len()..];
        if is_uuid(word) && !space.is_empty() {
            continue;
        }
        out.push_str(&tidy_word(word));
        out.push_str(space);
    }
    out
}

/// Returns a reason without what changes at every look: how long is left, and how long it was waited already.
pub fn steady_reason(why: &str) -> String {
    let why = tidy_text(why);
    let words: Vec<&str> = why.split(' ').collect();
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let next = words.get(at + 1).copied().unwrap_or_default();
        let (core, _) = split_punctuation(word);
        let (next_core, next_end) = split_punctuation(next);
        if is_duration(core) && matches!(next_core, "left" | "more") {
            // `control plane 1.28, 9m59s left: all` becomes `control plane 1.28: all`.
            if let Some(last) = out.last_mut() {
                let kept = last.trim_end_matches(',').len();
                last.truncate(kept);
                last.push_str(next_end);
            }
            at += 2;
        } else if core == "waiting" && is_duration(next_core) && !next_end.is_empty() {
            at += 2;
        } else {
            out.push((*word).to_owned());
            at += 1;
        }
    }
    out.join(" ")
}

/// Returns what two reasons have in common when only their times differ.
pub fn reason_without_times(why: &str) -> String {
    let steady = steady_reason(why);
    let words = steady.split(' ').map(|word| {
        let (core, end) = split_punctuation(word);
        if is_duration(core) {
            format!("#{end}")
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Returns how long the whole step still lasts, where its reason says so: a bake's or a soak's `599s left`.
pub fn step_time_left(why: &str) -> Option<Duration> {
    find_countdown(why, &["left"])
}

/// Returns how long a wait still lasts, where its reason says so: of a step, or of one stage of it (`baking 23s more`).
pub fn time_left_in(why: &str) -> Option<Duration> {
    find_countdown(why, &["left", "more"])
}

fn find_countdown(why: &str, ends: &[&str]) -> Option<Duration> {
    let words: Vec<&str> = why.split(' ').collect();
    words.windows(2).find_map(|pair| {
        let (next, _) = split_punctuation(pair[1]);
        let seconds = pair[0].strip_suffix('s')?.parse().ok()?;
        ends.contains(&next).then(|| Duration::from_secs(seconds))
    })
}

/// Why a run is paused, and the words before the command that it is paused with.
pub struct PauseWords {
    pub reason: String,
    pub lead: &'static str,
    /// The reason has a command of its own, and cannot be cut.
    pub has_command: bool,
}

impl PauseWords {
    /// Returns the words for the reason that the engine gives.
    pub fn new(why: &str, is_rehearsal: bool) -> Self {
        let missing_approval = why.split_once(" waits for approval: ");
        let (reason, lead) = match missing_approval {
            // The command that goes on would only pause again before that.
            Some((step, approve)) => (format!("{step} waits for approval: `{approve}`"), "then"),
            // The next rehearsal begins again from the start.
            None if is_rehearsal => (tidy_text(why), "again:"),
            None => (tidy_text(why), "continue with"),
        };
        Self {
            reason,
            lead,
            has_command: missing_approval.is_some(),
        }
    }

    /// Returns both as sentences, for Markdown.
    pub fn to_markdown(&self, command: &str) -> String {
        format!("{}. {} `{command}`", self.reason, self.lead_capitalized())
    }

    /// Returns the words that begin a sentence.
    pub fn lead_capitalized(&self) -> String {
        let (first, rest) = self.lead.split_at(1);
        first.to_uppercase() + rest
    }
}

/// Returns each line of `text` in at most `width` characters: the longest list keeps its first names and a count, and
/// what is still too long is cut.
pub fn fit_lines(text: &str, width: usize) -> String {
    let lines = text.lines().map(|line| fit_line(line, width));
    lines.collect::<Vec<_>>().join("\n")
}

fn fit_line(line: &str, width: usize) -> String {
    let mut line = line.to_owned();
    // Each turn shortens one list; the bound is for texts of lists only.
    for _ in 0..8 {
        if visible_width(&line) <= width {
            return line;
        }
        match shorten_longest_list(&line, width) {
            Some(shorter) => line = shorter,
            None => break,
        }
    }
    cut_text(&line, width)
}

/// Returns `text` cut to `width` characters, with `...` at the end where something is missing.
pub fn cut_text(text: &str, width: usize) -> String {
    if visible_width(text) <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(3);
    let (mut out, mut seen, mut escape) = (String::new(), 0, false);
    for c in text.chars() {
        escape |= c == '\u{1b}';
        if !escape {
            if seen == room {
                break;
            }
            seen += 1;
        }
        out.push(c);
        escape &= c != 'm';
    }
    let end = if text.contains('\u{1b}') {
        "\u{1b}[0m"
    } else {
        ""
    };
    format!("{}...{end}", out.trim_end())
}

/// Returns how many columns `text` takes; colours take none.
pub fn visible_width(text: &str) -> usize {
    let mut escape = false;
    let seen = text.chars().filter(|c| {
        escape |= *c == '\u{1b}';
        let shown = !escape;
        escape &= *c != 'm';
        shown
    });
    seen.count()
}

/// Shortens the longest list of three or more, as little as makes the line fit.
fn shorten_longest_list(line: &str, width: usize) -> Option<String> {
    let (start, end) = clauses(line)
        .into_iter()
        .filter(|(start, end)| list_items(&line[*start..*end]).len() >= 3)
        .max_by_key(|(start, end)| end - start)?;
    let items = list_items(&line[start..end]);
    let with_first = |kept: usize| {
        let more = items.len() - kept;
        let first = items[..kept].join(", ");
        format!("{}{first} and {more} more{}", &line[..start], &line[end..])
    };
    let fits = |kept: &usize| visible_width(&with_first(*kept)) <= width;
    let kept = (1..items.len() - 1).rev().find(fits).unwrap_or(1);
    Some(with_first(kept))
}

/// The places of the parts of a line that `: ` and `; ` divide, without brackets' contents.
fn clauses(line: &str) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    for (at, c) in line.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ':' | ';' if depth == 0 && line[at + 1..].starts_with(' ') => {
                out.push((start, at));
                start = at + 2;
            }
            _ => {}
        }
    }
    out.push((start, line.len()));
    out
}

/// The items of a list; a comma in brackets divides nothing.
fn list_items(clause: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    for (at, c) in clause.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 && clause[at + 1..].starts_with(' ') => {
                out.push(&clause[start..at]);
                start = at + 2;
            }
            _ => {}
        }
    }
    out.push(&clause[start..]);
    out
}

fn tidy_word(word: &str) -> String {
    let (core, end) = split_punctuation(word);
    let seconds = core.strip_suffix('s').and_then(|n| n.parse().ok());
    if let Some(seconds) = seconds.filter(|s| *s >= 60) {
        return format!("{}{end}", format_duration(Duration::from_secs(seconds)));
    }
    // `2026-11-27T18:01:56.149654632Z` is told to the second.
    let time: Option<jiff::Timestamp> = core.contains('T').then(|| core.parse().ok()).flatten();
    match time {
        Some(time) => format!("{}{end}", time.strftime("%Y-%m-%dT%H:%M:%SZ")),
        None => word.to_owned(),
    }
}

fn split_punctuation(word: &str) -> (&str, &str) {
    let core = word.trim_end_matches([',', '.', ':', ';', ')']);
    (core, &word[core.len()..])
}

/// Whether a word is a duration such as `45s` or `1h02m`.
fn is_duration(word: &str) -> bool {
    let mut digits = false;
    for c in word.chars() {
        match c {
            '0'..='9' => digits = true,
            'd' | 'h' | 'm' | 's' if digits => digits = false,
            _ => return false,
        }
    }
    !word.is_empty() && !digits
}

fn is_uuid(word: &str) -> bool {
    let parts: Vec<usize> = word.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_same_while_only_its_countdown_runs() {
        let bake =
            |left| format!("control plane 1.28, {left}s left: all nodes Ready, all as they were");
        assert_eq!(
            steady_reason(&bake(599)),
            "control plane 1.28: all nodes Ready, all as they were"
        );
        assert_eq!(steady_reason(&bake(599)), steady_reason(&bake(3)));
        assert_eq!(
            steady_reason("10% on green, baking 23s more, ok"),
            "10% on green, baking, ok"
        );
        assert_eq!(
            steady_reason("waiting 4m10s, PDB a/b allows 0 of 3"),
            "PDB a/b allows 0 of 3"
        );
        assert_eq!(
            reason_without_times("not empty for 61s, pod a"),
            reason_without_times("not empty for 3s, pod a")
        );
        assert_eq!(time_left_in(&bake(599)), Some(Duration::from_secs(599)));
        assert_eq!(
            time_left_in("10% on green, baking 23s more, ok"),
            Some(Duration::from_secs(23))
        );
        assert_eq!(step_time_left("10% on green, baking 23s more, ok"), None);
        assert_eq!(step_time_left(&bake(599)), Some(Duration::from_secs(599)));
        assert_eq!(time_left_in("9 pods left"), None);
    }

    #[test]
    fn a_pause_leads_to_the_command_that_helps_first() {
        let words = PauseWords::new(
            "`drain` waits for approval: eksup approve p.yaml drain",
            false,
        );
        let text = words.to_markdown("eksup apply p.yaml");
        assert_eq!(
            text,
            "`drain` waits for approval: `eksup approve p.yaml drain`. Then `eksup apply p.yaml`"
        );
        let words = PauseWords::new("the window closed", false);
        let text = words.to_markdown("eksup apply p.yaml");
        assert_eq!(
            text,
            "the window closed. Continue with `eksup apply p.yaml`"
        );
        let words = PauseWords::new("`drain` is done, as asked", true);
        assert_eq!((words.lead, words.has_command), ("again:", false));
    }

    #[test]
    fn update_ids_nanoseconds_and_thousands_of_seconds_are_not_shown() {
        let update =
            "EKS update ef66e729-323b-44ba-992c-81b96d87afdf (VersionUpdate) is in progress";
        assert_eq!(
            tidy_text(update),
            "EKS update (VersionUpdate) is in progress"
        );
        let given = "was approved by eva at 2026-11-27T18:01:56.149654632Z";
        assert_eq!(
            tidy_text(given),
            "was approved by eva at 2026-11-27T18:01:56Z"
        );
        assert_eq!(
            tidy_text("is empty: 3600s passed, for 3601s."),
            "is empty: 1h passed, for 1h."
        );
        let group = "detach a from eks-blue-5fa9ad04-5dee-48aa-8576-da0674dfc9d9\n  now: 5s";
        assert_eq!(tidy_text(group), group);
    }

    #[test]
    fn a_wave_of_evictions_keeps_its_first_names_and_a_count() {
        let pods: Vec<String> = (0..60).map(|i| format!("shop/web-6d9f-{i:05}")).collect();
        let line = format!(
            "drain-blue: begin with ip-10-0-1-7; evict {}",
            pods.join(", ")
        );
        let short = fit_lines(&line, MAX_LINE_WIDTH);
        assert!(
            short.chars().count() <= MAX_LINE_WIDTH && short.len() > 200,
            "{short}"
        );
        assert!(
            short.starts_with("drain-blue: begin with ip-10-0-1-7; evict shop/web-6d9f-00000, ")
        );
        assert!(short.ends_with(" more"), "{short}");
        let shown = short.matches("shop/web").count();
        assert!(
            short.contains(&format!(" and {} more", 60 - shown)),
            "{short}"
        );
    }

    #[test]
    fn what_is_no_list_is_cut_and_colours_take_no_room() {
        let red = format!("\u{1b}[31m{}\u{1b}[0m", "x".repeat(300));
        let short = fit_lines(&red, 100);
        assert_eq!(visible_width(&short), 100);
        assert!(short.ends_with("...\u{1b}[0m"));
        assert_eq!(fit_lines("short\nlines", 10), "short\nlines");
    }
}
