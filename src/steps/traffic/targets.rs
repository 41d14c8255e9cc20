//! A node group's instances become targets, or cease to be, through its Auto Scaling group: an instance that joins later
//! is registered too, and one that ends is drained first.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::asg::Asg;
use crate::model::aws_status::TargetState;
use crate::model::elb::{RegisteredTarget, TargetHealth, short_name};
use crate::steps::traffic::health::{RemainingTargets, ServingState, count_health, judge_serving};
use crate::steps::traffic::remaining_targets::LeftEmpty;
use crate::steps::{ROLLBACK_WAIT_LIMIT, StepWorld};

/// Calls to AWS are no more often than this.
pub(super) const TARGETS_RECHECK_INTERVAL: Duration = crate::steps::updates::EKS_POLL_INTERVAL;
/// A deregistration delay is an hour at most; nothing else here takes longer than minutes.
pub(super) const TARGETS_TIMEOUT: SignedDuration = SignedDuration::from_mins(75);
/// Waits for `why`; refuses once nothing has moved for [`TARGETS_TIMEOUT`].
pub(super) fn wait_or_refuse(
    why: impl Into<StepRefusal>,
    past: &StepHistory,
    now: Timestamp,
) -> Decision<TargetsAct> {
    let since = past.wait_counts_from();
    let mut refusal = why.into();
    if since.is_some_and(|t| now.duration_since(t) > TARGETS_TIMEOUT) {
        let minutes = TARGETS_TIMEOUT.as_mins();
        refusal.why += &format!(", for more than {minutes} minutes");
        return Decision::Refuse(refusal);
    }
    Decision::Wait {
        why: refusal.why,
        recheck: TARGETS_RECHECK_INTERVAL,
    }
}

/// Waits for `why` in a rollback; refuses once nothing has moved for [`ROLLBACK_WAIT_LIMIT`].
pub(super) fn wait_in_rollback(
    why: String,
    trail: &RollbackHistory,
    now: Timestamp,
) -> Decision<TargetsAct> {
    if trail.is_late(now, ROLLBACK_WAIT_LIMIT) {
        return Decision::Refuse(StepRefusal::new(format!(
            "{why}, for more than {} minutes",
            ROLLBACK_WAIT_LIMIT.as_secs() / 60
        )));
    }
    Decision::Wait {
        why,
        recheck: TARGETS_RECHECK_INTERVAL,
    }
}

/// One look at a node group's Auto Scaling groups and at a target group.
pub struct TargetsObservation {
    /// Whether the node group is there.
    pub(super) group_exists: bool,
    pub(super) asgs: Vec<Asg>,
    pub(super) targets: Vec<TargetHealth>,
    /// Rules that still give the target group weight, of those that must not.
    pub(super) weighted_in: Vec<String>,
    /// Why the target group would answer nobody once this group's instances have left it.
    pub(super) left_empty: Option<LeftEmpty>,
    /// In a rollback: whether the target groups that have the traffic in those rules serve.
    pub(super) other_groups_serve: Option<ServingState>,
}

impl TargetsObservation {
    pub(super) async fn read_targets(
        world: &StepWorld,
        group: &str,
        target_group: &str,
    ) -> Result<Self, StepError> {
        let group = world.read_node_group(group).await?;
        let asgs = match &group {
            Some(group) => world
                .aws
                .describe_asgs(&group.asgs)
                .await?
                .into_values()
                .collect(),
            None => Vec::new(),
        };
        // A target group that is gone fails the look and so ends the step: a person has to say where its traffic went.
        let targets = world.aws.describe_registered_targets(target_group).await?;
        Ok(Self {
            group_exists: group.is_some(),
            asgs,
            targets,
            weighted_in: Vec::new(),
            left_empty: None,
            other_groups_serve: None,
        })
    }

    pub(super) fn in_service_ids(&self) -> BTreeSet<String> {
        self.asgs
            .iter()
            .flat_map(|a| &a.instances)
            .filter(|i| i.lifecycle == "InService")
            .map(|i| i.id.clone())
            .collect()
    }

    /// Returns what of the group's instances in service is registered, and what drains.
    pub(super) fn remaining_targets(&self) -> RemainingTargets {
        RemainingTargets::of(&self.targets, &self.in_service_ids())
    }

    /// What somebody registered one by one: targets whose Auto Scaling group does not fill the target group.
    pub(super) fn registered_one_by_one(&self, target_group: &str) -> Vec<RegisteredTarget> {
        let filled = |id: &String| {
            let mut asgs = self.asgs.iter();
            asgs.any(|a| a.registers_with(target_group) && a.instances.iter().any(|i| i.id == *id))
        };
        let registered = self.remaining_targets().registered.into_iter();
        registered.filter(|t| !filled(&t.instance)).collect()
    }

    /// The group's own targets, and those of others that are judged or will be.
    pub(super) fn split_own_and_others(&self) -> (Vec<TargetHealth>, Vec<TargetHealth>) {
        let ids = self.in_service_ids();
        let serving = self
            .targets
            .iter()
            .filter(|t| t.state != TargetState::Unused && !t.state.is_draining());
        serving.cloned().partition(|t| ids.contains(&t.id))
    }

    pub(super) fn attached_asgs(&self, target_group: &str) -> Vec<String> {
        self.asgs
            .iter()
            .filter(|a| a.registers_with(target_group))
            .map(|a| a.name.clone())
            .collect()
    }

    pub(super) fn unattached_asgs(&self, target_group: &str) -> Vec<String> {
        self.asgs
            .iter()
            .filter(|a| !a.registers_with(target_group))
            .map(|a| a.name.clone())
            .collect()
    }
}

/// An act on a target group: through an Auto Scaling group where one fills it, else instance by instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum TargetsAct {
    Attach {
        asgs: Vec<String>,
    },
    Detach {
        asgs: Vec<String>,
    },
    /// Takes out what was registered one by one.
    Deregister {
        targets: Vec<RegisteredTarget>,
    },
    /// On rollback: registers the same again.
    Register {
        targets: Vec<RegisteredTarget>,
    },
}

pub(super) async fn perform_targets_act(
    world: &StepWorld,
    act: &TargetsAct,
    target_group: &str,
) -> Result<(), StepError> {
    let arns = [target_group.to_owned()];
    match act {
        TargetsAct::Attach { asgs } => {
            for asg in asgs {
                world.aws.attach_served(asg, &arns).await?;
            }
        }
        TargetsAct::Detach { asgs } => {
            for asg in asgs {
                world.aws.detach_served(asg, &arns).await?;
            }
        }
        TargetsAct::Deregister { targets } => {
            world.aws.deregister_targets(target_group, targets).await?;
        }
        TargetsAct::Register { targets } => {
            world.aws.register_targets(target_group, targets).await?;
        }
    }
    Ok(())
}

pub(super) fn describe_targets_act(act: &TargetsAct, target_group: &str) -> String {
    match act {
        TargetsAct::Attach { asgs } => {
            format!("attach {} to {}", short_name(target_group), asgs.join(", "))
        }
        TargetsAct::Detach { asgs } => format!(
            "detach {} from {}",
            short_name(target_group),
            asgs.join(", ")
        ),
        TargetsAct::Deregister { targets } => {
            format!(
                "deregister {} from {}",
                instance_names(targets),
                short_name(target_group)
            )
        }
        TargetsAct::Register { targets } => {
            format!(
                "register {} in {}",
                instance_names(targets),
                short_name(target_group)
            )
        }
    }
}

/// Joins the instance ids of `targets` for a message.
pub fn instance_names(targets: &[RegisteredTarget]) -> String {
    let names: Vec<&str> = targets.iter().map(|t| t.instance.as_str()).collect();
    names.join(", ")
}

pub(super) fn gone_text(group: &str) -> String {
    format!("node group {group} is gone; somebody else deleted it")
}

/// A step that makes green's instances targets, through green's Auto Scaling group.
pub struct AttachStep {
    green: String,
    target_group: String,
}

impl AttachStep {
    /// Makes `green`'s instances targets of `target_group`.
    pub fn new(green: String, target_group: String) -> Self {
        Self {
            green,
            target_group,
        }
    }
}

impl Step<StepWorld> for AttachStep {
    type Observation = TargetsObservation;
    type BeforeImage = Vec<String>;
    type Act = TargetsAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<TargetsObservation, StepError> {
        TargetsObservation::read_targets(world, &self.green, &self.target_group).await
    }

    fn decide_next(
        &self,
        seen: &TargetsObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<TargetsAct> {
        if !seen.group_exists {
            return Decision::Refuse(StepRefusal::new(gone_text(&self.green)));
        }
        if seen.asgs.is_empty() {
            return Decision::Refuse(StepRefusal::new(format!(
                "node group {} has no Auto Scaling group to attach",
                self.green
            )));
        }
        // Attached, not registered: instances that join later become targets too, and one that ends is drained first
        // (ASG-1).
        let without = seen.unattached_asgs(&self.target_group);
        if !without.is_empty() {
            return Decision::Act(TargetsAct::Attach { asgs: without });
        }
        // Auto Scaling registers with a delay. Weights would else shift to a target group that lacks half of green.
        let missing: Vec<String> = seen
            .in_service_ids()
            .into_iter()
            .filter(|id| !seen.targets.iter().any(|t| t.id == *id))
            .collect();
        if !missing.is_empty() {
            let why = format!(
                "{} are not targets of {} yet",
                missing.join(", "),
                short_name(&self.target_group)
            );
            return wait_or_refuse(why, past, now);
        }
        Decision::Done(format!(
            "{} instances of {} are targets of {}",
            seen.in_service_ids().len(),
            self.green,
            short_name(&self.target_group)
        ))
    }

    fn before_image(&self, seen: &TargetsObservation) -> Vec<String> {
        seen.attached_asgs(&self.target_group)
    }

    async fn perform_act(&self, world: &StepWorld, act: &TargetsAct) -> Result<(), StepError> {
        perform_targets_act(world, act, &self.target_group).await
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    fn decide_undo(
        &self,
        before: &Vec<String>,
        seen: &TargetsObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<TargetsAct> {
        if !seen.group_exists {
            return Decision::Done(format!("node group {} is gone already", self.green));
        }
        // What was attached before the run stays attached.
        let ours: Vec<String> = seen
            .attached_asgs(&self.target_group)
            .into_iter()
            .filter(|a| !before.contains(a))
            .collect();
        // Where blue is in the same target group, green leaves it only when blue serves; where it is not, green has had
        // no traffic since the weights went back.
        // A green that serves nothing leaves at once.
        let (own, others) = seen.split_own_and_others();
        let others_health = count_health(&others);
        let serves = judge_serving(&own) != ServingState::No;
        if !ours.is_empty() && !others.is_empty() && others_health.healthy == 0 && serves {
            let why = format!(
                "{} must have other healthy targets before {} leaves it: {}",
                short_name(&self.target_group),
                self.green,
                others_health.health_text()
            );
            return wait_in_rollback(why, trail, now);
        }
        if !ours.is_empty() {
            return Decision::Act(TargetsAct::Detach { asgs: ours });
        }
        // Connections drain before green may be deleted (ELB-7). Where green filled the group before the run, its
        // targets stay.
        if before.is_empty()
            && let Some(why) = seen.remaining_targets().waiting_text()
        {
            return wait_or_refuse(why, &trail.rollback, now);
        }
        Decision::Done(format!(
            "{} has no target in {}",
            self.green,
            short_name(&self.target_group)
        ))
    }

    fn describe_act(&self, act: &TargetsAct) -> String {
        describe_targets_act(act, &self.target_group)
    }
}
