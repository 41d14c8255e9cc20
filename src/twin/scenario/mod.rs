//! Worlds to start from: a snapshot's, or one of those that come with the program.

use crate::model::Clock;
use crate::model::snapshot::Snapshot;
use crate::twin::world::World;
use crate::twin::{aws, k8s};

/// The bundled snapshot, from which the bundled scenarios are derived.
const EXPENSE_DEV: &[u8] = include_bytes!("expense-dev.json");

/// The bundled snapshot.
pub fn expense_dev() -> Snapshot {
    serde_json::from_slice(EXPENSE_DEV).expect("the bundled snapshot is a snapshot; a test reads it")
}

/// The world `snapshot` describes, at the time it was taken. Must be called inside a tokio runtime.
pub fn load(snapshot: &Snapshot, seed: u64) -> World {
    load_at(snapshot, seed, Clock::starting_at(snapshot.inventory.taken_at))
}

/// The world `snapshot` describes, at the time of `clock`: real clients sign with theirs, so a served twin needs the
/// machine's.
pub fn load_at(snapshot: &Snapshot, seed: u64, clock: Clock) -> World {
    World::new(clock, seed, aws::cloud(snapshot), k8s::Cluster::from_snapshot(snapshot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_snapshot_is_a_snapshot() {
        let snapshot = expense_dev();
        assert_eq!(snapshot.kubernetes["/api/v1/nodes"].len(), 3);
    }
}
