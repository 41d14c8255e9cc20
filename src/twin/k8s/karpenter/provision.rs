//! Pods that find no node, and pods of nodes that go: node claims are made for them, a batch at a time (KARP-11).

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::super::cluster::SimCluster;
use super::super::json::text_at;
use super::super::pool_state::PoolAction;
use super::super::store::StoredObject;
use super::events::{PoolEvent, publish};
use super::hashes;
use super::objects::{self, ActiveProviders, StateNode, name_of};
use super::plan::{self, PlannedNode, PodToPlace, Simulation};
use super::pods;

/// A batch is complete when no pod has come for a second, or after ten.
const BATCH_IDLE: SignedDuration = SignedDuration::from_secs(1);
const BATCH_MAX: SignedDuration = SignedDuration::from_secs(10);
/// Pods that still wait are looked at again after this.
const BATCH_AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// How long a node is kept for the pods that were meant for it.
const NOMINATION_WINDOW: SignedDuration = SignedDuration::from_secs(20);

/// Makes node claims for the pods that need them, once their batch is complete.
pub fn reconcile(cluster: &mut SimCluster, active: ActiveProviders) {
    let nodes = objects::state_nodes(cluster, active);
    let waiting = pods_to_place(cluster, &nodes);
    let uids: BTreeSet<String> = waiting.iter().map(|(p, _)| p.uid.clone()).collect();
    let now = cluster.now;
    let batch = &mut cluster.pools.session.batch;
    if uids.is_empty() {
        *batch = super::super::pool_state::PodBatch::default();
        return;
    }
    if uids.iter().any(|uid| !batch.pods.contains(uid)) {
        batch.grown = Some(now);
        batch.since.get_or_insert(now);
        batch.solved = None;
    }
    batch.pods = uids;
    let age = |t: Option<jiff::Timestamp>| t.map(|t| now.duration_since(t));
    let idle = age(batch.grown).is_some_and(|a| a >= BATCH_IDLE);
    let full = age(batch.since).is_some_and(|a| a >= BATCH_MAX);
    let again = age(batch.solved).is_none_or(|a| a >= BATCH_AGAIN);
    if !(idle || full) || !again {
        return;
    }
    batch.solved = Some(now);
    batch.since = None;
    let objects: Vec<StoredObject> = waiting.iter().map(|(_, o)| o.clone()).collect();
    let found = plan::simulate(cluster, active, &nodes, waiting);
    nominate(cluster, &nodes, &found);
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    for (uid, number) in &found.placed {
        places.insert(uid.clone(), nodes[*number].describe());
    }
    for planned in &found.new_nodes {
        if let Some(claim) = create_claim(cluster, planned) {
            let uids = planned.pods.iter().map(|p| p.uid.clone());
            places.extend(uids.map(|uid| (uid, format!("nodeclaim/{claim}"))));
        }
    }
    tell_pods(cluster, &objects, &places, &found);
}

/// Tells of each pod where it should go, or why it cannot go anywhere.
fn tell_pods(
    cluster: &mut SimCluster,
    waiting: &[StoredObject],
    places: &BTreeMap<String, String>,
    found: &Simulation,
) {
    for pod in waiting {
        let uid = text_at(pod, "metadata.uid");
        let event = if let Some(place) = places.get(uid) {
            PoolEvent {
                about: pod,
                kind: "Normal",
                reason: "Nominated",
                message: format!("Pod should schedule on: {place}"),
            }
        } else if let Some((_, why)) = found.errors.get(uid) {
            PoolEvent {
                about: pod,
                kind: "Warning",
                reason: "FailedScheduling",
                message: format!("Failed to schedule pod, {why}"),
            }
        } else {
            continue;
        };
        publish(cluster, event);
    }
}

/// Pods without a node, and those of nodes that are on their way out.
pub fn pods_to_place(cluster: &SimCluster, nodes: &[StateNode]) -> Vec<PodToPlace> {
    let mut waiting = pods::pending_pods(cluster);
    for node in nodes.iter().filter(|n| n.deleting && n.claim.is_some()) {
        let there = pods::pods_on(cluster, &node.view.name).into_iter();
        waiting.extend(there.filter(|p| pods::is_currently_reschedulable(cluster, p)));
    }
    waiting
}

/// Nodes that pods were found a place on are not disrupted for a while.
pub fn nominate(cluster: &mut SimCluster, nodes: &[StateNode], found: &Simulation) {
    let until = cluster.now.saturating_add(NOMINATION_WINDOW);
    let until = until.unwrap_or(cluster.now);
    for (_, number) in &found.placed {
        if let Some(claim) = nodes.get(*number).and_then(|n| n.claim.as_ref()) {
            let memory = &mut cluster.pools.session.nominated;
            memory.insert(name_of(claim).to_owned(), until);
        }
    }
}

/// Makes a node claim; its name.
pub fn create_claim(cluster: &mut SimCluster, planned: &PlannedNode) -> Option<String> {
    let kinds = objects::kinds(cluster)?;
    let hash = hashes::pool_hash(cluster, &planned.pool);
    let notes = [
        (hashes::POOL_HASH, hash),
        (hashes::POOL_HASH_VERSION, hashes::POOL_VERSION.to_owned()),
        (
            "karpenter.sh/nodeclaim-min-values-relaxed",
            "false".to_owned(),
        ),
    ];
    let claim = planned.to_claim(&notes);
    let made = cluster.create_object(kinds.claims, claim, false).ok()?;
    let name = name_of(&made).to_owned();
    let until = cluster.now.saturating_add(NOMINATION_WINDOW);
    let memory = &mut cluster.pools.session.nominated;
    memory.insert(name.clone(), until.unwrap_or(cluster.now));
    cluster.pools.log.push(PoolAction::Created {
        pool: name_of(&planned.pool).to_owned(),
        claim: name.clone(),
    });
    Some(name)
}
