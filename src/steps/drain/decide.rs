//! What a drain does next. Pure.

use jiff::Timestamp;

use crate::engine::{Decision, StepHistory, StepRefusal};
use crate::model::kube::Pod;
use crate::plan::SingleReplicas;
use crate::route::DrainSpec;
use crate::steps::drain::act::{DrainStepAct, PodRef};
use crate::steps::drain::consent::BudgetRule;
use crate::steps::drain::deadlines::{decide_at_deadline, refuse_dead_kubelet};
use crate::steps::drain::eviction_plan::{EvictionPlanner, HoldKind, OpenNode};
use crate::steps::drain::late_nodes::{close_late_nodes, grow_green};
use crate::steps::drain::next_nodes::{DrainProgress, decide_next_nodes, may_grow_green};
use crate::steps::drain::observation::{DrainObservation, ReplicaRestart};

/// Most evictions in one wave: a wave is one record of the journal.
const MAX_PODS_PER_WAVE: usize = 50;
/// Chooses what a drain of `seen.nodes` does next.
pub fn decide_drain(
    spec: &DrainSpec,
    seen: &DrainObservation,
    past: &StepHistory,
    now: Timestamp,
) -> Decision<DrainStepAct> {
    // Nodes that came late are held and closed first.
    if let Some(decision) = close_late_nodes(seen, past, now) {
        return decision;
    }
    // Evictions cannot win against what puts pods back on blue: each round would take a workload down for nothing.
    if let Some(returned) = &seen.returned_pod {
        return Decision::Refuse(returned.clone());
    }
    if let Some(workload) = &seen.returning_workload {
        return Decision::Refuse(
            StepRefusal::new(format!(
                "pods of {workload} were moved off blue again and again and came back to it"
            ))
            .with_fix("Find out what puts them there, and stop it"),
        );
    }
    // Sort what is left on the nodes that were begun.
    let mut planner = EvictionPlanner::new(spec, seen);
    let mut at = DrainProgress {
        open: vec![],
        fresh: vec![],
        done: 0,
    };
    for node in seen.nodes.iter().filter(|n| !n.is_skipped_by(&seen.run)) {
        if node.begun_at(&seen.run).is_none() {
            at.fresh.push(node);
            continue;
        }
        match planner.sort_pods(node) {
            Err(refusal) => return Decision::Refuse(refusal),
            Ok(state) if state.is_empty() => at.done += 1,
            Ok(state) => at.open.push(state),
        }
    }
    // Asked before any act: on a node whose kubelet does not answer no eviction has an end that could be seen.
    if let Some(refusal) = refuse_dead_kubelet(spec, &at.open, seen) {
        return Decision::Refuse(refusal);
    }
    // Nodes leave their target groups before their pods do: a node without pods of a Local service answers nobody
    // (K8S-SVC-1).
    if !seen.deregister.is_empty() {
        return Decision::Act(DrainStepAct::Deregister {
            targets: seen.deregister.clone(),
        });
    }
    // What can be evicted is evicted, before any deadline is looked at.
    let ready = at.open.iter().flat_map(|o| &o.ready);
    let wave: Vec<PodRef> = ready
        .take(MAX_PODS_PER_WAVE)
        .map(|p| PodRef::with_attempts(p, &seen.attempts))
        .collect();
    if !wave.is_empty() {
        return Decision::Act(DrainStepAct::Evict { pods: wave });
    }
    // What the plan offers for a pod that is held is tried before the deadlines, so that these end only what nothing
    // else ends.
    let freed = delete_with_downtime(spec, &at.open, seen)
        .or_else(|| delete_single_replicas(&at.open, seen))
        .or_else(|| restart_single_replica(spec, &at.open, &planner, seen, now))
        .or_else(|| grow_for_held_pods(&at.open, seen));
    if let Some(act) = freed {
        return Decision::Act(act);
    }
    if let Some(decision) = decide_at_deadline(spec, &at.open, seen) {
        return decision;
    }
    decide_next_nodes(spec, &at, seen, past, now)
}

/// With downtime, a pod whose budget refuses is deleted: nothing can take its place yet.
fn delete_with_downtime(
    spec: &DrainSpec,
    open: &[OpenNode<'_>],
    seen: &DrainObservation,
) -> Option<DrainStepAct> {
    let held = open.iter().flat_map(|o| &o.held_pods);
    let pods: Vec<PodRef> = held
        .filter(|h| spec.downtime && !seen.paused_pods.contains(&h.pod.uid))
        .map(|h| PodRef::of_pod(h.pod))
        .take(MAX_PODS_PER_WAVE)
        .collect();
    (!pods.is_empty()).then(|| DrainStepAct::Delete {
        pods,
        why: "strategy recreate: nothing can take their place yet, and the plan accepts that they are down".to_owned(),
    })
}

/// With `singleReplicas: evict` a single replica that its budget never lets go is deleted once the API server has refused
/// its eviction.
fn delete_single_replicas(open: &[OpenNode<'_>], seen: &DrainObservation) -> Option<DrainStepAct> {
    let held = open.iter().flat_map(|o| &o.held_pods);
    let refused = |uid: &String| seen.refusals.contains_key(uid);
    let pods: Vec<PodRef> = held
        .filter(|h| h.consent == BudgetRule::EndAtOnce && refused(&h.pod.uid))
        .map(|h| PodRef::of_pod(h.pod))
        .take(MAX_PODS_PER_WAVE)
        .collect();
    (!pods.is_empty()).then(|| DrainStepAct::Delete {
        pods,
        why: "drain.singleReplicas: evict accepts that a single replica is down while it moves"
            .to_owned(),
    })
}

/// A Deployment whose restart moves a single replica: one without a budget, or one that its budget never lets go.
fn restart_single_replica(
    spec: &DrainSpec,
    open: &[OpenNode<'_>],
    planner: &EvictionPlanner<'_>,
    seen: &DrainObservation,
    now: Timestamp,
) -> Option<DrainStepAct> {
    if spec.single_replicas != SingleReplicas::Surge {
        return None;
    }
    // One restart at a time: the next look sees it under way and the pods of others are still held.
    let waits_for_surge = |kind: HoldKind, pod: &Pod| match kind {
        HoldKind::SurgeFirst => true,
        HoldKind::Budget => planner.budgets.never_allows(pod),
        HoldKind::LastReady | HoldKind::NoPlace { .. } => false,
    };
    let begun = |pod: &Pod| {
        let mut nodes = seen.nodes.iter();
        nodes
            .find(|n| Some(&n.node.name) == pod.node.as_ref())?
            .begun_at(&seen.run)
    };
    open.iter()
        .flat_map(|o| &o.held_pods)
        .filter(|h| waits_for_surge(h.kind, h.pod) && !seen.paused_pods.contains(&h.pod.uid))
        .find_map(|h| match seen.restarts.get(&h.pod.uid) {
            // The time that the node was begun at is on the node: a process that does not know of the restart writes the
            // same time into the Deployment, which changes nothing and restarts nothing.
            Some(ReplicaRestart::Possible(deployment)) => Some(DrainStepAct::Restart {
                deployment: deployment.clone(),
                at: begun(h.pod).unwrap_or(now),
            }),
            Some(ReplicaRestart::Underway(_) | ReplicaRestart::No(_)) | None => None,
        })
}

/// One more node of green for a pod of a begun node that has nowhere to go, once nothing else moves.
fn grow_for_held_pods(open: &[OpenNode<'_>], seen: &DrainObservation) -> Option<DrainStepAct> {
    let mut held = open.iter().flat_map(|o| &o.held_pods);
    // A node is added only where nothing else would free room: no pod is leaving, no replacement is starting, and green
    // has all the nodes that it was asked for.
    let helped = held.any(|h| {
        h.kind
            == HoldKind::NoPlace {
                more_nodes_help: true,
            }
    });
    let still = open.iter().all(|o| o.leaving.is_empty()) && seen.short.is_empty();
    let may = seen.green_ready >= seen.green_desired && may_grow_green(seen);
    (helped && still && may && seen.green_desired > 0)
        .then(|| grow_green(seen, seen.green_desired + 1))
}
