//! Blue is kept from the autoscaler's scale-down, from before green stands until it is retired: a cordoned blue node would
//! be drained by the autoscaler past windows, approvals and target groups, and an empty one removed while it is still
//! what a rollback goes to.
//!
//! This step is rolled back first of all of blue's steps: where blue has lost nodes all the same, it grows back to its
//! size before any traffic or pod returns. The hold itself ends last, with blue open again (see `cordon_blue.rs`).

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::asg::Asg;
use crate::model::aws_status::NodegroupStatus;
use crate::model::eks::{Nodegroup, NodegroupChange, Scaling};
use crate::model::kube::Node;
use crate::model::marks;
use crate::model::node_source::NodeSource;
use crate::steps::attempts::{CallAttempt, NodegroupRequest};
use crate::steps::suspension::{find_suspended, resume_process};
use crate::steps::updates::EKS_POLL_INTERVAL;
use crate::steps::{ROLLBACK_WAIT_LIMIT, StepWorld, nodes};

/// A step that annotates blue's nodes so that the cluster autoscaler does not remove them (CA-4).
pub struct BlueProtectionStep {
    id: String,
    run: String,
    blue: String,
    source: NodeSource,
}

/// One look at blue: the node group, its Auto Scaling groups and its nodes.
pub struct BlueProtectionObservation {
    group: Option<Nodegroup>,
    asgs: Vec<Asg>,
    nodes: Vec<Arc<Node>>,
}

/// Blue's size when the migration began. A rollback grows blue to it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlueProtectionBeforeImage {
    /// Absent when there was no group. On a long way a later green may get the name of a blue that is gone.
    arn: Option<String>,
    size: Option<Scaling>,
    nodes: usize,
}

/// An act on blue: its nodes' annotations, or in a rollback its size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum BlueProtectionAct {
    Hold {
        nodes: Vec<String>,
    },
    /// In a rollback: brings blue to its size of before, where it has lost nodes.
    Grow {
        desired: i32,
        /// Where the group's largest size is in the way.
        max: Option<i32>,
        request: NodegroupRequest,
    },
    Release {
        nodes: Vec<String>,
    },
    /// In a rollback, before anything else: without it no instance starts in place of one that ended.
    ResumeLaunch {
        asg: String,
    },
}

impl BlueProtectionStep {
    /// Holds `blue`'s nodes in run `run`.
    pub fn new(id: String, run: String, (blue, source): (String, NodeSource)) -> Self {
        Self {
            id,
            run,
            blue,
            source,
        }
    }

    /// Blue with what it is, as text.
    fn blue_words(&self) -> String {
        format!("{} {}", self.source.group_words(), self.blue)
    }

    fn node_names(
        &self,
        seen: &BlueProtectionObservation,
        pick: impl Fn(&Node) -> bool,
    ) -> Vec<String> {
        let picked = seen.nodes.iter().filter(|n| pick(n));
        picked.map(|n| n.name.clone()).collect()
    }
}

impl BlueProtectionObservation {
    /// The size the group is set to: the Auto Scaling group's is the live one, EKS shows it a while later.
    fn desired_size(&self) -> Option<i32> {
        let group = self.group.as_ref()?;
        Some(if self.asgs.is_empty() {
            group.scaling.desired
        } else {
            self.asgs.iter().map(|a| a.desired).sum()
        })
    }
}

impl Step<StepWorld> for BlueProtectionStep {
    type Observation = BlueProtectionObservation;
    type BeforeImage = BlueProtectionBeforeImage;
    type Act = BlueProtectionAct;

    async fn observe_state(
        &self,
        world: &StepWorld,
    ) -> Result<BlueProtectionObservation, StepError> {
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
        let nodes = snapshot.nodes.values();
        let nodes = nodes.filter(|n| n.nodegroup_name() == Some(&self.blue));
        Ok(BlueProtectionObservation {
            group,
            asgs,
            nodes: nodes.cloned().collect(),
        })
    }

    fn decide_next(
        &self,
        seen: &BlueProtectionObservation,
        _past: &StepHistory,
        _now: Timestamp,
    ) -> Decision<BlueProtectionAct> {
        if seen.group.is_none() {
            return Decision::Refuse(StepRefusal::new(format!(
                "{} is gone; somebody else deleted it",
                self.blue_words()
            )));
        }
        let free = self.node_names(seen, |n| !nodes::is_protected(n));
        if free.is_empty() {
            return Decision::Done(format!(
                "nothing scales {} down: its {} nodes are kept",
                self.blue_words(),
                seen.nodes.len()
            ));
        }
        Decision::Act(BlueProtectionAct::Hold { nodes: free })
    }

    fn before_image(&self, seen: &BlueProtectionObservation) -> BlueProtectionBeforeImage {
        // The live size goes into the journal: EKS's own may lag behind what an autoscaler did (EKS-NG-15).
        let size = seen.group.as_ref().map(|group| Scaling {
            desired: seen.desired_size().unwrap_or(group.scaling.desired),
            ..group.scaling
        });
        BlueProtectionBeforeImage {
            arn: seen.group.as_ref().map(|g| g.arn.clone()),
            size,
            nodes: seen.nodes.len(),
        }
    }

    async fn perform_act(
        &self,
        world: &StepWorld,
        act: &BlueProtectionAct,
    ) -> Result<(), StepError> {
        match act {
            BlueProtectionAct::Hold { nodes: names } => {
                nodes::protect_from_scale_down(world, names).await
            }
            BlueProtectionAct::Release { nodes: names } => {
                nodes::allow_scale_down(world, names).await
            }
            BlueProtectionAct::ResumeLaunch { asg } => {
                resume_process(world, asg, marks::LAUNCH).await
            }
            // The request is part of the act, so that a repeat after a crash is no second update.
            BlueProtectionAct::Grow {
                desired,
                max,
                request,
            } => {
                let change = NodegroupChange {
                    desired: Some(*desired),
                    max: *max,
                    ..NodegroupChange::default()
                };
                world
                    .update_nodegroup_once(&self.id, &self.blue, &change, *request)
                    .await
            }
        }
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    fn decide_undo(
        &self,
        before: &BlueProtectionBeforeImage,
        seen: &BlueProtectionObservation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<BlueProtectionAct> {
        let blue = &self.blue;
        // A group of the same name that somebody made since is not blue.
        let same = |g: &&Nodegroup| before.arn.as_ref().is_none_or(|was| *was == g.arn);
        let Some(group) = seen.group.as_ref().filter(same) else {
            return Decision::Refuse(StepRefusal::new(format!(
                "{} is gone, and new nodes are made only at the cluster's version: it cannot be brought back",
                self.blue_words()
            )));
        };
        // Every wait of a rollback has an end: a person has to look at a blue that does not come.
        let late = trail.is_late(now, ROLLBACK_WAIT_LIMIT);
        match &group.status {
            NodegroupStatus::Updating | NodegroupStatus::Creating if !late => {
                return wait_polling(format!("{} is {}", self.blue_words(), group.status));
            }
            NodegroupStatus::Deleting | NodegroupStatus::DeleteFailed => {
                return Decision::Refuse(StepRefusal::new(format!(
                    "{} is {}: nothing can be moved back to it",
                    self.blue_words(),
                    group.status
                )));
            }
            NodegroupStatus::Creating
            | NodegroupStatus::Active
            | NodegroupStatus::Updating
            | NodegroupStatus::CreateFailed
            | NodegroupStatus::Degraded
            | NodegroupStatus::Other(_) => {}
        }
        if let Some(asg) = find_suspended(&seen.asgs, &self.run, marks::LAUNCH) {
            return Decision::Act(BlueProtectionAct::ResumeLaunch { asg });
        }
        // Grown before it is waited for, and before traffic or a pod returns: fewer nodes could not carry what comes.
        let now_desired = seen.desired_size().unwrap_or(0);
        if let Some(size) = before.size.filter(|was| now_desired < was.desired) {
            return Decision::Act(BlueProtectionAct::Grow {
                desired: size.desired,
                max: (group.scaling.max < size.desired).then_some(size.desired),
                request: NodegroupRequest {
                    attempt: CallAttempt::of_rollback(&trail.rollback),
                    modified: group.modified_at,
                },
            });
        }
        // A kubelet that has fallen silent was there before and does not hold up everybody; one that starts is waited for.
        let wanted = before.size.map_or(before.nodes, |was| {
            before.nodes.min(usize::try_from(was.desired).unwrap_or(0))
        });
        let starting = seen.nodes.iter().filter(|n| n.ready == "False").count();
        let have = seen.nodes.len() - starting;
        if have < wanted && !late {
            return wait_polling(format!("{have} of {wanted} nodes of {blue} are Ready"));
        }
        // Nothing is moved to a blue that is too small: green still serves.
        if seen.nodes.len() < wanted {
            return Decision::Refuse(StepRefusal::new(format!(
                "{} of {wanted} nodes of {blue} have joined after {} minutes. Traffic and pods have not been moved",
                seen.nodes.len(),
                ROLLBACK_WAIT_LIMIT.as_secs() / 60
            )).with_fix("Find out why no instance starts or joins"));
        }
        // Where blue is closed its pods are still to come back: until then it is held, and let go when it opens.
        let closed = seen.nodes.iter().any(|n| nodes::is_closed_by(n, &self.run));
        let tainted = group
            .taints
            .iter()
            .any(|t| t.key == marks::BLUE_TAINT && t.value.as_deref() == Some(&self.run));
        if closed || tainted {
            let free = self.node_names(seen, |n| !nodes::is_protected(n));
            return if free.is_empty() {
                Decision::Done(format!("{blue} has its {} nodes", seen.nodes.len()))
            } else {
                Decision::Act(BlueProtectionAct::Hold { nodes: free })
            };
        }
        // Blue is open, so nothing is to come back to it any more: what is left is to take the marks off.
        let held = self.node_names(seen, |n| nodes::is_protected_by(n, &self.run));
        if held.is_empty() {
            Decision::Done(format!(
                "{blue} has its {} nodes, free to be scaled down again",
                seen.nodes.len()
            ))
        } else {
            Decision::Act(BlueProtectionAct::Release { nodes: held })
        }
    }

    fn describe_act(&self, act: &BlueProtectionAct) -> String {
        let annotation = marks::SCALE_DOWN_DISABLED;
        match act {
            BlueProtectionAct::Hold { nodes } => {
                format!("annotate {} with {annotation}", nodes.join(", "))
            }
            BlueProtectionAct::Release { nodes } => {
                format!("take {annotation} off {}", nodes.join(", "))
            }
            BlueProtectionAct::ResumeLaunch { asg } => format!("resume Launch of {asg}"),
            BlueProtectionAct::Grow { desired, .. } => format!(
                "scale {} up to {desired} nodes again, before traffic and pods go back to it",
                self.blue
            ),
        }
    }
}

fn wait_polling(why: String) -> Decision<BlueProtectionAct> {
    Decision::Wait {
        why,
        recheck: EKS_POLL_INTERVAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kube::Taint;
    use crate::route::fixture;
    use crate::steps::closing::tests::node;

    fn hold() -> BlueProtectionStep {
        BlueProtectionStep::new(
            "hold-blue".into(),
            "run".into(),
            ("expense-blue".into(), NodeSource::ManagedGroup),
        )
    }

    /// Blue of `size`, with nodes of these names.
    fn seen(size: i32, names: &[&str]) -> BlueProtectionObservation {
        let inventory = fixture::expense_dev();
        let mut asgs: Vec<Asg> = inventory.asgs.values().cloned().collect();
        for asg in &mut asgs {
            asg.desired = size;
        }
        BlueProtectionObservation {
            group: inventory.find_nodegroup("expense-blue").cloned(),
            asgs,
            nodes: names.iter().map(|n| Arc::new(node(n))).collect(),
        }
    }

    fn each(seen: &mut BlueProtectionObservation, change: impl Fn(&mut Node)) {
        for node in &mut seen.nodes {
            change(Arc::make_mut(node));
        }
    }

    fn held(node: &mut Node) {
        let marks = [
            (marks::SCALE_DOWN_DISABLED, "true"),
            (marks::SCALE_DOWN_HELD, "run"),
        ];
        let marks = marks.map(|(k, v)| (k.to_owned(), v.to_owned()));
        node.annotations.extend(marks);
    }

    fn back(
        before: &BlueProtectionBeforeImage,
        seen: &BlueProtectionObservation,
    ) -> Decision<BlueProtectionAct> {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        hold().decide_undo(before, seen, &RollbackHistory::default(), now)
    }

    #[test]
    fn a_blue_that_has_lost_nodes_grows_and_is_whole_before_anything_returns_to_it() {
        let before = hold().before_image(&seen(3, &["n1", "n2", "n3"]));
        let mut small = seen(1, &["n1"]);
        // Closing blue has pinned it meanwhile.
        small.group.as_mut().unwrap().scaling.max = 1;
        let grown = back(&before, &small);
        assert!(
            matches!(
                grown,
                Decision::Act(BlueProtectionAct::Grow {
                    desired: 3,
                    max: Some(3),
                    ..
                })
            ),
            "{grown:?}"
        );
        let waits = back(&before, &seen(3, &["n1"]));
        assert!(
            matches!(&waits, Decision::Wait { why, .. } if why.contains("1 of 3 nodes")),
            "{waits:?}"
        );
        let mut starting = seen(3, &["n1", "n2", "n3"]);
        Arc::make_mut(&mut starting.nodes[2]).ready = "False".into();
        assert!(matches!(back(&before, &starting), Decision::Wait { .. }));
        // A kubelet that died meanwhile does not hold up those who go back.
        Arc::make_mut(&mut starting.nodes[2]).ready = "Unknown".into();
        assert!(matches!(back(&before, &starting), Decision::Done(_)));
    }

    #[test]
    fn a_closed_blue_stays_held_until_it_is_open_and_an_open_one_is_let_go() {
        let before = hold().before_image(&seen(2, &["n1", "n2"]));
        let mut now = seen(2, &["n1", "n2"]);
        each(&mut now, |n| {
            n.taints.push(Taint {
                key: marks::BLUE_TAINT.into(),
                value: Some("run".into()),
                effect: "NoSchedule".into(),
            });
        });
        held(Arc::make_mut(&mut now.nodes[0]));
        // A node that has just joined is held like the others.
        assert_eq!(
            back(&before, &now),
            Decision::Act(BlueProtectionAct::Hold {
                nodes: vec!["n2".into()]
            })
        );
        each(&mut now, held);
        assert!(matches!(back(&before, &now), Decision::Done(_)));
        each(&mut now, |n| n.taints.clear());
        assert_eq!(
            back(&before, &now),
            Decision::Act(BlueProtectionAct::Release {
                nodes: vec!["n1".into(), "n2".into()]
            })
        );
    }
}
