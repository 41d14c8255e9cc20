//! What is done to green: the node group, its Auto Scaling group, its machines, and in a rollback its pods.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::CreateGreenStep;
use crate::model::asg::AsgTag;
use crate::model::eks::NewNodegroup;
use crate::steps::attempts::{CallAttempt, NodegroupRequest};
use crate::steps::drain;
use crate::steps::warm_pool::WarmPoolAct;

/// An act on green: the node group, its Auto Scaling group, or in a rollback its pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum GreenAct {
    Create {
        group: Box<NewNodegroup>,
        attempt: CallAttempt,
    },
    /// A group that could not be created still exists and still costs.
    DeleteFailed {
        why: String,
    },
    CopyTags {
        asg: String,
        tags: Vec<AsgTag>,
    },
    /// Processes that somebody suspended for blue's group are for green's too.
    Suspend {
        asg: String,
        processes: Vec<String>,
    },
    /// Metrics that blue's group sends to CloudWatch are sent by green's too.
    CollectMetrics {
        asg: String,
        metrics: Vec<String>,
    },
    /// Nodes that have joined are kept from the autoscaler, which would remove them while others are waited for.
    Hold {
        nodes: Vec<String>,
    },
    /// On rollback: what empties it.
    Leave {
        act: Box<drain::DrainStepAct>,
    },
    Delete,
    /// Machines of a NodePool that are missing are asked for.
    Grow {
        desired: i32,
        request: NodegroupRequest,
    },
    /// Claims of a NodePool that come to nothing are deleted, and asked for again; by claim, why.
    DropClaims {
        claims: BTreeMap<String, String>,
    },
    /// On rollback, before the deletion of a self-managed group: Auto Scaling deletes none that has instances.
    ScaleToZero {
        request: NodegroupRequest,
    },
    /// On rollback, before that: what removes green's warm pool.
    RemoveWarmPool {
        act: WarmPoolAct,
    },
}

impl GreenAct {
    /// Describes the act for people.
    pub(super) fn describe_for(&self, step: &CreateGreenStep) -> String {
        match self {
            GreenAct::Create { group, .. } => format!(
                "{} {} with {} nodes",
                step.group_spec.source.create_operation(),
                group.name,
                group.scaling.desired
            ),
            GreenAct::DeleteFailed { why } => format!(
                "DeleteNodegroup {}, which could not be created: {why}",
                step.green_name()
            ),
            GreenAct::CopyTags { asg, tags } => format!(
                "copy {} tags of blue to Auto Scaling group {asg}",
                tags.len()
            ),
            GreenAct::Suspend { asg, processes } => format!(
                "suspend {} of Auto Scaling group {asg}, as for blue's",
                processes.join(", ")
            ),
            GreenAct::CollectMetrics { asg, metrics } => format!(
                "EnableMetricsCollection of Auto Scaling group {asg}: {}, as for blue's",
                metrics.join(", ")
            ),
            GreenAct::Hold { nodes } => {
                format!("keep {} from the autoscaler's scale-down", nodes.join(", "))
            }
            GreenAct::Leave { act } => step.green_drain.describe_act(act),
            GreenAct::Delete => {
                let operation = step.group_spec.source.delete_operation();
                format!("{operation} {}", step.green_name())
            }
            GreenAct::ScaleToZero { .. } => format!("scale {} to zero", step.green_name()),
            GreenAct::RemoveWarmPool { act } => act.describe_for(step.green_name()),
            GreenAct::Grow { desired, .. } => format!(
                "ask Karpenter for machines of NodePool {} until it has {desired}",
                step.green_name()
            ),
            GreenAct::DropClaims { claims } => {
                let each = claims.iter().map(|(name, why)| format!("{name} ({why})"));
                let each: Vec<String> = each.collect();
                format!(
                    "delete NodeClaims that come to nothing: {}",
                    each.join(", ")
                )
            }
        }
    }
}
