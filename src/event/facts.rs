//! What a report tells of a run beside its steps: whose it is, what was found before it, which versions there were, what
//! became of nodes and pods, how many calls were made. All of it may be absent in files of earlier versions.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whose process this is and what it is held to; sent when a run is opened, resumed or rolled back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunFacts {
    pub run: String,
    /// `forward` or `rollback`.
    pub direction: String,
    pub rehearsal: bool,
    pub region: Option<String>,
    pub cluster_arn: Option<String>,
    /// Account and ARN of the credentials that make the calls; absent where they could not be read.
    pub account: Option<String>,
    pub caller: Option<String>,
    /// Host and process that hold the lock.
    pub holder: Option<String>,
    /// The version of eksup.
    pub eksup: Option<String>,
    pub steps: Vec<StepFacts>,
    /// What the plan consents to beyond the defaults.
    pub consents: Vec<ConsentNote>,
    /// What was found before the run was opened; absent where this process judged nothing.
    pub findings: Option<Vec<FindingNote>>,
}

/// A step as the route has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StepFacts {
    pub step: String,
    /// Such as `control-plane` or `drain`.
    pub kind: String,
    pub estimate_seconds: Option<u64>,
    /// Why it cannot be rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_return: Option<String>,
    /// A person has to approve it before it begins.
    pub needs_approval: bool,
}

/// A consent of the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsentNote {
    /// Where the plan says it, such as `drain.emptyDir`.
    pub key: String,
    pub value: String,
    /// What it is about, where it is not about everything.
    pub object: Option<String>,
}

/// A finding as it stood when the run was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FindingNote {
    /// `blocker`, `warning` or `info`.
    pub severity: String,
    pub code: String,
    pub object: String,
    pub detail: String,
    pub fix: String,
}

/// One reading of versions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VersionReading {
    /// `before` the run's first step, or `after` this process's last.
    pub moment: String,
    pub objects: Vec<ObjectVersion>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

/// The version of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectVersion {
    /// `control plane`, `add-on`, `node group` or `nodes` (what kubelets say, by node group).
    pub kind: String,
    pub name: String,
    pub version: String,
    /// Platform version, AMI release, size.
    pub detail: Option<String>,
}

/// A node changed on its way out of service, or back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatusChange {
    /// The step that empties it; none where the cluster's watch tells.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub step: String,
    pub node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// From the watch `joined` (not Ready yet), `open` (takes pods), `not_ready`, `cordoned` and `gone`; from a drain
    /// `evicting`, `waiting_budget`, `waiting_replacement`, `waiting_volume`, `waiting_target`, `waiting_job` and `empty`.
    pub state: String,
    /// The objects waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Pods that have to leave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<u64>,
}

/// A pod that has to leave its node waits, or goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatusChange {
    pub step: String,
    pub pod: String,
    pub node: String,
    /// `ready_to_go`, `waiting_budget`, `waiting_replacement`, `waiting_job`, `stopping`, `gone`.
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Targets of both colours, and the share of the traffic that the rules give green.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficReading {
    pub step: String,
    /// The least of all rules; absent where it could not be read.
    pub green_percent: Option<u64>,
    pub blue: ColourTraffic,
    pub green: ColourTraffic,
}

/// One colour's target group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ColourTraffic {
    pub target_group: String,
    pub healthy: Option<u64>,
    pub targets: Option<u64>,
    /// Requests since the last reading; absent where nobody counted them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
}

/// How often one call was made by a process, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CallCount {
    /// Such as `EKS DescribeCluster` or `kubernetes GET pods`.
    pub call: String,
    pub made: u64,
    /// Attempts that were throttled.
    pub throttled: u64,
    /// Other attempts that ended with an error, or without an answer.
    pub failed: u64,
}

/// A person's consent to a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApprovalNote {
    pub step: String,
    pub by: String,
    /// When it was given, where the approval says it.
    pub given_at: Option<Timestamp>,
}
