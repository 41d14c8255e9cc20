//! The consents of a plan for single budgets.

use std::collections::BTreeMap;

use super::read::{Reader, shorten};
use super::tree::{Node, What};
use super::types::BudgetConsent;

/// Where they stand in a plan.
const PATH: &str = "drain.budgets";

/// Reads a map of `NAMESPACE/NAME` or `NAMESPACE/*` to a consent.
pub fn budgets(r: &mut Reader, node: &Node) -> BTreeMap<String, BudgetConsent> {
    let words = [
        ("block", BudgetConsent::Block),
        ("wait", BudgetConsent::Wait),
        ("delete", BudgetConsent::Delete),
    ];
    let mut all = BTreeMap::new();
    let entries = match &node.what {
        What::Map(entries) => entries.as_slice(),
        What::Null => &[],
        What::Scalar { .. } | What::List(_) => {
            r.wrong_type(node, PATH, "a map, such as `{kafka/events: wait}`");
            &[]
        }
    };
    for entry in entries {
        if !is_budget_name(&entry.key) {
            r.note(
                "plan::value",
                entry.at,
                format!("`{}` names no PodDisruptionBudget", shorten(&entry.key)),
                "write `NAMESPACE/NAME`, or `NAMESPACE/*` for all of a namespace",
            );
            continue;
        }
        let path = format!("{PATH}.{}", shorten(&entry.key));
        let Some(consent) = r.choice(&entry.value, &path, &words) else {
            continue;
        };
        if all.insert(entry.key.clone(), consent).is_some() {
            r.note(
                "plan::duplicate-key",
                entry.at,
                format!("`{path}` is given twice"),
                "keep one of the two",
            );
        }
    }
    all
}

/// Whether a text is `NAMESPACE/NAME` or `NAMESPACE/*`.
fn is_budget_name(text: &str) -> bool {
    let named = |part: &str| {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        !part.is_empty() && part.len() <= 253 && part.bytes().all(fits)
    };
    text.split_once('/')
        .is_some_and(|(namespace, name)| named(namespace) && (name == "*" || named(name)))
}
