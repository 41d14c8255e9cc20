//! The drain as a step: reads what a decision needs, does what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::engine::{Decision, RollbackHistory, Step, StepError, StepHistory, UndoKind};
use crate::event::StepProgress;
use crate::k8s::EvictionOutcome;
use crate::model::eks::NodegroupChange;
use crate::model::elb::short_name;
use crate::model::kube::NamespacedName;
use crate::model::{ApiError, ErrorClass};
use crate::route::DrainSpec;
use crate::steps::attempts::CallAttempt;
use crate::steps::drain::act::{DrainStepAct, PodRef};
use crate::steps::drain::decide::decide_drain;
use crate::steps::drain::eviction_plan::is_at_rest;
use crate::steps::drain::late_nodes::unprotected_nodes;
use crate::steps::drain::movement::MovementTracker;
use crate::steps::drain::node_changes::SaidChanges;
use crate::steps::drain::observation::begun_pods;
use crate::steps::drain::observation::{DrainBeforeImage, DrainObservation, collect_blue_nodes};
use crate::steps::drain::placement::PlacementFacts;
use crate::steps::drain::rollback::{
    GreenDrain, decide_drain_undo, perform_boxed_act, read_returning_nodes,
};
use crate::steps::drain::timers::StateTimers;
use crate::steps::evictable::keeps_node_occupied;
use crate::steps::workload_health::PodWorkload;
use crate::steps::{StepWorld, nodes};

/// Evictions in flight at once; the API server is not ours alone.
const EVICTION_CONCURRENCY: usize = 10;
/// An eviction that was refused although the budget read open, or accepted but not yet seen, is not sent again before
/// this; kubectl waits as long after a refusal.
const EVICTION_RETRY_PAUSE: SignedDuration = SignedDuration::from_secs(5);

/// The longest it waits after one refusal and another.
const MAX_EVICTION_RETRY_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// A step that empties blue, node by node, while green takes its pods.
pub struct DrainStep {
    pub(super) id: String,
    pub(super) blue: String,
    pub(super) green: String,
    pub(super) spec: DrainSpec,
    pub(super) memory: Mutex<DrainMemory>,
    pub(super) green_drain: OnceLock<Box<GreenDrain>>,
    /// Whether the pods that move are to stay where they go: on rollback green, which is emptied, is deleted.
    pub(super) protects_green: bool,
}

/// What spares requests; a restart loses it and nothing else.
#[derive(Default)]
pub(super) struct DrainMemory {
    /// By pod uid: not to be asked again before.
    pub(super) retry_after: BTreeMap<String, Timestamp>,
    /// By pod uid: what refused its last eviction, in its own words.
    pub(super) refusals: BTreeMap<String, String>,
    /// Nodes seen without volumes after their last pod went.
    pub(super) detached: BTreeSet<String>,
    /// Deployments restarted by this process.
    pub(super) restarted: BTreeSet<NamespacedName>,
    /// Since when pods have been refused or stopping, nodes open or not Ready, and the next node waited for.
    pub(super) refused: StateTimers,
    pub(super) stopping: StateTimers,
    pub(super) open: StateTimers,
    pub(super) still: StateTimers,
    pub(super) unready: StateTimers,
    pub(super) waiting: StateTimers,
    /// What has moved, and what has come back.
    pub(super) movement: MovementTracker,
    /// By pod uid: how often its eviction was refused.
    pub(super) attempts: BTreeMap<String, u32>,
    /// How many pods of each workload were moved.
    pub(super) moves: BTreeMap<String, u32>,
    /// The zones of volumes, and the claims they were looked for.
    pub(super) placement_facts: Arc<PlacementFacts>,
    pub(super) claims_seen: BTreeSet<NamespacedName>,
    /// The workloads of the pods that were last seen on begun nodes.
    pub(super) workloads: BTreeMap<String, PodWorkload>,
    /// Begun nodes that are empty, and when each was seen to become so; none where it already was at the first look.
    pub(super) emptied: Option<BTreeMap<String, Option<Instant>>>,
    /// The last progress said, by node.
    pub(super) last_progress: BTreeMap<String, (u64, u64)>,
    /// What was said last of nodes and pods, for the report.
    pub(super) said: SaidChanges,
    /// The step is being rolled back: pods come back to blue's nodes.
    pub(super) rolls_back: bool,
}

impl DrainStep {
    /// Empties `blue` as `spec` says.
    pub fn new(id: String, blue: String, green: String, spec: DrainSpec) -> Self {
        Self {
            id,
            blue,
            green,
            spec,
            memory: Mutex::new(DrainMemory::default()),
            green_drain: OnceLock::new(),
            protects_green: true,
        }
    }

    /// Returns the drain as a rollback needs it: it neither holds nor releases the group that pods go to, as other
    /// steps do.
    pub fn without_protection(self) -> Self {
        Self {
            protects_green: false,
            ..self
        }
    }

    /// The rollback; what it remembers lasts as long as this step.
    fn get_green_drain(&self) -> &GreenDrain {
        let make = || GreenDrain::new(&self.id, &self.green, &self.blue, &self.spec);
        self.green_drain.get_or_init(|| Box::new(make()))
    }

    pub(super) fn lock_memory(&self) -> MutexGuard<'_, DrainMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how each begun node gets on, when that has changed.
    fn emit_progress(&self, world: &StepWorld, seen: &DrainObservation) {
        let mut memory = self.lock_memory();
        for blue in seen
            .nodes
            .iter()
            .filter(|n| n.begun_at(&seen.run).is_some())
        {
            // The most that was seen is the total, because a pod that comes back must not move the bar past its end.
            let left = blue
                .pods
                .iter()
                .filter(|p| keeps_node_occupied(p, &blue.node))
                .count() as u64;
            let name = blue.node.name.clone();
            let total = memory
                .last_progress
                .get(&name)
                .map_or(left, |(_, total)| (*total).max(left));
            if memory.last_progress.insert(name.clone(), (left, total)) != Some((left, total)) {
                world.emit_progress(StepProgress {
                    step: self.id.clone(),
                    why: if left == 0 {
                        "empty".into()
                    } else {
                        format!("{left} pods to go")
                    },
                    done: Some(total - left),
                    total: Some(total),
                    unit: Some("pods".into()),
                    part: Some(name),
                });
            }
        }
    }

    /// Counts the move of a pod, so that a workload that always comes back is noticed.
    fn count_move(&self, pod: &PodRef) {
        let mut memory = self.lock_memory();
        if let Some(name) = memory.workloads.get(&pod.uid).map(|w| w.name.clone()) {
            *memory.moves.entry(name).or_default() += 1;
        }
    }

    async fn evict_pods(&self, world: &StepWorld, pods: &[PodRef]) -> Result<(), StepError> {
        // All answers are awaited before the first is judged: those that were accepted are noted even if another call
        // failed.
        let answers: Vec<(PodRef, Result<EvictionOutcome, ApiError>)> =
            futures::stream::iter(pods.iter().cloned())
                .map(|pod| async move {
                    let answer = world.kube.evict_pod(&pod.key, &pod.uid, None, false).await;
                    (pod, answer)
                })
                .buffered(EVICTION_CONCURRENCY)
                .collect()
                .await;
        let now = world.clock.now();
        let (mut failed, mut hopeless) = (None, None);
        for (pod, answer) in answers {
            let wait = match answer {
                // A refusal is noted with its time: deadlines count from the first one, and the pause grows with each.
                Ok(EvictionOutcome::Blocked {
                    retry_after,
                    message,
                }) => {
                    let mut memory = self.lock_memory();
                    memory.refused.start_timer(&pod.uid);
                    memory.refusals.insert(pod.uid.clone(), message);
                    let attempts = memory.attempts.entry(pod.uid.clone()).or_default();
                    *attempts += 1;
                    retry_after
                        .and_then(|d| SignedDuration::try_from(d).ok())
                        .unwrap_or_else(|| eviction_pause_after(*attempts))
                }
                // Until the watch tells of it, `evicted_unseen` counts the pod as gone.
                Ok(EvictionOutcome::Accepted) => {
                    self.lock_memory().refusals.remove(&pod.uid);
                    self.lock_memory().attempts.remove(&pod.uid);
                    world.workloads.departing.note_departure(&pod.uid);
                    self.count_move(&pod);
                    EVICTION_RETRY_PAUSE
                }
                Ok(EvictionOutcome::Gone | EvictionOutcome::NamespaceTerminating) => {
                    EVICTION_RETRY_PAUSE
                }
                // No waiting changes this (K8S-EVICT-4), so the step ends here.
                Ok(EvictionOutcome::TwoBudgets { message }) => {
                    hopeless.get_or_insert(StepError::Broken(format!(
                        "pod {}: {message} Delete one of the budgets or narrow its selector.",
                        pod.key
                    )));
                    continue;
                }
                Err(error) => {
                    // Whether it was refused is not known: its budget may have let it go, and then counts it as gone for a
                    // while. That is no refusal, neither of it nor of the others behind the budget.
                    self.lock_memory().refused = StateTimers::default();
                    failed = Some(error);
                    continue;
                }
            };
            self.lock_memory().retry_after.insert(pod.uid, now + wait);
        }
        match (hopeless, failed) {
            (Some(error), _) => Err(error),
            (None, Some(error)) => Err(error.into()),
            (None, None) => Ok(()),
        }
    }
}

/// How long a pod is left alone after its eviction was refused for the `attempts`th time.
fn eviction_pause_after(attempts: u32) -> SignedDuration {
    let doubled = EVICTION_RETRY_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(8));
    doubled.min(MAX_EVICTION_RETRY_PAUSE)
}

impl Step<StepWorld> for DrainStep {
    type Observation = DrainObservation;
    type BeforeImage = DrainBeforeImage;
    type Act = DrainStepAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<DrainObservation, StepError> {
        let snapshot = world.read_snapshot().await?;
        let now = world.clock.now();
        let nodes = collect_blue_nodes(&snapshot, &self.blue);
        let unheld = unprotected_nodes(&snapshot, self.protects_green.then_some(&self.green));
        let mut seen = DrainObservation {
            unprotected_nodes: unheld,
            run: world.run.clone(),
            group: self.blue.clone(),
            snapshot,
            nodes,
            ..DrainObservation::default()
        };
        {
            let mut memory = self.lock_memory();
            // A pause that is over takes its refusal with it: the pod is asked for again and gets a new answer.
            memory.retry_after.retain(|_, until| *until > now);
            seen.paused_pods = memory.retry_after.keys().cloned().collect();
            memory
                .refusals
                .retain(|uid, _| seen.paused_pods.contains(uid));
            seen.refusals = memory.refusals.clone();
            seen.attempts = memory.attempts.clone();
        }
        self.emit_progress(world, &seen);
        // What holds an empty node is read before anything asks whether it is empty: targets, then volumes, then since
        // when neither is left.
        self.read_targets(world, &mut seen).await?;
        seen.never_registered = self.read_never_registered(world, &seen).await?;
        seen.green_cannot_serve = self.why_green_cannot_serve(world, &seen).await?;
        seen.attached = self.read_attached_volumes(world, &seen).await?;
        seen.emptied = self.note_emptied_nodes(&seen, now);
        // Before the first pod is moved, what has become more since the run began counts too.
        if self.protects_green && seen.nodes.iter().all(|n| n.begun_at(&seen.run).is_none()) {
            let (kube, green) = (&world.kube, Some(self.green.as_str()));
            let raised = world.workloads.raise_baseline(kube, &seen.snapshot, green);
            seen.raised_counts = raised.await?;
        }
        // Whose the pods are that are to go, and where they could go.
        let pods = begun_pods(&seen);
        seen.workloads = world
            .workloads
            .workloads_of(&world.kube, &seen.snapshot, pods)
            .await?;
        self.lock_memory().workloads.clone_from(&seen.workloads);
        seen.returning_workload = self.find_returning_workload(&seen);
        seen.returned_pod = self.lock_memory().movement.find_returned(&seen);
        seen.placement_facts = self.read_placement_facts(world, &seen).await?;
        seen.restarts = self.read_restarts(world, &seen).await?;
        // The timers rest on what is held, and they say whether the expensive readings below matter: workloads, and
        // green's size from EKS.
        let held = self.find_held_pods(&seen);
        self.emit_changes(world, &held.looks, &seen);
        seen.elapsed = self.update_timers(&seen, held.uids);
        if self.needs_workload_health(&seen) {
            let monitor = &world.workloads;
            seen.short = monitor.short_workloads(&world.kube, &seen.snapshot).await?;
        }
        if self.spec.surge.is_some() || held.no_place || self.may_lack_place(&seen) {
            self.read_green(world, &mut seen).await?;
        }
        Ok(seen)
    }

    fn decide_next(
        &self,
        seen: &DrainObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<DrainStepAct> {
        let attempt = CallAttempt::of_forward(past);
        decide_drain(&self.spec, seen, past, now).map_act(|act| act.with_attempt(attempt))
    }

    fn begins_new_part(&self, act: &DrainStepAct) -> bool {
        matches!(act, DrainStepAct::Begin { .. })
    }

    fn is_at_rest(&self, seen: &DrainObservation) -> bool {
        is_at_rest(&self.spec, seen)
    }

    fn before_image(&self, seen: &DrainObservation) -> DrainBeforeImage {
        DrainBeforeImage::of_observation(seen)
    }

    async fn perform_act(&self, world: &StepWorld, act: &DrainStepAct) -> Result<(), StepError> {
        match act {
            // An autoscaler would end an emptied node under the run.
            DrainStepAct::Hold { nodes: names } => {
                nodes::protect_from_scale_down(world, names).await
            }
            DrainStepAct::Taint { nodes: names } => nodes::taint_and_protect(world, names).await,
            DrainStepAct::TaintAndCordon { nodes: names } => {
                nodes::taint_and_cordon(world, names).await
            }
            // The mark has the time, so that deadlines outlive this process.
            DrainStepAct::Begin { nodes: names, at } => {
                nodes::mark_draining(world, names, *at).await
            }
            DrainStepAct::Reopen { nodes: names } => nodes::reopen_nodes(world, names).await,
            // A rollback empties green with the same code.
            DrainStepAct::Leave { act } => {
                perform_boxed_act(self.get_green_drain(), world, act).await
            }
            DrainStepAct::Skip { nodes: names, .. } => nodes::mark_skipped(world, names).await,
            // For ELB a target that is out already is no error, so a repeated act does no harm.
            DrainStepAct::Deregister { targets } => {
                for t in targets {
                    world
                        .aws
                        .deregister_targets(&t.target_group, &[t.as_registered()])
                        .await?;
                }
                Ok(())
            }
            DrainStepAct::Unmark {
                nodes: names,
                register,
            } => {
                // Targets first: without its marks nothing tells any more that this run took the node out of them.
                for t in register {
                    world
                        .aws
                        .register_targets(&t.target_group, &[t.as_registered()])
                        .await?;
                }
                nodes::remove_drain_marks(world, names).await
            }
            DrainStepAct::Evict { pods } => self.evict_pods(world, pods).await,
            DrainStepAct::Delete { pods, .. } => {
                for pod in pods {
                    // The uid goes along, so a replacement under the same name is left alone. Gone is what was wanted.
                    match world.kube.delete_pod(&pod.key, &pod.uid, None).await {
                        Ok(()) => {
                            world.workloads.departing.note_departure(&pod.uid);
                            self.count_move(pod);
                        }
                        Err(e) if matches!(e.class, ErrorClass::Absent | ErrorClass::Conflict) => {}
                        Err(e) => return Err(e.into()),
                    }
                    // It has this long to go before it is asked again.
                    self.lock_memory().retry_after.insert(
                        pod.uid.clone(),
                        world.clock.now() + SignedDuration::from_secs(60),
                    );
                }
                Ok(())
            }
            DrainStepAct::Restart { deployment, at } => {
                world.kube.restart_deployment(deployment, *at).await?;
                // Remembered so that the next look waits for the new pod. Lost in a restart, it costs the same patch once more.
                self.lock_memory().restarted.insert(deployment.clone());
                Ok(())
            }
            DrainStepAct::Grow { desired, request } => {
                // Only the desired size: the largest size stays the user's.
                let change = NodegroupChange {
                    desired: Some(*desired),
                    ..NodegroupChange::default()
                };
                world
                    .update_nodegroup_once(&self.id, &self.green, &change, *request)
                    .await
            }
        }
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    async fn observe_for_undo(&self, world: &StepWorld) -> Result<DrainObservation, StepError> {
        self.lock_memory().rolls_back = true;
        // Blue is looked at first: whether its nodes are open and targets again decides whether green's pods may come.
        let mut seen = self.observe_state(world).await?;
        seen.returning_nodes = read_returning_nodes(world, &self.spec, &seen).await?;
        seen.green_observation = Some(Box::new(self.get_green_drain().observe_green(world).await?));
        Ok(seen)
    }

    fn decide_undo(
        &self,
        before: &DrainBeforeImage,
        seen: &DrainObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<DrainStepAct> {
        decide_drain_undo(
            self.get_green_drain(),
            (&self.blue, &self.green),
            before,
            seen,
            trail,
            now,
        )
    }

    fn describe_act(&self, act: &DrainStepAct) -> String {
        match act {
            DrainStepAct::Hold { nodes } => {
                format!("keep {} from the autoscaler's scale-down", nodes.join(", "))
            }
            DrainStepAct::Taint { nodes } => {
                format!("taint {}, which joined late", nodes.join(", "))
            }
            DrainStepAct::TaintAndCordon { nodes } => {
                format!("taint and cordon {}", nodes.join(", "))
            }
            DrainStepAct::Begin { nodes, .. } => format!("begin to drain {}", nodes.join(", ")),
            DrainStepAct::Reopen { nodes } => format!("untaint and uncordon {}", nodes.join(", ")),
            DrainStepAct::Leave { act } => self.get_green_drain().describe_act(act),
            DrainStepAct::Evict { pods } => format!("evict {}", pod_list_text(pods)),
            DrainStepAct::Delete { pods, why } => {
                format!("delete past their budget: {} ({why})", pod_list_text(pods))
            }
            DrainStepAct::Skip { nodes, why } => format!("skip {} ({why})", nodes.join(", ")),
            DrainStepAct::Restart { deployment, .. } => {
                format!("restart Deployment {deployment}, so that its new pod comes up first")
            }
            DrainStepAct::Grow { desired, .. } => format!("grow {} to {desired} nodes", self.green),
            DrainStepAct::Deregister { targets } => {
                // By short name: ARNs would fill several lines.
                let all: Vec<String> = targets
                    .iter()
                    .map(|t| format!("{} from {}", t.instance, short_name(&t.target_group)))
                    .collect();
                format!("deregister {}", all.join(", "))
            }
            DrainStepAct::Unmark { nodes, register } => {
                let again = if register.is_empty() {
                    ""
                } else {
                    " and make them targets again"
                };
                format!("remove the drain's marks from {}{again}", nodes.join(", "))
            }
        }
    }
}

fn pod_list_text(pods: &[PodRef]) -> String {
    pods.iter()
        .map(|p| p.key.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
