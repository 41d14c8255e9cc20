//! Why no further node is replaced, for a person. Pure.

use super::budget::closed_by_itself;
use super::progress::{ReplacedNodes, ReplacementProgress};
use crate::engine::{Decision, StepRefusal};

/// What is known to stand in the way, or what Karpenter waits for.
pub fn explain_standstill(nodes: &ReplacedNodes, progress: &ReplacementProgress) -> String {
    let has_budget = matches!(nodes, ReplacedNodes::Pool(_));
    let mut why = Vec::new();
    if has_budget && progress.pool.as_ref().is_some_and(closed_by_itself) {
        why.push("a budget of the NodePool itself allows no node to be replaced".to_owned());
    }
    why.extend(progress.troubles.iter().cloned());
    why.extend(progress.blockers.iter().cloned());
    if has_budget && progress.drifted == 0 && progress.leaving.is_empty() {
        why.push(
            "Karpenter calls no node drifted: its node class selects the same image as before"
                .to_owned(),
        );
    }
    if why.is_empty() {
        why.push("nothing that eksup reads says why".to_owned());
    }
    why.join("; ")
}

/// Asks a person.
pub fn refuse_standstill<A>(nodes: &ReplacedNodes, why: &str) -> Decision<A> {
    let replacer = nodes.replacer();
    let fix = match nodes {
        ReplacedNodes::Pool(_) => {
            "Remove what stands in the way; Karpenter's events on the NodePool, its NodeClaims and nodes say more"
        }
        ReplacedNodes::AutoMode => {
            "Remove what stands in the way; EKS's events on nodes and NodeClaims say more, and it ends a node after 21 days at the latest"
        }
    };
    Decision::Refuse(
        StepRefusal::new(format!("{replacer} replaces no further node: {why}")).with_fix(fix),
    )
}
