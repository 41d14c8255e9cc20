//! With whose rights pods call AWS.

use serde::{Deserialize, Serialize};

/// What a pod says of its calls to AWS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCloudUse {
    pub service_account: Option<String>,
    /// Of its containers.
    pub images: Vec<String>,
    /// It was given a role or keys of its own: by EKS's webhooks for roles of service accounts and for Pod Identity, or by
    /// environment variables.
    pub own_credentials: bool,
    /// Those of [`METADATA_FLAGS`] and [`METADATA_VARIABLES`] that its containers have.
    pub given: Vec<String>,
}

/// Flags that tell a controller of AWS what it would otherwise ask the metadata service for.
pub const METADATA_FLAGS: &[&str] = &["--aws-vpc-id", "--aws-vpc-tags", "--aws-region"];
/// Environment variables that do.
pub const METADATA_VARIABLES: &[&str] = &["AWS_REGION", "AWS_DEFAULT_REGION"];
/// Environment variables by which a container has credentials of its own.
pub const CREDENTIAL_VARIABLES: &[&str] = &[
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_ACCESS_KEY_ID",
];

/// The annotation of a service account that names its role.
pub const ROLE_ANNOTATION: &str = "eks.amazonaws.com/role-arn";

/// ListPodIdentityAssociations, one association: the service account's new pods get a role of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentityAssociation {
    pub namespace: String,
    pub service_account: String,
}
