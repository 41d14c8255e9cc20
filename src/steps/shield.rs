//! Blue takes no new pod and no new node.
//!
//! The order matters (CA-1): the taint stands on the group and its nodes for two rounds of the cluster autoscaler
//! before the cordon, because the autoscaler takes its template from a schedulable node and keeps it; a template without
//! the taint would let it grow blue for the very pods that leave it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{Decision, Past, Step, StepError, Trail, Undo};
use crate::model::asg::{Asg, AsgTag};
use crate::model::eks::{Nodegroup, NodegroupChange, NodegroupTaint};
use crate::model::kube::Node;
use crate::model::marks;
use crate::steps::{BACK_PATIENCE, PATIENCE, World, absent_is_none, nodes};

/// Two rounds of the cluster autoscaler, which runs every 10 s, and a little.
const AUTOSCALER_ROUNDS: SignedDuration = SignedDuration::from_secs(25);
/// DescribeNodegroup may say ACTIVE, and the old taints, for some seconds after UpdateNodegroupConfig.
const CONFIG_SHOWS: SignedDuration = SignedDuration::from_secs(15);
/// A node group's configuration takes some seconds to change.
const RECHECK: Duration = Duration::from_secs(5);

/// Closes blue.
pub struct Shield {
    id: String,
    run: String,
    blue: String,
    taint: NodegroupTaint,
}

/// What a look sees.
pub struct Seen {
    group: Option<Nodegroup>,
    asgs: Vec<Asg>,
    nodes: Vec<std::sync::Arc<Node>>,
}

/// What there was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Before {
    /// The group's largest size; absent when there is no group.
    max: Option<i32>,
    taints: Vec<String>,
    suspended: Vec<String>,
    cordoned_nodes: Vec<String>,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Act {
    SuspendRebalance {
        asg: String,
    },
    ResumeRebalance {
        asg: String,
    },
    Configure {
        change: NodegroupChange,
        attempt: u32,
    },
    Taint {
        nodes: Vec<String>,
    },
    Cordon {
        nodes: Vec<String>,
    },
    Reopen {
        nodes: Vec<String>,
    },
}

impl Shield {
    /// Closes `blue` in run `run`; the taint's value is the run's id.
    pub fn new(id: String, run: String, blue: String, taint: NodegroupTaint) -> Self {
        let taint = NodegroupTaint {
            value: Some(run.clone()),
            ..taint
        };
        Self {
            id,
            run,
            blue,
            taint,
        }
    }

    fn is_ours(&self, taint: &NodegroupTaint) -> bool {
        taint.key == self.taint.key && taint.value.as_deref() == Some(&self.run)
    }

    fn gone(&self) -> String {
        format!("node group {} is gone; somebody else deleted it", self.blue)
    }

    /// EKS was asked for that very change a moment ago, and it may not show yet.
    fn asked(
        &self,
        change: &NodegroupChange,
        past: &Past,
        now: Timestamp,
    ) -> Option<Decision<Act>> {
        let last = Act::deserialize(past.last_act.as_ref()?).ok()?;
        let fresh = now.duration_since(past.watched_from()?) < CONFIG_SHOWS;
        let same = matches!(last, Act::Configure { change: asked, .. } if asked == *change);
        (fresh && same).then(|| Decision::Wait {
            why: format!("EKS was asked to change node group {}", self.blue),
            recheck: Duration::from_secs(2),
        })
    }

    fn rebalance_is_ours(&self, asg: &Asg) -> bool {
        asg.tags
            .iter()
            .any(|t| t.key == marks::AZ_REBALANCE_TAG && t.value == self.run)
    }

    fn node_tainted(&self, node: &Node) -> bool {
        node.taints
            .iter()
            .any(|t| t.key == self.taint.key && t.value.as_deref() == Some(&self.run))
    }
}

impl Step<World> for Shield {
    type Seen = Seen;
    type Before = Before;
    type Act = Act;

    async fn observe(&self, world: &World) -> Result<Seen, StepError> {
        let group =
            absent_is_none(world.aws.describe_nodegroup(&world.cluster, &self.blue)).await?;
        let asgs = match &group {
            Some(group) => world.aws.asgs(&group.asgs).await?.into_values().collect(),
            None => Vec::new(),
        };
        let snapshot = world.cache.read(PATIENCE).await?;
        let nodes = snapshot
            .nodes
            .values()
            .filter(|n| n.nodegroup() == Some(&self.blue))
            .cloned()
            .collect();
        Ok(Seen { group, asgs, nodes })
    }

    fn decide(&self, seen: &Seen, past: &Past, now: Timestamp) -> Decision<Act> {
        let Some(group) = &seen.group else {
            return Decision::Refuse(self.gone());
        };
        for asg in &seen.asgs {
            if !asg.suspended.iter().any(|p| p == "AZRebalance") {
                return Decision::Act(Act::SuspendRebalance {
                    asg: asg.name.clone(),
                });
            }
        }
        match group.status.as_str() {
            "ACTIVE" | "DEGRADED" => {}
            "UPDATING" | "CREATING" => {
                return Decision::Wait {
                    why: format!("node group {} is {}", self.blue, group.status),
                    recheck: RECHECK,
                };
            }
            status => {
                return Decision::Refuse(format!(
                    "node group {} is {status}; somebody else changes it",
                    self.blue
                ));
            }
        }
        // The Auto Scaling group's size is the live one; the node group's lags behind an autoscaler.
        let desired = seen.asgs.iter().map(|a| a.desired).sum::<i32>().max(1);
        let tainted = group.taints.iter().any(|t| self.is_ours(t));
        let pinned = seen.asgs.is_empty() || group.scaling.max <= desired;
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
            if let Some(wait) = self.asked(&change, past, now) {
                return wait;
            }
            return Decision::Act(Act::Configure {
                change,
                attempt: past.acts,
            });
        }
        let untainted: Vec<String> = seen
            .nodes
            .iter()
            .filter(|n| !self.node_tainted(n))
            .map(|n| n.name.clone())
            .collect();
        if !untainted.is_empty() {
            return Decision::Act(Act::Taint { nodes: untainted });
        }
        let open: Vec<String> = seen
            .nodes
            .iter()
            .filter(|n| !n.unschedulable)
            .map(|n| n.name.clone())
            .collect();
        if open.is_empty() {
            return Decision::Done(format!(
                "{} and its {} nodes take nothing new",
                self.blue,
                seen.nodes.len()
            ));
        }
        let left = past.watched_from().map_or(AUTOSCALER_ROUNDS, |t| {
            AUTOSCALER_ROUNDS - now.duration_since(t)
        });
        if left > SignedDuration::ZERO && past.acts > 0 {
            let recheck = Duration::try_from(left)
                .unwrap_or(RECHECK)
                .max(Duration::from_millis(200));
            return Decision::Wait {
                why: format!(
                    "the cluster autoscaler sees the taint of {} before the cordon, {}s more",
                    self.blue,
                    left.as_secs()
                ),
                recheck,
            };
        }
        Decision::Act(Act::Cordon { nodes: open })
    }

    fn before(&self, seen: &Seen) -> Before {
        let mut suspended: Vec<String> =
            seen.asgs.iter().flat_map(|a| a.suspended.clone()).collect();
        suspended.dedup();
        Before {
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

    async fn act(&self, world: &World, act: &Act) -> Result<(), StepError> {
        match act {
            Act::SuspendRebalance { asg } => {
                // The tag first: a suspension without it would never be taken back.
                let tag = AsgTag {
                    key: marks::AZ_REBALANCE_TAG.to_owned(),
                    value: self.run.clone(),
                    propagate: false,
                };
                world.aws.tag_asg(asg, &[tag]).await?;
                Ok(world.aws.suspend(asg, &["AZRebalance"]).await?)
            }
            Act::ResumeRebalance { asg } => {
                world.aws.resume(asg, &["AZRebalance"]).await?;
                Ok(world
                    .aws
                    .untag_asg(asg, &[marks::AZ_REBALANCE_TAG.to_owned()])
                    .await?)
            }
            Act::Configure { change, attempt } => {
                let what = serde_json::to_string(change).unwrap_or_default();
                let token = world.token(&self.id, &format!("{what}#{attempt}"));
                world
                    .aws
                    .update_nodegroup(&world.cluster, &self.blue, change, &token)
                    .await?;
                Ok(())
            }
            Act::Taint { nodes: names } => nodes::taint(world, names).await,
            Act::Cordon { nodes: names } => nodes::cordon(world, names).await,
            Act::Reopen { nodes: names } => nodes::reopen(world, names).await,
        }
    }

    fn undo(&self) -> Undo {
        Undo::Restore
    }

    fn restore(
        &self,
        before: &Before,
        seen: &Seen,
        trail: &Trail,
        now: Timestamp,
    ) -> Decision<Act> {
        let Some(group) = &seen.group else {
            return Decision::Refuse(self.gone());
        };
        match group.status.as_str() {
            "ACTIVE" | "DEGRADED" => {}
            "UPDATING" if !trail.late(now, BACK_PATIENCE) => {
                return Decision::Wait {
                    why: format!("node group {} is UPDATING", self.blue),
                    recheck: RECHECK,
                };
            }
            status => return Decision::Refuse(format!("node group {} is {status}", self.blue)),
        }
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
            if let Some(wait) = self.asked(&change, &trail.back, now) {
                return wait;
            }
            return Decision::Act(Act::Configure {
                change,
                attempt: 1000 + trail.back.acts,
            });
        }
        let ours: Vec<String> = seen
            .nodes
            .iter()
            .filter(|n| {
                self.node_tainted(n) || n.annotations.get(marks::CORDONED) == Some(&self.run)
            })
            .map(|n| n.name.clone())
            .collect();
        if !ours.is_empty() {
            return Decision::Act(Act::Reopen { nodes: ours });
        }
        if let Some(asg) = seen.asgs.iter().find(|a| self.rebalance_is_ours(a)) {
            return Decision::Act(Act::ResumeRebalance {
                asg: asg.name.clone(),
            });
        }
        Decision::Done(format!("{} takes pods and nodes again", self.blue))
    }

    fn describe(&self, act: &Act) -> String {
        match act {
            Act::SuspendRebalance { asg } => format!("suspend AZRebalance of {asg}"),
            Act::ResumeRebalance { asg } => format!("resume AZRebalance of {asg}"),
            Act::Configure { change, .. } => {
                let mut parts = Vec::new();
                if let Some(max) = change.max {
                    parts.push(format!("max size {max}"));
                }
                parts.extend(change.add_taints.iter().map(|t| format!("taint {}", t.key)));
                parts.extend(
                    change
                        .remove_taints
                        .iter()
                        .map(|t| format!("no taint {}", t.key)),
                );
                format!("UpdateNodegroupConfig {}: {}", self.blue, parts.join(", "))
            }
            Act::Taint { nodes } => format!("taint {}", nodes.join(", ")),
            Act::Cordon { nodes } => format!("cordon {}", nodes.join(", ")),
            Act::Reopen { nodes } => format!("untaint and uncordon {}", nodes.join(", ")),
        }
    }
}
