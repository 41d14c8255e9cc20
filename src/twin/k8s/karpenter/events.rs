//! Events as Karpenter's recorder writes them: the same one again only after two minutes (KARP-15).

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{number_at, set_at, text_at};
use super::super::kinds::EVENTS;
use super::super::store::{ObjectKey, ObjectName};

const DEDUPE_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

/// An event about an object.
pub struct PoolEvent<'e> {
    pub about: &'e Value,
    /// Normal or Warning.
    pub kind: &'static str,
    pub reason: &'static str,
    pub message: String,
}

/// Publishes an event, unless one of its reason about the same object was published a short time before.
pub fn publish(cluster: &mut SimCluster, event: PoolEvent<'_>) {
    let about = event.about;
    let uid = text_at(about, "metadata.uid").to_owned();
    let now = cluster.now;
    // Of a pool there is one for each reason of disruption.
    let of_pool = text_at(about, "kind") == "NodePool";
    let more = if of_pool { event.message.as_str() } else { "" };
    let key = format!("{} {uid} {more}", event.reason);
    let told = &mut cluster.pools.session.told;
    told.retain(|_, until| *until > now);
    if told.contains_key(&key) {
        return;
    }
    let until = now.saturating_add(DEDUPE_TIMEOUT).unwrap_or(now);
    told.insert(key, until);
    let stamp = cluster.timestamp_text();
    let ns = match text_at(about, "metadata.namespace") {
        "" => "default",
        ns => ns,
    };
    // An event that was told before in the same words is counted up.
    let same = cluster.store.objects_of(EVENTS, ns).find(|(_, e)| {
        text_at(e, "involvedObject.uid") == uid
            && text_at(e, "reason") == event.reason
            && text_at(e, "message") == event.message
    });
    if let Some(at) = same.map(|(name, _)| name.clone()) {
        let key = ObjectKey { res: EVENTS, at };
        cluster.change_object(&key, |e| {
            let count = number_at(e, "count").unwrap_or(1) + 1;
            set_at(e, "count", count);
            set_at(e, "lastTimestamp", stamp);
        });
        return;
    }
    let name = text_at(about, "metadata.name");
    let suffix = format!("{:016x}", cluster.rng.u64(..));
    let object = json!({
        "metadata": {"name": format!("{name}.{suffix}"), "namespace": ns},
        "involvedObject": {
            "apiVersion": text_at(about, "apiVersion"), "kind": text_at(about, "kind"), "name": name, "uid": uid,
            "namespace": about.pointer("/metadata/namespace"), "resourceVersion": text_at(about, "metadata.resourceVersion"),
        },
        "type": event.kind, "reason": event.reason, "message": event.message,
        "source": {"component": "karpenter"}, "reportingComponent": "karpenter", "reportingInstance": "",
        "firstTimestamp": stamp, "lastTimestamp": stamp, "eventTime": null, "count": 1,
    });
    if cluster
        .check_namespace("events", &ObjectName::new(ns, name))
        .is_ok()
    {
        // One that cannot be written is lost, as every event is.
        let _ = cluster.create_object(EVENTS, object, false);
    }
}

/// Tells of a node claim and its node why neither is disrupted.
pub fn publish_blocked(cluster: &mut SimCluster, node: Option<&Value>, claim: &Value, why: &str) {
    publish_both(cluster, node, claim, "DisruptionBlocked", &sentence(why));
}

/// Publishes an event about a node claim and its node.
pub fn publish_both(
    cluster: &mut SimCluster,
    node: Option<&Value>,
    claim: &Value,
    reason: &'static str,
    message: &str,
) {
    for about in node.into_iter().chain([claim]) {
        let message = message.to_owned();
        let event = PoolEvent {
            about,
            kind: "Normal",
            reason,
            message,
        };
        publish(cluster, event);
    }
}

/// The same text with a capital letter in front.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
