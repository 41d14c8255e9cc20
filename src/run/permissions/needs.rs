//! What of the permissions depends on the plan.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Inventory;
use crate::model::kube::Node;
use crate::model::node_pool::pool_of;
use crate::plan::{
    DeleteOwned, FargatePods, NodeGroup, Plan, PoolStrategy, RuleRef, SingleReplicas,
};

/// What of the permissions depends on the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionNeeds {
    pub delete_groups: bool,
    /// A version of a launch template is made, with the image that the plan names.
    pub template_versions: bool,
    /// A launch template is made of a launch configuration.
    pub configuration_templates: bool,
    /// ARNs, or patterns of them, of listener rules whose weights change.
    pub rules: BTreeSet<String>,
    /// ARNs, or patterns of them, of listeners whose default action changes.
    pub listeners: BTreeSet<String>,
    /// ARNs, or patterns of them, of target groups in which instances are registered one by one and deregistered.
    pub target_groups: BTreeSet<String>,
    /// ARNs, or patterns of them, of classic load balancers.
    pub classic_balancers: BTreeSet<String>,
    /// ARN patterns of self-managed Auto Scaling groups, blue and green; empty where none moves.
    pub self_managed: BTreeSet<String>,
    /// ARN patterns of CloudFormation stacks that are deleted with blue.
    pub stacks: BTreeSet<String>,
    /// What lets a role's nodes into the cluster is read.
    pub reads_node_access: bool,
    pub restart_deployments: bool,
    /// Karpenter's objects, or those of EKS Auto Mode, are read.
    pub reads_node_pools: bool,
    /// NodePools are made and deleted, with their machines and node classes.
    pub make_node_pools: bool,
    /// Budgets of NodePools are changed.
    pub change_node_pools: bool,
    pub topics: Vec<String>,
    pub cluster: Option<String>,
}

impl PermissionNeeds {
    /// Returns what a run of `plan` may have to do; without a plan, everything that any plan could need.
    pub fn from_plan(plan: Option<&Plan>) -> Self {
        // Blue may stand behind target groups that the plan does not name, and leaves each of them before its pods go.
        let of = |what: &str| BTreeSet::from([format!("arn:*:elasticloadbalancing:*:*:{what}")]);
        let (target_groups, classic_balancers) = (of("targetgroup/*/*"), of("loadbalancer/*"));
        let Some(plan) = plan else {
            let (rules, listeners) = changed_rules(&[RuleRef::Every]);
            return Self {
                delete_groups: true,
                template_versions: true,
                configuration_templates: true,
                rules,
                listeners,
                target_groups,
                classic_balancers,
                self_managed: BTreeSet::from([asg_pattern("*")]),
                stacks: BTreeSet::from([any_stack()]),
                reads_node_access: true,
                restart_deployments: true,
                make_node_pools: true,
                reads_node_pools: true,
                change_node_pools: true,
                topics: vec!["arn:*:sns:*:*:*".to_owned()],
                cluster: None,
            };
        };
        let topic = |n: &crate::plan::Notify| match n {
            crate::plan::Notify::Sns { topic, .. } => Some(topic.clone()),
            crate::plan::Notify::Webhook { .. } => None,
        };
        let routes = plan.traffic.routes.iter().map(|r| r.rule.clone());
        let (rules, listeners) = changed_rules(&routes.collect::<Vec<_>>());
        Self {
            // A rollback deletes green, whatever becomes of blue.
            delete_groups: true,
            template_versions: plan.all_groups().any(|g| g.ami.is_some()),
            // Whether a group launches from one the cluster knows, and not the plan.
            configuration_templates: plan.auto_scaling_groups.iter().any(|g| g.ami.is_some()),
            rules,
            listeners,
            target_groups,
            classic_balancers,
            self_managed: plan
                .auto_scaling_groups
                .iter()
                .flat_map(group_patterns)
                .collect(),
            // The group's tags name its stack, and not the plan.
            stacks: { plan.all_groups() }
                .filter(|g| g.delete_owned == DeleteOwned::Stack)
                .map(|_| any_stack())
                .collect(),
            reads_node_access: !plan.auto_scaling_groups.is_empty(),
            restart_deployments: plan.fargate == FargatePods::Restart
                || (plan.all_drains()).any(|d| d.single_replicas == SingleReplicas::Surge),
            make_node_pools: plan.replaced_pools().next().is_some(),
            reads_node_pools: true,
            change_node_pools: plan.karpenter.is_empty()
                || (plan.karpenter.iter()).any(|p| p.strategy != PoolStrategy::Leave),
            topics: plan.notify.iter().filter_map(topic).collect(),
            cluster: Some(plan.cluster.clone()),
        }
    }
}

impl PermissionNeeds {
    /// Cuts what depends on the kinds of nodes down to those that the cluster has.
    pub fn narrow_to_nodes(&mut self, plan: &Plan, inventory: &Inventory) {
        let has = |is: fn(&Node) -> bool| inventory.nodes.iter().any(is);
        self.change_node_pools &= has(|n| pool_of(n).is_some() && !n.is_auto_mode());
        self.restart_deployments = plan.fargate == FargatePods::Restart && has(Node::is_fargate)
            || (plan.all_drains()).any(|d| d.single_replicas == SingleReplicas::Surge);
        self.reads_node_pools = has(|n| pool_of(n).is_some());
    }

    /// Cuts what is written at load balancers down to what `written` says, by action.
    pub fn narrow_to_writes(&mut self, written: &BTreeMap<&'static str, BTreeSet<String>>) {
        let on = |action: &str| written.get(action).cloned().unwrap_or_default();
        self.configuration_templates = !on("ec2:CreateLaunchTemplate").is_empty();
        self.stacks = on("cloudformation:DeleteStack");
        self.rules = on("elasticloadbalancing:ModifyRule");
        self.listeners = on("elasticloadbalancing:ModifyListener");
        self.target_groups = on("elasticloadbalancing:DeregisterTargets");
        self.classic_balancers = on("elasticloadbalancing:DeregisterInstancesFromLoadBalancer");
    }
}

/// A self-managed blue and its green; where the plan does not name green, eksup's name for it depends on the cluster.
fn group_patterns(entry: &NodeGroup) -> [String; 2] {
    [entry.blue.as_str(), entry.green.as_deref().unwrap_or("*")].map(asg_pattern)
}

fn any_stack() -> String {
    "arn:*:cloudformation:*:*:stack/*".to_owned()
}

fn asg_pattern(name: &str) -> String {
    format!("arn:*:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/{name}")
}

/// Returns the listener rules and the listeners that a plan's routes change, as narrow as the plan names them.
pub fn changed_rules(routes: &[RuleRef]) -> (BTreeSet<String>, BTreeSet<String>) {
    let of = |what: String| format!("arn:*:elasticloadbalancing:*:*:{what}");
    let (mut rules, mut listeners) = (BTreeSet::new(), BTreeSet::new());
    for route in routes {
        match route {
            RuleRef::Arn(arn) if arn.contains(":listener-rule/") => {
                // It may be the default rule, which is changed through its listener (ELB-1).
                listeners.extend(listener_of(arn));
                rules.insert(arn.clone());
            }
            RuleRef::Arn(arn) => drop(listeners.insert(arn.clone())),
            // Without conditions it is the default action, with some a rule, which only an application balancer has.
            RuleRef::Match {
                load_balancer,
                conditions,
                ..
            } if conditions.is_empty() => {
                for kind in ["app", "net"] {
                    listeners.insert(of(format!("listener/{kind}/{load_balancer}/*")));
                }
            }
            RuleRef::Match { load_balancer, .. } => {
                rules.insert(of(format!("listener-rule/app/{load_balancer}/*")));
            }
            RuleRef::Every => {
                rules.insert(of("listener-rule/app/*".to_owned()));
                for kind in ["app", "net"] {
                    listeners.insert(of(format!("listener/{kind}/*")));
                }
            }
        }
    }
    (rules, listeners)
}

/// Returns the ARN of the listener that a rule belongs to.
fn listener_of(rule: &str) -> Option<String> {
    let (listener, _) = rule.rsplit_once('/')?;
    Some(listener.replacen(":listener-rule/", ":listener/", 1))
}
