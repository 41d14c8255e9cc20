//! A plan as it is written: the shape that `eksup schema` prints. [`super::check`] reads the same keys from a tree, so
//! that it can report every problem at once; tests hold the two together.
#![allow(
    dead_code,
    reason = "these types are read by schemars, not by the program"
)]

use std::collections::BTreeMap;

use schemars::JsonSchema;

/// What eksup is to do with one EKS cluster.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpgradePlan {
    /// Always `eksup.dev/v1`.
    #[schemars(extend("const" = "eksup.dev/v1"))]
    pub api_version: Option<String>,
    /// Always `UpgradePlan`.
    #[schemars(extend("const" = "UpgradePlan"))]
    pub kind: Option<String>,
    /// The cluster's name.
    #[schemars(regex(pattern = r"^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$"))]
    pub cluster: String,
    /// The cluster's region; by default AWS's own settings say it.
    pub region: Option<String>,
    /// The Kubernetes version to go to; those in between are passed one by one.
    pub to: To,
    /// How nodes are replaced. Default: blue-green.
    pub strategy: Option<Strategy>,
    pub control_plane: Option<ControlPlane>,
    pub addons: Option<Addons>,
    /// The groups to be replaced. Default: every managed node group.
    pub node_groups: Option<Vec<NodeGroup>>,
    pub drain: Option<Drain>,
    pub traffic: Option<Traffic>,
    pub retire: Option<Retire>,
    /// When something new may begin. Default: at any time.
    pub windows: Option<Vec<Window>>,
    pub approvals: Option<Approvals>,
    pub notify: Option<Vec<Notify>>,
}

/// A minor version. Quotes are not needed: eksup reads `1.30` as it is written.
#[derive(JsonSchema)]
#[serde(untagged)]
pub enum To {
    Text(#[schemars(regex(pattern = r"^1\.[0-9]{2}$"))] String),
    Number(f64),
}

/// A number with a unit, such as `30s`, `5m`, `1h30m`, `2d`.
#[derive(JsonSchema)]
#[schemars(transparent)]
pub struct Time(
    #[schemars(regex(pattern = r"^(0|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?)$"))] pub String,
);

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// A whole green group beside blue.
    BlueGreen,
    /// As blue-green; the first node is drained alone and watched.
    Canary,
    /// Green grows as blue is drained.
    Rolling,
    /// Blue is emptied before there is a green: the workloads are down meanwhile.
    Recreate,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlPlane {
    /// Watch this long after each hop, with nodes still on the old version. Default: 10m.
    pub bake: Option<Time>,
    /// What an EKS upgrade insight in ERROR means. Default: block.
    pub insights: Option<Insights>,
    /// Longest one hop may take. Default: 1h.
    pub timeout: Option<Time>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Insights {
    Block,
    Warn,
    Ignore,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Addons {
    /// Default: default.
    pub policy: Option<AddonPolicy>,
    /// What happens to fields that somebody changed. Default: preserve.
    pub conflicts: Option<Conflicts>,
    /// Add-on to the version it must end on.
    pub pins: Option<BTreeMap<String, String>>,
    /// Add-ons that are left alone.
    pub skip: Option<Vec<String>>,
    /// Longest one update may take. Default: 20m.
    pub timeout: Option<Time>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AddonPolicy {
    /// EKS's default version for the minor.
    Default,
    /// The newest version for the minor.
    Latest,
    /// Only what compatibility forces.
    Minimal,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Conflicts {
    Preserve,
    Overwrite,
    None,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeGroup {
    /// The group to be replaced.
    pub blue: String,
    /// The new group's name. Default: `x-green` for `x-blue` and the other way round, else `NAME-green`.
    pub green: Option<String>,
    /// Default: blue's, or its successor where blue's has no image for the target.
    pub ami_type: Option<String>,
    /// A fixed AMI release. Default: the newest.
    pub release_version: Option<String>,
    /// For a group with an image of its own: the image for the target.
    #[schemars(regex(pattern = r"^ami-[0-9a-fA-F]{8,17}$"))]
    pub ami: Option<String>,
    /// For a group with an image of its own: a template version that has the new one.
    #[schemars(range(min = 1))]
    pub launch_template_version: Option<i64>,
    /// How much green stands beside blue. Default: full.
    pub capacity: Option<Capacity>,
    /// Replaces blue's instance types.
    pub instance_types: Option<Vec<String>>,
    /// Added to blue's labels, or in their place.
    pub labels: Option<BTreeMap<String, String>>,
    /// Added to blue's taints.
    pub taints: Option<Vec<Taint>>,
    /// Consent to delete a group that eksctl, CloudFormation or Terraform owns. Default: false.
    pub delete_owned: Option<bool>,
    /// Consent to move a group that EKS calls DEGRADED while it has nodes. Default: false.
    pub accept_degraded: Option<bool>,
    /// Longest green may take to be ready. Default: 30m.
    pub timeout: Option<Time>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Capacity {
    /// As many nodes as blue.
    Full,
    /// This many nodes more than have been drained.
    Surge(#[schemars(range(min = 1, max = 450))] u32),
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Taint {
    pub key: String,
    pub value: Option<String>,
    pub effect: Effect,
}

#[derive(JsonSchema)]
pub enum Effect {
    NoSchedule,
    NoExecute,
    PreferNoSchedule,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drain {
    /// Which node next. Default: easiest.
    pub order: Option<Order>,
    /// Nodes at once. Default: 1.
    #[schemars(range(min = 1, max = 50))]
    pub parallel: Option<u32>,
    /// Default: 15m.
    pub pod_deadline: Option<Time>,
    /// Default: 1h.
    pub node_deadline: Option<Time>,
    /// Default: stop.
    pub on_deadline: Option<OnDeadline>,
    /// Pods without a controller. Default: block.
    pub bare_pods: Option<ConsentOf>,
    /// Pods with data in an emptyDir. Default: block.
    pub empty_dir: Option<ConsentOf>,
    /// Pods with data in a directory of their node. Default: block.
    pub host_path: Option<ConsentOf>,
    /// Volumes whose data a storage system keeps on the nodes. Default: block.
    pub node_storage: Option<ConsentOf>,
    /// Running Jobs, and other pods that run to an end. Default: wait.
    pub jobs: Option<JobsOf>,
    /// One replica under a budget that never lets it go. Default: block.
    pub single_replicas: Option<SingleReplicas>,
    /// Budgets that an operator runs and never opens by itself while its pod is there. Default: block.
    pub operator_budgets: Option<OperatorBudgets>,
    /// What is consented to for single budgets, by `NAMESPACE/NAME` or `NAMESPACE/*`.
    pub budgets: Option<BTreeMap<String, BudgetConsent>>,
    /// Nodes whose kubelet does not answer. Default: stop.
    pub dead_kubelets: Option<DeadKubelets>,
    /// Watch this long after each node. Default: 1m.
    pub bake: Option<Time>,
    /// With `strategy: canary`: watch this long after the first node. Default: 10m.
    pub canary_bake: Option<Time>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    Easiest,
    Zones,
    Oldest,
    Name,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnDeadline {
    Stop,
    Skip,
    Delete,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Consent {
    Block,
    Evict,
}

/// Consent for all, for none, or for some workloads.
#[derive(JsonSchema)]
#[serde(untagged)]
pub enum ConsentOf {
    Word(Consent),
    Some(EvictOnly),
}

#[derive(JsonSchema)]
#[serde(untagged)]
pub enum JobsOf {
    Word(Jobs),
    Some(EvictOnly),
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvictOnly {
    /// Such as `shop/*`, `shop/web`, `Deployment shop/web`, `pod ci/runner-*`.
    pub evict: Vec<WorkloadPattern>,
}

#[derive(JsonSchema)]
#[schemars(transparent)]
pub struct WorkloadPattern(
    #[schemars(regex(pattern = r"^([A-Za-z0-9]+ +)?[A-Za-z0-9-]+/([A-Za-z0-9.-]+\*?|\*)$"))]
    pub  String,
);

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Jobs {
    Wait,
    Evict,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SingleReplicas {
    Block,
    Surge,
    Evict,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorBudgets {
    Block,
    /// Evictions are tried again and again, and the operator has until `podDeadline`.
    Wait,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BudgetConsent {
    Block,
    /// Evictions are tried again and again until `podDeadline`.
    Wait,
    /// The same, and then the pod is deleted past the budget.
    Delete,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeadKubelets {
    Stop,
    Skip,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traffic {
    /// Pairs of target groups whose weights are shifted. Default: none; green joins blue's own target groups.
    pub routes: Option<Vec<Route>>,
    /// Percent on green, rising, the last 100. Default: [10, 50, 100].
    pub steps: Option<Vec<Percent>>,
    /// Watch this long after each step. Default: 5m.
    pub bake: Option<Time>,
    /// Least healthy share of green's targets before a step. Default: 100.
    pub min_healthy_percent: Option<Percent>,
    /// Longest green may take to be healthy. Default: 15m.
    pub timeout: Option<Time>,
    /// When green turns unhealthy after a step. Default: back.
    pub on_unhealthy: Option<OnUnhealthy>,
}

#[derive(JsonSchema)]
#[schemars(transparent)]
pub struct Percent(#[schemars(range(min = 1, max = 100))] pub u32);

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnhealthy {
    Back,
    Hold,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Default: every.
    pub rule: Option<Rule>,
    /// Name or ARN of blue's target group.
    pub blue: String,
    /// Name or ARN of green's target group.
    pub green: String,
}

#[derive(JsonSchema)]
#[serde(untagged)]
pub enum Rule {
    Every(Every),
    Named(NamedRule),
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Every {
    /// Every rule that forwards to the pair.
    Every,
}

/// Either `arn`, or `loadBalancer` and `port`.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedRule {
    /// A rule's ARN, or a listener's for its default action.
    pub arn: Option<String>,
    /// The load balancer's name.
    pub load_balancer: Option<String>,
    pub port: Option<u16>,
    /// Such as `path-pattern=/api/*`; none: the default action.
    pub conditions: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retire {
    /// Blue stays, empty, this long. Default: 1h.
    pub soak: Option<Time>,
    /// Default: delete.
    pub then: Option<Then>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    Delete,
    KeepAtZero,
}

/// It opens on each of the days at `from` and closes at `to`, the next day where that is not later.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Window {
    /// Days on which it opens. Default: every day.
    pub days: Option<Vec<Day>>,
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: String,
    #[schemars(regex(pattern = r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"))]
    pub to: String,
    /// A zone of the IANA database, such as `Europe/Berlin`. Default: UTC.
    pub time_zone: Option<String>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// Where a person says yes first.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approvals {
    /// Steps by their ids, or kinds of steps such as `drain` or `retire`. Default: none.
    pub before: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Notify {
    Webhook(Webhook),
    Sns(Sns),
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhook {
    pub url: String,
    /// Events; `docs/events.md` names them.
    pub on: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sns {
    /// The topic's ARN.
    pub topic: String,
    /// Events; `docs/events.md` names them.
    pub on: Option<Vec<String>>,
}
