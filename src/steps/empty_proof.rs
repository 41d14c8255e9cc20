//! The proof that a node group may end, by lists of this moment. What a step saw came from watches before its act was
//! written down: pods can have come since, and a watch can be behind.

use crate::k8s::cache::CacheSnapshot;
use crate::model::ApiError;
use crate::model::kube::Node;
use crate::steps::{StepWorld, evictable};

/// Returns what lists show of the cluster when no pod keeps `group` from being empty; none where one does. `counts`: which
/// nodes of the group a pod may keep.
pub async fn prove_group_empty(
    world: &StepWorld,
    group: &str,
    counts: fn(&Node) -> bool,
) -> Result<Option<CacheSnapshot>, ApiError> {
    let (mut nodes, pods) = tokio::try_join!(world.kube.list_nodes(), world.kube.list_pods())?;
    // A node may have joined since the last look; whose it is decides whether its pods count.
    world.ask_members().await?;
    for node in &mut nodes {
        world.kube.members.name_group(node);
    }
    let kept = nodes.iter().filter(|n| counts(n));
    let left = evictable::pods_left_in(kept, pods.iter(), group);
    Ok(left
        .is_empty()
        .then(|| CacheSnapshot::from_lists(nodes, pods)))
}
