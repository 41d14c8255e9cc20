//! Blue takes no new pod and no new node.
//!
//! The group first, so that nodes that join it are tainted; then its nodes, in the order of `closing.rs`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::asg::Asg;
use crate::model::aws_status::NodegroupStatus;
use crate::model::eks::{Nodegroup, NodegroupChange, NodegroupTaint};
use crate::model::kube::Node;
use crate::model::node_source::NodeSource;
use crate::model::{ApiError, ErrorClass, marks};
use crate::steps::attempts::{CallAttempt, NodegroupRequest, unchanged_since};
use crate::steps::closing::{NodeClosing, next_closing};
use crate::steps::cordon_act::CordonBlueAct;
use crate::steps::suspension::{find_suspended, resume_process, suspend_process};
use crate::steps::{ROLLBACK_WAIT_LIMIT, StepWorld, nodes};

/// DescribeNodegroup may say ACTIVE, and the old taints, for some seconds after UpdateNodegroupConfig.
const CONFIG_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_secs(15);
/// A node group's configuration takes some seconds to change.
const CONFIG_RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// A step that closes blue to new pods and new nodes: taint, largest size, no rebalancing, then cordons.
pub struct CordonBlueStep {
    id: String,
    run: String,
    blue: String,
    source: NodeSource,
    taint: NodegroupTaint,
}

/// One look at blue: the node group, its Auto Scaling groups and its nodes.
pub struct CordonBlueObservation {
    group: Option<Nodegroup>,
    asgs: Vec<Asg>,
    nodes: Vec<std::sync::Arc<Node>>,
}

/// What of blue was closed before the run, in sizes, taints, processes and nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CordonBlueBeforeImage {
    /// The group's largest size; absent when there is no group.
    max: Option<i32>,
    taints: Vec<String>,
    suspended: Vec<String>,
    cordoned_nodes: Vec<String>,
}

impl CordonBlueStep {
    /// Closes `blue` in run `run`; the taint's value is the run's id.
    pub fn new(
        id: String,
        run: String,
        (blue, source): (String, NodeSource),
        taint: NodegroupTaint,
    ) -> Self {
        let taint = NodegroupTaint {
            value: Some(run.clone()),
            ..taint
        };
        Self {
            id,
            run,
            blue,
            source,
            taint,
        }
    }

    fn is_ours(&self, taint: &NodegroupTaint) -> bool {
        taint.key == self.taint.key && taint.value.as_deref() == Some(&self.run)
    }

    /// Blue with what it is, as text.
    fn blue_words(&self) -> String {
        format!("{} {}", self.source.group_words(), self.blue)
    }

    fn gone_text(&self) -> String {
        format!("{} is gone; somebody else deleted it", self.blue_words())
    }

    /// EKS was asked for that very change a moment ago, and it may not show yet.
    fn wait_for_requested_change(
        &self,
        change: &NodegroupChange,
        past: &StepHistory,
        now: Timestamp,
    ) -> Option<Decision<CordonBlueAct>> {
        let last = CordonBlueAct::deserialize(past.last_act.as_ref()?).ok()?;
        let fresh = now.duration_since(past.watched_from()?) < CONFIG_VISIBLE_WITHIN;
        let same =
            matches!(last, CordonBlueAct::Configure { change: asked, .. } if asked == *change);
        (fresh && same).then(|| Decision::Wait {
            why: format!("{} was asked to change", self.blue_words()),
            recheck: Duration::from_secs(2),
        })
    }

    fn is_node_tainted(&self, node: &Node) -> bool {
        node.taints
            .iter()
            .any(|t| t.key == self.taint.key && t.value.as_deref() == Some(&self.run))
    }
}

/// A refusal of a size may be of what EKS still shows and an autoscaler has changed: it is looked at again for a while,
/// with the sizes as they are then, before it is final.
fn retry_size_refusal(error: ApiError, of_size: bool) -> ApiError {
    match error.class {
        ErrorClass::Invalid if of_size => ApiError {
            class: ErrorClass::Transient,
            ..error
        },
        ErrorClass::Absent
        | ErrorClass::Conflict
        | ErrorClass::Throttled
        | ErrorClass::Blocked
        | ErrorClass::Denied
        | ErrorClass::Expired
        | ErrorClass::Transient
        | ErrorClass::Invalid => error,
    }
}

impl Step<StepWorld> for CordonBlueStep {
    type Observation = CordonBlueObservation;
    type BeforeImage = CordonBlueBeforeImage;
    type Act = CordonBlueAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<CordonBlueObservation, StepError> {
        let group = world.read_node_group(&self.blue).await?;
        let asgs = match &group {
            Some(group) => world
                .aws
                .describe_asgs(&group.asgs)
                .await?
                .into_values()
                .collect(),
            None => Vec::new(),
        };
        let snapshot = world.read_snapshot().await?;
        let nodes = snapshot
            .nodes
            .values()
            .filter(|n| n.nodegroup_name() == Some(&self.blue))
            .cloned()
            .collect();
        Ok(CordonBlueObservation { group, asgs, nodes })
    }

    fn decide_next(
        &self,
        seen: &CordonBlueObservation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<CordonBlueAct> {
        let Some(group) = &seen.group else {
            return Decision::Refuse(StepRefusal::new(self.gone_text()));
        };
        // First of all: as soon as nodes are emptied, rebalancing would end others that still carry pods (ASG-3).
        for asg in &seen.asgs {
            let is_suspended = |process: &str| asg.suspended.iter().any(|p| p == process);
            let name = &asg.name;
            if !is_suspended("AZRebalance") {
                return Decision::Act(CordonBlueAct::SuspendRebalance { asg: name.clone() });
            }
            // A self-managed group has no taints of its own: an instance in place of a failed one would join open. What EKS
            // launches for its groups carries the taint.
            if self.source == NodeSource::AutoScalingGroup && !is_suspended("Launch") {
                return Decision::Act(CordonBlueAct::SuspendLaunch { asg: name.clone() });
            }
        }
        match &group.status {
            NodegroupStatus::Active | NodegroupStatus::Degraded => {}
            NodegroupStatus::Updating | NodegroupStatus::Creating => {
                return Decision::Wait {
                    why: format!("{} is {}", self.blue_words(), group.status),
                    recheck: CONFIG_RECHECK_INTERVAL,
                };
            }
            status @ (NodegroupStatus::Deleting
            | NodegroupStatus::CreateFailed
            | NodegroupStatus::DeleteFailed
            | NodegroupStatus::Other(_)) => {
                return Decision::Refuse(StepRefusal::new(format!(
                    "{} is {status}; somebody else changes it",
                    self.blue_words()
                )));
            }
        }
        // The Auto Scaling group's size is the live one, and an autoscaler moves it; EKS refuses a largest size below the
        // size that it shows, which lags behind. What both can bear is the larger of the two.
        let live = seen.asgs.iter().map(|a| a.desired).sum::<i32>();
        let desired = live.max(group.scaling.desired).max(1);
        // The group is tainted before its nodes, so that a node that joins in between has the taint too.
        // A self-managed group has no taints of its own: nodes that join it are tainted one by one.
        let tainted = !group.source.is_managed() || group.taints.iter().any(|t| self.is_ours(t));
        // The largest size is never less than `maxUnavailable` of the group's updates: EKS takes no group with less.
        let update = group.update_config.as_ref();
        let unavailable = update.and_then(|u| u.max_unavailable).unwrap_or(1);
        let desired = desired.max(unavailable);
        let pinned = match group.source {
            // Of a NodePool nobody knows a size to pin it at: with limits of 0 it makes no node.
            NodeSource::NodePool => group.scaling.max == 0,
            NodeSource::ManagedGroup | NodeSource::AutoScalingGroup => {
                seen.asgs.is_empty() || group.scaling.max <= desired
            }
        };
        if !tainted || !pinned {
            let change = NodegroupChange {
                max: (!pinned).then_some(desired),
                add_taints: if tainted {
                    vec![]
                } else {
                    vec![self.taint.clone()]
                },
                ..NodegroupChange::default()
            };
            if let Some(wait) = self.wait_for_requested_change(&change, past, now) {
                return wait;
            }
            return Decision::Act(CordonBlueAct::Configure {
                change,
                request: NodegroupRequest {
                    attempt: CallAttempt::of_forward(past),
                    modified: group.modified_at,
                },
            });
        }
        // The nodes follow in the order of `closing.rs`. Its wait counts from the last act, which is the taint.
        let nodes = seen.nodes.iter().map(AsRef::as_ref);
        // In a new attempt it counts from its beginning: when the taint came is known to nobody.
        let last_act = unchanged_since(past);
        match next_closing(&self.blue, nodes, &self.run, last_act, now) {
            Some(NodeClosing::Protect { nodes }) => Decision::Act(CordonBlueAct::Hold { nodes }),
            Some(NodeClosing::Taint { nodes }) => Decision::Act(CordonBlueAct::Taint { nodes }),
            Some(NodeClosing::Wait { why, recheck }) => Decision::Wait { why, recheck },
            Some(NodeClosing::Cordon { nodes }) => Decision::Act(CordonBlueAct::Cordon { nodes }),
            None => Decision::Done(format!(
                "{} and its {} nodes take no new pods",
                self.blue,
                seen.nodes.len()
            )),
        }
    }

    fn before_image(&self, seen: &CordonBlueObservation) -> CordonBlueBeforeImage {
        let mut suspended: Vec<String> =
            seen.asgs.iter().flat_map(|a| a.suspended.clone()).collect();
        suspended.dedup();
        CordonBlueBeforeImage {
            max: seen.group.as_ref().map(|g| g.scaling.max),
            taints: seen
                .group
                .iter()
                .flat_map(|g| &g.taints)
                .map(|t| format!("{}:{}", t.key, t.effect))
                .collect(),
            suspended,
            cordoned_nodes: seen
                .nodes
                .iter()
                .filter(|n| n.unschedulable)
                .map(|n| n.name.clone())
                .collect(),
        }
    }

    async fn perform_act(&self, world: &StepWorld, act: &CordonBlueAct) -> Result<(), StepError> {
        match act {
            CordonBlueAct::SuspendRebalance { asg } => {
                suspend_process(world, asg, marks::REBALANCE).await
            }
            CordonBlueAct::SuspendLaunch { asg } => {
                suspend_process(world, asg, marks::LAUNCH).await
            }
            CordonBlueAct::ResumeRebalance { asg } => {
                resume_process(world, asg, marks::REBALANCE).await
            }
            CordonBlueAct::ResumeLaunch { asg } => resume_process(world, asg, marks::LAUNCH).await,
            CordonBlueAct::Configure { change, request } => {
                let asked = world.update_nodegroup_once(&self.id, &self.blue, change, *request);
                asked.await.map_err(|e| match e {
                    StepError::Api(e) => retry_size_refusal(e, change.max.is_some()).into(),
                    other @ (StepError::Broken(_) | StepError::Reroute(_)) => other,
                })
            }
            CordonBlueAct::Taint { nodes: names } => nodes::taint_and_protect(world, names).await,
            CordonBlueAct::Hold { nodes: names } => {
                nodes::protect_from_scale_down(world, names).await
            }
            CordonBlueAct::Cordon { nodes: names } => nodes::cordon_nodes(world, names).await,
            CordonBlueAct::Reopen { nodes: names } => nodes::reopen_nodes(world, names).await,
            CordonBlueAct::Release { nodes: names } => nodes::allow_scale_down(world, names).await,
        }
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    fn decide_undo(
        &self,
        before: &CordonBlueBeforeImage,
        seen: &CordonBlueObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<CordonBlueAct> {
        let Some(group) = &seen.group else {
            return Decision::Refuse(StepRefusal::new(self.gone_text()));
        };
        // Instances that ended meanwhile come back first: pods may need their nodes.
        if let Some(asg) = find_suspended(&seen.asgs, &self.run, marks::LAUNCH) {
            return Decision::Act(CordonBlueAct::ResumeLaunch { asg });
        }
        // Then the nodes: pods come back to them, and a change of the group takes EKS a while.
        let ours: Vec<String> = seen
            .nodes
            .iter()
            .filter(|n| {
                self.is_node_tainted(n) || n.annotations.get(marks::CORDONED) == Some(&self.run)
            })
            .map(|n| n.name.clone())
            .collect();
        if !ours.is_empty() {
            return Decision::Act(CordonBlueAct::Reopen { nodes: ours });
        }
        // While an update goes on EKS refuses another one. The wait is bounded, so that a group that never becomes
        // ACTIVE ends in a question to a person and not in a rollback that hangs.
        match &group.status {
            NodegroupStatus::Active | NodegroupStatus::Degraded => {}
            NodegroupStatus::Updating if !trail.is_late(now, ROLLBACK_WAIT_LIMIT) => {
                return Decision::Wait {
                    why: format!("{} is UPDATING", self.blue_words()),
                    recheck: CONFIG_RECHECK_INTERVAL,
                };
            }
            status @ (NodegroupStatus::Creating
            | NodegroupStatus::Updating
            | NodegroupStatus::Deleting
            | NodegroupStatus::CreateFailed
            | NodegroupStatus::DeleteFailed
            | NodegroupStatus::Other(_)) => {
                return Decision::Refuse(StepRefusal::new(format!(
                    "{} is {status}",
                    self.blue_words()
                )));
            }
        }
        // Taints of others stay, and so does a largest size that somebody has raised since.
        let remove: Vec<NodegroupTaint> = group
            .taints
            .iter()
            .filter(|t| self.is_ours(t))
            .cloned()
            .collect();
        let max = before.max.filter(|max| group.scaling.max < *max);
        if !remove.is_empty() || max.is_some() {
            let change = NodegroupChange {
                max,
                remove_taints: remove,
                ..NodegroupChange::default()
            };
            if let Some(wait) = self.wait_for_requested_change(&change, &trail.rollback, now) {
                return wait;
            }
            return Decision::Act(CordonBlueAct::Configure {
                change,
                request: NodegroupRequest {
                    attempt: CallAttempt::of_rollback(&trail.rollback),
                    modified: group.modified_at,
                },
            });
        }
        // Open again, blue is what it was, and the autoscaler's business.
        let held = seen
            .nodes
            .iter()
            .filter(|n| nodes::is_protected_by(n, &self.run));
        let held: Vec<String> = held.map(|n| n.name.clone()).collect();
        if !held.is_empty() {
            return Decision::Act(CordonBlueAct::Release { nodes: held });
        }
        // Last, and only where the tag says that this run suspended it.
        if let Some(asg) = find_suspended(&seen.asgs, &self.run, marks::REBALANCE) {
            return Decision::Act(CordonBlueAct::ResumeRebalance { asg });
        }
        Decision::Done(format!("{} takes pods and nodes again", self.blue))
    }

    fn describe_act(&self, act: &CordonBlueAct) -> String {
        act.describe(self.source, &self.blue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::fixture;
    use crate::steps::closing::tests::node;

    fn cordon_step() -> CordonBlueStep {
        let taint = NodegroupTaint {
            key: marks::BLUE_TAINT.to_owned(),
            value: None,
            effect: "NO_SCHEDULE".to_owned(),
        };
        CordonBlueStep::new(
            "cordon-blue".into(),
            "run".into(),
            ("expense-blue".into(), NodeSource::ManagedGroup),
            taint,
        )
    }

    /// Blue as EKS shows it and as it is, its Auto Scaling group's desired size set to `live`.
    fn seen(shown: i32, live: i32) -> CordonBlueObservation {
        let inventory = fixture::expense_dev();
        let mut group = inventory.nodegroups[0].clone();
        group.scaling.desired = shown;
        let mut asgs: Vec<Asg> = inventory.asgs.values().cloned().collect();
        for asg in &mut asgs {
            asg.desired = live;
            asg.suspended = vec!["AZRebalance".into()];
        }
        CordonBlueObservation {
            group: Some(group),
            asgs,
            nodes: vec![std::sync::Arc::new(node("n1"))],
        }
    }

    #[test]
    fn blue_is_pinned_at_the_larger_size_while_eks_and_the_auto_scaling_group_disagree() {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        for (shown, live) in [(3, 2), (2, 3)] {
            let decision =
                cordon_step().decide_next(&seen(shown, live), &StepHistory::default(), now);
            let Decision::Act(CordonBlueAct::Configure { change, .. }) = decision else {
                panic!("{decision:?}")
            };
            assert_eq!(change.max, Some(3), "EKS shows {shown}, there are {live}");
        }
    }

    #[test]
    fn blue_is_never_pinned_below_what_its_updates_may_take_away_and_is_given_its_size_back() {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let mut before = seen(2, 2);
        let group = before.group.as_mut().unwrap();
        group.scaling.max = 9;
        group.update_config = Some(crate::model::eks::UpdateConfig {
            max_unavailable: Some(4),
            max_unavailable_percentage: None,
            update_strategy: None,
        });
        let decision = cordon_step().decide_next(&before, &StepHistory::default(), now);
        let Decision::Act(CordonBlueAct::Configure { change, .. }) = decision else {
            panic!("{decision:?}")
        };
        assert_eq!(change.max, Some(4));
        let was = cordon_step().before_image(&before);
        let mut pinned = before;
        pinned.group.as_mut().unwrap().scaling.max = 4;
        let back = cordon_step().decide_undo(&was, &pinned, &RollbackHistory::default(), now);
        let Decision::Act(CordonBlueAct::Configure { change, .. }) = back else {
            panic!("{back:?}")
        };
        assert_eq!(change.max, Some(9));
    }

    #[test]
    fn a_new_attempt_gives_the_autoscaler_its_time_to_see_the_taint_before_it_cordons() {
        let began = Timestamp::from_second(1_790_000_000).unwrap();
        let step = cordon_step();
        let mut seen = seen(2, 2);
        let group = seen.group.as_mut().unwrap();
        (group.scaling.max, group.taints) = (2, vec![step.taint.clone()]);
        let node = std::sync::Arc::make_mut(&mut seen.nodes[0]);
        node.taints.push(crate::model::kube::Taint {
            key: marks::BLUE_TAINT.into(),
            value: Some("run".into()),
            effect: "NoSchedule".into(),
        });
        let held = (marks::SCALE_DOWN_DISABLED.to_owned(), "true".to_owned());
        node.annotations.extend([held]);
        let retried = StepHistory {
            started_at: Some(began),
            attempt: 1,
            ..StepHistory::default()
        };
        let decide = |seconds| {
            let now = began + SignedDuration::from_secs(seconds);
            step.decide_next(&seen, &retried, now)
        };
        assert!(matches!(decide(24), Decision::Wait { .. }));
        let nodes = vec!["n1".to_owned()];
        assert_eq!(decide(25), Decision::Act(CordonBlueAct::Cordon { nodes }));
    }

    #[test]
    fn a_refused_size_is_looked_at_again_and_another_refusal_is_final() {
        let refused = || ApiError::new("eks:UpdateNodegroupConfig", ErrorClass::Invalid, "sizes");
        assert_eq!(
            retry_size_refusal(refused(), true).class,
            ErrorClass::Transient
        );
        assert_eq!(
            retry_size_refusal(refused(), false).class,
            ErrorClass::Invalid
        );
        let denied = ApiError::new("eks:UpdateNodegroupConfig", ErrorClass::Denied, "no");
        assert_eq!(retry_size_refusal(denied, true).class, ErrorClass::Denied);
    }
}
