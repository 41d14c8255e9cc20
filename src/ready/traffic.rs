//! Load balancers, as far as they can hurt: what the route cannot see from target groups alone.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::codes::Code;
use super::green_nodes::given_by_cluster;
use super::input::{BlueGreenPair, ReadinessInput, name_some};
use crate::model::aws_status::TargetState;
use crate::model::elb::{is_classic, served_text};
use crate::model::kube::Node;
use crate::model::marks::NODEGROUP_LABEL;
use crate::route::{self, LocalBackend, StepSpec};
use crate::scheduling::node_affinity;

/// Judges traffic.
pub fn check_traffic(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    check_bindings(case, out);
    check_local_services(case, out);
    check_rules(case, out);
    check_balancer_zones(case, out);
    check_classic(case, out);
    check_target_node_labels(case, out);
    check_daemon_backends(case, out);
}

/// What the plan does about classic load balancers.
fn check_classic(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let steps = case.route.iter().flat_map(|r| &r.steps);
    // The route has decided; this only tells of it.
    let left: BTreeSet<(&str, &str)> = steps
        .filter_map(|step| {
            let StepSpec::DetachTargets {
                blue, target_group, ..
            } = &step.spec
            else {
                return None;
            };
            is_classic(target_group).then_some((blue.as_str(), target_group.as_str()))
        })
        .collect();
    for (blue, name) in left {
        out.push(Finding::new(
            Code::ClassicBalancer,
            format!("classic load balancer {name}"),
            format!(
                "green joins it, and {blue} leaves it after other instances are in service there"
            ),
            "nothing to do: the route has the steps",
        ));
    }
}

/// A Service may have the cloud provider or the load balancer controller take nodes with certain labels only.
fn check_target_node_labels(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for service in &case.inventory.services {
        // With pods as targets the nodes do not matter.
        let annotation = |name: &str| {
            let key = format!("service.beta.kubernetes.io/aws-load-balancer-{name}");
            service.annotations.get(&key).map(String::as_str)
        };
        let by_pods =
            annotation("nlb-target-type") == Some("ip") || annotation("type") == Some("nlb-ip");
        let Some(text) = annotation("target-node-labels") else {
            continue;
        };
        if service.kind != "LoadBalancer" || by_pods {
            continue;
        }
        let wanted = node_labels(text);
        let takes = |labels: &BTreeMap<String, String>| {
            let has = |(key, value): (&String, &String)| {
                labels
                    .get(key)
                    .is_some_and(|v| value.is_empty() || v == value)
            };
            wanted.iter().all(has)
        };
        // Blue is selected, and would not be if its nodes were green.
        for change in &case.changes {
            let on_blue = case.inventory.nodes_of(&change.blue.name);
            let mut on_blue = on_blue.filter(|n| takes(&n.labels)).peekable();
            if on_blue.peek().is_none() || on_blue.any(|n| takes(&as_on_green(change, n))) {
                continue;
            }
            // The labels to set: not those that every node gets from the cluster.
            let given = green_labels(change);
            let lost = wanted.iter().filter(|(key, value)| {
                !given_by_cluster(key)
                    && given
                        .get(*key)
                        .is_none_or(|v| !value.is_empty() && v != *value)
            });
            let lost: Vec<String> = lost.map(|(k, v)| format!("{k}: \"{v}\"")).collect();
            let (blue, green) = (&change.blue.name, &change.green.name);
            out.push(Finding::new(
                Code::ServiceTakesBlue,
                format!("service {}", service.key),
                format!("its annotation aws-load-balancer-target-node-labels is `{text}`: its load balancer selects nodes \
                     of {blue} and none of {green}"),
                format!("set `{}` under `nodeGroups[].labels` for {blue}, or select by a label that both groups have", lost.join(", ")),
            ));
        }
    }
}

/// `a=b,c=,d` as the cloud provider reads it; an empty value takes any (CCM-1).
fn node_labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    let split = |p: &str| {
        let (key, value) = p.split_once('=').unwrap_or((p, ""));
        (key.trim().to_owned(), value.trim().to_owned())
    };
    pairs.map(split).collect()
}

/// The labels of a blue node as those of a green one would be: what the cluster gives stays.
fn as_on_green(change: &BlueGreenPair<'_>, blue: &Node) -> BTreeMap<String, String> {
    let given = blue.labels.iter().filter(|(k, _)| given_by_cluster(k));
    let mut labels: BTreeMap<String, String> = given.map(|(k, v)| (k.clone(), v.clone())).collect();
    labels.extend(green_labels(change));
    labels
}

/// Pods of a DaemonSet that answer on ports of their own nodes must run on green too.
fn check_daemon_backends(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let behind = route::targets_by_group(case.inventory);
    for change in &case.changes {
        let (blue, green) = (&change.blue.name, &change.green.name);
        for served in behind.get(blue).into_iter().flatten() {
            let backends = route::find_daemon_backends(case.inventory, served);
            let sets = case.inventory.workloads.iter();
            for set in sets.filter(|w| backends.contains(&w.uid)) {
                let fits = |n: &Node| {
                    let labels = as_on_green(change, n);
                    node_affinity::workload_matches_node(set, &n.name, &labels)
                };
                if case.inventory.nodes_of(blue).any(fits) {
                    continue;
                }
                out.push(Finding::new(
                    Code::BackendNotOnGreen,
                    served_text(served),
                    format!("DaemonSet {} answers there on ports of its nodes, and its nodeSelector or node affinity \
                         selects nodes of {blue} and none of {green}: green's nodes would never be healthy there", set.key),
                    "set the label under `nodeGroups[].labels`, or change the DaemonSet's nodeSelector or affinity",
                ));
            }
        }
    }
}

/// Labels that green's nodes are sure to have, of those that a selector may name.
pub fn green_labels(change: &BlueGreenPair<'_>) -> BTreeMap<String, String> {
    let mut labels = change.green.labels.clone();
    labels.insert(NODEGROUP_LABEL.to_owned(), change.green.name.clone());
    labels
}

fn check_bindings(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for binding in &case.inventory.target_group_bindings {
        let Some(selector) = &binding.node_selector else {
            continue;
        };
        for change in &case.changes {
            let blue = case.inventory.nodes_of(&change.blue.name);
            // Selected now, and not selected any more with green's labels.
            let mut blue = blue.filter(|n| selector.matches(&n.labels)).peekable();
            let any = blue.peek().is_some();
            if any && !blue.any(|n| selector.matches(&as_on_green(change, n))) {
                out.push(Finding::new(
                    Code::BindingToBlue,
                    format!("TargetGroupBinding {}", binding.key),
                    format!(
                        "its nodeSelector selects nodes of {} and none of {}",
                        change.blue.name, change.green.name
                    ),
                    "select by a label that both groups have, or make a second binding for green",
                ));
            }
        }
    }
}

fn check_local_services(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    // Target groups that blue fills by its Auto Scaling groups.
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
        let Some(backend) = route::find_local_backend(case.inventory, &group.arn) else {
            continue;
        };
        // Only pods that move matter: the others go on serving.
        let moving = case.moving_pods().into_iter();
        let pods: Vec<_> = moving.filter(|p| backend.is_served_by(p)).collect();
        let nodes: BTreeSet<&str> = pods.iter().filter_map(|p| p.node.as_deref()).collect();
        let subject = match &backend {
            LocalBackend::Service(service) => format!("service {}", service.key),
            LocalBackend::HostPort { .. } => format!("target group {}", group.name),
        };
        let why = backend.sentence_start();
        // While its only node is emptied nothing is healthy.
        if nodes.len() == 1 {
            out.push(Finding::new(
                Code::LocalPolicy,
                subject,
                format!("{why}, and all its pods are on one node, {}: while they move, target group {} has no healthy \
                     target", name_some(&nodes.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()), group.name),
                "run at least two replicas on two nodes, or let every node forward for the upgrade (a node port with \
                 externalTrafficPolicy Cluster)",
            ));
            continue;
        }
        // Elsewhere a pod may stop before the health check has noticed.
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
                format!("{why}. If a pod ends by itself, target group {} notices it after {notice}s, and {} may have \
                     stopped before that", group.name, name_some(&short)),
                format!("give its pods a preStop sleep and a terminationGracePeriodSeconds of more than {notice}; the \
                     drain itself takes each node out of the target group before its pods are evicted"),
            ));
        }
    }
}

fn check_rules(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for step in case.route.iter().flat_map(|r| &r.steps) {
        let StepSpec::Shift { shift, .. } = &step.spec else {
            continue;
        };
        // Sticky clients stay on blue until their cookie ends.
        for rule in case
            .inventory
            .rules
            .iter()
            .filter(|r| shift.rules.contains(&r.arn))
        {
            // The cookie's time is ELB's own, and no weight ends it sooner.
            if let Some(seconds) = rule.stickiness_seconds {
                out.push(Finding::new(
                    Code::Sticky,
                    format!("listener rule {}", rule.arn),
                    format!("its sticky sessions keep clients in their target group for {seconds}s, whatever the weights"),
                    format!("make `retire.soak` longer than {seconds}s, or switch the rule's stickiness off before the upgrade"),
                ));
            }
        }
        // With a local backend a node without a pod is unhealthy by design, so that these are left out below.
        let sick: Vec<String> = case
            .inventory
            .target_health
            .get(&shift.blue)
            .into_iter()
            .flatten()
            .filter(|t| t.state == TargetState::Unhealthy)
            .map(|t| t.id.clone())
            .collect();
        let name = case
            .inventory
            .target_groups
            .iter()
            .find(|g| g.arn == shift.blue);
        if let (Some(group), false) = (name, sick.is_empty())
            && route::find_local_backend(case.inventory, &group.arn).is_none()
        {
            out.push(Finding::new(
                Code::UnhealthyNow,
                format!("target group {}", group.name),
                format!("{} are unhealthy already, before the upgrade", name_some(&sick)),
                "fix them before the upgrade: green's targets may be unhealthy for the same reason, and then the shift \
                 does not begin",
            ));
        }
    }
}

fn check_balancer_zones(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
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
            // Any zone of green's subnets may get a node.
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
                    "enable the zone on the load balancer, or use a node group without subnets in that zone",
                ));
            }
        }
    }
}
