//! The scheduler: finds a node for each pod, or says of every node why it will not do.

mod fit;
mod preempt;
mod score;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::control::volumes;
use super::facts::{Node, Pod};
use super::json::{object, set, set_condition, slot, text};
use super::kinds::PODS;
use super::store::{Key, Name};
use crate::model::Minor;
pub use fit::{Ask, Term};

/// From this many fitting nodes on, no more are looked for; as the real one, which stops early in large clusters.
const ENOUGH: usize = 100;

/// Finds a node for a pod; whether there was one.
pub fn schedule(cluster: &mut Cluster, name: &Name) {
    try_schedule(cluster, name);
}

/// Tries again for all pods that have no node, the most important first.
pub fn retry(cluster: &mut Cluster) {
    let mut waiting: Vec<(i64, Name)> = Vec::new();
    for name in &cluster.store.index.pending {
        let pod = cluster.store.index.pods.get(name);
        let priority = pod.map_or(0, |p| p.priority);
        waiting.push((-priority, name.clone()));
    }
    waiting.sort();
    // Pods of one owner ask for the same: when one finds nothing, neither do its brothers.
    let mut hopeless: BTreeSet<String> = BTreeSet::new();
    for (_, name) in waiting {
        let owner = cluster
            .store
            .index
            .pods
            .get(&name)
            .and_then(|p| p.owner.clone());
        let brothers = owner
            .filter(|o| o.kind == "ReplicaSet" || o.kind == "Job")
            .map(|o| o.uid);
        if brothers.as_ref().is_some_and(|uid| hopeless.contains(uid)) {
            continue;
        }
        if !try_schedule(cluster, &name)
            && let Some(uid) = brothers
        {
            hopeless.insert(uid);
        }
    }
}

fn try_schedule(cluster: &mut Cluster, name: &Name) -> bool {
    let Some(pod) = cluster.store.index.pods.get(name).cloned() else {
        return true;
    };
    let Some(object) = cluster.store.find(PODS, name).cloned() else {
        return true;
    };
    let ours = text(&object, "spec.schedulerName") == "default-scheduler";
    if !pod.node.is_empty() || !pod.active() || !ours {
        return true;
    }
    match choose(cluster, &object, &pod) {
        Ok(node) => {
            bind(cluster, name, &node);
            true
        }
        Err(why) => {
            if let Ok(ask) = Ask::of(cluster, &object, &pod) {
                preempt::preempt(cluster, &object, &pod, &ask);
            }
            refuse(cluster, name, &why);
            false
        }
    }
}

/// The best node for a pod, or the scheduler's message.
fn choose(cluster: &mut Cluster, object: &Value, pod: &Pod) -> Result<String, String> {
    let index = &cluster.store.index;
    let total = index.nodes.len();
    if total == 0 {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let ask = Ask::of(cluster, object, pod).map_err(|why| {
        format!("0/{total} nodes are available: {why}. preemption: 0/{total} nodes are available: {total} Preemption is not helpful for scheduling.")
    })?;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut fitting: Vec<Arc<Node>> = Vec::new();
    let mut for_lack_of_room = 0;
    let from = if total > ENOUGH {
        cluster.rng.usize(..total)
    } else {
        0
    };
    for node in index
        .nodes
        .values()
        .skip(from)
        .chain(index.nodes.values().take(from))
    {
        match ask.fits(cluster, node) {
            Ok(()) => fitting.push(node.clone()),
            Err(refusal) => {
                for_lack_of_room += usize::from(refusal.room);
                for reason in refusal.reasons {
                    *reasons.entry(reason).or_default() += 1;
                }
            }
        }
        if fitting.len() >= ENOUGH {
            break;
        }
    }
    if fitting.is_empty() {
        return Err(message(total, &reasons, for_lack_of_room));
    }
    let best = score::best(cluster, &ask, pod, &fitting);
    let pick = if best.len() > 1 {
        cluster.rng.usize(..best.len())
    } else {
        0
    };
    Ok(best[pick].name.clone())
}

/// The scheduler's own words.
fn message(total: usize, reasons: &BTreeMap<String, usize>, for_lack_of_room: usize) -> String {
    let mut told: Vec<String> = reasons
        .iter()
        .map(|(reason, n)| format!("{n} {reason}"))
        .collect();
    told.sort();
    let mut helpless = Vec::new();
    if for_lack_of_room > 0 {
        helpless.push(format!(
            "{for_lack_of_room} No preemption victims found for incoming pod"
        ));
    }
    if total > for_lack_of_room {
        helpless.push(format!(
            "{} Preemption is not helpful for scheduling",
            total - for_lack_of_room
        ));
    }
    helpless.sort();
    let (told, helpless) = (told.join(", "), helpless.join(", "));
    format!(
        "0/{total} nodes are available: {told}. preemption: 0/{total} nodes are available: {helpless}."
    )
}

fn refuse(cluster: &mut Cluster, name: &Name, why: &str) {
    let stamp = cluster.stamp();
    cluster.change(&Key { res: PODS, at: name.clone() }, |pod| {
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why,
            "lastProbeTime": null, "lastTransitionTime": stamp,
        });
        set_condition(pod, condition);
    });
}

/// Binds a pod to a node; a volume that waited for its first consumer is made there.
pub fn bind(cluster: &mut Cluster, name: &Name, node: &str) {
    let key = Key {
        res: PODS,
        at: name.clone(),
    };
    let Some(pod) = cluster.store.get(&key).cloned() else {
        return;
    };
    volumes::provision(cluster, &pod, node);
    let labels = cluster
        .store
        .index
        .nodes
        .get(node)
        .map(|n| n.labels.clone())
        .unwrap_or_default();
    let (stamp, new) = (cluster.stamp(), cluster.version >= Minor::new(35));
    cluster.change(&key, |pod| {
        set(pod, "spec.nodeName", node);
        if new {
            // Since 1.35 a pod carries the topology of its node.
            for label in ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"] {
                if let Some(value) = labels.get(label) {
                    object(slot(pod, "metadata.labels")).insert(label.to_owned(), value.clone().into());
                }
            }
        }
        let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": stamp});
        set_condition(pod, condition);
    });
}
