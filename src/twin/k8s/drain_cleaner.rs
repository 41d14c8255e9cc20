//! Strimzi's drain cleaner: a webhook that denies the eviction of a Kafka pod and asks the operator to roll it instead
//! (CTL-6).

use std::time::Duration;

use serde_json::Value;

use super::cluster::SimCluster;
use super::controller_work::ControllerWork;
use super::json::{as_object_mut, find_annotation, list_at, number_at, slot_at, text_at};
use super::kinds::{BUDGETS, PODS, VALIDATORS};
use super::status::ApiFailure;
use super::store::{ObjectKey, ObjectName};
use super::typed_views::PodView;
use super::{KubeEvent, webhooks};

const ROLL_ANNOTATION: &str = "strimzi.io/manual-rolling-update";
/// The name its installation gives the webhook.
const WEBHOOK_NAME: &str = "strimzi-drain-cleaner.strimzi.io";
/// How often the operator looks for pods to roll.
const OPERATOR_ROUND_INTERVAL: Duration = Duration::from_secs(120);

/// Whether the pod is one of those that the drain cleaner looks after.
fn is_kafka(pod: &Value) -> bool {
    let label = |key| super::json::find_label(pod, key).unwrap_or_default();
    let name = label("strimzi.io/name");
    label("strimzi.io/kind") == "Kafka"
        && (name.ends_with("-kafka") || name.ends_with("-zookeeper"))
}

/// The name of the webhook, where there is one that is answered for. A snapshot without a list of webhooks does not say;
/// then a Kafka budget that lets nothing go at all, as its documentation asks for, says that there is.
fn installed_webhook(cluster: &SimCluster, pod: &PodView) -> Option<String> {
    // An installed webhook that nobody answers for asks for no roll.
    for (_, config) in cluster.store.objects_of(VALIDATORS, "") {
        for hook in list_at(config, "webhooks") {
            let path = text_at(hook, "clientConfig.service.path");
            let service = text_at(hook, "clientConfig.service.name");
            if service.contains("drain-cleaner") && path == "/drainer" {
                let answered = webhooks::is_answered(cluster, hook);
                return answered.then(|| text_at(hook, "name").to_owned());
            }
        }
    }
    let nothing_goes = |name: &ObjectName| {
        let budget = cluster.store.find_object(BUDGETS, name);
        budget.and_then(|b| number_at(b, "spec.maxUnavailable")) == Some(0)
    };
    let mut budgets = cluster.store.index.budgets_of(pod).into_iter();
    let presumed = !cluster.knows_webhooks && budgets.any(|b| nothing_goes(&b));
    presumed.then(|| WEBHOOK_NAME.to_owned())
}

/// Denies the eviction of a Kafka pod, and notes that it is to be rolled unless nothing is to change.
pub fn intercept_eviction(
    cluster: &mut SimCluster,
    key: &ObjectKey,
    dry: bool,
) -> Result<(), ApiFailure> {
    let Some(object_now) = cluster.store.get_object(key).cloned() else {
        return Ok(());
    };
    // The webhook asks only about Kafka's pods. Where nobody answers for it, the budget alone decides.
    if !is_kafka(&object_now) {
        return Ok(());
    }
    let Some(webhook) = installed_webhook(cluster, &PodView::from_object(&object_now)) else {
        return Ok(());
    };
    // A dry run is denied too, but asks for nothing to be rolled (CTL-6).
    if !dry && find_annotation(&object_now, ROLL_ANNOTATION) != Some("true") {
        cluster.change_object(key, |p| {
            let notes = as_object_mut(slot_at(p, "metadata.annotations"));
            notes.insert(ROLL_ANNOTATION.to_owned(), "true".into());
        });
        let work = ControllerWork::Roll(key.at.clone());
        // The operator looks at its pods in rounds; where in its round it is now is left to chance.
        let wait = cluster.random_delay(5_000, OPERATOR_ROUND_INTERVAL.as_millis() as u64);
        cluster.schedule_after(wait, KubeEvent::RepeatWork(work));
    }
    let why = "The pod will be rolled by the Strimzi Cluster Operator";
    let message = format!("admission webhook \"{webhook}\" denied the request: {why}");
    Err(ApiFailure::new(500, "", message))
}

/// The operator rolls a pod that is noted for it, once all the others of its cluster are ready.
pub fn roll_pod(cluster: &mut SimCluster, name: &ObjectName) {
    let key = ObjectKey {
        res: PODS,
        at: name.clone(),
    };
    let Some(pod) = cluster.store.get_object(&key).cloned() else {
        return;
    };
    // The pod may have been rolled meanwhile, or nobody is there to do it.
    if find_annotation(&pod, ROLL_ANNOTATION) != Some("true")
        || cluster.operators_down.contains("StrimziPodSet")
    {
        return;
    }
    let of = |p: &Value| {
        super::json::find_label(p, "strimzi.io/cluster")
            .unwrap_or_default()
            .to_owned()
    };
    // A broker goes only while all the others of its cluster are in sync, for which Ready stands here.
    let mine = of(&pod);
    let others = cluster
        .store
        .objects_of(PODS, &name.ns)
        .filter(|(n, p)| *n != name && is_kafka(p) && of(p) == mine);
    let others: Vec<PodView> = others.map(|(_, p)| PodView::from_object(p)).collect();
    if others.iter().any(|p| !p.ready || p.deleting) {
        cluster.schedule_after(
            Duration::from_secs(30),
            KubeEvent::RepeatWork(ControllerWork::Roll(name.clone())),
        );
        return;
    }
    // A deletion asks no budget: the operator is trusted to know its data.
    cluster.delete_object(&key, None);
}
