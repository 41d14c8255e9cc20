//! What the account keeps of a Fargate profile.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A Fargate profile of the cluster.
#[derive(Clone, Debug, Default)]
pub struct FargateProfile {
    pub name: String,
    pub arn: String,
    /// The other members of DescribeFargateProfile: podExecutionRoleArn, subnets, selectors, status and so on.
    pub spec: Map<String, Value>,
    pub tags: BTreeMap<String, String>,
}
