//! What is asked of the API server but never kept: reviews of access, and an object's scale.

use http::Method;
use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::json::{at, number, set, text};
use super::super::status::{Failure, json_answer};
use super::{Target, body, merge, write};
use crate::twin::answer::Answer;
use crate::wire::Request;

/// The name the twin knows a caller by.
const CALLER: &str = "kubernetes-admin";

/// Answers a review of access; `None` when the request is about something else.
pub fn review(
    cluster: &Cluster,
    group: &str,
    rest: &[&str],
    request: &Request,
) -> Result<Option<Answer>, Failure> {
    let asked = match (group, rest) {
        ("authorization.k8s.io", [kind]) | ("authentication.k8s.io", [kind]) => *kind,
        ("authorization.k8s.io", ["namespaces", _, kind]) => *kind,
        _ => return Ok(None),
    };
    if request.method() != Method::POST {
        return Err(Failure::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ));
    }
    let mut review = body(request)?;
    let rbac = cluster.access.rbac.as_ref();
    let status = match asked {
        "selfsubjectaccessreviews" if rbac.is_some() => {
            let spec = review.get("spec").unwrap_or(&Value::Null);
            json!({"allowed": rbac.is_some_and(|r| r.review(spec))})
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
            json!({"userInfo": {"username": rbac.map_or(CALLER, |r| r.user()), "groups": ["system:masters", "system:authenticated"]}})
        }
        _ => return Err(Failure::no_resource()),
    };
    set(&mut review, "status", status);
    Ok(Some(json_answer(201, &review)))
}

/// Reads or changes how many replicas something has.
pub fn scale(cluster: &mut Cluster, request: &Request, target: &Target) -> Result<Answer, Failure> {
    let old = cluster
        .store
        .get(&target.key())
        .cloned()
        .ok_or_else(|| target.missing())?;
    let mut scale = scale_of(&old);
    match *request.method() {
        Method::GET => return Ok(json_answer(200, &scale)),
        Method::PUT => scale = body(request)?,
        Method::PATCH => merge::merge(&mut scale, &body(request)?),
        _ => {
            return Err(Failure::new(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            ));
        }
    }
    let replicas = number(&scale, "spec.replicas").unwrap_or(0);
    let mut new = Value::clone(&old);
    set(&mut new, "spec.replicas", replicas);
    set(
        &mut new,
        "metadata.resourceVersion",
        text(&scale, "metadata.resourceVersion"),
    );
    let main = Target {
        sub: String::new(),
        kind: target.kind.clone(),
        ns: target.ns.clone(),
        name: target.name.clone(),
        query: target.query.clone(),
        ..*target
    };
    let done = write::update(cluster, &main, &old, new)?;
    Ok(json_answer(200, &scale_of(&done)))
}

fn scale_of(object: &Value) -> Value {
    let meta = |key: &str| {
        at(object, &format!("metadata.{key}"))
            .cloned()
            .unwrap_or(Value::Null)
    };
    let labels = super::super::json::texts(object, "spec.selector.matchLabels");
    let selector: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta("name"), "namespace": meta("namespace"), "uid": meta("uid"),
            "resourceVersion": meta("resourceVersion"), "creationTimestamp": meta("creationTimestamp"),
        },
        "spec": {"replicas": number(object, "spec.replicas").unwrap_or(0)},
        "status": {"replicas": number(object, "status.replicas").unwrap_or(0), "selector": selector.join(",")},
    })
}
