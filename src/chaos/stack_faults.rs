//! What a seed does to the CloudFormation stacks that a plan deletes.
//!
//! It draws from a generator of its own, and only for plans that delete stacks, so that the schedules of all others stay as
//! they are.

use super::trial_speed::TrialSpeed;
use crate::twin::fault::{RequestFaultKind, WorldChangeKind};

/// A stack that a plan deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackTarget {
    pub name: String,
    /// What its template calls the group.
    pub group: String,
}

/// Where requests to CloudFormation fail.
const FAILING_OPERATIONS: &[&str] = &[
    "cloudformation:*",
    "cloudformation:DescribeStacks",
    "cloudformation:ListStackResources",
    "cloudformation:GetTemplate",
    "cloudformation:CreateChangeSet",
    "cloudformation:DescribeChangeSet",
    "cloudformation:ExecuteChangeSet",
    "cloudformation:DeleteChangeSet",
    "cloudformation:DeleteStack",
];

/// Draws the rules of a seed: a request that fails or an operation that does, in half of the seeds, and both in some. An
/// operation fails once, so that the same command finishes after it.
pub fn draw_rules(stacks: &[StackTarget], seed: u64, speed: TrialSpeed) -> Vec<String> {
    if stacks.is_empty() {
        return Vec::new();
    }
    // The seed is spread over all bits, and by another constant than those of the other parts.
    let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x8ebc_6af0_9c88_c6e3) ^ 0x57ac);
    let chance = rng.u8(..4);
    let mut rules = Vec::new();
    if chance % 2 == 1 {
        rules.push(draw_request_fault(&mut rng, speed));
    }
    if chance >= 2 {
        let stack = &stacks[rng.usize(..stacks.len())];
        rules.push(match rng.bool() {
            true => format!("{}:{}", WorldChangeKind::StackUpdateFails, stack.name),
            false => {
                let kind = WorldChangeKind::StackDeleteFails;
                format!("{kind}:{}/{}", stack.name, stack.group)
            }
        });
    }
    rules
}

fn draw_request_fault(rng: &mut fastrand::Rng, speed: TrialSpeed) -> String {
    let place = FAILING_OPERATIONS[rng.usize(..FAILING_OPERATIONS.len())];
    // Stacks go at the end of an upgrade, and are read at its beginning; few requests are about them.
    let (times, at) = (
        rng.u32(1..=5),
        match rng.bool() {
            true => 0,
            false => rng.u64(0..speed.expected_seconds()),
        },
    );
    match rng.u8(0..6) {
        0 => format!("{}:{place}:{times}@{at}s", RequestFaultKind::Throttle),
        1 => format!("{}:{place}:{times}@{at}s", RequestFaultKind::Fail),
        2 => format!("{}:{place}:503:{times}@{at}s", RequestFaultKind::Status),
        3 => format!("{}:{place}:{times}@{at}s", RequestFaultKind::DropBefore),
        // Twice as likely: what was carried out and not answered is the hardest for a client.
        _ => format!("{}:{place}:{times}@{at}s", RequestFaultKind::DropAfter),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::twin::fault::{FaultKind, FaultRule};

    #[test]
    fn only_plans_that_delete_stacks_get_these_rules_and_the_grammar_knows_them() {
        let stack = StackTarget {
            name: "eksctl-eksctl-nodegroup-apps".to_owned(),
            group: "ManagedNodeGroup".to_owned(),
        };
        let (mut drawn, mut kinds) = (0, BTreeSet::new());
        for seed in 0..500 {
            assert!(draw_rules(&[], seed, TrialSpeed::FASTEST).is_empty());
            for text in draw_rules(std::slice::from_ref(&stack), seed, TrialSpeed::FASTEST) {
                let read = text.parse::<FaultRule>();
                assert!(read.is_ok(), "{text}: {read:?}");
                kinds.insert(FaultKind::of_rule(&text).unwrap().name());
                drawn += 1;
            }
        }
        assert!((400..600).contains(&drawn), "{drawn}");
        assert_eq!(kinds.len(), 7, "{kinds:?}");
    }
}
