//! Nodes and pods of a report, folded from their changes.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{NodePhase, NodeReport, NodeSpan, PodReport};
use crate::event::StepProgress;
use crate::event::facts::{NodeStatusChange, PodStatusChange};
use crate::report::text::time_between;

impl NodePhase {
    /// The state of an event; `None`: the node is gone, or the word is a later version's.
    fn from_event(word: &str) -> Option<Self> {
        Some(match word {
            "joined" => Self::Joined,
            "open" => Self::Open,
            "not_ready" => Self::NotReady,
            "cordoned" => Self::Cordoned,
            "evicting" => Self::Evicting,
            "waiting_budget" => Self::WaitingBudget,
            "waiting_replacement" => Self::WaitingReplacement,
            "waiting_volume" => Self::WaitingVolume,
            "waiting_target" => Self::WaitingTarget,
            "waiting_job" => Self::WaitingJob,
            "empty" => Self::Empty,
            _ => return None,
        })
    }

    /// Whether a drain has begun with the node.
    pub fn is_of_drain(self) -> bool {
        self >= Self::Evicting
    }
}

/// A pod on its way: its place among the pods, its state, why, and since when.
type MovingPod = (usize, String, Option<String>, Timestamp);

/// Nodes as they come up in the events.
#[derive(Debug, Default)]
pub struct NodeFold {
    nodes: Vec<NodeReport>,
    at: BTreeMap<String, usize>,
    /// Counts of drains by node, for files without changes of nodes.
    counted: Vec<NodeReport>,
    pods: Vec<PodReport>,
    /// By pod and node.
    moving: BTreeMap<(String, String), MovingPod>,
    has_pods: bool,
}

impl NodeFold {
    /// Takes a change of a node.
    pub fn note_node(&mut self, at: Timestamp, change: &NodeStatusChange) {
        let node = self.node_entry(&change.node);
        // Later events may leave the group out.
        if change.group.is_some() {
            node.group.clone_from(&change.group);
        }
        // The largest number seen is how many pods the node had.
        node.pods = node.pods.max(change.pods);
        // A node that is gone keeps its spans; one of the same name may join later.
        if change.state == "gone" {
            close_span(node, at);
            node.gone = Some(at);
            return;
        }
        let Some(state) = NodePhase::from_event(&change.state) else {
            return;
        };
        let last = node.spans.last().map(|s| s.state);
        // The watch tells that a node is cordoned or away; what its drain does with it says more.
        let of_watch = matches!(state, NodePhase::Cordoned | NodePhase::NotReady);
        if of_watch && last.is_some_and(NodePhase::is_of_drain) {
            return;
        }
        if last == Some(state) && node.gone.is_none() {
            return;
        }
        close_span(node, at);
        node.gone = None;
        node.spans.push(NodeSpan {
            state,
            from: at,
            to: at,
            why: change.why.clone(),
        });
    }

    /// Takes the count of a drain's part: all that files of earlier versions tell of a node.
    pub fn note_count(&mut self, at: Timestamp, progress: &StepProgress) {
        let (Some(part), Some(done), Some(total)) = (&progress.part, progress.done, progress.total)
        else {
            return;
        };
        if progress.unit.as_deref() != Some("pods") {
            return;
        }
        // By name, as these files know no node before its first count.
        let found = self.counted.iter().position(|n| n.name == *part);
        let place = found.unwrap_or_else(|| {
            self.counted.push(NodeReport {
                name: part.clone(),
                ..NodeReport::default()
            });
            self.counted.len() - 1
        });
        let node = &mut self.counted[place];
        // The total shrinks as pods go, so the largest one is the number of pods.
        node.pods = node.pods.max(Some(total));
        let state = if done >= total {
            NodePhase::Empty
        } else {
            NodePhase::Evicting
        };
        // Counts that change nothing lengthen the span that is open.
        if node.spans.last().is_none_or(|s| s.state != state) {
            close_span(node, at);
            node.spans.push(NodeSpan {
                state,
                from: at,
                to: at,
                why: None,
            });
        }
    }

    /// Takes a change of a pod.
    pub fn note_pod(&mut self, at: Timestamp, change: &PodStatusChange) {
        self.has_pods = true;
        let key = (change.pod.clone(), change.node.clone());
        // A pod is known by name and node: the one that replaces it may have the same name elsewhere.
        let place = match self.moving.remove(&key) {
            Some((place, state, why, since)) => {
                self.pods[place].add_time(&state, why, since, at);
                place
            }
            None => {
                self.pods.push(PodReport {
                    pod: change.pod.clone(),
                    node: change.node.clone(),
                    from: Some(at),
                    ..PodReport::default()
                });
                self.pods.len() - 1
            }
        };
        self.pods[place].last = Some(at);
        // A pod that is gone has no state that goes on.
        if change.state == "gone" {
            self.pods[place].gone = Some(at);
        } else {
            let now = (place, change.state.clone(), change.why.clone(), at);
            self.moving.insert(key, now);
        }
    }

    /// All nodes, those that moved first coming first, and the pods; open spans end at `end`.
    pub fn finish(mut self, end: Timestamp) -> (Vec<NodeReport>, Option<Vec<PodReport>>) {
        // Pods that were still moving when the events ended.
        for (place, state, why, since) in std::mem::take(&mut self.moving).into_values() {
            self.pods[place].add_time(&state, why, since, end);
            self.pods[place].last = Some(end);
        }
        // Without events of nodes, what was counted of them is all there is.
        let mut nodes = if self.nodes.is_empty() {
            self.counted
        } else {
            self.nodes
        };
        for node in nodes.iter_mut().filter(|n| n.gone.is_none()) {
            close_span(node, end);
        }
        let first_drain = |n: &NodeReport| {
            let of_drain = n.spans.iter().find(|s| s.state.is_of_drain());
            of_drain.map_or(Timestamp::MAX, |s| s.from)
        };
        // Within a group by the time at which its drain began, or it joined.
        let mut groups: Vec<Option<String>> = Vec::new();
        for node in &nodes {
            if !groups.contains(&node.group) {
                groups.push(node.group.clone());
            }
        }
        nodes.sort_by_key(|n| {
            (
                groups.iter().position(|g| *g == n.group),
                first_drain(n),
                n.spans.first().map(|s| s.from),
                n.name.clone(),
            )
        });
        (nodes, self.has_pods.then_some(self.pods))
    }

    fn node_entry(&mut self, name: &str) -> &mut NodeReport {
        let place = match self.at.get(name) {
            Some(place) => *place,
            None => {
                self.nodes.push(NodeReport {
                    name: name.to_owned(),
                    ..NodeReport::default()
                });
                self.at.insert(name.to_owned(), self.nodes.len() - 1);
                self.nodes.len() - 1
            }
        };
        &mut self.nodes[place]
    }
}

impl PodReport {
    fn add_time(&mut self, state: &str, why: Option<String>, from: Timestamp, to: Timestamp) {
        let time = time_between(from, to);
        match self.spent.iter_mut().find(|(known, ..)| known == state) {
            Some((_, spent, reason)) => {
                *spent += time;
                if reason.is_none() {
                    *reason = why;
                }
            }
            None => self.spent.push((state.to_owned(), time, why)),
        }
    }
}

fn close_span(node: &mut NodeReport, at: Timestamp) {
    if node.gone.is_none()
        && let Some(last) = node.spans.last_mut()
    {
        last.to = at;
    }
}
