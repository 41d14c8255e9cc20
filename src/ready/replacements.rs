//! Replacements that could not come up, or not in time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::budgets::held_pods;
use super::codes::Code;
use super::input::{ReadinessInput, name_some};
use super::{Finding, Severity};
use crate::model::kube::{Pdb, Pod};
use crate::model::operator_budgets::is_custom_owner;
use crate::plan::{OnDeadline, Strategy, duration};

/// Judges what takes the place of the pods that move.
pub fn check_replacements(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    check_node_named(case, out);
    placed_by_owner(case, out);
    // With downtime everything goes at once, and comes back at once.
    if case.plan.strategy != Strategy::Recreate {
        check_shared_claims(case, out);
        check_slow_replacements(case, out);
    }
}

/// Workloads whose template names a node of blue: what is evicted comes back to it, cordoned or not.
fn check_node_named(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let blue: BTreeSet<&str> = case.blue_nodes().map(|n| n.name.as_str()).collect();
    // A Deployment's ReplicaSets say the same.
    let tops = case.inventory.workloads.iter().filter(|w| {
        !matches!(w.kind.as_str(), "DaemonSet" | "Job") && w.owner.is_none() && w.desired > 0
    });
    for workload in tops {
        let named = workload.template.node.as_deref();
        let Some(node) = named.filter(|n| blue.contains(n)) else {
            continue;
        };
        out.push(Finding::new(
            Code::NodeNamed,
            format!("{} {}", workload.kind, workload.key),
            format!(
                "its template sets `spec.nodeName: {node}`, a node of blue. A pod that is evicted there returns to that \
                 node although it is cordoned, and cannot start after the node is deleted"
            ),
            "take nodeName out of the template, and select by a label that both groups have instead (nodeSelector or affinity)",
        ));
    }
}

/// Pods of custom resources that their operator put on a node by name, not by a scheduler.
fn placed_by_owner(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    // By workload, with the nodes on which its pods are.
    let mut told: BTreeMap<String, (&str, Vec<&str>)> = BTreeMap::new();
    for pod in case
        .moving_pods()
        .into_iter()
        .filter(|p| !p.is_of_its_node())
    {
        // What Kubernetes' own controllers place has a template that says so.
        let custom = pod.owner.as_ref().is_some_and(is_custom_owner);
        let (Some(manager), true) = (pod.placed_by.as_deref(), custom) else {
            continue;
        };
        let name = workload_of(case, pod).unwrap_or_else(|| format!("pod {}", pod.key));
        let node = pod.node.as_deref().unwrap_or_default();
        told.entry(name)
            .or_insert((manager, Vec::new()))
            .1
            .push(node);
    }
    // A warning: an operator may respect a cordon, which cannot be read from the cluster.
    for (name, (manager, nodes)) in told {
        let nodes: Vec<String> = nodes.into_iter().map(str::to_owned).collect();
        let finding = Finding::new(
            Code::NodeNamed,
            name,
            format!(
                "{manager} created its pods with `spec.nodeName` ({}), without the scheduler. It is unknown whether it \
                 respects a cordon or creates them again on the node that is drained; the run stops when a third pod \
                 comes back to a node",
                name_some(&nodes)
            ),
            "check whether its operator respects cordoned nodes; if not, pause it or move its pods before the upgrade",
        );
        out.push(finding.with_severity(Severity::Warning));
    }
}

/// The workload of a pod, as text.
fn workload_of(case: &ReadinessInput<'_>, pod: &Pod) -> Option<String> {
    if let Some(deployment) = case.workloads.deployment_of(pod) {
        return Some(format!("Deployment {}", deployment.key));
    }
    let owner = pod.owner.as_ref()?;
    Some(format!(
        "{} {}/{}",
        owner.kind, pod.key.namespace, owner.name
    ))
}

/// Claims of volumes that one node at a time can use and that more than one pod mounts: the first pod that moves waits for
/// the volume, the others are kept until it is Ready.
fn check_shared_claims(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let many = |mode: &String| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany");
    let volumes = case.inventory.volumes.iter();
    // A volume without access modes tells nothing.
    let on_one_node = volumes
        .filter(|v| !v.access_modes.is_empty() && !v.access_modes.iter().any(many))
        .filter_map(|v| v.claim.as_ref());
    for claim in on_one_node {
        if case
            .moving_among(case.pods.mounting_claim(claim))
            .is_empty()
        {
            continue;
        }
        // One that has no place yet waits for the volume as well.
        let pods = case.pods.mounting_claim(claim).filter(|p| !p.is_finished());
        let pods: Vec<&Pod> = pods.collect();
        if pods.len() < 2 {
            continue;
        }
        let names: Vec<String> = pods.iter().map(|p| p.key.to_string()).collect();
        // Siblings are kept until the first of them is Ready, so that they wait for each other.
        let mut by_workload: BTreeMap<String, usize> = BTreeMap::new();
        for workload in pods.iter().filter_map(|p| workload_of(case, p)) {
            *by_workload.entry(workload).or_default() += 1;
        }
        let shared = by_workload.iter().find(|(_, pods)| **pods > 1);
        let (severity, subject, fix) = match shared {
            Some((workload, _)) => (
                Severity::Blocker,
                workload.clone(),
                "scale it to one replica for the upgrade, or give it a volume that many nodes can mount (ReadWriteMany, \
                 such as EFS)",
            ),
            // Pods of different workloads do not wait for each other, as long as they get to one node.
            None => (
                Severity::Warning,
                format!("claim {claim}"),
                "make sure that its pods move to the same node, or scale all but one of them to zero for the upgrade",
            ),
        };
        let detail = format!(
            "{} mount claim {}, whose volume only one node at a time can use: the first pod that moves waits for the \
             volume until the last pod has left the old node",
            name_some(&names),
            claim.name
        );
        let finding = Finding::new(Code::ClaimShared, subject, detail, fix);
        out.push(finding.with_severity(severity));
    }
}

/// Budgets under which a pod goes only when the replacement of the one before is Ready, which by its probes takes long.
fn check_slow_replacements(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for budget in &case.inventory.pdbs {
        let held = held_pods(case, budget);
        let delay = held
            .iter()
            .map(|p| p.ready_delay_seconds)
            .max()
            .unwrap_or(0);
        let delay = Duration::from_secs(u64::try_from(delay).unwrap_or(0));
        let at_once = usize::try_from(budget.expected - budget.desired_healthy).unwrap_or(0);
        // One that allows nothing has a finding of its own.
        if at_once == 0 || delay.is_zero() {
            continue;
        }
        // The node with most of its pods takes longest; another group may give its nodes less time.
        let mut on_nodes: BTreeMap<&str, usize> = BTreeMap::new();
        for pod in &held {
            *on_nodes
                .entry(pod.node.as_deref().unwrap_or_default())
                .or_default() += 1;
        }
        let mut on_nodes: Vec<(&str, usize)> = on_nodes.into_iter().collect();
        on_nodes.sort_by_key(|(_, pods)| *pods);
        let slow = on_nodes.into_iter().rev().find_map(|(node, most)| {
            let rounds = most.div_ceil(at_once);
            let takes = delay * u32::try_from(rounds).unwrap_or(u32::MAX);
            let deadline = case.drain_of_node(node).pod_deadline;
            let in_time = takes <= deadline && (rounds < 2 || delay <= deadline);
            (!in_time).then_some((node, most, takes))
        });
        let Some((node, most, takes)) = slow else {
            continue;
        };
        out.push(slow_finding(
            case,
            budget,
            node,
            [most, at_once],
            [delay, takes],
        ));
    }
}

fn slow_finding(
    case: &ReadinessInput<'_>,
    budget: &Pdb,
    node: &str,
    [most, at_once]: [usize; 2],
    [delay, takes]: [Duration; 2],
) -> Finding {
    let subject = format!("PodDisruptionBudget {}", budget.key);
    let drain = case.drain_of_node(node);
    let each = duration::format_duration(delay);
    let detail = format!(
        "it allows {at_once} evictions at a time, {node} has {most} of its pods, and by its probes a replacement needs at \
         least {each} to become Ready"
    );
    // Each eviction moves the deadline, so that many replacements are only slow.
    if delay <= drain.pod_deadline {
        let detail = format!(
            "{detail}: that node needs about {}",
            duration::format_duration(takes)
        );
        let fix = "nothing to do: deadlines count from the last pod that was evicted. If that is too long, let the budget \
             allow more evictions at a time";
        return Finding::new(Code::SlowReplacement, subject, detail, fix);
    }
    let detail = format!(
        "{detail}, which is longer than `podDeadline` ({})",
        duration::format_duration(drain.pod_deadline)
    );
    let fix = format!(
        "raise {} beyond {each}, or let the budget allow more evictions at a time",
        case.drain_key(node, "podDeadline")
    );
    // With `delete` the run goes on at the deadline; otherwise it stops, or leaves the node with its pods.
    let severity = match drain.on_deadline {
        OnDeadline::Stop | OnDeadline::Skip => Severity::Blocker,
        OnDeadline::Delete => Severity::Warning,
    };
    Finding::new(Code::SlowReplacement, subject, detail, fix).with_severity(severity)
}
