//! What the pool engine knows beside the objects of the API server. All but the switches of faults dies with Karpenter's pod.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::object::ObjectName;
use crate::model::Minor;

/// What the pool engine knows.
#[derive(Clone, Debug, Default)]
pub struct PoolMemory {
    /// When the next round is due; rounds that were queued for a later time are not run.
    pub(super) next_round: Option<Timestamp>,
    /// Karpenter's pod, by uid.
    pub(super) pod: String,
    pub(super) session: PoolSession,
    /// What fault rules have switched.
    pub(super) switches: PoolSwitches,
    /// Static fields of objects that a snapshot brought: hash of the twin -> the hash that their annotations have.
    pub(super) known_hashes: BTreeMap<String, String>,
    /// Those have been learned.
    pub(super) hashes_learned: bool,
    /// What it did, for those who look on.
    pub(super) log: Vec<PoolAction>,
}

/// What one run of the controller remembers.
#[derive(Clone, Debug, Default)]
pub struct PoolSession {
    /// The control plane's version as it was last asked for, and when (KARP-6).
    pub(super) version: Option<(Minor, Timestamp)>,
    /// Auto Mode's images for new nodes: by whether the processor is ARM.
    pub(super) auto_images: BTreeMap<bool, String>,
    /// By class (group and name): its generation when it was last read, and when that was.
    pub(super) classes_read: BTreeMap<String, (i64, Timestamp)>,
    /// By node: when a pod last came or went.
    pub(super) pod_events: BTreeMap<String, Timestamp>,
    /// Pods that wait for a node, by uid; since when there have been any, and when the last one came.
    pub(super) batch: PodBatch,
    /// By node claim: until when it is kept for pods that are to come.
    pub(super) nominated: BTreeMap<String, Timestamp>,
    pub(super) commands: Vec<DisruptionCommand>,
    /// A command that is looked at again before it is begun.
    pub(super) validating: Option<(Timestamp, DisruptionCommand)>,
    /// The state of the cluster that had nothing to consolidate, and when that was found.
    pub(super) consolidated: Option<(u64, Timestamp)>,
    /// A budget has kept a node from being consolidated in the present look.
    pub(super) constrained: bool,
    /// When disruption is looked at next.
    pub(super) next_disruption: Option<Timestamp>,
    /// Pods whose eviction was tried: their uid, when it is tried next, and how long is waited after that.
    pub(super) evictions: BTreeMap<ObjectName, (String, Timestamp, Duration)>,
    /// Instance types of zones that could not be had, and until when they are left alone (KARP-14).
    pub(super) unavailable: BTreeMap<(String, String), Timestamp>,
    /// Pools that could not be launched in by a fault, and until when they are left alone.
    pub(super) pools_unavailable: BTreeMap<String, Timestamp>,
    /// By node claim: when the end of its instance is looked at again.
    pub(super) instance_checks: BTreeMap<String, Timestamp>,
    /// Events that were told, and until when they are not told again.
    pub(super) told: BTreeMap<String, Timestamp>,
    /// When instances that are gone were last looked for.
    pub(super) collected: Option<Timestamp>,
}

/// Pods that wait until their batch is complete (KARP-11).
#[derive(Clone, Debug, Default)]
pub struct PodBatch {
    pub(super) pods: BTreeSet<String>,
    pub(super) since: Option<Timestamp>,
    pub(super) grown: Option<Timestamp>,
    /// When these pods were last found places for.
    pub(super) solved: Option<Timestamp>,
}

/// What fault rules have switched.
#[derive(Clone, Debug, Default)]
pub struct PoolSwitches {
    /// Karpenter's controller does nothing.
    pub stopped: bool,
    /// Classes whose subnets are not found, by name.
    pub not_ready_classes: BTreeSet<String>,
    /// Pools for which no instance can be had, by name.
    pub no_capacity: BTreeSet<String>,
    /// Workloads whose pods somebody has marked as not to be disrupted.
    pub undisruptable: BTreeSet<ObjectName>,
}

/// Why nodes are disrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DisruptionReason {
    Empty,
    Drifted,
    Underutilized,
}

impl DisruptionReason {
    /// As budgets and conditions spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Drifted => "Drifted",
            Self::Underutilized => "Underutilized",
        }
    }
}

/// Node claims that go when others are there in their place.
#[derive(Clone, Debug)]
pub struct DisruptionCommand {
    pub reason: DisruptionReason,
    pub began: Timestamp,
    /// Names of node claims.
    pub candidates: Vec<String>,
    /// Names of node claims, and whether each was seen initialized.
    pub replacements: Vec<(String, bool)>,
}

/// Something that the engine did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolAction {
    /// A node claim was made in a pool.
    Created {
        pool: String,
        claim: String,
    },
    /// Disruption of these node claims began.
    Disrupted {
        reason: DisruptionReason,
        claims: Vec<String>,
    },
    /// No instance could be had for a node claim.
    NoCapacity {
        claim: String,
    },
    /// The instance of a node claim is gone.
    Ended {
        claim: String,
    },
    Restarted,
}
