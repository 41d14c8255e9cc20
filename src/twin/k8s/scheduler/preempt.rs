//! Preemption: a pod that finds room nowhere takes it from pods of lower priority, past their budgets where it must.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{number_at, set_at, set_condition, text_at};
use super::super::kinds::{BUDGETS, PODS};
use super::super::store::{ObjectKey, ObjectName};
use super::super::typed_views::{NodeView, PodView};
use super::fit::PodConstraints;

/// What came of the attempt to make room for a pod.
pub enum Preemption {
    /// Pods go for it.
    Makes,
    /// The reason why nothing is tried, in the scheduler's words.
    NotEligible(&'static str),
    /// Nothing would help.
    Helpless,
}

/// Makes room for a pod that found none.
pub fn preempt_pods(
    cluster: &mut SimCluster,
    object: &Value,
    pod: &PodView,
    ask: &PodConstraints<'_>,
) -> Preemption {
    let lower = |p: &Arc<PodView>| p.priority < pod.priority;
    if text_at(object, "spec.preemptionPolicy") == "Never" {
        return Preemption::NotEligible("not eligible due to preemptionPolicy=Never.");
    }
    // Without a pod of lower priority there is nobody to make room.
    if !cluster.store.index.pods.values().any(lower) {
        return Preemption::Helpless;
    }
    // Those who were told to go for it earlier are waited for.
    let nominated = text_at(object, "status.nominatedNodeName");
    let going = |p: &Arc<PodView>| p.deleting && lower(p);
    if !nominated.is_empty() && cluster.store.pods_on(nominated).iter().any(going) {
        return Preemption::NotEligible(
            "not eligible due to a terminating pod on the nominated node.",
        );
    }
    // Every node is tried, and the best is taken by the order of the real scheduler (K8S-SCHED-9).
    let nodes = cluster.store.index.nodes.values();
    let options = nodes.filter_map(|node| {
        let victims = choose_victims(cluster, ask, node)?;
        let priorities = || victims.pods.iter().map(|p| p.priority);
        let highest = priorities().max().unwrap_or(i64::MIN);
        // Each counts, however low its priority is.
        let sum: i64 = priorities().map(|p| p + (1 << 31)).sum();
        let order = (victims.past_budget, highest, sum, victims.pods.len());
        Some(((order, node.name.clone()), victims.pods))
    });
    let Some(((_, node), victims)) = options.min_by(|(a, _), (b, _)| a.cmp(b)) else {
        return Preemption::Helpless;
    };
    // The pods are deleted and not evicted: a budget is no guarantee against preemption.
    let stamp = cluster.timestamp_text();
    for victim in victims.iter().filter(|p| !p.deleting) {
        let key = ObjectKey::new(PODS, victim.ns.clone(), victim.name.clone());
        cluster.change_object(&key, |p| {
            set_condition(
                p,
                json!({
                    "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                    "message": "default-scheduler: preempting to accommodate a higher priority pod",
                    "lastProbeTime": null, "lastTransitionTime": stamp,
                }),
            );
        });
        cluster.delete_object(&key, None);
    }
    // The pod is not bound yet. The node is only noted for it, so that others do not take the room.
    let key = ObjectKey::new(PODS, pod.ns.clone(), pod.name.clone());
    cluster.change_object(&key, |p| set_at(p, "status.nominatedNodeName", node));
    Preemption::Makes
}

/// Pods that have to leave a node.
struct Victims {
    pods: Vec<Arc<PodView>>,
    /// How many of them go past a budget.
    past_budget: usize,
}

/// Returns the names of those that would go past a budget, if all went in this order (K8S-SCHED-9).
fn names_past_budget(cluster: &SimCluster, going: &[Arc<PodView>]) -> BTreeSet<ObjectName> {
    let mut left: BTreeMap<ObjectName, i64> = BTreeMap::new();
    // Each budget is spent in the order of importance, so the pods that come last are those past it.
    let mut goes_past = |pod: &Arc<PodView>| {
        let mut past = false;
        for name in cluster.store.index.budgets_of(pod) {
            let budget = cluster.store.find_object(BUDGETS, &name);
            let allowed = budget.and_then(|b| number_at(b, "status.disruptionsAllowed"));
            let allowed = left.entry(name).or_insert(allowed.unwrap_or(0));
            *allowed -= 1;
            past |= *allowed < 0;
        }
        past
    };
    let going = going.iter().filter(|pod| !pod.deleting);
    let past = going.filter(|pod| goes_past(pod));
    past.map(|p| ObjectName::new(p.ns.clone(), p.name.clone()))
        .collect()
}

/// Returns the fewest pods of lower priority that have to leave a node for the pod to fit; none where it does not fit for
/// another reason than room, or not even without all of them.
fn choose_victims(
    cluster: &SimCluster,
    ask: &PodConstraints<'_>,
    node: &NodeView,
) -> Option<Victims> {
    // A node that refuses the pod for anything but room is no candidate.
    match ask.check_fit(cluster, node) {
        Err(refusal) if refusal.room => {}
        Ok(()) | Err(_) => return None,
    }
    // All pods of lower priority are thought gone first; if the pod does not fit even then, nothing helps.
    let mut going = cluster.store.pods_on(&node.name);
    going.retain(|p| !p.is_finished() && p.priority < ask.pod.priority);
    if ask.check_fit_without(cluster, node, &going).is_err() {
        return None;
    }
    let importance = |p: &Arc<PodView>| (Reverse(p.priority), p.name.clone());
    going.sort_by_key(importance);
    let past = names_past_budget(cluster, &going);
    let is_past = |p: &Arc<PodView>| past.contains(&ObjectName::new(p.ns.clone(), p.name.clone()));
    // Those past a budget are let stay first, where it fits all the same, then the most important; what goes anyway is
    // never let stay.
    going.sort_by_key(|p| (p.deleting, !is_past(p), importance(p)));
    // Each pod is put back where the incoming one still fits beside it, so that as few as possible go.
    let mut i = 0;
    while i < going.len() && !going[i].deleting {
        let spared = going.remove(i);
        if ask.check_fit_without(cluster, node, &going).is_err() {
            going.insert(i, spared);
            i += 1;
        }
    }
    let past_budget = going.iter().filter(|p| !p.deleting && is_past(p)).count();
    Some(Victims {
        pods: going,
        past_budget,
    })
}
