//! What a plan means where it is silent. The defaults themselves stand in [`super::keys`]: each is the careful choice.

use serde::de::DeserializeOwned;
use serde_json::Value;

#[cfg(test)]
use super::keys::UPGRADE_PLAN;
use super::keys::{KARPENTER_POOL, KeyMap, NODE_GROUP};
use super::types::{Capacity, KarpenterPool, NodeGroup, Plan};
use super::value_reader::ReadValues;
use super::words::{PoolCapacity, Strategy};
#[cfg(test)]
use crate::model::Minor;

impl Plan {
    /// The smallest plan: a cluster and a version, everything else by default.
    #[cfg(test)]
    pub fn with_defaults(cluster: impl Into<String>, to: Minor) -> Self {
        with_defaults(
            &UPGRADE_PLAN,
            &serde_json::json!({"cluster": cluster.into(), "to": to}),
        )
    }

    /// The groups that the plan lists: managed, self-managed, and NodePools whose nodes eksup replaces.
    pub fn all_groups(&self) -> impl Iterator<Item = &NodeGroup> {
        let pools = self.karpenter.iter().filter_map(|p| p.group.as_ref());
        self.node_groups
            .iter()
            .chain(&self.auto_scaling_groups)
            .chain(pools)
    }

    /// The NodePools whose nodes eksup replaces.
    pub fn replaced_pools(&self) -> impl Iterator<Item = &str> {
        let replaced = self.karpenter.iter().filter(|p| p.group.is_some());
        replaced.map(|p| p.node_pool.as_str())
    }

    /// Whether nodes of this NodePool's green are made only for pods that have been evicted.
    pub fn makes_nodes_on_demand(&self, pool: &str) -> bool {
        let mut pools = self.karpenter.iter();
        pools.any(|p| p.node_pool == pool && p.capacity == PoolCapacity::OnDemand)
    }

    /// What the plan says of a NodePool, or what it means where it lists none; nothing for one that it does not list
    /// among others.
    pub fn karpenter_pool(&self, name: &str) -> Option<KarpenterPool> {
        if self.karpenter.is_empty() {
            return Some(KarpenterPool::with_defaults(name));
        }
        self.karpenter.iter().find(|p| p.node_pool == name).cloned()
    }

    /// What the plan says of a blue group, or what it means where it lists none.
    pub fn node_group(&self, blue: &str) -> NodeGroup {
        self.all_groups()
            .find(|g| g.blue == blue)
            .cloned()
            .unwrap_or_else(|| NodeGroup::with_defaults(blue, self.strategy))
    }
}

impl NodeGroup {
    /// A blue group with everything by default.
    pub fn with_defaults(blue: impl Into<String>, strategy: Strategy) -> Self {
        with_defaults(
            &NODE_GROUP,
            &serde_json::json!({"blue": blue.into(), "capacity": strategy.default_capacity()}),
        )
    }
}

impl KarpenterPool {
    /// A NodePool with everything by default.
    pub fn with_defaults(name: &str) -> Self {
        with_defaults(&KARPENTER_POOL, &serde_json::json!({"nodePool": name}))
    }
}

impl Strategy {
    /// How much green stands beside blue where the plan does not say.
    pub const fn default_capacity(self) -> Capacity {
        match self {
            // Rolling is asked for where a second whole group is too expensive: one node more is the least that works.
            Self::Rolling => Capacity::Surge(1),
            Self::BlueGreen | Self::Canary | Self::Recreate => Capacity::Full,
        }
    }
}

/// A map of a plan with these keys given and the others by default. The tables are constants, and a test reads all of them:
/// a default that is no value of its key cannot get here.
fn with_defaults<T: DeserializeOwned>(map: &KeyMap, given: &Value) -> T {
    let mut values: ReadValues = map.default_values();
    values.extend(given.as_object().cloned().unwrap_or_default());
    serde_json::from_value(Value::Object(values)).expect("the defaults of a table are its values")
}
