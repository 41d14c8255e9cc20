//! Patterns in which `*` is any text and `?` any character, as IAM and fault rules have them.

/// Whether `text` fits `pattern`. Takes no longer than the product of both lengths: a pattern of many stars comes from
/// whoever writes a rule or a policy, and must not hang anything.
pub fn matches_glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where the last star stands, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    // Each character is either matched or taken by the last star that stands before it.
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            // Where nothing fits, the star takes one character more, and everything after it begins again.
            Some(_) | None => match star {
                Some((at, taken)) => {
                    p = at + 1;
                    t = taken + 1;
                    star = Some((at, taken + 1));
                }
                None => return false,
            },
        }
    }
    // Stars that are left at the end match the empty text.
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches_glob;

    #[test]
    fn a_star_is_any_text_and_a_question_mark_any_character() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "abc"),
            ("a*c", "abbc"),
            ("a*c", "ac"),
            ("*b*", "abc"),
            ("?b?", "abc"),
            ("*aab", "aaaab"),
            ("Describe*", "DescribeCluster"),
        ] {
            assert!(matches_glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("a*c", "acb"),
            ("?", ""),
            ("ab", "abc"),
        ] {
            assert!(!matches_glob(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_ends() {
        assert!(!matches_glob(
            &("*a".repeat(2_000) + "b"),
            &"a".repeat(4_000)
        ));
    }
}
