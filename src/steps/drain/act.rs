//! What a drain does.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::elb::RegisteredTarget;
use crate::model::kube::{NamespacedName, Pod};
use crate::steps::attempts::{CallAttempt, NodegroupRequest};

/// A pod, and that very one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodRef {
    pub key: NamespacedName,
    pub uid: String,
    /// How often its eviction was refused before, so that asking once more is another act.
    #[serde(default, skip_serializing_if = "is_first")]
    pub attempt: u32,
}

fn is_first(attempt: &u32) -> bool {
    *attempt == 0
}

impl PodRef {
    /// Refers to `pod`.
    pub fn of_pod(pod: &Pod) -> Self {
        Self {
            key: pod.key.clone(),
            uid: pod.uid.clone(),
            attempt: 0,
        }
    }

    /// Refers to `pod` and counts how often its eviction was refused in `attempts`, by uid: two tries of one pod are
    /// two acts then, and neither is taken for the other repeated without effect.
    pub fn with_attempts(pod: &Pod, attempts: &BTreeMap<String, u32>) -> Self {
        Self {
            attempt: attempts.get(&pod.uid).copied().unwrap_or(0),
            ..Self::of_pod(pod)
        }
    }
}

/// An instance in a target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainTarget {
    pub instance: String,
    pub target_group: String,
    /// The port at which it is registered; absent: the target group's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

impl DrainTarget {
    /// Returns the instance and its port, as target groups list them.
    pub fn as_registered(&self) -> RegisteredTarget {
        RegisteredTarget {
            instance: self.instance.clone(),
            port: self.port,
        }
    }
}

impl DrainStepAct {
    /// The same act, as one of `attempt`.
    pub fn with_attempt(mut self, attempt: CallAttempt) -> Self {
        if let Self::Grow { request, .. } = &mut self {
            request.attempt = attempt;
        }
        self
    }
}

/// An act of a drain. Each is safe to do again: marks are set to a value, and pods are named by uid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum DrainStepAct {
    /// Keeps nodes that joined late, of blue or of green, from the autoscaler's scale-down.
    Hold { nodes: Vec<String> },
    /// Taints nodes that joined after blue was closed, and keeps them from scale-down.
    Taint { nodes: Vec<String> },
    /// Closes nodes that joined after blue was.
    TaintAndCordon { nodes: Vec<String> },
    /// Begins with nodes: they leave controller-filled target groups and carry the time.
    Begin { nodes: Vec<String>, at: Timestamp },
    /// Evicts one wave of pods, each by its uid.
    Evict { pods: Vec<PodRef> },
    /// Deletes pods past their budget, as the plan consents to at a deadline.
    Delete { pods: Vec<PodRef>, why: String },
    /// Gives nodes up, as the plan consents to at a deadline.
    Skip { nodes: Vec<String>, why: String },
    /// Restarts a Deployment, so that its new pod is up before the old one goes.
    Restart {
        deployment: NamespacedName,
        at: Timestamp,
    },
    /// Asks EKS for a larger green, where pods have nowhere to go or the plan wants it ahead of the drain.
    Grow {
        desired: i32,
        request: NodegroupRequest,
    },
    /// Takes instances out of target groups in which a node is healthy only while it has pods of the service.
    Deregister { targets: Vec<DrainTarget> },
    /// Takes the marks of a drain off, and makes the nodes targets again where this drain took them out.
    Unmark {
        nodes: Vec<String>,
        #[serde(default)]
        register: Vec<DrainTarget>,
    },
    /// Opens nodes to pods again, where this run closed them.
    Reopen { nodes: Vec<String> },
    /// On rollback: what empties green.
    Leave { act: Box<DrainStepAct> },
}
