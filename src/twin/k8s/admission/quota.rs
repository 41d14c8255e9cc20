//! ResourceQuotas: what a namespace's pods take, and whether one more has room (K8S-ADM-2, K8S-ADM-3). Counted is what is
//! there at the moment; the real controller counts a moment later.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{
    as_object_mut, cpu_millis, list_at, number_at, quantity_units, remove_at, slot_at, text_at,
    value_at,
};
use super::super::kinds::{PODS, RESOURCE_QUOTAS};
use super::super::pod_requests::PodRequests;
use super::super::status::ApiFailure;
use super::super::store::{ObjectKey, ObjectName, StoredObject};
use super::refuse_pod;

/// By resource as quotas name it: thousandths of a CPU, bytes, a number.
type QuotaAmounts = BTreeMap<String, i64>;

/// What of a quota every container must state.
const MUST_STATE: [&str; 6] = [
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.memory",
];

/// Refuses a pod that a quota of its namespace has no room for.
pub fn check_quotas(cluster: &SimCluster, ns: &str, pod: &Value) -> Result<(), ApiFailure> {
    let mut quotas = cluster.store.objects_of(RESOURCE_QUOTAS, ns).peekable();
    if quotas.peek().is_none() {
        return Ok(());
    }
    let asked = usage_of(pod);
    // Only quotas whose scopes include the pod count (K8S-ADM-2).
    for (_, quota) in quotas.filter(|(_, q)| is_counted(q, pod)) {
        let name = text_at(quota, "metadata.name");
        let hard = hard_amounts(quota);
        // What a container does not state is asked first, before any amount is compared (K8S-ADM-3).
        if let Some(missing) = unstated(pod, &hard) {
            let why = format!("failed quota: {name}: must specify {missing}");
            return Err(refuse_pod(cluster, pod, &why));
        }
        // Only resources that the pod asks for are compared: a quota that is overdrawn in another one does not refuse
        // it (K8S-ADM-2).
        let used = used_amounts(cluster, quota);
        let (mut requested, mut taken, mut limited) = (Vec::new(), Vec::new(), Vec::new());
        for (resource, limit) in &hard {
            let amount = asked.get(resource).copied().unwrap_or(0);
            let now = used.get(resource).copied().unwrap_or(0);
            if amount > 0 && now + amount > *limit {
                let said = |n| format!("{resource}={}", amount_text(resource, n));
                requested.push(said(amount));
                taken.push(said(now));
                limited.push(said(*limit));
            }
        }
        if !requested.is_empty() {
            let why = format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                requested.join(","),
                taken.join(","),
                limited.join(",")
            );
            return Err(refuse_pod(cluster, pod, &why));
        }
    }
    Ok(())
}

/// Writes what a quota's namespace uses of it.
pub fn reconcile(cluster: &mut SimCluster, name: &ObjectName) {
    let Some(quota) = cluster.store.find_object(RESOURCE_QUOTAS, name).cloned() else {
        return;
    };
    let counted = used_amounts(cluster, &quota);
    let hard = value_at(&quota, "spec.hard").cloned().unwrap_or(json!({}));
    let before = value_at(&quota, "status.used");
    let mut used = Map::new();
    // The status names what `spec.hard` limits and nothing else.
    for resource in hard.as_object().into_iter().flatten().map(|(r, _)| r) {
        // What is no pod's is as it was.
        let stays = before.and_then(|b| b.get(resource)).cloned();
        let now = match counted.get(resource) {
            Some(n) => json!(amount_text(resource, *n)),
            None => stays.unwrap_or(json!("0")),
        };
        used.insert(resource.clone(), now);
    }
    let key = ObjectKey {
        res: RESOURCE_QUOTAS,
        at: name.clone(),
    };
    cluster.write_status(&key, &[("hard", hard), ("used", used.into())]);
}

/// The quotas of a namespace.
pub fn quotas_in(cluster: &SimCluster, ns: &str) -> Vec<ObjectName> {
    let quotas = cluster.store.objects_of(RESOURCE_QUOTAS, ns);
    quotas.map(|(name, _)| name.clone()).collect()
}

fn hard_amounts(quota: &Value) -> QuotaAmounts {
    let hard = value_at(quota, "spec.hard").and_then(Value::as_object);
    let hard = hard.into_iter().flatten();
    hard.map(|(resource, amount)| (resource.clone(), read_amount(resource, amount)))
        .collect()
}

/// What the pods that a quota counts take.
fn used_amounts(cluster: &SimCluster, quota: &Value) -> QuotaAmounts {
    let ns = text_at(quota, "metadata.namespace");
    let pods = cluster.store.objects_of(PODS, ns);
    // Resources that no pod takes still have an amount, which the status shows as zero.
    let mut used: QuotaAmounts = [("pods", 0), ("count/pods", 0)]
        .map(|(name, n)| (name.to_owned(), n))
        .into();
    for resource in MUST_STATE {
        used.insert(resource.to_owned(), 0);
    }
    for (_, pod) in pods.filter(|(_, p)| is_counted(quota, p)) {
        // A pod that has ended is no longer charged, but its object still counts (K8S-ADM-2).
        let usage = match is_charged(cluster, pod) {
            true => usage_of(pod),
            false => QuotaAmounts::from([("count/pods".to_owned(), 1)]),
        };
        for (resource, amount) in usage {
            *used.entry(resource).or_default() += amount;
        }
    }
    used
}

/// A pod is charged until it has ended, or its time to stop is over.
fn is_charged(cluster: &SimCluster, pod: &StoredObject) -> bool {
    let ended = matches!(text_at(pod, "status.phase"), "Succeeded" | "Failed");
    let due: Option<Timestamp> = text_at(pod, "metadata.deletionTimestamp").parse().ok();
    !ended && due.is_none_or(|due| cluster.now <= due)
}

/// What a pod takes.
fn usage_of(pod: &Value) -> QuotaAmounts {
    let spec = value_at(pod, "spec").unwrap_or(&Value::Null);
    let mut usage = QuotaAmounts::from([("pods".to_owned(), 1), ("count/pods".to_owned(), 1)]);
    for (resource, amount) in by_resource(PodRequests::from_spec(spec)) {
        usage.insert(format!("requests.{resource}"), amount);
        // Of extended resources only requests are counted.
        if !resource.contains('/') {
            usage.insert(resource, amount);
        }
    }
    for (resource, amount) in by_resource(PodRequests::from_spec(&with_limits_only(spec))) {
        if matches!(&*resource, "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{resource}"), amount);
        }
    }
    usage
}

fn by_resource(sums: PodRequests) -> impl Iterator<Item = (String, i64)> {
    let both = [("cpu", sums.cpu), ("memory", sums.memory)];
    let both = both.map(|(name, n)| (name.to_owned(), n));
    both.into_iter().chain(sums.others)
}

/// The specification with limits in the place of requests.
fn with_limits_only(spec: &Value) -> Value {
    let mut spec = spec.clone();
    remove_at(&mut spec, "overhead");
    let swap = |part: &mut Value| {
        let limits = value_at(part, "resources.limits").cloned();
        as_object_mut(slot_at(part, "resources")).insert("requests".to_owned(), limits.into());
    };
    for list in ["containers", "initContainers"] {
        let all = spec.get_mut(list).and_then(Value::as_array_mut);
        all.into_iter().flatten().for_each(swap);
    }
    if spec.get("resources").is_some() {
        swap(&mut spec);
    }
    spec
}

/// What a quota counts and a container does not state, with the containers' names.
fn unstated(pod: &Value, hard: &QuotaAmounts) -> Option<String> {
    // Resources of the pod as a whole stand in for those of its containers (K8S-ADM-3).
    if value_at(pod, "spec.resources").is_some() {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let lists = ["spec.containers", "spec.initContainers"];
    for container in lists.iter().flat_map(|l| list_at(pod, l)) {
        for resource in MUST_STATE.into_iter().filter(|r| hard.contains_key(*r)) {
            let (kind, what) = resource.split_once('.').unwrap_or(("requests", resource));
            let has = |kind: &str| value_at(container, &format!("resources.{kind}.{what}"));
            // A limit is a request too, as the API server defaults it.
            if has(kind).or_else(|| has("limits")).is_none() {
                let names = missing.entry(resource).or_default();
                names.insert(text_at(container, "name"));
            }
        }
    }
    // The message sorts both the resources and the names of the containers, as the API server's does.
    let each = missing.into_iter().map(|(resource, names)| {
        let names: Vec<&str> = names.into_iter().collect();
        format!("{resource} for: {}", names.join(","))
    });
    let all: Vec<String> = each.collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Whether a pod is in all of a quota's scopes.
fn is_counted(quota: &Value, pod: &Value) -> bool {
    let plain = list_at(quota, "spec.scopes").iter();
    let mut plain = plain.filter_map(Value::as_str);
    plain.all(|scope| is_in_scope(pod, scope, "Exists", &[]))
        && list_at(quota, "spec.scopeSelector.matchExpressions")
            .iter()
            .all(|e| {
                let operator = text_at(e, "operator");
                is_in_scope(pod, text_at(e, "scopeName"), operator, list_at(e, "values"))
            })
}

fn is_in_scope(pod: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let class = text_at(pod, "spec.priorityClassName");
    let listed = || values.iter().any(|v| v == class);
    let deadline = number_at(pod, "spec.activeDeadlineSeconds").is_some();
    match (scope, operator) {
        ("Terminating", _) => deadline,
        ("NotTerminating", _) => !deadline,
        ("BestEffort", _) => is_best_effort(pod),
        ("NotBestEffort", _) => !is_best_effort(pod),
        ("PriorityClass", "Exists") => !class.is_empty(),
        ("PriorityClass", "In") => !class.is_empty() && listed(),
        ("PriorityClass", "NotIn") => class.is_empty() || !listed(),
        ("PriorityClass", "DoesNotExist") => class.is_empty(),
        _ => false,
    }
}

fn is_best_effort(pod: &Value) -> bool {
    let states = |part: &Value| {
        ["resources.requests", "resources.limits"]
            .iter()
            .any(|path| {
                let map = value_at(part, path).and_then(Value::as_object);
                map.is_some_and(|m| !m.is_empty())
            })
    };
    let lists = ["spec.containers", "spec.initContainers"];
    let mut parts = lists.iter().flat_map(|l| list_at(pod, l));
    !parts.any(states) && !value_at(pod, "spec").is_some_and(states)
}

fn is_of_cpu(resource: &str) -> bool {
    matches!(resource, "cpu" | "requests.cpu" | "limits.cpu")
}

fn read_amount(resource: &str, amount: &Value) -> i64 {
    match is_of_cpu(resource) {
        true => cpu_millis(Some(amount)),
        false => quantity_units(Some(amount)),
    }
}

/// An amount as the API server writes it.
fn amount_text(resource: &str, amount: i64) -> String {
    if is_of_cpu(resource) {
        return match amount % 1000 {
            0 => (amount / 1000).to_string(),
            _ => format!("{amount}m"),
        };
    }
    let units = [(30, "Gi"), (20, "Mi"), (10, "Ki")].into_iter();
    let mut fitting = units.filter(|(bits, _)| amount != 0 && amount % (1 << bits) == 0);
    match fitting.next().filter(|_| resource.contains("memory")) {
        Some((bits, unit)) => format!("{}{unit}", amount >> bits),
        None => amount.to_string(),
    }
}
