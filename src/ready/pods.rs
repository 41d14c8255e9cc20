//! Pods that would not go, or would find no place.

use std::collections::{BTreeMap, BTreeSet};

use super::budgets::surge_refusal;
use super::case::{Case, some};
use super::codes::Code;
use super::nodes::given_by_cluster;
use super::traffic::green_labels;
use super::{Finding, Severity};
use crate::model::kube::{Node, Pod, SelectorExpression, Taint};
use crate::model::marks::{BLUE_TAINT, NODEGROUP_LABEL};
use crate::plan::{SingleReplicas, duration};
use crate::route;

/// A plan's longest deadline.
const LONGEST_DEADLINE_SECONDS: i64 = 7 * 86_400;

/// Judges the pods that move.
pub fn judge(case: &Case<'_>, out: &mut Vec<Finding>) {
    let drain = &case.plan.drain;
    let mut ports: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let nodes: BTreeMap<&str, &Node> = case.blue_nodes().map(|n| (n.name.as_str(), n)).collect();
    let closed = [taint(BLUE_TAINT), taint("node.kubernetes.io/unschedulable")];
    for pod in case.moving() {
        let subject = format!("pod {}", pod.key);
        if closed
            .iter()
            .all(|t| pod.tolerations.iter().any(|tol| tol.tolerates(t)))
        {
            let fix = "narrow its tolerations: `operator: Exists` without a key tolerates everything, so the pod stays on blue and ends with its node, all of its kind at once";
            out.push(Finding::new(
                Code::ToleratesBlue,
                &subject,
                "it tolerates the taint and the cordon that close blue",
                fix,
            ));
        }
        if pod
            .annotations
            .get("cluster-autoscaler.kubernetes.io/safe-to-evict")
            .is_some_and(|v| v == "false")
            || pod
                .annotations
                .get("karpenter.sh/do-not-disrupt")
                .is_some_and(|v| v == "true")
        {
            let fix = "make sure that its owner expects it to move";
            out.push(Finding::new(
                Code::AskedToStay,
                &subject,
                "an annotation asks autoscalers to leave it; the drain evicts it all the same",
                fix,
            ));
        }
        if pod.grace_seconds > i64::try_from(drain.pod_deadline.as_secs()).unwrap_or(i64::MAX) {
            let detail = format!(
                "terminationGracePeriodSeconds is {}, and `podDeadline` {}",
                pod.grace_seconds,
                duration::write(drain.pod_deadline)
            );
            out.push(Finding::new(
                Code::LongGrace,
                &subject,
                detail,
                if pod.grace_seconds >= LONGEST_DEADLINE_SECONDS {
                    "no `drain.podDeadline` is longer than 7 days: make sure that the pod stops by itself, or shorten its grace period"
                } else {
                    "raise `drain.podDeadline` beyond it"
                },
            ));
        }
        for port in &pod.scheduling.host_ports {
            ports
                .entry(port.port)
                .or_default()
                .push(pod.key.to_string());
        }
        if let Some(node) = pod.node.as_deref().and_then(|n| nodes.get(n)) {
            placement(case, pod, node, out);
        }
    }
    let greens: usize = case
        .changes
        .iter()
        .map(|c| usize::try_from(c.green.scaling.desired).unwrap_or(0))
        .sum();
    for (port, pods) in ports
        .into_iter()
        .filter(|(_, pods)| pods.len() > greens && greens > 0)
    {
        let detail = format!(
            "{} pods want it, one to a node, and green has {greens} nodes: {}",
            pods.len(),
            some(&pods)
        );
        out.push(Finding::new(
            Code::HostPort,
            format!("host port {port}"),
            detail,
            "raise blue's size first, so that green has as many nodes",
        ));
    }
    workloads(case, out);
}

fn taint(key: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        value: None,
        effect: "NoSchedule".to_owned(),
    }
}

/// What the pod's node affinity requires, where it is one term.
fn only_term(pod: &Pod) -> impl Iterator<Item = &SelectorExpression> {
    let terms = pod.scheduling.node_affinity.iter().map(|a| &a.terms);
    let single = terms.filter(|terms| terms.len() == 1).flatten();
    single.flat_map(|term| &term.expressions)
}

/// Whether a pod can run anywhere but on blue.
fn placement(case: &Case<'_>, pod: &Pod, node: &Node, out: &mut Vec<Finding>) {
    let wants: Vec<(&String, Vec<&String>)> = pod
        .node_selector
        .iter()
        .map(|(k, v)| (k, vec![v]))
        .chain(
            only_term(pod)
                .filter(|e| e.operator == "In" || e.operator == "Exists")
                .map(|e| (&e.key, e.values.iter().collect())),
        )
        .collect();
    let elsewhere = case.inventory.nodes.iter().any(|n| {
        let blue = n.nodegroup().is_some_and(|g| case.blues.contains(g));
        let labelled = wants.iter().all(|(k, values)| {
            n.labels
                .get(*k)
                .is_some_and(|v| values.is_empty() || values.contains(&v))
        });
        !blue
            && n.is_ready()
            && !n.unschedulable
            && labelled
            && n.taints.iter().all(|t| {
                t.effect == "PreferNoSchedule" || pod.tolerations.iter().any(|tol| tol.tolerates(t))
            })
    });
    let subject = format!("pod {}", pod.key);
    let mut reasons: Vec<String> = Vec::new();
    for change in &case.changes {
        let labels = green_labels(change);
        let lost: Vec<String> = wants
            .iter()
            .filter(|(key, values)| {
                // What the node has is what made the pod fit there; an affinity without values only asks for the key.
                let fits_green = labels
                    .get(*key)
                    .is_some_and(|v| values.is_empty() || values.contains(&v));
                let zone = key.starts_with("topology.kubernetes.io/zone");
                let zones = route::subnet_zones(case.inventory, change.blue);
                let zone_kept =
                    zone && (zones.is_empty() || values.iter().any(|v| zones.contains(*v)));
                let type_kept = *key == "node.kubernetes.io/instance-type"
                    && (change.green.instance_types.is_empty()
                        || values
                            .iter()
                            .any(|v| change.green.instance_types.contains(*v)));
                let typed = *key == "node.kubernetes.io/instance-type";
                let given = given_by_cluster(key) && !zone && !typed;
                node.labels.contains_key(*key) && !fits_green && !zone_kept && !type_kept && !given
            })
            .map(|(key, values)| {
                format!(
                    "{key}={}",
                    values
                        .iter()
                        .map(|v| v.as_str())
                        .collect::<Vec<_>>()
                        .join("|")
                )
            })
            .collect();
        if lost.is_empty() {
            let added =
                change.green.taints.iter().filter(|t| {
                    t.effect != "PREFER_NO_SCHEDULE" && !change.blue.taints.contains(t)
                });
            let missing: Vec<String> = added
                .filter(|t| {
                    let effect = if t.effect == "NO_EXECUTE" {
                        "NoExecute"
                    } else {
                        "NoSchedule"
                    };
                    let taint = Taint {
                        key: t.key.clone(),
                        value: t.value.clone(),
                        effect: effect.to_owned(),
                    };
                    !pod.tolerations.iter().any(|tol| tol.tolerates(&taint))
                })
                .map(|t| t.key.clone())
                .collect();
            if missing.is_empty() {
                return;
            }
            if node.nodegroup() == Some(&change.blue.name) && !elsewhere {
                let detail = format!(
                    "{} has the taint {}, which it does not tolerate",
                    change.green.name,
                    missing.join(", ")
                );
                out.push(Finding::new(
                    Code::NewTaint,
                    &subject,
                    detail,
                    "take the taint out of the plan, or give the pod a toleration",
                ));
                return;
            }
            continue;
        }
        reasons.push(format!("{} has no {}", change.green.name, lost.join(", ")));
    }
    if !reasons.is_empty() && !elsewhere && reasons.len() == case.changes.len() {
        let fix = if wants.iter().any(|(k, _)| *k == "kubernetes.io/hostname") {
            "it names a node: take that out of its nodeSelector or affinity".to_owned()
        } else if wants
            .iter()
            .any(|(k, _)| *k == NODEGROUP_LABEL || k.starts_with("alpha.eksctl.io/"))
        {
            "it names its node group: select by a label that green has too".to_owned()
        } else {
            "set the label under `nodeGroups[].labels`, or change its nodeSelector or affinity"
                .to_owned()
        };
        out.push(Finding::new(
            Code::PinnedToBlue,
            subject,
            reasons.join("; "),
            fix,
        ));
    }
}

/// What concerns a workload as a whole, told once for each.
fn workloads(case: &Case<'_>, out: &mut Vec<Finding>) {
    let mut told = BTreeSet::new();
    for pod in case.moving() {
        let top = case.workloads.of(pod);
        let Some(workload) = top.filter(|w| w.kind != "Job") else {
            continue;
        };
        if !told.insert((workload.kind.as_str(), &workload.key)) {
            continue;
        }
        let subject = format!("{} {}", workload.kind, workload.key);
        let budgeted = case.inventory.pdbs.iter().any(|b| {
            b.key.namespace == pod.key.namespace
                && b.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
        });
        if workload.desired == 1 && !budgeted {
            let surge = case.plan.drain.single_replicas == SingleReplicas::Surge;
            out.push(match surge_refusal(case.inventory, pod).filter(|_| surge) {
                None if surge => Finding::new(
                    Code::SingleReplica,
                    &subject,
                    "its Deployment is restarted, so that the new pod is Ready before the old one goes",
                    "nothing to do: `drain.singleReplicas: surge` asks for it",
                )
                .weighing(Severity::Info),
                refusal => Finding::new(
                    Code::SingleReplica,
                    &subject,
                    match refusal {
                        Some(why) => format!(
                            "its only pod is evicted before the next one is Ready; `singleReplicas: surge` does not help: {why}"
                        ),
                        None => "its only pod is evicted before the next one is Ready".to_owned(),
                    },
                    "run a second replica for the upgrade, or accept it",
                ),
            });
        }
        if workload.ready < workload.desired {
            let detail = format!("{} of {} pods are Ready", workload.ready, workload.desired);
            let finding = Finding::new(
                Code::NotSettled,
                &subject,
                detail,
                "fix it first; the drain asks it for no more Ready pods than it had when the run began",
            );
            out.push(finding.weighing(Severity::Warning));
        }
    }
}
