//! Blue goes, once it is proved empty: no pod but DaemonSets', no volume, no share of any rule, no target draining.

mod reading;
mod scale_up;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::engine::{
    Decision, NextStep, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::ApiError;
use crate::model::asg::Asg;
use crate::model::aws_status::NodegroupStatus;
use crate::model::clock::signed_duration;
use crate::model::eks::Nodegroup;
use crate::model::node_source::NodeSource;
use crate::steps::attempts::{CallAttempt, NodegroupRequest};
use crate::steps::empty_proof::prove_group_empty;
use crate::steps::retire_record::{AttachedTargetGroups, RetireAct, RetireBeforeImage};
use crate::steps::traffic::registered_targets::{RegisteredIn, was_just_detached};
use crate::steps::traffic::remaining_targets::{
    LeftEmpty, may_deregister, may_detach, refuse_serving_alone, serves_alone,
};
use crate::steps::updates::{EKS_POLL_INTERVAL, health_issues_text};
use crate::steps::workload_gate::{Shortage, WorkloadGate};
use crate::steps::{ROLLBACK_WAIT_LIMIT, StepWorld};

/// How long something that keeps blue from being empty is waited for before a person is asked.
const BLUE_EMPTY_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const RETIRE_RECHECK_INTERVAL: Duration = EKS_POLL_INTERVAL;
/// DescribeNodegroup may say ACTIVE for some seconds after DeleteNodegroup.
pub const DELETE_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// A step that takes blue out of its target groups and deletes it, or keeps it at zero nodes, once it is proved empty.
pub struct RetireStep {
    id: String,
    blue: String,
    source: NodeSource,
    /// Absent where green is made only afterwards.
    green: Option<String>,
    delete: bool,
    target_groups: Vec<String>,
    rules: Vec<String>,
    gate: WorkloadGate,
}

/// One look at blue, at whatever still needs it, and at what is to take its place.
pub struct RetireObservation {
    group: Option<Nodegroup>,
    asgs: Vec<Asg>,
    /// What keeps blue from being empty, as text: pods, volumes, weights.
    held_by: Vec<String>,
    /// Target groups that blue's Auto Scaling groups are attached to.
    attached: Vec<(String, Vec<String>)>,
    /// What of blue is still registered in target groups, by ARN.
    registered: Vec<RegisteredIn>,
    /// What of blue is registered in target groups or still drains there, as text, for messages.
    targets: Vec<String>,
    /// Instances of blue that are in service.
    in_service: BTreeSet<String>,
    /// Nodes of blue that the API server still lists.
    nodes: Vec<String>,
    /// How many of them are Ready.
    ready: usize,
    /// Whether a pod of green, or of whatever takes its place, is Ready; true where there is no green yet.
    green_serves: bool,
    /// Why green cannot carry what blue did.
    green_unfit_reason: Option<String>,
    short: Shortage,
    /// Target groups and classic load balancers in which nobody but blue serves.
    left_empty: Vec<LeftEmpty>,
}

impl RetireStep {
    /// Returns the step for blue, with its green where the route makes that before.
    pub fn new(
        id: String,
        (blue, source): (String, NodeSource),
        green: Option<String>,
        delete: bool,
        target_groups: Vec<String>,
        rules: Vec<String>,
    ) -> Self {
        Self {
            id,
            blue,
            source,
            green,
            delete,
            target_groups,
            rules,
            gate: WorkloadGate::default(),
        }
    }

    /// Whether blue's instances may end at this moment, deleted or scaled to zero: neither brings back what ran there.
    async fn may_end_blue(&self, world: &StepWorld) -> Result<bool, ApiError> {
        if self.green.is_some() && serves_alone(world, &self.blue).await? {
            return Ok(false);
        }
        let Some(snapshot) = prove_group_empty(world, &self.blue, |_| true).await? else {
            return Ok(false);
        };
        if self.green.is_none() {
            return Ok(true);
        }
        let short = world.workloads.short_workloads(&world.kube, &snapshot);
        Ok(short.await?.is_empty())
    }

    /// What is left to do for a blue at zero but for a deletion, which is proved like any other.
    fn decide_scaled_to_zero(&self, seen: &RetireObservation) -> Option<Decision<RetireAct>> {
        // Done, or empty enough to be deleted, only when instances and nodes are gone: until then pods may still be ending.
        let instances: usize = seen.asgs.iter().map(|a| a.instances.len()).sum();
        if self.ends_by_deletion() || seen.size() > 0 {
            return None;
        }
        if instances > 0 || !seen.nodes.is_empty() {
            return Some(wait_polling(format!(
                "{instances} instances and {} nodes of {} are terminating",
                seen.nodes.len(),
                self.blue
            )));
        }
        let kept = || format!("{} is kept at zero nodes", self.blue_words());
        (!self.delete).then(|| Decision::Done(kept()))
    }

    /// Waits for nodes that are on their way out. EKS ends those of its groups in any case; those of a NodePool stay as long
    /// as nobody runs Karpenter.
    fn wait_for_nodes(
        &self,
        why: String,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<RetireAct> {
        let asked_before = |t| now.duration_since(t) > signed_duration(BLUE_EMPTY_TIMEOUT);
        let late = is_overdue(past, now) && past.watched_from().is_none_or(asked_before);
        if self.source != NodeSource::NodePool || !late {
            return wait_polling(why);
        }
        let minutes = BLUE_EMPTY_TIMEOUT.as_secs() / 60;
        Decision::Refuse(
            StepRefusal::new(format!("{why}, for {minutes} minutes: Karpenter does not end them"))
                .with_fix("See whether a pod of Karpenter's controller is Ready, and what its events on the NodeClaims say"),
        )
    }

    fn blue_words(&self) -> String {
        format!("{} {}", self.source.group_words(), self.blue)
    }

    /// Whether the deletion itself ends the nodes.
    fn ends_by_deletion(&self) -> bool {
        self.delete && self.source.ends_nodes_with_group()
    }
}

impl RetireObservation {
    /// How many instances blue is to have.
    fn size(&self) -> i32 {
        let pool = self.group.as_ref();
        let pool = pool.filter(|group| group.source == NodeSource::NodePool);
        match pool {
            Some(pool) => pool.scaling.desired,
            None => self.asgs.iter().map(|a| a.desired).sum(),
        }
    }

    /// What is registered and not through an Auto Scaling group of blue.
    fn registered_one_by_one(&self) -> Vec<RegisteredIn> {
        let filled = |r: &&RegisteredIn| {
            let mut attached = self.attached.iter();
            attached.any(|(_, groups)| groups.contains(&r.target_group))
        };
        let by_hand = self.registered.iter().filter(|r| !filled(r));
        by_hand.cloned().collect()
    }
}

/// What keeps blue has been waited for long enough.
fn is_overdue(past: &StepHistory, now: Timestamp) -> bool {
    past.started_at
        .and_then(|t| Duration::try_from(now.duration_since(t)).ok())
        .is_some_and(|waited| waited > BLUE_EMPTY_TIMEOUT)
}

/// DeleteNodegroup was written down a moment ago: whether it was sent, and took, may not show yet.
pub fn was_delete_requested(past: &StepHistory, now: Timestamp) -> bool {
    let asked = past
        .last_act
        .as_ref()
        .is_some_and(|a| *a == serde_json::json!("delete"));
    let fresh = |t| now.duration_since(t) < DELETE_VISIBLE_WITHIN;
    asked && past.watched_from().is_some_and(fresh)
}

fn wait_polling(why: String) -> Decision<RetireAct> {
    Decision::Wait {
        why,
        recheck: EKS_POLL_INTERVAL,
    }
}

impl Step<StepWorld> for RetireStep {
    type Observation = RetireObservation;
    type BeforeImage = RetireBeforeImage;
    type Act = RetireAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<RetireObservation, StepError> {
        self.read_blue(world).await
    }

    fn decide_next(
        &self,
        seen: &RetireObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<RetireAct> {
        let Some(group) = &seen.group else {
            if seen.nodes.is_empty() {
                // Even with blue gone the run must not end well while a workload lacks pods.
                let gone = format!("{} is gone", self.blue_words());
                let meanwhile = format!("{gone}, but the run does not end");
                return (seen.short)
                    .hold_back(BLUE_EMPTY_TIMEOUT, &meanwhile)
                    .unwrap_or(Decision::Done(gone));
            }
            return self.wait_for_nodes(
                format!(
                    "{} is gone; the API server still lists {}",
                    self.blue_words(),
                    seen.nodes.join(", ")
                ),
                past,
                now,
            );
        };
        match &group.status {
            // Deleting cannot be stopped, whoever asked for it: what is left to do is to see it through.
            NodegroupStatus::Deleting => {
                return self.wait_for_nodes(
                    format!(
                        "{} is being deleted, {} nodes are left",
                        self.blue_words(),
                        seen.nodes.len()
                    ),
                    past,
                    now,
                );
            }
            NodegroupStatus::DeleteFailed => {
                return Decision::Refuse(
                    StepRefusal::new(format!(
                        "{} could not be deleted: {}",
                        self.blue_words(),
                        health_issues_text(&group.health)
                    ))
                    .with_fix("Fix the cause and delete it by hand"),
                );
            }
            NodegroupStatus::Updating => {
                return wait_polling(format!("node group {} is UPDATING", self.blue));
            }
            NodegroupStatus::Creating
            | NodegroupStatus::Active
            | NodegroupStatus::CreateFailed
            | NodegroupStatus::Degraded
            | NodegroupStatus::Other(_) => {}
        }
        // Before anything is proved: at zero there is nothing left to lose.
        if let Some(decision) = self.decide_scaled_to_zero(seen) {
            return decision;
        }
        // The proofs come from the gravest to the least: green must be there, every workload whole, blue empty, and
        // nobody served by blue alone.
        if let Some(why) = &seen.green_unfit_reason {
            return Decision::Refuse(
                StepRefusal::new(format!(
                    "{why}, so {} is not retired: nothing would be left to run on",
                    self.blue
                ))
                .with_fix("Make green healthy, or roll back: that opens blue again")
                .with_next(NextStep::Rollback),
            );
        }
        // A workload that is short may be so because of green, and blue is what a rollback goes to.
        let stays = format!("{} stays as it is", self.blue);
        if let Some(decision) = seen.short.hold_back(BLUE_EMPTY_TIMEOUT, &stays) {
            return decision;
        }
        // What holds blue may leave by itself, as volumes do some time after their pods. It is waited for before a
        // person is asked.
        if !seen.held_by.is_empty() {
            let why = format!("{} is not empty: {}", self.blue, seen.held_by.join(", "));
            return if is_overdue(past, now) {
                Decision::Refuse(
                    StepRefusal::new(format!("{why}; blue stays as it is")).with_fix("Move it"),
                )
            } else {
                Decision::Wait {
                    why,
                    recheck: RETIRE_RECHECK_INTERVAL,
                }
            };
        }
        if !seen.left_empty.is_empty() {
            let refusal = refuse_serving_alone(&self.blue, self.green.as_deref(), &seen.left_empty);
            return match is_overdue(past, now) {
                true => Decision::Refuse(refusal),
                false => wait_polling(refusal.why),
            };
        }
        // Blue leaves its target groups and its connections drain before it is deleted, one Auto Scaling group in an
        // act.
        if let Some((asg, target_groups)) = seen.attached.first() {
            return Decision::Act(RetireAct::Detach {
                asg: asg.clone(),
                target_groups: target_groups.clone(),
            });
        }
        if let Some(registered) = seen.registered.first()
            && !was_just_detached(past, now)
        {
            return Decision::Act(RetireAct::Deregister {
                target_group: registered.target_group.clone(),
                targets: registered.targets.clone(),
            });
        }
        // Deregistered, but connections still end (ELB-7): a deletion now would cut them.
        if !seen.targets.is_empty() {
            return Decision::Wait {
                why: format!("{} leaves {}", self.blue, seen.targets.join(", ")),
                recheck: RETIRE_RECHECK_INTERVAL,
            };
        }
        // DescribeNodegroup may not show it yet (EKS-NG-17). A second call would count as another act without effect.
        if was_delete_requested(past, now) {
            return Decision::Wait {
                why: format!("EKS was asked to delete {}", self.blue),
                recheck: RETIRE_RECHECK_INTERVAL,
            };
        }
        Decision::Act(
            if self.delete && (self.source.ends_nodes_with_group() || seen.size() == 0) {
                RetireAct::Delete
            } else {
                RetireAct::ScaleToZero {
                    request: NodegroupRequest {
                        attempt: CallAttempt::of_forward(past),
                        modified: group.modified_at,
                    },
                }
            },
        )
    }

    fn before_image(&self, seen: &RetireObservation) -> RetireBeforeImage {
        RetireBeforeImage {
            arn: seen.group.as_ref().map(|g| g.arn.clone()),
            status: seen.group.as_ref().map(|g| g.status.clone()),
            size: seen.group.as_ref().map(|g| g.scaling),
            nodes: seen.nodes.len(),
            attached: seen
                .attached
                .iter()
                .map(|(asg, target_groups)| AttachedTargetGroups {
                    asg: asg.clone(),
                    target_groups: target_groups.clone(),
                })
                .collect(),
            registered: seen.registered_one_by_one(),
        }
    }

    async fn perform_act(&self, world: &StepWorld, act: &RetireAct) -> Result<(), StepError> {
        match act {
            RetireAct::Detach { asg, target_groups } => {
                let asgs = std::slice::from_ref(asg);
                // What was seen is older than this act. If it does not hold any more nothing is done, and the next look
                // says why.
                if self.green.is_some() && !may_detach(world, asgs, target_groups).await? {
                    return Ok(());
                }
                Ok(world.aws.detach_served(asg, target_groups).await?)
            }
            RetireAct::Deregister {
                target_group,
                targets,
            } => {
                let leaving = targets.iter().map(|t| t.instance.clone()).collect();
                if self.green.is_some() && !may_deregister(world, target_group, &leaving).await? {
                    return Ok(());
                }
                Ok(world.aws.deregister_targets(target_group, targets).await?)
            }
            RetireAct::Register {
                target_group,
                targets,
            } => Ok(world.aws.register_targets(target_group, targets).await?),
            RetireAct::Delete => {
                if !self.may_end_blue(world).await? {
                    return Ok(());
                }
                Ok(world.delete_node_group(&self.blue).await?)
            }
            RetireAct::ScaleToZero { request } => {
                if !self.may_end_blue(world).await? {
                    return Ok(());
                }
                world.scale_to_zero(&self.id, &self.blue, *request).await
            }
            // In a rollback no proof is needed: blue only gets more.
            RetireAct::Attach { asg, target_groups } => {
                Ok(world.aws.attach_served(asg, target_groups).await?)
            }
            RetireAct::ScaleUp { size, request } => {
                self.scale_blue_up(world, *size, *request).await
            }
        }
    }

    /// As long as blue is there it can serve again. Once EKS deletes it nothing brings it back, because EKS creates node
    /// groups only at the cluster's version.
    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    fn decide_undo(
        &self,
        before: &RetireBeforeImage,
        seen: &RetireObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<RetireAct> {
        let blue = &self.blue;
        let gone = |how: &str| {
            Decision::Refuse(StepRefusal::new(format!(
                "node group {blue} {how}, and EKS creates node groups only at the cluster's version: it cannot be brought back"
            )))
        };
        let Some(group) = &seen.group else {
            return gone("is deleted");
        };
        // On a long way a later green may have got the name of a blue that is gone.
        if before.arn.as_ref().is_some_and(|was| *was != group.arn) {
            return gone("is deleted (what has its name now is another group)");
        }
        match &group.status {
            NodegroupStatus::Deleting => return gone("is being deleted"),
            NodegroupStatus::DeleteFailed => {
                return gone("was being deleted, and EKS stopped midway");
            }
            _ if was_delete_requested(&trail.forward, now) => {
                return Decision::Wait {
                    why: format!("it is not known yet whether EKS was asked to delete {blue}"),
                    recheck: RETIRE_RECHECK_INTERVAL,
                };
            }
            NodegroupStatus::Creating
            | NodegroupStatus::Active
            | NodegroupStatus::Updating
            | NodegroupStatus::CreateFailed
            | NodegroupStatus::Degraded
            | NodegroupStatus::Other(_) => {}
        }
        let late = trail.is_late(now, ROLLBACK_WAIT_LIMIT);
        // Nodes first: target groups without instances would be attached for nothing, and instances take minutes.
        let size = before
            .size
            .filter(|was| group.scaling.desired < was.desired);
        // A size that EKS is changing is waited for, because a second change would be refused (EKS-NG-21).
        if group.status == NodegroupStatus::Updating && !late {
            return wait_polling(format!("node group {blue} is UPDATING"));
        }
        if let Some(size) = size {
            return Decision::Act(RetireAct::ScaleUp {
                size,
                request: NodegroupRequest {
                    attempt: CallAttempt::of_rollback(&trail.rollback),
                    modified: group.modified_at,
                },
            });
        }
        // The Auto Scaling groups register their instances by themselves; what somebody registered one by one follows.
        for was in &before.attached {
            let now = seen.asgs.iter().find(|a| a.name == was.asg);
            let missing: Vec<String> = was
                .target_groups
                .iter()
                .filter(|t| now.is_some_and(|a| !a.registers_with(t)))
                .cloned()
                .collect();
            if !missing.is_empty() {
                return Decision::Act(RetireAct::Attach {
                    asg: was.asg.clone(),
                    target_groups: missing,
                });
            }
        }
        // Only instances that are in service are registered again: others have ended, or are not ready for requests.
        for was in &before.registered {
            let missing = was.missing_targets(&seen.registered, &seen.in_service);
            if !missing.is_empty() {
                return Decision::Act(RetireAct::Register {
                    target_group: was.target_group.clone(),
                    targets: missing,
                });
            }
        }
        // An autoscaler may have made it smaller meanwhile.
        let size = seen.size();
        let wanted = before.nodes.min(usize::try_from(size).unwrap_or(0));
        if seen.ready < wanted {
            let why = format!("{} of {wanted} nodes of {blue} are Ready", seen.ready);
            // Where green serves nothing, the nodes that are there are better than none.
            return if seen.ready > 0 && !seen.green_serves {
                Decision::Done(format!("{why}; {blue} fills its target groups"))
            } else if late {
                Decision::Refuse(StepRefusal::new(format!(
                    "{why} after {} minutes. Traffic has not been moved",
                    ROLLBACK_WAIT_LIMIT.as_secs() / 60
                )))
            } else {
                wait_polling(why)
            };
        }
        Decision::Done(format!(
            "{} is there with {} nodes, and fills its target groups",
            self.blue_words(),
            seen.nodes.len()
        ))
    }

    fn describe_act(&self, act: &RetireAct) -> String {
        act.describe_for((&self.blue, self.source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_a_deleted_node_pool_that_nobody_ends_are_not_waited_for_endlessly() {
        let started: Timestamp = "2026-11-20T08:00:00Z".parse().unwrap();
        let past = StepHistory {
            started_at: Some(started),
            last_act: Some(serde_json::json!("delete")),
            last_act_at: Some(started),
            ..StepHistory::default()
        };
        let seen = RetireObservation {
            group: None,
            asgs: Vec::new(),
            held_by: Vec::new(),
            attached: Vec::new(),
            registered: Vec::new(),
            targets: Vec::new(),
            in_service: BTreeSet::new(),
            nodes: vec!["old-1".to_owned()],
            ready: 1,
            green_serves: true,
            green_unfit_reason: None,
            short: Shortage::default(),
            left_empty: Vec::new(),
        };
        let decide = |source, minutes| {
            let blue = ("general".to_owned(), source);
            let retire = "retire-general".to_owned();
            let step = RetireStep::new(retire, blue, None, true, Vec::new(), Vec::new());
            let now = started + jiff::SignedDuration::from_mins(minutes);
            step.decide_next(&seen, &past, now)
        };
        let waits = |decision| matches!(decision, Decision::Wait { .. });
        assert!(waits(decide(NodeSource::NodePool, 10)));
        assert!(waits(decide(NodeSource::ManagedGroup, 200)));
        let Decision::Refuse(refusal) = decide(NodeSource::NodePool, 16) else {
            panic!("it waits forever");
        };
        assert!(
            refusal.why.contains("Karpenter does not end them"),
            "{}",
            refusal.why
        );
    }
}
