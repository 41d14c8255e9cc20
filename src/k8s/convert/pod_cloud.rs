//! With whose rights a pod calls AWS.

use k8s_openapi::api::core::v1;

use super::object_key;
use crate::model::kube::NamespacedName;
use crate::model::pod_identity::{
    CREDENTIAL_VARIABLES, METADATA_FLAGS, METADATA_VARIABLES, PodCloudUse, ROLE_ANNOTATION,
};

/// A service account with the annotation by which EKS's webhook gives its new pods a role (CTL-8).
pub fn account_with_role(account: v1::ServiceAccount) -> Option<NamespacedName> {
    let annotations = account.metadata.annotations.as_ref()?;
    let has_role = annotations
        .get(ROLE_ANNOTATION)
        .is_some_and(|role| !role.is_empty());
    has_role.then(|| object_key(&account.metadata))
}

/// Reads it off the pod's containers: EKS's webhooks write there which role they get.
pub fn to_cloud_use(spec: &v1::PodSpec) -> PodCloudUse {
    let containers = spec.containers.iter();
    let all = || containers.clone();
    let variables = || {
        let each = all().flat_map(|c| c.env.iter().flatten());
        each.map(|e| e.name.as_str())
    };
    let flags = all()
        .flat_map(|c| c.args.iter().flatten().chain(c.command.iter().flatten()))
        .filter_map(|word| METADATA_FLAGS.iter().find(|f| word.starts_with(**f)));
    let given = flags
        .copied()
        .chain(variables().filter(|v| METADATA_VARIABLES.contains(v)));
    let mut given: Vec<String> = given.map(str::to_owned).collect();
    given.sort();
    given.dedup();
    PodCloudUse {
        service_account: spec.service_account_name.clone(),
        images: all().filter_map(|c| c.image.clone()).collect(),
        own_credentials: variables().any(|v| CREDENTIAL_VARIABLES.contains(&v)),
        given,
    }
}
