//! Our marks on nodes: put on and taken off, each by a patch that applies to the node as it was read or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::engine::StepError;
use crate::k8s::cache::CacheSnapshot;
use crate::k8s::node::NodeChange;
use crate::model::kube::{Node, Taint};
use crate::model::{ErrorClass, marks};
use crate::steps::StepWorld;

/// Why nothing can run on a node group: somebody may have deleted it, or its nodes, since it was filled.
pub async fn find_unfit_reason(
    world: &StepWorld,
    group: &str,
    snapshot: &CacheSnapshot,
) -> Result<Option<String>, StepError> {
    let Some(read) = world.read_node_group(group).await? else {
        return Ok(Some(format!("node group {group} is gone")));
    };
    if matches!(
        read.status.as_str(),
        "DELETING" | "DELETE_FAILED" | "CREATE_FAILED"
    ) {
        return Ok(Some(format!("node group {group} is {}", read.status)));
    }
    // ACTIVE says nothing of nodes (EKS-NG-11). A group that is to have none is as somebody wants it.
    let mut nodes = snapshot.nodes.values();
    let none = !nodes.any(|n| n.nodegroup_name() == Some(group) && n.is_ready());
    Ok((none && read.scaling.desired > 0).then(|| format!("node group {group} has no Ready node")))
}

/// Taints nodes as blue, so that no new pod comes and the autoscaler sees it in its template, and keeps the autoscaler
/// from removing them.
pub async fn taint_and_protect(world: &StepWorld, names: &[String]) -> Result<(), StepError> {
    change_each_node(world, names, |node| {
        let mut change = protection_change(node, &world.run);
        change.taints = taint_change(node, &world.run).taints;
        change
    })
    .await
}

/// Cordons nodes, and remembers on each that it was us.
pub async fn cordon_nodes(world: &StepWorld, names: &[String]) -> Result<(), StepError> {
    change_each_node(world, names, |node| cordon_change(node, &world.run)).await
}

/// Taints and cordons nodes at once.
pub async fn taint_and_cordon(world: &StepWorld, names: &[String]) -> Result<(), StepError> {
    change_each_node(world, names, |node| {
        let mut change = cordon_change(node, &world.run);
        change.taints = taint_change(node, &world.run).taints;
        change
    })
    .await
}

/// Takes off whatever closed the nodes, as far as it was this run.
pub async fn reopen_nodes(world: &StepWorld, names: &[String]) -> Result<(), StepError> {
    change_each_node(world, names, |node| {
        let mut change = NodeChange::default();
        // Only what carries this run's id is taken off: a taint or a cordon of somebody else, even an earlier run's,
        // stays.
        if node.taints.iter().any(|t| is_our_taint(t, &world.run)) {
            change.taints = Some(
                node.taints
                    .iter()
                    .filter(|t| !is_our_taint(t, &world.run))
                    .cloned()
                    .collect(),
            );
        }
        if node.annotations.get(marks::CORDONED) == Some(&world.run) {
            change.unschedulable = Some(false);
            change.annotations.insert(marks::CORDONED.to_owned(), None);
        }
        change
    })
    .await
}

/// Marks nodes as being drained since `at`, and takes them out of controller-filled target groups.
pub async fn mark_draining(
    world: &StepWorld,
    names: &[String],
    at: Timestamp,
) -> Result<(), StepError> {
    change_each_node(world, names, |node| {
        let mut change = NodeChange::default();
        let mark = format!("{}@{at}", world.run);
        change
            .annotations
            .insert(marks::DRAINING.to_owned(), Some(mark));
        // A label somebody else put there stays theirs: only an absent one is set, and `unmark` removes ours by value.
        if !node.labels.contains_key(marks::EXCLUDE_FROM_LB) {
            change.labels.insert(
                marks::EXCLUDE_FROM_LB.to_owned(),
                Some(EXCLUDE_LABEL_VALUE.to_owned()),
            );
        }
        change
    })
    .await
}

/// Marks nodes as given up.
pub async fn mark_skipped(world: &StepWorld, names: &[String]) -> Result<(), StepError> {
    change_each_node(world, names, |_| NodeChange {
        annotations: BTreeMap::from([(marks::SKIPPED.to_owned(), Some(world.run.clone()))]),
        ..NodeChange::default()
    })
    .await
}

/// Takes the marks of a drain off.
pub async fn remove_drain_marks(world: &StepWorld, names: &[String]) -> Result<(), StepError> {
    change_each_node(world, names, |node| {
        let mut change = NodeChange::default();
        for key in [marks::DRAINING, marks::SKIPPED] {
            if node.annotations.contains_key(key) {
                change.annotations.insert(key.to_owned(), None);
            }
        }
        // The label may be somebody else's, with another value; then it stays.
        if node
            .labels
            .get(marks::EXCLUDE_FROM_LB)
            .is_some_and(|v| v == EXCLUDE_LABEL_VALUE)
        {
            change
                .labels
                .insert(marks::EXCLUDE_FROM_LB.to_owned(), None);
        }
        change
    })
    .await
}

/// Keeps the autoscaler from removing nodes.
pub async fn protect_from_scale_down(world: &StepWorld, names: &[String]) -> Result<(), StepError> {
    change_each_node(world, names, |node| protection_change(node, &world.run)).await
}

/// Lets the autoscaler remove nodes again, where this run kept it from it; what the annotation said before stands again.
pub async fn allow_scale_down(world: &StepWorld, names: &[String]) -> Result<(), StepError> {
    change_each_node(world, names, |node| release_change(node, &world.run)).await
}

/// Whether the cluster autoscaler is told to leave the node alone, by whomever.
pub fn is_protected(node: &Node) -> bool {
    let told = node.annotations.get(marks::SCALE_DOWN_DISABLED);
    told.is_some_and(|v| v == "true")
}

/// Returns whether `run` told the cluster autoscaler to leave the node alone. Only what the run itself marked is taken
/// back.
pub fn is_protected_by(node: &Node, run: &str) -> bool {
    let by = node.annotations.get(marks::SCALE_DOWN_HELD);
    by.is_some_and(|by| by == run)
}

/// Whether `run` has closed the node to new pods in any way.
pub fn is_closed_by(node: &Node, run: &str) -> bool {
    let by = node.annotations.get(marks::CORDONED);
    by.is_some_and(|by| by == run) || node.taints.iter().any(|t| is_our_taint(t, run))
}

fn protection_change(node: &Node, run: &str) -> NodeChange {
    let mut change = NodeChange::default();
    if is_protected(node) {
        return change;
    }
    let mut set = |key: &str, value: &str| {
        let value = Some(value.to_owned());
        change.annotations.insert(key.to_owned(), value);
    };
    // A value other than `true` is somebody's too, so it is kept aside and put back at the end.
    if let Some(before) = node.annotations.get(marks::SCALE_DOWN_DISABLED) {
        set(marks::SCALE_DOWN_BEFORE, before);
    }
    set(marks::SCALE_DOWN_DISABLED, "true");
    set(marks::SCALE_DOWN_HELD, run);
    change
}

fn release_change(node: &Node, run: &str) -> NodeChange {
    let mut change = NodeChange::default();
    if !is_protected_by(node, run) {
        return change;
    }
    let before = node.annotations.get(marks::SCALE_DOWN_BEFORE).cloned();
    if before.is_some() {
        let key = marks::SCALE_DOWN_BEFORE.to_owned();
        change.annotations.insert(key, None);
    }
    let key = marks::SCALE_DOWN_DISABLED.to_owned();
    change.annotations.insert(key, before);
    let key = marks::SCALE_DOWN_HELD.to_owned();
    change.annotations.insert(key, None);
    change
}

/// The value of the exclude label when eksup set it. The load balancer controller looks at the key alone; the cloud
/// controller reads the value as a boolean, and only `false` would include the node.
pub const EXCLUDE_LABEL_VALUE: &str = "eksup";

fn is_our_taint(taint: &Taint, run: &str) -> bool {
    taint.key == marks::BLUE_TAINT && taint.value.as_deref() == Some(run)
}

fn taint_change(node: &Node, run: &str) -> NodeChange {
    let mut taints: Vec<Taint> = node
        .taints
        .iter()
        .filter(|t| t.key != marks::BLUE_TAINT)
        .cloned()
        .collect();
    taints.push(Taint {
        key: marks::BLUE_TAINT.to_owned(),
        value: Some(run.to_owned()),
        effect: "NoSchedule".to_owned(),
    });
    NodeChange {
        taints: Some(taints),
        ..NodeChange::default()
    }
}

fn cordon_change(node: &Node, run: &str) -> NodeChange {
    if node.unschedulable {
        // Somebody else's cordon stays somebody else's.
        return NodeChange::default();
    }
    NodeChange {
        unschedulable: Some(true),
        annotations: BTreeMap::from([(marks::CORDONED.to_owned(), Some(run.to_owned()))]),
        ..NodeChange::default()
    }
}

/// How long a change is waited for to come back through the watch; a look that does not see it yet would do it again.
const WATCH_ECHO_TIMEOUT: Duration = Duration::from_secs(3);

/// Changes each node as it reads now. A node that has gone is no failure; one that somebody changed meanwhile is read
/// again on the next look.
async fn change_each_node(
    world: &StepWorld,
    names: &[String],
    change: impl Fn(&Node) -> NodeChange,
) -> Result<(), StepError> {
    let snapshot = world.read_snapshot().await?;
    let mut changed = BTreeMap::new();
    for name in names {
        let Some(node) = snapshot.nodes.get(name) else {
            continue;
        };
        let wanted = change(node);
        if wanted == NodeChange::default() {
            continue;
        }
        // The change holds for the node as it was read, or not at all: a taint list is written whole, and somebody
        // else's would be lost.
        match world.kube.change_node(node, &wanted).await {
            Ok(_) => drop(changed.insert(name, node.resource_version.clone())),
            Err(e) if matches!(e.class, ErrorClass::Absent | ErrorClass::Conflict) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let seen = async {
        let mut bell = world.cache.subscribe_changes();
        loop {
            // In this order a change that arrives between the reading and the wait still wakes it.
            bell.mark_unchanged();
            let now = world.read_snapshot().await?;
            let behind = |(name, was): (&&String, &String)| {
                now.nodes
                    .get(*name)
                    .is_some_and(|n| n.resource_version == *was)
            };
            if !changed.iter().any(behind) || bell.changed().await.is_err() {
                return Ok(());
            }
        }
    };
    // No echo within the time is no failure: the next look decides from what it sees.
    tokio::time::timeout(WATCH_ECHO_TIMEOUT, seen)
        .await
        .unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::closing::tests::node;

    fn applied(mut node: Node, change: NodeChange) -> Node {
        for (key, value) in change.annotations {
            match value {
                Some(value) => drop(node.annotations.insert(key, value)),
                None => drop(node.annotations.remove(&key)),
            }
        }
        node
    }

    #[test]
    fn a_hold_leaves_no_trace_and_what_somebody_else_said_stands_again() {
        for before in [None, Some("false"), Some("")] {
            let mut free = node("n1");
            let told = before.map(|v| (marks::SCALE_DOWN_DISABLED.to_owned(), v.to_owned()));
            free.annotations.extend(told);
            let kept = applied(free.clone(), protection_change(&free, "run"));
            assert!(
                is_protected(&kept) && is_protected_by(&kept, "run"),
                "{before:?}"
            );
            // Another run leaves it alone.
            assert_eq!(release_change(&kept, "other"), NodeChange::default());
            let back = applied(kept.clone(), release_change(&kept, "run"));
            assert_eq!(back.annotations, free.annotations, "{before:?}");
        }
        let mut theirs = node("n1");
        let told = (marks::SCALE_DOWN_DISABLED.to_owned(), "true".to_owned());
        theirs.annotations.extend([told]);
        assert_eq!(protection_change(&theirs, "run"), NodeChange::default());
        assert_eq!(release_change(&theirs, "run"), NodeChange::default());
    }
}
