//! Who sends traffic to blue, and how it comes to green.
//!
//! Four cases, told apart per target group:
//!
//! - a *pair* of the plan: green's instances go into the other target group, and weights move;
//! - *shared*: a target group on blue's Auto Scaling group that is in no pair; green joins it, blue leaves it;
//! - *controlled*: a load balancer controller fills it; never touched, the drain takes nodes out of it by label;
//! - *ip*: its targets are pods; the drain moves them by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::Draft;
use super::problem::Obstacle;
use crate::model::Inventory;
use crate::model::elb::{Rule, TargetGroup, controller_owned};
use crate::model::kube::Service;
use crate::plan::RuleRef;

/// A pair of target groups that the plan names, with the rules between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// ARN of the one that is `blue` in the plan.
    pub blue: String,
    /// ARN of the other.
    pub green: String,
    /// ARNs of the rules.
    pub rules: Vec<String>,
}

impl Pair {
    /// The other side of a target group of this pair.
    pub fn other(&self, arn: &str) -> Option<&str> {
        if arn == self.blue {
            Some(&self.green)
        } else if arn == self.green {
            Some(&self.blue)
        } else {
            None
        }
    }
}

/// The name in a target group's ARN, for people and ids.
pub fn short(arn: &str) -> &str {
    arn.split(":targetgroup/")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .unwrap_or(arn)
}

/// Whether a controller fills this target group and would undo what somebody else does to it.
pub fn controlled(inventory: &Inventory, group: &TargetGroup) -> bool {
    controller_owned(&group.tags)
        || inventory
            .target_group_bindings
            .iter()
            .any(|b| b.target_group_arn.as_ref() == Some(&group.arn) && !b.multi_cluster)
}

/// The service with `externalTrafficPolicy: Local` behind a target group, if that is what it serves.
pub fn local_service<'a>(inventory: &'a Inventory, group: &TargetGroup) -> Option<&'a Service> {
    let port = group.port?;
    inventory.services.iter().find(|s| {
        s.node_ports.contains(&port) && s.external_traffic_policy.as_deref() == Some("Local")
    })
}

/// Which target groups the instances of each node group are in: attached to its Auto Scaling groups, or registered.
pub fn behind(inventory: &Inventory) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for group in &inventory.nodegroups {
        let mut arns: BTreeSet<String> = inventory
            .asgs_of(&group.name)
            .flat_map(|a| a.target_groups.iter().cloned())
            .collect();
        let mut ids: BTreeSet<&str> = inventory
            .nodes_of(&group.name)
            .filter_map(|n| n.instance_id())
            .collect();
        ids.extend(
            inventory
                .asgs_of(&group.name)
                .flat_map(|a| a.instances.iter().map(|i| i.id.as_str())),
        );
        for (arn, targets) in &inventory.target_health {
            if targets.iter().any(|t| ids.contains(t.id.as_str())) {
                arns.insert(arn.clone());
            }
        }
        all.insert(group.name.clone(), arns);
    }
    all
}

/// Instance target groups that a controller fills from nodes and that hold one of this node group's.
pub fn filled_by_controller(inventory: &Inventory, behind: &BTreeSet<String>) -> Vec<String> {
    let of_instances = |g: &&TargetGroup| {
        g.target_type == "instance" && behind.contains(&g.arn) && controlled(inventory, g)
    };
    inventory
        .target_groups
        .iter()
        .filter(of_instances)
        .map(|g| g.arn.clone())
        .collect()
}

/// Resolves the routes of the plan; what cannot be found or must not be touched becomes a problem.
pub fn pairs(draft: &mut Draft<'_>) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = Vec::new();
    let plan = draft.plan;
    for route in &plan.traffic.routes {
        let blue = target_group(draft, &route.blue);
        let green = target_group(draft, &route.green);
        let (Some(blue), Some(green)) = (blue, green) else {
            continue;
        };
        if !fit_together(draft, blue, green) {
            continue;
        }
        let rules = rules(draft, &route.rule, blue, green);
        match pairs
            .iter_mut()
            .find(|p| p.blue == blue.arn && p.green == green.arn)
        {
            Some(pair) => {
                pair.rules.extend(rules);
                pair.rules.sort();
                pair.rules.dedup();
            }
            None if rules.is_empty() => {}
            None => pairs.push(Pair {
                blue: blue.arn.clone(),
                green: green.arn.clone(),
                rules,
            }),
        }
    }
    pairs
}

fn target_group<'a>(draft: &mut Draft<'a>, name_or_arn: &str) -> Option<&'a TargetGroup> {
    let inventory = draft.inventory;
    let found = inventory
        .target_groups
        .iter()
        .find(|g| g.arn == name_or_arn || g.name == name_or_arn);
    if found.is_none() {
        let near: Vec<&str> = inventory
            .target_groups
            .iter()
            .take(8)
            .map(|g| g.name.as_str())
            .collect();
        let fix = if near.is_empty() {
            "make it first: eksup makes no target groups".to_owned()
        } else {
            format!("the VPC has: {}", near.join(", "))
        };
        draft.problem(
            Obstacle::TargetGroupMissing,
            format!("target group {name_or_arn}"),
            "the plan names it, and it is not in the cluster's VPC",
            fix,
        );
    }
    found
}

/// Whether weights can move between two target groups, nodes behind both.
fn fit_together(draft: &mut Draft<'_>, blue: &TargetGroup, green: &TargetGroup) -> bool {
    let mut fit = true;
    let vpc = draft.inventory.cluster.vpc_id.clone();
    for group in [blue, green] {
        let subject = format!("target group {}", group.name);
        if group.target_type != "instance" {
            let detail = format!(
                "its targets are of type {}, so blue and green nodes look the same to it",
                group.target_type
            );
            draft.problem(
                Obstacle::TargetGroupUnfit,
                subject.clone(),
                detail,
                "leave the route out: pods that are targets move with the drain",
            );
            fit = false;
        }
        if group.vpc.is_some() && vpc.is_some() && group.vpc != vpc {
            let detail = format!(
                "it is in {}, and the cluster in {}",
                group.vpc.as_deref().unwrap_or("?"),
                vpc.as_deref().unwrap_or("?")
            );
            draft.problem(
                Obstacle::TargetGroupUnfit,
                subject.clone(),
                detail,
                "name a target group of the cluster's VPC",
            );
            fit = false;
        }
        if controlled(draft.inventory, group) {
            draft.problem(
                Obstacle::RuleControlled,
                subject,
                "a load balancer controller fills it, and would undo what eksup does to it",
                "leave the route out: the drain takes each node out of controller-filled target groups before its pods go",
            );
            fit = false;
        }
    }
    let elsewhere = green
        .load_balancers
        .iter()
        .find(|lb| !blue.load_balancers.is_empty() && !blue.load_balancers.contains(lb));
    if let Some(elsewhere) = elsewhere {
        let detail =
            format!("it serves another load balancer, {elsewhere}; a target group serves only one");
        draft.problem(
            Obstacle::TargetGroupUnfit,
            format!("target group {}", green.name),
            detail,
            "name a target group that serves blue's load balancer or none",
        );
        fit = false;
    }
    if (blue.port, blue.protocol.as_deref()) != (green.port, green.protocol.as_deref()) {
        draft.note(format!("Target groups {} and {} differ in port or protocol: check that green's nodes serve both.", blue.name, green.name));
    }
    fit
}

fn rules(
    draft: &mut Draft<'_>,
    wanted: &RuleRef,
    blue: &TargetGroup,
    green: &TargetGroup,
) -> Vec<String> {
    let inventory = draft.inventory;
    let forwards = |r: &Rule| {
        r.forward
            .iter()
            .any(|t| t.arn == blue.arn || t.arn == green.arn)
    };
    let found: Vec<&Rule> = match wanted {
        RuleRef::Arn(arn) => inventory
            .rules
            .iter()
            .filter(|r| r.arn == *arn || (r.is_default && r.listener == *arn))
            .collect(),
        RuleRef::Match {
            load_balancer,
            port,
            conditions,
        } => {
            let balancers: Vec<&str> = inventory
                .load_balancers
                .iter()
                .filter(|b| b.name == *load_balancer)
                .map(|b| b.arn.as_str())
                .collect();
            let listeners: Vec<&str> = inventory
                .listeners
                .iter()
                .filter(|l| {
                    balancers.contains(&l.load_balancer.as_str())
                        && l.port == Some(i32::from(*port))
                })
                .map(|l| l.arn.as_str())
                .collect();
            let wanted: BTreeSet<&String> = conditions.iter().collect();
            let on = inventory
                .rules
                .iter()
                .filter(|r| listeners.contains(&r.listener.as_str()));
            on.filter(|r| {
                if wanted.is_empty() {
                    r.is_default
                } else {
                    r.conditions.iter().collect::<BTreeSet<_>>() == wanted
                }
            })
            .collect()
        }
        RuleRef::Every => inventory.rules.iter().filter(|r| forwards(r)).collect(),
    };
    let wanted = words(wanted);
    if found.is_empty() {
        let known: Vec<String> = inventory
            .rules
            .iter()
            .filter(|r| forwards(r))
            .map(|r| format!("{} ({})", r.arn, describe(r)))
            .collect();
        let fix = if known.is_empty() {
            format!("no rule forwards to {} or {}", blue.name, green.name)
        } else {
            format!(
                "rules that forward to {} or {}: {}",
                blue.name,
                green.name,
                known.join(", ")
            )
        };
        draft.problem(
            Obstacle::RuleMissing,
            wanted,
            format!(
                "no such rule for the target groups {} and {}",
                blue.name, green.name
            ),
            fix,
        );
        return Vec::new();
    }
    let mut arns = Vec::new();
    for rule in found {
        let subject = format!("listener rule {}", rule.arn);
        let listener = inventory.listeners.iter().find(|l| l.arn == rule.listener);
        let balancer = listener.and_then(|l| {
            inventory
                .load_balancers
                .iter()
                .find(|b| b.arn == l.load_balancer)
        });
        let owned = controller_owned(&rule.tags)
            || listener.is_some_and(|l| controller_owned(&l.tags))
            || balancer.is_some_and(|b| controller_owned(&b.tags));
        if owned {
            draft.problem(
                Obstacle::RuleControlled,
                subject,
                "a load balancer controller owns it, and would write its own weights back",
                "leave the route out: the drain moves traffic with the pods; or shift by the Ingress annotation `alb.ingress.kubernetes.io/actions.NAME`",
            );
            continue;
        }
        if !forwards(rule) {
            let now: Vec<&str> = rule.forward.iter().map(|t| short(&t.arn)).collect();
            let now = if now.is_empty() {
                "it forwards to no target group".to_owned()
            } else {
                format!("it forwards to {}", now.join(", "))
            };
            draft.problem(
                Obstacle::RuleElsewhere,
                subject,
                format!("{now}, not to {} or {}", blue.name, green.name),
                "name the rule that sends traffic to blue, or `rule: every`",
            );
            continue;
        }
        if let Some(third) = rule
            .forward
            .iter()
            .find(|t| t.weight > 0 && t.arn != blue.arn && t.arn != green.arn)
        {
            let detail = format!(
                "it sends part of its traffic to a third target group, {}",
                short(&third.arn)
            );
            draft.problem(
                Obstacle::RuleElsewhere,
                subject,
                detail,
                "take the third target group out of the rule, or leave the route out",
            );
            continue;
        }
        arns.push(rule.arn.clone());
    }
    arns
}

/// The target group of a pair that has the traffic now: the one with more weight in the rules.
pub fn live(inventory: &Inventory, pair: &Pair) -> String {
    let of_pair = || {
        inventory
            .rules
            .iter()
            .filter(|r| pair.rules.contains(&r.arn))
            .flat_map(|r| &r.forward)
    };
    let weight = |arn: &str| -> i32 { of_pair().filter(|t| t.arn == arn).map(|t| t.weight).sum() };
    if weight(&pair.green) > weight(&pair.blue) {
        pair.green.clone()
    } else {
        pair.blue.clone()
    }
}

/// A rule for people: its priority and conditions.
pub fn describe(rule: &Rule) -> String {
    if rule.is_default {
        "default action".to_owned()
    } else {
        format!(
            "priority {}, {}",
            rule.priority,
            rule.conditions.join(" and ")
        )
    }
}

fn words(rule: &RuleRef) -> String {
    match rule {
        RuleRef::Arn(arn) => format!("listener rule {arn}"),
        RuleRef::Match {
            load_balancer,
            port,
            conditions,
        } if conditions.is_empty() => format!("default action of {load_balancer}:{port}"),
        RuleRef::Match {
            load_balancer,
            port,
            conditions,
        } => format!(
            "rule of {load_balancer}:{port} with {}",
            conditions.join(" and ")
        ),
        RuleRef::Every => "every rule".to_owned(),
    }
}
