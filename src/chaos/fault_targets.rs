//! What there is in a cluster that faults can be about.

use super::provided_faults::ProvidedTargets;
use super::stack_faults::StackTarget;
use crate::model::Inventory;
use crate::model::node_source::NodeSource;

/// What the rules can be about in a cluster.
#[derive(Default)]
pub struct FaultTargets {
    pub(super) zones: Vec<String>,
    pub(super) workloads: Vec<String>,
    /// Kinds whose objects own pods, and no controller of Kubernetes makes them again.
    pub(super) operators: Vec<String>,
    pub(super) budgets: Vec<String>,
    pub(super) blues: Vec<String>,
    pub(super) greens: Vec<String>,
    pub(super) targets: Vec<String>,
    /// What there is of nodes that somebody else makes.
    pub(super) provided: ProvidedTargets,
    pub(super) stacks: Vec<StackTarget>,
    pub(super) nodes: usize,
}

impl FaultTargets {
    /// What there is in a cluster that a plan is about to change; `greens` are the groups its route makes, and `stacks` those
    /// that it deletes.
    pub fn from_inventory(
        inventory: &Inventory,
        greens: Vec<String>,
        stacks: Vec<StackTarget>,
    ) -> Self {
        // Zones and operators are sorted, so that a seed draws the same targets for the same cluster.
        let mut zones: Vec<String> = inventory.subnets.iter().map(|s| s.zone.clone()).collect();
        zones.sort();
        zones.dedup();
        // The workloads of kube-system are left alone: what breaks them breaks the upgrade by right.
        let own = |ns: &str| ns != "kube-system";
        // What a rule can name: a replica set goes with its deployment.
        let named = |kind: &str| matches!(kind, "Deployment" | "StatefulSet" | "DaemonSet");
        let workloads = inventory
            .workloads
            .iter()
            .filter(|w| own(&w.key.namespace) && named(&w.kind));
        let budgets = inventory.pdbs.iter().filter(|b| own(&b.key.namespace));
        let targets = inventory.target_groups.iter().map(|t| t.name.clone());
        // NodePools that the plan replaces stand among the groups, and have no sizes that anybody could change.
        let groups = inventory.nodegroups.iter();
        let blues = groups.filter(|g| g.source != NodeSource::NodePool);
        let blues = blues.map(|g| g.name.clone());
        // A kind that Kubernetes does not have is an operator's, which a fault can stop.
        let built_in = |kind: &str| {
            matches!(
                kind,
                "ReplicaSet"
                    | "StatefulSet"
                    | "DaemonSet"
                    | "Job"
                    | "Node"
                    | "ReplicationController"
            )
        };
        let owners = inventory.pods.iter().filter_map(|p| p.owner.as_ref());
        let owners = owners.filter(|o| !built_in(&o.kind));
        let mut operators: Vec<String> = owners.map(|o| o.kind.clone()).collect();
        operators.sort();
        operators.dedup();
        Self {
            operators,
            zones,
            workloads: workloads.map(|w| w.key.to_string()).collect(),
            budgets: budgets.map(|b| b.key.to_string()).collect(),
            blues: blues.collect(),
            greens,
            targets: targets.collect(),
            provided: ProvidedTargets::from_inventory(inventory),
            stacks,
            nodes: inventory.nodes.len(),
        }
    }
}
