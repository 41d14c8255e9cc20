//! An Auto Scaling group as a cluster autoscaler sees it.

use std::collections::BTreeMap;

/// An Auto Scaling group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalingGroup {
    pub name: String,
    /// The managed node group; a self-managed group has its own name here.
    pub nodegroup: String,
    pub min: i64,
    pub max: i64,
    pub desired: i64,
    pub tags: BTreeMap<String, String>,
    /// Ids of the instances that are not on their way out.
    pub instances: Vec<String>,
}
