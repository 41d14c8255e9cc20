//! What retiring a group does, and what it writes down of before.

use serde::{Deserialize, Serialize};

use crate::model::aws_status::NodegroupStatus;
use crate::model::eks::Scaling;
use crate::model::elb::{RegisteredTarget, short_name};
use crate::model::node_source::NodeSource;
use crate::steps::attempts::NodegroupRequest;
use crate::steps::traffic::registered_targets::RegisteredIn;
use crate::steps::traffic::targets::instance_names;

/// An act on blue: its target groups, or the node group itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum RetireAct {
    Detach {
        asg: String,
        target_groups: Vec<String>,
    },
    /// Takes out what was registered one by one, and so does not leave with the Auto Scaling group.
    Deregister {
        target_group: String,
        targets: Vec<RegisteredTarget>,
    },
    Delete,
    ScaleToZero {
        request: NodegroupRequest,
    },
    /// In a rollback: registers again what was registered one by one.
    Register {
        target_group: String,
        targets: Vec<RegisteredTarget>,
    },
    /// In a rollback: has the Auto Scaling group fill its target groups again.
    Attach {
        asg: String,
        target_groups: Vec<String>,
    },
    /// In a rollback: brings a blue that was kept at zero to its size of before.
    ScaleUp {
        size: Scaling,
        request: NodegroupRequest,
    },
}

/// Blue before its retirement began: size, nodes and target groups. A rollback restores them while blue is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetireBeforeImage {
    /// Absent when there was no group. On a long way a later green may get the name of a blue that is gone.
    pub(super) arn: Option<String>,
    pub(super) status: Option<NodegroupStatus>,
    pub(super) size: Option<Scaling>,
    pub(super) nodes: usize,
    /// Auto Scaling groups and the target groups they filled.
    pub(super) attached: Vec<AttachedTargetGroups>,
    /// What was registered one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) registered: Vec<RegisteredIn>,
}

/// An Auto Scaling group and the target groups it fills.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttachedTargetGroups {
    pub(super) asg: String,
    pub(super) target_groups: Vec<String>,
}

impl RetireAct {
    /// Describes the act for people; `blue` is the name of the group that retires.
    pub fn describe_for(&self, (blue, source): (&str, NodeSource)) -> String {
        match self {
            Self::Detach { asg, target_groups } => {
                let names: Vec<&str> = target_groups.iter().map(|t| short_name(t)).collect();
                format!("detach {} from {asg}", names.join(", "))
            }
            Self::Deregister {
                target_group,
                targets,
            } => format!(
                "deregister {} from {}",
                instance_names(targets),
                short_name(target_group)
            ),
            Self::Register {
                target_group,
                targets,
            } => format!(
                "register {} in {} again",
                instance_names(targets),
                short_name(target_group)
            ),
            Self::Delete => format!("{} {blue}, proved empty", source.delete_operation()),
            Self::ScaleToZero { .. } => format!("scale {} to zero", blue),
            Self::Attach { asg, target_groups } => {
                let names: Vec<&str> = target_groups.iter().map(|t| short_name(t)).collect();
                format!("attach {} to {asg} again", names.join(", "))
            }
            Self::ScaleUp { size, .. } => {
                format!("scale {} up to {} nodes again", blue, size.desired)
            }
        }
    }
}
