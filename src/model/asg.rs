//! What Auto Scaling says of the groups behind node groups.

use serde::{Deserialize, Serialize};

/// DescribeAutoScalingGroups, one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Asg {
    pub name: String,
    pub min: i32,
    pub max: i32,
    pub desired: i32,
    pub zones: Vec<String>,
    pub instances: Vec<AsgInstance>,
    /// Target groups attached to the group, by either API.
    pub target_groups: Vec<String>,
    /// Names of classic load balancers attached to the group.
    #[serde(default)]
    pub load_balancers: Vec<String>,
    /// Absent in snapshots of older versions.
    #[serde(default)]
    pub arn: Option<String>,
    pub suspended: Vec<String>,
    pub tags: Vec<AsgTag>,
}

/// An instance as its group sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AsgInstance {
    pub id: String,
    pub zone: String,
    pub lifecycle: String,
    pub healthy: bool,
}

/// A tag of the group, and whether instances get it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AsgTag {
    pub key: String,
    pub value: String,
    pub propagate: bool,
}
