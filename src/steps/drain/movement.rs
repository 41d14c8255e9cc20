//! Whether a drain gets on: deadlines count from the last movement, and pods that come back are no movement.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::StepRefusal;
use crate::steps::drain::budget::Budgets;
use crate::steps::drain::observation::DrainObservation;
use crate::steps::drain::observation::begun_pods;
use crate::steps::evictable::keeps_node_occupied;

/// A node that is being emptied gets no new pods; a workload of which this many come back to one is not moved again.
const MAX_POD_RETURNS: usize = 3;

/// What is left to move, the least there has been of it, and who came to nodes that are being emptied.
#[derive(Debug, Default)]
pub struct MovementTracker {
    /// By node: the fewest pods there have been.
    nodes: BTreeMap<String, usize>,
    /// By budget or workload: the fewest pods of it that were to go, of those nodes.
    groups: BTreeMap<String, usize>,
    /// The nodes that `groups` counts.
    counted: BTreeSet<String>,
    /// By node: the pods, by uid, that were there when it was first seen begun.
    residents: BTreeMap<String, BTreeSet<String>>,
    /// By workload and node: the pods, by uid, that came later.
    arrivals: BTreeMap<(String, String), BTreeSet<String>>,
}

/// What has moved since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MovedSinceLook {
    /// Nodes that have fewer pods than ever.
    pub nodes: Vec<String>,
    /// Pods, by uid, whose budget or workload has fewer pods left to move than ever.
    pub pods: Vec<String>,
}

impl MovementTracker {
    /// Compares a look with the earlier ones.
    pub fn find_moved(&mut self, seen: &DrainObservation) -> MovedSinceLook {
        let mut moved = MovedSinceLook::default();
        let being_emptied = |n: &&super::observation::BlueNode| {
            n.begun_at(&seen.run).is_some() && !n.is_skipped_by(&seen.run)
        };
        let begun = seen.nodes.iter().filter(being_emptied);
        let mut names = BTreeSet::new();
        for node in begun {
            let name = node.node.name.clone();
            let left = node
                .pods
                .iter()
                .filter(|p| keeps_node_occupied(p, &node.node))
                .count();
            // Compared with the fewest ever: a pod that comes back and goes again would else count as progress forever.
            let least = self.nodes.entry(name.clone()).or_insert(left);
            if left < *least {
                *least = left;
                moved.nodes.push(name.clone());
            }
            names.insert(name);
        }
        // A budget lets its pods go one after the other, so one that goes gives the others under it their time again.
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let budgets = Budgets::new(seen.snapshot.pdbs.values());
        for pod in begun_pods(seen).filter(|p| p.deletion_timestamp.is_none()) {
            let workload = || seen.workloads.get(&pod.uid).map(|w| w.name.clone());
            let budget = budgets
                .budgets_of(pod)
                .first()
                .map(|b| format!("PDB {}", b.key));
            if let Some(group) = budget.or_else(workload) {
                groups.entry(group).or_default().push(pod.uid.clone());
            }
        }
        // Another node brings more to move: the counts begin again.
        if self.counted != names {
            self.groups.clear();
            self.counted = names;
        }
        for (group, pods) in groups {
            let least = self.groups.entry(group).or_insert(pods.len());
            if pods.len() < *least {
                *least = pods.len();
                moved.pods.extend(pods);
            }
        }
        moved
    }

    /// Says which workload's pods have come back to a node that is being emptied, once that has happened too often.
    pub fn find_returned(&mut self, seen: &DrainObservation) -> Option<StepRefusal> {
        let being_emptied = |n: &&super::observation::BlueNode| {
            n.begun_at(&seen.run).is_some() && !n.is_skipped_by(&seen.run)
        };
        for node in seen.nodes.iter().filter(being_emptied) {
            let name = &node.node.name;
            let here = || {
                node.pods
                    .iter()
                    .filter(|p| keeps_node_occupied(p, &node.node))
            };
            // Whoever is there at the first look was there before the node was begun.
            let Some(residents) = self.residents.get(name) else {
                let uids = here().map(|p| p.uid.clone()).collect();
                self.residents.insert(name.clone(), uids);
                continue;
            };
            // Counted by uid: a StatefulSet's pod that comes back under its old name is another pod.
            for pod in here().filter(|p| !residents.contains(&p.uid)) {
                let Some(workload) = seen.workloads.get(&pod.uid) else {
                    continue;
                };
                let key = (workload.name.clone(), name.clone());
                let came = self.arrivals.entry(key).or_default();
                came.insert(pod.uid.clone());
                if came.len() >= MAX_POD_RETURNS {
                    return Some(
                        StepRefusal::new(format!(
                            "the drain moved the pods of {} off node {name}, and {} new ones came to the node although it \
                             is cordoned, the last of them pod {}: its template names the node (spec.nodeName), or \
                             something binds its pods to the node. The node stays cordoned",
                            workload.name,
                            came.len(),
                            pod.key
                        ))
                        .with_fix("Stop what puts the pods there"),
                    );
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::kube::Pod;
    use crate::steps::drain::fixtures::{TEST_RUN_ID, closed_node};
    use crate::steps::drain::observation::BlueNode;
    use crate::steps::evictable::tests::pod;
    use crate::steps::workload_health::PodWorkload;

    fn look(pods: &[&str]) -> DrainObservation {
        let on: Vec<Pod> = pods.iter().map(|name| pod(name, "n1")).collect();
        let workloads = pods.iter().map(|name| {
            let name_of = "Deployment shop/web".to_owned();
            let workload = PodWorkload {
                name: name_of,
                had: 3,
                ready: 3,
            };
            (format!("uid-{name}"), workload)
        });
        let on = on.into_iter().map(Arc::new).collect();
        DrainObservation {
            run: TEST_RUN_ID.to_owned(),
            workloads: workloads.collect(),
            nodes: vec![BlueNode::new(
                Arc::new(closed_node("n1", Some(0))),
                Arc::new(on),
            )],
            ..DrainObservation::default()
        }
    }

    #[test]
    fn a_pod_that_goes_is_movement_and_one_that_comes_back_is_not() {
        let mut movement = MovementTracker::default();
        assert_eq!(
            movement.find_moved(&look(&["a", "b", "c"])),
            MovedSinceLook::default()
        );
        let moved = movement.find_moved(&look(&["b", "c"]));
        assert_eq!(moved.nodes, ["n1"]);
        assert_eq!(moved.pods, ["uid-b", "uid-c"]);
        assert_eq!(
            movement.find_moved(&look(&["b", "c", "d"])),
            MovedSinceLook::default()
        );
        assert_eq!(
            movement.find_moved(&look(&["c", "d"])),
            MovedSinceLook::default()
        );
    }

    #[test]
    fn the_third_pod_of_a_workload_that_comes_to_a_node_that_is_being_emptied_is_named() {
        let mut movement = MovementTracker::default();
        assert_eq!(movement.find_returned(&look(&["a", "b"])), None);
        for again in ["c", "d"] {
            assert_eq!(movement.find_returned(&look(&[again])), None);
            assert_eq!(movement.find_returned(&look(&[again])), None);
        }
        let said = movement.find_returned(&look(&["e"])).unwrap().to_string();
        assert!(
            said.contains("Deployment shop/web") && said.contains("shop/e"),
            "{said}"
        );
        assert!(said.contains("nodeName") && said.contains("n1"), "{said}");
    }
}
