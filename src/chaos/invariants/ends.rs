//! Who ended an instance: what its node loses is the upgrade's doing only where the upgrade asked for it.
//!
//! An Auto Scaling group ends instances for a request that makes it smaller or names one, and by itself, to balance its
//! zones or because it has one too many. Each instance that goes is counted against the requests of the upgrade that asked
//! for fewer; what is beyond them was somebody else's, or nobody's.

use super::Invariants;
use crate::twin::k8s::cloud_hooks;
use crate::twin::world::SimWorld;

/// A group's desired size was changed.
pub fn resized(laws: &mut Invariants, asg: &str, from: i64, to: i64) {
    let owed = laws.ends_owed.entry(asg.to_owned()).or_default();
    if laws.run_asks || to > from {
        *owed = (*owed + from - to).max(0);
    }
}

/// A group has no more instances than it is to have: every one that was asked for has gone.
pub fn at_size(laws: &mut Invariants, asg: &str) {
    laws.ends_owed.remove(asg);
}

/// A group that has too many instances ends this one.
pub fn ended_for_size(laws: &mut Invariants, world: &SimWorld, asg: &str, instance: &str) {
    match laws.ends_owed.get_mut(asg) {
        Some(owed) if *owed > 0 => *owed -= 1,
        Some(_) | None => excuse_node(laws, world, instance),
    }
}

/// This instance is ended by its name.
pub fn ended_by_name(laws: &mut Invariants, world: &SimWorld, instance: &str) {
    if !laws.run_asks {
        excuse_node(laws, world, instance);
    }
}

fn excuse_node(laws: &mut Invariants, world: &SimWorld, instance: &str) {
    if let Some(node) = cloud_hooks::node_of_instance(world, instance) {
        laws.excuse_node_or_group(node);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chaos::invariants::UpgradeTerms;
    use crate::twin::aws::{scaling, set_min_size};
    use crate::twin::scenario;

    const BLUE: &str = "expense-blue";

    fn world() -> SimWorld {
        let mut world = scenario::load_world(&scenario::expense_dev(), 7);
        world.observer = Some(Box::new(Invariants::new(UpgradeTerms::default())));
        assert!(set_min_size(&mut world, BLUE, 0));
        world
    }

    fn instances(world: &SimWorld) -> BTreeSet<String> {
        let groups = scaling::list_groups(world);
        let blue = groups.into_iter().find(|g| g.nodegroup == BLUE);
        blue.unwrap().instances.into_iter().collect()
    }

    /// Changes something as a process of the upgrade does, or as somebody else.
    fn while_asked<T>(
        world: &mut SimWorld,
        by_run: bool,
        change: impl FnOnce(&mut SimWorld) -> T,
    ) -> T {
        Invariants::of_world(world).unwrap().run_asks = by_run;
        let changed = change(world);
        Invariants::of_world(world).unwrap().run_asks = false;
        changed
    }

    /// Makes blue larger or smaller; where a node goes, whether what it loses is excused.
    fn resize(world: &mut SimWorld, by_run: bool, by: i64) -> Option<bool> {
        let before = instances(world);
        let groups = scaling::list_groups(world);
        let blue = groups.iter().find(|g| g.nodegroup == BLUE).unwrap();
        let (name, desired) = (blue.name.clone(), blue.desired + by);
        assert!(while_asked(world, by_run, |world| {
            scaling::set_desired_capacity(world, &name, desired)
        }));
        let after = instances(world);
        let went = before.difference(&after).next()?;
        let node = cloud_hooks::node_of_instance(world, went).unwrap();
        Some(Invariants::of_world(&mut *world).unwrap().is_excused(&node))
    }

    #[test]
    fn an_instance_counts_as_the_runs_where_the_run_asked_for_fewer_and_nowhere_else() {
        let mut world = world();
        assert_eq!(resize(&mut world, true, -1), Some(false));
        // What the run asked for has gone; the next is somebody else's.
        assert_eq!(resize(&mut world, false, -1), Some(true));
    }

    #[test]
    fn an_instance_ended_by_name_counts_as_the_runs_where_the_run_named_it() {
        for by_run in [false, true] {
            let mut world = world();
            let id = instances(&world).pop_first().unwrap();
            let node = cloud_hooks::node_of_instance(&world, &id).unwrap();
            assert!(while_asked(&mut world, by_run, |world| {
                scaling::terminate_instance(world, &id)
            }));
            assert_eq!(
                Invariants::of_world(&mut world).unwrap().is_excused(&node),
                !by_run
            );
        }
    }

    #[test]
    fn what_the_run_asked_for_and_took_back_is_not_owed() {
        let mut world = world();
        let blue = scaling::list_groups(&world);
        let blue = blue.iter().find(|g| g.nodegroup == BLUE).unwrap();
        let name = blue.name.clone();
        // The group ends nothing for the time being.
        let asg = world.cloud.asgs.get_mut(&name).unwrap();
        asg.suspended.insert("Terminate".into());
        assert_eq!(resize(&mut world, true, -1), None);
        assert_eq!(resize(&mut world, true, 1), None);
        world.cloud.asgs.get_mut(&name).unwrap().suspended.clear();
        assert_eq!(resize(&mut world, false, -1), Some(true));
    }
}
