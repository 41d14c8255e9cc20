//! Holds the citations: `docs/eks-behaviour.md` is a well-formed table of facts, every fact id that the code or the docs
//! cite is in it, and no source file cites a document that is not in the repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const CONFIDENCE: &[&str] = &[
    "measured",
    "source",
    "field report",
    "inferred",
    "unsettled",
];

/// Documents that are not in the repository, spelled in halves so that this file does not cite them.
const FOREIGN: &[(&str, &str)] = &[
    ("FAC", "TS"),
    ("DES", "IGN.md"),
    ("CONT", "RACT.md"),
    ("NAM", "ES.md"),
    ("STY", "LE.md"),
    ("PEE", "RS.md"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // Recordings of real servers, not our words.
            if !path.ends_with("tests/data") {
                collect(&path, out);
            }
        } else {
            out.push(path);
        }
    }
}

/// Every text that people wrote here: sources, tests, docs, plans, the CI's scripts.
fn texts() -> Vec<(PathBuf, String)> {
    let mut files = vec![root().join("README.md"), root().join("SECURITY.md")];
    for dir in ["src", "tests", "docs", "plans", ".ci"] {
        collect(&root().join(dir), &mut files);
    }
    files.sort();
    let text = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        Some((path, text))
    };
    files.into_iter().filter_map(text).collect()
}

/// A row of a table of facts.
struct Fact {
    id: String,
    source: String,
    confidence: String,
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
    Some(inner.split(" | ").map(str::trim).collect())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `EKS-CP-3` as `EKS-CP`; nothing for what is no id.
fn area(id: &str) -> Option<&str> {
    let (area, number) = id.rsplit_once('-')?;
    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
    (is_number(number) && area.chars().all(upper)).then_some(area)
}

fn page() -> String {
    fs::read_to_string(root().join("docs/eks-behaviour.md")).unwrap()
}

fn facts() -> Vec<Fact> {
    let rows = page();
    let rows = rows.lines().filter_map(cells);
    let rows = rows.filter(|row| area(row[0]).is_some());
    rows.map(|row| {
        assert_eq!(row.len(), 4, "a fact has four cells: {row:?}");
        Fact {
            id: row[0].to_owned(),
            source: row[2].to_owned(),
            confidence: row[3].to_owned(),
        }
    })
    .collect()
}

/// Words made of what ids are made of.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .map(|word| word.trim_matches('-'))
}

/// Ids in `text` that `known` lacks, of areas that the page has or that begin as its areas do.
fn unknown_ids<'a>(text: &'a str, known: &BTreeSet<String>) -> Vec<&'a str> {
    let families: BTreeSet<&str> = known
        .iter()
        .filter_map(|id| area(id))
        .map(|area| area.split('-').next().unwrap_or(area))
        .collect();
    words(text)
        .filter(|word| area(word).is_some_and(|a| families.contains(a.split('-').next().unwrap())))
        .filter(|word| !known.contains(*word))
        .collect()
}

#[test]
fn every_fact_has_an_id_of_its_own_a_source_and_a_confidence() {
    let facts = facts();
    assert!(
        facts.len() > 100,
        "the page was not understood: {}",
        facts.len()
    );
    let mut seen = BTreeSet::new();
    for fact in &facts {
        assert!(seen.insert(&fact.id), "{} is there more than once", fact.id);
        assert!(
            CONFIDENCE.contains(&fact.confidence.as_str()),
            "{}: {}",
            fact.id,
            fact.confidence
        );
        // What nobody could find out has no source, and says so.
        let none = fact.source == "none found" && fact.confidence == "unsettled";
        assert!(
            none || !fact.source.is_empty() && fact.source != "none found",
            "{}",
            fact.id
        );
    }
}

#[test]
fn every_id_that_is_cited_is_in_the_page() {
    let known: BTreeSet<String> = facts().into_iter().map(|f| f.id).collect();
    let own = root().join(file!());
    let (mut wrong, mut cited) = (Vec::new(), BTreeSet::new());
    for (path, text) in texts() {
        if path == own {
            continue;
        }
        for id in unknown_ids(&text, &known) {
            wrong.push(format!("{} cites {id}", path.display()));
        }
        if !path.ends_with("docs/eks-behaviour.md") {
            cited.extend(
                words(&text)
                    .filter(|w| known.contains(*w))
                    .map(str::to_owned),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!cited.is_empty(), "nothing cites the page");
}

#[test]
fn an_id_that_is_not_in_the_page_is_noticed() {
    let known = BTreeSet::from(["EKS-CP-1".to_owned(), "CA-1".to_owned()]);
    let text = "// As EKS-CP-1 and CA-1 say; not so EKS-CP-99, EKS-XX-1 and CA-7. SHA-1 and UTF-8 are no facts.";
    assert_eq!(unknown_ids(text, &known), ["EKS-CP-99", "EKS-XX-1", "CA-7"]);
}

#[test]
fn no_text_cites_a_document_that_is_not_in_the_repository() {
    let mut wrong = Vec::new();
    for (path, text) in texts() {
        for (head, tail) in FOREIGN {
            let name = format!("{head}{tail}");
            let part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_' || c == '-';
            let mut all = text.split(|c: char| !part(c)).map(|w| w.trim_matches('.'));
            if all.any(|word| word == name) {
                wrong.push(format!("{} cites {name}", path.display()));
            }
        }
        // A page of the docs that the code sends people to.
        if path.extension().is_some_and(|e| e == "rs") {
            let pages = text.split("docs/").skip(1);
            let pages = pages.filter_map(|rest| rest.split_once(".md").map(|(name, _)| name));
            for name in pages.filter(|n| n.chars().all(|c| c.is_ascii_lowercase() || c == '-')) {
                if !root().join("docs").join(format!("{name}.md")).exists() {
                    wrong.push(format!("{} cites docs/{name}.md", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
