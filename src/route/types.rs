//! A route: the steps from an inventory to a plan, each as plain data. It is journaled when a run opens and never
//! recomputed for that run, so that a resumed run does what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::plan::{BudgetConsent, DrainOrder, OnDeadline, SingleReplicas};
use serde::{Deserialize, Serialize};

use crate::model::consent::ConsentScope;
use crate::model::eks::{AddonChange, NewNodegroup, NodegroupTaint};
use crate::model::group_owner::GroupOwner;
use crate::model::kube::Taint;
use crate::model::node_source::NodeSource;
use crate::model::warm_pool::WarmPool;
use crate::model::{AddonVersion, Minor};

/// The steps, in order, and what a reader should know of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    pub cluster: String,
    pub from: Minor,
    pub to: Minor,
    pub steps: Vec<RouteStep>,
    /// Choices and their reasons, for `plan`.
    pub notes: Vec<String>,
    /// Workloads that the plan's `amiType` gives up: without the nodes' credentials their pods fail on green.
    #[serde(default, skip_serializing_if = "AcceptedLosses::is_empty")]
    pub accepted_losses: AcceptedLosses,
    /// Groups of the route, blue and green, that are self-managed Auto Scaling groups.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub self_managed: BTreeSet<String>,
    /// Groups of the route, blue and green, that are NodePools of Karpenter.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub node_pools: BTreeSet<String>,
    /// Groups that move and that a tool owns, with the tags by which it knows them: once blue is gone nothing else tells.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub owners: BTreeMap<String, GroupOwner>,
}

/// By workload (`Deployment shop/web`): the blue node groups whose successors it fails on.
pub type AcceptedLosses = BTreeMap<String, BTreeSet<String>>;

impl Route {
    /// Who makes the nodes of a group of the route.
    pub fn source_of(&self, group: &str) -> NodeSource {
        if self.self_managed.contains(group) {
            NodeSource::AutoScalingGroup
        } else if self.node_pools.contains(group) {
            NodeSource::NodePool
        } else {
            NodeSource::ManagedGroup
        }
    }

    /// The tools that own groups of the route, in words; none where no tag names one.
    pub fn owner_names(&self) -> Option<String> {
        let tools: BTreeSet<&str> = self.owners.values().map(|o| o.tool.name()).collect();
        let names: Vec<&str> = tools.into_iter().collect();
        (!names.is_empty()).then(|| names.join(" and "))
    }

    /// The steps in the order in which they are rolled back: the last first; but within one migration blue is as large as
    /// it was, then the target groups are filled again, then the weights return, then blue is opened, then the pods move,
    /// and only then does green leave the rules. Blue takes the traffic without the pods, and whoever rolls back wants it
    /// off green first. Where green serves nothing the engine goes on to the opening and the pods while the weights wait
    /// for blue.
    pub fn rollback_order(&self) -> Vec<&RouteStep> {
        let mut back: Vec<&RouteStep> = Vec::new();
        // From the end on, each step once; but what makes blue whole goes before the first step that brings traffic or
        // pods to it.
        for (i, step) in self.steps.iter().enumerate().rev() {
            if ends_migration(&step.spec) {
                back.push(step);
                continue;
            }
            if step.spec.grows_blue_first() {
                continue;
            }
            // Blues whose size is seen to before the traffic or a pod comes back to them.
            for first in self.blues_to_grow_before(i) {
                if back.iter().all(|known| known.id != first.id) {
                    back.push(first);
                }
            }
            back.push(step);
        }
        // Within a run of such steps the way up's order is turned into the one that gets traffic off green first.
        let rank = |step: &RouteStep| rollback_rank(&step.spec);
        for neighbours in back.chunk_by_mut(|a, b| rank(a).is_some() && rank(b).is_some()) {
            neighbours.sort_by_key(|step| rank(step));
        }
        back
    }

    /// The blues that must be whole before step `i` is rolled back: those held since the last migration ended.
    fn blues_to_grow_before(&self, i: usize) -> impl Iterator<Item = &RouteStep> {
        let of_this = self.steps[..i].iter().rev();
        let of_this = of_this.take_while(|s| !matches!(s.spec, StepSpec::ReleaseGreen { .. }));
        of_this.filter(|s| s.spec.grows_blue_first())
    }
}

/// Whether a step comes after the pods of a migration have moved: a rollback takes it first.
fn ends_migration(spec: &StepSpec) -> bool {
    matches!(
        spec,
        StepSpec::AddWarmPool { .. }
            | StepSpec::Soak { .. }
            | StepSpec::Retire { .. }
            | StepSpec::DeleteStack { .. }
            | StepSpec::ReleaseGreen { .. }
    )
}

/// The place, within one migration, of a step that brings traffic or pods back to blue; none of a step whose place is its
/// own in the reversed route.
fn rollback_rank(spec: &StepSpec) -> Option<u8> {
    match spec {
        StepSpec::DetachTargets { .. } => Some(0),
        StepSpec::Shift { .. } => Some(1),
        StepSpec::CordonBlue { .. } => Some(2),
        StepSpec::Drain { .. } => Some(3),
        StepSpec::AddToRules { .. } => Some(4),
        StepSpec::Addon { .. }
        | StepSpec::ControlPlane { .. }
        | StepSpec::Bake { .. }
        | StepSpec::LaunchTemplate { .. }
        | StepSpec::ConfigurationTemplate { .. }
        | StepSpec::CreateGreen { .. }
        | StepSpec::HoldGreen { .. }
        | StepSpec::HoldBlue { .. }
        | StepSpec::RemoveWarmPool { .. }
        | StepSpec::AddWarmPool { .. }
        | StepSpec::AttachTargets { .. }
        | StepSpec::Soak { .. }
        | StepSpec::Retire { .. }
        | StepSpec::DeleteStack { .. }
        | StepSpec::ReleaseGreen { .. }
        | StepSpec::HoldPool { .. }
        | StepSpec::DriftPool { .. }
        | StepSpec::ReleasePool { .. }
        | StepSpec::RestartFargate { .. }
        | StepSpec::WaitAutoMode { .. } => None,
    }
}

/// One entry of a route: what `--until` and approvals name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteStep {
    /// Unique and stable, such as `control-plane-1.28` or `drain-expense-blue`; also what `--until` takes.
    pub id: String,
    /// One line for people.
    pub title: String,
    /// The objects it will touch, such as `node group expense-blue` or `listener rule ...`.
    pub touches: Vec<String>,
    /// Why it stands here, where that is not plain.
    pub why: Option<String>,
    /// Why it cannot be rolled back.
    pub no_return: Option<String>,
    /// How long it is expected to take, from experience recorded beside each rule.
    pub estimate: Duration,
    pub spec: StepSpec,
}

/// What a step does. The engine's steps are built from these and from nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum StepSpec {
    /// An EKS add-on to a version. `change` carries the configuration and role to send again.
    Addon {
        from: AddonVersion,
        change: AddonChange,
        timeout: Duration,
    },
    /// The control plane up one minor.
    ControlPlane {
        from: Minor,
        to: Minor,
        timeout: Duration,
    },
    /// Nothing but watching for a while; the nodes and the API server must stay healthy.
    Bake { what: String, time: Duration },
    /// A new version of a launch template, with another image.
    LaunchTemplate {
        template: String,
        source_version: i64,
        image: String,
    },
    /// A launch template made of a launch configuration, with another image: a configuration has no versions.
    ConfigurationTemplate {
        green: String,
        configuration: String,
        /// The template's name.
        template: String,
        image: String,
    },
    /// A green group beside blue. Its desired size is raised to blue's at the time of the act.
    CreateGreen {
        blue: String,
        group: Box<NewNodegroup>,
        /// The minor its kubelets must report; absent for a custom AMI that stays as it is.
        kubelet: Option<Minor>,
        /// Zones that must have a Ready node, because a volume or a spread needs them.
        zones: Vec<String>,
        /// Auto Scaling tags to copy from blue's group.
        copy_asg_tags: bool,
        /// For a group with a custom AMI: use the newest version of this template that `LaunchTemplate` made, or the one
        /// that `ConfigurationTemplate` made.
        template_from: Option<String>,
        /// Taints that its nodes register themselves with, or that blue's nodes have: no startup taints.
        #[serde(default)]
        lasting_taints: Vec<Taint>,
        /// Green starts with this many nodes, and the drain grows it; absent: it stands whole, as large as blue.
        #[serde(default)]
        surge: Option<u32>,
        /// Of a NodePool: the image for a node class of its own; absent: blue's class.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        class_image: Option<String>,
        timeout: Duration,
    },
    /// Green is kept from the autoscaler's scale-down until the run ends.
    HoldGreen { green: String },
    /// Blue is kept from the autoscaler's scale-down until it is retired, and a rollback finds it whole.
    HoldBlue {
        blue: String,
        /// A rollback grows blue before anything else of the migration; not where blue gives its room to green first.
        grows_first: bool,
    },
    /// The warm pool of a self-managed blue is emptied and deleted, before blue is closed.
    RemoveWarmPool {
        blue: String,
        pool: WarmPool,
        /// An earlier run has begun to, and not given it back; a rollback of this one does.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        removed_before: bool,
    },
    /// A self-managed green gets the warm pool that blue had, once blue is empty.
    AddWarmPool { green: String, pool: WarmPool },
    /// Blue takes no new pod and no new node: taint on the group, taint and cordon on nodes, size pinned.
    CordonBlue { blue: String, taint: NodegroupTaint },
    /// Green's instances become targets.
    AttachTargets { green: String, target_group: String },
    /// Green's target group stands in the rules at weight 0, and its targets turn healthy.
    AddToRules { green: String, shift: ShiftSpec },
    /// Weights from blue to green, in steps.
    Shift { green: String, shift: ShiftSpec },
    /// Blue's instances leave a target group they share with green, and their connections drain.
    DetachTargets {
        blue: String,
        target_group: String,
        /// Rules that give the target group no weight any more; empty: others in it must be healthy instead.
        #[serde(default)]
        idle_in: Vec<String>,
    },
    /// Blue's nodes are emptied, one by one.
    Drain {
        blue: String,
        green: String,
        drain: DrainSpec,
    },
    /// Blue stays, empty, for a while.
    Soak { blue: String, time: Duration },
    /// Blue goes, once it is proved empty and no rule sends it traffic.
    Retire {
        blue: String,
        green: String,
        delete: bool,
        /// Target groups that hold blue's instances.
        target_groups: Vec<String>,
        /// Rules that must give those target groups no weight (unless green is in the same group).
        #[serde(default)]
        rules: Vec<String>,
    },
    /// The CloudFormation stack of a blue without nodes is deleted, and blue with it; all else that it holds is kept.
    DeleteStack {
        blue: String,
        /// Its ARN, or its name.
        stack: String,
    },
    /// Green's protection from scale-down is taken off.
    ReleaseGreen { green: String },
    /// Karpenter replaces no node of the NodePool for a new version, until the run lets it.
    HoldPool {
        pool: String,
        /// Nor for any other reason, because eksup itself replaces its nodes.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        all_reasons: bool,
    },
    /// Karpenter replaces the NodePool's nodes, some at a time.
    DriftPool {
        pool: String,
        kubelet: Minor,
        /// How many at once; absent: what the NodePool itself says.
        budget: Option<String>,
        /// Watched this long after each time.
        bake: Duration,
        /// Longest time without progress.
        timeout: Duration,
    },
    /// The NodePool is left to Karpenter again.
    ReleasePool { pool: String },
    /// Pods on Fargate nodes of an old version are replaced, workload by workload.
    RestartFargate { kubelet: Minor, drain: DrainSpec },
    /// EKS Auto Mode replaces its nodes.
    WaitAutoMode { kubelet: Minor, timeout: Duration },
}

/// One pair of target groups and the rules between them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShiftSpec {
    /// ARNs of rules; for a default action of a network load balancer, the listener's ARN.
    pub rules: Vec<String>,
    pub blue: String,
    pub green: String,
    /// Percent on green, rising to 100.
    pub steps: Vec<u32>,
    pub bake: Duration,
    pub min_healthy_percent: u32,
    pub timeout: Duration,
    pub back_on_unhealthy: bool,
    /// Blue has no nodes while the traffic is on green (strategy recreate): the rollback does not wait for its health.
    #[serde(default)]
    pub blue_away: bool,
    /// Every zone in which green has targets must have a healthy one. Not with `externalTrafficPolicy: Local`, where a node
    /// without a pod of the service is unhealthy by design.
    #[serde(default)]
    pub every_zone: bool,
}

/// How nodes are emptied; as in the plan, in the journal's own words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainSpec {
    pub order: DrainOrder,
    pub parallel: u32,
    pub pod_deadline: Duration,
    pub node_deadline: Duration,
    pub on_deadline: OnDeadline,
    pub bare_pods: ConsentScope,
    pub empty_dir: ConsentScope,
    #[serde(default, skip_serializing_if = "ConsentScope::is_none")]
    pub host_path: ConsentScope,
    pub wait_for_jobs: bool,
    /// Of the pods that run to completion, those that are evicted all the same.
    #[serde(default, skip_serializing_if = "ConsentScope::is_none")]
    pub evict_jobs: ConsentScope,
    pub single_replicas: SingleReplicas,
    /// Under a budget that an operator runs evictions are tried at intervals, until the pod's deadline.
    #[serde(default)]
    pub wait_for_operators: bool,
    /// By `NAMESPACE/NAME` or `NAMESPACE/*`.
    #[serde(default)]
    pub budgets: BTreeMap<String, BudgetConsent>,
    pub skip_dead_kubelets: bool,
    pub bake: Duration,
    /// The first node is drained alone and watched this long.
    pub canary_bake: Option<Duration>,
    /// Green is grown by this many nodes at a time, instead of standing whole beside blue.
    pub surge: Option<u32>,
    /// Target groups, and classic load balancers by name, that a controller fills from nodes: a node leaves them, by the exclude label, before its pods go.
    #[serde(default)]
    pub leave_target_groups: Vec<String>,
    /// Those of them in which a node is healthy only while it has certain pods.
    #[serde(default)]
    pub served_by_pods: Vec<String>,
    /// Target groups filled from blue's Auto Scaling group that a node must leave, by DeregisterTargets, before its pods
    /// go: services with `externalTrafficPolicy: Local`, whose nodes turn unhealthy with their last pod.
    #[serde(default)]
    pub deregister_from: Vec<String>,
    /// The workloads may be down: nothing waits for replacements to be Ready, and a budget that refuses is passed over
    /// by deleting the pod. Only with `strategy: recreate`, where there is no green yet.
    #[serde(default)]
    pub downtime: bool,
    /// Nodes are made for pods that have been evicted: nothing asks whether there is a place before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nodes_follow: bool,
}
