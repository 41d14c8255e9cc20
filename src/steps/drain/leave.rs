//! The drain turned round: green's pods go back to blue, by the rules of the plan's drain.
//!
//! DeleteNodegroup drains every node at once and ends it after five minutes whatever the budgets say (FACTS C6), so green
//! is emptied first, exactly as blue was: budgets, target groups, volumes, single replicas, deadlines.

use std::time::Duration;

use super::Drain;
use crate::route::DrainSpec;

/// The way back of a drain from blue to `green`: empties `green`, whose pods go to `blue`.
pub fn leaving(id: &str, green: &str, blue: &str, spec: &DrainSpec) -> Drain {
    let spec = DrainSpec {
        // Blue stands whole; and who goes back has seen enough.
        surge: None,
        canary_bake: None,
        bake: Duration::ZERO,
        // Green's instances are ended right after: what ran under a dead kubelet ends with them.
        skip_dead_kubelets: true,
        // A node of green cannot be left as it is, because the group is deleted.
        on_deadline: match spec.on_deadline.as_str() {
            "skip" => "stop".to_owned(),
            other => other.to_owned(),
        },
        ..spec.clone()
    };
    Drain::new(id.to_owned(), green.to_owned(), blue.to_owned(), spec)
}
