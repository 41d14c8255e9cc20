//! LimitRanges: what containers get that do not state it (K8S-ADM-3).

use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{as_object_mut, list_at, list_at_mut, slot_at, text_at, value_at};
use super::super::kinds::LIMIT_RANGES;

/// Gives a pod's containers the requests and limits that the namespace's LimitRanges say.
pub fn fill_defaults(cluster: &SimCluster, ns: &str, pod: &mut Value) {
    let ranges = cluster.store.objects_of(LIMIT_RANGES, ns);
    let items: Vec<Value> = ranges
        .flat_map(|(_, range)| list_at(range, "spec.limits"))
        .filter(|item| text_at(item, "type") == "Container")
        .cloned()
        .collect();
    for item in &items {
        for list in ["spec.containers", "spec.initContainers"] {
            if value_at(pod, list).is_none() {
                continue;
            }
            for container in list_at_mut(pod, list) {
                // A limit that is stated is the request too.
                let stated = value_at(container, "resources.limits").cloned();
                merge(container, "resources.requests", stated.as_ref());
                merge(container, "resources.limits", item.get("default"));
                merge(container, "resources.requests", item.get("defaultRequest"));
            }
        }
    }
}

/// Puts into the map at `path` what it lacks of `from`.
fn merge(container: &mut Value, path: &str, from: Option<&Value>) {
    for (resource, amount) in from.and_then(Value::as_object).into_iter().flatten() {
        let map = as_object_mut(slot_at(container, path));
        map.entry(resource.clone()).or_insert(amount.clone());
    }
}
