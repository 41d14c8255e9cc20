//! With what a node registers that Karpenter or Auto Mode launched.

use std::collections::BTreeMap;

/// What a node of a pool registers with.
#[derive(Clone, Debug, Default)]
pub struct PoolRegistration {
    pub labels: BTreeMap<String, String>,
    /// Key, value and effect as Kubernetes spells it.
    pub taints: Vec<(String, String, String)>,
    /// Taints that agents take off: key and effect.
    pub startup_taints: Vec<(String, String)>,
    /// Answers of the instance metadata service do not reach pods.
    pub short_hop: bool,
}
