//! What a report tells of begun nodes and their pods: said once, when it changes.

use std::collections::BTreeMap;

use crate::event::facts::{NodeStatusChange, PodStatusChange};
use crate::model::kube::Pod;
use crate::steps::drain::eviction_plan::{HoldKind, OpenNode};

/// A node or pod state as events have it, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct DrainState {
    pub state: &'static str,
    pub why: Option<String>,
}

impl DrainState {
    fn new(state: &'static str, why: Option<String>) -> Self {
        Self { state, why }
    }
}

/// A begun node and what its pods do, as one look saw them.
#[derive(Clone, Debug)]
pub struct NodeLook {
    pub node: String,
    pub state: DrainState,
    pub left: u64,
    /// By uid: the pod's name and its state.
    pub pods: Vec<(String, String, DrainState)>,
}

/// The state of a held pod, by what holds it.
fn hold_state(kind: HoldKind) -> &'static str {
    match kind {
        HoldKind::Budget => "waiting_budget",
        HoldKind::LastReady | HoldKind::NoPlace { .. } | HoldKind::SurgeFirst => {
            "waiting_replacement"
        }
    }
}

/// Sums up a look at `open`; `is_target`: it is still in a target group.
pub fn look_at_node(open: &OpenNode<'_>, is_target: bool) -> NodeLook {
    let name = |pod: &Pod| (pod.uid.clone(), pod.key.to_string());
    let mut pods = Vec::new();
    let mut add = |pod: &Pod, state: &'static str, why: Option<String>| {
        let (uid, name) = name(pod);
        pods.push((uid, name, DrainState::new(state, why)));
    };
    // The first reason stands for the node; each pod has its own beside it.
    let held_by = open.held_by.first().cloned();
    for pod in &open.ready {
        add(pod, "ready_to_go", None);
    }
    for held in &open.held_pods {
        add(held.pod, hold_state(held.kind), Some(held.why.clone()));
    }
    for pod in &open.leaving {
        add(pod, "stopping", None);
    }
    // A Job's pod is no obstacle: it is waited for as long as the plan allows.
    for pod in &open.jobs {
        add(pod, "waiting_job", Some("it runs to completion".to_owned()));
    }
    let left = pods.len() as u64;
    // While a pod moves the node is being emptied; only what nothing moves is waited for.
    let state = if is_target {
        DrainState::new("waiting_target", held_by)
    } else if !open.ready.is_empty() {
        DrainState::new("evicting", None)
    } else if let Some(held) = open.held_pods.first() {
        let why = format!("pod {}: {}", held.pod.key, held.why);
        DrainState::new(hold_state(held.kind), Some(why))
    } else if !open.leaving.is_empty() {
        DrainState::new("evicting", None)
    } else if let Some(job) = open.jobs.first() {
        DrainState::new("waiting_job", Some(format!("pod {}", job.key)))
    } else if held_by.is_some() {
        DrainState::new("waiting_volume", held_by)
    } else {
        DrainState::new("empty", None)
    };
    NodeLook {
        node: open.node.node.name.clone(),
        state,
        left,
        pods,
    }
}

/// What was said last of nodes and pods.
#[derive(Debug, Default)]
pub struct SaidChanges {
    nodes: BTreeMap<String, &'static str>,
    /// By uid: name, node, state.
    pods: BTreeMap<String, (String, String, &'static str)>,
}

impl SaidChanges {
    /// Takes a look at all begun nodes; returns what is different from what was said of `step` before. A pod that is
    /// not on a begun node any more is gone.
    /// `is_on_node`: whether the pod of a uid is still on a node of blue, as a node that is given up has no look.
    pub fn note_looks(
        &mut self,
        step: &str,
        looks: &[NodeLook],
        is_on_node: &dyn Fn(&str) -> bool,
    ) -> (Vec<NodeStatusChange>, Vec<PodStatusChange>) {
        let (mut nodes, mut pods) = (Vec::new(), Vec::new());
        let mut there = BTreeMap::new();
        for look in looks {
            // Only what differs from the last thing said becomes an event: a drain looks every few seconds.
            for (uid, name, state) in &look.pods {
                let said = self.pods.get(uid).map(|(_, _, state)| *state);
                if said != Some(state.state) {
                    pods.push(pod_change(step, name, &look.node, state));
                }
                there.insert(uid.clone(), (name.clone(), look.node.clone(), state.state));
            }
            let said = self.nodes.insert(look.node.clone(), look.state.state);
            if said != Some(look.state.state) {
                nodes.push(NodeStatusChange {
                    step: step.to_owned(),
                    node: look.node.clone(),
                    state: look.state.state.to_owned(),
                    why: look.state.why.clone(),
                    pods: Some(look.left),
                    ..NodeStatusChange::default()
                });
            }
        }
        // Pods that no look has shown: either their node has no look any more, or they are gone.
        for (uid, said) in &self.pods {
            if there.contains_key(uid) {
                continue;
            }
            if is_on_node(uid) {
                there.insert(uid.clone(), said.clone());
            } else {
                let gone = DrainState::new("gone", None);
                pods.push(pod_change(step, &said.0, &said.1, &gone));
            }
        }
        self.pods = there;
        (nodes, pods)
    }
}

fn pod_change(step: &str, pod: &str, node: &str, state: &DrainState) -> PodStatusChange {
    PodStatusChange {
        step: step.to_owned(),
        pod: pod.to_owned(),
        node: node.to_owned(),
        state: state.state.to_owned(),
        why: state.why.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(pods: &[(&str, &'static str)]) -> NodeLook {
        let pods: Vec<_> = pods
            .iter()
            .map(|(name, state)| {
                let state = DrainState::new(state, Some("budget a/b".to_owned()));
                (format!("uid-{name}"), format!("a/{name}"), state)
            })
            .collect();
        let state = if pods.is_empty() { "empty" } else { "evicting" };
        NodeLook {
            node: "n1".to_owned(),
            state: DrainState::new(state, None),
            left: pods.len() as u64,
            pods,
        }
    }

    #[test]
    fn a_change_is_said_once_and_a_pod_that_left_is_gone() {
        let mut said = SaidChanges::default();
        let none = |_: &str| false;
        let states = |looked: (Vec<NodeStatusChange>, Vec<PodStatusChange>)| {
            let nodes = looked.0.into_iter().map(|n| n.state);
            nodes
                .chain(
                    looked
                        .1
                        .into_iter()
                        .map(|p| format!("{} {}", p.pod, p.state)),
                )
                .collect::<Vec<_>>()
        };
        let held = [look(&[("web", "waiting_budget")])];
        assert_eq!(
            states(said.note_looks("d", &held, &none)),
            ["evicting", "a/web waiting_budget"]
        );
        assert!(states(said.note_looks("d", &held, &none)).is_empty());
        assert_eq!(
            states(said.note_looks("d", &[look(&[("web", "stopping")])], &none)),
            ["a/web stopping"]
        );
        assert_eq!(
            states(said.note_looks("d", &[look(&[])], &none)),
            ["empty", "a/web gone"]
        );
    }

    #[test]
    fn a_pod_on_a_node_that_is_given_up_is_not_gone() {
        let mut said = SaidChanges::default();
        let there = |uid: &str| uid == "uid-web";
        said.note_looks("d", &[look(&[("web", "waiting_budget")])], &there);
        assert!(said.note_looks("d", &[], &there).1.is_empty());
        let (_, pods) = said.note_looks("d", &[], &|_: &str| false);
        assert_eq!(pods[0].state, "gone");
    }
}
