//! The consents of a plan for single budgets.

use std::collections::BTreeMap;

use super::tree::{TreeNode, TreeValue};
use super::types::BudgetConsent;
use super::value_reader::{ValueReader, shorten_text};

/// Where they stand in a plan.
const BUDGETS_PATH: &str = "drain.budgets";

/// Reads a map of `NAMESPACE/NAME` or `NAMESPACE/*` to a consent.
pub fn read_budget_consents(
    r: &mut ValueReader,
    node: &TreeNode,
) -> BTreeMap<String, BudgetConsent> {
    let words = [
        ("block", BudgetConsent::Block),
        ("wait", BudgetConsent::Wait),
        ("delete", BudgetConsent::Delete),
    ];
    let mut all = BTreeMap::new();
    let entries = match &node.what {
        TreeValue::Map(entries) => entries.as_slice(),
        TreeValue::Null => &[],
        TreeValue::Scalar { .. } | TreeValue::List(_) => {
            r.note_wrong_type(node, BUDGETS_PATH, "a map, such as `{kafka/events: wait}`");
            &[]
        }
    };
    for entry in entries {
        if !is_budget_name(&entry.key) {
            r.note_problem(
                "plan::value",
                entry.at,
                format!(
                    "`{}` names no PodDisruptionBudget",
                    shorten_text(&entry.key)
                ),
                "write `NAMESPACE/NAME`, or `NAMESPACE/*` for all of a namespace",
            );
            continue;
        }
        let path = format!("{BUDGETS_PATH}.{}", shorten_text(&entry.key));
        let Some(consent) = r.read_choice(&entry.value, &path, &words) else {
            continue;
        };
        if all.insert(entry.key.clone(), consent).is_some() {
            r.note_problem(
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
