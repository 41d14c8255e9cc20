//! What a pod asks of the node it is to run on, as its specification says it. Preferences are left out: they keep no pod
//! off a node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::kube::{Resources, Selector, SelectorExpression};
use super::pod_admission::PodAdmission;

/// What a pod asks of its node beyond its node selector, tolerations, and requests of CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scheduling {
    /// Required node affinity.
    pub node_affinity: Option<NodeSelector>,
    /// Constraints of both kinds, DoNotSchedule and ScheduleAnyway.
    pub topology_spread: Vec<TopologySpread>,
    /// Required pod affinity.
    pub pod_affinity: Vec<PodAffinityTerm>,
    /// Required pod anti-affinity.
    pub pod_anti_affinity: Vec<PodAffinityTerm>,
    pub host_ports: Vec<HostPort>,
    /// Requests of resources other than CPU and memory, such as ephemeral-storage and nvidia.com/gpu. Bytes or a number.
    pub other_requests: BTreeMap<String, i64>,
    /// Of `spec.os`: linux or windows.
    pub os: Option<String>,
    /// Set where another scheduler than Kubernetes' own places the pod.
    pub scheduler: Option<String>,
}

/// A node selector: a node matches where it matches one of the terms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    pub terms: Vec<NodeSelectorTerm>,
}

/// One term: a node matches where it meets all requirements. An empty term matches no node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelectorTerm {
    /// Of the node's labels. Operators: In, NotIn, Exists, DoesNotExist, Gt, Lt.
    pub expressions: Vec<SelectorExpression>,
    /// Of the node's fields; Kubernetes knows `metadata.name` only.
    pub fields: Vec<SelectorExpression>,
}

/// A topology spread constraint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpread {
    pub max_skew: i32,
    pub topology_key: String,
    /// DoNotSchedule or ScheduleAnyway.
    pub when_unsatisfiable: String,
    /// Absent: it selects no pods.
    pub selector: Option<Selector>,
    pub min_domains: Option<i32>,
    /// Honor or Ignore; absent is Honor.
    pub node_affinity_policy: Option<String>,
    /// Honor or Ignore; absent is Ignore.
    pub node_taints_policy: Option<String>,
    pub match_label_keys: Vec<String>,
}

impl TopologySpread {
    /// Whether the constraint keeps a pod off a node.
    pub fn is_required(&self) -> bool {
        self.when_unsatisfiable == "DoNotSchedule"
    }
}

/// A required term of pod affinity or anti-affinity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodAffinityTerm {
    /// Absent: it selects no pods.
    pub selector: Option<Selector>,
    /// With no namespace selector, empty means the pod's own.
    pub namespaces: Vec<String>,
    /// By the namespaces' labels; an empty selector takes all namespaces.
    pub namespace_selector: Option<Selector>,
    pub topology_key: String,
    pub match_label_keys: Vec<String>,
    pub mismatch_label_keys: Vec<String>,
}

/// A port of the node that a pod takes for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    pub port: i32,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// The address it is bound to; `0.0.0.0` is all of them.
    pub ip: String,
}

impl HostPort {
    /// A TCP port on all of the node's addresses.
    #[cfg(test)]
    pub fn tcp_port(port: i32) -> Self {
        Self {
            port,
            protocol: "TCP".to_owned(),
            ip: ALL_ADDRESSES.to_owned(),
        }
    }

    /// Whether two pods that ask for these ports cannot run on one node.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let all_addresses = |ip: &str| ip == ALL_ADDRESSES;
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || all_addresses(&self.ip) || all_addresses(&other.ip))
    }
}

/// What a host port without an address is bound to.
pub const ALL_ADDRESSES: &str = "0.0.0.0";

/// What a workload's template says about the pods that will be made from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    pub requests: Resources,
    pub scheduling: Scheduling,
    /// The node that the template names (`spec.nodeName`): the pods go there whatever the scheduler would say.
    pub node: Option<String>,
    /// Claims that the template names: all pods of the workload share them.
    pub claims: Vec<String>,
    /// Names of a StatefulSet's claim templates: each pod has a claim of its own, `<name>-<pod>`.
    pub claim_templates: Vec<String>,
    /// Always, OnFailure or Never; absent is Always.
    pub restart_policy: Option<String>,
    pub host_network: bool,
    pub priority_class: Option<String>,
    pub admission: PodAdmission,
}
