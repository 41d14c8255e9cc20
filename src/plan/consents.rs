//! Consents of the drain: a word for all workloads, or a list of those that are meant.

use super::keys::keys;
use super::read::{Fields, Reader, missing, shorten};
use super::tree::{Node, What};
use super::types::{Consent, Jobs};
use crate::model::consent::WorkloadPattern;

/// Reads `block`, `evict` or `{evict: [...]}`.
pub fn consent(r: &mut Reader, drain: &Fields<'_>, key: &str) -> Option<Consent> {
    let node = drain.get(key)?;
    if let Some(patterns) = patterns(r, node, &drain.path_of(key)) {
        return Some(Consent::EvictOnly(patterns));
    }
    let words = [("block", false), ("evict", true)];
    let evict = word(r, node, &drain.path_of(key), &words)?;
    Some(if evict {
        Consent::Evict
    } else {
        Consent::Block
    })
}

/// Reads `wait`, `evict` or `{evict: [...]}`.
pub fn jobs(r: &mut Reader, drain: &Fields<'_>, key: &str) -> Option<Jobs> {
    let node = drain.get(key)?;
    if let Some(patterns) = patterns(r, node, &drain.path_of(key)) {
        return Some(Jobs::EvictOnly(patterns));
    }
    let words = [("wait", false), ("evict", true)];
    let evict = word(r, node, &drain.path_of(key), &words)?;
    Some(if evict { Jobs::Evict } else { Jobs::Wait })
}

fn word(r: &mut Reader, node: &Node, path: &str, words: &[(&str, bool)]) -> Option<bool> {
    match node.what {
        // Its problems are noted already.
        What::Map(_) => None,
        _ => r.choice(node, path, words),
    }
}

/// The workloads of `{evict: [...]}`; none where the value is no such map.
fn patterns(r: &mut Reader, node: &Node, path: &str) -> Option<Vec<WorkloadPattern>> {
    let What::Map(_) = node.what else { return None };
    let f = r.fields(node, path, keys("drain.consent"));
    let example = "Deployment shop/web";
    let Some(list) = f.get("evict") else {
        return missing(r, &f, "evict", "evict: [\"Deployment shop/web\"]");
    };
    let mut all = Vec::new();
    for text in r.texts(list, &f.path_of("evict"), example) {
        match WorkloadPattern::parse(&text) {
            Some(pattern) => all.push(pattern),
            None => r.note(
                "plan::value",
                list.at,
                format!("`{}` names no workload", shorten(&text)),
                "write `namespace/*`, `namespace/name` or `Kind namespace/name`, such as `Deployment shop/web`; the name may end in `*`",
            ),
        }
    }
    Some(all)
}
