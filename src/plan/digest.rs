//! What binds a run to its plan.

use sha2::{Digest, Sha256};

use super::Plan;

/// The digest of what a plan means: comments, order of keys and spelled-out defaults make no difference.
pub fn plan_digest(plan: &Plan) -> String {
    // A plan is plain data with text keys, so that writing it cannot fail; `Null` would only make digests equal.
    let canonical = serde_json::to_value(plan).unwrap_or_default().to_string();
    format!("sha256:{}", hex::encode(Sha256::digest(canonical)))
}

#[cfg(test)]
mod tests {
    use crate::plan::{parse_plan, plan_digest};

    #[test]
    fn spelling_a_default_out_changes_nothing_and_changing_it_does() {
        let short = parse_plan("a", "cluster: prod\nto: 1.30\n").unwrap();
        let long = parse_plan(
            "b",
            "# a comment\nto: '1.30'\ndrain: {parallel: 1}\ncluster: prod\n",
        )
        .unwrap();
        let other = parse_plan("c", "cluster: prod\nto: 1.30\ndrain: {parallel: 2}\n").unwrap();
        assert_eq!(plan_digest(&short), plan_digest(&long));
        assert_ne!(plan_digest(&short), plan_digest(&other));
    }
}
