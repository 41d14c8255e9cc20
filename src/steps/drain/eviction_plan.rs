//! Which pods of a begun node may be evicted now, and what holds each of the others. Pure.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::engine::StepRefusal;
use crate::model::kube::{NamespacedName, Pod};
use crate::route::DrainSpec;
use crate::steps::drain::budget::{BudgetGate, Budgets};
use crate::steps::drain::consent::{BudgetRule, budget_rule};
use crate::steps::drain::observation::{BlueNode, DrainObservation, ReplicaRestart};
use crate::steps::drain::placement::Placement;
use crate::steps::evictable::{EvictionConsents, PodVerdict, judge_pod, keeps_node_occupied};

/// Why a pod is not evicted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldKind {
    /// Its budget is closed, or a webhook refuses its eviction: the only hold that `onDeadline: delete` passes over.
    Budget,
    /// It is the last Ready pod of a workload that had more.
    LastReady,
    /// No node takes it now; whether another one would.
    NoPlace { more_nodes_help: bool },
    /// It is a single replica, and its new pod comes first.
    SurgeFirst,
}

/// A pod that is held.
pub struct HeldPod<'a> {
    pub pod: &'a Pod,
    pub kind: HoldKind,
    pub why: String,
    /// What the plan lets be done about its budget.
    pub consent: BudgetRule,
}

/// The state of one node whose emptying has begun.
pub struct OpenNode<'a> {
    pub node: &'a BlueNode,
    /// Pods that may be evicted now.
    pub ready: Vec<&'a Pod>,
    pub held_pods: Vec<HeldPod<'a>>,
    /// Pods on their way out.
    pub leaving: Vec<&'a Pod>,
    /// Pods of Jobs that are waited for.
    pub jobs: Vec<&'a Pod>,
    /// What else holds the node: volumes, targets.
    pub held_by: Vec<String>,
}

impl OpenNode<'_> {
    /// Whether nothing is left on the node, and nothing else holds it.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
            && self.held_pods.is_empty()
            && self.leaving.is_empty()
            && self.jobs.is_empty()
            && self.held_by.is_empty()
    }

    /// All pods that are left.
    pub fn remaining_pods(&self) -> impl Iterator<Item = &Pod> {
        self.ready
            .iter()
            .copied()
            .chain(self.held_pods.iter().map(|h| h.pod))
            .chain(self.leaving.iter().copied())
            .chain(self.jobs.iter().copied())
    }
}

/// What is left to spend while a wave of evictions is put together: budgets, Ready pods of workloads, room on nodes.
pub struct EvictionPlanner<'a> {
    spec: &'a DrainSpec,
    seen: &'a DrainObservation,
    pub budgets: Budgets,
    /// Made when the first pod asks for it.
    placement: Option<Placement<'a>>,
    /// By workload: the Ready pods it will have left.
    ready_left: HashMap<&'a str, u32, FixedState>,
}

impl<'a> EvictionPlanner<'a> {
    /// Plans for what `seen` shows.
    pub fn new(spec: &'a DrainSpec, seen: &'a DrainObservation) -> Self {
        let left = seen.workloads.values().map(|w| (w.name.as_str(), w.ready));
        let mut ready_left: HashMap<&str, u32, FixedState> = left.collect();
        // A pod whose eviction was accepted a moment ago still reads Ready: the watch has not told of it yet.
        for pod in seen.evicted_unseen().filter(|p| p.ready) {
            if let Some(workload) = seen.workloads.get(&pod.uid)
                && let Some(left) = ready_left.get_mut(workload.name.as_str())
            {
                *left = left.saturating_sub(1);
            }
        }
        Self {
            spec,
            seen,
            budgets: Budgets::new(seen.snapshot.pdbs.values()),
            placement: None,
            ready_left,
        }
    }

    /// Sorts a begun node's pods.
    ///
    /// # Errors
    /// What no waiting changes: a pod that nobody consented to move, or that two budgets select.
    pub fn sort_pods(&mut self, node: &'a BlueNode) -> Result<OpenNode<'a>, StepRefusal> {
        let name = &node.node.name;
        let mut open = OpenNode {
            node,
            ready: vec![],
            held_pods: vec![],
            leaving: vec![],
            jobs: vec![],
            held_by: vec![],
        };
        let registered = self.seen.registered.iter().filter(|(n, _)| n == name);
        open.held_by
            .extend(registered.map(|(_, tg)| format!("it is still a target of {tg}")));
        // Requests still reach the node: its pods stay until it has left the target groups.
        let served = !open.held_by.is_empty();
        for pod in node
            .pods
            .iter()
            .filter(|p| keeps_node_occupied(p, &node.node))
        {
            // Already asked to go: a second eviction would change nothing.
            if pod.deletion_timestamp.is_some() {
                open.leaving.push(pod);
                continue;
            }
            // First whether it may be moved at all, under the plan's consents.
            match judge_pod(pod, plan_consents(self.spec)) {
                PodVerdict::Leave(_) => {}
                PodVerdict::Block(refusal) => {
                    return Err(refusal.with_preface(&format!("pod {} on {name}: ", pod.key)));
                }
                PodVerdict::WaitForJob => open.jobs.push(pod),
                // It was refused a moment ago: it is held, with the API server's own words, until the pause is over.
                PodVerdict::Evict if !served && self.seen.refusals.contains_key(&pod.uid) => {
                    let why = format!("its eviction is refused: {}", self.seen.refusals[&pod.uid]);
                    let kind = HoldKind::Budget;
                    let consent = self.budget_rule_for(pod);
                    open.held_pods.push(HeldPod {
                        pod,
                        kind,
                        why,
                        consent,
                    });
                }
                // Accepted and not yet seen to go, or kept while the node gets requests: nothing is spent on it now.
                PodVerdict::Evict if served || self.seen.paused_pods.contains(&pod.uid) => {
                    open.leaving.push(pod);
                }
                PodVerdict::Evict => match self.hold_or_book(pod, name)? {
                    Some((kind, why)) => open.held_pods.push(HeldPod {
                        pod,
                        kind,
                        why,
                        consent: self.budget_rule_for(pod),
                    }),
                    None => open.ready.push(pod),
                },
            }
        }
        // The volumes of a dead kubelet are detached only when its instance ends.
        let abandoned = self.spec.skip_dead_kubelets && !node.node.is_ready();
        let attached = self.seen.attached.iter().filter(|(_, n)| n == name);
        open.held_by.extend(
            attached
                .filter(|_| !abandoned)
                .map(|(v, _)| format!("volume {v} is still attached")),
        );
        Ok(open)
    }

    /// What the plan lets be done about the budget that holds a pod.
    fn budget_rule_for(&self, pod: &Pod) -> BudgetRule {
        let [budget] = &*self.budgets.budgets_of(pod) else {
            return BudgetRule::AsAtDeadlines;
        };
        // A single replica is one that its budget never lets go and that was alone when the run began.
        let single = || {
            let workload = self.seen.workloads.get(&pod.uid);
            self.budgets.never_allows(pod) && workload.is_none_or(|w| w.had <= 1)
        };
        budget_rule(self.spec, budget, &self.seen.snapshot, single)
    }

    /// What holds a pod, if anything does; otherwise its eviction is booked.
    fn hold_or_book(
        &mut self,
        pod: &'a Pod,
        node: &str,
    ) -> Result<Option<(HoldKind, String)>, StepRefusal> {
        let gate = self.budgets.check_gate(pod);
        match &gate {
            BudgetGate::TwoBudgets(names) => return Err(refuse_two_budgets(pod, node, names)),
            // With a consent the API server is asked all the same: its webhooks, and so the operator, hear of it.
            BudgetGate::Closed { .. } if self.budget_rule_for(pod).asks_while_closed() => {}
            BudgetGate::Closed { why, .. } => return Ok(Some((HoldKind::Budget, why.clone()))),
            BudgetGate::Free | BudgetGate::Spend(_) => {}
        }
        // Everything may be down: nothing has to stay, and there is nowhere to go yet.
        if self.spec.downtime {
            return Ok(None);
        }
        let workload = self.seen.workloads.get(&pod.uid);
        if let Some(workload) = workload.filter(|_| pod.ready) {
            let left = self.ready_left.get(workload.name.as_str()).copied();
            // An eviction of the only pod is a gap. Where its Deployment can be restarted, that is tried instead.
            if workload.had <= 1
                && let Some(ReplicaRestart::Possible(_) | ReplicaRestart::Underway(_)) =
                    self.seen.restarts.get(&pod.uid)
            {
                let why = format!(
                    "{} has one replica, whose new pod comes first",
                    workload.name
                );
                return Ok(Some((HoldKind::SurgeFirst, why)));
            }
            // No budget guards these pods, so the wave itself keeps the last Ready one.
            if gate == BudgetGate::Free && workload.had >= 2 && left.is_some_and(|left| left <= 1) {
                let why = format!("it is the last Ready pod of {}", workload.name);
                return Ok(Some((HoldKind::LastReady, why)));
            }
        }
        // Asked last, because a place that is found is taken: a pod that is held for another reason must take no room.
        // Where nodes are made for evicted pods there is none before.
        let placement = self.placement.get_or_insert_with(|| {
            let seen = self.seen;
            Placement::new(&seen.snapshot, &seen.group, &seen.placement_facts)
        });
        if !self.spec.nodes_follow
            && let Err(no) = placement.place_pod(pod)
        {
            let kind = HoldKind::NoPlace {
                more_nodes_help: no.more_nodes_help,
            };
            return Ok(Some((kind, format!("no node can take it: {}", no.why))));
        }
        // From here on the pod goes: the pods after it find a smaller budget and fewer Ready neighbours.
        if let BudgetGate::Spend(budget) = &gate {
            self.budgets.take_one(budget);
        }
        if let Some(workload) = workload.filter(|_| pod.ready)
            && let Some(left) = self.ready_left.get_mut(workload.name.as_str())
        {
            *left = left.saturating_sub(1);
        }
        Ok(None)
    }
}

/// What the plan consents to.
pub fn plan_consents(spec: &DrainSpec) -> EvictionConsents<'_> {
    EvictionConsents {
        bare_pods: &spec.bare_pods,
        empty_dir: &spec.empty_dir,
        host_path: &spec.host_path,
        wait_for_jobs: spec.wait_for_jobs,
        evict_jobs: &spec.evict_jobs,
    }
}

/// Whether no node is half emptied, so that the drain may be left as it is until the next maintenance window.
pub fn is_at_rest(spec: &DrainSpec, seen: &DrainObservation) -> bool {
    let mut planner = EvictionPlanner::new(spec, seen);
    let begun = |n: &&BlueNode| n.begun_at(&seen.run).is_some() && !n.is_skipped_by(&seen.run);
    (seen.nodes.iter().filter(begun))
        .all(|n| planner.sort_pods(n).is_ok_and(|open| open.is_empty()))
}

fn refuse_two_budgets(pod: &Pod, node: &str, names: &[NamespacedName]) -> StepRefusal {
    let all: Vec<String> = names.iter().map(NamespacedName::to_string).collect();
    StepRefusal::new(format!(
        "pod {} on {node} is selected by {} budgets ({}), and the API server never allows the eviction of such a pod",
        pod.key,
        names.len(),
        all.join(", ")
    ))
    .with_fix("Delete one of the budgets or narrow its selector")
}
