//! The warm pool of a self-managed Auto Scaling group: taken from blue before it is closed, given to green once blue is
//! empty.
//!
//! Neither has one in between, because instances that warm may register as nodes and stop again, and pods that look for a
//! place meanwhile would come to them (ASG-19). A rollback gives blue its pool back when its pods are back, and green's goes
//! with green.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{
    Decision, NextStep, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::asg::AsgTag;
use crate::model::asg::WarmPoolReading;
use crate::model::clock::signed_duration;
use crate::model::kube::{Node, Pod};
use crate::model::marks;
use crate::model::warm_pool::WarmPool;
use crate::model::{ApiError, ErrorClass, absent_is_none};
use crate::steps::StepWorld;
use crate::steps::evictable::keeps_node_occupied;
use crate::steps::updates::EKS_POLL_INTERVAL;

/// How long a pool may take to end its instances before a person is asked: a lifecycle hook alone waits an hour by default.
const POOL_EMPTY_TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);
/// How long pods on a pool's nodes are waited for: a node that stops says so after most of a minute.
const POOL_PODS_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// One look at a group's warm pool.
#[derive(Debug, Default)]
pub struct WarmPoolObservation {
    pub(super) reading: Option<WarmPoolReading>,
    /// Pods on Ready nodes of the pool's instances, as `namespace/name on node`.
    pub(super) pods: Vec<String>,
}

/// An act on a group's warm pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum WarmPoolAct {
    Put {
        pool: WarmPool,
    },
    /// Sets it to have no instance; those it has end. `mark`: blue is marked with the pool that it had.
    Empty {
        pool: WarmPool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<WarmPool>,
    },
    Delete,
    /// Marks blue with the pool that an earlier run removed, so that this run answers for it: a step that does nothing has
    /// nothing to undo.
    Mark {
        pool: WarmPool,
    },
}

/// The pool of before the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WarmPoolBeforeImage {
    /// Absent when there was none.
    pool: Option<WarmPool>,
    instances: usize,
}

impl WarmPoolObservation {
    /// Reads the warm pool of `group`, and which pods run on its nodes.
    ///
    /// # Errors
    /// Those of DescribeWarmPool and of the watches.
    pub async fn read(world: &StepWorld, group: &str) -> Result<Self, ApiError> {
        let described = absent_is_none(world.aws.describe_warm_pool(group).await)?;
        let Some(reading) = described.flatten() else {
            return Ok(Self::default());
        };
        let snapshot = world.read_snapshot().await?;
        let nodes = snapshot.nodes.values().map(AsRef::as_ref);
        let on_nodes: Vec<_> = { snapshot.nodes.keys() }
            .map(|n| snapshot.pods.on_node(n))
            .collect();
        let pods = on_nodes.iter().flat_map(|p| p.iter()).map(AsRef::as_ref);
        let pods = pods_on_pool(&reading, nodes, pods);
        Ok(Self {
            reading: Some(reading),
            pods,
        })
    }

    fn before_image(&self) -> WarmPoolBeforeImage {
        let reading = self.reading.as_ref();
        WarmPoolBeforeImage {
            pool: reading.filter(|r| !r.deleting).map(|r| r.pool.clone()),
            instances: reading.map_or(0, |r| r.instances.len()),
        }
    }

    /// What removes the pool of `group` next; none where it has none. `waited`: since when it is being removed.
    pub fn next_removal(
        &self,
        group: &str,
        (waited, now): (Option<Timestamp>, Timestamp),
    ) -> Option<Decision<WarmPoolAct>> {
        let reading = self.reading.as_ref()?;
        let late = |limit: Duration| {
            waited.is_some_and(|since| now.duration_since(since) > signed_duration(limit))
        };
        let number = reading.instances.len();
        // Marked for deletion, by whomever: what is left to do is to see it through.
        if reading.deleting || (reading.pool.keeps_none() && number > 0) {
            let why = format!("the warm pool of {group} is emptied, {number} instances are left");
            return Some(match late(POOL_EMPTY_TIMEOUT) {
                false => wait_polling(why),
                true => Decision::Refuse(StepRefusal::new(format!(
                    "{why} after {} minutes",
                    POOL_EMPTY_TIMEOUT.as_secs() / 60
                )).with_fix("See whether a lifecycle hook holds them, or the process Terminate is suspended")),
            });
        }
        if !self.pods.is_empty() {
            let why = format!(
                "pods run on instances of the warm pool of {group}, which ends them: {}",
                self.pods.join(", ")
            );
            return Some(match late(POOL_PODS_TIMEOUT) {
                false => wait_polling(why),
                true => Decision::Refuse(StepRefusal::new(why).with_fix(
                    "Cordon these nodes and move the pods; have the user data start the kubelet only outside the warm pool",
                )),
            });
        }
        Some(Decision::Act(match reading.pool.keeps_none() {
            true => WarmPoolAct::Delete,
            false => WarmPoolAct::Empty {
                pool: reading.pool.emptied(),
                mark: None,
            },
        }))
    }
}

impl WarmPoolAct {
    /// Does the act on the pool of `group`. Nothing is done where a pod has come to one of its nodes since it was decided:
    /// the next look says so.
    ///
    /// # Errors
    /// Those of PutWarmPool and DeleteWarmPool, and of the lists that prove that no pod is lost.
    pub async fn perform(&self, world: &StepWorld, group: &str) -> Result<(), StepError> {
        match self {
            Self::Put { pool } => world.aws.put_warm_pool(group, pool).await?,
            Self::Empty { pool, mark } => {
                let described = absent_is_none(world.aws.describe_warm_pool(group).await)?;
                let Some(reading) = described.flatten() else {
                    return Ok(());
                };
                let (nodes, pods) =
                    tokio::try_join!(world.kube.list_nodes(), world.kube.list_pods())?;
                if pods_on_pool(&reading, nodes.iter(), pods.iter()).is_empty() {
                    // First: of a pool that is gone nothing else would tell.
                    if let Some(was) = mark {
                        world.aws.tag_asg(group, &[pool_mark(was)]).await?;
                    }
                    world.aws.put_warm_pool(group, pool).await?;
                }
            }
            Self::Delete => match world.aws.delete_empty_warm_pool(group).await {
                Err(e) if e.class != ErrorClass::Absent => return Err(e.into()),
                Ok(()) | Err(_) => {}
            },
            Self::Mark { pool } => world.aws.tag_asg(group, &[pool_mark(pool)]).await?,
        }
        Ok(())
    }

    /// Describes the act for people.
    pub fn describe_for(&self, group: &str) -> String {
        match self {
            Self::Put { pool } => format!("PutWarmPool of {group}: {}", pool.describe()),
            Self::Empty { .. } => format!("PutWarmPool of {group}: no instance"),
            Self::Delete => format!("DeleteWarmPool of {group}, which is empty"),
            Self::Mark { pool } => format!(
                "tag of {group}: the warm pool that an earlier run removed, {}",
                pool.describe()
            ),
        }
    }
}

/// Pods that would be lost with the pool's instances: those on its nodes that are Ready. What was on a node that stopped has
/// ended already.
fn pods_on_pool<'a>(
    reading: &WarmPoolReading,
    nodes: impl Iterator<Item = &'a Node>,
    pods: impl Iterator<Item = &'a Pod>,
) -> Vec<String> {
    let nodes: Vec<&Node> = nodes
        .filter(|n| n.is_ready() && reading.has_node(n))
        .collect();
    let on = |pod: &Pod| {
        let of = pod.node.as_deref();
        nodes.iter().copied().find(|n| Some(n.name.as_str()) == of)
    };
    let occupying = pods.filter_map(|pod| {
        let node = on(pod)?;
        keeps_node_occupied(pod, node).then(|| format!("{} on {}", pod.key, node.name))
    });
    occupying.collect()
}

fn wait_polling(why: String) -> Decision<WarmPoolAct> {
    Decision::Wait {
        why,
        recheck: EKS_POLL_INTERVAL,
    }
}

/// A step that takes blue's warm pool before blue is closed. Its undo gives it back.
pub struct RemoveWarmPoolStep {
    blue: String,
    pool: WarmPool,
    removed_before: bool,
}

impl RemoveWarmPoolStep {
    /// Removes the warm pool of `blue`, which was `pool` when the route was made. `removed_before`: an earlier run has begun to,
    /// as blue's mark says.
    pub fn new(blue: String, pool: WarmPool, removed_before: bool) -> Self {
        Self {
            blue,
            pool,
            removed_before,
        }
    }

    /// The act with the mark that tells a later route what blue had.
    fn with_mark(&self, act: WarmPoolAct) -> WarmPoolAct {
        match act {
            WarmPoolAct::Empty { pool, .. } => WarmPoolAct::Empty {
                pool,
                mark: Some(self.pool.clone()),
            },
            act @ (WarmPoolAct::Put { .. } | WarmPoolAct::Delete | WarmPoolAct::Mark { .. }) => act,
        }
    }
}

/// The tag that tells which warm pool a group had.
fn pool_mark(pool: &WarmPool) -> AsgTag {
    AsgTag {
        key: marks::WARM_POOL_TAG.to_owned(),
        value: pool.to_tag_value(),
        propagate: false,
    }
}

impl Step<StepWorld> for RemoveWarmPoolStep {
    type Observation = WarmPoolObservation;
    type BeforeImage = WarmPoolBeforeImage;
    type Act = WarmPoolAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<WarmPoolObservation, StepError> {
        Ok(WarmPoolObservation::read(world, &self.blue).await?)
    }

    fn decide_next(
        &self,
        seen: &WarmPoolObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<WarmPoolAct> {
        let blue = &self.blue;
        // Green gets what the route says: a pool that somebody has changed since is not taken away for another one.
        let changed = |r: &&WarmPoolReading| r.pool != self.pool && r.pool != self.pool.emptied();
        if let Some(reading) = seen.reading.as_ref().filter(changed) {
            return Decision::Refuse(
                StepRefusal::new(format!(
                    "the warm pool of {blue} was changed since the route was made: it is {}, and was {}",
                    reading.pool.describe(),
                    self.pool.describe()
                ))
                .with_next(NextStep::Replan),
            );
        }
        if self.removed_before && past.acts == 0 {
            return Decision::Act(WarmPoolAct::Mark {
                pool: self.pool.clone(),
            });
        }
        let removal = seen.next_removal(blue, (past.started_at, now));
        let removal = removal.map(|decision| decision.map_act(|act| self.with_mark(act)));
        removal.unwrap_or_else(|| Decision::Done(format!("{blue} has no warm pool")))
    }

    fn before_image(&self, seen: &WarmPoolObservation) -> WarmPoolBeforeImage {
        let image = seen.before_image();
        // Blue had it before both runs, and the earlier one can no longer give it back.
        match self.removed_before {
            true => WarmPoolBeforeImage {
                pool: Some(self.pool.clone()),
                ..image
            },
            false => image,
        }
    }

    async fn perform_act(&self, world: &StepWorld, act: &WarmPoolAct) -> Result<(), StepError> {
        act.perform(world, &self.blue).await?;
        // The pool is there again, and tells itself.
        if matches!(act, WarmPoolAct::Put { .. }) {
            let mark = [marks::WARM_POOL_TAG.to_owned()];
            world.aws.untag_asg(&self.blue, &mark).await?;
        }
        Ok(())
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    fn decide_undo(
        &self,
        before: &WarmPoolBeforeImage,
        seen: &WarmPoolObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<WarmPoolAct> {
        let blue = &self.blue;
        let Some(pool) = &before.pool else {
            return Decision::Done(format!("{blue} had no warm pool"));
        };
        match &seen.reading {
            // Auto Scaling takes no pool beside one that it deletes.
            Some(reading) if reading.deleting => seen
                .next_removal(blue, (trail.rollback.started_at, now))
                .unwrap_or_else(|| {
                    wait_polling(format!("the warm pool of {blue} is being deleted"))
                }),
            // Its instances are started again by Auto Scaling, and blue does not need them to serve.
            Some(reading) if reading.pool == *pool => {
                Decision::Done(format!("{blue} has its warm pool: {}", pool.describe()))
            }
            Some(_) | None => Decision::Act(WarmPoolAct::Put { pool: pool.clone() }),
        }
    }

    fn describe_act(&self, act: &WarmPoolAct) -> String {
        act.describe_for(&self.blue)
    }
}

/// A step that gives green the warm pool that blue had, once blue is empty.
pub struct AddWarmPoolStep {
    green: String,
    pool: WarmPool,
}

impl AddWarmPoolStep {
    /// Gives `green` the warm pool `pool`.
    pub fn new(green: String, pool: WarmPool) -> Self {
        Self { green, pool }
    }
}

impl Step<StepWorld> for AddWarmPoolStep {
    type Observation = WarmPoolObservation;
    type BeforeImage = WarmPoolBeforeImage;
    type Act = WarmPoolAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<WarmPoolObservation, StepError> {
        Ok(WarmPoolObservation::read(world, &self.green).await?)
    }

    fn decide_next(
        &self,
        seen: &WarmPoolObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<WarmPoolAct> {
        let green = &self.green;
        match &seen.reading {
            Some(reading) if reading.deleting => seen
                .next_removal(green, (past.started_at, now))
                .unwrap_or_else(|| wait_polling(format!("the warm pool of {green} is deleted"))),
            // Its instances start by themselves, and nothing of the run needs them.
            Some(reading) if reading.pool == self.pool => Decision::Done(format!(
                "{green} has a warm pool like blue's: {}",
                self.pool.describe()
            )),
            Some(_) | None => Decision::Act(WarmPoolAct::Put {
                pool: self.pool.clone(),
            }),
        }
    }

    fn before_image(&self, seen: &WarmPoolObservation) -> WarmPoolBeforeImage {
        seen.before_image()
    }

    async fn perform_act(&self, world: &StepWorld, act: &WarmPoolAct) -> Result<(), StepError> {
        act.perform(world, &self.green).await
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    /// Lets the pool end its instances. It is not waited for, because traffic and pods are to leave green first; it is deleted
    /// with green.
    fn decide_undo(
        &self,
        before: &WarmPoolBeforeImage,
        seen: &WarmPoolObservation,
        _trail: &RollbackHistory,
        _now: Timestamp,
    ) -> Decision<WarmPoolAct> {
        let green = &self.green;
        let Some(reading) = &seen.reading else {
            return Decision::Done(format!("{green} has no warm pool"));
        };
        if before.pool.is_some() {
            return Decision::Done(format!("{green} had a warm pool before, and keeps it"));
        }
        if reading.deleting || reading.pool.keeps_none() {
            return Decision::Done(format!(
                "the warm pool of {green} ends its instances, and goes with the group"
            ));
        }
        if !seen.pods.is_empty() {
            return Decision::Done(format!(
                "the warm pool of {green} is removed when {green} is: {} still runs there",
                seen.pods.join(", ")
            ));
        }
        Decision::Act(WarmPoolAct::Empty {
            pool: reading.pool.emptied(),
            mark: None,
        })
    }

    fn describe_act(&self, act: &WarmPoolAct) -> String {
        act.describe_for(&self.green)
    }
}

#[cfg(test)]
mod tests;
