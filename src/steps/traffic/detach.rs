//! Takes blue out of its target groups.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::aws_status::TargetState;
use crate::model::elb::{ListenerRule, RegisteredTarget, TargetHealth, short_name, short_rule};
use crate::steps::traffic::health::{ServingState, count_health, judge_serving};
use crate::steps::traffic::registered_targets::was_just_detached;
use crate::steps::traffic::remaining_targets::{
    describe_left_empty, instance_ids, may_deregister, may_detach,
};
use crate::steps::{ROLLBACK_WAIT_LIMIT, StepWorld};

use super::targets::*;

/// Takes blue's instances out of a target group they share with green, once green's are healthy there.
pub struct DetachStep {
    blue: String,
    target_group: String,
    /// Rules that must give the target group no weight. Whatever else sends it traffic needs others in it that are healthy.
    idle_in: Vec<String>,
}

impl DetachStep {
    /// Takes `blue`'s instances out of `target_group`.
    pub fn new(blue: String, target_group: String, idle_in: Vec<String>) -> Self {
        Self {
            blue,
            target_group,
            idle_in,
        }
    }

    async fn read_rules(&self, world: &StepWorld) -> Result<Vec<ListenerRule>, StepError> {
        let rules = world
            .aws
            .describe_rules_by_arn(&self.idle_in, BTreeMap::new());
        Ok(rules.await?)
    }
}

/// What blue had to do with the target group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DetachBeforeImage {
    /// Auto Scaling groups of blue that fill it.
    asgs: Vec<String>,
    /// Instances of blue that somebody registered one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    registered: Vec<RegisteredTarget>,
}

/// The target groups that have traffic in a rule.
fn weighted_groups(rule: &ListenerRule) -> impl Iterator<Item = &str> {
    let weighed = rule.forward.iter().filter(|t| t.weight > 0);
    weighed.map(|t| t.arn.as_str())
}

impl Step<StepWorld> for DetachStep {
    type Observation = TargetsObservation;
    type BeforeImage = DetachBeforeImage;
    type Act = TargetsAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<TargetsObservation, StepError> {
        let mut seen =
            TargetsObservation::read_targets(world, &self.blue, &self.target_group).await?;
        // All instances count as leaving, not only those in service: one that is starting would be taken for somebody
        // else.
        let leaving = instance_ids(&seen.asgs);
        seen.left_empty =
            describe_left_empty(&world.aws, &self.target_group, &seen.targets, &leaving).await?;
        if !self.idle_in.is_empty() {
            let rules = self.read_rules(world).await?;
            let weighs = |r: &&ListenerRule| weighted_groups(r).any(|arn| arn == self.target_group);
            seen.weighted_in = rules
                .iter()
                .filter(weighs)
                .map(|r| short_rule(&r.arn))
                .collect();
        }
        Ok(seen)
    }

    async fn observe_for_undo(&self, world: &StepWorld) -> Result<TargetsObservation, StepError> {
        let mut seen = self.observe_state(world).await?;
        if self.idle_in.is_empty() {
            return Ok(seen);
        }
        let rules = self.read_rules(world).await?;
        // Whether blue's absence here matters depends on whether the target groups that have the traffic serve.
        let elsewhere: BTreeSet<&str> = rules
            .iter()
            .flat_map(weighted_groups)
            .filter(|arn| *arn != self.target_group)
            .collect();
        let mut targets = Vec::new();
        for arn in elsewhere {
            targets.extend(world.aws.describe_target_health(arn).await?);
        }
        seen.other_groups_serve = Some(judge_serving(&targets));
        Ok(seen)
    }

    fn decide_next(
        &self,
        seen: &TargetsObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<TargetsAct> {
        if !seen.group_exists {
            return Decision::Refuse(StepRefusal::new(gone_text(&self.blue)));
        }
        // The Auto Scaling group is detached first, and deregisters its instances by itself. What is left then was
        // registered one by one.
        let with = seen.attached_asgs(&self.target_group);
        let remaining = seen.remaining_targets();
        if with.is_empty() && remaining.registered.is_empty() {
            return match remaining.waiting_text() {
                Some(why) => wait_or_refuse(why, past, now),
                None => Decision::Done(format!(
                    "no instance of {} is a target of {}",
                    self.blue,
                    short_name(&self.target_group)
                )),
            };
        }
        // Deregistering them by hand meanwhile would write down instances of the Auto Scaling group as somebody's own.
        if with.is_empty() && was_just_detached(past, now) {
            let names = remaining.registered_text.join(", ");
            let why = format!("the Auto Scaling group deregisters its instances: {names}");
            return wait_or_refuse(why, past, now);
        }
        // Instances are about to leave: nobody may be lost by that.
        if !seen.weighted_in.is_empty() {
            let why = format!(
                "{} still has traffic in {}",
                short_name(&self.target_group),
                seen.weighted_in.join(", ")
            );
            return wait_or_refuse(why, past, now);
        }
        // A target group without other healthy targets would answer with errors from this act on.
        if let Some(left_empty) = &seen.left_empty {
            let ids = seen.in_service_ids();
            let others = seen.targets.iter().filter(|t| !ids.contains(&t.id));
            let others: Vec<TargetHealth> = others.cloned().collect();
            let why = format!(
                "{} must have other healthy targets first ({}): {}",
                short_name(&self.target_group),
                left_empty.why,
                count_health(&others).health_text()
            );
            let refusal = StepRefusal {
                fix: left_empty.fix.clone(),
                ..StepRefusal::new(why)
            };
            return wait_or_refuse(refusal, past, now);
        }
        Decision::Act(if with.is_empty() {
            TargetsAct::Deregister {
                targets: remaining.registered,
            }
        } else {
            TargetsAct::Detach { asgs: with }
        })
    }

    fn before_image(&self, seen: &TargetsObservation) -> DetachBeforeImage {
        DetachBeforeImage {
            asgs: seen.attached_asgs(&self.target_group),
            registered: seen.registered_one_by_one(&self.target_group),
        }
    }

    async fn perform_act(&self, world: &StepWorld, act: &TargetsAct) -> Result<(), StepError> {
        // What was seen is a moment old, and somebody may have fallen ill since: the next look says so.
        let may = match act {
            TargetsAct::Detach { asgs } => {
                let groups = std::slice::from_ref(&self.target_group);
                may_detach(world, asgs, groups).await?
            }
            TargetsAct::Deregister { targets } => {
                let leaving = targets.iter().map(|t| t.instance.clone()).collect();
                may_deregister(world, &self.target_group, &leaving).await?
            }
            TargetsAct::Attach { .. } | TargetsAct::Register { .. } => true,
        };
        match may {
            true => perform_targets_act(world, act, &self.target_group).await,
            false => Ok(()),
        }
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    fn decide_undo(
        &self,
        before: &DetachBeforeImage,
        seen: &TargetsObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<TargetsAct> {
        if !seen.group_exists {
            return Decision::Refuse(StepRefusal::new(gone_text(&self.blue)));
        }
        // Attached first: it registers its instances by itself, so that only those of others are registered one by one.
        let missing: Vec<String> = seen
            .unattached_asgs(&self.target_group)
            .into_iter()
            .filter(|a| before.asgs.contains(a))
            .collect();
        if !missing.is_empty() {
            return Decision::Act(TargetsAct::Attach { asgs: missing });
        }
        let (here, ids) = (seen.remaining_targets().registered, seen.in_service_ids());
        // An instance that has ended since cannot be registered any more (ELB-13).
        let absent = |t: &&RegisteredTarget| ids.contains(&t.instance) && !here.contains(t);
        let absent: Vec<RegisteredTarget> =
            before.registered.iter().filter(absent).cloned().collect();
        if !absent.is_empty() {
            return Decision::Act(TargetsAct::Register { targets: absent });
        }
        // Those that were targets: all where the Auto Scaling group fills the target group, else those of before.
        let expected: BTreeSet<String> = match before.asgs.is_empty() {
            true => before
                .registered
                .iter()
                .map(|t| t.instance.clone())
                .collect(),
            false => ids.clone(),
        };
        let expected = expected.intersection(&ids).count();
        // Behind a Local service blue's nodes are healthy only once pods are back: it is enough that they are judged,
        // and that somebody in the target group serves.
        let (own, others) = seen.split_own_and_others();
        let judged = own
            .iter()
            .filter(|t| t.state != TargetState::Initial)
            .count();
        let unused = seen.targets.iter().any(|t| t.state == TargetState::Unused);
        let served = count_health(&own).healthy + count_health(&others).healthy > 0;
        if expected > 0 && !unused && (judged < expected || !served) {
            let why = format!(
                "instances of {} must be targets of {} again: {}",
                self.blue,
                short_name(&self.target_group),
                count_health(&own).health_text()
            );
            // Where nothing serves, here and where the traffic is, there is nothing that the rest of the rollback could
            // take away: it goes on, and its pods are what makes these targets healthy.
            let all: Vec<TargetHealth> = own.iter().chain(&others).cloned().collect();
            let nothing_serves = match seen.other_groups_serve {
                Some(elsewhere) => elsewhere == ServingState::No && !served,
                None => judge_serving(&all) == ServingState::No,
            };
            return if nothing_serves {
                let overdue = trail.is_late(now, ROLLBACK_WAIT_LIMIT);
                Decision::Yield {
                    refusal: why.into(),
                    recheck: TARGETS_RECHECK_INTERVAL,
                    overdue,
                }
            } else {
                wait_in_rollback(why, trail, now)
            };
        }
        Decision::Done(format!(
            "{}'s instances are targets of {} again",
            self.blue,
            short_name(&self.target_group)
        ))
    }

    fn describe_act(&self, act: &TargetsAct) -> String {
        describe_targets_act(act, &self.target_group)
    }
}
