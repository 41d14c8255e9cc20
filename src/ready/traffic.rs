//! Load balancers, as far as they can hurt: what the route cannot see from target groups alone.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::case::{Case, Change, some};
use super::codes::Code;
use crate::model::marks::NODEGROUP_LABEL;
use crate::route::{self, StepSpec};

/// Judges traffic.
pub fn judge(case: &Case<'_>, out: &mut Vec<Finding>) {
    bindings(case, out);
    local(case, out);
    rules(case, out);
    balancer_zones(case, out);
    classic(case, out);
}

fn classic(case: &Case<'_>, out: &mut Vec<Finding>) {
    for blue in &case.blues {
        for (asg, name) in case
            .inventory
            .asgs_of(blue)
            .flat_map(|a| a.load_balancers.iter().map(move |name| (&a.name, name)))
        {
            out.push(Finding::new(
                Code::ClassicBalancer,
                format!("classic load balancer {name}"),
                format!("Auto Scaling group {asg} of {blue} is attached to it; green does not join it by itself, and {blue} is not retired while nobody else is in service there"),
                "attach green's Auto Scaling group to it while the run soaks (`aws autoscaling attach-load-balancers`), or move its traffic to a target group before",
            ));
        }
    }
}

/// Labels that green's nodes are sure to have, of those that a selector may name.
pub fn green_labels(change: &Change<'_>) -> BTreeMap<String, String> {
    let mut labels = change.green.labels.clone();
    labels.insert(NODEGROUP_LABEL.to_owned(), change.green.name.clone());
    labels
}

fn bindings(case: &Case<'_>, out: &mut Vec<Finding>) {
    for binding in &case.inventory.target_group_bindings {
        let Some(selector) = &binding.node_selector else {
            continue;
        };
        for change in &case.changes {
            let blue = case
                .inventory
                .nodes_of(&change.blue.name)
                .any(|n| selector.matches(&n.labels));
            if blue && !selector.matches(&green_labels(change)) {
                out.push(Finding::new(
                    Code::BindingToBlue,
                    format!("TargetGroupBinding {}", binding.key),
                    format!(
                        "its nodeSelector takes nodes of {} and none of {}",
                        change.blue.name, change.green.name
                    ),
                    "select by a label that both groups have, or make a second binding for green",
                ));
            }
        }
    }
}

fn local(case: &Case<'_>, out: &mut Vec<Finding>) {
    let attached: BTreeSet<&String> = case
        .blues
        .iter()
        .flat_map(|b| case.inventory.asgs_of(b))
        .flat_map(|a| &a.target_groups)
        .collect();
    for group in case
        .inventory
        .target_groups
        .iter()
        .filter(|g| attached.contains(&g.arn))
    {
        let Some(service) = route::local_service(case.inventory, group) else {
            continue;
        };
        let pods: Vec<_> = case
            .moving()
            .into_iter()
            .filter(|p| p.key.namespace == service.key.namespace && !service.selector.is_empty())
            .filter(|p| {
                service
                    .selector
                    .iter()
                    .all(|(k, v)| p.labels.get(k) == Some(v))
            })
            .collect();
        let nodes: BTreeSet<&str> = pods.iter().filter_map(|p| p.node.as_deref()).collect();
        let subject = format!("service {}", service.key);
        if nodes.len() == 1 {
            out.push(Finding::new(
                Code::LocalPolicy,
                subject,
                format!("externalTrafficPolicy is Local and all its pods are on one node, {}: while they move, target group {} has no healthy target", some(&nodes.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()), group.name),
                "run at least two replicas on two nodes, or set externalTrafficPolicy to Cluster for the upgrade",
            ));
            continue;
        }
        let notice =
            i64::from(group.health_check_interval_seconds) * i64::from(group.unhealthy_threshold);
        let short: Vec<String> = pods
            .iter()
            .filter(|p| p.grace_seconds < notice)
            .map(|p| p.key.to_string())
            .collect();
        if !short.is_empty() {
            out.push(Finding::new(
                Code::LocalPolicy,
                subject,
                format!("externalTrafficPolicy is Local; if a pod ends by itself, target group {} notices after {notice}s, and {} may be gone before", group.name, some(&short)),
                format!("give its pods a preStop sleep and terminationGracePeriodSeconds of more than {notice}; the drain itself takes each node out of the target group first"),
            ));
        }
    }
}

fn rules(case: &Case<'_>, out: &mut Vec<Finding>) {
    for step in case.route.iter().flat_map(|r| &r.steps) {
        let StepSpec::Shift { shift, .. } = &step.spec else {
            continue;
        };
        for rule in case
            .inventory
            .rules
            .iter()
            .filter(|r| shift.rules.contains(&r.arn))
        {
            if let Some(seconds) = rule.stickiness_seconds {
                out.push(Finding::new(
                    Code::Sticky,
                    format!("listener rule {}", rule.arn),
                    format!("clients stay with their target group for {seconds}s, whatever the weights"),
                    format!("make `retire.soak` longer than {seconds}s, or switch the rule's stickiness off first"),
                ));
            }
        }
        let sick: Vec<String> = case
            .inventory
            .target_health
            .get(&shift.blue)
            .into_iter()
            .flatten()
            .filter(|t| t.state == "unhealthy")
            .map(|t| t.id.clone())
            .collect();
        let name = case
            .inventory
            .target_groups
            .iter()
            .find(|g| g.arn == shift.blue);
        if let (Some(group), false) = (name, sick.is_empty())
            && route::local_service(case.inventory, group).is_none()
        {
            out.push(Finding::new(
                Code::UnhealthyNow,
                format!("target group {}", group.name),
                format!("{} are unhealthy before anything has moved", some(&sick)),
                "find out why: green's targets may be so for the same reason, and the shift would not begin",
            ));
        }
    }
}

fn balancer_zones(case: &Case<'_>, out: &mut Vec<Finding>) {
    let attached: BTreeSet<&String> = case
        .blues
        .iter()
        .flat_map(|b| case.inventory.asgs_of(b))
        .flat_map(|a| &a.target_groups)
        .collect();
    for group in case
        .inventory
        .target_groups
        .iter()
        .filter(|g| attached.contains(&g.arn))
    {
        for balancer in case
            .inventory
            .load_balancers
            .iter()
            .filter(|b| group.load_balancers.contains(&b.arn) && !b.zones.is_empty())
        {
            let green: BTreeSet<String> = case
                .changes
                .iter()
                .flat_map(|c| route::subnet_zones(case.inventory, c.blue))
                .collect();
            let outside: Vec<String> = green
                .into_iter()
                .filter(|z| !balancer.zones.contains(z))
                .collect();
            if !outside.is_empty() {
                out.push(Finding::new(
                    Code::BalancerZone,
                    format!("load balancer {}", balancer.name),
                    format!("it does not serve {}, where green may have nodes: targets there stay `unused`", outside.join(", ")),
                    "enable the zone on the load balancer, or leave such subnets out of the node group",
                ));
            }
        }
    }
}
