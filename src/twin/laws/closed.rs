//! Law on what a cluster autoscaler gets to take away: a node that the upgrade has closed is the upgrade's to empty, and
//! a rollback's to go back to.

use super::breach;
use crate::model::marks::CORDONED;
use crate::twin::k8s::look;
use crate::twin::world::World;

/// The autoscaler is about to empty and end a node. What its pods lose is its doing.
pub fn autoscaler_takes(world: &mut World, node: &str) {
    let Some(laws) = &mut world.laws else { return };
    laws.excuse(node);
    let mark = format!("{node}: {CORDONED}");
    if look::marks(world, CORDONED).contains(&mark) {
        let what = format!("{node}, closed by the upgrade, is taken by the autoscaler");
        breach(world, "a closed node is kept from the autoscaler", what);
    }
}
