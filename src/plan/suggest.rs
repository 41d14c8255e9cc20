//! Did you mean.

/// The known word nearest to `word`, when it is near enough to be a slip.
pub fn nearest_word<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A long key is copied from elsewhere, not mistyped; the table below is quadratic.
    if word.len() > 64 {
        return None;
    }
    let plain = |s: &str| {
        s.chars()
            .filter(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase()
    };
    let wanted = plain(word);
    known
        .into_iter()
        .map(|k| (edit_distance(&wanted, &plain(k)), k))
        .filter(|(d, k)| *d <= 1 + k.len() / 4)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// The names whose text is nearest to `word`, where that is near enough to be a slip; of `known` each text with its name.
pub fn nearest_words<'a>(
    word: &str,
    known: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<&'a str> {
    let known: Vec<(&str, &str)> = known.into_iter().collect();
    let Some(nearest) = nearest_word(word, known.iter().map(|(text, _)| *text)) else {
        return Vec::new();
    };
    let same = known.into_iter().filter(|(text, _)| *text == nearest);
    same.map(|(_, name)| name).collect()
}

/// Edits between two words.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = if ca == *cb {
                diagonal
            } else {
                1 + diagonal.min(row[j]).min(row[j + 1])
            };
            diagonal = row[j + 1];
            row[j + 1] = cost;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_a_stranger_finds_none() {
        let known = ["nodeGroups", "drain", "controlPlane"];
        assert_eq!(nearest_word("nodegroups", known), Some("nodeGroups"));
        assert_eq!(nearest_word("node_groups", known), Some("nodeGroups"));
        assert_eq!(nearest_word("darin", known), Some("drain"));
        assert_eq!(nearest_word("metadata", known), None);
    }
}
