//! Labels that agents find out on a node and set while it runs: Node Feature Discovery and the vendors' device discovery.
//! The twin runs no agents; a node that joins has what the nodes of its instance type have.

use std::collections::BTreeMap;

use super::cluster::SimCluster;

/// Prefixes of what agents set, with the labels' documentation:
/// <https://kubernetes-sigs.github.io/node-feature-discovery/stable/usage/features.html>,
/// <https://github.com/NVIDIA/k8s-device-plugin#catalog-of-labels>,
/// <https://github.com/ROCm/k8s-device-plugin#node-labeller>.
const AGENT_LABEL_PREFIXES: &[&str] = &[
    "feature.node.kubernetes.io",
    "nvidia.com",
    "amd.com",
    "gpu.intel.com",
    "habana.ai",
    "intel.feature.node.kubernetes.io",
];

/// The labels that agents will have set on a node of `instance_type`.
pub fn discovered_labels(cluster: &SimCluster, instance_type: &str) -> BTreeMap<String, String> {
    let of_agents = |key: &str| {
        let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
        AGENT_LABEL_PREFIXES.iter().any(|agent| {
            prefix
                .strip_suffix(agent)
                .is_some_and(|sub| sub.is_empty() || sub.ends_with('.'))
        })
    };
    // Agents find the same on every node of a type, so the labels are those of the nodes that are there.
    let nodes = cluster.store.index.nodes.values();
    let alike = nodes.filter(|n| {
        let own = n.labels.get("node.kubernetes.io/instance-type");
        own.is_some_and(|own| &**own == instance_type)
    });
    alike
        .flat_map(|n| n.labels.iter())
        .filter(|(key, _)| of_agents(key))
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}
