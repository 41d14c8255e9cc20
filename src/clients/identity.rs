//! Whether a kubeconfig and an EKS cluster are one and the same. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::kube::Node;
use crate::model::{ApiError, Class, eks};

/// What a kubeconfig leads to.
#[derive(Clone, Debug)]
pub struct Reached<'a> {
    /// The API server's address.
    pub url: &'a str,
    /// Its CA certificates, DER.
    pub authorities: &'a [Vec<u8>],
    /// The nodes found there.
    pub nodes: &'a [Node],
}

/// Proves that `reached` is `cluster`, by its address, its CA, or its nodes being the node groups' instances
/// (`instances`: by node group name); else says which two clusters these are.
pub fn same_cluster(
    reached: &Reached<'_>,
    cluster: &eks::Cluster,
    authorities: &[Vec<u8>],
    instances: &BTreeMap<String, BTreeSet<String>>,
) -> Result<(), ApiError> {
    let same_host = match (
        host(reached.url),
        cluster.endpoint.as_deref().and_then(host),
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
        let Some(group) = node.nodegroup() else {
            continue;
        };
        let known = instances
            .get(group)
            .zip(node.instance_id())
            .is_some_and(|(ids, id)| ids.contains(id));
        if !known {
            return Err(refused(
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
        0 => Err(refused(
            reached,
            cluster,
            "its address and CA differ, and none of its nodes is an instance of the cluster's node groups",
        )),
        _ => Ok(()),
    }
}

fn refused(reached: &Reached<'_>, cluster: &eks::Cluster, why: &str) -> ApiError {
    ApiError::new(
        "connect to the cluster",
        Class::Invalid,
        format!(
            "the kubeconfig leads to `{}`, and the cluster to upgrade is `{}` ({}): {why}; name the right --context, or leave --kubeconfig out",
            reached.url,
            cluster.arn,
            cluster.endpoint.as_deref().unwrap_or("no endpoint"),
        ),
    )
}

fn host(url: &str) -> Option<String> {
    url.parse::<http::Uri>().ok()?.host().map(str::to_owned)
}
