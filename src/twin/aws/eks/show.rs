//! EKS's objects as its answers spell them.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::twin::aws::state::{
    EksCluster, EksIssue, EksUpdate, InstalledAddon, ManagedNodegroup, UpdateOwner,
};

/// A time as EKS writes it: seconds with a fraction.
pub fn show_time(at: Timestamp) -> Value {
    json!(at.as_millisecond() as f64 / 1000.0)
}

/// `health.issues`.
pub fn show_issues(issues: &[EksIssue]) -> Value {
    issues
        .iter()
        .map(|i| json!({"code": i.code, "message": i.message, "resourceIds": i.resources}))
        .collect()
}

/// DescribeCluster's `cluster`; `endpoint` in place of the cluster's own when the twin serves on a port.
pub fn show_cluster(eks: &EksCluster, endpoint: Option<&str>) -> Value {
    let mut out = eks.rest.clone();
    out.extend(into_members(json!({
        "name": eks.name,
        "arn": eks.arn,
        "createdAt": show_time(eks.created),
        "version": eks.version,
        "status": eks.status,
        "endpoint": endpoint.unwrap_or(&eks.endpoint),
        "tags": eks.tags,
    })));
    Value::Object(out)
}

/// DescribeNodegroup's `nodegroup`.
pub fn show_nodegroup(eks: &EksCluster, group: &ManagedNodegroup) -> Value {
    // What is shown beside the spec are the parts that change by themselves.
    let mut out = group.spec.clone();
    let groups: Vec<Value> = group.asg.iter().map(|name| json!({"name": name})).collect();
    out.extend(into_members(json!({
        "nodegroupName": group.name,
        "nodegroupArn": group.arn,
        "clusterName": eks.name,
        "version": group.version,
        "releaseVersion": group.release,
        "createdAt": show_time(group.created),
        "modifiedAt": show_time(group.modified),
        "status": group.status,
        "scalingConfig": {"minSize": group.min, "maxSize": group.max, "desiredSize": group.desired},
        "labels": group.labels,
        "resources": {"autoScalingGroups": groups},
        "health": {"issues": show_issues(&group.health)},
        "tags": group.tags,
    })));
    // An empty list of taints is left out of the answer.
    if !group.taints.is_empty() {
        out.insert("taints".into(), json!(group.taints));
    }
    Value::Object(out)
}

/// DescribeAddon's `addon`.
pub fn show_addon(eks: &EksCluster, addon: &InstalledAddon) -> Value {
    let mut out = into_members(json!({
        "addonName": addon.name,
        "clusterName": eks.name,
        "status": addon.status,
        "addonVersion": addon.version,
        "health": {"issues": show_issues(&addon.health)},
        "addonArn": addon.arn,
        "createdAt": show_time(addon.created),
        "modifiedAt": show_time(addon.modified),
        "tags": addon.tags,
        "publisher": "eks",
        "owner": "aws",
    }));
    // A role and a configuration that were never given are absent (EKS-ADD-3).
    if let Some(role) = &addon.role {
        out.insert("serviceAccountRoleArn".into(), json!(role));
    }
    if let Some(configuration) = &addon.configuration {
        out.insert("configurationValues".into(), json!(configuration));
    }
    Value::Object(out)
}

/// DescribeUpdate's `update`.
pub fn show_update(update: &EksUpdate) -> Value {
    let params: Vec<Value> = update
        .params
        .iter()
        .map(|(kind, value)| json!({"type": kind, "value": value}))
        .collect();
    let errors: Vec<Value> = update
        .errors
        .iter()
        .map(
            |e| json!({"errorCode": e.code, "errorMessage": e.message, "resourceIds": e.resources}),
        )
        .collect();
    let mut out = json!({
        "id": update.id,
        "status": update.status,
        "type": update.kind,
        "params": params,
        "createdAt": show_time(update.created),
        "errors": errors,
    });
    if let Some(cancellation) = &update.cancellation {
        out["cancellation"] = json!({"status": cancellation.status, "reason": cancellation.reason});
    }
    out
}

/// Whether an update is listed under these members of a request.
pub fn is_listed_under(update: &EksUpdate, nodegroup: Option<&str>, addon: Option<&str>) -> bool {
    match &update.owner {
        UpdateOwner::Cluster => nodegroup.is_none() && addon.is_none(),
        UpdateOwner::Nodegroup(name) => nodegroup == Some(name) && addon.is_none(),
        UpdateOwner::Addon(name) => addon == Some(name) && nodegroup.is_none(),
    }
}

/// The members of a JSON object; nothing of anything else.
pub fn into_members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}
