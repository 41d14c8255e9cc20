//! What Auto Scaling says of the groups behind node groups.

use serde::{Deserialize, Serialize};

use super::eks::LaunchTemplateRef;
use super::kube::Node;
use super::marks;
use super::warm_pool::WarmPool;

/// An Auto Scaling group, as DescribeAutoScalingGroups answers it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Asg {
    pub name: String,
    pub min: i32,
    pub max: i32,
    pub desired: i32,
    pub zones: Vec<String>,
    pub instances: Vec<AsgInstance>,
    /// Target groups attached to the group, by either API.
    pub target_groups: Vec<String>,
    /// Names of classic load balancers attached to the group.
    #[serde(default)]
    pub load_balancers: Vec<String>,
    /// Absent in snapshots of older versions.
    #[serde(default)]
    pub arn: Option<String>,
    pub suspended: Vec<String>,
    /// Names of the metrics that the group sends to CloudWatch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<String>,
    pub tags: Vec<AsgTag>,
    /// Its pool of instances beside those in service; the pool's instances are not told here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_pool: Option<WarmPoolReading>,
    /// New instances are protected from scale-in.
    #[serde(default)]
    pub protects_new: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    #[serde(default, skip_serializing_if = "AsgLaunch::is_unknown")]
    pub launch: AsgLaunch,
    /// DeleteAutoScalingGroup is refused, even of an empty group.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deletion_protected: bool,
    /// DeleteAutoScalingGroup was called and instances are ending.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
}

/// What an Auto Scaling group launches instances from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AsgLaunch {
    /// Also the template of a mixed instances policy.
    pub template: Option<LaunchTemplateRef>,
    /// The older way, which has no versions.
    pub configuration: Option<String>,
    /// Instance types that a mixed instances policy names.
    pub instance_types: Vec<String>,
    /// Some of them have a launch template of their own.
    pub own_templates: bool,
}

impl AsgLaunch {
    fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

impl Asg {
    /// What the group registers its instances with: target groups by ARN, classic load balancers by name.
    pub fn registration_targets(&self) -> impl Iterator<Item = &String> {
        self.target_groups.iter().chain(&self.load_balancers)
    }

    /// Whether the group registers its instances there.
    pub fn registers_with(&self, served: &str) -> bool {
        self.registration_targets().any(|s| s == served)
    }
}

/// A lifecycle hook of an Auto Scaling group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LifecycleHook {
    pub name: String,
    /// Such as `autoscaling:EC2_INSTANCE_LAUNCHING`.
    pub transition: String,
    /// CONTINUE or ABANDON, when nobody answers in time.
    pub default_result: String,
    /// The topic or queue that is told.
    pub notifies: Option<String>,
}

/// The hooks that EKS itself puts on the group of every managed node group (ASG-6).
pub const EKS_HOOKS: &[&str] = &["Launch-LC-Hook", "Terminate-LC-Hook"];

/// An instance as its group sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AsgInstance {
    pub id: String,
    pub zone: String,
    pub lifecycle: String,
    pub healthy: bool,
    /// It is protected from scale-in.
    #[serde(default)]
    pub protected: bool,
}

/// A group's warm pool as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WarmPoolReading {
    pub pool: WarmPool,
    /// It is marked for deletion: it is there until its last instance has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// Its instances; in the answer about the group itself they are not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<AsgInstance>,
}

impl WarmPoolReading {
    /// Whether the node's instance is in the pool.
    pub fn has_node(&self, node: &Node) -> bool {
        let id = node.instance_id();
        id.is_some_and(|id| self.instances.iter().any(|i| i.id == id))
    }
}

/// A tag of the group, and whether instances get it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AsgTag {
    pub key: String,
    pub value: String,
    pub propagate: bool,
}

/// What acts on an Auto Scaling group, or is told of what happens in it; a new group has none of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GroupAutomation {
    /// Names of scaling policies.
    pub policies: Vec<String>,
    /// Names of scheduled actions.
    pub schedules: Vec<String>,
    /// ARNs of the topics that are notified.
    pub topics: Vec<String>,
}

/// Whether the tags of a group say that a run of eksup suspended the process.
pub fn is_suspended_by_run(tags: &[AsgTag], process: &str) -> bool {
    let tag = marks::SUSPENDED_PROCESSES
        .iter()
        .find(|(p, _)| *p == process);
    tag.is_some_and(|(_, key)| tags.iter().any(|t| t.key == *key))
}

/// Processes of an Auto Scaling group whose suspension green gets from blue. Without the others (`Launch`, `Terminate`,
/// `AddToLoadBalancer`) it could be neither made nor filled nor emptied.
pub const CARRIED_SUSPENSIONS: &[&str] = &[
    "AZRebalance",
    "AlarmNotification",
    "HealthCheck",
    "InstanceRefresh",
    "ReplaceUnhealthy",
    "ScheduledActions",
];
