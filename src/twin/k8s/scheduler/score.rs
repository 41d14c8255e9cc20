//! Which of the nodes that will do is best.

use std::sync::Arc;

use super::super::cluster::SimCluster;
use super::super::typed_views::{NodeView, PodView};
use super::fit::PodConstraints;

/// The nodes with the highest score, in order of name.
pub fn best_nodes(
    cluster: &SimCluster,
    ask: &PodConstraints<'_>,
    pod: &PodView,
    nodes: &[Arc<NodeView>],
) -> Vec<Arc<NodeView>> {
    let mut best: Vec<Arc<NodeView>> = Vec::new();
    let mut highest = i64::MIN;
    for node in nodes {
        let score = score_node(cluster, ask, pod, node);
        if score > highest {
            highest = score;
            best.clear();
        }
        if score == highest {
            best.push(node.clone());
        }
    }
    best
}

/// Weighs like the real plugins' defaults: spreading and soft taints above room.
fn score_node(
    cluster: &SimCluster,
    ask: &PodConstraints<'_>,
    pod: &PodView,
    node: &NodeView,
) -> i64 {
    // The score begins with the free room, as the least-allocated strategy does.
    let load = cluster.store.index.load.get(&node.name);
    let (cpu, memory) = load.map_or((0, 0), |l| (l.cpu, l.memory));
    let free = |used: i64, asked: i64, all: i64| {
        if all > 0 {
            100 * (all - used - asked).max(0) / all
        } else {
            0
        }
    };
    let mut score = (free(cpu, pod.cpu, node.cpu) + free(memory, pod.memory, node.memory)) / 2;
    // A soft taint costs more than room can give, so such a node is the last choice but a possible one.
    let soft = node
        .taints
        .iter()
        .filter(|t| t.effect == "PreferNoSchedule" && t.toleration_for(ask.tolerations).is_none());
    score -= 300 * soft.count() as i64;
    if ask.spreads.is_empty() {
        // The default spreading: siblings on different nodes.
        let siblings = pod
            .owner
            .as_ref()
            .and_then(|o| load?.by_owner.get(&o.uid))
            .copied()
            .unwrap_or(0);
        score -= 100 * siblings;
    }
    // Soft and hard constraints both weigh: a place with fewer pods is better, and a node without the label is the
    // worst.
    for spread in &ask.spreads {
        let here = node
            .labels
            .get(&spread.key)
            .map(|v| spread.counts.get(v).copied().unwrap_or(0));
        score -= here.map_or(200, |here| 200 * here);
    }
    // Preferred node affinity and pod affinity add their weights.
    for (weight, term) in &ask.preferred {
        score += if term.matches(node) { 2 * weight } else { 0 };
    }
    for preference in &ask.preferences {
        score += preference.score_node(node);
    }
    score
}
