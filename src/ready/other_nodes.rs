//! What keeps Karpenter, or EKS Auto Mode, from replacing a node, and what their pods lose when it does.

use std::collections::{BTreeMap, HashMap};

use super::budgets::{allows_nothing, holds_unready};
use super::codes::Code;
use super::input::{ReadinessInput, can_be_evicted, name_some};
use super::losses::{Losses, covers_either_name};
use super::{Finding, Severity};
use crate::model::Minor;
use crate::model::kube::{NamespacedName, Node, Pdb, Pod};
use crate::model::node_pool::{DO_NOT_DISRUPT, pool_of};
use crate::plan::{AutoModeNodes, PoolStrategy};

/// A node that Karpenter or EKS replaces in this run.
struct ReplacedNode<'a> {
    node: &'a Node,
    /// Who replaces it.
    replacer: &'static str,
    /// After how long its pods are ended whatever holds them, as its NodePool says; none: never.
    ended_after: Option<&'a str>,
}

/// Judges nodes that Karpenter or EKS Auto Mode replaces.
pub fn check_other_nodes(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let nodes: Vec<ReplacedNode<'_>> = replaced_nodes(case).collect();
    if nodes.is_empty() {
        return;
    }
    for of in nodes.iter().filter(|n| is_kept(&n.node.annotations)) {
        // Nothing passes over the annotation of a node.
        out.push(Finding::new(
            Code::KeptNode,
            format!("node {}", of.node.name),
            format!(
                "it has the annotation {DO_NOT_DISRUPT}, so that {} does not replace it",
                of.replacer
            ),
            format!(
                "take it off: kubectl annotate node {} {DO_NOT_DISRUPT}-",
                of.node.name
            ),
        ));
    }
    let by_name: HashMap<&str, &ReplacedNode<'_>> =
        nodes.iter().map(|n| (n.node.name.as_str(), n)).collect();
    let on_them = case.inventory.pods.iter().filter_map(|pod| {
        let of = *by_name.get(pod.node.as_deref()?)?;
        can_be_evicted(pod).then_some((pod, of))
    });
    let pods: Vec<(&Pod, &ReplacedNode<'_>)> = on_them.collect();
    for (pod, of) in pods.iter().filter(|(pod, _)| is_kept(&pod.annotations)) {
        out.push(kept_finding(
            format!("pod {}", pod.key),
            format!("it has the annotation {DO_NOT_DISRUPT}"),
            std::slice::from_ref(of),
            "take the annotation off, or end the pod before the upgrade",
        ));
    }
    check_budgets(case, &pods, out);
    check_single_pods(case, &pods, out);
    check_losses(case, &pods, out);
}

/// The nodes that the plan has Karpenter or EKS replace, older than the target.
fn replaced_nodes<'a>(case: &ReadinessInput<'a>) -> impl Iterator<Item = ReplacedNode<'a>> {
    let (plan, inventory) = (case.plan, case.inventory);
    let old = inventory
        .nodes
        .iter()
        .filter(|n| Minor::from_reported(&n.kubelet_version).map_or(true, |k| k < plan.to));
    old.filter_map(move |node| {
        let karpenter = inventory.karpenter.as_ref();
        let pool = pool_of(node).and_then(|name| karpenter?.find_pool(name));
        let replacer = if node.is_auto_mode() {
            (plan.auto_mode == AutoModeNodes::Wait).then_some("EKS")
        } else {
            let entry = plan.karpenter_pool(&pool?.name);
            let drifts = entry.is_some_and(|e| e.strategy == PoolStrategy::Drift);
            drifts.then_some("Karpenter")
        };
        let ended_after =
            pool.and_then(|pool| pool.spec["template"]["spec"]["terminationGracePeriod"].as_str());
        replacer.map(|replacer| ReplacedNode {
            node,
            replacer,
            ended_after,
        })
    })
}

/// Whether the annotation keeps a node or a pod where it is; a duration in it counts from the pod's start, and is told as
/// well.
fn is_kept(annotations: &BTreeMap<String, String>) -> bool {
    let value = annotations.get(DO_NOT_DISRUPT);
    value.is_some_and(|value| value != "false")
}

/// Something that keeps nodes, which only the grace period of their NodePools passes over.
fn kept_finding(
    subject: String,
    why: String,
    nodes: &[&ReplacedNode<'_>],
    fix: impl Into<String>,
) -> Finding {
    let replacer = nodes.first().map_or("Karpenter", |n| n.replacer);
    let mut names: Vec<String> = nodes.iter().map(|n| n.node.name.clone()).collect();
    names.sort();
    names.dedup();
    let names = name_some(&names);
    let passed_over = nodes.iter().map(|n| n.ended_after).max();
    let for_good = nodes.iter().any(|n| n.ended_after.is_none());
    match passed_over.flatten().filter(|_| !for_good) {
        Some(after) => Finding::new(
            Code::KeptNode,
            subject,
            format!(
                "{why}, and the terminationGracePeriod of its NodePool passes over that: {after} after {replacer} begins with {names}, what is left there is deleted"
            ),
            fix,
        )
        .with_severity(Severity::Warning),
        None => Finding::new(
            Code::KeptNode,
            subject,
            format!("{why}, so that {replacer} does not replace {names}"),
            fix,
        ),
    }
}

/// Budgets over pods on these nodes that allow nothing now.
fn check_budgets(
    case: &ReadinessInput<'_>,
    pods: &[(&Pod, &ReplacedNode<'_>)],
    out: &mut Vec<Finding>,
) {
    let on_node: HashMap<&NamespacedName, &ReplacedNode<'_>> =
        pods.iter().map(|(pod, of)| (&pod.key, *of)).collect();
    let mut over: BTreeMap<&NamespacedName, Vec<&Pdb>> = BTreeMap::new();
    for budget in &case.inventory.pdbs {
        let held = case.pods.selected_by(budget);
        let held: Vec<&Pod> = held.filter(|p| on_node.contains_key(&p.key)).collect();
        for pod in &held {
            over.entry(&pod.key).or_default().push(budget);
        }
        if held.is_empty() || budget.allowed > 0 {
            continue;
        }
        let subject = format!("PodDisruptionBudget {}", budget.key);
        let names: Vec<String> = held.iter().map(|p| p.key.to_string()).collect();
        let names = name_some(&names);
        let nodes: Vec<&ReplacedNode<'_>> = held.iter().map(|p| on_node[&p.key]).collect();
        if allows_nothing(budget) {
            out.push(kept_finding(
                subject,
                format!("it never allows an eviction of {names}"),
                &nodes,
                "give it room for one pod, such as `maxUnavailable: 1` with two replicas, for the upgrade at least",
            ));
        } else if holds_unready(budget, &held) {
            out.push(kept_finding(
                subject,
                format!(
                    "of its {} pods {} are healthy and {} must be, and pods of it that are not Ready cannot be evicted either ({names})",
                    budget.expected, budget.current_healthy, budget.desired_healthy
                ),
                &nodes,
                "make the pods Ready, or set the budget's `unhealthyPodEvictionPolicy: AlwaysAllow`",
            ));
        } else {
            out.push(
                kept_finding(
                    subject,
                    format!(
                        "it allows no eviction at present: of its {} pods {} are healthy, and {} must be ({names})",
                        budget.expected, budget.current_healthy, budget.desired_healthy
                    ),
                    &nodes,
                    "make sure that all its pods are Ready before the upgrade",
                )
                .with_severity(Severity::Warning),
            );
        }
    }
    for (pod, budgets) in over.into_iter().filter(|(_, budgets)| budgets.len() > 1) {
        let names: Vec<String> = budgets.iter().map(|b| b.key.to_string()).collect();
        out.push(kept_finding(
            format!("pod {pod}"),
            format!(
                "{} select it, and the API server always refuses to evict a pod that several budgets select",
                names.join(" and ")
            ),
            &[on_node[pod]],
            "delete one of the budgets, or narrow its selector",
        ));
    }
}

/// Workloads of one pod, which are down while it moves.
fn check_single_pods(
    case: &ReadinessInput<'_>,
    pods: &[(&Pod, &ReplacedNode<'_>)],
    out: &mut Vec<Finding>,
) {
    for (pod, of) in pods {
        let top = case.workloads.workload_of(pod);
        let Some(workload) = top.filter(|w| w.kind != "Job" && w.desired == 1) else {
            continue;
        };
        let budgets = &case.inventory.pdbs;
        let mut budgeted = budgets
            .iter()
            .filter(|b| b.key.namespace == pod.key.namespace);
        if budgeted.any(|b| b.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))) {
            continue;
        }
        out.push(Finding::new(
            Code::SingleReplica,
            format!("{} {}", workload.kind, workload.key),
            format!(
                "{} evicts its only pod before the replacement is Ready",
                of.replacer
            ),
            "run a second replica for the upgrade, or accept the downtime",
        ));
    }
}

/// What goes with the pods. The run does not evict them, so that the plan's consents only say that it is known.
fn check_losses(
    case: &ReadinessInput<'_>,
    pods: &[(&Pod, &ReplacedNode<'_>)],
    out: &mut Vec<Finding>,
) {
    let drain = &case.plan.drain;
    let (bare_scope, empty_scope) = (drain.bare_pods.scope(), drain.empty_dir.scope());
    let host_scope = drain.host_path.scope();
    let (mut bare, mut empty_dirs, mut host_paths) =
        (Losses::default(), Losses::default(), Losses::default());
    for (pod, _) in pods {
        let name = case.workloads.name_of(pod);
        if pod.owner.is_none() && !covers_either_name(&bare_scope, pod, &name) {
            bare.add_loss(&name, "no controller would create it again".to_owned());
        }
        if !covers_either_name(&empty_scope, pod, &name) {
            for volume in pod.empty_dirs_with_data() {
                empty_dirs.add_loss(&name, volume.describe());
            }
        }
        if !covers_either_name(&host_scope, pod, &name) {
            for volume in pod.host_paths_with_data() {
                host_paths.add_loss(&name, volume.describe());
            }
        }
    }
    let consent = bare.consent_snippet("barePods", &drain.bare_pods);
    bare.report_losses(
        out,
        Code::BarePod,
        str::to_owned,
        &format!("delete it, give it a controller, or consent to its loss: {consent}"),
    );
    // Whoever has nodes replaced for them all the time knows this of data on their disks.
    let mut data = Vec::new();
    let consent = empty_dirs.consent_snippet("emptyDir", &drain.empty_dir);
    empty_dirs.report_losses(
        &mut data,
        Code::EmptyDir,
        |volumes| {
            format!("the data in its emptyDir volumes is lost when its node is replaced: {volumes}")
        },
        &format!("if the data may be lost, nothing; to read no more of it: {consent}"),
    );
    let consent = host_paths.consent_snippet("hostPath", &drain.host_path);
    host_paths.report_losses(
        &mut data,
        Code::HostPathData,
        |volumes| {
            format!("its data on the node's disk is lost when the node is replaced: {volumes}")
        },
        &format!("if the data may be lost, nothing; to read no more of it: {consent}"),
    );
    out.extend(data.into_iter().map(|f| f.with_severity(Severity::Warning)));
}
