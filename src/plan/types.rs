//! A checked plan. `raw.rs` is how it is written; every value here is valid and every default filled in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::consent::{ConsentScope, WorkloadPattern};
use crate::model::eks::NodegroupTaint;
use crate::model::{AddonVersion, Minor, Windows};

/// What the user wants of one cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    pub cluster: String,
    pub region: Option<String>,
    pub to: Minor,
    pub strategy: Strategy,
    pub control_plane: ControlPlane,
    pub addons: Addons,
    /// Empty: every managed node group of the cluster.
    pub node_groups: Vec<NodeGroup>,
    pub drain: Drain,
    pub traffic: Traffic,
    pub retire: Retire,
    /// When something new may begin; left out of the digest where there are none, so that a run that is open when
    /// eksup is replaced by a newer one still agrees with its plan.
    #[serde(skip_serializing_if = "none")]
    pub windows: Windows,
    #[serde(skip_serializing_if = "nothing")]
    pub approvals: Approvals,
    pub notify: Vec<Notify>,
}

fn none(windows: &Windows) -> bool {
    windows.0.is_empty()
}

fn nothing(approvals: &Approvals) -> bool {
    approvals.before.is_empty()
}

/// What a person approves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Approvals {
    /// Steps, or kinds of steps, that do not begin without.
    pub before: Vec<String>,
}

/// How nodes are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// A full green group beside blue, then traffic and pods move, then blue goes.
    BlueGreen,
    /// As blue-green, but the first node is drained alone and baked before the rest.
    Canary,
    /// Green grows by `surge` nodes at a time as blue is drained.
    Rolling,
    /// Blue is drained and deleted before traffic is restored on green; for clusters that may be down.
    Recreate,
}

/// How the control plane is raised.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ControlPlane {
    /// Watch this long after each hop, with nodes still on the old version.
    pub bake: Duration,
    pub insights: Insights,
    /// Longest a single hop may take.
    pub timeout: Duration,
}

/// What an EKS upgrade insight in ERROR means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Insights {
    Block,
    Warn,
    Ignore,
}

/// How add-ons are brought along.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Addons {
    pub policy: AddonPolicy,
    /// PRESERVE, OVERWRITE or NONE.
    pub conflicts: String,
    /// Add-on name to the version it must end on.
    pub pins: BTreeMap<String, AddonVersion>,
    /// Add-ons that are left alone.
    pub skip: Vec<String>,
    pub timeout: Duration,
}

/// Which version an add-on goes to when it is not pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddonPolicy {
    /// The default version of the target minor; never a downgrade.
    Default,
    /// The newest version of the target minor.
    Latest,
    /// Only what compatibility forces.
    Minimal,
}

/// One blue node group and the green that replaces it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeGroup {
    pub blue: String,
    /// Absent: by the naming rule.
    pub green: Option<String>,
    /// Absent: blue's, or its successor when blue's has no image for the target.
    pub ami_type: Option<String>,
    /// A fixed AMI release version; absent: the newest.
    pub release_version: Option<String>,
    /// For groups with a custom AMI: the image for the target version.
    pub ami: Option<String>,
    /// For groups with a custom AMI: a template version that already has it.
    pub launch_template_version: Option<i64>,
    pub capacity: Capacity,
    /// Replaces blue's instance types.
    pub instance_types: Option<Vec<String>>,
    /// Labels added to or replacing blue's.
    pub labels: BTreeMap<String, String>,
    /// Taints added to blue's.
    pub taints: Vec<NodegroupTaint>,
    /// Consent to delete a group that CloudFormation, eksctl or Terraform owns.
    pub delete_owned: bool,
    /// Consent to move a group that EKS calls DEGRADED.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub accept_degraded: bool,
    /// Longest green may take to be ready.
    pub timeout: Duration,
}

/// How much green stands beside blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capacity {
    /// As many nodes as blue has.
    Full,
    /// This many nodes more than what has been drained.
    Surge(u32),
}

/// How blue is emptied.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drain {
    pub order: DrainOrder,
    /// Nodes drained at once.
    pub parallel: u32,
    pub pod_deadline: Duration,
    pub node_deadline: Duration,
    pub on_deadline: OnDeadline,
    pub bare_pods: Consent,
    pub empty_dir: Consent,
    /// Of pods that no DaemonSet makes.
    #[serde(skip_serializing_if = "Consent::is_block")]
    pub host_path: Consent,
    /// Volumes whose data a storage system keeps on blue's own disks.
    #[serde(skip_serializing_if = "Consent::is_block")]
    pub node_storage: Consent,
    pub jobs: Jobs,
    pub single_replicas: SingleReplicas,
    /// Both left out of the digest where they are not given, as for windows.
    #[serde(skip_serializing_if = "is_block")]
    pub operator_budgets: OperatorBudgets,
    /// By `NAMESPACE/NAME` or `NAMESPACE/*`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<String, BudgetConsent>,
    pub dead_kubelets: DeadKubelets,
    /// Watch this long after each node.
    pub bake: Duration,
    /// With the strategy `canary`: watch this long after the first node, which is drained alone.
    pub canary_bake: Duration,
}

/// Which node next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainOrder {
    /// Fewest obstacles first.
    Easiest,
    /// Zones in turn.
    Zones,
    /// Oldest first.
    Oldest,
    Name,
}

/// What happens at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDeadline {
    /// Stop the run, stuck.
    Stop,
    /// Leave the node, go on with the next, stop before retiring blue.
    Skip,
    /// Delete the pods, past their budget.
    Delete,
}

/// Whether something that loses data may be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consent {
    Block,
    Evict,
    /// For these workloads only.
    EvictOnly(Vec<WorkloadPattern>),
}

impl Consent {
    /// Whether nothing is consented to.
    pub fn is_block(&self) -> bool {
        *self == Self::Block
    }

    /// The workloads that it covers.
    pub fn scope(&self) -> ConsentScope {
        match self {
            Self::Block => ConsentScope::NONE,
            Self::Evict => ConsentScope::All(true),
            Self::EvictOnly(patterns) => ConsentScope::Only(patterns.clone()),
        }
    }
}

/// What happens to pods that run to an end: those of Jobs, and others that nothing restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Jobs {
    /// Until they finish, within the node's deadline.
    Wait,
    Evict,
    /// These are evicted, the others waited for.
    EvictOnly(Vec<WorkloadPattern>),
}

impl Jobs {
    /// The workloads that are evicted.
    pub fn evicted(&self) -> ConsentScope {
        match self {
            Self::Wait => ConsentScope::NONE,
            Self::Evict => ConsentScope::All(true),
            Self::EvictOnly(patterns) => ConsentScope::Only(patterns.clone()),
        }
    }
}

/// What happens to a workload of one replica whose budget never lets it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SingleReplicas {
    /// A finding before anything starts.
    Block,
    /// A Deployment is restarted so that its new pod comes up on green first.
    Surge,
    /// Evicted like any other.
    Evict,
}

/// What happens to pods under a budget that an operator runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorBudgets {
    /// A finding before anything starts.
    Block,
    /// Evictions are tried at intervals, so that its webhook hears of them, and the operator has until the pod's deadline.
    Wait,
}

fn is_block(consent: &OperatorBudgets) -> bool {
    *consent == OperatorBudgets::Block
}

/// What the plan consents to for one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BudgetConsent {
    /// Nothing, whatever is said of all budgets.
    Block,
    /// As [`OperatorBudgets::Wait`].
    Wait,
    /// The same, and at the pod's deadline it is deleted past the budget.
    Delete,
}

impl Drain {
    /// What the plan says of the budget `namespace/name`: by its name first, then of its namespace.
    pub fn budget_consent(&self, namespace: &str, name: &str) -> Option<BudgetConsent> {
        let exact = self.budgets.get(&format!("{namespace}/{name}"));
        let of_namespace = || self.budgets.get(&format!("{namespace}/*"));
        exact.or_else(of_namespace).copied()
    }
}

/// What happens to pods of a node whose kubelet does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeadKubelets {
    /// Stop the run, stuck.
    Stop,
    /// Evict, and do not wait for pods that are marked for deletion.
    Skip,
}

/// How traffic is shifted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Traffic {
    /// Empty: found from blue's Auto Scaling groups, where green joins blue's own target groups.
    pub routes: Vec<TrafficRoute>,
    /// Percent on green, rising to 100.
    pub steps: Vec<u32>,
    /// Watch this long after each raise.
    pub bake: Duration,
    /// Least healthy share of green's targets before a raise, in percent.
    pub min_healthy_percent: u32,
    /// Longest green may take to be healthy before a raise.
    pub timeout: Duration,
    /// What happens when green's targets turn unhealthy after a raise.
    pub on_unhealthy: OnUnhealthy,
}

/// What happens when green's targets turn unhealthy during a shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnhealthy {
    /// Weights go back to blue, and the run stops, stuck.
    Back,
    /// Weights stay and the run waits until its timeout.
    Hold,
}

/// One pair of target groups and the rules that point at them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrafficRoute {
    pub rule: RuleRef,
    /// Name or ARN.
    pub blue: String,
    /// Name or ARN.
    pub green: String,
}

/// Which rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleRef {
    /// A rule's or listener's ARN; a listener means its default action.
    Arn(String),
    /// A load balancer's name, a port, and conditions such as `path-pattern=/api/*`; none: the default action.
    Match {
        load_balancer: String,
        port: u16,
        conditions: Vec<String>,
    },
    /// Every rule that forwards to the blue target group.
    Every,
}

/// How blue ends.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retire {
    /// Keep blue, empty, this long.
    pub soak: Duration,
    pub then: RetireHow,
}

/// What becomes of an empty blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetireHow {
    Delete,
    KeepAtZero,
}

/// Who is told of lifecycle events.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notify {
    Webhook { url: String, on: Vec<String> },
    Sns { topic: String, on: Vec<String> },
}
