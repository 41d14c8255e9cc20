//! What admission asks of pods, and the objects that it asks by: PriorityClasses, ResourceQuotas, LimitRanges.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{core::v1, scheduling::v1::PriorityClass};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::object_key;
use super::pod_security::find_violations;
use super::quantity::round_up_quantity;
use super::scheduling::effective_limits;
use crate::model::pod_admission::{ComputeResource, PodAdmission, QuotaScope, ResourceQuota};

/// What a pod's or a template's specification means to admission.
pub fn to_pod_admission(
    annotations: &BTreeMap<String, String>,
    spec: &v1::PodSpec,
) -> PodAdmission {
    let inits = spec.init_containers.iter().flatten();
    let all: Vec<&v1::Container> = spec.containers.iter().chain(inits).collect();
    let states_something = |r: &v1::ResourceRequirements| {
        let some = |list: &Option<BTreeMap<String, Quantity>>| {
            list.as_ref().is_some_and(|l| !l.is_empty())
        };
        some(&r.requests) || some(&r.limits)
    };
    let whole_pod = spec.resources.as_ref().is_some_and(states_something);
    let missing =
        |resource: &ComputeResource| all.iter().any(|c| !states(c.resources.as_ref(), *resource));
    let some_stated = all.iter().filter_map(|c| c.resources.as_ref());
    PodAdmission {
        limits: effective_limits(spec),
        // What is stated for the pod as a whole is enough.
        unstated: match whole_pod {
            true => Vec::new(),
            false => ComputeResource::ALL.into_iter().filter(missing).collect(),
        },
        best_effort: !whole_pod && !some_stated.into_iter().any(states_something),
        has_deadline: spec.active_deadline_seconds.is_some_and(|s| s >= 0),
        violations: find_violations(annotations, spec),
    }
}

/// Whether a container states it; the API server takes a limit for a request that is not stated.
fn states(resources: Option<&v1::ResourceRequirements>, resource: ComputeResource) -> bool {
    let has = |list: Option<&BTreeMap<String, Quantity>>, name: &str| {
        list.is_some_and(|l| l.contains_key(name))
    };
    let limits = resources.and_then(|r| r.limits.as_ref());
    let requests = resources.and_then(|r| r.requests.as_ref());
    match resource {
        ComputeResource::RequestsCpu => has(requests, "cpu") || has(limits, "cpu"),
        ComputeResource::RequestsMemory => has(requests, "memory") || has(limits, "memory"),
        ComputeResource::LimitsCpu => has(limits, "cpu"),
        ComputeResource::LimitsMemory => has(limits, "memory"),
    }
}

/// Returns a PriorityClass's name.
pub fn to_class_name(class: PriorityClass) -> Option<String> {
    class.metadata.name
}

/// A ResourceQuota. What it was given last counts once the quota controller has seen it.
pub fn to_resource_quota(quota: v1::ResourceQuota) -> ResourceQuota {
    let spec = quota.spec.unwrap_or_default();
    let status = quota.status.unwrap_or_default();
    // A scope by name alone means the same as one with the operator `Exists`.
    let plain = spec.scopes.into_iter().flatten().map(|name| QuotaScope {
        name,
        operator: "Exists".to_owned(),
        values: Vec::new(),
    });
    let selector = spec.scope_selector.and_then(|s| s.match_expressions);
    let selected = selector.into_iter().flatten().map(|e| QuotaScope {
        name: e.scope_name,
        operator: e.operator,
        values: e.values.unwrap_or_default(),
    });
    ResourceQuota {
        key: object_key(&quota.metadata),
        hard: quota_amounts(spec.hard.or(status.hard)),
        used: quota_amounts(status.used),
        scopes: plain.chain(selected).collect(),
    }
}

fn quota_amounts(list: Option<BTreeMap<String, Quantity>>) -> BTreeMap<String, i64> {
    let amount = |(name, quantity): (String, Quantity)| {
        let scale = match name.as_str() {
            "cpu" | "requests.cpu" | "limits.cpu" => 1000,
            _ => 1,
        };
        Some((name, round_up_quantity(&quantity.0, scale)?))
    };
    list.into_iter().flatten().filter_map(amount).collect()
}

/// A LimitRange's namespace, and what it gives to containers that do not state it.
pub fn to_limit_defaults(range: v1::LimitRange) -> (String, BTreeSet<ComputeResource>) {
    let mut given = BTreeSet::new();
    let items = range.spec.map(|s| s.limits).unwrap_or_default();
    for item in items.into_iter().filter(|i| i.type_ == "Container") {
        let stated = v1::ResourceRequirements {
            limits: item.default,
            requests: item.default_request,
            ..v1::ResourceRequirements::default()
        };
        let all = ComputeResource::ALL.into_iter();
        given.extend(all.filter(|resource| states(Some(&stated), *resource)));
    }
    (range.metadata.namespace.unwrap_or_default(), given)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::pod_admission::quota_use;

    #[test]
    fn a_quota_is_read_with_its_scopes_and_cpu_in_thousandths() {
        let quota = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "team"},
            "spec": {"hard": {"requests.cpu": "1500m", "limits.memory": "1Gi", "pods": "3"}, "scopes": ["NotTerminating"],
                "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}]}},
            "status": {"used": {"requests.cpu": "2"}},
        }));
        let quota = to_resource_quota(quota.unwrap());
        let hard: Vec<i64> = quota.hard.values().copied().collect();
        assert_eq!(
            (hard, quota.used["requests.cpu"]),
            (vec![1 << 30, 3, 1500], 2000)
        );
        let scopes: Vec<&str> = quota.scopes.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(scopes, ["NotTerminating", "PriorityClass"]);
    }

    #[test]
    fn what_one_container_does_not_state_is_unstated_unless_the_pod_does() {
        let mut spec: v1::PodSpec = serde_json::from_value(json!({
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "250m"}}}],
        }))
        .unwrap();
        let read = to_pod_admission(&BTreeMap::new(), &spec);
        use ComputeResource::{LimitsCpu, LimitsMemory, RequestsMemory};
        assert_eq!(read.unstated, [RequestsMemory, LimitsCpu, LimitsMemory]);
        assert!(!read.best_effort);
        let requests = BTreeMap::from([("cpu".to_owned(), 1250), ("nvidia.com/gpu".to_owned(), 1)]);
        let share = quota_use(&requests, &read.limits);
        let of = |name: &str| share.get(name).copied();
        assert_eq!(
            [of("cpu"), of("requests.cpu"), of("limits.cpu")],
            [Some(1250), Some(1250), Some(1000)]
        );
        assert_eq!(
            [
                of("requests.nvidia.com/gpu"),
                of("nvidia.com/gpu"),
                of("pods")
            ],
            [Some(1), None, Some(1)]
        );
        spec.resources = spec.containers[0].resources.clone();
        assert!(
            to_pod_admission(&BTreeMap::new(), &spec)
                .unstated
                .is_empty()
        );
    }

    #[test]
    fn a_limit_range_gives_containers_what_it_has_defaults_for() {
        let range = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "given"},
            "spec": {"limits": [{"type": "Pod", "max": {"cpu": "4"}},
                {"type": "Container", "default": {"memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]},
        }));
        let (namespace, given) = to_limit_defaults(range.unwrap());
        use ComputeResource::{LimitsMemory, RequestsCpu, RequestsMemory};
        assert_eq!(namespace, "shop");
        assert_eq!(given, [RequestsCpu, RequestsMemory, LimitsMemory].into());
    }
}
