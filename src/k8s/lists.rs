//! Lists, as the API server gives them (for a snapshot) and cut down to the model.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::convert;
use crate::k8s::Kube;
use crate::model::admission::AdmissionWebhook;
use crate::model::cni::{CniSettings, EniConfig};
use crate::model::kube::{
    Attachment, Key, Node, Pdb, Pod, Service, TargetGroupBinding, Volume, Workload,
};
use crate::model::{ApiError, Class, Minor};

/// How many objects one page holds, as client-go asks for.
const PAGE: u32 = 500;

/// Where the two controllers keep their TargetGroupBindings.
pub const BINDINGS: [&str; 2] = [
    "/apis/elbv2.k8s.aws/v1beta1/targetgroupbindings",
    "/apis/eks.amazonaws.com/v1/targetgroupbindings",
];

/// A page of a list.
#[derive(Deserialize)]
pub(super) struct Page<T> {
    #[serde(default)]
    pub(super) metadata: PageMeta,
    #[serde(default = "Vec::new")]
    pub(super) items: Vec<T>,
}

/// What a list says of itself.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMeta {
    #[serde(default)]
    pub(super) resource_version: String,
    #[serde(default, rename = "continue")]
    pub(super) more: String,
}

impl Kube {
    /// Pages a list to its end. `path`: such as `/api/v1/pods` or `/apis/apps/v1/deployments`.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, ApiError> {
        self.list_as(path, |value: Value| value).await
    }

    /// Pages a list to its end, cutting each object down as soon as it is read.
    async fn list_as<T: DeserializeOwned, M>(
        &self,
        path: &str,
        convert: fn(T) -> M,
    ) -> Result<Vec<M>, ApiError> {
        Ok(self.list_at(path, convert).await?.0)
    }

    /// The same with the version of the list, from which a watch can go on.
    pub(super) async fn list_at<T: DeserializeOwned, M>(
        &self,
        path: &str,
        convert: fn(T) -> M,
    ) -> Result<(Vec<M>, String), ApiError> {
        let op = format!("list {}", path.rsplit('/').next().unwrap_or(path));
        let mut all = Vec::new();
        let mut more = String::new();
        loop {
            let query = if more.is_empty() {
                format!("{path}?limit={PAGE}")
            } else {
                format!("{path}?limit={PAGE}&continue={}", escaped(&more))
            };
            let page: Page<T> = match self.get(&op, &query).await {
                Ok(page) => page,
                // The list grew too old between two pages: take it whole, as client-go does.
                Err(error) if error.class == Class::Conflict && !more.is_empty() => {
                    all.clear();
                    self.get(&op, path).await?
                }
                Err(error) => return Err(error),
            };
            all.extend(page.items.into_iter().map(convert));
            more = page.metadata.more;
            if more.is_empty() {
                return Ok((all, page.metadata.resource_version));
            }
        }
    }

    /// What the API server says of itself.
    pub async fn server_version(&self) -> Result<Minor, ApiError> {
        let op = "get /version";
        let said: Value = self.get(op, "/version").await?;
        let text = said["gitVersion"].as_str().unwrap_or_default();
        Minor::from_reported(text).map_err(|e| ApiError::new(op, Class::Invalid, e.to_string()))
    }

    /// Every node.
    pub async fn nodes(&self) -> Result<Vec<Node>, ApiError> {
        self.list_as("/api/v1/nodes", convert::node).await
    }

    /// Every pod.
    pub async fn pods(&self) -> Result<Vec<Pod>, ApiError> {
        self.list_as("/api/v1/pods", convert::pod).await
    }

    /// Every PodDisruptionBudget.
    pub async fn pdbs(&self) -> Result<Vec<Pdb>, ApiError> {
        self.list_as("/apis/policy/v1/poddisruptionbudgets", convert::pdb)
            .await
    }

    /// Deployments, ReplicaSets, StatefulSets, DaemonSets and Jobs. ReplicaSets that want and have no pod, which
    /// deployments keep for their history, are left out.
    pub async fn workloads(&self) -> Result<Vec<Workload>, ApiError> {
        let (deployments, sets, stateful, daemons, jobs) = futures::try_join!(
            self.list_as("/apis/apps/v1/deployments", convert::deployment),
            self.list_as("/apis/apps/v1/replicasets", convert::living_replica_set),
            self.list_as("/apis/apps/v1/statefulsets", convert::stateful_set),
            self.daemon_sets(),
            self.list_as("/apis/batch/v1/jobs", convert::job),
        )?;
        Ok(deployments
            .into_iter()
            .chain(sets.into_iter().flatten())
            .chain(stateful)
            .chain(daemons)
            .chain(jobs)
            .collect())
    }

    /// ReplicaSets that want or have a pod, and StatefulSets: what puts a pod in the place of one that was moved.
    pub async fn replicated(&self) -> Result<Vec<Workload>, ApiError> {
        let (sets, stateful) = futures::try_join!(
            self.list_as("/apis/apps/v1/replicasets", convert::living_replica_set),
            self.list_as("/apis/apps/v1/statefulsets", convert::stateful_set),
        )?;
        Ok(sets.into_iter().flatten().chain(stateful).collect())
    }

    /// Every DaemonSet.
    pub async fn daemon_sets(&self) -> Result<Vec<Workload>, ApiError> {
        self.list_as("/apis/apps/v1/daemonsets", convert::daemon_set)
            .await
    }

    /// Every Service.
    pub async fn services(&self) -> Result<Vec<Service>, ApiError> {
        self.list_as("/api/v1/services", convert::service).await
    }

    /// Every PersistentVolume.
    pub async fn volumes(&self) -> Result<Vec<Volume>, ApiError> {
        self.list_as("/api/v1/persistentvolumes", convert::volume)
            .await
    }

    /// Every VolumeAttachment.
    pub async fn attachments(&self) -> Result<Vec<Attachment>, ApiError> {
        self.list_as(
            "/apis/storage.k8s.io/v1/volumeattachments",
            convert::attachment,
        )
        .await
    }

    /// How the VPC CNI plugin gives addresses; none where it does not run, or a setting cannot be read.
    pub async fn cni_settings(&self) -> Result<Option<CniSettings>, ApiError> {
        let path = "/apis/apps/v1/namespaces/kube-system/daemonsets";
        let found = self.list_as(path, convert::cni_settings).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// None where the cluster has no such resource.
    pub async fn eni_configs(&self) -> Result<Option<Vec<EniConfig>>, ApiError> {
        let path = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs";
        match self.list_as(path, convert::eni_config).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.class == Class::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Labels by namespace.
    pub async fn namespaces(&self) -> Result<BTreeMap<String, BTreeMap<String, String>>, ApiError> {
        let found = self
            .list_as("/api/v1/namespaces", convert::namespace)
            .await?;
        Ok(found.into_iter().collect())
    }

    /// Service accounts that an annotation gives a role (IAM roles for service accounts).
    pub async fn accounts_with_role(&self) -> Result<Vec<Key>, ApiError> {
        let found = self
            .list_as("/api/v1/serviceaccounts", convert::account_with_role)
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// How many volumes of each CSI driver a node takes, by node.
    pub async fn volume_limits(&self) -> Result<BTreeMap<String, BTreeMap<String, i64>>, ApiError> {
        let path = "/apis/storage.k8s.io/v1/csinodes";
        let found = self.list_as(path, convert::volume_limits).await?;
        Ok(found.into_iter().collect())
    }

    /// The webhooks of every ValidatingWebhookConfiguration.
    pub async fn validating_webhooks(&self) -> Result<Vec<AdmissionWebhook>, ApiError> {
        let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
        let found = self.list_as(path, convert::validating_webhooks).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The webhooks of every MutatingWebhookConfiguration.
    pub async fn mutating_webhooks(&self) -> Result<Vec<AdmissionWebhook>, ApiError> {
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        let found = self.list_as(path, convert::mutating_webhooks).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The bindings of the AWS Load Balancer Controller and of EKS Auto Mode; none where the cluster has neither resource.
    pub async fn target_group_bindings(&self) -> Result<Vec<TargetGroupBinding>, ApiError> {
        let mut all = Vec::new();
        for path in BINDINGS {
            match self.list_as(path, convert::target_group_binding).await {
                Ok(found) => all.extend(found),
                Err(error) if error.class == Class::Absent => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}

/// A continue token is base64 and may hold `+`, `/` and `=`.
fn escaped(token: &str) -> String {
    token
        .replace('%', "%25")
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D")
        .replace('&', "%26")
}
