//! Why a node does not take a pod, in the scheduler's words.

use std::collections::BTreeMap;
use std::fmt;

/// Why one node does not take a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is cordoned.
    Unschedulable,
    /// It has a taint that the pod does not tolerate.
    Taint { key: String, value: String },
    /// The pod's node selector or required node affinity does not take it.
    NodeAffinity,
    /// A pod there has the port.
    HostPort,
    /// It has too little left of a resource.
    Insufficient { resource: String },
    /// It has as many pods as it may have.
    TooManyPods,
    /// It has as many volumes of a driver as it may have.
    TooManyVolumes,
    /// Another pod uses a claim that only one pod may use.
    ClaimInUse,
    /// A volume of the pod cannot be used there.
    VolumeAffinity,
    /// It lacks the label over which pods are to be spread.
    SpreadLabel { key: String },
    /// With the pod there, pods would be spread too unevenly.
    Spread { key: String },
    /// The pods that the pod wants to be near are not there.
    PodAffinity { key: String },
    /// A pod is near that the pod does not want to be near.
    PodAntiAffinity { key: String },
    /// A pod is near that does not want the pod to be near.
    ExistingAntiAffinity { key: String },
}

impl Refusal {
    /// Whether another node of the same kind, and in any zone, might take the pod.
    pub fn more_nodes_help(&self) -> bool {
        let per_node = |key: &str| key == HOSTNAME_LABEL;
        match self {
            Self::HostPort | Self::Insufficient { .. } => true,
            Self::TooManyPods | Self::TooManyVolumes => true,
            // A node in the volume's zone would.
            Self::VolumeAffinity => true,
            // Over anything wider than a node, where a new node comes to be decides.
            Self::Spread { key }
            | Self::PodAntiAffinity { key }
            | Self::ExistingAntiAffinity { key } => per_node(key),
            Self::Unschedulable
            | Self::Taint { .. }
            | Self::NodeAffinity
            | Self::ClaimInUse
            | Self::SpreadLabel { .. }
            | Self::PodAffinity { .. } => false,
        }
    }
}

/// The label whose value is different on every node.
pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // kube-scheduler's own words, so that they can be compared with a pod's events.
        match self {
            Self::TooManyVolumes => f.write_str("node(s) exceed max volume count"),
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::Taint { key, value } => {
                write!(f, "node(s) had untolerated taint {{{key}: {value}}}")
            }
            Self::NodeAffinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::HostPort => {
                f.write_str("node(s) didn't have free ports for the requested pod ports")
            }
            Self::Insufficient { resource } => write!(f, "Insufficient {resource}"),
            Self::TooManyPods => f.write_str("Too many pods"),
            Self::ClaimInUse => f.write_str("node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"),
            Self::VolumeAffinity => {
                f.write_str("node(s) didn't match PersistentVolume's node affinity")
            }
            Self::SpreadLabel { .. } => f.write_str(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ),
            Self::Spread { .. } => {
                f.write_str("node(s) didn't match pod topology spread constraints")
            }
            Self::PodAffinity { .. } => f.write_str("node(s) didn't match pod affinity rules"),
            Self::PodAntiAffinity { .. } => {
                f.write_str("node(s) didn't match pod anti-affinity rules")
            }
            Self::ExistingAntiAffinity { .. } => {
                f.write_str("node(s) didn't satisfy existing pods anti-affinity rules")
            }
        }
    }
}

/// Why no node takes a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementFailure {
    /// How many nodes were asked.
    pub nodes: usize,
    /// How many of them say so. A node that is short of several resources says each.
    pub reasons: BTreeMap<Refusal, usize>,
}

impl PlacementFailure {
    /// Whether another node of the kind of those that were asked might take the pod.
    pub fn more_nodes_help(&self) -> bool {
        self.nodes == 0 || self.reasons.keys().any(Refusal::more_nodes_help)
    }

    /// Whether nodes refuse the pod because pods would be spread too unevenly.
    pub fn spread_refuses(&self) -> bool {
        self.reasons
            .keys()
            .any(|r| matches!(r, Refusal::Spread { .. }))
    }
}

impl fmt::Display for PlacementFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let mut by_words: BTreeMap<String, usize> = BTreeMap::new();
        for (reason, count) in &self.reasons {
            *by_words.entry(reason.to_string()).or_default() += count;
        }
        let reasons: Vec<String> = by_words.iter().map(|(r, n)| format!("{n} {r}")).collect();
        write!(
            f,
            "0/{} nodes are available: {}",
            self.nodes,
            reasons.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_node_helps_against_pods_that_keep_others_off_their_node_and_not_off_their_zone() {
        let helps = |key: &str| {
            let key = key.to_owned();
            Refusal::ExistingAntiAffinity { key }.more_nodes_help()
        };
        assert!(helps(HOSTNAME_LABEL));
        assert!(!helps("topology.kubernetes.io/zone"));
    }
}
