//! What must hold at every moment of an upgrade, checked after everything that happens in the twin, whoever did it: the
//! simulator is the one place that sees all, and lets an observer see it ([`SimWorld::observer`]).
//!
//! A world without an observer checks nothing. What somebody else's hand did (a fault rule) excuses
//! what follows from it, and nothing more.

mod closed_nodes;
mod drains;
mod ends;
mod floors;
mod provided_nodes;
mod requests;
pub mod stacks;
mod workloads;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::model::Minor;
use crate::twin::answer::Answer;
use crate::twin::aws::AwsCall;
use crate::twin::k8s::ground_truth::HealthyFloor;
use crate::twin::k8s::workload_state::PodView;
use crate::twin::world::{SimWorld, WorldNotice, WorldObserver};
use crate::wire::Request;
use requests::RequestedChange;

pub use provided_nodes::NodeTerms;
pub use requests::PROCESS_HEADER;

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
    /// By node group: how many of its nodes may be emptied at once.
    pub max_parallel_nodes: BTreeMap<String, u32>,
    /// How long a budget may refuse a pod before it is deleted past it.
    pub pod_deadline: Duration,
    /// The workloads may be down (strategy `recreate`): nothing has to be Ready again before the run goes on.
    pub downtime: bool,
    /// ARNs of the target groups that weights move to.
    pub green_targets: BTreeSet<String>,
    /// CloudFormation stacks that the plan deletes, by id or name, each with the group that goes with it.
    pub stacks: BTreeMap<String, String>,
    /// The nodes that the plan brings to the target.
    pub nodes: NodeTerms,
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
    /// What a process of the upgrade asks to change with the request that is being served.
    requested: Option<RequestedChange>,
    /// A change that a process of the upgrade asked for is being answered.
    run_asks: bool,
    /// By Auto Scaling group: how many instances fewer the upgrade has asked for that have not gone yet.
    ends_owed: BTreeMap<String, i64>,
    workloads: workloads::WorkloadRecords,
    drains: drains::DrainRecords,
    provided: provided_nodes::ProvidedRecords,
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
    /// Notes a breach.
    fn record_violation(&mut self, world: &SimWorld, law: &'static str, what: impl Into<String>) {
        self.violations.push(Violation {
            at: world.now(),
            invariant: law,
            what: what.into(),
        });
    }

    /// The laws that `world` is held to.
    pub fn of_world(world: &mut SimWorld) -> Option<&mut Self> {
        let observer: &mut dyn Any = world.observer.as_deref_mut()?;
        observer.downcast_mut()
    }

    /// A process says that its run is done.
    pub fn check_run_done(world: &mut SimWorld) {
        let Some(mut observer) = world.observer.take() else {
            return;
        };
        let any: &mut dyn Any = &mut *observer;
        if let Some(laws) = any.downcast_mut::<Self>() {
            if !laws.said_done {
                provided_nodes::check_run_done(laws, world);
            }
            workloads::check_run_done(laws, world);
        }
        world.observer = Some(observer);
    }
}

impl WorldObserver for Invariants {
    fn clone_box(&self) -> Box<dyn WorldObserver> {
        Box::new(self.clone())
    }

    fn before_request(&mut self, world: &SimWorld, request: &Request, call: Option<&AwsCall>) {
        self.requested = requests::check_request(self, world, request, call);
        if let Some(RequestedChange::Kube { method, path, .. }) = &self.requested {
            let (method, path) = (method.clone(), path.clone());
            provided_nodes::note_pool_request(self, world, &method, &path);
        }
        self.run_asks = self.requested.is_some();
    }

    fn on_request_served(&mut self) {
        self.run_asks = false;
    }

    fn after_request(&mut self, world: &SimWorld, answer: &Answer) {
        let change = self.requested.take();
        provided_nodes::check_pool_answer(self, world);
        requests::check_answer(self, world, change, answer);
    }

    fn after_event(&mut self, world: &SimWorld, lost: &[Arc<PodView>]) {
        provided_nodes::check_pool_actions(self, world);
        floors::check_state(self, world, lost);
    }

    fn on_notice(&mut self, world: &SimWorld, notice: WorldNotice<'_>) {
        match notice {
            WorldNotice::Harmed { node_or_group } => self.excuse_node_or_group(node_or_group),
            WorldNotice::AutoscalerRemoves { node } => {
                closed_nodes::check_autoscaler_removal(self, world, node);
            }
            WorldNotice::GroupResized { asg, from, to } => ends::resized(self, asg, from, to),
            WorldNotice::GroupAtSize { asg } => ends::at_size(self, asg),
            WorldNotice::EndedForSize { asg, instance } => {
                ends::ended_for_size(self, world, asg, instance);
            }
            WorldNotice::EndedByName { instance } => ends::ended_by_name(self, world, instance),
        }
    }
}
