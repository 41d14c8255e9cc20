//! What a tally of trials counts, so that a class that never came about is seen: kinds of faults, what befell processes, and
//! variations of the plan and the cluster.

use super::fault_targets::FaultTargets;
use super::variation::Variation;
use crate::twin::fault::{FaultKind, RequestFaultKind, WorldChangeKind};

/// What befell a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessFaultClass {
    DeathBeforeRequest,
    DeathAfterRequest,
    Signal,
    Frozen,
    Rival,
    ClockJump,
}

impl ProcessFaultClass {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::DeathBeforeRequest,
        Self::DeathAfterRequest,
        Self::Signal,
        Self::Frozen,
        Self::Rival,
        Self::ClockJump,
    ];

    /// The name by which a tally counts it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeathBeforeRequest => "death before a request",
            Self::DeathAfterRequest => "death after a request",
            Self::Signal => "signal",
            Self::Frozen => "frozen",
            Self::Rival => "rival",
            Self::ClockJump => "clock jump",
        }
    }
}

/// The names of everything that seeds can bring on a cluster.
pub fn possible_classes(targets: &FaultTargets) -> impl Iterator<Item = &'static str> {
    FaultKind::all()
        .filter(|kind| can_be_drawn(*kind, targets))
        .map(FaultKind::name)
        .chain(ProcessFaultClass::ALL.map(ProcessFaultClass::name))
        .chain(Variation::all_class_names())
}

/// Whether some seed brings faults of a kind on a cluster.
pub fn can_be_drawn(kind: FaultKind, targets: &FaultTargets) -> bool {
    match kind {
        FaultKind::Request(kind) => match kind {
            RequestFaultKind::Throttle
            | RequestFaultKind::Fail
            | RequestFaultKind::Status
            | RequestFaultKind::Expired
            | RequestFaultKind::Delay
            | RequestFaultKind::DropBefore
            | RequestFaultKind::DropAfter
            | RequestFaultKind::Stale => true,
            // An upgrade cannot end well under it.
            RequestFaultKind::Denied => false,
        },
        FaultKind::Change(kind) => match kind {
            WorldChangeKind::NodeNeverJoins
            | WorldChangeKind::ControlPlaneFails
            | WorldChangeKind::KubeletDies
            | WorldChangeKind::EvictionHalfDone
            | WorldChangeKind::ClockSkew
            | WorldChangeKind::Cordon
            | WorldChangeKind::Uncordon
            | WorldChangeKind::Karpenter
            | WorldChangeKind::ApiServerGone
            | WorldChangeKind::WatchesCut
            | WorldChangeKind::HistoryLost
            | WorldChangeKind::CredentialsExpire => true,
            // These need an object of the cluster that they are about.
            WorldChangeKind::InsufficientCapacity => !targets.zones.is_empty(),
            WorldChangeKind::ImageMissing
            | WorldChangeKind::PodNeverReady
            | WorldChangeKind::CrashLoop
            | WorldChangeKind::WorkloadFixed => !targets.workloads.is_empty(),
            WorldChangeKind::OperatorDown | WorldChangeKind::OperatorBack => {
                !targets.operators.is_empty()
            }
            WorldChangeKind::Budget => !targets.budgets.is_empty(),
            WorldChangeKind::Scale => !(targets.blues.is_empty() && targets.greens.is_empty()),
            // It works on node groups; nobody deploys one in a cluster that has none.
            WorldChangeKind::Autoscaler | WorldChangeKind::MinSize => !targets.blues.is_empty(),
            WorldChangeKind::Weights => !targets.targets.is_empty(),
            WorldChangeKind::DeleteGroup => !targets.greens.is_empty(),
            WorldChangeKind::FargateCapacity => targets.provided.fargate,
            // These end by themselves only where somebody takes them back: with the repair after a stuck run.
            WorldChangeKind::KarpenterDown | WorldChangeKind::NodeclassNotReady => {
                !targets.provided.classes.is_empty()
            }
            WorldChangeKind::NodePoolCapacity => !targets.provided.pools.is_empty(),
            WorldChangeKind::DoNotDisrupt => {
                !(targets.provided.pools.is_empty() || targets.workloads.is_empty())
            }
            WorldChangeKind::StackUpdateFails | WorldChangeKind::StackDeleteFails => {
                !targets.stacks.is_empty()
            }
            // Said by hand only: tests of single situations.
            WorldChangeKind::CapacityBack
            | WorldChangeKind::NoFreeAddresses
            | WorldChangeKind::PodsFailOn
            | WorldChangeKind::NoImagesOn
            | WorldChangeKind::StackProtected => false,
        },
    }
}
