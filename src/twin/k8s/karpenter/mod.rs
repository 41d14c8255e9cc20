//! Karpenter: node pools, node claims, and the nodes that they come to. EKS Auto Mode runs the same engine (KARP-17).
//!
//! Karpenter is a Deployment `karpenter` (of any namespace, such as kube-system) while a pod of it is Ready; without one, and
//! under the fault `karpenter-down`, nobody does anything for pools whose class is an EC2NodeClass. For pools whose class is of
//! `eks.amazonaws.com` AWS does it, and nothing stops it. What the controllers do follows the sources of Karpenter 1.13 and of
//! its AWS provider (KARP-1 to KARP-19): one round of all controllers each second while there is something to do, and every ten
//! seconds otherwise.
//!
//! # What the rest of the twin uses
//! - [`notice_change`] and [`notice_pod`] wake the engine; [`run_round`] is one round of it ([`super::KubeEvent::Pools`]).
//! - [`fill_defaults`], [`check_object`], [`check_update`]: the rules of the custom resource definitions.
//! - [`PoolMemory`] is its state in the cluster, [`pool_actions`] what it did, and `PoolSwitches` what faults switch.
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
mod class_rules;
mod classes;
mod conditions;
mod disruption;
mod drift;
mod events;
mod findings;
mod hashes;
mod launch;
mod lifecycle;
mod objects;
mod offers;
mod patterns;
mod plan;
mod pods;
mod pools;
mod provision;
mod requirements;
mod rules;
mod state;
mod switches;
mod termination;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

use super::cluster::SimCluster;
use super::json::{find_label, list_at, text_at};
use super::kinds::{DEPLOYMENTS, KindId, NODES};
use super::store::ObjectChange;
use super::typed_views::PodView;
use super::{KubeEvent, run_in_cluster};
use crate::twin::world::SimWorld;
use objects::{AUTO_GROUP, ActiveProviders};
pub use rules::{check_object, check_update, fill_defaults, has_rules};
pub use state::{PoolAction, PoolMemory};
pub use switches::{
    mark_do_not_disrupt, replace_claims, restore_pools, set_class_ready, set_pool_capacity,
    set_stopped,
};

/// How long a change waits for the next round, and how long one round waits for the next while nothing is going on.
const ROUND_DELAY: Duration = Duration::from_secs(1);
const IDLE_DELAY: Duration = Duration::from_secs(10);

/// What the engine has done so far, for tests and invariants.
#[doc(hidden)]
pub fn pool_actions(world: &SimWorld) -> &[PoolAction] {
    &world.kube.pools.log
}

/// Whether a kind is one of those that the engine works on.
fn is_pool_kind(cluster: &SimCluster, res: KindId) -> bool {
    let group = &cluster.store.kinds.get(res).group;
    matches!(
        group.as_ref(),
        "karpenter.sh" | objects::EC2_GROUP | AUTO_GROUP
    )
}

/// Something was written: the engine looks at it soon.
pub(super) fn notice_change(cluster: &mut SimCluster, change: &ObjectChange) {
    let of_pool = |o: &Value| find_label(o, objects::POOL_LABEL).is_some();
    let either = change.new.as_deref().or(change.old.as_deref());
    let concerns = match change.key.res {
        NODES => either.is_some_and(of_pool),
        res => is_pool_kind(cluster, res),
    };
    if concerns && objects::kinds(cluster).is_some() {
        wake(cluster);
    }
}

/// A pod came to a node, left it, or found none.
pub(super) fn notice_pod(cluster: &mut SimCluster, old: Option<&PodView>, new: Option<&PodView>) {
    if objects::kinds(cluster).is_none() {
        return;
    }
    let Some(pod) = new.or(old) else { return };
    let daemon = pod.owner.as_ref().is_some_and(|o| o.kind == "DaemonSet");
    let was = old.map(|p| (p.node.is_empty(), p.is_finished(), p.deleting));
    let is = new.map(|p| (p.node.is_empty(), p.is_finished(), p.deleting));
    if daemon || was == is {
        // A pod that is told to be unschedulable is pending before and after.
        if pod.node.is_empty() {
            wake(cluster);
        }
        return;
    }
    if !pod.node.is_empty() && new.is_some() {
        let now = cluster.now;
        let memory = &mut cluster.pools.session.pod_events;
        memory.insert(pod.node.clone(), now);
    }
    wake(cluster);
}

/// A snapshot's pools are taken up.
pub(super) fn resume(cluster: &mut SimCluster) {
    let Some(kinds) = objects::kinds(cluster) else {
        return;
    };
    for pool in objects::all_of(cluster, kinds.pools) {
        hashes::learn_hash(cluster, "NodePool", &pool, hashes::POOL_HASH);
    }
    if let Some(res) = cluster
        .store
        .kinds
        .find_kind(objects::EC2_GROUP, "EC2NodeClass")
    {
        let note = hashes::class_annotation(objects::EC2_GROUP, "EC2NodeClass", false);
        for class in objects::all_of(cluster, res) {
            hashes::learn_hash(cluster, "EC2NodeClass", &class, &note);
        }
    }
    wake(cluster);
}

fn wake(cluster: &mut SimCluster) {
    schedule_round(cluster, ROUND_DELAY);
}

fn schedule_round(cluster: &mut SimCluster, wait: Duration) {
    let later = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    let at = cluster.now.saturating_add(later).unwrap_or(cluster.now);
    if cluster
        .pools
        .next_round
        .is_some_and(|next| next <= at && next > cluster.now)
    {
        return;
    }
    cluster.pools.next_round = Some(at);
    cluster.schedule_after(wait, KubeEvent::Pools);
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

/// Who is at work: Karpenter while a pod of its Deployment is Ready, Auto Mode always. None where there are no pools.
fn active_providers(cluster: &mut SimCluster) -> Option<ActiveProviders> {
    objects::kinds(cluster)?;
    let pod = find_controller(cluster);
    let karpenter = !pod.is_empty() && !cluster.pools.switches.stopped;
    // A new pod knows nothing of what the old one had begun.
    if karpenter && cluster.pools.pod != pod {
        if !cluster.pools.pod.is_empty() {
            cluster.pools.session = state::PoolSession::default();
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
