//! How Karpenter sees pods: which may be disrupted, which look for another place, which hold a node back.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{
    find_annotation, find_condition, number_at, parse_duration, text_at, value_at,
};
use super::super::kinds::{BUDGETS, PODS};
use super::super::store::{ObjectName, StoredObject};
use super::super::typed_views::PodView;
use super::objects::{DO_NOT_DISRUPT, is_deleting};
use super::plan::PodToPlace;

/// A pod that is not gone a minute after it should be is stuck.
const STUCK_AGE: SignedDuration = SignedDuration::from_mins(1);

/// Whether a pod's annotation keeps it from being disrupted: `true`, or a time that it has not run for yet.
pub fn is_do_not_disrupt(now: Timestamp, pod: &Value) -> bool {
    match find_annotation(pod, DO_NOT_DISRUPT) {
        None => false,
        Some("true") => true,
        Some(text) => {
            let Some(wait) = parse_duration(text).filter(|w| !w.is_zero()) else {
                return false;
            };
            let started: Option<Timestamp> = text_at(pod, "status.startTime").parse().ok();
            let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
            started.is_none_or(|started| now.duration_since(started) < wait)
        }
    }
}

/// Whether a pod should have been gone for long.
pub fn is_stuck(now: Timestamp, pod: &Value) -> bool {
    let ends: Option<Timestamp> = text_at(pod, "metadata.deletionTimestamp").parse().ok();
    ends.is_some_and(|ends| now.duration_since(ends) > STUCK_AGE)
}

/// The pods of a node, with their objects.
pub fn pods_on(cluster: &SimCluster, node: &str) -> Vec<PodToPlace> {
    let pods = cluster.store.pods_on(node).into_iter();
    pods.filter_map(|pod| {
        let name = ObjectName::new(pod.ns.clone(), pod.name.clone());
        let object = cluster.store.find_object(PODS, &name)?.clone();
        Some((pod, object))
    })
    .collect()
}

/// Whether a pod looks for another place when its node goes; of those that are ending, a StatefulSet's pod does.
pub fn is_reschedulable((pod, object): &PodToPlace) -> bool {
    let owner = pod.owner.as_ref().map_or("", |o| o.kind.as_str());
    let active = !pod.is_finished() && !is_deleting(object);
    (active || (owner == "StatefulSet" && is_deleting(object)))
        && owner != "DaemonSet"
        && owner != "Node"
}

/// The same, of a pod that nothing keeps where it is for good.
pub fn is_currently_reschedulable(cluster: &SimCluster, pod: &PodToPlace) -> bool {
    let free = is_deleting(&pod.1) || !is_do_not_disrupt(cluster.now, &pod.1);
    is_reschedulable(pod) && free && blocking_budgets(cluster, pod, is_fully_blocking).is_none()
}

/// What keeps the pods of a node from being evicted, in Karpenter's words (KARP-2).
pub fn find_blocker(cluster: &SimCluster, pods: &[PodToPlace]) -> Option<String> {
    for (pod, object) in pods {
        let active = !pod.is_finished() && !is_deleting(object);
        if active && is_do_not_disrupt(cluster.now, object) {
            return Some(format!(
                "pod has \"karpenter.sh/do-not-disrupt\" annotation (Pod={}/{})",
                pod.ns, pod.name
            ));
        }
    }
    let allows_none =
        |budget: &Value| number_at(budget, "status.disruptionsAllowed").unwrap_or(0) == 0;
    for pod in pods {
        let Some(names) = blocking_budgets(cluster, pod, allows_none) else {
            continue;
        };
        let told: Vec<String> = names
            .iter()
            .map(|n| format!("{}/{}", n.ns, n.name))
            .collect();
        let told = told.join(" ");
        return Some(match names.len() {
            1 => format!("pdb prevents pod evictions (PodDisruptionBudget=[{told}])"),
            _ => {
                format!("eviction does not support multiple PDBs (PodDisruptionBudget(s)=[{told}])")
            }
        });
    }
    None
}

/// The budgets of a pod that keep it, where `blocks` says so of its only one, or it has several.
fn blocking_budgets(
    cluster: &SimCluster,
    (pod, object): &PodToPlace,
    blocks: impl Fn(&Value) -> bool,
) -> Option<Vec<ObjectName>> {
    // A pod that is not evicted at all asks no budget.
    let evictable =
        !pod.is_finished() && !is_deleting(object) && !is_do_not_disrupt(cluster.now, object);
    let names = match evictable {
        true => cluster.store.index.budgets_of(pod),
        false => Vec::new(),
    };
    match names.as_slice() {
        [] => None,
        [only] => {
            let budget = cluster.store.find_object(BUDGETS, only)?;
            let always = text_at(budget, "spec.unhealthyPodEvictionPolicy") == "AlwaysAllow";
            let unready =
                find_condition(object, "Ready").is_some_and(|c| text_at(c, "status") == "False");
            (!(always && unready) && blocks(budget)).then(|| names.clone())
        }
        _ => Some(names),
    }
}

/// Whether a budget never lets any pod go.
fn is_fully_blocking(budget: &Value) -> bool {
    let spec = |field: &str| value_at(budget, &format!("spec.{field}"));
    let is = |field: &str, text: &str| spec(field).and_then(Value::as_str) == Some(text);
    spec("maxUnavailable").and_then(Value::as_i64) == Some(0)
        || is("maxUnavailable", "0%")
        || is("minAvailable", "100%")
}

/// Pods that the scheduler has found no node for.
pub fn pending_pods(cluster: &SimCluster) -> Vec<PodToPlace> {
    let store = &cluster.store;
    let names = store.index.pending.iter();
    names
        .filter_map(|name| {
            let (pod, object) = (store.index.pods.get(name)?, store.find_object(PODS, name)?);
            let why = find_condition(object, "PodScheduled").map_or("", |c| text_at(c, "reason"));
            let owner = pod.owner.as_ref().map_or("", |o| o.kind.as_str());
            let waits = why == "Unschedulable"
                && owner != "DaemonSet"
                && pod.is_active()
                && text_at(object, "status.nominatedNodeName").is_empty();
            waits.then(|| (Arc::<PodView>::clone(pod), StoredObject::clone(object)))
        })
        .collect()
}
