//! Topology spread constraints: which nodes count, how many pods each place has, and whether one more keeps the skew
//! (K8S-SCHED-2).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::super::cluster::SimCluster;
use super::super::json::{list_at, number_at, text_at, value_at};
use super::super::node_affinity::RequiredNodes;
use super::super::selector::LabelSelector;
use super::super::typed_views::{NodeView, PodView};
use super::has_untolerated_taint;
use crate::model::Minor;

/// Why a node without one of the labels will not do.
pub const MISSING_LABEL_REASON: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";
/// Why a node will not do.
pub const SKEW_REASON: &str = "node(s) didn't match pod topology spread constraints";

/// How pods are to be spread over a topology.
pub struct SpreadConstraint {
    pub key: String,
    /// How many more pods a place may have than the emptiest.
    max_skew: i64,
    /// With fewer places than this, the emptiest counts as having no pod.
    min_domains: i64,
    pub hard: bool,
    selects_self: bool,
    /// Whether pods that are there count.
    counts_pods: bool,
    /// By the topology's value: how many selected pods there are on nodes that count.
    pub counts: BTreeMap<String, i64>,
    pods: LabelSelector,
    ns: String,
}

/// Reads a pod's constraints and counts the pods that are there.
pub fn read_constraints(
    cluster: &SimCluster,
    spec: &Value,
    pod: &PodView,
    required: &RequiredNodes,
    tolerations: &[Value],
) -> Vec<SpreadConstraint> {
    let constraints = list_at(spec, "topologySpreadConstraints");
    let is_hard = |c: &Value| text_at(c, "whenUnsatisfiable") != "ScheduleAnyway";
    // A node that lacks the label of one constraint counts for none of its kind.
    let keys = |hard: bool| -> Vec<&str> {
        let same = constraints.iter().filter(|c| is_hard(c) == hard);
        same.map(|c| text_at(c, "topologyKey")).collect()
    };
    let (hard_keys, soft_keys) = (keys(true), keys(false));
    let mut found = Vec::new();
    for constraint in constraints {
        let hard = is_hard(constraint);
        // The two policies have different defaults: node affinity is honoured, taints are not (K8S-SCHED-2).
        let honors = |field: &str, unset: bool| match text_at(constraint, field) {
            "Honor" => true,
            "Ignore" => false,
            _ => unset,
        };
        let by_affinity = honors("nodeAffinityPolicy", true);
        let by_taints = honors("nodeTaintsPolicy", false);
        let keys = if hard { &hard_keys } else { &soft_keys };
        // A cordoned or tainted node counts with its place like any other, so a place that takes no pods can keep the
        // least low (K8S-SCHED-2).
        let counts_for = |node: &NodeView| {
            keys.iter().all(|key| node.labels.contains_key(*key))
                && (!by_affinity || required.matches(node))
                && !(by_taints && has_untolerated_taint(node, tolerations))
        };
        // The pod's own labels narrow the selector, which keeps the pods of two templates apart during a rollout.
        let mut pods = LabelSelector::from_spec(value_at(constraint, "labelSelector"));
        for key in list_at(constraint, "matchLabelKeys")
            .iter()
            .filter_map(Value::as_str)
        {
            if let Some(value) = pod.labels.get(key) {
                pods.add_value(key, value, true);
            }
        }
        let key = text_at(constraint, "topologyKey").to_owned();
        found.push(SpreadConstraint {
            max_skew: number_at(constraint, "maxSkew").unwrap_or(1),
            min_domains: number_at(constraint, "minDomains").unwrap_or(1),
            hard,
            counts_pods: !(pods.is_everything() && counts_none_of_all(cluster)),
            selects_self: pods.matches(&pod.labels),
            counts: count_by_domain(cluster, &pod.ns, &key, &pods, counts_for),
            ns: pod.ns.clone(),
            key,
            pods,
        });
    }
    found
}

/// By place: the selected pods on nodes that count; a place without such pods counts as well.
fn count_by_domain(
    cluster: &SimCluster,
    ns: &str,
    key: &str,
    pods: &LabelSelector,
    counts_for: impl Fn(&NodeView) -> bool,
) -> BTreeMap<String, i64> {
    let index = &cluster.store.index;
    let mut on_node: BTreeMap<&str, i64> = BTreeMap::new();
    // What an empty selector counts changed with the scheduler's version (K8S-SCHED-8).
    let selected = if pods.is_everything() && counts_none_of_all(cluster) {
        Vec::new()
    } else {
        index.selected_pods(ns, pods)
    };
    // Pods that are being deleted do not count.
    for pod in selected.iter().filter(|p| p.is_active()) {
        *on_node.entry(pod.node.as_str()).or_default() += 1;
    }
    // A place without a pod is in the result with zero, else the least would be wrong.
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for node in index.nodes.values().filter(|n| counts_for(n)) {
        if let Some(place) = node.labels.get(key) {
            let here = on_node.get(node.name.as_str()).copied().unwrap_or(0);
            match counts.get_mut(place) {
                Some(count) => *count += here,
                None => drop(counts.insert(place.clone(), here)),
            }
        }
    }
    counts
}

/// Whether the scheduler counts no pod where the selector is empty, rather than all (K8S-SCHED-8).
fn counts_none_of_all(cluster: &SimCluster) -> bool {
    (Minor::new(27)..Minor::new(37)).contains(&cluster.version)
}

impl SpreadConstraint {
    /// Whether one more pod on the node keeps the skew, were `gone` no longer there; else why not, and whether it might help
    /// if pods went.
    pub fn check_node(
        &self,
        node: &NodeView,
        gone: &[Arc<PodView>],
    ) -> Result<(), (&'static str, bool)> {
        // A node without the label can take no pod of a hard constraint.
        let Some(place) = node.labels.get(&self.key) else {
            return Err((MISSING_LABEL_REASON, false));
        };
        let counted = |p: &&Arc<PodView>| {
            self.counts_pods && p.ns == self.ns && p.is_active() && self.pods.matches(&p.labels)
        };
        // A place that does not count has no pods as far as the skew is concerned.
        let known = self.counts.get(place).copied();
        let gone = known.map_or(0, |_| gone.iter().filter(counted).count() as i64);
        let here = known.unwrap_or(0) - gone;
        // With fewer places than asked for the least is zero, so each place takes at most `maxSkew` pods
        // (K8S-SCHED-2).
        let least = if (self.counts.len() as i64) < self.min_domains {
            0
        } else {
            let others = self.counts.iter().filter(|(p, _)| *p != place);
            let mine = known.map(|_| here);
            others.map(|(_, n)| *n).chain(mine).min().unwrap_or(0)
        };
        if here + i64::from(self.selects_self) - least > self.max_skew {
            return Err((SKEW_REASON, true));
        }
        Ok(())
    }
}
