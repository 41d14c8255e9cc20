//! What must hold at every moment of an upgrade, checked by the twin after everything that happens in it, whoever did
//! it: the simulator is the one place that sees all.
//!
//! A world without laws ([`World::laws`] is `None`) checks nothing. What somebody else's hand did (a fault rule) excuses
//! what follows from it, and nothing more.

mod acts;
mod closed;
mod drains;
mod ends;
mod floors;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::k8s::look::Floor;
use super::world::World;
use crate::model::Minor;

pub use acts::{PROCESS, asked, served};
pub use closed::autoscaler_takes;
pub use ends::{at_size, ended_by_name, ended_for_size, resized, while_asked};
pub use floors::happened;
pub use workloads::run_done;

/// What this upgrade may do.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Node groups that the plan names.
    pub groups: BTreeSet<String>,
    /// The plan lets pods be deleted past their budgets.
    pub may_delete_pods: bool,
    /// A single replica that its budget refuses may be deleted at once.
    pub single_replicas_down: bool,
    /// Deployments of one replica are moved by a surge.
    pub surge: bool,
    /// Nodes that may be emptied at once.
    pub parallel: u32,
    /// How long a budget may refuse a pod before it is deleted past it.
    pub pod_deadline: Duration,
    /// The workloads may be down (strategy `recreate`): nothing has to be Ready again before the run goes on.
    pub downtime: bool,
    /// ARNs of the target groups that weights move to.
    pub green_targets: BTreeSet<String>,
}

/// A law that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub at: Timestamp,
    pub law: &'static str,
    pub what: String,
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {}: {}",
            self.at.strftime("%H:%M:%S"),
            self.law,
            self.what
        )
    }
}

/// The laws of a world, and what they have seen.
#[derive(Clone, Debug, Default)]
pub struct Laws {
    terms: Terms,
    breaches: Vec<Breach>,
    /// How often they were looked at.
    looks: u64,
    seen: u64,
    budgets: BTreeMap<String, Floor>,
    singles: BTreeMap<String, Floor>,
    /// Every node there ever was, and its node group.
    homes: BTreeMap<String, String>,
    /// How many nodes there are.
    nodes: usize,
    server: Option<Minor>,
    /// Nodes and node groups that somebody else has laid hands on.
    harmed: BTreeSet<String>,
    /// A change that a process of the upgrade asked for is being answered.
    run_asks: bool,
    /// By Auto Scaling group: how many instances fewer the upgrade has asked for that have not gone yet.
    ends_owed: BTreeMap<String, i64>,
    workloads: workloads::WorkloadRecords,
    drains: drains::DrainRecords,
    /// The run is being taken back.
    going_back: bool,
    /// A process has said that the run is done. What happens to the cluster afterwards is not the run's doing.
    said_done: bool,
}

impl Laws {
    /// Laws for an upgrade on these terms.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            ..Self::default()
        }
    }

    /// What was broken so far.
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }

    /// How often the laws were looked at.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// Somebody else has laid hands on a node or node group: pods it loses are not the upgrade's doing.
    pub fn excuse(&mut self, node_or_group: impl Into<String>) {
        self.harmed.insert(node_or_group.into());
    }

    /// Whether what a node lost is somebody else's doing.
    fn excuses(&self, node: &str) -> bool {
        let of_harmed = |group: &String| self.harmed.contains(group);
        self.harmed.contains(node) || self.homes.get(node).is_some_and(of_harmed)
    }
}

/// Notes a breach.
fn breach(world: &mut World, law: &'static str, what: impl Into<String>) {
    let at = world.now();
    if let Some(laws) = &mut world.laws {
        laws.breaches.push(Breach {
            at,
            law,
            what: what.into(),
        });
    }
}
