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
