//! What Kubernetes says, cut down to what a decision needs.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::pod_admission::PodAdmission;
use super::pod_identity::PodCloudUse;
use super::scheduling::{NodeSelector, PodTemplate, Scheduling};
use super::volumes::NodeVolume;

/// Namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamespacedName {
    pub namespace: String,
    pub name: String,
}

impl NamespacedName {
    /// Returns the name of an object; `namespace` is empty for objects of the cluster.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A node, cut down to what decisions and messages need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
    /// Such as `aws:///us-east-1a/i-0123`.
    pub provider_id: Option<String>,
    /// True, False or Unknown; Unknown when the node has no Ready condition.
    pub ready: String,
    pub ready_since: Option<Timestamp>,
    /// Such as `v1.27.16-eks-473151a`.
    pub kubelet_version: String,
    /// Such as `Amazon Linux 2023.7.20250609`.
    #[serde(default)]
    pub os_image: String,
    pub allocatable: Resources,
    /// Other resources than CPU, memory and pods, such as ephemeral-storage and nvidia.com/gpu. Bytes or a number.
    #[serde(default)]
    pub other_allocatable: BTreeMap<String, i64>,
    pub created: Option<Timestamp>,
    pub deleting: bool,
    /// The Auto Scaling group behind a node of no managed node group; the node itself does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_managed_group: Option<String>,
}

impl Node {
    /// The EC2 instance behind the node, read from the provider id.
    pub fn instance_id(&self) -> Option<&str> {
        self.provider_id
            .as_deref()?
            .rsplit('/')
            .next()
            .filter(|id| id.starts_with("i-"))
    }

    /// The node's zone.
    pub fn zone(&self) -> Option<&str> {
        self.labels
            .get("topology.kubernetes.io/zone")
            .map(String::as_str)
    }

    /// What EKS says it is: auto, fargate or hybrid.
    fn compute_type(&self) -> Option<&str> {
        let label = self.labels.get("eks.amazonaws.com/compute-type");
        label.map(String::as_str)
    }

    /// Whether it is a node of EKS Auto Mode, which EKS itself replaces.
    pub fn is_auto_mode(&self) -> bool {
        self.compute_type() == Some("auto")
    }

    /// Whether it is the node of one pod on Fargate.
    pub fn is_fargate(&self) -> bool {
        self.compute_type() == Some("fargate")
    }

    /// Whether it is a machine outside of AWS (EKS Hybrid Nodes).
    pub fn is_hybrid(&self) -> bool {
        self.compute_type() == Some("hybrid")
    }

    /// The group the node belongs to: EKS's by its label, or a self-managed one.
    pub fn nodegroup_name(&self) -> Option<&str> {
        let managed = self.labels.get(super::marks::NODEGROUP_LABEL);
        managed
            .or(self.self_managed_group.as_ref())
            .map(String::as_str)
    }

    /// Whether the kubelet says Ready.
    pub fn is_ready(&self) -> bool {
        self.ready == "True"
    }
}

/// A taint as Kubernetes spells it: NoSchedule, PreferNoSchedule, NoExecute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    pub key: String,
    pub value: Option<String>,
    pub effect: String,
}

/// A toleration of a pod, by the API server's own rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Absent: every key.
    pub key: Option<String>,
    /// Equal or Exists.
    pub operator: String,
    pub value: Option<String>,
    /// Absent: every effect.
    pub effect: Option<String>,
}

impl Toleration {
    /// Whether this lets a pod stay with `taint`.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.as_ref().is_none_or(|e| *e == taint.effect)
            && self.key.as_ref().is_none_or(|k| *k == taint.key)
            && (self.operator == "Exists"
                || self.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""))
    }
}

/// CPU in thousandths, memory in bytes, and a number of pods: asked for, or offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    /// How many pods a node takes; 0 for a pod's own requests.
    pub pods: i64,
}

/// The controller that owns an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub kind: String,
    pub name: String,
    pub uid: String,
}

/// A pod, cut down to what decisions and messages need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    pub key: NamespacedName,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// What makes it again: the owner with `controller: true`, else a custom resource.
    pub owner: Option<Owner>,
    pub node: Option<String>,
    /// Pending Running Succeeded Failed Unknown.
    pub phase: String,
    pub ready: bool,
    pub ready_since: Option<Timestamp>,
    pub deletion_timestamp: Option<Timestamp>,
    pub grace_seconds: i64,
    pub finalizers: Vec<String>,
    pub priority: i32,
    pub priority_class: Option<String>,
    pub tolerations: Vec<Toleration>,
    pub node_selector: BTreeMap<String, String>,
    pub requests: Resources,
    #[serde(default)]
    pub scheduling: Scheduling,
    /// Its emptyDir and hostPath volumes.
    #[serde(default)]
    pub node_volumes: Vec<NodeVolume>,
    /// Names of the PersistentVolumeClaims it mounts.
    pub claims: Vec<String>,
    /// It uses its node's address and takes none of its own.
    #[serde(default)]
    pub host_network: bool,
    /// A static pod's mirror.
    pub mirror: bool,
    /// Why it is not running, such as `ImagePullBackOff` or the scheduler's message.
    pub waiting: Option<String>,
    /// Runs until it is deleted (`restartPolicy: Always`), rather than to an end.
    #[serde(default = "always")]
    pub restart_always: bool,
    /// Who wrote `spec.nodeName` as it made the pod; none where a scheduler placed it, or where it is not known.
    #[serde(default)]
    pub placed_by: Option<String>,
    /// The least that its probes take until it is Ready.
    #[serde(default)]
    pub ready_delay_seconds: i64,
    pub created: Option<Timestamp>,
    #[serde(default)]
    pub cloud: PodCloudUse,
    #[serde(default)]
    pub admission: PodAdmission,
}

fn always() -> bool {
    true
}

impl Pod {
    /// Whether the pod has run to its end.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether it serves its node and ends with it, though no DaemonSet makes it: Longhorn's instance managers (CTL-9).
    pub fn is_of_its_node(&self) -> bool {
        let component = self.labels.get("longhorn.io/component");
        component.is_some_and(|c| c == "instance-manager")
    }

    /// Whether it is made to end by itself: a Job's, a CI runner's, a Spark driver's.
    pub fn runs_to_end(&self) -> bool {
        !self.mirror
            && !self.is_of_its_node()
            && (!self.restart_always || self.owner.as_ref().is_some_and(|o| o.kind == "Job"))
    }

    /// Its emptyDir volumes that somebody may miss.
    pub fn empty_dirs_with_data(&self) -> impl Iterator<Item = &NodeVolume> {
        let volumes = self.node_volumes.iter();
        volumes.filter(|v| v.is_empty_dir_with_data())
    }

    /// The directories of its node that it keeps data in.
    pub fn host_paths_with_data(&self) -> impl Iterator<Item = &NodeVolume> {
        let volumes = self.node_volumes.iter();
        volumes.filter(|v| v.is_host_path_with_data())
    }

    /// Whether a DaemonSet owns it.
    pub fn is_daemon_pod(&self) -> bool {
        self.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet")
    }
}

/// A PodDisruptionBudget with the counts of its status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pdb {
    pub key: NamespacedName,
    pub selector: Option<Selector>,
    pub min_available: Option<String>,
    pub max_unavailable: Option<String>,
    /// AlwaysAllow or IfHealthyBudget; absent is IfHealthyBudget.
    pub unhealthy_policy: Option<String>,
    pub allowed: i32,
    pub current_healthy: i32,
    pub desired_healthy: i32,
    pub expected: i32,
    pub generation: i64,
    pub observed_generation: i64,
    /// Names of pods whose eviction was accepted and not yet seen.
    pub disrupted: Vec<String>,
    /// What made it, such as a database's custom resource; none where a person or a chart did.
    #[serde(default)]
    pub owner: Option<Owner>,
    /// Why the disruption controller cannot work it out (condition DisruptionAllowed, reason SyncFailed).
    #[serde(default)]
    pub sync_failed: Option<String>,
}

/// A label selector: all of `match_labels` and all of `expressions` have to hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    pub match_labels: BTreeMap<String, String>,
    pub expressions: Vec<SelectorExpression>,
}

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SelectorExpression {
    pub key: String,
    /// In NotIn Exists DoesNotExist.
    pub operator: String,
    pub values: Vec<String>,
}

impl Selector {
    /// Whether the selector takes an object with these labels; an empty selector takes all.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels
            .iter()
            .all(|(k, v)| labels.get(k) == Some(v))
            && self.expressions.iter().all(|e| {
                let value = labels.get(&e.key);
                match e.operator.as_str() {
                    "In" => value.is_some_and(|v| e.values.contains(v)),
                    "NotIn" => value.is_none_or(|v| !e.values.contains(v)),
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }
}

/// A Deployment, ReplicaSet, StatefulSet, DaemonSet or Job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    pub kind: String,
    pub key: NamespacedName,
    pub uid: String,
    pub owner: Option<Owner>,
    pub labels: BTreeMap<String, String>,
    pub selector: Option<Selector>,
    pub template_labels: BTreeMap<String, String>,
    /// Wanted pods; for a DaemonSet the desired number scheduled, for a Job its parallelism.
    pub desired: i32,
    pub ready: i32,
    pub available: i32,
    pub updated: i32,
    pub generation: i64,
    pub observed_generation: i64,
    /// RollingUpdate, Recreate, OnDelete.
    pub strategy: Option<String>,
    pub max_surge: Option<String>,
    #[serde(default)]
    pub max_unavailable: Option<String>,
    pub paused: bool,
    /// Of a StatefulSet: its pods are made one after the other, each when those before it are Ready.
    #[serde(default)]
    pub one_after_another: bool,
    /// Of a ReplicaSet: why the API server refuses its new pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_refusal: Option<String>,
    /// Images of the template's containers.
    pub images: Vec<String>,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    #[serde(default)]
    pub template: PodTemplate,
    pub readiness_probe: bool,
    /// Of a cluster autoscaler: the flags that say which groups it manages.
    #[serde(default)]
    pub autoscaler_flags: Vec<String>,
}

/// A Service, as far as load balancers depend on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    pub key: NamespacedName,
    pub kind: String,
    pub selector: BTreeMap<String, String>,
    pub node_ports: Vec<i32>,
    /// Cluster or Local.
    pub external_traffic_policy: Option<String>,
    pub health_check_node_port: Option<i32>,
    pub annotations: BTreeMap<String, String>,
}

/// A PersistentVolume: what holds its data, and where it can be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    pub name: String,
    pub claim: Option<NamespacedName>,
    /// CSI driver, or the in-tree plugin's name.
    pub driver: Option<String>,
    pub handle: Option<String>,
    /// Zones the volume can be used in; empty: any.
    pub zones: Vec<String>,
    /// Node names the volume is bound to; empty: any.
    pub nodes: Vec<String>,
    /// Its required node affinity, whole.
    #[serde(default)]
    pub node_affinity: Option<NodeSelector>,
    pub access_modes: Vec<String>,
}

/// A VolumeAttachment: while it exists the volume is not free for another node (K8S-VOL-1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    pub name: String,
    pub node: String,
    pub volume: Option<String>,
    pub attached: bool,
}

/// A TargetGroupBinding of the AWS Load Balancer Controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetGroupBinding {
    pub key: NamespacedName,
    pub target_group_arn: Option<String>,
    pub target_type: Option<String>,
    pub service: Option<String>,
    pub node_selector: Option<Selector>,
    pub multi_cluster: bool,
}
