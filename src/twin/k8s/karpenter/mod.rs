//! Karpenter: node pools, node claims, and the nodes that they come to. EKS Auto Mode runs the same engine (KARP-17).
//!
//! Karpenter is a Deployment `karpenter` (of any namespace, such as kube-system) while a pod of it is Ready; without one, and
//! under the fault `karpenter-down`, nobody does anything for pools whose class is an EC2NodeClass. For pools whose class is of
//! `eks.amazonaws.com` AWS does it, and nothing stops it. What the controllers do follows the sources of Karpenter 1.13 and of
//! its AWS provider (KARP-1 to KARP-19): one round of all controllers each second while there is something to do, and every ten
//! seconds otherwise.
//!
//! # What the rest of the twin uses
//! - `pool_notices` wakes the engine; `run_round` is one round of it ([`super::KubeEvent::Pools`]).
//! - `pool_rules` has the rules of the custom resource definitions.
//! - `pool_state` is its state in the cluster, `pool_actions` what it did, and `PoolSwitches` what faults switch.
//! - EKS Auto Mode needs its CRD list in the snapshot (`/apis/eks.amazonaws.com/v1/nodeclasses`) and a NodePool that refers to
//!   a class of it (`nodeClassRef.group: eks.amazonaws.com`); no Deployment. A class without `status.subnets` gets those of its
//!   terms. Nodes get the label `eks.amazonaws.com/compute-type=auto` and a Bottlerocket image of the control plane's version,
//!   and drift (`AMIDrift`) when that changes.
//!
//! # Divergence
//! - The scheduler's simulation looks at one type's labels at a time, does not relax preferences, and does not count pods that
//!   it has placed itself for spreads and affinity between pods. Devices are not known.
//! - Instance types are a list of common ones and those that requirements name; prices are those of us-east-1 on demand.
//! - No consolidation of several nodes at once, no static pools (`replicas`), node overlays, repair of nodes, capacity
//!   reservations, policy `Balanced`, spot interruption.
//! - The hashes in annotations are of another function. NodeRegistrationHealthy, ConsistentStateFound are not written.
//! - Tags of subnets, of security groups and of images are not known: a term with tags takes all subnets of the cluster, its own
//!   security group, and no image. Launch templates and instance profiles are not shown by EC2 and IAM.
//! - The role of nodes is taken to be let in.

mod budgets;
mod classes;
pub mod conditions;
mod disruption;
mod drift;
mod events;
mod hashes;
mod launch;
mod lifecycle;
pub(super) mod objects;
mod offers;
mod plan;
mod pods;
mod pools;
mod provision;
mod requirements;
mod switches;
mod termination;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::cluster::SimCluster;
use super::json::{find_label, list_at, text_at};
use super::kinds::DEPLOYMENTS;
use super::pool_notices::{ROUND_DELAY, schedule_round};
pub use super::pool_state::PoolAction;
use super::run_in_cluster;
use crate::twin::world::SimWorld;
use objects::{AUTO_GROUP, ActiveProviders};
pub use switches::{
    mark_do_not_disrupt, replace_claims, restore_pools, set_class_ready, set_pool_capacity,
    set_stopped,
};

/// How long one round waits for the next while nothing is going on.
const IDLE_DELAY: Duration = Duration::from_secs(10);

/// What the engine has done so far, for tests and invariants.
#[doc(hidden)]
pub fn pool_actions(world: &SimWorld) -> &[PoolAction] {
    &world.kube.pools.log
}

/// One round of all controllers.
pub(super) fn run_round(world: &mut SimWorld) {
    let now = world.now();
    // A round that was queued before an earlier one is not run again.
    if world.kube.pools.next_round.is_none_or(|at| at > now) {
        return;
    }
    world.kube.pools.next_round = None;
    let Some(active) = run_in_cluster(world, active_providers) else {
        return;
    };
    run_in_cluster(world, learn_hashes);
    if active.karpenter || active.auto_mode {
        if active.karpenter {
            classes::reconcile(world);
        }
        if active.auto_mode {
            classes::reconcile_auto_mode(world);
        }
        run_in_cluster(world, |cluster| {
            forget_old(cluster);
            let synced = is_synced(cluster, active);
            pools::reconcile(cluster, active, synced);
        });
        lifecycle::reconcile(world, active);
        termination::reconcile(world, active);
        termination::collect_lost(world, active);
        // A node claim without an instance stops what looks at the whole cluster (KARP-19).
        run_in_cluster(world, |cluster| {
            if is_synced(cluster, active) {
                provision::reconcile(cluster, active);
                disruption::reconcile(cluster, active);
            }
        });
    }
    run_in_cluster(world, |cluster| {
        let wait = if is_busy(cluster) {
            ROUND_DELAY
        } else {
            IDLE_DELAY
        };
        schedule_round(cluster, wait);
    });
}

/// Learns the hashes that a snapshot's objects have.
fn learn_hashes(cluster: &mut SimCluster) {
    if std::mem::replace(&mut cluster.pools.hashes_learned, true) {
        return;
    }
    let Some(kinds) = objects::kinds(cluster) else {
        return;
    };
    for pool in objects::all_of(cluster, kinds.pools) {
        hashes::learn_hash(cluster, "NodePool", &pool, hashes::POOL_HASH);
    }
    let group = objects::EC2_GROUP;
    if let Some(res) = cluster.store.kinds.find_kind(group, "EC2NodeClass") {
        let note = hashes::class_annotation(group, "EC2NodeClass", false);
        for class in objects::all_of(cluster, res) {
            hashes::learn_hash(cluster, "EC2NodeClass", &class, &note);
        }
    }
}

/// Who is at work: Karpenter while a pod of its Deployment is Ready, Auto Mode always. None where there are no pools.
fn active_providers(cluster: &mut SimCluster) -> Option<ActiveProviders> {
    objects::kinds(cluster)?;
    let pod = find_controller(cluster);
    let karpenter = !pod.is_empty() && !cluster.pools.switches.stopped;
    // A new pod knows nothing of what the old one had begun.
    if karpenter && cluster.pools.pod != pod {
        if !cluster.pools.pod.is_empty() {
            cluster.pools.session = super::pool_state::PoolSession::default();
            cluster.pools.log.push(PoolAction::Restarted);
        }
        cluster.pools.pod = pod;
    }
    let auto_mode = cluster
        .store
        .kinds
        .find_kind(AUTO_GROUP, "NodeClass")
        .is_some();
    Some(ActiveProviders {
        karpenter,
        auto_mode,
    })
}

/// The uid of a Ready pod of Karpenter's Deployment; empty where there is none.
fn find_controller(cluster: &SimCluster) -> String {
    let named = cluster
        .store
        .objects_of(DEPLOYMENTS, "")
        .filter(|(name, o)| {
            name.name == "karpenter" || find_label(o, "app.kubernetes.io/name") == Some("karpenter")
        });
    for (name, deployment) in named {
        let selector = super::selector::LabelSelector::from_spec(super::json::value_at(
            deployment,
            "spec.selector",
        ));
        let pods = cluster.store.index.selected_pods(&name.ns, &selector);
        let mut running: Vec<_> = pods
            .iter()
            .filter(|p| p.ready && !p.deleting && cluster.is_kubelet_alive(&p.node))
            .collect();
        // One of two replicas leads; it stays the leader while it is there.
        running.sort_by_key(|p| (p.uid != cluster.pools.pod, p.uid.clone()));
        if let Some(leader) = running.first() {
            return leader.uid.clone();
        }
    }
    String::new()
}

/// Whether every node claim has its instance.
fn is_synced(cluster: &SimCluster, active: ActiveProviders) -> bool {
    let claims = objects::managed_claims(cluster, active);
    claims
        .iter()
        .all(|c| !text_at(c, "status.providerID").is_empty())
}

fn forget_old(cluster: &mut SimCluster) {
    let now = cluster.now;
    let session = &mut cluster.pools.session;
    session.nominated.retain(|_, until| *until > now);
    session.unavailable.retain(|_, until| *until > now);
    session.pools_unavailable.retain(|_, until| *until > now);
}

/// Whether something is going on that another round has to look at soon.
fn is_busy(cluster: &SimCluster) -> bool {
    let session = &cluster.pools.session;
    if !session.commands.is_empty()
        || session.validating.is_some()
        || !session.batch.pods.is_empty()
    {
        return true;
    }
    let Some(kinds) = objects::kinds(cluster) else {
        return false;
    };
    let claims = cluster.store.objects_of(kinds.claims, "");
    claims.into_iter().any(|(_, c)| {
        objects::is_deleting(c)
            || !conditions::is_true(c, "Initialized")
            || list_at(c, "metadata.finalizers").is_empty()
            || text_at(c, "status.providerID").is_empty()
    })
}
