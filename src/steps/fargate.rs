//! Pods on Fargate nodes of an old version are replaced, one workload at a time. A Fargate node is one pod's: it keeps its
//! version until the pod goes, and the next pod gets a node of the cluster's version (EKS-CP-12).
//!
//! A Deployment that can surge is restarted, so that new pods are Ready before old ones go. All other pods leave through
//! the Eviction API, one by one, each when the one before it is back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::k8s::cache::CacheSnapshot;
use crate::model::Minor;
use crate::model::kube::{NamespacedName, Node, Pod, Workload};
use crate::model::restarts::no_restart;
use crate::model::workload_name::WorkloadName;
use crate::plan::{OnDeadline, SingleReplicas};
use crate::route::DrainSpec;
use crate::steps::StepWorld;
use crate::steps::drain::budget::{BudgetGate, Budgets};
use crate::steps::drain::consent::{BudgetRule, budget_rule};
use crate::steps::drain::timers::StateTimers;
use crate::steps::evictable::{EvictionConsents, PodVerdict, judge_pod};
use crate::steps::workload_gate::{Shortage, WorkloadGate};

/// How long workloads may be short between two of them before a person is asked.
const SHORTAGE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How long after an act the next one is asked for; the same eviction again, too.
const ASK_AGAIN_AFTER: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);
/// How often is looked; changes of nodes and pods wake it sooner.
const FARGATE_RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// A step that replaces the pods on Fargate nodes older than the target.
pub struct RestartFargateStep {
    kubelet: Minor,
    drain: DrainSpec,
    gate: WorkloadGate,
    /// Since when the same pods are old; and by uid, since when a pod was asked to go or had to wait for its budget.
    timers: Mutex<StateTimers>,
}

/// One look at the Fargate nodes and their pods.
pub struct FargateObservation {
    /// Old nodes, whether a pod is left on them or not.
    old_nodes: Vec<String>,
    /// Pods on old nodes that are not on their way out.
    old_pods: Vec<Arc<Pod>>,
    leaving: Vec<NamespacedName>,
    /// The Deployments of these pods, by name.
    deployments: BTreeMap<NamespacedName, Workload>,
    /// What holds pods by their budgets now, by pod.
    closed_budgets: BTreeMap<NamespacedName, ClosedBudget>,
    short: Shortage,
    /// How long this process has seen the same pods old.
    unchanged_for: Duration,
    /// By pod uid: how long ago this process first asked for its eviction, or had it wait for its budget.
    refused_for: BTreeMap<String, Duration>,
}

/// Why the API server refuses to evict a pod, and what the plan says of that.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedBudget {
    why: String,
    rule: BudgetRule,
}

/// How many pods there were on old nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FargateBeforeImage {
    old_nodes: usize,
}

/// An act on a workload or on one pod of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum FargateAct {
    /// As `kubectl rollout restart` does; the time is part of it, so that a repeat starts no second rollout.
    Restart {
        deployment: NamespacedName,
        at: Timestamp,
    },
    Evict {
        pod: NamespacedName,
        uid: String,
    },
    /// Past its budget, where the plan consents.
    Delete {
        pod: NamespacedName,
        uid: String,
    },
}

impl RestartFargateStep {
    /// Replaces pods until no Fargate node is older than `kubelet`, under the plan's terms for pods and budgets.
    pub fn new(kubelet: Minor, drain: DrainSpec) -> Self {
        Self {
            kubelet,
            drain,
            gate: WorkloadGate::default(),
            timers: Mutex::default(),
        }
    }

    fn lock_timers(&self) -> MutexGuard<'_, StateTimers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_old(&self, node: &Node) -> bool {
        node.is_fargate()
            && Minor::from_reported(&node.kubelet_version).map_or(true, |seen| seen < self.kubelet)
    }

    /// What the first look of a step reads of pods and budgets.
    fn judge_snapshot(&self, snapshot: &CacheSnapshot) -> FargateObservation {
        let old = snapshot.nodes.values().filter(|n| self.is_old(n));
        let old_nodes: Vec<String> = old.map(|n| n.name.clone()).collect();
        let on_them = old_nodes.iter().flat_map(|name| {
            let pods = snapshot.pods.on_node(name);
            pods.iter().cloned().collect::<Vec<_>>()
        });
        let (leaving, staying): (Vec<_>, Vec<_>) = on_them
            .filter(|p| !p.is_finished())
            .partition(|p| p.deletion_timestamp.is_some());
        let budgets = Budgets::new(snapshot.pdbs.values());
        let closed_of = |pod: &Arc<Pod>| {
            let closed = self.judge_budgets(pod, &budgets, snapshot)?;
            Some((pod.key.clone(), closed))
        };
        let closed_budgets = staying.iter().filter_map(closed_of).collect();
        FargateObservation {
            old_nodes,
            leaving: leaving.into_iter().map(|p| p.key.clone()).collect(),
            old_pods: staying,
            deployments: BTreeMap::new(),
            closed_budgets,
            short: Shortage::default(),
            unchanged_for: Duration::ZERO,
            refused_for: BTreeMap::new(),
        }
    }

    /// What keeps the pod by its budgets now.
    fn judge_budgets(
        &self,
        pod: &Pod,
        budgets: &Budgets,
        snapshot: &CacheSnapshot,
    ) -> Option<ClosedBudget> {
        match budgets.check_gate(pod) {
            BudgetGate::Free | BudgetGate::Spend(_) => None,
            BudgetGate::Closed { budget, why } => {
                let single = || budgets.never_allows(pod);
                let found = snapshot.pdbs.get(&budget);
                let rule = found.map_or(BudgetRule::AsAtDeadlines, |budget| {
                    budget_rule(&self.drain, budget, snapshot, single)
                });
                Some(ClosedBudget { why, rule })
            }
            BudgetGate::TwoBudgets(names) => {
                let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                Some(ClosedBudget {
                    why: format!(
                        "budgets {} select it, and the API server never evicts a pod of several budgets",
                        names.join(" and ")
                    ),
                    rule: BudgetRule::AsAtDeadlines,
                })
            }
        }
    }

    fn next_pod<'a>(&self, seen: &'a FargateObservation) -> Option<&'a Arc<Pod>> {
        let consents = consents_of(&self.drain);
        let pods = seen.old_pods.iter();
        pods.filter(|pod| judge_pod(pod, consents) == PodVerdict::Evict)
            .min_by_key(|pod| (WorkloadName::of_pod(pod), pod.key.clone()))
    }

    /// The next pod, where only its budget holds it up and nobody asks for it until that has changed.
    fn pod_that_waits<'a>(&self, seen: &'a FargateObservation) -> Option<&'a Arc<Pod>> {
        let others = !seen.short.workloads.is_empty()
            || !seen.leaving.is_empty()
            || seen.deployments.values().any(is_rolling);
        let pod = self.next_pod(seen).filter(|_| !others)?;
        let rule = seen.closed_budgets.get(&pod.key)?.rule;
        (rule == BudgetRule::AsAtDeadlines).then_some(pod)
    }

    /// What the next pod takes, given what is known of its workload.
    fn decide_pod(
        &self,
        pod: &Pod,
        seen: &FargateObservation,
        now: Timestamp,
    ) -> Decision<FargateAct> {
        let act_on = |make: fn(NamespacedName, String) -> FargateAct| {
            Decision::Act(make(pod.key.clone(), pod.uid.clone()))
        };
        if let Some(deployment) = seen.deployment_of(pod) {
            if no_restart(deployment, false).is_none() {
                return Decision::Act(FargateAct::Restart {
                    deployment: deployment.key.clone(),
                    at: now,
                });
            }
            // Its controller ends all pods before it makes new ones, whatever is evicted.
            if deployment.strategy.as_deref() == Some("Recreate")
                && self.drain.single_replicas != SingleReplicas::Evict
                && deployment.desired == 1
                && seen.closed_budgets.contains_key(&pod.key)
            {
                return Decision::Refuse(
                    StepRefusal::new(format!(
                        "Deployment {} has one pod and the strategy Recreate: it is down while its pod is replaced",
                        deployment.key
                    ))
                    .with_fix("Write `drain: {singleReplicas: evict}` to consent"),
                );
            }
        }
        let evict = || act_on(|pod, uid| FargateAct::Evict { pod, uid });
        let delete = || act_on(|pod, uid| FargateAct::Delete { pod, uid });
        let closed = seen.closed_budgets.get(&pod.key);
        // Nobody asks for a pod while others go or workloads are short: its own time counts.
        let so_long = seen.refused_for.get(&pod.uid).copied().unwrap_or_default();
        let late = so_long > self.drain.pod_deadline;
        let Some(closed) = closed else {
            // Evictions that no budget refuses and that come to nothing: a webhook refuses them, or a finalizer stays.
            return if late {
                Decision::Refuse(
                    StepRefusal::new(format!(
                        "pod {} was to be evicted from its Fargate node for {}s, and is still there",
                        pod.key,
                        so_long.as_secs()
                    ))
                    .with_fix(format!(
                        "Find out what refuses it: kubectl -n {} delete pod {} --dry-run=server",
                        pod.key.namespace, pod.key.name
                    )),
                )
            } else {
                evict()
            };
        };
        // A consent for this budget, or for single replicas, is the same as in a drain of nodes.
        let deletes = match closed.rule {
            BudgetRule::EndAtOnce => return delete(),
            BudgetRule::Ask | BudgetRule::AskThenDelete if !late => return evict(),
            BudgetRule::AskThenDelete => true,
            BudgetRule::Ask | BudgetRule::AsAtDeadlines => {
                self.drain.on_deadline == OnDeadline::Delete
            }
        };
        let waits = format!("pod {} stays on its Fargate node: {}", pod.key, closed.why);
        match (late, deletes) {
            (false, _) => wait_watching(waits),
            (true, true) => delete(),
            (true, false) => Decision::Refuse(
                StepRefusal::new(format!("{waits}, for {}s", so_long.as_secs())).with_fix(
                    "Make its workload healthy, or give it a budget that allows one pod less",
                ),
            ),
        }
    }

    /// What is left when no pod may be replaced now: Jobs that run, and what nobody consented to.
    fn decide_rest(&self, seen: &FargateObservation) -> Decision<FargateAct> {
        let consents = consents_of(&self.drain);
        let blocked = seen
            .old_pods
            .iter()
            .find_map(|pod| match judge_pod(pod, consents) {
                PodVerdict::Block(refusal) => {
                    Some(refusal.with_preface(&format!("pod {} on Fargate: ", pod.key)))
                }
                PodVerdict::Evict | PodVerdict::Leave(_) | PodVerdict::WaitForJob => None,
            });
        if let Some(refusal) = blocked {
            return Decision::Refuse(refusal);
        }
        let names: Vec<String> = seen.old_pods.iter().map(|p| p.key.to_string()).collect();
        let waits = match names.as_slice() {
            [] => format!(
                "nodes without pods are going: {}",
                seen.old_nodes.join(", ")
            ),
            names => format!("pods that run to completion: {}", names.join(", ")),
        };
        if seen.unchanged_for > self.drain.node_deadline {
            return Decision::Refuse(
                StepRefusal::new(format!("{waits}, for {}s", seen.unchanged_for.as_secs()))
                    .with_fix("Let them finish, or write `drain: {jobs: evict}`"),
            );
        }
        wait_watching(waits)
    }
}

impl FargateObservation {
    fn deployment_of(&self, pod: &Pod) -> Option<&Workload> {
        let name = WorkloadName::of_pod(pod);
        let found = (name.kind == "Deployment").then(|| self.deployments.get(&name.key));
        found.flatten()
    }
}

/// Whether the rollout of a Deployment is under way.
fn is_rolling(deployment: &Workload) -> bool {
    !deployment.paused
        && (deployment.observed_generation < deployment.generation
            || deployment.updated < deployment.desired)
}

/// The Deployment that the last act restarted.
fn restarted_before(past: &StepHistory) -> Option<NamespacedName> {
    match FargateAct::deserialize(past.last_act.as_ref()?).ok()? {
        FargateAct::Restart { deployment, .. } => Some(deployment),
        FargateAct::Evict { .. } | FargateAct::Delete { .. } => None,
    }
}

fn consents_of(drain: &DrainSpec) -> EvictionConsents<'_> {
    EvictionConsents {
        bare_pods: &drain.bare_pods,
        empty_dir: &drain.empty_dir,
        host_path: &drain.host_path,
        wait_for_jobs: drain.wait_for_jobs,
        evict_jobs: &drain.evict_jobs,
    }
}

fn wait_watching(why: String) -> Decision<FargateAct> {
    Decision::Wait {
        why,
        recheck: FARGATE_RECHECK_INTERVAL,
    }
}

impl Step<StepWorld> for RestartFargateStep {
    type Observation = FargateObservation;
    type BeforeImage = FargateBeforeImage;
    type Act = FargateAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<FargateObservation, StepError> {
        let snapshot = world.read_snapshot().await?;
        let mut seen = self.judge_snapshot(&snapshot);
        // Deployments are read only while a pod of theirs is old, or on its way out.
        let of_pods = seen.old_pods.iter().map(|p| WorkloadName::of_pod(p));
        let wanted: Vec<NamespacedName> = of_pods
            .filter(|name| name.kind == "Deployment")
            .map(|name| name.key)
            .collect();
        if !seen.old_nodes.is_empty() {
            let all = world.kube.list_deployments().await?;
            let needed = all.into_iter().filter(|d| wanted.contains(&d.key));
            seen.deployments = needed.map(|d| (d.key.clone(), d)).collect();
        }
        seen.short = self.gate.read_shortage(world).await?;
        // Every pod that goes or comes begins the time again.
        let uids: Vec<&str> = seen.old_pods.iter().map(|p| p.uid.as_str()).collect();
        let so_now = format!("{} {:?}", uids.join(" "), seen.leaving);
        let waits = self.pod_that_waits(&seen).map(|pod| pod.uid.clone());
        seen.refused_for = {
            let mut timers = self.lock_timers();
            waits.iter().for_each(|uid| timers.start_timer(uid));
            let asked = uids.iter().filter(|uid| timers.is_running(uid));
            let so_now: Vec<String> = asked
                .map(|uid| (*uid).to_owned())
                .chain([so_now.clone()])
                .collect();
            timers.update_all(so_now)
        };
        seen.unchanged_for = seen.refused_for.remove(&so_now).unwrap_or_default();
        Ok(seen)
    }

    fn decide_next(
        &self,
        seen: &FargateObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<FargateAct> {
        // What is under way comes first: a rollout, or a pod that goes.
        let restarted = restarted_before(past);
        let rolling = seen.deployments.values().filter(|d| {
            // Old pods of what was just restarted go only as new ones become Ready.
            is_rolling(d) || restarted.as_ref() == Some(&d.key)
        });
        let rolling: Vec<String> = rolling.map(|d| d.key.to_string()).collect();
        let under_way = match (rolling.as_slice(), seen.leaving.as_slice()) {
            ([], []) => None,
            ([], [pod, ..]) => Some(format!("pod {pod} is going")),
            ([one, ..], _) => Some(format!("Deployment {one} is rolled out")),
        };
        if let Some(what) = under_way {
            if seen.unchanged_for > self.drain.node_deadline {
                return Decision::Refuse(StepRefusal::new(format!(
                    "{what}, without progress for {}s",
                    seen.unchanged_for.as_secs()
                )));
            }
            return wait_watching(what);
        }
        if let Some(decision) =
            (seen.short).hold_back(SHORTAGE_LIMIT, "no further pod on Fargate is replaced")
        {
            return decision;
        }
        if seen.old_nodes.is_empty() {
            return Decision::Done(format!("no Fargate node is older than {}", self.kubelet));
        }
        // What was just asked for shows a moment later; asked again at once it would be a second rollout.
        let asked = past.watched_from().map(|t| now.duration_since(t));
        if asked.is_some_and(|since| since < ASK_AGAIN_AFTER) {
            return wait_watching("what was asked for a moment ago has to show".to_owned());
        }
        match self.next_pod(seen) {
            Some(pod) => self.decide_pod(pod, seen, now),
            None => self.decide_rest(seen),
        }
    }

    fn before_image(&self, seen: &FargateObservation) -> FargateBeforeImage {
        FargateBeforeImage {
            old_nodes: seen.old_nodes.len(),
        }
    }

    async fn perform_act(&self, world: &StepWorld, act: &FargateAct) -> Result<(), StepError> {
        match act {
            FargateAct::Restart { deployment, at } => {
                world.kube.restart_deployment(deployment, *at).await?;
            }
            // A refusal is seen at the next look, by the pod that is still there.
            FargateAct::Evict { pod, uid } => {
                self.lock_timers().start_timer(uid);
                drop(world.kube.evict_pod(pod, uid, None, false).await?);
            }
            FargateAct::Delete { pod, uid } => world.kube.delete_pod(pod, uid, None).await?,
        }
        Ok(())
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Nothing
    }

    fn decide_undo(
        &self,
        _before: &FargateBeforeImage,
        _seen: &FargateObservation,
        _trail: &RollbackHistory,
        _now: Timestamp,
    ) -> Decision<FargateAct> {
        Decision::Done("the pods on Fargate stay where they are".to_owned())
    }

    fn describe_act(&self, act: &FargateAct) -> String {
        match act {
            FargateAct::Restart { deployment, .. } => {
                format!("restart Deployment {deployment}, whose pods are on old Fargate nodes")
            }
            FargateAct::Evict { pod, .. } => format!("evict {pod} from its old Fargate node"),
            FargateAct::Delete { pod, .. } => {
                format!("delete {pod} past its budget, as the plan says")
            }
        }
    }

    fn begins_new_part(&self, _act: &FargateAct) -> bool {
        true
    }

    fn is_at_rest(&self, seen: &FargateObservation) -> bool {
        seen.leaving.is_empty() && !seen.deployments.values().any(is_rolling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::BudgetConsent;
    use crate::steps::closing::tests::node;
    use crate::steps::drain::budget::tests::pdb;
    use crate::steps::drain::fixtures::{default_drain_spec, time_at};
    use crate::steps::evictable::tests::pod;

    const SOON: Duration = Duration::from_secs(60);
    const LATE: Duration = Duration::from_secs(601);

    /// What is next for the pod `shop/web-1` of an old Fargate node after `so_long`, under budgets of these names that
    /// allow nothing.
    fn decide(drain: DrainSpec, budgets: &[&str], so_long: Duration) -> Decision<FargateAct> {
        decide_after(drain, budgets, so_long, Some(so_long))
    }

    /// The same, where the pod was asked for only so long ago, or not yet.
    fn decide_after(
        drain: DrainSpec,
        budgets: &[&str],
        so_long: Duration,
        refused: Option<Duration>,
    ) -> Decision<FargateAct> {
        let mut old = node("fargate-1");
        old.kubelet_version = "v1.28.1".to_owned();
        let labels = &mut old.labels;
        labels.insert("eks.amazonaws.com/compute-type".into(), "fargate".into());
        let mut snapshot = CacheSnapshot::from_lists(vec![old], vec![pod("web-1", "fargate-1")]);
        for name in budgets {
            let closed = pdb(name, 0, 1, 1, 1);
            Arc::make_mut(&mut snapshot.pdbs).insert(closed.key.clone(), closed);
        }
        let step = RestartFargateStep::new(Minor::new(29), drain);
        let mut seen = step.judge_snapshot(&snapshot);
        seen.unchanged_for = so_long;
        let uid = seen.old_pods[0].uid.clone();
        seen.refused_for = refused.map(|so_long| (uid, so_long)).into_iter().collect();
        step.decide_next(&seen, &StepHistory::default(), time_at(0))
    }

    fn consenting(word: BudgetConsent) -> DrainSpec {
        DrainSpec {
            budgets: [("shop/web".to_owned(), word)].into(),
            ..default_drain_spec()
        }
    }

    fn is_eviction(decision: &Decision<FargateAct>) -> bool {
        matches!(decision, Decision::Act(FargateAct::Evict { .. }))
    }

    fn is_deletion(decision: &Decision<FargateAct>) -> bool {
        matches!(decision, Decision::Act(FargateAct::Delete { .. }))
    }

    #[test]
    fn an_eviction_that_no_budget_refuses_and_that_comes_to_nothing_has_an_end() {
        assert!(is_eviction(&decide(default_drain_spec(), &[], SOON)));
        let ended = decide(default_drain_spec(), &[], LATE);
        assert!(
            matches!(&ended, Decision::Refuse(why) if why.to_string().contains("shop/web-1")),
            "{ended:?}"
        );
    }

    #[test]
    fn the_deadline_of_a_budget_begins_when_the_pod_is_asked_for() {
        // For so long other pods have not gone, or workloads were short.
        let first = decide_after(consenting(BudgetConsent::Delete), &["web"], LATE, None);
        assert!(is_eviction(&first), "{first:?}");
        let asked = decide_after(
            consenting(BudgetConsent::Delete),
            &["web"],
            SOON,
            Some(LATE),
        );
        assert!(is_deletion(&asked), "{asked:?}");
    }

    #[test]
    fn a_pod_of_two_budgets_is_not_asked_to_go_and_a_person_is_in_the_end() {
        let two = ["web", "all"];
        let waits = decide(default_drain_spec(), &two, SOON);
        assert!(matches!(waits, Decision::Wait { .. }), "{waits:?}");
        let ended = decide(default_drain_spec(), &two, LATE);
        assert!(
            matches!(&ended, Decision::Refuse(why) if why.to_string().contains("several budgets")),
            "{ended:?}"
        );
    }

    #[test]
    fn consents_for_one_budget_and_for_single_replicas_are_those_of_a_drain() {
        let with = |word, so_long| decide(consenting(word), &["web"], so_long);
        assert!(matches!(
            with(BudgetConsent::Block, SOON),
            Decision::Wait { .. }
        ));
        assert!(is_eviction(&with(BudgetConsent::Wait, SOON)));
        assert!(matches!(
            with(BudgetConsent::Wait, LATE),
            Decision::Refuse(_)
        ));
        assert!(is_eviction(&with(BudgetConsent::Delete, SOON)));
        assert!(is_deletion(&with(BudgetConsent::Delete, LATE)));
        let singles = DrainSpec {
            single_replicas: SingleReplicas::Evict,
            ..default_drain_spec()
        };
        assert!(is_deletion(&decide(singles, &["web"], SOON)));
    }
}
