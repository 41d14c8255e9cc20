//! What wakes the engine of node pools.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

use super::KubeEvent;
use super::cluster::SimCluster;
use super::json::find_label;
use super::kinds::{KindId, NODES};
use super::store::ObjectChange;
use super::typed_views::PodView;

/// How long a change waits for the next round.
pub const ROUND_DELAY: Duration = Duration::from_secs(1);

/// Whether the cluster has node pools.
fn has_pools(cluster: &SimCluster) -> bool {
    let kinds = &cluster.store.kinds;
    kinds.find_kind("karpenter.sh", "NodePool").is_some()
}

/// Whether a kind is one of those that the engine works on.
fn is_pool_kind(cluster: &SimCluster, res: KindId) -> bool {
    let group = &cluster.store.kinds.get(res).group;
    matches!(
        group.as_ref(),
        "karpenter.sh" | "karpenter.k8s.aws" | "eks.amazonaws.com"
    )
}

/// Something was written: the engine looks at it soon.
pub fn notice_change(cluster: &mut SimCluster, change: &ObjectChange) {
    let of_pool = |o: &Value| find_label(o, "karpenter.sh/nodepool").is_some();
    let either = change.new.as_deref().or(change.old.as_deref());
    let concerns = match change.key.res {
        NODES => either.is_some_and(of_pool),
        res => is_pool_kind(cluster, res),
    };
    if concerns && has_pools(cluster) {
        wake(cluster);
    }
}

/// A pod came to a node, left it, or found none.
pub fn notice_pod(cluster: &mut SimCluster, old: Option<&PodView>, new: Option<&PodView>) {
    if !has_pools(cluster) {
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

/// The engine looks at the cluster soon, where there are pools.
pub fn wake(cluster: &mut SimCluster) {
    if has_pools(cluster) {
        schedule_round(cluster, ROUND_DELAY);
    }
}

/// Queues the next round, unless an earlier one is queued.
pub fn schedule_round(cluster: &mut SimCluster, wait: Duration) {
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
