//! What a run that is done has left older than its target.

use std::collections::BTreeMap;

use crate::model::Minor;
use crate::model::kube::Node;
use crate::model::node_pool::pool_of;

/// The nodes whose kubelets are older than `to` or of an unknown version, by whose they are, as one line; none where there is
/// none.
pub fn describe_older_nodes<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    to: Minor,
) -> Option<String> {
    let mut older: BTreeMap<String, (usize, Vec<&str>)> = BTreeMap::new();
    for node in nodes {
        let kubelet = Minor::from_reported(&node.kubelet_version);
        if kubelet.is_ok_and(|k| k >= to) {
            continue;
        }
        let (count, versions) = older.entry(owner_words(node)).or_default();
        *count += 1;
        let version = node.kubelet_version.as_str();
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    if older.is_empty() {
        return None;
    }
    let named = older.iter().map(|(owner, (count, versions))| {
        let nodes = if *count == 1 { "node" } else { "nodes" };
        format!("{count} {nodes} {owner} ({})", versions.join(", "))
    });
    let named: Vec<String> = named.collect();
    Some(format!(
        "not replaced by the run, and older than {to}: {}",
        named.join("; ")
    ))
}

/// Whose a node is. A machine outside of AWS has a name that a person knows it by; a pool or a group stands for its nodes.
fn owner_words(node: &Node) -> String {
    match (node.nodegroup_name(), pool_of(node)) {
        _ if node.is_fargate() => "on Fargate".to_owned(),
        _ if node.is_hybrid() => format!("outside of AWS, {}", node.name),
        (Some(group), _) => format!("of group {group}"),
        (None, Some(pool)) => format!("of NodePool {pool}"),
        (None, None) => format!("of no group, {}", node.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, label: (&str, &str), kubelet: &str) -> Node {
        let value = serde_json::json!({
            "name": name, "uid": "u", "resourceVersion": "1", "labels": {label.0: label.1}, "annotations": {},
            "unschedulable": false, "taints": [], "providerId": null, "ready": "True", "readySince": null,
            "kubeletVersion": kubelet, "allocatable": {"cpuMillis": 1, "memoryBytes": 1, "pods": 1}, "created": null, "deleting": false,
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_older_than_the_target_is_named_by_whose_it_is() {
        let kind = "eks.amazonaws.com/compute-type";
        let nodes = [
            node(
                "a",
                ("eks.amazonaws.com/nodegroup", "apps"),
                "v1.29.3-eks-1",
            ),
            node(
                "b",
                ("eks.amazonaws.com/nodegroup", "jobs"),
                "v1.28.5-eks-1",
            ),
            node("c", ("karpenter.sh/nodepool", "general"), "v1.28.5-eks-1"),
            node("d", ("karpenter.sh/nodepool", "general"), "v1.27.9-eks-1"),
            node("e", (kind, "fargate"), "v1.28.1-eks-1"),
            node("f", (kind, "hybrid"), "v1.28.1"),
            // What cannot be read is not taken for new.
            node("g", ("a", "b"), "unknown"),
        ];
        let told = |to| describe_older_nodes(nodes.iter(), Minor::new(to)).unwrap();
        insta::assert_snapshot!(told(29), @"not replaced by the run, and older than 1.29: 2 nodes of NodePool general (v1.28.5-eks-1, v1.27.9-eks-1); 1 node of group jobs (v1.28.5-eks-1); 1 node of no group, g (unknown); 1 node on Fargate (v1.28.1-eks-1); 1 node outside of AWS, f (v1.28.1)");
        assert!(told(20).ends_with(": 1 node of no group, g (unknown)"));
        let new = nodes[..1].iter();
        assert_eq!(describe_older_nodes(new, Minor::new(29)), None);
    }
}
