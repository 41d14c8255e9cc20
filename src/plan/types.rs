//! A checked plan: every value is valid and every default filled in. `plan::keys` says how each key is written; serde's
//! names of the fields here are the names of the keys there, and tests hold the two together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::group_settings::GroupSettings;
use super::words::{
    AddonConflicts, AddonPolicy, AutoModeNodes, BudgetConsent, ConsentWord, DeadKubelets,
    DeleteOwned, DrainOrder, EveryRule, FargatePods, Insights, JobsWord, OnDeadline, OnUnhealthy,
    OperatorBudgets, PoolCapacity, PoolStrategy, RetireHow, SingleReplicas, Strategy,
    UngroupedNodes, WholeCapacity,
};
use super::written_forms::{self, WrittenCapacity, WrittenConsent, WrittenRule};
use crate::model::consent::{ConsentScope, WorkloadPattern};
use crate::model::eks::NodegroupTaint;
use crate::model::{AddonVersion, Minor, Windows};

/// What the user wants of one cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase"))]
pub struct Plan {
    pub cluster: String,
    pub region: Option<String>,
    pub to: Minor,
    pub strategy: Strategy,
    pub control_plane: ControlPlane,
    pub addons: Addons,
    /// Empty: every managed node group of the cluster.
    #[serde(default)]
    pub node_groups: Vec<NodeGroup>,
    /// Self-managed groups; one that is not listed stays as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub auto_scaling_groups: Vec<NodeGroup>,
    /// Empty: every NodePool of Karpenter, by drift.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub karpenter: Vec<KarpenterPool>,
    /// These three are left out of the digest where they have their defaults, as for windows.
    #[serde(default = "restart_fargate", skip_serializing_if = "is_restart")]
    pub fargate: FargatePods,
    #[serde(default = "wait_for_auto_mode", skip_serializing_if = "is_wait")]
    pub auto_mode: AutoModeNodes,
    #[serde(default = "check_other_nodes", skip_serializing_if = "is_check")]
    pub other_nodes: UngroupedNodes,
    pub drain: Drain,
    pub traffic: Traffic,
    pub retire: Retire,
    /// When something new may begin; left out of the digest where there are none, so that a run that is open when
    /// eksup is replaced by a newer one still agrees with its plan.
    #[serde(default, deserialize_with = "written_forms::windows_from_times")]
    #[serde(skip_serializing_if = "has_no_windows")]
    pub windows: Windows,
    #[serde(skip_serializing_if = "has_no_approvals")]
    pub approvals: Approvals,
    #[serde(default)]
    pub notify: Vec<Notify>,
}

fn restart_fargate() -> FargatePods {
    FargatePods::Restart
}

fn is_restart(pods: &FargatePods) -> bool {
    *pods == restart_fargate()
}

fn wait_for_auto_mode() -> AutoModeNodes {
    AutoModeNodes::Wait
}

fn is_wait(nodes: &AutoModeNodes) -> bool {
    *nodes == wait_for_auto_mode()
}

fn check_other_nodes() -> UngroupedNodes {
    UngroupedNodes::Check
}

fn is_check(nodes: &UngroupedNodes) -> bool {
    *nodes == check_other_nodes()
}

fn has_no_windows(windows: &Windows) -> bool {
    windows.0.is_empty()
}

fn has_no_approvals(approvals: &Approvals) -> bool {
    approvals.before.is_empty()
}

/// What a person approves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approvals {
    /// Steps, or kinds of steps, that do not begin without; sorted.
    #[serde(default, deserialize_with = "written_forms::sorted_texts")]
    pub before: Vec<String>,
}

/// How the control plane is raised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlPlane {
    /// Watch this long after each hop, with nodes still on the old version.
    pub bake: Duration,
    pub insights: Insights,
    /// Longest a single hop may take.
    pub timeout: Duration,
}

/// How add-ons are brought along.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Addons {
    pub policy: AddonPolicy,
    pub conflicts: AddonConflicts,
    /// Add-on name to the version it must end on.
    #[serde(default)]
    pub pins: BTreeMap<String, AddonVersion>,
    /// Add-ons that are left alone.
    #[serde(default)]
    pub skip: Vec<String>,
    pub timeout: Duration,
}

/// What `ami` says where the newest image that AWS makes is wanted.
pub const AUTO_IMAGE: &str = "auto";

/// One blue node group and the green that replaces it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase"))]
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
    /// Replaces blue's instance types; never an empty list.
    #[serde(default, deserialize_with = "written_forms::none_where_empty")]
    pub instance_types: Option<Vec<String>>,
    /// Labels added to or replacing blue's.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints added to blue's.
    #[serde(default, deserialize_with = "written_forms::taints_as_eks_has_them")]
    pub taints: Vec<NodegroupTaint>,
    /// In place of the plan's own, where something differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<GroupSettings<Drain>>,
    /// The same, of the routes that belong to the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<GroupSettings<TrafficSettings>>,
    /// Consent to delete a group that CloudFormation, eksctl or Terraform owns.
    pub delete_owned: DeleteOwned,
    /// Consent to move a group that EKS calls DEGRADED.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_degraded: bool,
    /// Longest green may take to be ready.
    pub timeout: Duration,
}

/// A NodePool of Karpenter, and who replaces its nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase"))]
pub struct KarpenterPool {
    pub node_pool: String,
    pub strategy: PoolStrategy,
    /// Of the nodes that Karpenter replaces at once; absent: what the NodePool itself says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
    pub capacity: PoolCapacity,
    /// Consent to change a NodePool that a tool keeps as it is in Git.
    pub change_owned: bool,
    /// Longest time without progress.
    pub timeout: Duration,
    /// Where eksup replaces the nodes: what is said of a blue group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<NodeGroup>,
}

/// How much green stands beside blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", from = "WrittenCapacity")]
pub enum Capacity {
    /// As many nodes as blue has.
    Full,
    /// This many nodes more than what has been drained.
    Surge(u32),
}

impl From<WrittenCapacity> for Capacity {
    fn from(written: WrittenCapacity) -> Self {
        match written {
            WrittenCapacity::Word(WholeCapacity::Full) => Self::Full,
            WrittenCapacity::More { surge } => Self::Surge(surge),
        }
    }
}

/// How blue is emptied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase"))]
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
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<String, BudgetConsent>,
    pub dead_kubelets: DeadKubelets,
    /// Watch this long after each node.
    pub bake: Duration,
    /// With the strategy `canary`: watch this long after the first node, which is drained alone.
    pub canary_bake: Duration,
}

fn is_block(consent: &OperatorBudgets) -> bool {
    *consent == OperatorBudgets::Block
}

/// The patterns of a list; each was read as one before.
fn workload_patterns(texts: &[String]) -> Vec<WorkloadPattern> {
    let patterns = texts.iter().filter_map(|t| WorkloadPattern::parse(t));
    patterns.collect()
}

/// Whether something that loses data may be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", from = "WrittenConsent<ConsentWord>")]
pub enum Consent {
    Block,
    Evict,
    /// For these workloads only.
    EvictOnly(Vec<WorkloadPattern>),
}

impl From<WrittenConsent<ConsentWord>> for Consent {
    fn from(written: WrittenConsent<ConsentWord>) -> Self {
        match written {
            WrittenConsent::Word(ConsentWord::Block) => Self::Block,
            WrittenConsent::Word(ConsentWord::Evict) => Self::Evict,
            WrittenConsent::Only { evict } => Self::EvictOnly(workload_patterns(&evict)),
        }
    }
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

/// What happens to pods that run to completion: those of Jobs, and others that nothing restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", from = "WrittenConsent<JobsWord>")]
pub enum Jobs {
    /// Until they finish, within the node's deadline.
    Wait,
    Evict,
    /// These are evicted, the others waited for.
    EvictOnly(Vec<WorkloadPattern>),
}

impl From<WrittenConsent<JobsWord>> for Jobs {
    fn from(written: WrittenConsent<JobsWord>) -> Self {
        match written {
            WrittenConsent::Word(JobsWord::Wait) => Self::Wait,
            WrittenConsent::Word(JobsWord::Evict) => Self::Evict,
            WrittenConsent::Only { evict } => Self::EvictOnly(workload_patterns(&evict)),
        }
    }
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

impl Drain {
    /// What the plan says of the budget `namespace/name`: by its name first, then of its namespace.
    pub fn budget_consent(&self, namespace: &str, name: &str) -> Option<BudgetConsent> {
        let exact = self.budgets.get(&format!("{namespace}/{name}"));
        let of_namespace = || self.budgets.get(&format!("{namespace}/*"));
        exact.or_else(of_namespace).copied()
    }
}

/// How traffic is shifted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase"))]
pub struct Traffic {
    /// Empty: found from blue's Auto Scaling groups, where green joins blue's own target groups.
    #[serde(default)]
    pub routes: Vec<TrafficRoute>,
    #[serde(flatten)]
    pub settings: TrafficSettings,
}

/// How the weights of a pair of target groups are shifted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase"))]
pub struct TrafficSettings {
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

/// One pair of target groups and the rules that point at them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase"))]
pub struct TrafficRoute {
    pub rule: RuleRef,
    /// Name or ARN.
    pub blue: String,
    /// Name or ARN.
    pub green: String,
    /// The blue node group with whose own migration it is shifted; absent: with all that serve it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_group: Option<String>,
}

/// Which rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", from = "WrittenRule")]
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

impl From<WrittenRule> for RuleRef {
    fn from(written: WrittenRule) -> Self {
        match written {
            WrittenRule::Word(EveryRule::Every) => Self::Every,
            WrittenRule::Arn { arn } => Self::Arn(arn),
            WrittenRule::Match {
                load_balancer,
                port,
                conditions,
            } => Self::Match {
                load_balancer,
                port,
                conditions,
            },
        }
    }
}

/// How blue ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retire {
    /// Keep blue, empty, this long.
    pub soak: Duration,
    pub then: RetireHow,
}

/// Who is told of lifecycle events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notify {
    Webhook { url: String, on: Vec<String> },
    Sns { topic: String, on: Vec<String> },
}
