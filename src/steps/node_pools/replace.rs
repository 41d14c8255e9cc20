//! Nodes are replaced by Karpenter, some at a time, or by EKS Auto Mode, which takes no budget of ours.
//!
//! The run's budget is opened, and closed again as soon as a node is on its way out: what is under way is finished, the
//! workloads are whole again and the plan's bake has passed before the next nodes go. So gates and windows hold between
//! nodes, and a run that stops leaves nothing going on.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::budget::{BudgetChange, DriftBudget, change_budget, closed_by_itself, read_budget};
use super::progress::{ReplacedNodes, ReplacementProgress};
use crate::engine::{
    Decision, NextStep, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::Minor;
use crate::model::clock::signed_duration;
use crate::steps::drain::timers::StateTimers;
use crate::steps::workload_gate::{Shortage, WorkloadGate};
use crate::steps::{ROLLBACK_WAIT_LIMIT, StepWorld};

/// How long workloads may be short between two nodes before a person is asked.
const SHORTAGE_LIMIT: Duration = Duration::from_secs(15 * 60);
/// How often is looked; changes of nodes and pods wake it sooner.
const REPLACE_RECHECK_INTERVAL: Duration = Duration::from_secs(10);

/// What the plan says of nodes that somebody else replaces.
#[derive(Clone, Debug)]
pub struct ReplaceTerms {
    /// What their kubelets are to be.
    pub kubelet: Minor,
    /// Of the nodes that Karpenter may replace at once; absent: what the NodePool itself says.
    pub budget: Option<String>,
    /// Watched this long after each time.
    pub bake: Duration,
    /// Longest time without progress.
    pub timeout: Duration,
}

/// A step that lets Karpenter or EKS replace nodes, and watches until none is old.
pub struct ReplacePoolStep {
    run: String,
    nodes: ReplacedNodes,
    terms: ReplaceTerms,
    gate: WorkloadGate,
    /// Since when the same nodes are old.
    timers: Mutex<StateTimers>,
}

/// One look at the nodes and at the workloads.
pub struct ReplaceObservation {
    progress: ReplacementProgress,
    budget: DriftBudget,
    short: Shortage,
    /// How long this process has seen the same nodes old.
    unchanged_for: Duration,
}

/// How many nodes there were, and how many of them were old.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplaceBeforeImage {
    nodes: usize,
    old: usize,
}

/// An act on the run's budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum ReplaceAct {
    Open,
    Close {
        /// Why no further node is replaced, where a person has to look.
        stuck: Option<String>,
    },
}

impl ReplacePoolStep {
    /// Watches `nodes` until all have the kubelet of `terms`.
    pub fn new(run: String, nodes: ReplacedNodes, terms: ReplaceTerms) -> Self {
        Self {
            run,
            nodes,
            terms,
            gate: WorkloadGate::default(),
            timers: Mutex::default(),
        }
    }

    /// Whether the nodes are Karpenter's, so that the run's budget holds them.
    fn has_budget(&self) -> bool {
        matches!(self.nodes, ReplacedNodes::Pool(_))
    }

    /// Why nothing moves: what is known to stand in the way, or what Karpenter waits for.
    fn explain_standstill(&self, seen: &ReplaceObservation) -> String {
        let progress = &seen.progress;
        let mut why = Vec::new();
        let pool = progress.pool.as_ref();
        if self.has_budget() && pool.is_some_and(|pool| closed_by_itself(pool, &self.run)) {
            why.push("a budget of the NodePool itself allows no node to be replaced".to_owned());
        }
        why.extend(progress.troubles.iter().cloned());
        why.extend(progress.blockers.iter().cloned());
        if self.has_budget() && progress.drifted == 0 && progress.leaving.is_empty() {
            why.push(
                "Karpenter calls no node drifted: its node class selects the same image as before"
                    .to_owned(),
            );
        }
        if why.is_empty() {
            why.push("nothing that eksup reads says why".to_owned());
        }
        why.join("; ")
    }

    fn refuse_standstill(&self, why: &str) -> Decision<ReplaceAct> {
        let replacer = self.nodes.replacer();
        let fix = match self.nodes {
            ReplacedNodes::Pool(_) => {
                "Remove what stands in the way; Karpenter's events on the NodePool, its NodeClaims and nodes say more"
            }
            ReplacedNodes::AutoMode => {
                "Remove what stands in the way; EKS's events on nodes and NodeClaims say more, and it ends a node after 21 days at the latest"
            }
        };
        Decision::Refuse(
            StepRefusal::new(format!("{replacer} replaces no further node: {why}")).with_fix(fix),
        )
    }

    /// What is next while the run's budget is open.
    fn decide_open(&self, seen: &ReplaceObservation) -> Decision<ReplaceAct> {
        let progress = &seen.progress;
        // The first node on its way out closes the budget: the next ones wait until its pods are back.
        if !progress.leaving.is_empty() || progress.old.is_empty() {
            return Decision::Act(ReplaceAct::Close { stuck: None });
        }
        if seen.unchanged_for > self.terms.timeout {
            return Decision::Act(ReplaceAct::Close {
                stuck: Some(self.explain_standstill(seen)),
            });
        }
        let mut why = format!("Karpenter may replace nodes: {}", progress.describe());
        if progress.drifted == 0 {
            why.push_str("; it has not found that their image differs yet");
        } else if !progress.blockers.is_empty() {
            why = format!("{why}; {}", progress.blockers.join("; "));
        }
        wait_watching(why)
    }

    /// What is next while nothing new may begin.
    fn decide_held(
        &self,
        seen: &ReplaceObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<ReplaceAct> {
        let progress = &seen.progress;
        let last = past.last_act.as_ref();
        let last = last.and_then(|act| ReplaceAct::deserialize(act).ok());
        if let Some(ReplaceAct::Close { stuck: Some(why) }) = &last {
            return self.refuse_standstill(why);
        }
        // What is under way is finished; a node that its pods do not leave holds up everything after it.
        if !progress.is_quiet() {
            if seen.unchanged_for > self.terms.timeout {
                return self.refuse_standstill(&format!(
                    "{}; {}",
                    progress.describe(),
                    self.explain_standstill(seen)
                ));
            }
            return wait_watching(progress.describe());
        }
        let stays = format!("no further node of {} is replaced", self.nodes.words());
        if let Some(decision) = seen.short.hold_back(SHORTAGE_LIMIT, &stays) {
            return decision;
        }
        if progress.old.is_empty() {
            return Decision::Done(format!(
                "all {} nodes of {} are of {}",
                progress.total,
                self.nodes.words(),
                self.terms.kubelet
            ));
        }
        // The watch after each node counts from when the budget was closed.
        if last == Some(ReplaceAct::Close { stuck: None })
            && let Some(closed) = past.act_counts_from()
        {
            let left = signed_duration(self.terms.bake) - now.duration_since(closed);
            if left.is_positive() {
                return Decision::Wait {
                    why: format!(
                        "{}; watching, {}s left",
                        progress.describe(),
                        left.as_secs()
                    ),
                    recheck: Duration::try_from(left)
                        .unwrap_or(REPLACE_RECHECK_INTERVAL)
                        .min(REPLACE_RECHECK_INTERVAL),
                };
            }
        }
        Decision::Act(ReplaceAct::Open)
    }

    /// What is next where EKS replaces the nodes, whatever anybody does.
    fn decide_watching(&self, seen: &ReplaceObservation) -> Decision<ReplaceAct> {
        let progress = &seen.progress;
        if progress.old.is_empty() && progress.is_quiet() {
            let stays = "the run does not go on";
            return seen
                .short
                .hold_back(SHORTAGE_LIMIT, stays)
                .unwrap_or_else(|| {
                    Decision::Done(format!(
                        "all {} nodes of {} are of {}",
                        progress.total,
                        self.nodes.words(),
                        self.terms.kubelet
                    ))
                });
        }
        if seen.unchanged_for > self.terms.timeout {
            return self.refuse_standstill(&self.explain_standstill(seen));
        }
        let mut why = progress.describe();
        if !progress.blockers.is_empty() {
            why = format!("{why}; {}", progress.blockers.join("; "));
        }
        wait_watching(why)
    }
}

fn wait_watching(why: String) -> Decision<ReplaceAct> {
    Decision::Wait {
        why,
        recheck: REPLACE_RECHECK_INTERVAL,
    }
}

impl Step<StepWorld> for ReplacePoolStep {
    type Observation = ReplaceObservation;
    type BeforeImage = ReplaceBeforeImage;
    type Act = ReplaceAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<ReplaceObservation, StepError> {
        let progress = self.nodes.read_progress(world, self.terms.kubelet).await?;
        let short = self.gate.read_shortage(world).await?;
        let budget = match &progress.pool {
            Some(pool) if self.has_budget() => read_budget(pool, &self.run),
            Some(_) | None => DriftBudget::Absent,
        };
        // Every node that goes begins the time again, and so does a budget that opens.
        let so_now = format!(
            "{budget:?} {} {}",
            progress.old.join(" "),
            progress.leaving.join(" ")
        );
        let elapsed = {
            let mut timers = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
            timers.update_all([so_now])
        };
        Ok(ReplaceObservation {
            progress,
            budget,
            short,
            unchanged_for: elapsed.into_values().next().unwrap_or_default(),
        })
    }

    fn decide_next(
        &self,
        seen: &ReplaceObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<ReplaceAct> {
        if !self.has_budget() {
            return self.decide_watching(seen);
        }
        if seen.progress.pool.is_none() {
            return Decision::Refuse(
                StepRefusal::new(format!(
                    "{} is gone; somebody else deleted it",
                    self.nodes.words()
                ))
                .with_next(NextStep::Replan),
            );
        }
        match seen.budget {
            // Somebody, or a tool that keeps the cluster as Git has it, has taken the run's budget off.
            DriftBudget::Absent => Decision::Act(ReplaceAct::Close { stuck: None }),
            DriftBudget::Open => self.decide_open(seen),
            DriftBudget::Held => self.decide_held(seen, past, now),
        }
    }

    fn before_image(&self, seen: &ReplaceObservation) -> ReplaceBeforeImage {
        ReplaceBeforeImage {
            nodes: seen.progress.total,
            old: seen.progress.old.len(),
        }
    }

    async fn perform_act(&self, world: &StepWorld, act: &ReplaceAct) -> Result<(), StepError> {
        let ReplacedNodes::Pool(name) = &self.nodes else {
            return Ok(());
        };
        let pools = world.kube.list_node_pools().await?;
        // One that is gone is told by the next look.
        let Some(pool) = pools.into_iter().find(|p| p.name == *name) else {
            return Ok(());
        };
        let change = match act {
            ReplaceAct::Open => BudgetChange::Open(self.terms.budget.as_deref()),
            ReplaceAct::Close { .. } => BudgetChange::Hold,
        };
        let change = change_budget(&pool, &self.run, change);
        Ok(world.kube.change_node_pool(&pool, &change).await?)
    }

    /// The nodes that were replaced stay: of the old version Karpenter makes none while the control plane is newer.
    fn undo_kind(&self) -> UndoKind {
        match self.nodes {
            ReplacedNodes::Pool(_) => UndoKind::Restore,
            ReplacedNodes::AutoMode => UndoKind::Nothing,
        }
    }

    fn decide_undo(
        &self,
        _before: &ReplaceBeforeImage,
        seen: &ReplaceObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<ReplaceAct> {
        if seen.budget == DriftBudget::Open {
            return Decision::Act(ReplaceAct::Close { stuck: None });
        }
        // What is under way cannot be stopped; the steps before this one count on nodes that stand.
        if !seen.progress.is_quiet() && !trail.is_late(now, ROLLBACK_WAIT_LIMIT) {
            return wait_watching(seen.progress.describe());
        }
        Decision::Done(format!(
            "{} keeps the nodes it has: {}",
            self.nodes.words(),
            seen.progress.describe()
        ))
    }

    fn describe_act(&self, act: &ReplaceAct) -> String {
        let name = self.nodes.words();
        match (act, &self.terms.budget) {
            (ReplaceAct::Open, Some(budget)) => {
                format!("let Karpenter replace {budget} drifted nodes of {name} at once")
            }
            (ReplaceAct::Open, None) => format!(
                "let Karpenter replace drifted nodes of {name}, as many as its own budgets allow"
            ),
            (ReplaceAct::Close { stuck: None }, _) => {
                format!("set the budget of {name} for the reason Drifted to 0")
            }
            (ReplaceAct::Close { stuck: Some(why) }, _) => {
                format!("set the budget of {name} for the reason Drifted to 0: {why}")
            }
        }
    }

    fn begins_new_part(&self, act: &ReplaceAct) -> bool {
        *act == ReplaceAct::Open
    }

    fn is_at_rest(&self, seen: &ReplaceObservation) -> bool {
        seen.budget != DriftBudget::Open && seen.progress.is_quiet()
    }
}
