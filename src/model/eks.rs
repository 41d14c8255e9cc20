//! What EKS says of a cluster, its node groups, add-ons, updates, insights and versions.

use super::aws_status::{
    AddonStatus, ClusterStatus, InsightStatus, NodegroupStatus, VersionStatus,
};
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::node_source::NodeSource;
use super::{AddonVersion, Minor};

/// DescribeCluster, cut to what the program uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub name: String,
    pub arn: String,
    pub version: Minor,
    /// CREATING ACTIVE DELETING FAILED UPDATING PENDING.
    pub status: ClusterStatus,
    pub endpoint: Option<String>,
    /// Base64 of the PEM.
    pub certificate_authority: Option<String>,
    pub platform_version: Option<String>,
    pub role_arn: Option<String>,
    pub vpc_id: Option<String>,
    pub subnet_ids: Vec<String>,
    pub security_group_ids: Vec<String>,
    pub cluster_security_group_id: Option<String>,
    pub service_ipv4_cidr: Option<String>,
    /// ipv4 or ipv6: which addresses pods and services get.
    #[serde(default)]
    pub ip_family: Option<String>,
    /// STANDARD or EXTENDED.
    pub support_type: Option<String>,
    pub authentication_mode: Option<String>,
    /// EKS Auto Mode runs compute for this cluster.
    pub auto_mode: bool,
    pub health: Vec<HealthIssue>,
    pub tags: BTreeMap<String, String>,
    pub created_at: Option<Timestamp>,
}

/// An entry of a `health.issues` list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthIssue {
    pub code: String,
    pub message: String,
    pub resource_ids: Vec<String>,
}

/// An update of a cluster, node group or add-on, as DescribeUpdate answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    pub id: String,
    pub status: UpdateStatus,
    /// VersionUpdate, VersionRollback, ConfigUpdate, AddonUpdate, ...
    #[serde(rename = "type")]
    pub kind: String,
    pub params: BTreeMap<String, String>,
    pub created_at: Option<Timestamp>,
    /// `code: message (resources)`, one per error.
    pub errors: Vec<HealthIssue>,
}

/// How far an update has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateStatus {
    InProgress,
    Failed,
    Cancelled,
    Successful,
    /// A status this program does not know; treated as in progress.
    Unknown,
}

/// What an update belongs to, beside the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateOf<'a> {
    Cluster,
    Nodegroup(&'a str),
    Addon(&'a str),
}

/// A managed node group, as DescribeNodegroup answers it; or a self-managed one in the same words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nodegroup {
    pub name: String,
    pub arn: String,
    /// A self-managed group stands beside the managed ones and is none of EKS.
    #[serde(default, skip_serializing_if = "NodeSource::is_managed")]
    pub source: NodeSource,
    /// Absent for some groups with a custom AMI.
    pub version: Option<Minor>,
    /// With a custom AMI: the AMI's id.
    pub release_version: Option<String>,
    /// CREATING ACTIVE UPDATING DELETING CREATE_FAILED DELETE_FAILED DEGRADED.
    pub status: NodegroupStatus,
    pub capacity_type: Option<String>,
    pub scaling: Scaling,
    pub instance_types: Vec<String>,
    pub subnets: Vec<String>,
    pub remote_access: Option<RemoteAccess>,
    pub ami_type: Option<String>,
    pub node_role: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<NodegroupTaint>,
    pub asgs: Vec<String>,
    pub disk_size: Option<i32>,
    pub health: Vec<HealthIssue>,
    pub update_config: Option<UpdateConfig>,
    pub node_repair_config: Option<NodeRepairConfig>,
    pub warm_pool_config: Option<WarmPoolConfig>,
    pub launch_template: Option<LaunchTemplateRef>,
    pub tags: BTreeMap<String, String>,
    pub created_at: Option<Timestamp>,
    /// When EKS was last asked to change it. Absent in snapshots of older versions.
    #[serde(default)]
    pub modified_at: Option<Timestamp>,
}

/// Sizes of a node group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scaling {
    pub min: i32,
    pub max: i32,
    pub desired: i32,
}

/// A taint as EKS spells it: NO_SCHEDULE, NO_EXECUTE, PREFER_NO_SCHEDULE.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodegroupTaint {
    pub key: String,
    pub value: Option<String>,
    pub effect: String,
}

/// SSH access of a node group without a launch template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteAccess {
    pub ec2_ssh_key: Option<String>,
    pub source_security_groups: Vec<String>,
}

/// How EKS's own rolling update of the group behaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateConfig {
    pub max_unavailable: Option<i32>,
    pub max_unavailable_percentage: Option<i32>,
    pub update_strategy: Option<String>,
}

/// Node auto repair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRepairConfig {
    pub enabled: bool,
    pub max_unhealthy_node_threshold_count: Option<i32>,
    pub max_unhealthy_node_threshold_percentage: Option<i32>,
    pub max_parallel_nodes_repaired_count: Option<i32>,
    pub max_parallel_nodes_repaired_percentage: Option<i32>,
    pub overrides: Vec<NodeRepairOverride>,
}

/// One exception to node auto repair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRepairOverride {
    pub node_monitoring_condition: Option<String>,
    pub node_unhealthy_reason: Option<String>,
    pub min_repair_wait_time_mins: Option<i32>,
    pub repair_action: Option<String>,
}

/// A warm pool of the node group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WarmPoolConfig {
    pub enabled: bool,
    pub min_size: Option<i32>,
    pub max_group_prepared_capacity: Option<i32>,
    pub pool_state: Option<String>,
    pub reuse_on_scale_in: Option<bool>,
}

/// A launch template in a node group: EKS answers id, name and version, and takes only one of id and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaunchTemplateRef {
    pub id: Option<String>,
    pub name: Option<String>,
    pub version: Option<String>,
}

impl LaunchTemplateRef {
    /// The number of a launch configuration's only version: it has no versions, and EC2's numbers begin with 1.
    pub const CONFIGURATION_VERSION: i64 = 0;

    /// What stands for a launch configuration where a launch template is named: all that is judged of a template is
    /// judged of a configuration too.
    pub fn of_configuration(name: &str) -> Self {
        Self {
            id: Some(format!("{CONFIGURATION_PREFIX}{name}")),
            name: None,
            version: Some(Self::CONFIGURATION_VERSION.to_string()),
        }
    }

    /// The launch configuration that it stands for; none of a template.
    pub fn configuration(&self) -> Option<&str> {
        configuration_of_id(self.id.as_deref()?)
    }
}

/// What the ids of launch configurations begin with; those of templates begin with `lt-`.
const CONFIGURATION_PREFIX: &str = "launch-configuration/";

/// The launch configuration that an id of [`LaunchTemplateRef::of_configuration`] names.
pub fn configuration_of_id(id: &str) -> Option<&str> {
    id.strip_prefix(CONFIGURATION_PREFIX)
}

/// CreateNodegroup's input. Fields left out are not sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewNodegroup {
    pub name: String,
    pub scaling: Scaling,
    pub subnets: Vec<String>,
    pub node_role: String,
    pub instance_types: Vec<String>,
    pub ami_type: Option<String>,
    pub capacity_type: Option<String>,
    pub disk_size: Option<i32>,
    pub remote_access: Option<RemoteAccess>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<NodegroupTaint>,
    pub tags: BTreeMap<String, String>,
    pub update_config: Option<UpdateConfig>,
    pub node_repair_config: Option<NodeRepairConfig>,
    pub warm_pool_config: Option<WarmPoolConfig>,
    pub launch_template: Option<LaunchTemplateRef>,
    pub release_version: Option<String>,
}

/// What UpdateNodegroupConfig changes; what is empty stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodegroupChange {
    /// Sizes are sent one by one, so that a size the autoscaler moves meanwhile is not set back.
    pub min: Option<i32>,
    pub max: Option<i32>,
    pub desired: Option<i32>,
    pub add_taints: Vec<NodegroupTaint>,
    pub remove_taints: Vec<NodegroupTaint>,
}

/// An add-on that EKS manages, as DescribeAddon answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addon {
    pub name: String,
    pub version: AddonVersion,
    /// CREATING ACTIVE CREATE_FAILED UPDATING DELETING DELETE_FAILED DEGRADED UPDATE_FAILED.
    pub status: AddonStatus,
    pub health: Vec<HealthIssue>,
    pub service_account_role_arn: Option<String>,
    pub configuration_values: Option<String>,
}

/// One version of an add-on in the catalogue, for one Kubernetes minor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddonOffer {
    pub version: AddonVersion,
    /// The version EKS installs by default on this minor.
    pub default: bool,
    pub architectures: Vec<String>,
    pub requires_configuration: bool,
    pub requires_iam_permissions: bool,
}

/// UpdateAddon's input but for the configuration, which may hold what is secret: it is read where it is sent, and
/// stands in no route and no journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddonChange {
    pub name: String,
    pub version: AddonVersion,
    /// PRESERVE, OVERWRITE or NONE; always sent.
    pub resolve_conflicts: String,
    pub service_account_role_arn: Option<String>,
}

/// An insight of EKS about this cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Insight {
    pub id: String,
    pub name: String,
    /// UPGRADE_READINESS, MISCONFIGURATION, ROLLBACK_READINESS.
    pub category: String,
    /// The minor it speaks about.
    pub kubernetes_version: Option<Minor>,
    /// PASSING WARNING ERROR UNKNOWN.
    pub status: InsightStatus,
    pub reason: String,
    pub description: String,
    pub last_refresh: Option<Timestamp>,
    /// DescribeInsight's advice; read for insights that do not pass.
    pub recommendation: Option<String>,
    /// The resources it names, with their own status; read for insights that do not pass.
    pub resources: Vec<String>,
}

/// The last refresh of insights, as DescribeInsightsRefresh answers it.
#[derive(Clone, Debug, PartialEq)]
pub struct InsightsRefresh {
    /// Whether it is still under way.
    pub running: bool,
    /// Whether EKS gave it up, or says of it what is not known here.
    pub failed: bool,
    pub started_at: Option<Timestamp>,
    pub message: String,
}

/// What became of having EKS judge its insights again right before they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum InsightsRefreshOutcome {
    /// Nobody asked: a snapshot, a rehearsal, or no hop ahead.
    #[default]
    NotAsked,
    Completed,
    NotCompleted {
        why: String,
    },
}

/// A Kubernetes version and how EKS supports it, as DescribeClusterVersions answers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterVersion {
    pub version: Minor,
    pub status: VersionStatus,
    pub default: bool,
    pub patch: Option<String>,
    pub end_of_standard_support: Option<Timestamp>,
    pub end_of_extended_support: Option<Timestamp>,
}
