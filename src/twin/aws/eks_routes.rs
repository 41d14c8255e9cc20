//! EKS's REST routes: method and path to operation and input.

use serde_json::{Map, Value};

use crate::twin::aws::call::{decode_pairs, decode_path};
use crate::wire::Request;

/// Method, path with `{members}`, operation.
const EKS_ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/clusters", "ListClusters"),
    ("GET", "/clusters/{name}", "DescribeCluster"),
    ("POST", "/clusters/{name}/updates", "UpdateClusterVersion"),
    ("GET", "/clusters/{name}/updates", "ListUpdates"),
    (
        "GET",
        "/clusters/{name}/updates/{updateId}",
        "DescribeUpdate",
    ),
    (
        "POST",
        "/clusters/{name}/updates/{updateId}/cancel-update",
        "CancelUpdate",
    ),
    ("GET", "/cluster-versions", "DescribeClusterVersions"),
    ("POST", "/clusters/{clusterName}/insights", "ListInsights"),
    (
        "GET",
        "/clusters/{clusterName}/insights/{id}",
        "DescribeInsight",
    ),
    (
        "POST",
        "/clusters/{clusterName}/insights-refresh",
        "StartInsightsRefresh",
    ),
    (
        "GET",
        "/clusters/{clusterName}/insights-refresh",
        "DescribeInsightsRefresh",
    ),
    (
        "GET",
        "/clusters/{clusterName}/node-groups",
        "ListNodegroups",
    ),
    (
        "POST",
        "/clusters/{clusterName}/node-groups",
        "CreateNodegroup",
    ),
    (
        "GET",
        "/clusters/{clusterName}/node-groups/{nodegroupName}",
        "DescribeNodegroup",
    ),
    (
        "DELETE",
        "/clusters/{clusterName}/node-groups/{nodegroupName}",
        "DeleteNodegroup",
    ),
    (
        "POST",
        "/clusters/{clusterName}/node-groups/{nodegroupName}/update-config",
        "UpdateNodegroupConfig",
    ),
    (
        "POST",
        "/clusters/{clusterName}/node-groups/{nodegroupName}/update-version",
        "UpdateNodegroupVersion",
    ),
    ("GET", "/clusters/{clusterName}/addons", "ListAddons"),
    (
        "GET",
        "/clusters/{clusterName}/addons/{addonName}",
        "DescribeAddon",
    ),
    (
        "POST",
        "/clusters/{clusterName}/addons/{addonName}/update",
        "UpdateAddon",
    ),
    ("GET", "/addons/supported-versions", "DescribeAddonVersions"),
    (
        "GET",
        "/addons/configuration-schemas",
        "DescribeAddonConfiguration",
    ),
    (
        "GET",
        "/clusters/{clusterName}/fargate-profiles",
        "ListFargateProfiles",
    ),
    (
        "GET",
        "/clusters/{clusterName}/fargate-profiles/{fargateProfileName}",
        "DescribeFargateProfile",
    ),
    (
        "GET",
        "/clusters/{clusterName}/access-entries",
        "ListAccessEntries",
    ),
    (
        "POST",
        "/clusters/{clusterName}/access-entries",
        "CreateAccessEntry",
    ),
    (
        "GET",
        "/clusters/{clusterName}/access-entries/{principalArn}",
        "DescribeAccessEntry",
    ),
    (
        "DELETE",
        "/clusters/{clusterName}/access-entries/{principalArn}",
        "DeleteAccessEntry",
    ),
    (
        "GET",
        "/clusters/{clusterName}/pod-identity-associations",
        "ListPodIdentityAssociations",
    ),
    ("GET", "/tags/{resourceArn}", "ListTagsForResource"),
    ("POST", "/tags/{resourceArn}", "TagResource"),
    ("DELETE", "/tags/{resourceArn}", "UntagResource"),
];

/// Members that come as repeated query parameters.
const LIST_PARAMETERS: &[&str] = &[
    "clusterVersions",
    "types",
    "publishers",
    "owners",
    "tagKeys",
    "include",
];

/// Reads operation and input; where the twin has no such route, method and path stand for the operation.
pub fn read_operation(request: &Request) -> (String, Value) {
    let mut input = match serde_json::from_slice(request.body()) {
        Ok(Value::Object(body)) => body,
        Ok(_) | Err(_) => Map::new(),
    };
    // Parameters that stand several times are lists; everything else has one value.
    for (key, value) in decode_pairs(request.uri().query().unwrap_or_default()) {
        if LIST_PARAMETERS.contains(&key.as_str()) {
            let list = input.entry(key).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(Value::String(value));
            }
        } else {
            input.insert(key, Value::String(value));
        }
    }
    // The members that are part of the path have the last word over the body.
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    for (method, route, op) in EKS_ROUTES {
        if request.method().as_str() != *method {
            continue;
        }
        if let Some(members) = match_route(route, &path) {
            input.extend(members.into_iter().map(|(k, v)| (k, Value::String(v))));
            return ((*op).to_owned(), Value::Object(input));
        }
    }
    (
        format!("{} {}", request.method(), request.uri().path()),
        Value::Object(input),
    )
}

fn match_route(route: &str, path: &[&str]) -> Option<Vec<(String, String)>> {
    let parts: Vec<&str> = route.trim_matches('/').split('/').collect();
    // An ARN may come with its slashes unescaped; it is always the last member.
    let rest = parts.last() == Some(&"{resourceArn}") && path.len() >= parts.len();
    if parts.len() != path.len() && !rest {
        return None;
    }
    let mut members = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            Some(name) if rest && i + 1 == parts.len() => {
                members.push((name.to_owned(), decode_path(&path[i..].join("/"))));
            }
            Some(name) => members.push((name.to_owned(), decode_path(path[i]))),
            None if *part == path[i] => {}
            None => return None,
        }
    }
    Some(members)
}
