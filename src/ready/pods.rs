//! Pods that would not go, or would find no place.

use std::collections::{BTreeMap, BTreeSet};

use super::budgets::surge_refusal;
use super::codes::Code;
use super::input::{ReadinessInput, name_some};
use super::{Finding, Severity, placement};
use crate::model::kube::{Pod, Taint, Workload};
use crate::model::marks::BLUE_TAINT;
use crate::plan::{SingleReplicas, duration};

/// A plan's longest deadline.
const LONGEST_DEADLINE_SECONDS: i64 = 7 * 86_400;

/// Judges the pods that move.
pub fn check_pods(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let mut ports: BTreeMap<(i32, &str), BTreeSet<String>> = BTreeMap::new();
    // What closes a node of blue: only a pod that tolerates both may come back to it.
    let closed = [
        new_taint(BLUE_TAINT),
        new_taint("node.kubernetes.io/unschedulable"),
    ];
    // First what each moving pod says of itself.
    for pod in case.moving_pods() {
        let subject = format!("pod {}", pod.key);
        if closed
            .iter()
            .all(|t| pod.tolerations.iter().any(|tol| tol.tolerates(t)))
        {
            let fix = "narrow its tolerations (`operator: Exists` without a key tolerates every taint); otherwise the pod \
                 ends with its node, together with all other pods of its workload there";
            out.push(Finding::new(
                Code::ToleratesBlue,
                &subject,
                "it tolerates the taint and the cordon that keep pods off blue, so the drain leaves it where it is",
                fix,
            ));
        }
        // Autoscalers obey these annotations, and the eviction API does not know them.
        if pod
            .annotations
            .get("cluster-autoscaler.kubernetes.io/safe-to-evict")
            .is_some_and(|v| v == "false")
            || pod
                .annotations
                .get("karpenter.sh/do-not-disrupt")
                .is_some_and(|v| v == "true")
        {
            let fix = "make sure that its owner expects the eviction";
            out.push(Finding::new(
                Code::AskedToStay,
                &subject,
                "an annotation asks autoscalers not to evict it; the drain evicts it anyway",
                fix,
            ));
        }
        let node = pod.node.as_deref().unwrap_or_default();
        let drain = case.drain_of_node(node);
        // A deadline within the grace period would end the wait for a pod that does nothing wrong.
        if pod.grace_seconds > i64::try_from(drain.pod_deadline.as_secs()).unwrap_or(i64::MAX) {
            let detail = format!(
                "its terminationGracePeriodSeconds is {}, and `podDeadline` is {}",
                pod.grace_seconds,
                duration::format_duration(drain.pod_deadline)
            );
            out.push(Finding::new(
                Code::LongGrace,
                &subject,
                detail,
                if pod.grace_seconds >= LONGEST_DEADLINE_SECONDS {
                    "`drain.podDeadline` is 7 days at most: make sure that the pod stops sooner, or shorten its grace period".to_owned()
                } else {
                    format!("raise {} beyond it", case.drain_key(node, "podDeadline"))
                },
            ));
        }
        // Collected over all pods, as whether they fit is a question of all of them together.
        for port in &pod.scheduling.host_ports {
            // Two protocols of one number do not conflict, and a pod with both is one pod.
            ports
                .entry((port.port, &port.protocol))
                .or_default()
                .insert(pod.key.to_string());
        }
    }
    // A host port fits once on a node, so that green needs as many nodes as there are pods.
    let greens: usize = case
        .changes
        .iter()
        .map(|c| usize::try_from(c.green.scaling.desired).unwrap_or(0))
        .sum();
    for ((port, protocol), pods) in ports
        .into_iter()
        .filter(|(_, pods)| pods.len() > greens && greens > 0)
    {
        let pods: Vec<String> = pods.into_iter().collect();
        let detail = format!(
            "{} pods need it, each node takes one of them, and green has {greens} nodes: {}",
            pods.len(),
            name_some(&pods)
        );
        out.push(Finding::new(
            Code::HostPort,
            format!("host port {port}/{protocol}"),
            detail,
            "increase blue's size before the upgrade, so that green has as many nodes",
        ));
    }
    check_workloads(case, out);
    placement::check_placement(case, out);
}

fn new_taint(key: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        value: None,
        effect: "NoSchedule".to_owned(),
    }
}

/// The pod of a StatefulSet that is not Ready and for which its Ready pods of higher numbers, which have to move, would wait.
fn held_up_by(case: &ReadinessInput<'_>, workload: &Workload) -> Option<String> {
    if workload.kind != "StatefulSet" || !workload.one_after_another {
        return None;
    }
    // The controller goes by number: a pod waits only for those of lower numbers.
    let number = |p: &Pod| p.key.name.rsplit('-').next()?.parse::<u32>().ok();
    let is_its = |p: &&&Pod| {
        let owner = p.owner.as_ref();
        owner.is_some_and(|o| o.uid == workload.uid) && !p.is_finished()
    };
    let all: Vec<&Pod> = case.inventory.pods.iter().collect();
    let sick = all.iter().filter(is_its).filter(|p| !p.ready);
    let (first, sick) = sick
        .filter_map(|p| Some((number(p)?, *p)))
        .min_by_key(|(n, _)| *n)?;
    let moving = case.moving_pods();
    let mut after = moving.iter().filter(is_its).filter(|p| p.ready);
    after
        .any(|p| number(p).is_some_and(|n| n > first))
        .then(|| {
            format!(
                "{} ({})",
                sick.key.name,
                sick.waiting.as_deref().unwrap_or("not Ready")
            )
        })
}

/// What concerns a workload as a whole, told once for each.
fn check_workloads(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let mut told = BTreeSet::new();
    for pod in case.evicted_pods() {
        // The workload at the top: a Deployment and not its ReplicaSet.
        let top = case.workloads.workload_of(pod);
        // Jobs run to completion and have no number of pods to keep.
        let Some(workload) = top.filter(|w| w.kind != "Job") else {
            continue;
        };
        // Once for each workload, whatever the number of its pods that move.
        if !told.insert((workload.kind.as_str(), &workload.key)) {
            continue;
        }
        let subject = format!("{} {}", workload.kind, workload.key);
        // A single replica under a budget is told with the budget.
        let budgeted = || {
            case.inventory.pdbs.iter().any(|b| {
                b.key.namespace == pod.key.namespace
                    && b.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
            })
        };
        // A surge makes it harmless, where the Deployment allows one; otherwise it is told why not.
        if workload.desired == 1 && !budgeted() {
            let restarted = case.is_restarted(pod);
            let surge =
                restarted || case.drain_of_pod(pod).single_replicas == SingleReplicas::Surge;
            out.push(match surge_refusal(case, pod).filter(|_| surge) {
                None if restarted => Finding::new(
                    Code::SingleReplica,
                    &subject,
                    "its only pod is replaced: the new pod is Ready before the old one ends",
                    "nothing to do: its Deployment is restarted",
                )
                .with_severity(Severity::Info),
                None if surge => Finding::new(
                    Code::SingleReplica,
                    &subject,
                    "its only pod is replaced: the new pod is Ready on green before the old one ends",
                    "nothing to do: `drain.singleReplicas: surge` restarts its Deployment",
                )
                .with_severity(Severity::Info),
                refusal => Finding::new(
                    Code::SingleReplica,
                    &subject,
                    match refusal {
                        Some(why) => format!(
                            "its only pod is evicted before the replacement is Ready; `drain.singleReplicas: surge` does \
                             not help: {why}"
                        ),
                        None => "its only pod is evicted before the replacement is Ready".to_owned(),
                    },
                    "run a second replica for the upgrade, or accept the downtime",
                ),
            });
        }
        // The drain compares with what was Ready at the start, so that this stops only an ordered StatefulSet.
        if workload.ready < workload.desired {
            let detail = format!("{} of {} pods are Ready", workload.ready, workload.desired);
            out.push(match held_up_by(case, workload) {
                Some(first) => Finding::new(
                    Code::NotSettled,
                    &subject,
                    format!(
                        "{detail}. A StatefulSet creates a pod again only when all pods of lower numbers are Ready, and \
                         {first} is not: a pod after it that is evicted does not come back"
                    ),
                    "fix it before the upgrade, or set the StatefulSet's `podManagementPolicy: Parallel` (the StatefulSet \
                     must be created again for that)",
                )
                .with_severity(Severity::Blocker),
                None => Finding::new(
                    Code::NotSettled,
                    &subject,
                    detail,
                    "fix it before the upgrade; the drain requires no more Ready pods of it than it had when the run began",
                ),
            });
        }
    }
}
