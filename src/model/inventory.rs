//! One consistent reading of a cluster: everything a route or a finding is decided from.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::admission::AdmissionWebhook;
use super::asg::WarmPoolReading;
use super::cni::{CniSettings, EniConfig};
use super::image::AmiImage;
use super::kube::{
    Attachment, NamespacedName, Node, Pdb, Pod, Service, TargetGroupBinding, Volume, Workload,
};
use super::limits::Limits;
use super::node_access::NodeAccess;
use super::node_pool::{KarpenterObjects, NodePool, pool_of};
use super::node_source::NodeSource;
use super::optimized_image::ImageLine;
use super::pod_admission::{LimitDefaults, ResourceQuota};
use super::pod_identity::PodIdentityAssociation;
use super::pool_group::pool_to_group;
use super::stack::StackReading;
use super::{AddonVersion, Minor, asg, ec2, eks, elb};

/// One reading of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    pub taken_at: Timestamp,
    pub region: String,
    pub cluster: eks::Cluster,
    /// Updates of the cluster that are in progress; read where EKS says that the cluster is UPDATING.
    #[serde(default)]
    pub updates: Vec<eks::Update>,
    /// What the API server says of itself at /version.
    pub server_version: Option<Minor>,
    pub cluster_versions: Vec<eks::ClusterVersion>,
    pub insights: Vec<eks::Insight>,
    /// Whether EKS was asked to judge them again first.
    #[serde(default)]
    pub insights_refresh: eks::InsightsRefreshOutcome,
    /// The managed ones, and self-managed Auto Scaling groups after them.
    pub nodegroups: Vec<eks::Nodegroup>,
    pub fargate_profiles: Vec<String>,
    pub addons: Vec<eks::Addon>,
    /// Add-on name -> minor -> versions offered, newest first. Covers every minor from the cluster's to the target.
    pub addon_catalog: BTreeMap<String, BTreeMap<Minor, Vec<eks::AddonOffer>>>,
    /// By Auto Scaling group name.
    pub asgs: BTreeMap<String, asg::Asg>,
    /// Lifecycle hooks by Auto Scaling group name; a group whose hooks could not be read has no entry.
    #[serde(default)]
    pub lifecycle_hooks: BTreeMap<String, Vec<asg::LifecycleHook>>,
    /// By Auto Scaling group name; a group of which it could not be read has no entry.
    #[serde(default)]
    pub group_automation: BTreeMap<String, asg::GroupAutomation>,
    /// Stacks that the plan deletes, by the group that goes with them; one that could not be read has no entry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stacks: BTreeMap<String, StackReading>,
    /// The warm pools of self-managed groups with their instances, by Auto Scaling group name; one of which they could not be
    /// read has no entry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub warm_pools: BTreeMap<String, WarmPoolReading>,
    /// By the instance profile's name; of those of which nothing shows that their nodes may join.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_access: BTreeMap<String, NodeAccess>,
    pub instances: Vec<ec2::Instance>,
    /// Subnets of the cluster and of its node groups.
    pub subnets: Vec<ec2::Subnet>,
    /// The template versions that node groups use.
    pub launch_templates: Vec<ec2::LaunchTemplateVersion>,
    /// Load balancers of the cluster's VPC and what hangs off them.
    pub load_balancers: Vec<elb::LoadBalancer>,
    pub listeners: Vec<elb::Listener>,
    pub rules: Vec<elb::ListenerRule>,
    pub target_groups: Vec<elb::TargetGroup>,
    /// Classic load balancers of the cluster's VPC.
    #[serde(default)]
    pub classic_balancers: Vec<elb::ClassicBalancer>,
    /// By target group ARN, and by the name of a classic load balancer.
    pub target_health: BTreeMap<String, Vec<elb::TargetHealth>>,
    pub nodes: Vec<Node>,
    pub pods: Vec<Pod>,
    pub pdbs: Vec<Pdb>,
    /// Deployments, ReplicaSets with pods, StatefulSets, DaemonSets, Jobs.
    pub workloads: Vec<Workload>,
    pub services: Vec<Service>,
    pub volumes: Vec<Volume>,
    pub attachments: Vec<Attachment>,
    pub target_group_bindings: Vec<TargetGroupBinding>,
    /// What Karpenter, or EKS Auto Mode, has; none where it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub karpenter: Option<KarpenterObjects>,
    /// How the network plugin gives addresses; none where it is not the VPC CNI, or its settings could not be read.
    #[serde(default)]
    pub cni: Option<CniSettings>,
    #[serde(default)]
    pub eni_configs: Vec<EniConfig>,
    /// By instance type, of those that the node groups use.
    #[serde(default)]
    pub interface_limits: BTreeMap<String, ec2::InterfaceLimits>,
    /// Webhooks that the API server asks before it stores objects.
    #[serde(default)]
    pub webhooks: Vec<AdmissionWebhook>,
    /// Labels by namespace; empty where they could not be read.
    #[serde(default)]
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Images that templates and the plan name.
    #[serde(default)]
    pub images: Vec<AmiImage>,
    /// What the account may have and the region has; none in snapshots of older versions.
    #[serde(default)]
    pub limits: Option<Limits>,
    /// None where they were not read.
    #[serde(default)]
    pub pod_identities: Option<Vec<PodIdentityAssociation>>,
    /// Service accounts with a role by annotation (IAM roles for service accounts); absent where they could not be read.
    #[serde(default)]
    pub accounts_with_role: Option<Vec<NamespacedName>>,
    /// Names of PriorityClasses; absent where they could not be read, as are the next two.
    #[serde(default)]
    pub priority_classes: Option<Vec<String>>,
    #[serde(default)]
    pub resource_quotas: Option<Vec<ResourceQuota>>,
    #[serde(default)]
    pub limit_defaults: Option<LimitDefaults>,
    /// JSON Schemas of the configuration of add-ons that have one, by add-on and version; an empty one takes none.
    #[serde(default)]
    pub addon_schemas: BTreeMap<String, BTreeMap<AddonVersion, String>>,
    /// Ids of the newest images that AWS makes for EKS, by the parameter that holds them; of those that the plan asks for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub optimized_images: BTreeMap<String, String>,
    /// Readings the upgrade can do without, and why they failed. Never silent: each becomes a finding.
    pub unread: Vec<Unread>,
}

/// A reading that failed without stopping the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unread {
    /// The operation, as IAM or RBAC names it.
    pub op: String,
    pub why: String,
}

impl Inventory {
    /// The node group of that name.
    pub fn find_nodegroup(&self, name: &str) -> Option<&eks::Nodegroup> {
        self.nodegroups.iter().find(|g| g.name == name)
    }

    /// The self-managed group in whose warm pool the node's instance is.
    pub fn pool_group_of(&self, node: &Node) -> Option<&str> {
        let mut holding = { self.warm_pools.iter() }.filter(|(_, pool)| pool.has_node(node));
        holding.next().map(|(group, _)| group.as_str())
    }

    /// The launch template version of a group, when it has one and it was read.
    pub fn template_of(&self, group: &eks::Nodegroup) -> Option<&ec2::LaunchTemplateVersion> {
        let wanted = group.launch_template.as_ref()?;
        let number = wanted.version.as_deref()?.parse::<i64>().ok()?;
        self.launch_templates
            .iter()
            .find(|t| Some(&t.id) == wanted.id.as_ref() && t.version == number)
    }

    /// The line of images that the group's own image is of; none where it is nobody's but the user's, or was not read.
    pub fn image_line_of(&self, group: &str) -> Option<ImageLine> {
        let template = self.template_of(self.find_nodegroup(group)?)?;
        let image = self
            .images
            .iter()
            .find(|i| Some(&i.id) == template.image.as_ref())?;
        ImageLine::of_image_name(&image.name)
    }

    /// The groups that EKS manages.
    pub fn managed_groups(&self) -> impl Iterator<Item = &eks::Nodegroup> {
        self.nodegroups.iter().filter(|g| g.source.is_managed())
    }

    /// The nodes of the group.
    pub fn nodes_of<'a>(&'a self, nodegroup: &'a str) -> impl Iterator<Item = &'a Node> {
        self.nodes
            .iter()
            .filter(move |n| n.nodegroup_name() == Some(nodegroup))
    }

    /// Takes NodePools for groups: the plan has eksup replace their nodes.
    pub fn add_pool_groups<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let Some(objects) = &self.karpenter else {
            return;
        };
        for pool in names.filter_map(|name| objects.find_pool(name)) {
            // A rehearsal reads twice.
            if self
                .nodegroups
                .iter()
                .any(|g| g.name == pool.name && g.source == NodeSource::NodePool)
            {
                continue;
            }
            self.nodegroups.push(pool_to_group(objects, pool));
            let of_pool = |n: &&mut Node| pool_of(n) == Some(&pool.name);
            for node in self.nodes.iter_mut().filter(of_pool) {
                node.self_managed_group = Some(pool.name.clone());
            }
        }
    }

    /// The NodePools that were read; those of Karpenter and those of Auto Mode.
    pub fn node_pools(&self) -> impl Iterator<Item = &NodePool> {
        self.karpenter.iter().flat_map(|k| &k.pools)
    }

    /// The Auto Scaling groups behind a node group.
    pub fn asgs_of<'a>(&'a self, nodegroup: &'a str) -> impl Iterator<Item = &'a asg::Asg> {
        self.find_nodegroup(nodegroup)
            .into_iter()
            .flat_map(|g| &g.asgs)
            .filter_map(|name| self.asgs.get(name))
    }

    /// The pods on the nodes of a group.
    pub fn pods_of<'a>(&'a self, nodegroup: &'a str) -> impl Iterator<Item = &'a Pod> {
        let nodes = self.nodes_of(nodegroup).map(|n| n.name.as_str());
        let nodes: HashSet<&str> = nodes.collect();
        let on_them = move |p: &&Pod| p.node.as_deref().is_some_and(|n| nodes.contains(n));
        self.pods.iter().filter(on_them)
    }
}
