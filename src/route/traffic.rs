//! Who sends traffic to blue, and how it comes to green.
//!
//! Four cases, told apart per target group:
//!
//! - a *pair* of the plan: green's instances go into the other target group, and weights move;
//! - *shared*: a target group or classic load balancer that blue's Auto Scaling group fills, or in which somebody registered
//!   blue's instances, and that is in no pair; green joins it, blue leaves it;
//! - *controlled*: a load balancer controller fills it; never touched, the drain takes nodes out of it by label;
//! - *ip*: its targets are pods; the drain moves them by itself.

use std::collections::BTreeSet;

use super::draft::RouteDraft;
use super::problem::Obstacle;
use super::served_targets::is_controlled;
use crate::model::Inventory;
use crate::model::elb;
use crate::model::elb::{ListenerRule, TargetGroup, controller_owned};
use crate::model::marks;
use crate::plan::RuleRef;

/// A pair of target groups that the plan names, with the rules between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroupPair {
    /// ARN of the one that is `blue` in the plan.
    pub blue: String,
    /// ARN of the other.
    pub green: String,
    /// ARNs of the rules.
    pub rules: Vec<String>,
    /// The origin of the group with whose own migration its weights move; none: with all that serve it.
    pub node_group: Option<String>,
}

impl TargetGroupPair {
    /// The other side of a target group of this pair.
    pub fn other_side(&self, arn: &str) -> Option<&str> {
        if arn == self.blue {
            Some(&self.green)
        } else if arn == self.green {
            Some(&self.blue)
        } else {
            None
        }
    }
}

/// Resolves the routes of the plan; what cannot be found or must not be touched becomes a problem.
pub fn resolve_pairs(draft: &mut RouteDraft<'_>) -> Vec<TargetGroupPair> {
    let mut pairs: Vec<TargetGroupPair> = Vec::new();
    let plan = draft.plan;
    for route in &plan.traffic.routes {
        let blue = resolve_target_group(draft, &route.blue);
        let green = resolve_target_group(draft, &route.green);
        let (Some(blue), Some(green)) = (blue, green) else {
            continue;
        };
        // A pair that cannot be shifted has its problem by now. Its rules are not looked at, or each of them would tell
        // the same.
        if !can_shift_between(draft, blue, green) {
            continue;
        }
        if let Some(name) = &route.node_group
            && !is_known_group(draft, name)
        {
            continue;
        }
        let rules = resolve_rules(draft, &route.rule, blue, green);
        // Routes with the same two target groups are one pair, so that its rules move together.
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
            None => pairs.push(TargetGroupPair {
                blue: blue.arn.clone(),
                green: green.arn.clone(),
                rules,
                node_group: route.node_group.clone(),
            }),
        }
    }
    pairs
}

/// Whether a route's group is there, or its green has taken over; else it is misspelt. Where the plan lists groups, its own
/// check has compared the names, and a group that is not there has its problem.
fn is_known_group(draft: &mut RouteDraft<'_>, name: &str) -> bool {
    let groups = &draft.inventory.nodegroups;
    let known = groups.iter().any(|g| {
        g.name == *name
            || g.tags
                .get(marks::CLONED_FROM_TAG)
                .is_some_and(|b| b == name)
    });
    if !known && draft.plan.all_groups().next().is_none() {
        let names: Vec<&str> = groups.iter().map(|g| g.name.as_str()).collect();
        let fix = format!("its node groups are: {}", names.join(", "));
        draft.add_problem(
            Obstacle::NoSuchGroup,
            format!("node group {name}"),
            format!(
                "a route belongs to it, and {} has no such managed node group",
                draft.plan.cluster
            ),
            fix,
        );
    }
    known
}

fn resolve_target_group<'a>(
    draft: &mut RouteDraft<'a>,
    name_or_arn: &str,
) -> Option<&'a TargetGroup> {
    let inventory = draft.inventory;
    let found = inventory
        .target_groups
        .iter()
        .find(|g| g.arn == name_or_arn || g.name == name_or_arn);
    if found.is_none() {
        // Mostly a name is misspelt, so the first few that there are help most.
        let near: Vec<&str> = inventory
            .target_groups
            .iter()
            .take(8)
            .map(|g| g.name.as_str())
            .collect();
        let fix = if near.is_empty() {
            "create it first: eksup creates no target groups".to_owned()
        } else {
            format!("the VPC has: {}", near.join(", "))
        };
        draft.add_problem(
            Obstacle::TargetGroupMissing,
            format!("target group {name_or_arn}"),
            "the plan names it, and it is not in the cluster's VPC",
            fix,
        );
    }
    found
}

/// Whether weights can move between two target groups, nodes behind both.
fn can_shift_between(draft: &mut RouteDraft<'_>, blue: &TargetGroup, green: &TargetGroup) -> bool {
    // All that does not fit is told, not only the first.
    let mut fit = true;
    let vpc = draft.inventory.cluster.vpc_id.clone();
    for group in [blue, green] {
        let subject = format!("target group {}", group.name);
        // Weights only tell blue from green where each has nodes in a group of its own.
        if group.target_type != "instance" {
            let detail = format!(
                "its targets are of type {}, so blue and green nodes look the same to it",
                group.target_type
            );
            draft.add_problem(
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
            draft.add_problem(
                Obstacle::TargetGroupUnfit,
                subject.clone(),
                detail,
                "name a target group of the cluster's VPC",
            );
            fit = false;
        }
        if is_controlled(draft.inventory, group) {
            draft.add_problem(
                Obstacle::RuleControlled,
                subject,
                "a load balancer controller fills it, and would undo what eksup does to it",
                "leave the route out: the drain takes each node out of controller-filled target groups before its pods go",
            );
            fit = false;
        }
    }
    // A target group serves one load balancer, so green's must be free or serve blue's.
    let elsewhere = green
        .load_balancers
        .iter()
        .find(|lb| !blue.load_balancers.is_empty() && !blue.load_balancers.contains(lb));
    if let Some(elsewhere) = elsewhere {
        let detail =
            format!("it serves another load balancer, {elsewhere}; a target group serves only one");
        draft.add_problem(
            Obstacle::TargetGroupUnfit,
            format!("target group {}", green.name),
            detail,
            "name a target group that serves blue's load balancer or none",
        );
        fit = false;
    }
    // Told and not refused: nodes may well answer on both.
    if (blue.port, blue.protocol.as_deref()) != (green.port, green.protocol.as_deref()) {
        draft.add_note(format!("Target groups {} and {} differ in port or protocol: check that green's nodes serve both.", blue.name, green.name));
    }
    fit
}

fn resolve_rules(
    draft: &mut RouteDraft<'_>,
    wanted: &RuleRef,
    blue: &TargetGroup,
    green: &TargetGroup,
) -> Vec<String> {
    let inventory = draft.inventory;
    let forwards = |r: &ListenerRule| {
        r.forward
            .iter()
            .any(|t| t.arn == blue.arn || t.arn == green.arn)
    };
    // A rule is found by ARN or by what it matches. By position nothing is found: priorities change.
    let found: Vec<&ListenerRule> = match wanted {
        RuleRef::Arn(arn) => inventory
            .rules
            .iter()
            .filter(|r| r.arn == *arn || (r.is_default && r.listener == *arn))
            .collect(),
        // Conditions are compared as sets, and a rule with one more or fewer is another rule. Without conditions the
        // listener's default action is meant.
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
    let wanted = describe_rule_ref(wanted);
    // A route of the plan that moves nothing is a mistake, with the rules that it may have meant.
    if found.is_empty() {
        let known: Vec<String> = inventory
            .rules
            .iter()
            .filter(|r| forwards(r))
            .map(|r| format!("{} ({})", r.arn, describe_rule(r)))
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
        draft.add_problem(
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
    // Each rule is judged by itself, so that all that stands in the way is told at once.
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
        // A controller writes its rules back (LBC-2), whether it has tagged the rule, the listener or the load
        // balancer.
        let owned = controller_owned(&rule.tags)
            || listener.is_some_and(|l| controller_owned(&l.tags))
            || balancer.is_some_and(|b| controller_owned(&b.tags));
        if owned {
            draft.add_problem(
                Obstacle::RuleControlled,
                subject,
                "a load balancer controller owns it, and would write its own weights back",
                "leave the route out: the drain moves traffic with the pods; or shift by the Ingress annotation `alb.ingress.kubernetes.io/actions.NAME`",
            );
            continue;
        }
        // A rule that the plan names and that sends traffic elsewhere is a mistake in one of the two; nobody's traffic
        // is moved on a guess.
        if !forwards(rule) {
            let now: Vec<&str> = rule
                .forward
                .iter()
                .map(|t| elb::short_name(&t.arn))
                .collect();
            let now = if now.is_empty() {
                "it forwards to no target group".to_owned()
            } else {
                format!("it forwards to {}", now.join(", "))
            };
            draft.add_problem(
                Obstacle::RuleElsewhere,
                subject,
                format!("{now}, not to {} or {}", blue.name, green.name),
                "name the rule that sends traffic to blue, or `rule: every`",
            );
            continue;
        }
        // A share of traffic that is on neither side is somebody's experiment, and shifting around it would change its
        // share.
        if let Some(third) = rule
            .forward
            .iter()
            .find(|t| t.weight > 0 && t.arn != blue.arn && t.arn != green.arn)
        {
            let detail = format!(
                "it sends part of its traffic to a third target group, {}",
                elb::short_name(&third.arn)
            );
            draft.add_problem(
                Obstacle::RuleElsewhere,
                subject,
                detail,
                "take the third target group out of the rule, or leave the route out",
            );
            continue;
        }
        if let Some(problem) = elb_refusal(inventory, rule, [blue, green]) {
            draft.add_problem(Obstacle::ForwardRefused, subject, problem.0, problem.1);
            continue;
        }
        arns.push(rule.arn.clone());
    }
    arns
}

/// How many target groups a forward action may name (ELB-4).
const FORWARD_TARGET_GROUP_LIMIT: usize = 5;

/// Why ELB would refuse the rule with both target groups in it, and what helps: all of them count, those without weight too.
fn elb_refusal(
    inventory: &Inventory,
    rule: &ListenerRule,
    pair: [&TargetGroup; 2],
) -> Option<(String, String)> {
    let named = rule.forward.iter().map(|t| t.arn.as_str());
    let arns: BTreeSet<&str> = named.chain(pair.map(|g| g.arn.as_str())).collect();
    // Both refusals would come from ELB at the first write, with green built and paid for; so they are found here.
    if arns.len() > FORWARD_TARGET_GROUP_LIMIT {
        let detail = format!(
            "it would name {} target groups, and ELB takes at most {FORWARD_TARGET_GROUP_LIMIT} in a forward action",
            arns.len()
        );
        let idle = rule.forward.iter().filter(|t| t.weight == 0);
        let idle: Vec<&str> = idle.map(|t| elb::short_name(&t.arn)).collect();
        let fix = format!(
            "take target groups without weight out of the rule: {}",
            idle.join(", ")
        );
        return Some((detail, fix));
    }
    // ELB-5.
    let groups = inventory.target_groups.iter();
    let sticky = groups.filter(|g| g.sticky && arns.contains(g.arn.as_str()));
    let sticky: Vec<&str> = sticky.map(|g| g.name.as_str()).collect();
    if sticky.is_empty() || rule.stickiness_seconds.is_some() {
        return None;
    }
    let detail = format!(
        "target group {} has sticky sessions (`stickiness.enabled`), and ELB refuses several target groups in a rule then, unless the rule itself has target group stickiness",
        sticky.join(", ")
    );
    let fix = format!(
        "enable target group stickiness in the rule's forward action (TargetGroupStickinessConfig), or switch `stickiness.enabled` of {} off; clients that hold a cookie stay with blue for its time then",
        sticky.join(", ")
    );
    Some((detail, fix))
}

/// The target group of a pair that has the traffic now: the one with more weight in the rules.
pub fn live_target_group(inventory: &Inventory, pair: &TargetGroupPair) -> String {
    let of_pair = || {
        inventory
            .rules
            .iter()
            .filter(|r| pair.rules.contains(&r.arn))
            .flat_map(|r| &r.forward)
    };
    // Summed over the rules of the pair: an aborted shift may have left one of them behind.
    let weight = |arn: &str| -> i32 { of_pair().filter(|t| t.arn == arn).map(|t| t.weight).sum() };
    if weight(&pair.green) > weight(&pair.blue) {
        pair.green.clone()
    } else {
        pair.blue.clone()
    }
}

/// A rule for people: its priority and conditions.
pub fn describe_rule(rule: &ListenerRule) -> String {
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

fn describe_rule_ref(rule: &RuleRef) -> String {
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
