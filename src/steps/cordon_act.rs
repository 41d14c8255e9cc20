//! The acts that close a group of nodes and open it again.

use serde::{Deserialize, Serialize};

use crate::model::eks::NodegroupChange;
use crate::model::marks;
use crate::model::node_source::NodeSource;
use crate::steps::attempts::NodegroupRequest;
use crate::steps::closing::AUTOSCALER_TAINT_WAIT;

/// An act on blue: on its Auto Scaling group, the node group, or nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum CordonBlueAct {
    SuspendRebalance {
        asg: String,
    },
    ResumeRebalance {
        asg: String,
    },
    SuspendLaunch {
        asg: String,
    },
    ResumeLaunch {
        asg: String,
    },
    Configure {
        change: NodegroupChange,
        request: NodegroupRequest,
    },
    Taint {
        nodes: Vec<String>,
    },
    Hold {
        nodes: Vec<String>,
    },
    Cordon {
        nodes: Vec<String>,
    },
    Reopen {
        nodes: Vec<String>,
    },
    Release {
        nodes: Vec<String>,
    },
}

impl CordonBlueAct {
    /// The act on `blue` as text.
    pub fn describe(&self, source: NodeSource, blue: &str) -> String {
        match self {
            Self::SuspendRebalance { asg } => format!("suspend AZRebalance of {asg}"),
            Self::ResumeRebalance { asg } => format!("resume AZRebalance of {asg}"),
            Self::SuspendLaunch { asg } => format!("suspend Launch of {asg}"),
            Self::ResumeLaunch { asg } => format!("resume Launch of {asg}"),
            // One call for size and taint, as EKS takes one change of a group at a time.
            Self::Configure { change, .. } => {
                let mut parts = Vec::new();
                if let Some(max) = change.max {
                    parts.push(format!("max size {max}"));
                }
                parts.extend(change.add_taints.iter().map(|t| {
                    format!(
                        "taint {}, and {} s after its nodes carry it they are cordoned: a cluster autoscaler has to see the taint first",
                        t.key,
                        AUTOSCALER_TAINT_WAIT.as_secs()
                    )
                }));
                parts.extend(
                    change
                        .remove_taints
                        .iter()
                        .map(|t| format!("no taint {}", t.key)),
                );
                match source {
                    NodeSource::ManagedGroup => {
                        format!("UpdateNodegroupConfig {}: {}", blue, parts.join(", "))
                    }
                    NodeSource::AutoScalingGroup => {
                        format!("UpdateAutoScalingGroup {}: {}", blue, parts.join(", "))
                    }
                    NodeSource::NodePool if change.max == Some(i32::MAX) => {
                        format!("give NodePool {} its limits back", blue)
                    }
                    NodeSource::NodePool => format!(
                        "set the limits of NodePool {} to 0, so that Karpenter makes no node for it",
                        blue
                    ),
                }
            }
            Self::Taint { nodes } if source == NodeSource::NodePool => format!(
                "taint {} and annotate with {}",
                nodes.join(", "),
                marks::SCALE_DOWN_DISABLED
            ),
            Self::Taint { nodes } => format!(
                "taint {} and annotate with {}; the cordon follows {} s later, when a cluster autoscaler has seen the taint",
                nodes.join(", "),
                marks::SCALE_DOWN_DISABLED,
                AUTOSCALER_TAINT_WAIT.as_secs()
            ),
            Self::Hold { nodes } => format!(
                "annotate {} with {}",
                nodes.join(", "),
                marks::SCALE_DOWN_DISABLED
            ),
            Self::Release { nodes } => format!(
                "take {} off {}",
                marks::SCALE_DOWN_DISABLED,
                nodes.join(", ")
            ),
            Self::Cordon { nodes } => format!("cordon {}", nodes.join(", ")),
            Self::Reopen { nodes } => format!("untaint and uncordon {}", nodes.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::attempts::CallAttempt;

    #[test]
    fn a_change_of_a_group_is_told_by_the_operation_that_makes_it() {
        let told = |source, max| {
            let act = CordonBlueAct::Configure {
                change: NodegroupChange {
                    max: Some(max),
                    ..NodegroupChange::default()
                },
                request: NodegroupRequest {
                    attempt: CallAttempt::default(),
                    modified: None,
                },
            };
            act.describe(source, "web")
        };
        let managed = told(NodeSource::ManagedGroup, 3);
        assert_eq!(managed, "UpdateNodegroupConfig web: max size 3");
        let own = told(NodeSource::AutoScalingGroup, 3);
        assert_eq!(own, "UpdateAutoScalingGroup web: max size 3");
        let closed = told(NodeSource::NodePool, 1);
        assert!(closed.contains("limits of NodePool web to 0"), "{closed}");
        let opened = told(NodeSource::NodePool, i32::MAX);
        assert!(opened.contains("its limits back"), "{opened}");
    }
}
