//! What a drain does at its deadlines, and how it says what it waits for. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::{Decision, StepRefusal};
use crate::model::kube::Pod;
use crate::plan::OnDeadline;
use crate::route::DrainSpec;
use crate::steps::drain::act::{DrainStepAct, PodRef};
use crate::steps::drain::consent::BudgetRule;
use crate::steps::drain::eviction_plan::{HoldKind, OpenNode};
use crate::steps::drain::observation::{DrainObservation, ReplicaRestart};
use crate::steps::workload_health::describe_short;

/// Beyond a pod's own grace period, what a kubelet takes to tell that it has ended it.
const KUBELET_SLACK: Duration = Duration::from_secs(30);
/// A node that has just lost touch may come back; a kubelet is NotReady about 40 s after it died.
const DEAD_KUBELET_AFTER: Duration = Duration::from_secs(60);

/// A node whose kubelet is dead needs a consent before anything is done with it.
pub fn refuse_dead_kubelet(
    spec: &DrainSpec,
    open: &[OpenNode<'_>],
    seen: &DrainObservation,
) -> Option<StepRefusal> {
    // Without pods on the node there is nothing whose end is unknown.
    let dead = |o: &&OpenNode<'_>| {
        let unready = seen.elapsed.unready.get(&o.node.node.name);
        unready.is_some_and(|t| *t > DEAD_KUBELET_AFTER) && o.remaining_pods().next().is_some()
    };
    let open = open
        .iter()
        .filter(|_| !spec.skip_dead_kubelets)
        .find(dead)?;
    let node = &open.node.node;
    Some(
        StepRefusal::new(format!(
            "the kubelet of {} does not answer (Ready is {}), so it is unknown whether its pods have stopped: {}",
            node.name,
            node.ready,
            pod_names(open.remaining_pods())
        ))
        .with_fix(
            "Repair or terminate the instance; a plan with `drain.deadKubelets: skip` accepts continuing without it",
        ),
    )
}

/// What the plan says at a deadline, for the first node or pod beyond one.
pub fn decide_at_deadline(
    spec: &DrainSpec,
    open: &[OpenNode<'_>],
    seen: &DrainObservation,
) -> Option<Decision<DrainStepAct>> {
    for state in open {
        let name = &state.node.node.name;
        let waited = seen.elapsed.open.get(name).copied().unwrap_or_default();
        // A node that a pod leaves now and then gets on.
        let still = seen.elapsed.still.get(name).copied().unwrap_or_default();
        let late = still > spec.node_deadline;
        // Three waits have an end: the node as a whole, a pod that is refused, and a pod that does not stop.
        let refused = state
            .held_pods
            .iter()
            .any(|h| is_refused_too_long(spec, seen, h.pod));
        // The grace period is the workload's own and may be hours (K8S-POD-4), so it is added and never cut.
        let stopping = state.leaving.iter().any(|p| {
            let grace = Duration::from_secs(u64::try_from(p.grace_seconds).unwrap_or(0));
            let stopping = seen.elapsed.stopping.get(&p.uid);
            stopping.is_some_and(|t| *t > grace + spec.pod_deadline + KUBELET_SLACK)
        });
        if !late && !refused && !stopping {
            continue;
        }
        let why = format!(
            "{name} is not empty {}s after its drain began: {}",
            waited.as_secs(),
            waiting_reasons(state, seen)
        );
        // What the plan says of this one budget goes before what `onDeadline` says of all.
        let consented = state.held_pods.iter().any(|h| {
            h.consent == BudgetRule::AskThenDelete && is_refused_too_long(spec, seen, h.pod)
        });
        return Some(match spec.on_deadline {
            _ if consented && !deletable_pods(spec, state, seen, late).is_empty() => {
                delete_refused_pods(spec, state, seen, late, why)?
            }
            OnDeadline::Skip => Decision::Act(DrainStepAct::Skip {
                nodes: vec![name.clone()],
                why,
            }),
            OnDeadline::Delete => {
                if let Some(decision) = delete_refused_pods(spec, state, seen, late, why.clone()) {
                    return Some(decision);
                }
                // The node as a whole has time left: only one of its pods is too slow, and it is no pod that may be
                // deleted.
                if !late {
                    continue;
                }
                Decision::Refuse(StepRefusal::new(format!(
                    "{why}. `onDeadline: delete` deletes only pods that a budget refuses, one pod of a workload at a time, and none of a workload that lacks Ready pods; the node stays cordoned"
                )).with_fix("Fix what keeps the pods on the node"))
            }
            OnDeadline::Stop => Decision::Refuse(
                StepRefusal::new(format!("{why}; the node stays cordoned"))
                    .with_fix("Fix what keeps the pods on the node"),
            ),
        });
    }
    None
}

/// Asks once more for the pods that may be deleted, then deletes those that the API server has just refused; nothing where
/// there are none.
fn delete_refused_pods(
    spec: &DrainSpec,
    state: &OpenNode<'_>,
    seen: &DrainObservation,
    late: bool,
    why: String,
) -> Option<Decision<DrainStepAct>> {
    let pods = deletable_pods(spec, state, seen, late);
    // What the watch tells of a budget may be old. A pod is deleted past it only after the API server itself has just
    // refused.
    let (refused, unasked): (Vec<PodRef>, Vec<PodRef>) = pods
        .into_iter()
        .partition(|p| seen.refusals.contains_key(&p.uid));
    if !unasked.is_empty() {
        return Some(Decision::Act(DrainStepAct::Evict { pods: unasked }));
    }
    (!refused.is_empty()).then_some(Decision::Act(DrainStepAct::Delete { pods: refused, why }))
}

fn is_refused_too_long(spec: &DrainSpec, seen: &DrainObservation, pod: &Pod) -> bool {
    let refused = seen.elapsed.refused.get(&pod.uid);
    refused.is_some_and(|t| *t > spec.pod_deadline)
}

/// The pods that the plan lets be deleted: those whose budget has refused them for the deadline, one of a workload and
/// none of one that is short already; and Jobs at the node's deadline.
fn deletable_pods(
    spec: &DrainSpec,
    state: &OpenNode<'_>,
    seen: &DrainObservation,
    late: bool,
) -> Vec<PodRef> {
    let mut workloads = BTreeSet::new();
    let refused = state.held_pods.iter().filter(|held| {
        let workload = seen.workloads.get(&held.pod.uid);
        let all = spec.on_deadline == OnDeadline::Delete;
        held.kind == HoldKind::Budget
            && (all || held.consent == BudgetRule::AskThenDelete)
            && is_refused_too_long(spec, seen, held.pod)
            // One pod of a workload at a time, and none while another is missing: the replacement is Ready before the
            // next one goes.
            && workload.is_none_or(|w| {
                (w.ready >= w.had || !held.pod.ready) && workloads.insert(w.name.as_str())
            })
    });
    let mut pods: Vec<PodRef> = refused.map(|h| PodRef::of_pod(h.pod)).collect();
    if late && spec.on_deadline == OnDeadline::Delete {
        pods.extend(state.jobs.iter().map(|p| PodRef::of_pod(p)));
    }
    // An accepted eviction and a refused one are both paused. Only the refused pod is still to be dealt with.
    pods.retain(|p| !seen.paused_pods.contains(&p.uid) || seen.refusals.contains_key(&p.uid));
    pods
}

/// Names the first few of `pods`.
pub fn pod_names<'a>(pods: impl Iterator<Item = &'a Pod>) -> String {
    let all: Vec<String> = pods.map(|p| p.key.to_string()).collect();
    if all.len() > 5 {
        format!("{} and {} more", all[..5].join(", "), all.len() - 5)
    } else {
        all.join(", ")
    }
}

/// Says how long a node has been waited for, and what for.
pub fn waiting_text(state: &OpenNode<'_>, seen: &DrainObservation) -> String {
    let waited = seen.elapsed.open.get(&state.node.node.name);
    let waited = waited.map_or(0, Duration::as_secs);
    format!(
        "waiting {}m{:02}s, {}",
        waited / 60,
        waited % 60,
        waiting_reasons(state, seen)
    )
}

/// Says until when a pod had time to stop, and which finalizers hold it. The API server writes the end of the grace period
/// into `deletionTimestamp`, not the time of the request.
fn describe_terminating(pod: &Pod) -> String {
    let ended = pod.deletion_timestamp;
    let ended = ended.map(|t| format!(" (its grace period ends at {t})"));
    format!(
        "pod {} is Terminating{}, and finalizers hold it: {}",
        pod.key,
        ended.unwrap_or_default(),
        pod.finalizers.join(", ")
    )
}

/// Says what a node waits for, naming the objects, and what may be behind it.
fn waiting_reasons(state: &OpenNode<'_>, seen: &DrainObservation) -> String {
    let mut parts = Vec::new();
    // What is behind a closed budget comes first: the replacement that is not Ready, and why.
    if !state.held_pods.is_empty() && !seen.short.is_empty() {
        parts.push(describe_short(&seen.short));
    }
    for held in state.held_pods.iter().take(3) {
        let more = match seen.restarts.get(&held.pod.uid) {
            Some(ReplicaRestart::No(why)) => format!(" (no restart: {why})"),
            Some(ReplicaRestart::Possible(key) | ReplicaRestart::Underway(key)) => {
                format!(" (Deployment {key} is restarting)")
            }
            None => String::new(),
        };
        parts.push(format!("{}, pod {}{more}", held.why, held.pod.key));
    }
    if state.held_pods.len() > 3 {
        parts.push(format!("{} more pods are held", state.held_pods.len() - 3));
    }
    // A pod behind finalizers does not go by waiting, so it is told apart from those that are stopping.
    let (held_back, stopping): (Vec<&Pod>, Vec<&Pod>) =
        (state.leaving.iter()).partition(|p| !p.finalizers.is_empty());
    parts.extend(held_back.iter().take(3).map(|p| describe_terminating(p)));
    if held_back.len() > 3 {
        parts.push(format!(
            "{} more pods are Terminating behind finalizers",
            held_back.len() - 3
        ));
    }
    // What ends by itself comes after what needs somebody: pods that stop within their grace period, then pods that run
    // to an end.
    if !stopping.is_empty() {
        parts.push(format!(
            "pods are stopping: {}",
            pod_names(stopping.into_iter())
        ));
    }
    if !state.jobs.is_empty() {
        parts.push(format!(
            "pods that run to completion are still running: {}",
            pod_names(state.jobs.iter().copied())
        ));
    }
    parts.extend(state.held_by.iter().cloned());
    if parts.is_empty() {
        "nothing".to_owned()
    } else {
        parts.join("; ")
    }
}
