//! Whether a kubeconfig and an EKS cluster are one and the same. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::kube::Node;
use crate::model::{ApiError, ErrorClass, eks};

/// What a kubeconfig leads to.
#[derive(Clone, Debug)]
pub struct KubeconfigCluster<'a> {
    /// The API server's address.
    pub url: &'a str,
    /// Its CA certificates, DER.
    pub authorities: &'a [Vec<u8>],
    /// The nodes found there.
    pub nodes: &'a [Node],
}

/// Proves that `reached` is `cluster`, by its address, its CA, or its nodes being the node groups' instances
/// (`instances`: by node group name); else says which two clusters these are.
pub fn prove_same_cluster(
    reached: &KubeconfigCluster<'_>,
    cluster: &eks::Cluster,
    authorities: &[Vec<u8>],
    instances: &BTreeMap<String, BTreeSet<String>>,
) -> Result<(), ApiError> {
    // Either is proof enough. Behind a proxy or a tunnel neither need be the same, and then the nodes decide.
    let same_host = match (
        host_and_port(reached.url),
        cluster.endpoint.as_deref().and_then(host_and_port),
    ) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(&b),
        _ => false,
    };
    let same_authority =
        !authorities.is_empty() && authorities.iter().any(|a| reached.authorities.contains(a));
    if same_host || same_authority {
        return Ok(());
    }
    let mut matching = 0;
    for node in reached.nodes {
        let Some(group) = node.nodegroup_name() else {
            continue;
        };
        // One node that belongs to no such instance is proof of the contrary: another cluster may have groups of the
        // same names.
        let known = instances
            .get(group)
            .zip(node.instance_id())
            .is_some_and(|(ids, id)| ids.contains(id));
        if !known {
            return Err(identity_mismatch(
                reached,
                cluster,
                &format!(
                    "its node `{}` says it belongs to node group `{group}`, which has no such instance",
                    node.name
                ),
            ));
        }
        matching += 1;
    }
    match matching {
        0 => Err(identity_mismatch(
            reached,
            cluster,
            "its address and CA differ, and none of its nodes is an instance of the cluster's node groups",
        )),
        _ => Ok(()),
    }
}

/// The operation of the error that says the two are not the same.
pub const IDENTITY_PROOF_OPERATION: &str = "prove which cluster this is";

fn identity_mismatch(
    reached: &KubeconfigCluster<'_>,
    cluster: &eks::Cluster,
    why: &str,
) -> ApiError {
    ApiError::new(
        IDENTITY_PROOF_OPERATION,
        ErrorClass::Invalid,
        format!(
            "the kubeconfig is of `{}`, and the cluster to upgrade is `{}` ({}): {why}; name the right --context, or leave --kubeconfig out",
            reached.url,
            cluster.arn,
            cluster.endpoint.as_deref().unwrap_or("no endpoint"),
        ),
    )
}

/// Host and port: on one host, such as loopback, two ports are two servers.
fn host_and_port(url: &str) -> Option<String> {
    let url: http::Uri = url.parse().ok()?;
    let default = if url.scheme_str() == Some("http") {
        80
    } else {
        443
    };
    Some(format!(
        "{}:{}",
        url.host()?,
        url.port_u16().unwrap_or(default)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json as j;

    use super::*;
    use crate::k8s::convert;

    fn cluster() -> eks::Cluster {
        serde_json::from_value(j!({"name": "demo", "arn": "arn:aws:eks:eu-west-1:1:cluster/demo", "version": "1.27", "status": "ACTIVE", "endpoint": "https://ABC.gr7.eu-west-1.eks.amazonaws.com",
            "subnetIds": [], "securityGroupIds": [], "autoMode": false, "health": [], "tags": {}}))
        .unwrap()
    }

    fn node(name: &str, group: Option<&str>, instance: &str) -> Node {
        let labels = group.map(|g| j!({"eks.amazonaws.com/nodegroup": g}));
        let node = j!({"metadata": {"name": name, "labels": labels}, "spec": {"providerID": format!("aws:///eu-west-1a/{instance}")}});
        convert::to_node(serde_json::from_value(node).unwrap())
    }

    #[test]
    fn address_authority_or_nodes_prove_a_cluster_and_nothing_else_does() {
        let instances: BTreeMap<String, BTreeSet<String>> = [(
            "blue".to_owned(),
            ["i-1".to_owned(), "i-2".to_owned()].into(),
        )]
        .into();
        let (eks_ca, other_ca) = (vec![vec![1u8]], vec![vec![2u8]]);
        // The nodes of the cluster, of another one that has a group of the same name, and of both.
        let mine = [node("a", Some("blue"), "i-1"), node("b", None, "i-9")];
        let foreign = [node("a", Some("blue"), "i-7")];
        let mixed = [
            node("a", Some("blue"), "i-1"),
            node("b", Some("red"), "i-8"),
        ];
        let unlabelled = [node("a", None, "i-1")];
        type Case<'a> = (&'a str, &'a str, &'a [Vec<u8>], &'a [Node], bool);
        let table: [Case<'_>; 8] = [
            (
                "the same address, whatever its case",
                "https://abc.gr7.eu-west-1.eks.amazonaws.com/",
                &other_ca,
                &[],
                true,
            ),
            (
                "another address, the same authority",
                "https://bastion:6443",
                &eks_ca,
                &[],
                true,
            ),
            (
                "neither, but the nodes are its instances",
                "https://bastion:6443",
                &other_ca,
                &mine,
                true,
            ),
            (
                "no nodes at all",
                "https://bastion:6443",
                &other_ca,
                &[],
                false,
            ),
            (
                "a group of the same name with another's instances",
                "https://bastion:6443",
                &other_ca,
                &foreign,
                false,
            ),
            (
                "one node that contradicts",
                "https://bastion:6443",
                &other_ca,
                &mixed,
                false,
            ),
            (
                "only nodes of no group",
                "https://bastion:6443",
                &other_ca,
                &unlabelled,
                false,
            ),
            (
                "no authority on either side",
                "https://bastion:6443",
                &[],
                &[],
                false,
            ),
        ];
        for (case, url, authorities, nodes, same) in table {
            let reached = KubeconfigCluster {
                url,
                authorities,
                nodes,
            };
            let verdict = prove_same_cluster(&reached, &cluster(), &eks_ca, &instances);
            assert_eq!(verdict.is_ok(), same, "{case}");
            // A refusal names both sides, so that a person can compare them.
            if let Err(error) = verdict {
                assert!(
                    error.message.contains("bastion:6443")
                        && error.message.contains("cluster/demo"),
                    "{case}: {}",
                    error.message
                );
            }
        }
    }
}
