//! Holds retired words out of the code, the documents and what the program says: one word is used for one idea, and
//! `docs/terms.md` says which.

use std::fs;
use std::path::{Path, PathBuf};

/// Words and phrases that are not used any more, each with what is said instead.
const RETIRED: &[(&str, &str)] = &[
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    ("for ever", "forever"),
    ("way back", "rollback"),
    ("taken back", "rolled back"),
    ("takes back", "rolls back"),
    ("take back", "roll back"),
    ("goes back", "is rolled back, or returns"),
    ("stands so", "the state itself"),
    ("too dear", "too expensive"),
    ("hush", "wait"),
    ("errand", "request"),
    ("journey", "session"),
    ("gear", "mode"),
    ("wish", "plan entry, or specification"),
    ("fate", "fault"),
    ("weather", "fault schedule"),
    ("storm", "chaos"),
    ("shield", "cordon"),
    ("whereabouts", "live status"),
    ("anew", "again"),
    ("brother", "sibling"),
    ("laid hands", "changed"),
    ("run to an end", "run to completion"),
];

/// Every file that somebody reads: sources, tests, plans, documents.
fn texts() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open: Vec<PathBuf> = ["src", "tests", "docs", "plans", "README.md"]
        .map(|name| root.join(name))
        .to_vec();
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            // Recordings of real servers, not our words.
            if !path.ends_with("tests/data") {
                open.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
        } else if ["rs", "md", "yaml", "snap"].contains(&extension(&path)) && !is_this_file(&path) {
            files.push(path);
        }
    }
    files
}

fn extension(path: &Path) -> &str {
    path.extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default()
}

fn is_this_file(path: &Path) -> bool {
    path.file_name() == Path::new(file!()).file_name()
}

/// The retired words in a text, by line. A word counts whole, whatever its case, and so does a part of a name.
fn find_retired(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words = split_words(&line.replace("\\n", " "));
        for (retired, _) in RETIRED {
            let parts: Vec<&str> = retired.split(' ').collect();
            if words.windows(parts.len()).any(|w| w == parts.as_slice()) {
                found.push((number + 1, *retired));
            }
        }
    }
    found
}

/// `fn mend_it(WayBack)` is `fn`, `mend`, `it`, `way`, `back`.
fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut after_small = false;
    for c in line.chars() {
        let starts_word = c.is_uppercase() && after_small;
        if (!c.is_alphanumeric() || starts_word) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
        after_small = c.is_lowercase() || c.is_numeric();
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[test]
fn no_text_uses_a_retired_word() {
    let mut told = Vec::new();
    for path in texts() {
        let text = fs::read_to_string(&path).unwrap();
        for (line, retired) in find_retired(&text) {
            let instead = RETIRED.iter().find(|(word, _)| *word == retired).unwrap().1;
            told.push(format!(
                "{}:{line}: `{retired}`; say: {instead}",
                path.display()
            ));
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn a_retired_word_is_found_in_sentences_and_in_names() {
    for text in [
        "Mend it.",
        "fn find_way_back() {}",
        "struct WayBack;",
        "on the way back,",
        r"\nway back:",
    ] {
        assert_eq!(find_retired(text).len(), 1, "{text}");
    }
    for text in [
        "amend",
        "recommended",
        "a way that leads back",
        "feature-gear2",
    ] {
        assert_eq!(find_retired(text).len(), 0, "{text}");
    }
}
