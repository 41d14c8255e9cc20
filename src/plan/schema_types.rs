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
    pub to: TargetSchema,
    /// How nodes are replaced. Default: blue-green.
    pub strategy: Option<StrategySchema>,
    pub control_plane: Option<ControlPlaneSchema>,
    pub addons: Option<AddonsSchema>,
    /// The groups to be replaced. Default: every managed node group.
    pub node_groups: Option<Vec<NodeGroupSchema>>,
    pub drain: Option<DrainSchema>,
    pub traffic: Option<TrafficSchema>,
    pub retire: Option<RetireSchema>,
    /// When something new may begin. Default: at any time.
    pub windows: Option<Vec<WindowSchema>>,
    pub approvals: Option<ApprovalsSchema>,
    pub notify: Option<Vec<NotifySchema>>,
}

/// A minor version. Quotes are not needed: eksup reads `1.30` as it is written.
#[derive(JsonSchema)]
#[serde(untagged)]
pub enum TargetSchema {
    Text(#[schemars(regex(pattern = r"^1\.[0-9]{2}$"))] String),
    Number(f64),
}

/// A number with a unit, such as `30s`, `5m`, `1h30m`, `2d`.
#[derive(JsonSchema)]
#[schemars(transparent)]
pub struct DurationSchema(
    #[schemars(regex(pattern = r"^(0|([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?)$"))] pub String,
);

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StrategySchema {
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
pub struct ControlPlaneSchema {
    /// Watch this long after each hop, with nodes still on the old version. Default: 10m.
    pub bake: Option<DurationSchema>,
    /// What an EKS upgrade insight in ERROR means. Default: block.
    pub insights: Option<InsightsSchema>,
    /// Longest one hop may take. Default: 1h.
    pub timeout: Option<DurationSchema>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InsightsSchema {
    Block,
    Warn,
    Ignore,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddonsSchema {
    /// Default: default.
    pub policy: Option<AddonPolicySchema>,
    /// What happens to fields that somebody changed. Default: preserve.
    pub conflicts: Option<ConflictsSchema>,
    /// Add-on to the version it must end on.
    pub pins: Option<BTreeMap<String, String>>,
    /// Add-ons that are left alone.
    pub skip: Option<Vec<String>>,
    /// Longest one update may take. Default: 20m.
    pub timeout: Option<DurationSchema>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AddonPolicySchema {
    /// EKS's default version for the minor.
    Default,
    /// The newest version for the minor.
    Latest,
    /// Only what compatibility forces.
    Minimal,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictsSchema {
    Preserve,
    Overwrite,
    None,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeGroupSchema {
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
    pub capacity: Option<CapacitySchema>,
    /// Replaces blue's instance types.
    pub instance_types: Option<Vec<String>>,
    /// Added to blue's labels, or in their place.
    pub labels: Option<BTreeMap<String, String>>,
    /// Added to blue's taints.
    pub taints: Option<Vec<TaintSchema>>,
    /// Consent to delete a group that eksctl, CloudFormation or Terraform owns. Default: false.
    pub delete_owned: Option<bool>,
    /// Consent to move a group that EKS calls DEGRADED while it has nodes. Default: false.
    pub accept_degraded: Option<bool>,
    /// Longest green may take to be ready. Default: 30m.
    pub timeout: Option<DurationSchema>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum CapacitySchema {
    /// As many nodes as blue.
    Full,
    /// This many nodes more than have been drained.
    Surge(#[schemars(range(min = 1, max = 450))] u32),
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaintSchema {
    pub key: String,
    pub value: Option<String>,
    pub effect: TaintEffectSchema,
}

#[derive(JsonSchema)]
pub enum TaintEffectSchema {
    NoSchedule,
    NoExecute,
    PreferNoSchedule,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainSchema {
    /// Which node next. Default: easiest.
    pub order: Option<DrainOrderSchema>,
    /// Nodes at once. Default: 1.
    #[schemars(range(min = 1, max = 50))]
    pub parallel: Option<u32>,
    /// Default: 15m.
    pub pod_deadline: Option<DurationSchema>,
    /// Default: 1h.
    pub node_deadline: Option<DurationSchema>,
    /// Default: stop.
    pub on_deadline: Option<OnDeadlineSchema>,
    /// Pods without a controller. Default: block.
    pub bare_pods: Option<ScopedConsentSchema>,
    /// Pods with data in an emptyDir. Default: block.
    pub empty_dir: Option<ScopedConsentSchema>,
    /// Pods with data in a directory of their node. Default: block.
    pub host_path: Option<ScopedConsentSchema>,
    /// Volumes whose data a storage system keeps on the nodes. Default: block.
    pub node_storage: Option<ScopedConsentSchema>,
    /// Running Jobs, and other pods that run to an end. Default: wait.
    pub jobs: Option<ScopedJobsSchema>,
    /// One replica under a budget that never lets it go. Default: block.
    pub single_replicas: Option<SingleReplicasSchema>,
    /// Budgets that an operator runs and never opens by itself while its pod is there. Default: block.
    pub operator_budgets: Option<OperatorBudgetsSchema>,
    /// What is consented to for single budgets, by `NAMESPACE/NAME` or `NAMESPACE/*`.
    pub budgets: Option<BTreeMap<String, BudgetConsentSchema>>,
    /// Nodes whose kubelet does not answer. Default: stop.
    pub dead_kubelets: Option<DeadKubeletsSchema>,
    /// Watch this long after each node. Default: 1m.
    pub bake: Option<DurationSchema>,
    /// With `strategy: canary`: watch this long after the first node. Default: 10m.
    pub canary_bake: Option<DurationSchema>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DrainOrderSchema {
    Easiest,
    Zones,
    Oldest,
    Name,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnDeadlineSchema {
    Stop,
    Skip,
    Delete,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConsentSchema {
    Block,
    Evict,
}

/// Consent for all, for none, or for some workloads.
#[derive(JsonSchema)]
#[serde(untagged)]
pub enum ScopedConsentSchema {
    Word(ConsentSchema),
    Some(EvictOnlySchema),
}

#[derive(JsonSchema)]
#[serde(untagged)]
pub enum ScopedJobsSchema {
    Word(JobsSchema),
    Some(EvictOnlySchema),
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvictOnlySchema {
    /// Such as `shop/*`, `shop/web`, `Deployment shop/web`, `pod ci/runner-*`.
    pub evict: Vec<WorkloadPatternSchema>,
}

#[derive(JsonSchema)]
#[schemars(transparent)]
pub struct WorkloadPatternSchema(
    #[schemars(regex(pattern = r"^([A-Za-z0-9]+ +)?[A-Za-z0-9-]+/([A-Za-z0-9.-]+\*?|\*)$"))]
    pub  String,
);

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobsSchema {
    Wait,
    Evict,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SingleReplicasSchema {
    Block,
    Surge,
    Evict,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OperatorBudgetsSchema {
    Block,
    /// Evictions are tried again and again, and the operator has until `podDeadline`.
    Wait,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BudgetConsentSchema {
    Block,
    /// Evictions are tried again and again until `podDeadline`.
    Wait,
    /// The same, and then the pod is deleted past the budget.
    Delete,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeadKubeletsSchema {
    Stop,
    Skip,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficSchema {
    /// Pairs of target groups whose weights are shifted. Default: none; green joins blue's own target groups.
    pub routes: Option<Vec<TrafficRouteSchema>>,
    /// Percent on green, rising, the last 100. Default: [10, 50, 100].
    pub steps: Option<Vec<PercentSchema>>,
    /// Watch this long after each step. Default: 5m.
    pub bake: Option<DurationSchema>,
    /// Least healthy share of green's targets before a step. Default: 100.
    pub min_healthy_percent: Option<PercentSchema>,
    /// Longest green may take to be healthy. Default: 15m.
    pub timeout: Option<DurationSchema>,
    /// When green turns unhealthy after a step. Default: back.
    pub on_unhealthy: Option<OnUnhealthySchema>,
}

#[derive(JsonSchema)]
#[schemars(transparent)]
pub struct PercentSchema(#[schemars(range(min = 1, max = 100))] pub u32);

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnUnhealthySchema {
    Back,
    Hold,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficRouteSchema {
    /// Default: every.
    pub rule: Option<RuleSchema>,
    /// Name or ARN of blue's target group.
    pub blue: String,
    /// Name or ARN of green's target group.
    pub green: String,
}

#[derive(JsonSchema)]
#[serde(untagged)]
pub enum RuleSchema {
    Every(EveryRuleSchema),
    Named(NamedRuleSchema),
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EveryRuleSchema {
    /// Every rule that forwards to the pair.
    Every,
}

/// Either `arn`, or `loadBalancer` and `port`.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedRuleSchema {
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
pub struct RetireSchema {
    /// Blue stays, empty, this long. Default: 1h.
    pub soak: Option<DurationSchema>,
    /// Default: delete.
    pub then: Option<RetireHowSchema>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RetireHowSchema {
    Delete,
    KeepAtZero,
}

/// It opens on each of the days at `from` and closes at `to`, the next day where that is not later.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WindowSchema {
    /// Days on which it opens. Default: every day.
    pub days: Option<Vec<DaySchema>>,
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: String,
    #[schemars(regex(pattern = r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"))]
    pub to: String,
    /// A zone of the IANA database, such as `Europe/Berlin`. Default: UTC.
    pub time_zone: Option<String>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DaySchema {
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
pub struct ApprovalsSchema {
    /// Steps by their ids, or kinds of steps such as `drain` or `retire`. Default: none.
    pub before: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum NotifySchema {
    Webhook(WebhookSchema),
    Sns(SnsSchema),
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookSchema {
    pub url: String,
    /// Events; `docs/events.md` names them.
    pub on: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnsSchema {
    /// The topic's ARN.
    pub topic: String,
    /// Events; `docs/events.md` names them.
    pub on: Option<Vec<String>>,
}
