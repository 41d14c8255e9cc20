//! A NodePool is held while the control plane moves: Karpenter would begin to replace its nodes as soon as the new version
//! has another image (KARP-1). At the end of the run it is let go.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::budget::{BudgetChange, DriftBudget, change_budget, read_budget};
use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::Minor;
use crate::model::kube::Node;
use crate::model::node_pool::{KarpenterObjects, NodeClaim, NodePool};
use crate::route::{Route, StepSpec};
use crate::steps::StepWorld;

/// How long Karpenter may take to select images of a control plane that was rolled back, before a person is asked: it asks for the
/// version every five minutes, and looks at its classes as often (KARP-6).
const SELECTION_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// How long after the control plane was rolled back a class may still come to select the newer images: the version was asked for
/// up to five minutes ago, and is used for five more.
const LOOK_TIME: Duration = Duration::from_secs(10 * 60);
/// How long nodes are waited for that Karpenter calls drifted at the control plane's own version. They may be so for another
/// reason, which the run does not hold back forever.
const DRIFT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Holds a NodePool, or lets it go.
pub struct HoldPoolStep {
    pool: String,
    run: String,
    /// How the step holds; none where it releases.
    holds: Option<HeldReasons>,
    /// It is the first NodePool to be let go after the control plane was rolled back.
    follows_versions: bool,
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

/// A NodePool, and what Karpenter would make of its nodes.
#[derive(Debug, Default)]
pub struct HoldPoolObservation {
    pool: Option<NodePool>,
    version: Option<Minor>,
    /// The node class of the pool, where it selects images that are newer than the control plane.
    newer_class: Option<String>,
    /// Nodes of the control plane's own version that Karpenter calls drifted.
    drifted: Vec<String>,
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
    /// `follows_versions`: it is the first to be let go in a rollback that takes the control plane back.
    pub fn new_holding(
        pool: String,
        run: String,
        all_reasons: bool,
        follows_versions: bool,
    ) -> Self {
        let reasons = match all_reasons {
            true => HeldReasons::All,
            false => HeldReasons::Drift,
        };
        Self {
            pool,
            run,
            holds: Some(reasons),
            follows_versions,
        }
    }

    /// Returns the step that leaves `pool` to Karpenter again.
    pub fn new_releasing(pool: String, run: String) -> Self {
        Self {
            pool,
            run,
            holds: None,
            follows_versions: false,
        }
    }

    async fn read_pool(&self, world: &StepWorld) -> Result<Option<NodePool>, StepError> {
        let pools = world.kube.list_node_pools().await?;
        Ok(pools.into_iter().find(|p| p.name == self.pool))
    }

    fn judge_pool<'a>(
        &self,
        objects: &KarpenterObjects,
        nodes: impl Iterator<Item = &'a Node>,
        version: Minor,
    ) -> HoldPoolObservation {
        let pool = objects.find_pool(&self.pool);
        let class = pool.and_then(|pool| objects.class_of(pool));
        // An image that is named by its id is the same at every version, whatever its name says.
        let newer = class
            .filter(|class| !class.names_images_by_id() && class.selects_newer_version(version));
        let of_pool = |claim: &&NodeClaim| claim.pool.as_ref() == Some(&self.pool);
        let claims = objects.claims.iter().filter(of_pool);
        let drifted = claims.filter(|claim| claim.has_condition("Drifted"));
        let drifted: BTreeSet<&str> = drifted.filter_map(|c| c.node.as_deref()).collect();
        let of_version = |node: &&Node| {
            drifted.contains(node.name.as_str())
                && Minor::from_reported(&node.kubelet_version).is_ok_and(|seen| seen == version)
        };
        HoldPoolObservation {
            pool: pool.cloned(),
            version: Some(version),
            newer_class: newer.map(|class| class.name.clone()),
            drifted: nodes.filter(of_version).map(|n| n.name.clone()).collect(),
        }
    }

    /// Why the pool is not left to Karpenter yet, after `waited`: it would replace nodes for a version that the control plane
    /// has no more.
    fn reason_to_hold(
        &self,
        seen: &HoldPoolObservation,
        waited: Duration,
    ) -> Option<Decision<HoldPoolAct>> {
        let (pool, version) = (seen.pool.as_ref()?, seen.version?);
        if let Some(class) = &seen.newer_class {
            let why = format!(
                "EC2NodeClass {class} selects images that are newer than the control plane at {version}, and Karpenter would replace nodes of NodePool {} with them",
                pool.name
            );
            return Some(match waited < SELECTION_TIMEOUT {
                true => wait(format!("{why}; it looks at the version every five minutes")),
                false => Decision::Refuse(StepRefusal::new(format!(
                    "{why}, after {} minutes",
                    SELECTION_TIMEOUT.as_secs() / 60
                ))
                .with_fix(format!(
                    "See whether Karpenter runs, and what `kubectl describe ec2nodeclass {class}` selects; the budget of 0 stays until then"
                ))),
            });
        }
        if self.follows_versions && waited < LOOK_TIME {
            return Some(wait(format!(
                "Karpenter may still read the version from before the rollback to {version}: it asks every five minutes, and looks at its classes as often"
            )));
        }
        let first = seen.drifted.first().filter(|_| waited < DRIFT_TIMEOUT)?;
        Some(wait(format!(
            "Karpenter calls {first}{} drifted, at the version of the control plane",
            match seen.drifted.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            }
        )))
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

fn wait(why: String) -> Decision<HoldPoolAct> {
    Decision::Wait {
        why,
        recheck: RECHECK_INTERVAL,
    }
}

impl Step<StepWorld> for HoldPoolStep {
    type Observation = HoldPoolObservation;
    type BeforeImage = HoldPoolBeforeImage;
    type Act = HoldPoolAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<HoldPoolObservation, StepError> {
        if self.holds.is_none() {
            return Ok(HoldPoolObservation {
                pool: self.read_pool(world).await?,
                ..HoldPoolObservation::default()
            });
        }
        let objects = world.kube.list_karpenter().await?;
        let version = world.aws.describe_cluster(&world.cluster).await?.version;
        let snapshot = world.read_snapshot().await?;
        let nodes = snapshot.nodes.values().map(AsRef::as_ref);
        Ok(self.judge_pool(&objects, nodes, version))
    }

    fn decide_next(
        &self,
        seen: &HoldPoolObservation,
        _past: &StepHistory,
        _now: Timestamp,
    ) -> Decision<HoldPoolAct> {
        if self.holds.is_none() {
            return self.decide_release(&seen.pool);
        }
        let Some(pool) = &seen.pool else {
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

    fn before_image(&self, seen: &HoldPoolObservation) -> HoldPoolBeforeImage {
        let budget = seen.pool.as_ref().map(|pool| read_budget(pool, &self.run));
        HoldPoolBeforeImage {
            held: budget.is_some_and(|budget| budget != DriftBudget::Absent),
        }
    }

    async fn perform_act(&self, world: &StepWorld, act: &HoldPoolAct) -> Result<(), StepError> {
        let Some(pool) = self.read_pool(world).await? else {
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
        seen: &HoldPoolObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<HoldPoolAct> {
        let release = self.decide_release(&seen.pool);
        let began = trail.rollback.started_at.unwrap_or(now);
        let waited = now.duration_since(began).try_into().unwrap_or_default();
        match (&release, self.reason_to_hold(seen, waited)) {
            (Decision::Act(_), Some(reason)) => reason,
            _ => release,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node_pool::NodeClass;
    use crate::steps::closing::tests::node;
    use serde_json::json;

    fn step() -> HoldPoolStep {
        HoldPoolStep::new_holding("general".into(), "r1".into(), false, false)
    }

    /// A held pool with one node at 1.28, which Karpenter calls drifted or not; its class selects images of `selected`.
    fn seen(control_plane: u16, selected: &str, drifted: &str) -> HoldPoolObservation {
        let spec = json!({"template": {"spec": {"nodeClassRef": {"kind": "EC2NodeClass", "name": "default"}}}});
        let pool = NodePool {
            name: "general".into(),
            spec,
            ..NodePool::default()
        };
        let class = NodeClass {
            name: "default".into(),
            images: vec![format!(
                "amazon-eks-node-al2023-x86_64-standard-{selected}-v20260920"
            )],
            ..NodeClass::default()
        };
        let condition = crate::model::node_pool::ConditionState {
            status: drifted.into(),
            reason: String::new(),
            message: String::new(),
        };
        let claim = NodeClaim {
            pool: Some("general".into()),
            node: Some("n1".into()),
            conditions: [("Drifted".to_owned(), condition)].into(),
            ..NodeClaim::default()
        };
        let mut node = node("n1");
        node.kubelet_version = "v1.28.9-eks-1".into();
        let objects = KarpenterObjects {
            pools: vec![pool],
            claims: vec![claim],
            classes: Some(vec![class]),
        };
        step().judge_pool(&objects, [&node].into_iter(), Minor::new(control_plane))
    }

    fn reason(seen: &HoldPoolObservation, minutes: u64) -> Option<Decision<HoldPoolAct>> {
        step().reason_to_hold(seen, Duration::from_secs(minutes * 60))
    }

    #[test]
    fn a_pool_is_let_go_once_karpenter_has_seen_that_the_control_plane_was_rolled_back() {
        let stale = seen(28, "1.29", "True");
        assert!(matches!(reason(&stale, 29), Some(Decision::Wait { .. })));
        assert!(matches!(reason(&stale, 30), Some(Decision::Refuse(_))));
        let looked = seen(28, "1.28", "True");
        assert!(matches!(reason(&looked, 14), Some(Decision::Wait { .. })));
        assert_eq!(reason(&looked, 15), None, "drifted for a reason of its own");
        assert_eq!(reason(&seen(28, "1.28", "False"), 0), None);
    }

    /// A class that had not looked yet took the newer version's images after the rollback.
    #[test]
    fn a_pool_is_held_for_as_long_as_karpenter_may_look_late() {
        let step = HoldPoolStep::new_holding("general".into(), "r1".into(), false, true);
        let seen = seen(28, "1.28", "False");
        let reason = |minutes: u64| step.reason_to_hold(&seen, Duration::from_secs(minutes * 60));
        assert!(matches!(reason(9), Some(Decision::Wait { .. })));
        assert_eq!(reason(10), None);
    }

    #[test]
    fn a_pool_is_let_go_at_once_where_the_control_plane_stays() {
        for selected in ["1.28", "1.29"] {
            assert_eq!(reason(&seen(29, selected, "True"), 0), None);
        }
    }
}
