//! What must hold at every moment of an upgrade, checked by the twin after everything that happens in it, whoever did
//! it: the simulator is the one place that sees all.
//!
//! A world without laws ([`SimWorld::invariants`] is `None`) checks nothing. What somebody else's hand did (a fault rule) excuses
//! what follows from it, and nothing more.

mod closed_nodes;
mod drains;
mod ends;
mod floors;
mod requests;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::k8s::ground_truth::HealthyFloor;
use super::world::SimWorld;
use crate::model::Minor;

pub use closed_nodes::check_autoscaler_removal;
pub use ends::{at_size, ended_by_name, ended_for_size, resized, while_asked};
pub use floors::check_state;
pub use requests::{PROCESS_HEADER, check_answer, check_request};
pub use workloads::check_run_done;

/// What this upgrade may do.
#[derive(Clone, Debug, Default)]
pub struct UpgradeTerms {
    /// Node groups that the plan names.
    pub groups: BTreeSet<String>,
    /// The plan lets pods be deleted past their budgets.
    pub may_delete_pods: bool,
    /// A single replica that its budget refuses may be deleted at once.
    pub single_replicas_down: bool,
    /// Deployments of one replica are moved by a surge.
    pub surge: bool,
    /// Nodes that may be emptied at once.
    pub max_parallel_nodes: u32,
    /// How long a budget may refuse a pod before it is deleted past it.
    pub pod_deadline: Duration,
    /// The workloads may be down (strategy `recreate`): nothing has to be Ready again before the run goes on.
    pub downtime: bool,
    /// ARNs of the target groups that weights move to.
    pub green_targets: BTreeSet<String>,
}

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub at: Timestamp,
    pub invariant: &'static str,
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {}: {}",
            self.at.strftime("%H:%M:%S"),
            self.invariant,
            self.what
        )
    }
}

/// The laws of a world, and what they have seen.
#[derive(Clone, Debug, Default)]
pub struct Invariants {
    terms: UpgradeTerms,
    violations: Vec<Violation>,
    /// How often they were looked at.
    checks: u64,
    seen: u64,
    budgets: BTreeMap<String, HealthyFloor>,
    single_replicas: BTreeMap<String, HealthyFloor>,
    /// Every node there ever was, and its node group.
    node_groups: BTreeMap<String, String>,
    /// How many nodes there are.
    nodes: usize,
    server: Option<Minor>,
    /// Nodes and node groups that somebody else has changed.
    excused: BTreeSet<String>,
    /// A change that a process of the upgrade asked for is being answered.
    run_asks: bool,
    /// By Auto Scaling group: how many instances fewer the upgrade has asked for that have not gone yet.
    ends_owed: BTreeMap<String, i64>,
    workloads: workloads::WorkloadRecords,
    drains: drains::DrainRecords,
    /// The run is being rolled back.
    rolling_back: bool,
    /// A process has said that the run is done. What happens to the cluster afterwards is not the run's doing.
    said_done: bool,
}

impl Invariants {
    /// Laws for an upgrade on these terms.
    pub fn new(terms: UpgradeTerms) -> Self {
        Self {
            terms,
            ..Self::default()
        }
    }

    /// What was broken so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How often the laws were looked at.
    pub fn check_count(&self) -> u64 {
        self.checks
    }

    /// Somebody else has changed a node or node group: pods it loses are not the upgrade's doing.
    pub fn excuse_node_or_group(&mut self, node_or_group: impl Into<String>) {
        self.excused.insert(node_or_group.into());
    }

    /// Whether what a node lost is somebody else's doing.
    fn is_excused(&self, node: &str) -> bool {
        let of_harmed = |group: &String| self.excused.contains(group);
        self.excused.contains(node) || self.node_groups.get(node).is_some_and(of_harmed)
    }
}

/// Notes a breach.
fn record_violation(world: &mut SimWorld, law: &'static str, what: impl Into<String>) {
    let at = world.now();
    if let Some(laws) = &mut world.invariants {
        laws.violations.push(Violation {
            at,
            invariant: law,
            what: what.into(),
        });
    }
}
