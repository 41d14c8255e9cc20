//! Lists, as the API server gives them (for a snapshot) and cut down to the model.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::convert;
use crate::k8s::KubeApi;
use crate::model::admission::AdmissionWebhook;
use crate::model::cni::{CniSettings, EniConfig};
use crate::model::kube::{
    Attachment, NamespacedName, Node, Pdb, Pod, Service, TargetGroupBinding, Volume, Workload,
};
use crate::model::pod_admission::{LimitDefaults, ResourceQuota};
use crate::model::{ApiError, ErrorClass, Minor};

/// How many objects one page holds, as client-go asks for.
const LIST_PAGE_SIZE: u32 = 500;

/// Where the two controllers keep their TargetGroupBindings.
pub const TARGET_GROUP_BINDING_PATHS: [&str; 2] = [
    "/apis/elbv2.k8s.aws/v1beta1/targetgroupbindings",
    "/apis/eks.amazonaws.com/v1/targetgroupbindings",
];

/// A page of a list.
#[derive(Deserialize)]
pub(super) struct ApiListPage<T> {
    #[serde(default)]
    pub(super) metadata: ApiListMeta,
    #[serde(default = "Vec::new")]
    pub(super) items: Vec<T>,
}

/// What a list says of itself.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiListMeta {
    #[serde(default)]
    pub(super) resource_version: String,
    #[serde(default, rename = "continue")]
    pub(super) more: String,
}

impl KubeApi {
    /// Pages a list to its end. `path`: such as `/api/v1/pods` or `/apis/apps/v1/deployments`.
    pub async fn list_raw(&self, path: &str) -> Result<Vec<Value>, ApiError> {
        self.list_converted(path, |value: Value| value).await
    }

    /// Pages a list to its end, cutting each object down as soon as it is read.
    pub(super) async fn list_converted<T: DeserializeOwned, M>(
        &self,
        path: &str,
        convert: fn(T) -> M,
    ) -> Result<Vec<M>, ApiError> {
        Ok(self.list_with_version(path, convert).await?.0)
    }

    /// Pages a list to its end. Returns the objects, cut down, and the list's resource version, from which a watch goes
    /// on.
    pub(super) async fn list_with_version<T: DeserializeOwned, M>(
        &self,
        path: &str,
        convert: fn(T) -> M,
    ) -> Result<(Vec<M>, String), ApiError> {
        let op = format!("list {}", path.rsplit('/').next().unwrap_or(path));
        // In pages: one answer with every pod of a large cluster takes long and much memory.
        let mut all = Vec::new();
        let mut more = String::new();
        loop {
            let query = if more.is_empty() {
                format!("{path}?limit={LIST_PAGE_SIZE}")
            } else {
                format!(
                    "{path}?limit={LIST_PAGE_SIZE}&continue={}",
                    escape_token(&more)
                )
            };
            let page: ApiListPage<T> = match self.get_json(&op, &query).await {
                Ok(page) => page,
                // The list grew too old between two pages: take it whole, as client-go does.
                Err(error) if error.class == ErrorClass::Conflict && !more.is_empty() => {
                    all.clear();
                    self.get_json(&op, path).await?
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
    pub async fn read_server_version(&self) -> Result<Minor, ApiError> {
        let op = "get /version";
        let said: Value = self.get_json(op, "/version").await?;
        let text = said["gitVersion"].as_str().unwrap_or_default();
        Minor::from_reported(text)
            .map_err(|e| ApiError::new(op, ErrorClass::Invalid, e.to_string()))
    }

    /// Every node.
    pub async fn list_nodes(&self) -> Result<Vec<Node>, ApiError> {
        let listed = self.list_converted("/api/v1/nodes", convert::to_node);
        let mut nodes = listed.await?;
        for node in &mut nodes {
            self.members.name_group(node);
        }
        Ok(nodes)
    }

    /// Every pod.
    pub async fn list_pods(&self) -> Result<Vec<Pod>, ApiError> {
        self.list_converted("/api/v1/pods", convert::to_pod).await
    }

    /// Every PodDisruptionBudget.
    pub async fn list_pdbs(&self) -> Result<Vec<Pdb>, ApiError> {
        self.list_converted("/apis/policy/v1/poddisruptionbudgets", convert::to_pdb)
            .await
    }

    /// Deployments, ReplicaSets, StatefulSets, DaemonSets and Jobs. ReplicaSets that want and have no pod, which
    /// deployments keep for their history, are left out.
    pub async fn list_workloads(&self) -> Result<Vec<Workload>, ApiError> {
        let (deployments, sets, stateful, daemons, jobs) = futures::try_join!(
            self.list_converted("/apis/apps/v1/deployments", convert::deployment_to_workload),
            self.list_converted(
                "/apis/apps/v1/replicasets",
                convert::active_replica_set_to_workload
            ),
            self.list_converted(
                "/apis/apps/v1/statefulsets",
                convert::stateful_set_to_workload
            ),
            self.list_daemon_sets(),
            self.list_converted("/apis/batch/v1/jobs", convert::job_to_workload),
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
    pub async fn list_replicated_workloads(&self) -> Result<Vec<Workload>, ApiError> {
        let (sets, stateful) = futures::try_join!(
            self.list_converted(
                "/apis/apps/v1/replicasets",
                convert::active_replica_set_to_workload
            ),
            self.list_converted(
                "/apis/apps/v1/statefulsets",
                convert::stateful_set_to_workload
            ),
        )?;
        Ok(sets.into_iter().flatten().chain(stateful).collect())
    }

    /// Every Deployment.
    pub async fn list_deployments(&self) -> Result<Vec<Workload>, ApiError> {
        self.list_converted("/apis/apps/v1/deployments", convert::deployment_to_workload)
            .await
    }

    /// Every DaemonSet.
    pub async fn list_daemon_sets(&self) -> Result<Vec<Workload>, ApiError> {
        self.list_converted("/apis/apps/v1/daemonsets", convert::daemon_set_to_workload)
            .await
    }

    /// Every Service.
    pub async fn list_services(&self) -> Result<Vec<Service>, ApiError> {
        self.list_converted("/api/v1/services", convert::to_service)
            .await
    }

    /// Every PersistentVolume.
    pub async fn list_volumes(&self) -> Result<Vec<Volume>, ApiError> {
        self.list_converted("/api/v1/persistentvolumes", convert::to_volume)
            .await
    }

    /// Every VolumeAttachment.
    pub async fn list_attachments(&self) -> Result<Vec<Attachment>, ApiError> {
        self.list_converted(
            "/apis/storage.k8s.io/v1/volumeattachments",
            convert::to_attachment,
        )
        .await
    }

    /// How the VPC CNI plugin gives addresses; none where it does not run, or a setting cannot be read.
    pub async fn read_cni_settings(&self) -> Result<Option<CniSettings>, ApiError> {
        let path = "/apis/apps/v1/namespaces/kube-system/daemonsets";
        let found = self.list_converted(path, convert::to_cni_settings).await?;
        Ok(found.into_iter().flatten().next())
    }

    /// None where the cluster has no such resource.
    pub async fn list_eni_configs(&self) -> Result<Option<Vec<EniConfig>>, ApiError> {
        let path = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs";
        match self.list_converted(path, convert::to_eni_config).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.class == ErrorClass::Absent => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Labels by namespace.
    pub async fn list_namespace_labels(
        &self,
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, ApiError> {
        let found = self
            .list_converted("/api/v1/namespaces", convert::to_namespace_labels)
            .await?;
        Ok(found.into_iter().collect())
    }

    /// Service accounts that an annotation gives a role (IAM roles for service accounts).
    pub async fn accounts_with_role(&self) -> Result<Vec<NamespacedName>, ApiError> {
        let found = self
            .list_converted("/api/v1/serviceaccounts", convert::account_with_role)
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// How many volumes of each CSI driver a node takes, by node.
    pub async fn volume_limits(&self) -> Result<BTreeMap<String, BTreeMap<String, i64>>, ApiError> {
        let path = "/apis/storage.k8s.io/v1/csinodes";
        let found = self.list_converted(path, convert::volume_limits).await?;
        Ok(found.into_iter().collect())
    }

    /// The names of the PriorityClasses.
    pub async fn list_priority_classes(&self) -> Result<Vec<String>, ApiError> {
        let path = "/apis/scheduling.k8s.io/v1/priorityclasses";
        let found = self.list_converted(path, convert::to_class_name).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Every ResourceQuota.
    pub async fn list_resource_quotas(&self) -> Result<Vec<ResourceQuota>, ApiError> {
        self.list_converted("/api/v1/resourcequotas", convert::to_resource_quota)
            .await
    }

    /// What LimitRanges give to containers that do not state it, by namespace.
    pub async fn read_limit_defaults(&self) -> Result<LimitDefaults, ApiError> {
        let path = "/api/v1/limitranges";
        let mut all = LimitDefaults::new();
        for (namespace, given) in self
            .list_converted(path, convert::to_limit_defaults)
            .await?
        {
            all.entry(namespace).or_default().extend(given);
        }
        Ok(all)
    }

    /// The webhooks of every ValidatingWebhookConfiguration.
    pub async fn list_validating_webhooks(&self) -> Result<Vec<AdmissionWebhook>, ApiError> {
        let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
        let found = self
            .list_converted(path, convert::to_validating_webhooks)
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The webhooks of every MutatingWebhookConfiguration.
    pub async fn list_mutating_webhooks(&self) -> Result<Vec<AdmissionWebhook>, ApiError> {
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        let found = self
            .list_converted(path, convert::to_mutating_webhooks)
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The bindings of the AWS Load Balancer Controller and of EKS Auto Mode; none where the cluster has neither resource.
    pub async fn list_target_group_bindings(&self) -> Result<Vec<TargetGroupBinding>, ApiError> {
        let mut all = Vec::new();
        for path in TARGET_GROUP_BINDING_PATHS {
            match self
                .list_converted(path, convert::to_target_group_binding)
                .await
            {
                Ok(found) => all.extend(found),
                Err(error) if error.class == ErrorClass::Absent => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}

/// A continue token is base64 and may hold `+`, `/` and `=`.
fn escape_token(token: &str) -> String {
    token
        .replace('%', "%25")
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D")
        .replace('&', "%26")
}
