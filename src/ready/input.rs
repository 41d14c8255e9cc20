//! What the judges share: the plan, the inventory, the route, and who is blue.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Finding;
use super::pod_search::PodSearch;
use super::workloads::WorkloadIndex;
use crate::model::eks::{NewNodegroup, Nodegroup};
use crate::model::kube::{Node, Pod};
use crate::model::{Inventory, Minor};
use crate::plan::{Drain, FargatePods, Plan};
use crate::route::{self, Route, StepSpec};

/// One blue group of the inventory and its first green, as the route has it.
pub struct BlueGreenPair<'a> {
    pub blue: &'a Nodegroup,
    pub green: &'a NewNodegroup,
    /// Zones in which green must have a Ready node.
    pub zones: &'a [String],
}

impl BlueGreenPair<'_> {
    /// Blue in messages, such as `node group apps`.
    pub fn blue_words(&self) -> String {
        format!("{} {}", self.blue.source.group_words(), self.blue.name)
    }

    /// Green in messages.
    pub fn green_words(&self) -> String {
        format!("{} {}", self.blue.source.group_words(), self.green.name)
    }
}

/// The greens of all pairs, each kind named once: `node group web, api; NodePool general`.
pub fn name_greens(pairs: &[BlueGreenPair<'_>]) -> String {
    let mut by_kind: Vec<(&str, Vec<&str>)> = Vec::new();
    for pair in pairs {
        let (words, name) = (pair.blue.source.group_words(), pair.green.name.as_str());
        match by_kind.iter_mut().find(|(kind, _)| *kind == words) {
            Some((_, names)) => names.push(name),
            None => by_kind.push((words, vec![name])),
        }
    }
    let each = by_kind.iter();
    let each: Vec<String> = each
        .map(|(kind, names)| format!("{kind} {}", names.join(", ")))
        .collect();
    each.join("; ")
}

/// What is judged.
pub struct ReadinessInput<'a> {
    pub plan: &'a Plan,
    pub inventory: &'a Inventory,
    pub route: Option<&'a Route>,
    /// The groups that move, with their first greens; empty where there is no route.
    pub changes: Vec<BlueGreenPair<'a>>,
    /// Names of the groups that move.
    pub blues: BTreeSet<&'a str>,
    /// The nodes of the groups that move, by name, with their groups.
    group_of_blue: HashMap<&'a str, &'a str>,
    /// Nodes of Fargate whose pods the run replaces.
    restarted_nodes: HashSet<&'a str>,
    pub workloads: WorkloadIndex<'a>,
    pub pods: PodSearch<'a>,
}

impl<'a> ReadinessInput<'a> {
    /// Puts a case together. Where there is no route, the groups that are behind the target count as blue.
    pub fn new(plan: &'a Plan, inventory: &'a Inventory, route: Option<&'a Route>) -> Self {
        let mut changes: Vec<BlueGreenPair<'a>> = Vec::new();
        // A group that stops over at a minor in between has several greens: the first takes blue's pods.
        for step in route.iter().flat_map(|r| &r.steps) {
            if let StepSpec::CreateGreen {
                blue, group, zones, ..
            } = &step.spec
                && let Some(found) = inventory.find_nodegroup(blue)
                && !changes.iter().any(|c| c.blue.name == *blue)
            {
                changes.push(BlueGreenPair {
                    blue: found,
                    green: group,
                    zones,
                });
            }
        }
        // Without a route, the groups that the plan names and that are behind its version stand for blue.
        let blues: BTreeSet<&str> = if route.is_some() {
            changes.iter().map(|c| c.blue.name.as_str()).collect()
        } else {
            let named = |g: &Nodegroup| {
                let all = g.source.is_managed() && plan.node_groups.is_empty();
                all || plan.all_groups().any(|w| w.blue == g.name)
            };
            let behind = |g: &Nodegroup| route::oldest_kubelet(inventory, g) < plan.to;
            let groups = inventory.nodegroups.iter();
            groups
                .filter(|g| named(g) && behind(g))
                .map(|g| g.name.as_str())
                .collect()
        };
        // By the group that each names, as nodes of other groups are not blue's.
        let group_of_blue = inventory.nodes.iter().filter_map(|n| {
            let group = n.nodegroup_name()?;
            blues.contains(group).then_some((n.name.as_str(), group))
        });
        let group_of_blue = group_of_blue.collect();
        let is_old =
            |n: &&Node| Minor::from_reported(&n.kubelet_version).map_or(true, |k| k < plan.to);
        let restarts = plan.fargate == FargatePods::Restart;
        let fargate = inventory
            .nodes
            .iter()
            .filter(|n| restarts && n.is_fargate());
        let restarted_nodes = fargate.filter(is_old).map(|n| n.name.as_str()).collect();
        Self {
            plan,
            inventory,
            route,
            changes,
            blues,
            group_of_blue,
            restarted_nodes,
            workloads: WorkloadIndex::new(inventory),
            pods: PodSearch::new(inventory),
        }
    }

    /// Nodes of the groups that move.
    pub fn blue_nodes(&self) -> impl Iterator<Item = &'a Node> {
        let blues = self.blues.clone();
        let nodes = self.inventory.nodes.iter();
        nodes.filter(move |n| n.nodegroup_name().is_some_and(|g| blues.contains(g)))
    }

    /// Pods on blue that a drain moves: no DaemonSet's, no mirror of a static pod, none that has ended.
    pub fn moving_pods(&self) -> Vec<&'a Pod> {
        self.moving_among(self.inventory.pods.iter())
    }

    /// Those of `pods` that a drain moves off blue.
    pub fn moving_among(&self, pods: impl Iterator<Item = &'a Pod>) -> Vec<&'a Pod> {
        let moves = |n: &str| self.group_of_blue.contains_key(n);
        pods.filter(|p| p.node.as_deref().is_some_and(moves))
            .filter(|p| can_be_evicted(p))
            .collect()
    }

    /// The pods that the run evicts: those that a drain moves off blue, and those on Fargate.
    pub fn evicted_pods(&self) -> Vec<&'a Pod> {
        self.evicted_among(self.inventory.pods.iter())
    }

    /// Those of `pods` that the run evicts.
    pub fn evicted_among(&self, pods: impl Iterator<Item = &'a Pod>) -> Vec<&'a Pod> {
        let goes = |p: &&Pod| {
            let node = p.node.as_deref();
            self.is_restarted(p) || node.is_some_and(|n| self.group_of_blue.contains_key(n))
        };
        pods.filter(goes).filter(|p| can_be_evicted(p)).collect()
    }

    /// Whether a pod is on Fargate and replaced there.
    pub fn is_restarted(&self, pod: &Pod) -> bool {
        let node = pod.node.as_deref();
        node.is_some_and(|n| self.restarted_nodes.contains(n))
    }

    /// The group of a node, where it moves.
    pub fn blue_of_node(&self, node: &str) -> Option<&'a str> {
        self.group_of_blue.get(node).copied()
    }

    /// How a node is emptied: as its group is.
    pub fn drain_of_node(&self, node: &str) -> &'a Drain {
        let blue = self.blue_of_node(node);
        blue.map_or(&self.plan.drain, |blue| self.plan.drain_of(blue))
    }

    /// How a pod is moved: as its node's group is emptied.
    pub fn drain_of_pod(&self, pod: &Pod) -> &'a Drain {
        self.drain_of_node(pod.node.as_deref().unwrap_or_default())
    }

    /// How the groups that move are emptied, each way once; the plan's own where none moves.
    pub fn drains(&self) -> Vec<&'a Drain> {
        let mut all: Vec<&Drain> = Vec::new();
        for blue in &self.blues {
            let drain = self.plan.drain_of(blue);
            if !all.contains(&drain) {
                all.push(drain);
            }
        }
        if all.is_empty() {
            all.push(&self.plan.drain);
        }
        all
    }

    /// How a key of `drain`, or a key with a value (`deadKubelets: skip`), is named to who reads of a node.
    pub fn drain_key(&self, node: &str, text: &str) -> String {
        let key = text.split(':').next().unwrap_or(text);
        let place = self.drain_place(self.blue_of_node(node), key);
        format!("`drain.{text}`{place}")
    }

    /// Where a key of `drain` counts for a group: at the top of the plan, which is not said, or in the group's own entry.
    pub fn drain_place(&self, blue: Option<&str>, key: &str) -> String {
        let mut groups = self.plan.all_groups();
        let group = blue.and_then(|blue| groups.find(|g| g.blue == blue));
        match group.and_then(|g| Some((&g.blue, g.drain.as_ref()?))) {
            Some((blue, own)) if own.differs_in(key) => {
                let managed = self.plan.node_groups.iter().any(|g| g.blue == *blue);
                let list = if managed {
                    "nodeGroups"
                } else {
                    "autoScalingGroups"
                };
                format!(" of {blue} under `{list}`")
            }
            _ => String::new(),
        }
    }

    /// The versions the control plane will have, from the first hop to the target.
    pub fn minors_ahead(&self) -> impl Iterator<Item = Minor> {
        (self.inventory.cluster.version.number() + 1..=self.plan.to.number()).map(Minor::new)
    }
}

/// Whether a pod has to leave its node for the node to go: no DaemonSet's, no mirror of a static pod, none that has ended.
pub fn can_be_evicted(pod: &Pod) -> bool {
    !pod.is_daemon_pod() && !pod.mirror && !pod.is_finished() && pod.deletion_timestamp.is_none()
}

/// Names at most three of many.
pub fn name_some(names: &[String]) -> String {
    match names {
        [a, b, c, rest @ ..] if !rest.is_empty() => {
            format!("{a}, {b}, {c} and {} more", rest.len())
        }
        _ => names.join(", "),
    }
}

/// A judge: pure, from a case to findings.
pub type ReadinessCheck = fn(&ReadinessInput<'_>, &mut Vec<Finding>);
