//! Settings of one node group: the keys that it gives, and the plan's own for all others.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::keys::NODE_GROUP;
use super::types::{Drain, NodeGroup, Plan, TrafficRoute, TrafficSettings};
use super::value_reader::ReadValues;
use super::words::PoolStrategy;

/// Settings of one node group in place of the plan's own.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct GroupSettings<T> {
    /// The keys that differ from the plan's own. Only these are part of the digest and of a plan that a journal keeps, so
    /// that a key that repeats the plan's own changes nothing.
    differing: ReadValues,
    /// The group's keys, and the plan's own for those that it does not give.
    pub effective: T,
}

impl<T> GroupSettings<T> {
    /// Whether the group gives a key a value of its own.
    pub fn differs_in(&self, key: &str) -> bool {
        self.differing.contains_key(key)
    }
}

impl<T> Serialize for GroupSettings<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.differing.serialize(to)
    }
}

/// The keys of a plan that list groups.
pub(super) const GROUP_LISTS: &[&str] = &["nodeGroups", "autoScalingGroups"];
/// The key that lists NodePools.
const POOL_LIST: &str = "karpenter";
/// What a NodePool whose nodes eksup replaces says as a blue group does.
const POOL_GROUP_KEYS: [&str; 5] = ["green", "ami", "drain", "traffic", "timeout"];

/// The keys of a group that stand in place of the plan's keys of the same name.
const MERGED_KEYS: &[&str] = &["drain", "traffic"];

/// Fills in what groups do not say from the plan's own maps, and drops what only repeats these.
pub fn merge_group_settings(plan: &mut ReadValues) {
    let defaults = MERGED_KEYS.iter().filter_map(|key| {
        let map = plan.get(*key)?.as_object()?;
        Some((*key, map.clone()))
    });
    let defaults: Vec<(&str, ReadValues)> = defaults.collect();
    for list in GROUP_LISTS {
        let groups = plan.get_mut(*list).and_then(Value::as_array_mut);
        for group in groups.into_iter().flatten() {
            if let Some(group) = group.as_object_mut() {
                merge_settings(group, &defaults);
            }
        }
    }
    let pools = plan.get_mut(POOL_LIST).and_then(Value::as_array_mut);
    for pool in pools.into_iter().flatten().filter_map(Value::as_object_mut) {
        let mut group = take_pool_group(pool);
        if pool.get("strategy") == Some(&json!(PoolStrategy::BlueGreen)) {
            merge_settings(&mut group, &defaults);
            pool.insert("group".to_owned(), Value::Object(group));
        }
    }
}

/// What a NodePool says as a blue group does, with a group's defaults.
fn take_pool_group(pool: &mut ReadValues) -> ReadValues {
    let mut group = NODE_GROUP.default_values();
    group.extend([
        ("blue".to_owned(), pool["nodePool"].clone()),
        ("capacity".to_owned(), json!("full")),
        ("deleteOwned".to_owned(), pool["changeOwned"].clone()),
    ]);
    for key in POOL_GROUP_KEYS {
        // How long is waited for is asked of the pool as well.
        let given = match key {
            "timeout" => pool.get(key).cloned(),
            _ => pool.remove(key),
        };
        group.extend(given.map(|value| (key.to_owned(), value)));
    }
    group
}

fn merge_settings(group: &mut ReadValues, defaults: &[(&str, ReadValues)]) {
    for (key, plans_own) in defaults {
        let Some(Value::Object(mut differing)) = group.remove(*key) else {
            continue;
        };
        differing.retain(|name, value| plans_own.get(name) != Some(value));
        if differing.is_empty() {
            continue;
        }
        let mut effective = plans_own.clone();
        effective.extend(differing.clone());
        let settings = json!({"differing": differing, "effective": effective});
        group.insert((*key).to_owned(), settings);
    }
}

impl Plan {
    /// How a group is emptied.
    pub fn drain_of(&self, blue: &str) -> &Drain {
        let group = self.all_groups().find(|g| g.blue == blue);
        group.map_or(&self.drain, |g| g.drain_or(&self.drain))
    }

    /// How the weights of a route are shifted.
    pub fn traffic_of(&self, node_group: Option<&str>) -> &TrafficSettings {
        let mut groups = self.all_groups();
        let group = node_group.and_then(|name| groups.find(|g| g.blue == name));
        let own = group.and_then(|g| g.traffic.as_ref());
        own.map_or(&self.traffic.settings, |own| &own.effective)
    }

    /// How blue is emptied: the plan's own, and that of each group that differs.
    pub fn all_drains(&self) -> impl Iterator<Item = &Drain> {
        let own = self.all_groups().filter_map(|g| g.drain.as_ref());
        std::iter::once(&self.drain).chain(own.map(|own| &own.effective))
    }

    /// The same, to be changed.
    pub fn all_drains_mut(&mut self) -> impl Iterator<Item = &mut Drain> {
        let pools = self.karpenter.iter_mut().filter_map(|p| p.group.as_mut());
        let groups = self.node_groups.iter_mut();
        let groups = groups.chain(&mut self.auto_scaling_groups).chain(pools);
        let own = groups.filter_map(|g| g.drain.as_mut());
        std::iter::once(&mut self.drain).chain(own.map(|own| &mut own.effective))
    }

    /// How weights are shifted: the plan's own, and that of each group that differs; to be changed.
    pub fn all_traffic_mut(&mut self) -> impl Iterator<Item = &mut TrafficSettings> {
        let pools = self.karpenter.iter_mut().filter_map(|p| p.group.as_mut());
        let groups = self.node_groups.iter_mut();
        let groups = groups.chain(&mut self.auto_scaling_groups).chain(pools);
        let own = groups.filter_map(|g| g.traffic.as_mut());
        std::iter::once(&mut self.traffic.settings).chain(own.map(|own| &mut own.effective))
    }

    /// The routes that belong to a group.
    pub fn routes_of<'a>(&'a self, blue: &'a str) -> impl Iterator<Item = &'a TrafficRoute> {
        let routes = self.traffic.routes.iter();
        routes.filter(move |r| r.node_group.as_deref() == Some(blue))
    }
}

impl NodeGroup {
    /// How the group is emptied, given the plan's own way.
    pub fn drain_or<'a>(&'a self, plans_own: &'a Drain) -> &'a Drain {
        self.drain.as_ref().map_or(plans_own, |own| &own.effective)
    }
}
