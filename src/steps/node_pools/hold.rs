//! A NodePool is held while the control plane moves: Karpenter would begin to replace its nodes as soon as the new version
//! has another image (KARP-1). At the end of the run it is let go.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::budget::{BudgetChange, DriftBudget, change_budget, read_budget};
use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::node_pool::NodePool;
use crate::route::{Route, StepSpec};
use crate::steps::StepWorld;

/// Holds a NodePool, or lets it go.
pub struct HoldPoolStep {
    pool: String,
    run: String,
    /// How the step holds; none where it releases.
    holds: Option<HeldReasons>,
}

/// For which reasons Karpenter disrupts no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeldReasons {
    /// A new version.
    Drift,
    All,
}

/// Whether a run's budget was on the NodePool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HoldPoolBeforeImage {
    held: bool,
}

/// An act on the budget of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldPoolAct {
    Hold,
    Release,
}

/// Sets every budget of the run that is open, or was taken off, on a NodePool of the route to 0 again.
///
/// # Errors
/// Those of reading and changing NodePools.
pub async fn hold_open_pools(world: &StepWorld, route: &Route) -> Result<(), StepError> {
    let drifts = route
        .steps
        .iter()
        .any(|s| matches!(s.spec, StepSpec::DriftPool { .. }));
    if !drifts {
        return Ok(());
    }
    for pool in world.kube.list_node_pools().await? {
        if matches!(
            read_budget(&pool, &world.run),
            DriftBudget::Open | DriftBudget::TakenOff
        ) {
            let change = change_budget(&pool, &world.run, BudgetChange::Hold);
            world.kube.change_node_pool(&pool, &change).await?;
        }
    }
    Ok(())
}

impl HoldPoolStep {
    /// Returns the step that keeps Karpenter from replacing nodes of `pool` for a new version, or for any reason.
    pub fn new_holding(pool: String, run: String, all_reasons: bool) -> Self {
        let reasons = match all_reasons {
            true => HeldReasons::All,
            false => HeldReasons::Drift,
        };
        Self {
            pool,
            run,
            holds: Some(reasons),
        }
    }

    /// Returns the step that leaves `pool` to Karpenter again.
    pub fn new_releasing(pool: String, run: String) -> Self {
        Self {
            pool,
            run,
            holds: None,
        }
    }

    fn decide_release(&self, seen: &Option<NodePool>) -> Decision<HoldPoolAct> {
        let free = || {
            Decision::Done(format!(
                "NodePool {} has its own budgets only: Karpenter replaces its nodes whenever it finds them drifted",
                self.pool
            ))
        };
        match seen.as_ref().map(|pool| read_budget(pool, &self.run)) {
            None | Some(DriftBudget::Absent) => free(),
            Some(DriftBudget::Held | DriftBudget::Open | DriftBudget::TakenOff) => {
                Decision::Act(HoldPoolAct::Release)
            }
        }
    }
}

impl Step<StepWorld> for HoldPoolStep {
    type Observation = Option<NodePool>;
    type BeforeImage = HoldPoolBeforeImage;
    type Act = HoldPoolAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<Option<NodePool>, StepError> {
        let pools = world.kube.list_node_pools().await?;
        Ok(pools.into_iter().find(|p| p.name == self.pool))
    }

    fn decide_next(
        &self,
        seen: &Option<NodePool>,
        _past: &StepHistory,
        _now: Timestamp,
    ) -> Decision<HoldPoolAct> {
        if self.holds.is_none() {
            return self.decide_release(seen);
        }
        let Some(pool) = seen else {
            return Decision::Refuse(
                StepRefusal::new(format!(
                    "NodePool {} is gone; somebody else deleted it",
                    self.pool
                ))
                .with_next(crate::engine::NextStep::Replan),
            );
        };
        match read_budget(pool, &self.run) {
            DriftBudget::Held => Decision::Done(format!(
                "Karpenter replaces no node of {} for a new version",
                self.pool
            )),
            DriftBudget::Absent | DriftBudget::Open | DriftBudget::TakenOff => {
                Decision::Act(HoldPoolAct::Hold)
            }
        }
    }

    fn before_image(&self, seen: &Option<NodePool>) -> HoldPoolBeforeImage {
        let budget = seen.as_ref().map(|pool| read_budget(pool, &self.run));
        HoldPoolBeforeImage {
            held: budget.is_some_and(|budget| budget != DriftBudget::Absent),
        }
    }

    async fn perform_act(&self, world: &StepWorld, act: &HoldPoolAct) -> Result<(), StepError> {
        let Some(pool) = self.observe_state(world).await? else {
            return Ok(());
        };
        let wanted = match (act, self.holds) {
            (HoldPoolAct::Hold, Some(HeldReasons::All)) => BudgetChange::HoldAll,
            (HoldPoolAct::Hold, Some(HeldReasons::Drift) | None) => BudgetChange::Hold,
            (HoldPoolAct::Release, _) => BudgetChange::Remove,
        };
        let change = change_budget(&pool, &self.run, wanted);
        Ok(world.kube.change_node_pool(&pool, &change).await?)
    }

    fn undo_kind(&self) -> UndoKind {
        if self.holds.is_some() {
            UndoKind::Restore
        } else {
            UndoKind::Nothing
        }
    }

    fn decide_undo(
        &self,
        _before: &HoldPoolBeforeImage,
        seen: &Option<NodePool>,
        _trail: &RollbackHistory,
        _now: Timestamp,
    ) -> Decision<HoldPoolAct> {
        self.decide_release(seen)
    }

    fn describe_act(&self, act: &HoldPoolAct) -> String {
        match act {
            HoldPoolAct::Hold => format!(
                "add a budget of 0 nodes{} to NodePool {}",
                match self.holds {
                    Some(HeldReasons::All) => "",
                    Some(HeldReasons::Drift) | None => " for the reason Drifted",
                },
                self.pool
            ),
            HoldPoolAct::Release => {
                format!("take this run's budget off NodePool {}", self.pool)
            }
        }
    }
}
