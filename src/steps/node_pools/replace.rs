//! Nodes are replaced by Karpenter, some at a time, or by EKS Auto Mode, which takes no budget of ours.
//!
//! The run's budget is opened, and closed again as soon as a node is on its way out: what is under way is finished, the
//! workloads are whole again and the plan's bake has passed before the next nodes go. So gates and windows hold between
//! nodes, and a run that stops leaves nothing going on. A process that dies leaves it open for some minutes at most: it ends
//! by itself unless it is opened again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::budget::{
    BudgetChange, DriftBudget, OPEN_TIME, change_budget, end_of_opening, open_until, read_budget,
};
use super::openings::Openings;
use super::progress::{ReplacedNodes, ReplacementProgress};
use super::standstill::{explain_standstill, refuse_standstill};
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
const REPLACE_RECHECK_INTERVAL: Duration = Duration::from_secs(5);

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
    openings: Openings,
}

/// One look at the nodes and at the workloads.
pub struct ReplaceObservation {
    progress: ReplacementProgress,
    budget: DriftBudget,
    /// When an open budget ends by itself.
    open_until: Option<Timestamp>,
    short: Shortage,
    /// How long this process has seen the same nodes old.
    unchanged_for: Duration,
    /// How long it has seen nothing under way and all workloads whole.
    quiet_for: Duration,
    /// How long ago it first let nodes go, or first looked where EKS lets them go, without one having gone since; and what was
    /// in the way.
    fruitless: Option<(Duration, Vec<String>)>,
}

/// The name of the timer of a quiet pool; that of an unchanged one is what does not change.
const QUIET_TIMER: &str = "quiet";
/// That of openings of which nothing came.
const FRUITLESS_TIMER: &str = "fruitless";

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
    Open {
        /// How many nodes were old then.
        old: usize,
    },
    /// It ends by itself soon, and nothing has begun yet.
    Renew {
        /// How many nodes were old when it was opened.
        old: usize,
        until: Timestamp,
    },
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
            openings: Openings::default(),
        }
    }

    /// Whether the nodes are Karpenter's, so that the run's budget holds them.
    fn has_budget(&self) -> bool {
        matches!(self.nodes, ReplacedNodes::Pool(_))
    }

    /// What is next while the run's budget is open.
    fn decide_open(
        &self,
        seen: &ReplaceObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<ReplaceAct> {
        let progress = &seen.progress;
        // The first node on its way out closes the budget: the next ones wait until its pods are back.
        // One that went between two looks closes it too.
        let last = past.last_act.as_ref();
        let opened_with = match last.and_then(|act| ReplaceAct::deserialize(act).ok()) {
            Some(ReplaceAct::Open { old } | ReplaceAct::Renew { old, .. }) => old,
            Some(ReplaceAct::Close { .. }) | None => progress.old.len(),
        };
        if !progress.leaving.is_empty()
            || progress.old.len() < opened_with
            || progress.old.is_empty()
            // Nobody watched for so long: it is opened again when everything that has to hold between nodes does.
            || seen.open_until.is_some_and(|until| now >= until)
        {
            return Decision::Act(ReplaceAct::Close { stuck: None });
        }
        if seen.unchanged_for > self.terms.timeout {
            return Decision::Act(ReplaceAct::Close {
                stuck: Some(explain_standstill(&self.nodes, &seen.progress)),
            });
        }
        let renewed_at = seen
            .open_until
            .map(|until| until - signed_duration(OPEN_TIME / 2));
        if renewed_at.is_none_or(|at| now >= at) {
            return Decision::Act(ReplaceAct::Renew {
                old: opened_with,
                until: end_of_opening(now),
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
    fn decide_held(&self, seen: &ReplaceObservation, past: &StepHistory) -> Decision<ReplaceAct> {
        let progress = &seen.progress;
        let last = past.last_act.as_ref();
        let last = last.and_then(|act| ReplaceAct::deserialize(act).ok());
        if let Some(ReplaceAct::Close { stuck: Some(why) }) = &last {
            return refuse_standstill(&self.nodes, why);
        }
        // What is under way is finished; a node that its pods do not leave holds up everything after it.
        if !progress.is_quiet() {
            if seen.unchanged_for > self.terms.timeout {
                return refuse_standstill(
                    &self.nodes,
                    &format!(
                        "{}; {}",
                        progress.describe(),
                        explain_standstill(&self.nodes, progress)
                    ),
                );
            }
            return wait_watching(progress.describe());
        }
        let stays = format!("no further node of {} is replaced", self.nodes.words());
        if let Some(decision) = seen.short.hold_back(SHORTAGE_LIMIT, &stays) {
            return decision;
        }
        // The watch after each node, the last one too, counts from when its pods are back. A process that takes over
        // watches again.
        let left = self.terms.bake.saturating_sub(seen.quiet_for);
        if last.is_some() && !left.is_zero() {
            return Decision::Wait {
                why: format!(
                    "{}; watching, {}s left",
                    progress.describe(),
                    left.as_secs()
                ),
                recheck: left.min(REPLACE_RECHECK_INTERVAL),
            };
        }
        if progress.old.is_empty() {
            return Decision::Done(format!(
                "all {} nodes of {} are of {}",
                progress.total,
                self.nodes.words(),
                self.terms.kubelet
            ));
        }
        // Karpenter takes a node back when its replacement does not come up, and would begin again forever.
        if let Some((since, troubles)) = &seen.fruitless
            && *since > self.terms.timeout
        {
            let mut why = vec![format!(
                "it began with a node of {}, and took it back as no replacement came up",
                self.nodes.words()
            )];
            why.extend(troubles.iter().cloned());
            return refuse_standstill(&self.nodes, &why.join("; "));
        }
        Decision::Act(ReplaceAct::Open {
            old: progress.old.len(),
        })
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
            return refuse_standstill(&self.nodes, &explain_standstill(&self.nodes, progress));
        }
        // EKS begins with a node and takes it back, again and again, where no replacement comes up. A node may also wait to
        // be begun with for the whole time, and then need as long to be emptied.
        if let Some((since, troubles)) = &seen.fruitless {
            let limit = match troubles.is_empty() {
                true => self.terms.timeout * 2,
                false => self.terms.timeout,
            };
            if *since > limit {
                let known = match troubles.is_empty() {
                    true => explain_standstill(&self.nodes, progress),
                    false => troubles.join("; "),
                };
                let minutes = since.as_secs() / 60;
                return refuse_standstill(
                    &self.nodes,
                    &format!(
                        "{}, and no old node has gone for {minutes} minutes; {known}",
                        progress.describe()
                    ),
                );
            }
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
        let held = progress.pool.as_ref().filter(|_| self.has_budget());
        let budget = held.map_or(DriftBudget::Absent, |pool| read_budget(pool, &self.run));
        let open_until = held.and_then(|pool| open_until(pool, &self.run, world.clock.now()));
        // Every node that goes begins the time again, and so does a budget that opens.
        let so_now = format!(
            "{budget:?} {} {}",
            progress.old.join(" "),
            progress.leaving.join(" ")
        );
        let quiet = progress.is_quiet() && short.workloads.is_empty();
        let quiet = quiet.then(|| QUIET_TIMER.to_owned());
        let opening = self.openings.note_troubles(&progress);
        // EKS needs nobody to let it begin.
        if !self.has_budget() {
            self.openings.note(progress.old.len());
        }
        let fruitless = opening.as_ref().map(|_| FRUITLESS_TIMER.to_owned());
        let elapsed = {
            let mut timers = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
            timers.update_all([so_now.clone()].into_iter().chain(quiet).chain(fruitless))
        };
        let so_for = |name: &str| elapsed.get(name).copied().unwrap_or_default();
        let fruitless = opening.map(|o| (so_for(FRUITLESS_TIMER), o.troubles));
        Ok(ReplaceObservation {
            progress,
            budget,
            open_until,
            short,
            unchanged_for: so_for(&so_now),
            quiet_for: so_for(QUIET_TIMER),
            fruitless,
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
            DriftBudget::Absent | DriftBudget::TakenOff => {
                Decision::Act(ReplaceAct::Close { stuck: None })
            }
            DriftBudget::Open => self.decide_open(seen, past, now),
            DriftBudget::Held => self.decide_held(seen, past),
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
            ReplaceAct::Open { old } => {
                self.openings.note(*old);
                let until = end_of_opening(world.clock.now());
                BudgetChange::Open(self.terms.budget.as_deref(), until)
            }
            ReplaceAct::Renew { until, .. } => {
                BudgetChange::Open(self.terms.budget.as_deref(), *until)
            }
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
            (ReplaceAct::Open { .. }, Some(budget)) => {
                format!("let Karpenter replace drifted nodes of {name}, {budget} at once")
            }
            (ReplaceAct::Open { .. }, None) => format!(
                "let Karpenter replace drifted nodes of {name}, as many as its own budgets allow"
            ),
            (ReplaceAct::Renew { until, .. }, _) => {
                format!("let Karpenter replace drifted nodes of {name} until {until}")
            }
            (ReplaceAct::Close { stuck: None }, _) => {
                format!("set the budget of {name} for the reason Drifted to 0")
            }
            (ReplaceAct::Close { stuck: Some(why) }, _) => {
                format!("set the budget of {name} for the reason Drifted to 0: {why}")
            }
        }
    }

    fn begins_new_part(&self, act: &ReplaceAct) -> bool {
        matches!(act, ReplaceAct::Open { .. })
    }

    fn is_at_rest(&self, seen: &ReplaceObservation) -> bool {
        seen.budget != DriftBudget::Open && seen.progress.is_quiet()
    }
}

#[cfg(test)]
mod tests;
