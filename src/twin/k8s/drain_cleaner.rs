//! Strimzi's drain cleaner: a webhook that denies the eviction of a Kafka pod and asks the operator to roll it instead
//! (CTL-6).

use std::time::Duration;

use serde_json::Value;

use super::cluster::Cluster;
use super::control::Work;
use super::facts::Pod;
use super::json::{annotation, list, number, object, slot, text};
use super::kinds::{BUDGETS, PODS, VALIDATORS};
use super::status::Failure;
use super::store::{Key, Name};
use super::{Due, webhooks};

const ROLL: &str = "strimzi.io/manual-rolling-update";
/// The name its installation gives the webhook.
const WEBHOOK: &str = "strimzi-drain-cleaner.strimzi.io";
/// How often the operator looks for pods to roll.
const OPERATOR_ROUND: Duration = Duration::from_secs(120);

/// Whether the pod is one of those that the drain cleaner looks after.
fn is_kafka(pod: &Value) -> bool {
    let label = |key| super::json::label(pod, key).unwrap_or_default();
    let name = label("strimzi.io/name");
    label("strimzi.io/kind") == "Kafka"
        && (name.ends_with("-kafka") || name.ends_with("-zookeeper"))
}

/// The name of the webhook, where there is one that is answered for. A snapshot without a list of webhooks does not say;
/// then a Kafka budget that lets nothing go at all, as its documentation asks for, says that there is.
fn installed(cluster: &Cluster, pod: &Pod) -> Option<String> {
    for (_, config) in cluster.store.all(VALIDATORS, "") {
        for hook in list(config, "webhooks") {
            let path = text(hook, "clientConfig.service.path");
            let service = text(hook, "clientConfig.service.name");
            if service.contains("drain-cleaner") && path == "/drainer" {
                let answered = webhooks::is_answered(cluster, hook);
                return answered.then(|| text(hook, "name").to_owned());
            }
        }
    }
    let nothing_goes = |name: &Name| {
        let budget = cluster.store.find(BUDGETS, name);
        budget.and_then(|b| number(b, "spec.maxUnavailable")) == Some(0)
    };
    let mut budgets = cluster.store.index.budgets_of(pod).into_iter();
    let presumed = !cluster.knows_webhooks && budgets.any(|b| nothing_goes(&b));
    presumed.then(|| WEBHOOK.to_owned())
}

/// Denies the eviction of a Kafka pod, and notes that it is to be rolled unless nothing is to change.
pub fn intercept(cluster: &mut Cluster, key: &Key, dry: bool) -> Result<(), Failure> {
    let Some(object_now) = cluster.store.get(key).cloned() else {
        return Ok(());
    };
    if !is_kafka(&object_now) {
        return Ok(());
    }
    let Some(webhook) = installed(cluster, &Pod::of(&object_now)) else {
        return Ok(());
    };
    if !dry && annotation(&object_now, ROLL) != Some("true") {
        cluster.change(key, |p| {
            let notes = object(slot(p, "metadata.annotations"));
            notes.insert(ROLL.to_owned(), "true".into());
        });
        let work = Work::Roll(key.at.clone());
        let wait = cluster.between(5_000, OPERATOR_ROUND.as_millis() as u64);
        cluster.later(wait, Due::Again(work));
    }
    let why = "The pod will be rolled by the Strimzi Cluster Operator";
    let message = format!("admission webhook \"{webhook}\" denied the request: {why}");
    Err(Failure::new(500, "", message))
}

/// The operator rolls a pod that is noted for it, once all the others of its cluster are ready.
pub fn roll(cluster: &mut Cluster, name: &Name) {
    let key = Key {
        res: PODS,
        at: name.clone(),
    };
    let Some(pod) = cluster.store.get(&key).cloned() else {
        return;
    };
    if annotation(&pod, ROLL) != Some("true") || cluster.operators_down.contains("StrimziPodSet") {
        return;
    }
    let of = |p: &Value| {
        super::json::label(p, "strimzi.io/cluster")
            .unwrap_or_default()
            .to_owned()
    };
    let mine = of(&pod);
    let others = cluster
        .store
        .all(PODS, &name.ns)
        .filter(|(n, p)| *n != name && is_kafka(p) && of(p) == mine);
    let others: Vec<Pod> = others.map(|(_, p)| Pod::of(p)).collect();
    if others.iter().any(|p| !p.ready || p.deleting) {
        cluster.later(
            Duration::from_secs(30),
            Due::Again(Work::Roll(name.clone())),
        );
        return;
    }
    cluster.delete(&key, None);
}
