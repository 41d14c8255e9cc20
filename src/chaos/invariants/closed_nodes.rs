//! Law on what a cluster autoscaler gets to take away: a node that the upgrade has closed is the upgrade's to empty, and
//! a rollback's to go back to.

use super::Invariants;
use crate::model::marks::CORDONED;
use crate::twin::k8s::ground_truth;
use crate::twin::world::SimWorld;

/// The autoscaler is about to empty and end a node. What its pods lose is its doing.
pub fn check_autoscaler_removal(laws: &mut Invariants, world: &SimWorld, node: &str) {
    laws.excuse_node_or_group(node);
    let mark = format!("{node}: {CORDONED}");
    if ground_truth::list_marks(world, CORDONED).contains(&mark) {
        let what = format!("{node}, closed by the upgrade, is taken by the autoscaler");
        laws.record_violation(world, "a closed node is kept from the autoscaler", what);
    }
}
