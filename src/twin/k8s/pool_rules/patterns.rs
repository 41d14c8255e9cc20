//! The patterns that the definitions have for texts, written out.

/// `^((100|[0-9]{1,2})%|[0-9]+)$`
pub fn is_budget_nodes(text: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    match text.strip_suffix('%') {
        Some(percent) => percent == "100" || (digits(percent) && percent.len() <= 2),
        None => digits(text),
    }
}

/// `^([0-9]+(s|m|h))+$`
pub fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let Some((_, after)) = take_part(rest, &['s', 'm', 'h']) else {
            return false;
        };
        rest = after;
    }
    !text.is_empty()
}

/// The same, or `Never`.
pub fn is_duration_or_never(text: &str) -> bool {
    text == "Never" || is_duration(text)
}

/// `^((([0-9]+(h|m))|([0-9]+h[0-9]+m))(0s)?)$`
pub fn is_budget_duration(text: &str) -> bool {
    let is_whole = |text: &str| match take_part(text, &['h', 'm']) {
        Some((_, "")) => true,
        Some(('h', after)) => matches!(take_part(after, &['m']), Some((_, ""))),
        _ => false,
    };
    is_whole(text) || text.strip_suffix("0s").is_some_and(is_whole)
}

/// `^(@(annually|...))|((.+)\s(.+)\s(.+)\s(.+)\s(.+))$`: a word at the beginning, or five parts.
pub fn is_schedule(text: &str) -> bool {
    const WORDS: &[&str] = &[
        "@annually",
        "@yearly",
        "@monthly",
        "@weekly",
        "@daily",
        "@midnight",
        "@hourly",
    ];
    WORDS.iter().any(|w| text.starts_with(w)) || text.split_whitespace().count() >= 5
}

/// A quantity of a resource: a number with a suffix or an exponent of ten.
pub fn is_quantity(text: &str) -> bool {
    let is_number = |text: &str| {
        let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
        let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        digits(whole) && digits(rest) && (!whole.is_empty() || !rest.is_empty())
    };
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let is_suffix = match suffix {
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" => true,
        "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => true,
        other => other
            .strip_prefix(['e', 'E'])
            .is_some_and(|power| is_number(power.strip_prefix(['+', '-']).unwrap_or(power))),
    };
    is_number(number) && is_suffix
}

/// `ami-[0-9a-z]+`, anywhere in the text.
pub fn has_image_id(text: &str) -> bool {
    let mut ids = text.match_indices("ami-");
    ids.any(|(at, _)| {
        let next = text[at + 4..].bytes().next();
        next.is_some_and(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    })
}

/// A number and one of the units: the unit, and what comes after it.
fn take_part<'t>(text: &'t str, units: &[char]) -> Option<(char, &'t str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = text[digits..].chars().next()?;
    (digits > 0 && units.contains(&unit)).then(|| (unit, &text[digits + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_what_a_real_server_took() {
        for good in ["0", "1", "10", "100%", "99%", "0%", "007", "12345"] {
            assert!(is_budget_nodes(good), "{good}");
        }
        for bad in ["101%", "-1", "1.5", "", "%"] {
            assert!(!is_budget_nodes(bad), "{bad}");
        }
        assert!(is_duration_or_never("1h30m") && is_duration_or_never("Never"));
        for bad in ["30", "1d", "-1s", ""] {
            assert!(!is_duration_or_never(bad), "{bad}");
        }
        assert!(is_budget_duration("8h") && is_budget_duration("1h30m0s"));
        assert!(!is_budget_duration("30s"));
        assert!(is_schedule("0 9 * * mon-fri") && !is_schedule("* * *"));
    }
}
