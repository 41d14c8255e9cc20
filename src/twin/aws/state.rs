//! What the account holds. The twin's own types: it does not reuse the program's.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::iam::IamAuthorizer;
use super::pool_registration::PoolRegistration;
pub use super::stack_state::*;
pub use super::update_state::*;
use crate::model::{AddonVersion, Minor};
use crate::twin::k8s::balancer_controller::BalancerControllerSight;

/// One account in one region.
#[derive(Clone, Debug, Default)]
pub struct AwsAccount {
    pub account: String,
    pub region: String,
    /// What the caller may do; None: everything.
    pub iam: Option<IamAuthorizer>,
    /// None: an account without a cluster.
    pub eks: Option<EksCluster>,
    /// By name.
    pub asgs: BTreeMap<String, AutoScalingGroup>,
    /// By id. Terminated ones stay, as in EC2, where they are seen for about an hour.
    pub instances: BTreeMap<String, Ec2Instance>,
    pub pool_registrations: BTreeMap<String, PoolRegistration>,
    /// By id.
    pub subnets: BTreeMap<String, VpcSubnet>,
    pub templates: BTreeMap<String, Ec2LaunchTemplate>,
    /// By name: what launch configurations hold, as CreateLaunchConfiguration spells it.
    pub launch_configurations: BTreeMap<String, Map<String, Value>>,
    /// Instance profile -> ARN of its role. One that is not here has a role of its own name, as those of the console do.
    pub instance_profiles: BTreeMap<String, String>,
    /// By id: AMIs and the kubelet each carries.
    pub images: BTreeMap<String, MachineImage>,
    pub elb: ElbState,
    pub cloudformation: CloudFormationState,
    pub deleted: DeletedResources,
    /// What was published to SNS: topic and message.
    pub published: Vec<(String, String)>,
    /// Access keys whose credentials have expired.
    pub expired_keys: BTreeSet<String>,
    /// Where DescribeCluster says the API server is, when the twin serves on a port.
    pub endpoint: Option<String>,
    pub switches: CloudSwitches,
    /// Instance types that a zone does not offer.
    pub not_offered: BTreeSet<(String, String)>,
    /// ClientToken of EC2 -> what was answered.
    pub client_tokens: BTreeMap<String, Value>,
    /// EBS volumes by id: their zone.
    pub volumes: BTreeMap<String, String>,
    /// Quotas by `service/code`, where they are not those of a large account.
    pub quotas: BTreeMap<String, f64>,
    /// By quota: vCPUs of instances that are none of the cluster's.
    pub other_cpus: BTreeMap<String, i64>,
    /// Counts launches and registrations.
    pub number: u64,
}

impl AwsAccount {
    /// The next number: whatever got a smaller one came earlier.
    pub fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// The ARN of an instance profile's role.
    pub fn role_of_profile(&self, name: &str) -> String {
        let known = self.instance_profiles.get(name).cloned();
        known.unwrap_or_else(|| format!("arn:aws:iam::{}:role/{name}", self.account))
    }

    /// The ARN of the role that an instance has; none without an instance profile.
    pub fn role_of(&self, launch: &InstanceLaunch) -> Option<String> {
        let profile = launch.profile.as_ref();
        profile.map(|name| self.role_of_profile(name))
    }
}

/// How the cloud behaves where real accounts differ or things go wrong.
#[derive(Clone, Debug, Default)]
pub struct CloudSwitches {
    /// UpdateClusterVersion refuses while a node group is older than the cluster (EKS did so before 2023).
    pub node_groups_must_match: bool,
    /// Zones in which no instance can be had.
    pub no_capacity: BTreeSet<String>,
    /// How many of the next instances run but never join the cluster.
    pub never_join: u32,
    /// Until then no credentials are good.
    pub expired_until: Option<Timestamp>,
    /// The next version updates of the control plane fail, each with this error code.
    pub control_plane_fails: Vec<String>,
    /// A load balancer controller keeps controller-tagged rules and the targets of TargetGroupBindings as it wants.
    pub controller: Option<LoadBalancerController>,
}

/// What a load balancer controller wants.
#[derive(Clone, Debug, Default)]
pub struct LoadBalancerController {
    /// Rule ARN -> the actions it writes back.
    pub rules: BTreeMap<String, Vec<Value>>,
    /// What is filled with nodes: target group ARN, or name of a classic load balancer -> which nodes, at which port.
    pub bindings: BTreeMap<String, ControllerBinding>,
    /// What it saw of the cluster, and when it last wrote its rules; none before its first look.
    pub seen: Option<(BalancerControllerSight, Timestamp)>,
}

/// What a controller fills with nodes: an `instance` TargetGroupBinding, or a Service of type LoadBalancer.
#[derive(Clone, Debug, Default)]
pub struct ControllerBinding {
    pub node_selector: BTreeMap<String, String>,
    /// Absent: the target group's own.
    pub port: Option<u16>,
    /// Namespace and name of the Service of the cloud provider, with which the whole load balancer goes (LBC-7).
    pub service: Option<(String, String)>,
}

/// A cluster and what belongs to it.
#[derive(Clone, Debug)]
pub struct EksCluster {
    pub name: String,
    pub arn: String,
    /// As DescribeCluster shows it; moves at the end of an update.
    pub version: Minor,
    /// As DescribeCluster shows it; follows an update with a lag.
    pub status: String,
    /// The members of DescribeCluster that nothing here changes.
    pub rest: Map<String, Value>,
    pub endpoint: String,
    pub tags: BTreeMap<String, String>,
    pub created: Timestamp,
    /// The update of the control plane that is running.
    pub running: Option<String>,
    /// From which version the control plane was last taken up, and when that ended.
    pub upgraded: Option<(Minor, Timestamp)>,
    pub updates: BTreeMap<String, EksUpdate>,
    /// Update ids in the order they were made.
    pub update_order: Vec<String>,
    pub nodegroups: BTreeMap<String, ManagedNodegroup>,
    pub addons: BTreeMap<String, InstalledAddon>,
    pub catalog: BTreeMap<String, CatalogAddon>,
    pub versions: Vec<EksVersion>,
    pub insights: Vec<ClusterInsight>,
    /// When the running refresh of insights began; the last one's end.
    pub refresh: InsightsRefreshTimes,
    pub fargate: BTreeMap<String, super::fargate_profile::FargateProfile>,
    /// Configuration schemas that a snapshot has, by add-on and version; an empty one takes no configuration.
    pub schemas: BTreeMap<String, BTreeMap<String, String>>,
    /// By the principal's ARN.
    pub access_entries: BTreeMap<String, AccessEntry>,
    /// Service accounts whose pods get a role of their own: namespace and name.
    pub pod_identities: Vec<(String, String)>,
    /// Operation and clientRequestToken -> the request, and what was answered.
    pub tokens: BTreeMap<(String, String), (String, Value)>,
}

/// Who may use the cluster's API, by its access entry (EKS-AUTH-2).
#[derive(Clone, Debug)]
pub struct AccessEntry {
    pub principal: String,
    /// STANDARD, or one of those for nodes: EC2_LINUX EC2_WINDOWS FARGATE_LINUX EC2 HYBRID_LINUX.
    pub kind: String,
    pub groups: Vec<String>,
    pub username: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub created: Timestamp,
}

/// The refresh of insights.
#[derive(Clone, Debug, Default)]
pub struct InsightsRefreshTimes {
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
}

/// A managed node group.
#[derive(Clone, Debug)]
pub struct ManagedNodegroup {
    pub name: String,
    pub arn: String,
    pub version: Minor,
    /// With a custom AMI: the AMI's id.
    pub release: String,
    pub status: String,
    pub min: i64,
    pub max: i64,
    pub desired: i64,
    pub labels: BTreeMap<String, String>,
    /// In EKS's spelling: key, value, effect.
    pub taints: Vec<Value>,
    /// None until it is made.
    pub asg: Option<String>,
    /// It is DEGRADED until a scale-out succeeds, whatever its status shows meanwhile (EKS-NG-22).
    pub degraded: bool,
    pub health: Vec<EksIssue>,
    /// The other members of DescribeNodegroup, as they were asked for: subnets, instanceTypes, amiType and so on.
    pub spec: Map<String, Value>,
    pub tags: BTreeMap<String, String>,
    pub created: Timestamp,
    pub modified: Timestamp,
    /// The template EKS launches from: its own, or its copy of the user's.
    pub launch: InstanceLaunch,
    /// When its deletion began.
    pub deleting: Option<Timestamp>,
}

/// What instances of a group are made of.
#[derive(Clone, Debug, Default)]
pub struct InstanceLaunch {
    pub template: String,
    pub version: i64,
    pub image: String,
    pub instance_type: String,
    /// Instances get their image and kubelet from the user's template.
    pub custom: bool,
    /// Of the user's template, in base64.
    pub user_data: Option<String>,
    /// How far an answer of the instance metadata service travels; None: the user's template says nothing.
    pub hop_limit: Option<i64>,
    /// The instance profile that the user's template names, by its name.
    pub profile: Option<String>,
    /// Ids of the security groups that the user's template names.
    pub security_groups: Vec<String>,
    /// The launch configuration that stands in the template's place.
    pub configuration: Option<String>,
    pub spot: bool,
}

/// Where the instances of an Auto Scaling group come from.
#[derive(Clone, Debug, Default)]
pub enum LaunchSource {
    /// EKS's own template, which EKS keeps in [`AutoScalingGroup::launch`].
    #[default]
    Eks,
    /// A launch template and the version that was asked for, such as `$Latest`.
    Template { id: String, version: String },
    /// A mixed instances policy, as the API spells it.
    Mixed(Value),
    /// A launch configuration by name.
    Configuration(String),
}

/// An add-on of the cluster.
#[derive(Clone, Debug)]
pub struct InstalledAddon {
    pub name: String,
    pub arn: String,
    pub version: AddonVersion,
    pub status: String,
    pub health: Vec<EksIssue>,
    pub role: Option<String>,
    pub configuration: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub created: Timestamp,
    pub modified: Timestamp,
}

/// An add-on in the catalogue.
#[derive(Clone, Debug, Default)]
pub struct CatalogAddon {
    pub kind: String,
    /// Newest first.
    pub versions: Vec<CatalogAddonVersion>,
}

/// One version of an add-on in the catalogue.
#[derive(Clone, Debug)]
pub struct CatalogAddonVersion {
    pub version: AddonVersion,
    /// Minor -> whether it is the default there.
    pub minors: BTreeMap<Minor, bool>,
    pub architectures: Vec<String>,
    pub requires_configuration: bool,
    pub requires_iam: bool,
}

/// A version of Kubernetes EKS offers.
#[derive(Clone, Debug)]
pub struct EksVersion {
    pub version: Minor,
    pub status: String,
    pub default: bool,
    pub patch: String,
    pub end_of_standard: Option<Timestamp>,
    pub end_of_extended: Option<Timestamp>,
}

/// An insight.
#[derive(Clone, Debug)]
pub struct ClusterInsight {
    pub id: String,
    pub name: String,
    pub category: String,
    pub version: Option<Minor>,
    pub status: String,
    pub reason: String,
    pub description: String,
    pub recommendation: String,
    pub resources: Vec<String>,
    pub refreshed: Timestamp,
}

/// An Auto Scaling group.
#[derive(Clone, Debug, Default)]
pub struct AutoScalingGroup {
    pub name: String,
    pub arn: String,
    /// The node group it belongs to; None: a self-managed group.
    pub nodegroup: Option<String>,
    pub min: i64,
    pub max: i64,
    pub desired: i64,
    pub subnets: Vec<String>,
    pub source: LaunchSource,
    /// What the last instance was made of; with EKS's own template what the next one will be.
    pub launch: InstanceLaunch,
    /// Instance ids in launch order.
    pub members: BTreeMap<String, GroupMember>,
    /// Instances of its warm pool, which are none of the group's.
    pub pool: BTreeMap<String, GroupMember>,
    /// Target group ARN -> state of the traffic source.
    pub target_groups: BTreeMap<String, String>,
    /// Names of classic load balancers.
    pub load_balancers: BTreeSet<String>,
    pub suspended: BTreeSet<String>,
    /// Key -> value and whether instances get it.
    pub tags: BTreeMap<String, (String, bool)>,
    /// Lifecycle hooks beside EKS's own two, as DescribeLifecycleHooks shows them.
    pub hooks: Vec<Value>,
    pub settings: GroupSettings,
    /// DeleteAutoScalingGroup was called with ForceDelete: it is there until its last instance is gone.
    pub deleting: bool,
    pub created: Timestamp,
    /// The last failed launch, in Auto Scaling's words.
    pub failed_launch: Option<String>,
    /// What it has done, newest last.
    pub activities: Vec<ScalingActivity>,
}

/// What a group keeps as it was given, and what of it acts here.
#[derive(Clone, Debug, Default)]
pub struct GroupSettings {
    /// Members of DescribeAutoScalingGroups where they are not the default: HealthCheckType, TerminationPolicies and so on.
    pub members: Map<String, Value>,
    pub metrics: BTreeSet<String>,
    /// As DescribeWarmPool shows it, without its instances.
    pub warm_pool: Option<Value>,
    /// As DescribePolicies, DescribeScheduledActions and DescribeNotificationConfigurations show them.
    pub policies: Vec<Value>,
    pub schedules: Vec<Value>,
    pub notifications: Vec<Value>,
}

impl GroupSettings {
    /// New instances are protected from scale-in.
    pub fn protects_new(&self) -> bool {
        self.members.get("NewInstancesProtectedFromScaleIn") == Some(&Value::Bool(true))
    }

    /// The health checks of load balancers count.
    pub fn heeds_balancers(&self) -> bool {
        let kind = self.members.get("HealthCheckType").and_then(Value::as_str);
        kind.is_some_and(|k| k.split(',').any(|k| k.trim() == "ELB"))
    }
}

/// An instance as its group sees it.
#[derive(Clone, Debug, Default)]
pub struct GroupMember {
    pub zone: String,
    /// Pending Pending:Wait Pending:Proceed InService Terminating Terminating:Wait Terminating:Proceed; in a warm pool the same
    /// after `Warmed:`, and there Stopped Running Hibernated in place of InService.
    pub lifecycle: String,
    /// Order of launch.
    pub number: u64,
    /// Protected from scale-in.
    pub protected: bool,
    /// What it was made of.
    pub launch: InstanceLaunch,
    /// Lifecycle actions that nobody has completed: the hook's name and the action's token.
    pub waits: Vec<(String, String)>,
    pub in_service_since: Option<Timestamp>,
    /// It is taken out of service because the group became smaller.
    pub leaves_for_size: bool,
}

impl GroupMember {
    /// It counts towards the desired size: it is not on its way out.
    pub fn is_active(&self) -> bool {
        self.lifecycle == "InService" || self.lifecycle.starts_with("Pending")
    }
}

/// A scaling activity.
#[derive(Clone, Debug)]
pub struct ScalingActivity {
    pub id: String,
    pub began: Timestamp,
    /// None: it failed.
    pub instance: Option<String>,
    pub message: String,
    /// It ends the instance instead of launching it.
    pub ends: bool,
    /// When it was over.
    pub ended: Option<Timestamp>,
}

/// An EC2 instance.
#[derive(Clone, Debug)]
pub struct Ec2Instance {
    pub id: String,
    pub instance_type: String,
    pub zone: String,
    pub subnet: String,
    pub image: String,
    /// pending running stopped shutting-down terminated.
    pub state: String,
    pub address: String,
    pub dns: String,
    pub tags: BTreeMap<String, String>,
    pub launched: Timestamp,
    pub asg: Option<String>,
    /// It runs, but its kubelet never reaches the API server.
    pub never_joins: bool,
    pub joined: bool,
}

impl Ec2Instance {
    /// Whether EKS Auto Mode operates it; its node is called after it then (AUTO-2).
    pub fn is_auto_mode(&self) -> bool {
        self.tags.contains_key("eks:kubernetes-node-pool-name")
    }
}

/// A subnet.
#[derive(Clone, Debug)]
pub struct VpcSubnet {
    pub id: String,
    pub zone: String,
    pub zone_id: String,
    pub vpc: String,
    pub cidr: String,
    pub free: i64,
    /// How many addresses have been handed out here.
    pub given: u32,
}

/// A launch template with its versions, first first.
#[derive(Clone, Debug)]
pub struct Ec2LaunchTemplate {
    pub id: String,
    pub name: String,
    pub tags: BTreeMap<String, String>,
    pub default: i64,
    pub versions: Vec<Ec2TemplateVersion>,
    pub created: Timestamp,
}

/// A version of a launch template.
#[derive(Clone, Debug)]
pub struct Ec2TemplateVersion {
    pub number: i64,
    pub description: Option<String>,
    /// RequestLaunchTemplateData as EC2 spells it: ImageId, InstanceType, UserData and so on.
    pub data: Map<String, Value>,
    pub created: Timestamp,
}

/// An AMI.
#[derive(Clone, Debug)]
pub struct MachineImage {
    pub id: String,
    pub name: String,
    /// The AMI type, such as `AL2023_x86_64_STANDARD`; empty where EKS did not publish it.
    pub kind: String,
    pub arm: bool,
    /// The kubelet it carries, such as `1.29.15`.
    pub kubelet: String,
    pub owner: String,
}

/// Elastic Load Balancing.
#[derive(Clone, Debug, Default)]
pub struct ElbState {
    /// All by ARN.
    pub balancers: BTreeMap<String, ElbBalancer>,
    pub listeners: BTreeMap<String, ElbListener>,
    pub rules: BTreeMap<String, ElbRule>,
    pub groups: BTreeMap<String, ElbTargetGroup>,
    pub tags: BTreeMap<String, BTreeMap<String, String>>,
    /// Classic load balancers by name.
    pub classics: BTreeMap<String, ClassicElb>,
    /// Instances that health checks do not reach, whatever runs on them: somebody changed a security group or a route.
    pub unreachable: BTreeSet<String>,
}

/// A load balancer.
#[derive(Clone, Debug)]
pub struct ElbBalancer {
    pub arn: String,
    pub name: String,
    /// application or network.
    pub kind: String,
    pub dns: String,
    pub vpc: String,
    pub zones: Vec<String>,
}

/// A classic load balancer. Its tags are with those of the others, by name.
#[derive(Clone, Debug, Default)]
pub struct ClassicElb {
    pub vpc: String,
    pub zones: Vec<String>,
    /// The ports of instances that its listeners send traffic to.
    pub ports: Vec<u16>,
    /// Instances that somebody registered one by one; those of Auto Scaling groups that are attached come on top.
    pub registered: BTreeSet<String>,
    /// Instances that somebody took out one by one.
    pub deregistered: BTreeSet<String>,
}

/// A listener.
#[derive(Clone, Debug)]
pub struct ElbListener {
    pub arn: String,
    pub balancer: String,
    pub port: i64,
    pub protocol: String,
    /// The default actions, as ELB spells them.
    pub actions: Vec<Value>,
}

/// A rule that is not a listener's default.
#[derive(Clone, Debug)]
pub struct ElbRule {
    pub arn: String,
    pub listener: String,
    pub priority: String,
    pub conditions: Vec<Value>,
    pub actions: Vec<Value>,
    pub transforms: Vec<Value>,
    /// The ARN of the rule that stands for the listener's default actions; those live in the listener.
    pub default: bool,
}

/// A target group.
#[derive(Clone, Debug)]
pub struct ElbTargetGroup {
    pub arn: String,
    pub name: String,
    pub protocol: String,
    pub port: i64,
    pub target_type: String,
    pub vpc: String,
    pub interval: i64,
    pub healthy_threshold: i64,
    pub unhealthy_threshold: i64,
    /// Attributes, such as `deregistration_delay.timeout_seconds`.
    pub attributes: BTreeMap<String, String>,
    /// By id and port.
    pub targets: BTreeMap<(String, i64), ElbTarget>,
    /// Health checks are going on.
    pub checked: bool,
}

/// A registered target.
#[derive(Clone, Debug, Default)]
pub struct ElbTarget {
    pub state: ElbTargetState,
    /// Health checks in a row that agree, and what they say.
    pub passes: i64,
    pub fails: i64,
    /// Counts registrations, so that the end of an old draining does not remove a new registration.
    pub turn: u64,
}

/// What target health says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ElbTargetState {
    #[default]
    Initial,
    Healthy,
    /// With the reason, such as `Target.Timeout`.
    Unhealthy(&'static str),
    Draining,
}
