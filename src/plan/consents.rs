//! Consents of the drain: a word for all workloads, or a list of those that are meant.

use super::keys::known_keys;
use super::tree::{TreeNode, TreeValue};
use super::types::{Consent, Jobs};
use super::value_reader::{MapFields, ValueReader, note_missing, shorten_text};
use crate::model::consent::WorkloadPattern;

/// Reads `block`, `evict` or `{evict: [...]}`.
pub fn read_consent(r: &mut ValueReader, drain: &MapFields<'_>, key: &str) -> Option<Consent> {
    let node = drain.get(key)?;
    if let Some(patterns) = read_patterns(r, node, &drain.path_of(key)) {
        return Some(Consent::EvictOnly(patterns));
    }
    let words = [("block", false), ("evict", true)];
    let evict = read_word(r, node, &drain.path_of(key), &words)?;
    Some(if evict {
        Consent::Evict
    } else {
        Consent::Block
    })
}

/// Reads `wait`, `evict` or `{evict: [...]}`.
pub fn read_jobs_consent(r: &mut ValueReader, drain: &MapFields<'_>, key: &str) -> Option<Jobs> {
    let node = drain.get(key)?;
    if let Some(patterns) = read_patterns(r, node, &drain.path_of(key)) {
        return Some(Jobs::EvictOnly(patterns));
    }
    let words = [("wait", false), ("evict", true)];
    let evict = read_word(r, node, &drain.path_of(key), &words)?;
    Some(if evict { Jobs::Evict } else { Jobs::Wait })
}

fn read_word(
    r: &mut ValueReader,
    node: &TreeNode,
    path: &str,
    words: &[(&str, bool)],
) -> Option<bool> {
    match node.what {
        // Its problems are noted already.
        TreeValue::Map(_) => None,
        _ => r.read_choice(node, path, words),
    }
}

/// The workloads of `{evict: [...]}`; none where the value is no such map.
fn read_patterns(r: &mut ValueReader, node: &TreeNode, path: &str) -> Option<Vec<WorkloadPattern>> {
    let TreeValue::Map(_) = node.what else {
        return None;
    };
    let f = r.read_fields(node, path, known_keys("drain.consent"));
    let example = "Deployment shop/web";
    let Some(list) = f.get("evict") else {
        return note_missing(r, &f, "evict", "evict: [\"Deployment shop/web\"]");
    };
    let mut all = Vec::new();
    for text in r.read_texts(list, &f.path_of("evict"), example) {
        match WorkloadPattern::parse(&text) {
            Some(pattern) => all.push(pattern),
            None => r.note_problem(
                "plan::value",
                list.at,
                format!("`{}` names no workload", shorten_text(&text)),
                "write `namespace/*`, `namespace/name` or `Kind namespace/name`, such as `Deployment shop/web`; the name may end in `*`",
            ),
        }
    }
    Some(all)
}
