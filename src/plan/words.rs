//! The words that a plan chooses from: each enum's variants with their spelling and meaning, written once. Reading, the JSON
//! Schema, `docs/plan.md` and what `eksup init` writes come from these tables (see [`super::keys`]).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A word that a plan may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanWord {
    pub spelling: &'static str,
    /// What it means, as a part of a sentence; empty where the word says it all.
    pub meaning: &'static str,
}

impl PlanWord {
    /// The word as JSON and YAML read it: `true` and `false` are no texts.
    pub fn value(self) -> serde_json::Value {
        let truth = self.spelling.parse::<bool>();
        truth.map_or_else(|_| self.spelling.into(), Into::into)
    }
}

/// Declares an enum of the plan, a line for each variant: `Variant = "spelling", "meaning";`.
macro_rules! plan_words {
    ($(#[$attribute:meta])* $name:ident { $($variant:ident = $spelling:tt, $meaning:tt;)+ }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $(#[doc = $meaning] #[serde(rename = $spelling)] $variant,)+
        }

        impl $name {
            /// As a plan spells them, in the order of the enum.
            pub const WORDS: &'static [PlanWord] =
                &[$(PlanWord { spelling: $spelling, meaning: $meaning },)+];

            /// The word as a plan spells it.
            pub const fn as_str(self) -> &'static str {
                Self::WORDS[self as usize].spelling
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

plan_words! {
    /// How nodes are replaced.
    Strategy {
        BlueGreen = "blue-green", "a whole green group beside blue";
        Canary = "canary", "as blue-green, but the first node is drained alone and watched";
        Rolling = "rolling", "green grows by `capacity.surge` nodes at a time as blue is drained";
        Recreate = "recreate", "blue is emptied before there is a green: the workloads are down meanwhile";
    }
}

plan_words! {
    /// Who replaces the nodes of a NodePool.
    PoolStrategy {
        Drift = "drift", "Karpenter, node by node, while eksup watches and gives the budget";
        BlueGreen = "blue-green", "eksup, as with node groups: a green NodePool beside it, and a drain";
        Leave = "leave", "Karpenter, whenever it wants; the run neither holds nor watches it";
    }
}

plan_words! {
    /// When the nodes of a green NodePool are made.
    PoolCapacity {
        Full = "full", "before the first eviction, one for each of blue's";
        OnDemand = "on-demand", "by Karpenter, when evicted pods need them";
    }
}

plan_words! {
    /// What becomes of pods on Fargate nodes of an old version.
    FargatePods {
        Restart = "restart", "their workloads are restarted one after another";
        Leave = "leave", "they stay until somebody replaces them";
    }
}

plan_words! {
    /// Whether the run waits for EKS Auto Mode.
    AutoModeNodes {
        Wait = "wait", "until EKS has replaced them";
        Leave = "leave", "EKS replaces them later";
    }
}

plan_words! {
    /// What hybrid nodes and nodes of no group mean for the run, which replaces neither.
    UngroupedNodes {
        Check = "check", "the plan is refused where one would be too old for the target";
        Leave = "leave", "they are named, and stay however old they are";
    }
}

plan_words! {
    /// What an EKS upgrade insight in ERROR means.
    Insights {
        Block = "block", "it is a blocker";
        Warn = "warn", "it is a warning";
        Ignore = "ignore", "it is only shown";
    }
}

plan_words! {
    /// Which version an add-on goes to when it is not pinned.
    AddonPolicy {
        Default = "default", "the version that EKS installs on that minor; never a downgrade";
        Latest = "latest", "the newest version for the minor";
        Minimal = "minimal", "only what compatibility forces";
    }
}

plan_words! {
    /// What happens to fields of an add-on that somebody changed in the cluster.
    AddonConflicts {
        Preserve = "preserve", "they stay as they are";
        Overwrite = "overwrite", "EKS's values replace them";
        None = "none", "the update fails";
    }
}

impl AddonConflicts {
    /// As EKS spells it.
    pub const fn eks_name(self) -> &'static str {
        match self {
            Self::Preserve => "PRESERVE",
            Self::Overwrite => "OVERWRITE",
            Self::None => "NONE",
        }
    }
}

plan_words! {
    /// What a taint does to pods that do not tolerate it.
    TaintEffect {
        NoSchedule = "NoSchedule", "they are not scheduled to the node";
        NoExecute = "NoExecute", "they are not scheduled to the node, and those on it are evicted";
        PreferNoSchedule = "PreferNoSchedule", "they are scheduled to the node only where no other fits";
    }
}

impl TaintEffect {
    /// As EKS spells it.
    pub const fn eks_name(self) -> &'static str {
        match self {
            Self::NoSchedule => "NO_SCHEDULE",
            Self::NoExecute => "NO_EXECUTE",
            Self::PreferNoSchedule => "PREFER_NO_SCHEDULE",
        }
    }
}

plan_words! {
    /// A green group that is as large as blue; [`super::Capacity`] is made of it.
    WholeCapacity {
        Full = "full", "as many nodes as blue";
    }
}

plan_words! {
    /// All listener rules of a pair of target groups; [`super::RuleRef`] is made of it.
    EveryRule {
        Every = "every", "every rule that forwards to the pair";
    }
}

plan_words! {
    /// Which node next.
    DrainOrder {
        Easiest = "easiest", "fewest obstacles first";
        Zones = "zones", "zones in turn";
        Oldest = "oldest", "oldest first";
        Name = "name", "by name";
    }
}

plan_words! {
    /// What happens at a deadline.
    OnDeadline {
        Stop = "stop", "the run pauses for a person";
        Skip = "skip", "the node is left, and blue is not retired";
        Delete = "delete", "a pod that its budget has refused for `podDeadline` is deleted, one of a workload at a time and none of one that is short";
    }
}

plan_words! {
    /// What happens to pods whose eviction loses something; [`super::Consent`] with its list is made of it.
    ConsentWord {
        Block = "block", "such pods are a finding before anything starts";
        Evict = "evict", "consent to evict them";
    }
}

plan_words! {
    /// What happens to pods that run to completion; [`super::Jobs`] with its list is made of it.
    JobsWord {
        Wait = "wait", "they may finish, within `nodeDeadline`";
        Evict = "evict", "they are evicted like any other";
    }
}

plan_words! {
    /// What happens to a workload of one replica whose budget never lets it go.
    SingleReplicas {
        Block = "block", "a finding before anything starts";
        Surge = "surge", "its Deployment is restarted, so that the new pod is Ready first; also one without a budget; StatefulSets and pods with claims cannot";
        Evict = "evict", "it is deleted once its budget has refused, and is down for a moment";
    }
}

plan_words! {
    /// What happens to pods under a budget that an operator runs.
    OperatorBudgets {
        Block = "block", "a finding before anything starts";
        Wait = "wait", "evictions are tried all the same, so that the operator's webhook hears of them, and it has until `podDeadline` to move what the pod does";
    }
}

plan_words! {
    /// What the plan consents to for one budget.
    BudgetConsent {
        Block = "block", "nothing, whatever is said of all budgets";
        Wait = "wait", "evictions are tried again and again until `podDeadline`";
        Delete = "delete", "the same, and at `podDeadline` its pods are deleted past it, one of a workload at a time";
    }
}

plan_words! {
    /// What happens to pods of a node whose kubelet does not answer.
    DeadKubelets {
        Stop = "stop", "the run stops";
        Skip = "skip", "pods are evicted, and those that are marked for deletion are not waited for";
    }
}

plan_words! {
    /// What happens when green's targets turn unhealthy during a shift.
    OnUnhealthy {
        Rollback = "rollback", "blue gets its weights again, and the run stops";
        Hold = "hold", "weights stay, and the run waits until `timeout`";
    }
}

plan_words! {
    /// What becomes of an empty blue.
    RetireHow {
        Delete = "delete", "the group is deleted";
        KeepAtZero = "keep-at-zero", "the group stays, with no nodes: it costs nothing";
    }
}

/// What becomes of a blue that a tool owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenDeletion", into = "WrittenDeletion")]
pub enum DeleteOwned {
    No,
    Yes,
    /// With its CloudFormation stack.
    Stack,
}

impl DeleteOwned {
    /// As a plan spells them.
    pub const WORDS: &'static [PlanWord] = &[
        PlanWord {
            spelling: "false",
            meaning: "it is refused",
        },
        PlanWord {
            spelling: "true",
            meaning: "the group is deleted behind the tool's back",
        },
        PlanWord {
            spelling: "stack",
            meaning: "the group's CloudFormation stack is deleted, which deletes the group; all else that the stack holds is kept, as green uses it",
        },
    ];

    /// Whether the group may be deleted.
    pub fn is_consent(self) -> bool {
        self != Self::No
    }
}

/// A `deleteOwned` as a plan writes it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenDeletion {
    Truth(bool),
    Stack(StackWord),
}

#[derive(Serialize, Deserialize)]
enum StackWord {
    #[serde(rename = "stack")]
    Stack,
}

impl From<WrittenDeletion> for DeleteOwned {
    fn from(written: WrittenDeletion) -> Self {
        match written {
            WrittenDeletion::Truth(false) => Self::No,
            WrittenDeletion::Truth(true) => Self::Yes,
            WrittenDeletion::Stack(StackWord::Stack) => Self::Stack,
        }
    }
}

impl From<DeleteOwned> for WrittenDeletion {
    fn from(consent: DeleteOwned) -> Self {
        match consent {
            DeleteOwned::No => Self::Truth(false),
            DeleteOwned::Yes => Self::Truth(true),
            DeleteOwned::Stack => Self::Stack(StackWord::Stack),
        }
    }
}

/// Words for days, from the model's spelling.
pub const DAY_WORDS: &[PlanWord] = &{
    use crate::model::maintenance_window::Day;
    let mut words = [PlanWord {
        spelling: "",
        meaning: "",
    }; Day::ALL.len()];
    let mut i = 0;
    while i < words.len() {
        words[i].spelling = Day::ALL[i].0;
        i += 1;
    }
    words
};
