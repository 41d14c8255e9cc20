//! What is asked of the API server but never kept: reviews of access, and an object's scale.

use http::Method;
use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{number_at, set_at, text_at, value_at};
use super::super::status::{ApiFailure, answer_json};
use super::{RequestTarget, merge, read_body, write};
use crate::twin::answer::Answer;
use crate::wire::Request;

/// The name the twin knows a caller by.
const CALLER_NAME: &str = "kubernetes-admin";

/// Answers a review of access; `None` when the request is about something else.
pub fn answer_review(
    cluster: &SimCluster,
    group: &str,
    rest: &[&str],
    request: &Request,
) -> Result<Option<Answer>, ApiFailure> {
    // Reviews of the caller itself stand at the cluster's level, those of a namespace below it.
    let asked = match (group, rest) {
        ("authorization.k8s.io", [kind]) | ("authentication.k8s.io", [kind]) => *kind,
        ("authorization.k8s.io", ["namespaces", _, kind]) => *kind,
        _ => return Ok(None),
    };
    if request.method() != Method::POST {
        return Err(ApiFailure::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    let mut review = read_body(request)?;
    let rbac = cluster.access.rbac.as_ref();
    // Where the world has roles they decide; else everything is allowed, and the answer says so.
    let status = match asked {
        "selfsubjectaccessreviews" if rbac.is_some() => {
            let spec = review.get("spec").unwrap_or(&Value::Null);
            json!({"allowed": rbac.is_some_and(|r| r.review_access(spec))})
        }
        "selfsubjectaccessreviews" | "subjectaccessreviews" | "localsubjectaccessreviews" => {
            json!({"allowed": true, "reason": "RBAC: allowed by ClusterRoleBinding \"cluster-admin\" of ClusterRole \"cluster-admin\" to Group \"system:masters\""})
        }
        "selfsubjectrulesreviews" => json!({
            "incomplete": false,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }),
        "selfsubjectreviews" => {
            json!({"userInfo": {"username": rbac.map_or(CALLER_NAME, |r| r.user()), "groups": ["system:masters", "system:authenticated"]}})
        }
        _ => return Err(ApiFailure::resource_not_found()),
    };
    set_at(&mut review, "status", status);
    Ok(Some(answer_json(201, &review)))
}

/// Reads or changes how many replicas something has.
pub fn handle_scale(
    cluster: &mut SimCluster,
    request: &Request,
    target: &RequestTarget,
) -> Result<Answer, ApiFailure> {
    let old = cluster
        .store
        .get_object(&target.object_key())
        .cloned()
        .ok_or_else(|| target.not_found())?;
    let mut scale = show_scale(&old);
    // A scale can be read, replaced and patched. It has no object of its own, so no other request reaches it.
    match *request.method() {
        Method::GET => return Ok(answer_json(200, &scale)),
        Method::PUT => scale = read_body(request)?,
        Method::PATCH => merge::merge_patch(&mut scale, &read_body(request)?),
        _ => {
            return Err(ApiFailure::new(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            ));
        }
    }
    // Only the number of replicas is written, but over the version that the caller read.
    let replicas = number_at(&scale, "spec.replicas").unwrap_or(0);
    let mut new = Value::clone(&old);
    set_at(&mut new, "spec.replicas", replicas);
    set_at(
        &mut new,
        "metadata.resourceVersion",
        text_at(&scale, "metadata.resourceVersion"),
    );
    // The object is written through its main path, so that the same checks hold.
    let main = RequestTarget {
        sub: String::new(),
        kind: target.kind.clone(),
        ns: target.ns.clone(),
        name: target.name.clone(),
        query: target.query.clone(),
        ..*target
    };
    let done = write::update_object(cluster, &main, &old, new)?;
    Ok(answer_json(200, &show_scale(&done)))
}

fn show_scale(object: &Value) -> Value {
    let meta = |key: &str| {
        value_at(object, &format!("metadata.{key}"))
            .cloned()
            .unwrap_or(Value::Null)
    };
    let labels = super::super::json::text_map_at(object, "spec.selector.matchLabels");
    let selector: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta("name"), "namespace": meta("namespace"), "uid": meta("uid"),
            "resourceVersion": meta("resourceVersion"), "creationTimestamp": meta("creationTimestamp"),
        },
        "spec": {"replicas": number_at(object, "spec.replicas").unwrap_or(0)},
        "status": {"replicas": number_at(object, "status.replicas").unwrap_or(0), "selector": selector.join(",")},
    })
}
