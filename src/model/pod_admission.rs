//! What the API server's admission asks of a pod that is made (K8S-ADM-1 to K8S-ADM-4): its priority class, its share of
//! quotas, its namespace's Pod Security level.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::kube::NamespacedName;

/// Priority classes that always exist.
pub const BUILT_IN_PRIORITY_CLASSES: [&str; 2] =
    ["system-node-critical", "system-cluster-critical"];

/// What a pod's specification means to admission, beside its requests and its priority class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodAdmission {
    /// Its limits: thousandths of a CPU, bytes, a number.
    pub limits: BTreeMap<String, i64>,
    /// What one of its containers does not state.
    pub unstated: Vec<ComputeResource>,
    /// It states neither requests nor limits (quality of service BestEffort).
    pub best_effort: bool,
    /// It has an `activeDeadlineSeconds` (quotas' scope Terminating).
    pub has_deadline: bool,
    /// What Pod Security would find.
    pub violations: Vec<SecurityViolation>,
}

/// A request or limit that a quota can ask every container to state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ComputeResource {
    RequestsCpu,
    RequestsMemory,
    LimitsCpu,
    LimitsMemory,
}

impl ComputeResource {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::RequestsCpu,
        Self::RequestsMemory,
        Self::LimitsCpu,
        Self::LimitsMemory,
    ];

    /// The names that quotas have for it.
    pub const fn quota_names(self) -> &'static [&'static str] {
        match self {
            Self::RequestsCpu => &["cpu", "requests.cpu"],
            Self::RequestsMemory => &["memory", "requests.memory"],
            Self::LimitsCpu => &["limits.cpu"],
            Self::LimitsMemory => &["limits.memory"],
        }
    }
}

/// What a pod takes of quotas, by the names that quotas use. `requests` and `limits`: by resource.
pub fn quota_use(
    requests: &BTreeMap<String, i64>,
    limits: &BTreeMap<String, i64>,
) -> BTreeMap<String, i64> {
    let mut all = BTreeMap::from([("pods".to_owned(), 1), ("count/pods".to_owned(), 1)]);
    for (resource, amount) in requests {
        all.insert(format!("requests.{resource}"), *amount);
        if !resource.contains('/') {
            all.insert(resource.clone(), *amount);
        }
    }
    for (resource, amount) in limits.iter().filter(|(r, _)| is_limited(r)) {
        all.insert(format!("limits.{resource}"), *amount);
    }
    all
}

/// Whether quotas know limits of a resource.
fn is_limited(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory" | "ephemeral-storage")
}

/// A level of the Pod Security Standards that forbids something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecurityLevel {
    Baseline,
    Restricted,
}

impl SecurityLevel {
    /// The level of a namespace's label `pod-security.kubernetes.io/enforce`; one that is not known counts as restricted.
    pub fn from_label(label: &str) -> Option<Self> {
        match label {
            "privileged" => None,
            "baseline" => Some(Self::Baseline),
            _ => Some(Self::Restricted),
        }
    }

    /// Its name in labels and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// A rule of the Pod Security Standards that a pod breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecurityViolation {
    AppArmor,
    AddedCapabilities,
    HostNamespaces,
    HostPathVolumes,
    HostPorts,
    /// From Kubernetes 1.34 on.
    ProbeHosts,
    Privileged,
    ProcMount,
    SeLinuxOptions,
    SeccompUnconfined,
    Sysctls,
    WindowsHostProcess,
    PrivilegeEscalation,
    KeptCapabilities,
    VolumeTypes,
    MayRunAsRoot,
    RunsAsRoot,
    SeccompUnset,
}

impl SecurityViolation {
    /// The API server's words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AppArmor => "forbidden AppArmor profile",
            Self::AddedCapabilities => "non-default capabilities",
            Self::HostNamespaces => "host namespaces",
            Self::HostPathVolumes => "hostPath volumes",
            Self::HostPorts => "hostPort",
            Self::ProbeHosts => "probe or lifecycle host",
            Self::Privileged => "privileged",
            Self::ProcMount => "procMount",
            Self::SeLinuxOptions => "seLinuxOptions",
            Self::SeccompUnconfined | Self::SeccompUnset => "seccompProfile",
            Self::Sysctls => "forbidden sysctls",
            Self::WindowsHostProcess => "hostProcess",
            Self::PrivilegeEscalation => "allowPrivilegeEscalation != false",
            Self::KeptCapabilities => "unrestricted capabilities",
            Self::VolumeTypes => "restricted volume types",
            Self::MayRunAsRoot => "runAsNonRoot != true",
            Self::RunsAsRoot => "runAsUser=0",
        }
    }

    /// Whether the level forbids it; what the level restricted has a stricter rule for is left to that.
    pub const fn is_forbidden_at(self, level: SecurityLevel) -> bool {
        match self {
            Self::AppArmor
            | Self::HostNamespaces
            | Self::HostPorts
            | Self::ProbeHosts
            | Self::Privileged
            | Self::ProcMount
            | Self::SeLinuxOptions
            | Self::Sysctls
            | Self::WindowsHostProcess => true,
            Self::AddedCapabilities | Self::HostPathVolumes | Self::SeccompUnconfined => {
                matches!(level, SecurityLevel::Baseline)
            }
            Self::PrivilegeEscalation
            | Self::KeptCapabilities
            | Self::VolumeTypes
            | Self::MayRunAsRoot
            | Self::RunsAsRoot
            | Self::SeccompUnset => matches!(level, SecurityLevel::Restricted),
        }
    }
}

/// A ResourceQuota.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceQuota {
    pub key: NamespacedName,
    /// By resource: thousandths of a CPU, bytes, a number.
    pub hard: BTreeMap<String, i64>,
    /// What the quota controller has counted; a resource that it has not is absent.
    pub used: BTreeMap<String, i64>,
    pub scopes: Vec<QuotaScope>,
}

/// What a quota asks of a pod to count it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaScope {
    /// Terminating NotTerminating BestEffort NotBestEffort PriorityClass CrossNamespacePodAffinity.
    pub name: String,
    /// In NotIn Exists DoesNotExist.
    pub operator: String,
    pub values: Vec<String>,
}

impl QuotaScope {
    /// Whether a pod is known to be in the scope.
    pub fn is_of(&self, pod: &PodAdmission, priority_class: Option<&str>) -> bool {
        let class = priority_class.unwrap_or_default();
        let named = || self.values.iter().any(|v| v == class);
        match (self.name.as_str(), self.operator.as_str()) {
            ("Terminating", _) => pod.has_deadline,
            ("NotTerminating", _) => !pod.has_deadline,
            ("BestEffort", _) => pod.best_effort,
            ("NotBestEffort", _) => !pod.best_effort,
            ("PriorityClass", "Exists") => !class.is_empty(),
            // A pod without a class has none of the label that the API server matches.
            ("PriorityClass", "In") => !class.is_empty() && named(),
            ("PriorityClass", "NotIn") => class.is_empty() || !named(),
            ("PriorityClass", "DoesNotExist") => class.is_empty(),
            _ => false,
        }
    }
}

/// By namespace: what its LimitRanges give to containers that do not state it.
pub type LimitDefaults = BTreeMap<String, BTreeSet<ComputeResource>>;
