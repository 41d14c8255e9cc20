//! Labels and taints that nobody can give a node group: EKS refuses them, or the kubelet does not start with them
//! (EKS-NG-30).

/// Domains whose names, and those of their subdomains, EKS refuses as a prefix of a label or taint of a node group.
const RESERVED_DOMAINS: [&str; 3] = ["kubernetes.io", "k8s.io", "eks.amazonaws.com"];

/// Domains of those that a kubelet may register itself with.
const KUBELET_DOMAINS: [&str; 2] = ["node.kubernetes.io", "kubelet.kubernetes.io"];

/// Prefixes of labels that programs in the cluster set on each node after it has joined, by what they find there.
const DISCOVERED_DOMAINS: [&str; 9] = [
    "nvidia.com",
    "feature.node.kubernetes.io",
    "amd.com",
    "gpu.intel.com",
    "intel.feature.node.kubernetes.io",
    "habana.ai",
    "aws.amazon.com",
    "network.nvidia.com",
    "mellanox.com",
];

/// Whether a node group with this label is refused, or its nodes do not join.
pub fn is_refused_label(key: &str) -> bool {
    is_reserved_domain(key)
        && label_prefix(key).is_some_and(|p| !is_in_domains(p, &KUBELET_DOMAINS))
}

/// Whether the key is of a domain that is kept for Kubernetes and EKS; advice never asks to set such a label.
pub fn is_reserved_domain(key: &str) -> bool {
    label_prefix(key).is_some_and(|p| is_in_domains(p, &RESERVED_DOMAINS))
}

/// Whether programs in the cluster set the label on every node that has what it names.
pub fn is_discovered_label(key: &str) -> bool {
    label_prefix(key).is_some_and(|p| is_in_domains(p, &DISCOVERED_DOMAINS))
}

fn label_prefix(key: &str) -> Option<&str> {
    key.split_once('/').map(|(prefix, _)| prefix)
}

fn is_in_domains(prefix: &str, domains: &[&str]) -> bool {
    domains.iter().any(|domain| {
        let sub = prefix.strip_suffix(domain);
        sub.is_some_and(|sub| sub.is_empty() || sub.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_eks_or_the_kubelet_refuses_is_known_with_its_subdomains() {
        for key in [
            "node-role.kubernetes.io/db",
            "kubernetes.io/role",
            "k8s.io/x",
            "my.k8s.io/x",
            "eks.amazonaws.com/pool",
            "sub.eks.amazonaws.com/pool",
        ] {
            assert!(is_reserved_domain(key) && is_refused_label(key), "{key}");
        }
        for key in ["pool", "mykubernetes.io/x", "example.com/kubernetes.io"] {
            assert!(!is_reserved_domain(key), "{key}");
        }
        assert!(!is_refused_label("node.kubernetes.io/pool"));
        assert!(is_reserved_domain("node.kubernetes.io/pool"));
    }
}
