//! What keeps Karpenter, or EKS Auto Mode, from replacing a node, and what their pods lose when it does.

use std::collections::{BTreeMap, HashMap};

use super::budgets::{allows_nothing, holds_unready};
use super::codes::Code;
use super::input::{ReadinessInput, can_be_evicted, name_some};
use super::losses::{LosingPods, check_losses_of};
use super::{Finding, Severity};
use crate::model::Minor;
use crate::model::kube::{NamespacedName, Node, Pdb, Pod};
use crate::model::node_pool::{DO_NOT_DISRUPT, DisruptionStay, is_node_kept, pod_stay, pool_of};
use crate::plan::{AutoModeNodes, PoolStrategy};

/// A node that Karpenter or EKS replaces in this run.
pub struct ReplacedNode<'a> {
    pub node: &'a Node,
    /// Who replaces it.
    replacer: &'static str,
    /// After how long its pods are ended whatever holds them, as its NodeClaim says; none: never.
    ended_after: Option<&'a str>,
}

/// Judges nodes that Karpenter or EKS Auto Mode replaces.
pub fn check_other_nodes(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let nodes: Vec<ReplacedNode<'_>> = replaced_nodes(case).collect();
    if nodes.is_empty() {
        return;
    }
    for of in nodes.iter().filter(|n| is_node_kept(&n.node.annotations)) {
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
        let active = !pod.is_finished() && pod.deletion_timestamp.is_none();
        active.then_some((pod, of))
    });
    let active: Vec<(&Pod, &ReplacedNode<'_>)> = on_them.collect();
    // Those of DaemonSets count as well.
    for (pod, of) in &active {
        out.extend(judge_annotation(case, pod, of));
    }
    let evicted = active.into_iter().filter(|(pod, _)| can_be_evicted(pod));
    let pods: Vec<(&Pod, &ReplacedNode<'_>)> = evicted.collect();
    check_budgets(case, &pods, out);
    check_single_pods(case, &pods, out);
    for replacer in ["Karpenter", "EKS"] {
        let of = pods.iter().filter(|(_, of)| of.replacer == replacer);
        let of: Vec<&Pod> = of.map(|(pod, _)| *pod).collect();
        check_losses_of(case, LosingPods::Replaced { by: replacer }, &of, out);
    }
}

/// The nodes that the plan has Karpenter or EKS replace, older than the target.
pub fn replaced_nodes<'a>(case: &ReadinessInput<'a>) -> impl Iterator<Item = ReplacedNode<'a>> {
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
        // Karpenter goes by the claim, which a change of the NodePool does not reach.
        let mut claims = karpenter.into_iter().flat_map(|k| &k.claims);
        let claim = claims.find(|claim| claim.node.as_ref() == Some(&node.name));
        let ended_after = claim.and_then(|c| c.spec["terminationGracePeriod"].as_str());
        replacer.map(|replacer| ReplacedNode {
            node,
            replacer,
            ended_after,
        })
    })
}

/// A pod that asks not to be disrupted, where it still does.
fn judge_annotation(
    case: &ReadinessInput<'_>,
    pod: &Pod,
    of: &ReplacedNode<'_>,
) -> Option<Finding> {
    let told = |why: String| {
        let fix = "take the annotation off, or end the pod before the upgrade";
        kept_finding(format!("pod {}", pod.key), why, &[of], fix)
    };
    match pod_stay(&pod.annotations)? {
        DisruptionStay::Always => Some(told(format!("it has the annotation {DO_NOT_DISRUPT}"))),
        DisruptionStay::For(time) => {
            let until = pod.created.and_then(|at| at.checked_add(time).ok());
            let over = until.is_some_and(|until| until <= case.inventory.taken_at);
            let until =
                until.map_or_else(|| format!("{time:#} after its start"), |at| at.to_string());
            let why = format!("it has the annotation {DO_NOT_DISRUPT} until {until}");
            (!over).then(|| told(why).with_severity(Severity::Warning))
        }
    }
}

/// Something that keeps nodes, which only the grace period of their NodeClaims passes over.
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
    // Where one node has no such time, that one stays.
    let times: Option<Vec<&str>> = nodes.iter().map(|n| n.ended_after).collect();
    match times.as_deref().and_then(<[&str]>::first) {
        Some(after) => Finding::new(
            Code::KeptNode,
            subject,
            format!(
                "{why}, and the terminationGracePeriod of its NodeClaim passes over that: {after} after {replacer} begins with {names}, what is left there is deleted"
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
