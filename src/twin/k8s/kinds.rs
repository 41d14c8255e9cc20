//! The kinds of objects the API server knows.

use std::borrow::Cow;

use serde_json::Value;

use super::json::text_at;

/// A kind, by its place in [`KindRegistry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KindId(u16);

/// What discovery says about a kind.
#[derive(Clone, Debug)]
pub struct ResourceKind {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub plural: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    pub namespaced: bool,
    pub short: &'static str,
    /// Whether it has a `/status` of its own, which then is the only way to write the status.
    pub status: bool,
    /// Whether it is built in; a custom kind knows no strategic merge and is listed with its `kind`.
    pub builtin: bool,
}

impl ResourceKind {
    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `deployments.apps`, or `pods` in the core group: how messages name it.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

const fn new_builtin(
    (group, version): (&'static str, &'static str),
    plural: &'static str,
    kind: &'static str,
    short: &'static str,
    namespaced: bool,
    status: bool,
) -> ResourceKind {
    ResourceKind {
        group: Cow::Borrowed(group),
        version: Cow::Borrowed(version),
        plural: Cow::Borrowed(plural),
        kind: Cow::Borrowed(kind),
        namespaced,
        short,
        status,
        builtin: true,
    }
}

const CORE: (&str, &str) = ("", "v1");
const APPS: (&str, &str) = ("apps", "v1");
const BATCH: (&str, &str) = ("batch", "v1");
const STORAGE: (&str, &str) = ("storage.k8s.io", "v1");
const NET: (&str, &str) = ("networking.k8s.io", "v1");
const RBAC: (&str, &str) = ("rbac.authorization.k8s.io", "v1");
const ADMISSION: (&str, &str) = ("admissionregistration.k8s.io", "v1");

macro_rules! table {
    ($($name:ident = $group:expr, $plural:literal, $kind:literal, $short:literal, $ns:literal, $status:literal;)*) => {
        table!(@consts 0u16; $($name)*);
        const BUILTIN: &[ResourceKind] = &[$(new_builtin($group, $plural, $kind, $short, $ns, $status)),*];
        #[cfg(test)]
        const NAMED: &[(KindId, &str)] = &[$(($name, $plural)),*];
    };
    (@consts $n:expr; $name:ident $($rest:ident)*) => {
        #[allow(dead_code, reason = "every kind has a name, also those nothing acts on")]
        pub const $name: KindId = KindId($n);
        table!(@consts $n + 1; $($rest)*);
    };
    (@consts $n:expr;) => {};
}

table! {
    NAMESPACES = CORE, "namespaces", "Namespace", "ns", false, true;
    NODES = CORE, "nodes", "Node", "no", false, true;
    PODS = CORE, "pods", "Pod", "po", true, true;
    SERVICES = CORE, "services", "Service", "svc", true, true;
    ENDPOINTS = CORE, "endpoints", "Endpoints", "ep", true, false;
    CONFIG_MAPS = CORE, "configmaps", "ConfigMap", "cm", true, false;
    SECRETS = CORE, "secrets", "Secret", "", true, false;
    SERVICE_ACCOUNTS = CORE, "serviceaccounts", "ServiceAccount", "sa", true, false;
    VOLUMES = CORE, "persistentvolumes", "PersistentVolume", "pv", false, true;
    CLAIMS = CORE, "persistentvolumeclaims", "PersistentVolumeClaim", "pvc", true, true;
    EVENTS = CORE, "events", "Event", "ev", true, false;
    REPLICATION_CONTROLLERS = CORE, "replicationcontrollers", "ReplicationController", "rc", true, true;
    RESOURCE_QUOTAS = CORE, "resourcequotas", "ResourceQuota", "quota", true, true;
    LIMIT_RANGES = CORE, "limitranges", "LimitRange", "limits", true, false;
    DEPLOYMENTS = APPS, "deployments", "Deployment", "deploy", true, true;
    REPLICA_SETS = APPS, "replicasets", "ReplicaSet", "rs", true, true;
    STATEFUL_SETS = APPS, "statefulsets", "StatefulSet", "sts", true, true;
    DAEMON_SETS = APPS, "daemonsets", "DaemonSet", "ds", true, true;
    CONTROLLER_REVISIONS = APPS, "controllerrevisions", "ControllerRevision", "", true, false;
    JOBS = BATCH, "jobs", "Job", "", true, true;
    CRON_JOBS = BATCH, "cronjobs", "CronJob", "cj", true, true;
    BUDGETS = ("policy", "v1"), "poddisruptionbudgets", "PodDisruptionBudget", "pdb", true, true;
    SLICES = ("discovery.k8s.io", "v1"), "endpointslices", "EndpointSlice", "", true, false;
    NEW_EVENTS = ("events.k8s.io", "v1"), "events", "Event", "ev", true, false;
    LEASES = ("coordination.k8s.io", "v1"), "leases", "Lease", "", true, false;
    STORAGE_CLASSES = STORAGE, "storageclasses", "StorageClass", "sc", false, false;
    ATTACHMENTS = STORAGE, "volumeattachments", "VolumeAttachment", "", false, true;
    CSI_NODES = STORAGE, "csinodes", "CSINode", "", false, false;
    CSI_DRIVERS = STORAGE, "csidrivers", "CSIDriver", "", false, false;
    PRIORITY_CLASSES = ("scheduling.k8s.io", "v1"), "priorityclasses", "PriorityClass", "pc", false, false;
    INGRESSES = NET, "ingresses", "Ingress", "ing", true, true;
    INGRESS_CLASSES = NET, "ingressclasses", "IngressClass", "", false, false;
    NETWORK_POLICIES = NET, "networkpolicies", "NetworkPolicy", "netpol", true, false;
    ROLES = RBAC, "roles", "Role", "", true, false;
    ROLE_BINDINGS = RBAC, "rolebindings", "RoleBinding", "", true, false;
    CLUSTER_ROLES = RBAC, "clusterroles", "ClusterRole", "", false, false;
    CLUSTER_ROLE_BINDINGS = RBAC, "clusterrolebindings", "ClusterRoleBinding", "", false, false;
    AUTOSCALERS = ("autoscaling", "v2"), "horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", true, true;
    CUSTOM_KINDS = ("apiextensions.k8s.io", "v1"), "customresourcedefinitions", "CustomResourceDefinition", "crd", false, true;
    VALIDATORS = ADMISSION, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", "", false, false;
    MUTATORS = ADMISSION, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", "", false, false;
}

/// Custom kinds whose definitions are known: group, version, plural, kind. None of them is in a namespace, and each has a
/// status of its own. They are served where a snapshot has a list of them, even an empty one.
const KNOWN_CUSTOM: &[(&str, &str, &str, &str)] = &[
    ("karpenter.sh", "v1", "nodepools", "NodePool"),
    ("karpenter.sh", "v1", "nodeclaims", "NodeClaim"),
    ("karpenter.k8s.aws", "v1", "ec2nodeclasses", "EC2NodeClass"),
    ("eks.amazonaws.com", "v1", "nodeclasses", "NodeClass"),
];

/// All kinds: those built in, and those a snapshot brought.
#[derive(Clone, Debug)]
pub struct KindRegistry(Vec<ResourceKind>);

impl Default for KindRegistry {
    fn default() -> Self {
        Self(BUILTIN.to_vec())
    }
}

impl KindRegistry {
    /// What is known about `res`.
    pub fn get(&self, res: KindId) -> &ResourceKind {
        &self.0[usize::from(res.0)]
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (KindId, &ResourceKind)> {
        self.0
            .iter()
            .enumerate()
            .map(|(i, k)| (KindId(i as u16), k))
    }

    /// The kind served at a group, version and plural.
    pub fn find_served(&self, group: &str, version: &str, plural: &str) -> Option<KindId> {
        self.all()
            .find(|(_, k)| k.group == group && k.version == version && k.plural == plural)
            .map(|(res, _)| res)
    }

    /// The kind of an object, by its own `apiVersion` and `kind`.
    pub fn kind_of_object(&self, api_version: &str, kind: &str) -> Option<KindId> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.all()
            .find(|(_, k)| k.group == group && k.version == version && k.kind == kind)
            .map(|(res, _)| res)
    }

    /// The kind whose list is at `path`; learned from its items when it is none of the built-in ones.
    pub fn learn_kind(&mut self, path: &str, items: &[Value]) -> Option<KindId> {
        let mut parts = path.trim_matches('/').split('/');
        let (group, version) = match parts.next()? {
            // The core group has no group in its path.
            "api" => ("", parts.next()?),
            "apis" => (parts.next()?, parts.next()?),
            _ => return None,
        };
        let plural = parts.next()?;
        // A built-in kind is not learned again: a snapshot's list of it is of the same kind.
        if let Some(res) = self.find_served(group, version, plural) {
            return Some(res);
        }
        if let Some(res) = self.learn_known(group, version, plural) {
            // The two kinds of karpenter.sh are installed together.
            if group == "karpenter.sh" {
                self.learn_known(group, version, "nodepools");
                self.learn_known(group, version, "nodeclaims");
            }
            return Some(res);
        }
        // An empty list of a custom kind tells neither its name nor whether it is in a namespace, so nothing is
        // learned.
        let first = items.first()?;
        self.0.push(ResourceKind {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            plural: plural.to_owned().into(),
            kind: text_at(first, "kind").to_owned().into(),
            namespaced: !text_at(first, "metadata.namespace").is_empty(),
            short: "",
            status: first.get("status").is_some(),
            builtin: false,
        });
        Some(KindId((self.0.len() - 1) as u16))
    }
}

impl KindRegistry {
    /// Adds a custom kind whose definition is known, unless it is served already.
    fn learn_known(&mut self, group: &str, version: &str, plural: &str) -> Option<KindId> {
        let (group, version, plural, kind) = KNOWN_CUSTOM
            .iter()
            .find(|(g, v, p, _)| (*g, *v, *p) == (group, version, plural))?;
        if let Some(res) = self.find_served(group, version, plural) {
            return Some(res);
        }
        self.0.push(ResourceKind {
            builtin: false,
            ..new_builtin((group, version), plural, kind, "", false, true)
        });
        Some(KindId((self.0.len() - 1) as u16))
    }

    /// The kind of a group by its name, at whichever version is served.
    pub fn find_kind(&self, group: &str, kind: &str) -> Option<KindId> {
        self.all()
            .find(|(_, k)| k.group == group && k.kind == kind)
            .map(|(res, _)| res)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_name_stands_for_its_own_row() {
        let kinds = KindRegistry::default();
        for (res, plural) in NAMED {
            assert_eq!(kinds.get(*res).plural, *plural);
        }
        assert_eq!(
            kinds.get(BUDGETS).qualified_resource(),
            "poddisruptionbudgets.policy"
        );
    }

    #[test]
    fn a_custom_kind_is_learned_from_its_items() {
        let mut kinds = KindRegistry::default();
        let item = json!({"apiVersion": "example.org/v1", "kind": "Wheel", "metadata": {"name": "default"}});
        let res = kinds
            .learn_kind("/apis/example.org/v1/wheels", &[item])
            .unwrap();
        assert_eq!(kinds.get(res).kind, "Wheel");
        assert!(!kinds.get(res).namespaced);
        assert!(
            kinds
                .learn_kind("/apis/example.org/v1/axles", &[])
                .is_none()
        );
    }

    #[test]
    fn kinds_of_karpenter_are_served_from_an_empty_list() {
        let mut kinds = KindRegistry::default();
        let res = kinds
            .learn_kind("/apis/karpenter.sh/v1/nodepools", &[])
            .unwrap();
        assert_eq!(kinds.get(res).kind, "NodePool");
        let claims = kinds.find_served("karpenter.sh", "v1", "nodeclaims");
        assert!(claims.is_some_and(|c| kinds.get(c).status));
        assert!(
            kinds
                .find_kind("karpenter.k8s.aws", "EC2NodeClass")
                .is_none()
        );
    }
}
