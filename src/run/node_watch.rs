//! Nodes of the route's groups as the cluster's watch sees them: when they join, are Ready, cordoned, opened, gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::event::facts::NodeStatusChange;
use crate::event::{EventKind, RunEvent};
use crate::k8s::WatchCache;
use crate::k8s::cache::CacheSnapshot;
use crate::model::Clock;
use crate::model::kube::Node;
use crate::steps::WATCH_STALENESS_LIMIT;

/// Changes come in bursts; a report needs no more than this.
const NODE_WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// A watch that ends with this.
pub struct NodeWatch(JoinHandle<()>);

impl Drop for NodeWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells `emit` of each change of a node of any node group.
pub fn watch_nodes(
    cache: WatchCache,
    clock: Clock,
    emit: Arc<dyn Fn(RunEvent) + Send + Sync>,
) -> NodeWatch {
    NodeWatch(tokio::spawn(async move {
        let mut changed = cache.subscribe_changes();
        let mut said = SaidNodes::default();
        loop {
            // What cannot be read now is read after the next change.
            if let Ok(snapshot) = cache.read_current(WATCH_STALENESS_LIMIT).await {
                for change in note_nodes(&mut said, &snapshot) {
                    emit(RunEvent {
                        at: clock.now(),
                        kind: EventKind::NodeChanged(change),
                    });
                }
            }
            tokio::time::sleep(NODE_WATCH_INTERVAL).await;
            if changed.changed().await.is_err() {
                return;
            }
        }
    }))
}

/// What was said of nodes.
#[derive(Debug, Default)]
struct SaidNodes {
    /// By node: its group and its state.
    states: BTreeMap<String, (String, &'static str)>,
    /// Whether the cluster was looked at before: a node that is new then has just joined.
    has_looked: bool,
}

fn note_nodes(said: &mut SaidNodes, snapshot: &CacheSnapshot) -> Vec<NodeStatusChange> {
    let mut changes = Vec::new();
    let change = |node: &str, group: &str, state: &str| NodeStatusChange {
        node: node.to_owned(),
        group: Some(group.to_owned()),
        state: state.to_owned(),
        ..NodeStatusChange::default()
    };
    // A node is told once for each state, and Karpenter's nodes, which are of no group, never.
    for node in snapshot.nodes.values() {
        let Some(group) = node.nodegroup_name() else {
            continue;
        };
        let before = said.states.get(&node.name).map(|(_, state)| *state);
        let state = node_state(node, before, said.has_looked);
        if before != Some(state) {
            changes.push(change(&node.name, group, state));
            let known = (group.to_owned(), state);
            said.states.insert(node.name.clone(), known);
        }
    }
    said.has_looked = true;
    // What was told and is not listed any more is gone.
    said.states.retain(|name, (group, _)| {
        let there = snapshot.nodes.contains_key(name);
        if !there {
            changes.push(change(name, group, "gone"));
        }
        there
    });
    changes
}

fn node_state(node: &Node, before: Option<&str>, has_looked: bool) -> &'static str {
    match (node.is_ready(), node.unschedulable, before) {
        (false, false, None) if !has_looked => "not_ready",
        (_, true, _) => "cordoned",
        (true, false, _) => "open",
        (false, false, None | Some("joined")) => "joined",
        (false, false, Some(_)) => "not_ready",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::drain::fixtures::closed_node;

    #[test]
    fn a_node_is_told_of_when_it_joins_is_cordoned_and_goes() {
        let mut said = SaidNodes::default();
        let mut look = |nodes: Vec<Node>| {
            let changes = note_nodes(&mut said, &CacheSnapshot::from_lists(nodes, Vec::new()));
            let states = changes.into_iter().map(|c| c.state);
            states.collect::<Vec<_>>()
        };
        let mut node = closed_node("n1", None);
        node.labels
            .insert("eks.amazonaws.com/nodegroup".into(), "blue".into());
        node.unschedulable = false;
        let not_ready = Node {
            ready: "False".into(),
            ..node.clone()
        };
        let cordoned = Node {
            unschedulable: true,
            ..node.clone()
        };
        // How long a node has been there that the first look finds, nobody knows.
        let old = Node {
            name: "n0".into(),
            ..not_ready.clone()
        };
        assert_eq!(look(vec![old.clone()]), ["not_ready"]);
        assert_eq!(look(vec![old, not_ready.clone()]), ["joined"]);
        assert_eq!(look(vec![node.clone()]), ["open", "gone"]);
        assert!(look(vec![node]).is_empty());
        assert_eq!(look(vec![not_ready]), ["not_ready"]);
        assert_eq!(look(vec![cordoned]), ["cordoned"]);
        assert_eq!(look(Vec::new()), ["gone"]);
    }
}
