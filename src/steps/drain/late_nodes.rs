//! Nodes that join while a drain goes on, of blue and of green. Pure.

use jiff::Timestamp;

use crate::engine::{Decision, StepHistory};
use crate::k8s::cache::CacheSnapshot;
use crate::steps::attempts::{CallAttempt, NodegroupRequest, unchanged_since};
use crate::steps::closing::{NodeClosing, next_closing};
use crate::steps::drain::act::DrainStepAct;
use crate::steps::drain::observation::DrainObservation;
use crate::steps::nodes::is_protected;

/// Holds nodes that joined late, and closes those of blue in the order in which the others were closed. The drain waits
/// until that is done.
pub fn close_late_nodes(
    seen: &DrainObservation,
    past: &StepHistory,
    now: Timestamp,
) -> Option<Decision<DrainStepAct>> {
    if !seen.unprotected_nodes.is_empty() {
        let nodes = seen.unprotected_nodes.clone();
        return Some(Decision::Act(DrainStepAct::Hold { nodes }));
    }
    // Nodes of blue are closed as the others were: without the pause after the taint an autoscaler would grow blue
    // (CA-1).
    let nodes = seen.nodes.iter().map(|n| n.node.as_ref());
    let last_act = unchanged_since(past);
    let closing = next_closing(&seen.group, nodes, &seen.run, last_act, now)?;
    Some(match closing {
        NodeClosing::Protect { nodes } => Decision::Act(DrainStepAct::Hold { nodes }),
        NodeClosing::Taint { nodes } => Decision::Act(DrainStepAct::Taint { nodes }),
        NodeClosing::Wait { why, recheck } => Decision::Wait { why, recheck },
        NodeClosing::Cordon { nodes } => Decision::Act(DrainStepAct::TaintAndCordon { nodes }),
    })
}

/// Grows green. An autoscaler may make it smaller again: the same size asked for in another state of the group is
/// another request, and the same one after a crash is not. The step adds its attempt.
pub fn grow_green(seen: &DrainObservation, desired: i32) -> DrainStepAct {
    DrainStepAct::Grow {
        desired,
        request: NodegroupRequest {
            attempt: CallAttempt::default(),
            modified: seen.green_modified,
        },
    }
}

/// Nodes of `group` that the autoscaler may remove.
pub fn unprotected_nodes(snapshot: &CacheSnapshot, group: Option<&String>) -> Vec<String> {
    let nodes = snapshot.nodes.values();
    let of_group = nodes.filter(|n| group.is_some_and(|g| n.nodegroup_name() == Some(g.as_str())));
    of_group
        .filter(|n| !is_protected(n) && !n.deleting)
        .map(|n| n.name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::kube::Node;
    use crate::steps::drain::fixtures::{TEST_RUN_ID, closed_node, time_at};
    use crate::steps::drain::observation::BlueNode;
    use crate::steps::evictable::tests::pod;

    fn seen(nodes: Vec<Node>) -> DrainObservation {
        let pods = |n: &Node| Arc::new(vec![Arc::new(pod("p", &n.name))]);
        let nodes = nodes.into_iter();
        DrainObservation {
            run: TEST_RUN_ID.into(),
            group: "blue".into(),
            nodes: nodes
                .map(|n| BlueNode::new(Arc::new(n.clone()), pods(&n)))
                .collect(),
            ..DrainObservation::default()
        }
    }

    #[test]
    fn a_node_that_joins_late_is_tainted_then_cordoned_when_an_autoscaler_has_seen_it_and_only_then_does_the_drain_go_on()
     {
        let names = || vec!["late".to_owned()];
        let closed = closed_node("late", None);
        let mut late = closed.clone();
        (late.unschedulable, late.taints, late.annotations) = (false, vec![], Default::default());
        let past = |seconds| StepHistory {
            acts: 3,
            last_act_at: Some(time_at(seconds)),
            ..StepHistory::default()
        };
        let next = |late: &Node, last_act, now| {
            close_late_nodes(
                &seen(vec![closed_node("n1", None), late.clone()]),
                &past(last_act),
                time_at(now),
            )
        };
        assert_eq!(
            next(&late, 0, 60),
            Some(Decision::Act(DrainStepAct::Taint { nodes: names() }))
        );
        (late.taints, late.annotations) = (closed.taints.clone(), closed.annotations.clone());
        let waits = next(&late, 60, 70);
        assert!(
            matches!(&waits, Some(Decision::Wait { why, .. }) if why.contains("late is cordoned")),
            "{waits:?}"
        );
        assert_eq!(
            next(&late, 60, 85),
            Some(Decision::Act(DrainStepAct::TaintAndCordon {
                nodes: names()
            }))
        );
        assert_eq!(next(&closed, 60, 85), None);
    }

    #[test]
    fn nodes_that_green_gets_later_are_held_before_the_drain_goes_on() {
        let mut seen = seen(vec![closed_node("n1", None)]);
        seen.unprotected_nodes = vec!["g4".into()];
        let hold = close_late_nodes(&seen, &StepHistory::default(), time_at(0));
        let nodes = vec!["g4".to_owned()];
        assert_eq!(hold, Some(Decision::Act(DrainStepAct::Hold { nodes })));
    }

    #[test]
    fn growing_green_again_after_an_autoscaler_made_it_smaller_is_another_request() {
        let mut seen = seen(vec![closed_node("n1", None)]);
        seen.green_modified = Some(time_at(-900));
        let first = grow_green(&seen, 5);
        // The same state asks for the same again, as after a crash; the group has been changed, and is small again.
        assert_eq!(first, grow_green(&seen, 5));
        seen.green_modified = Some(time_at(-60));
        assert_ne!(first, grow_green(&seen, 5));
    }
}
