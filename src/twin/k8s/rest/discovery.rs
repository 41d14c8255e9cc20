//! Discovery: what the API server serves, as `kubectl` asks for it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::kinds::{KindRegistry, ResourceKind};
use super::super::status::answer_json;
use crate::model::Minor;
use crate::twin::answer::{Answer, answer_with};
use crate::wire::Request;

/// `/version`, as EKS says it: the minor has a plus.
pub fn show_version(minor: Minor) -> Value {
    let number = minor.number();
    // The patch and commit stand for themselves: nothing may depend on them.
    let (patch, commit) = (
        number % 7 + 4,
        format!("{:07x}", u32::from(number) * 0x1_9e37 % 0xfff_ffff),
    );
    json!({
        "major": "1", "minor": format!("{number}+"),
        "gitVersion": format!("v1.{number}.{patch}-eks-{commit}"),
        "gitCommit": format!("{commit:0<40}"), "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "go1.24.6", "compiler": "gc", "platform": "linux/amd64",
    })
}

/// `/api`.
pub fn show_api_versions() -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "ip-172-16-0-1.ec2.internal:443"}],
    })
}

/// Groups that are asked things but keep nothing.
const REVIEW_GROUPS: &[(&str, &str, &str)] = &[
    (
        "authentication.k8s.io",
        "selfsubjectreviews",
        "SelfSubjectReview",
    ),
    (
        "authorization.k8s.io",
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
    ),
    (
        "authorization.k8s.io",
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
    ),
    (
        "authorization.k8s.io",
        "subjectaccessreviews",
        "SubjectAccessReview",
    ),
];

fn all_groups(kinds: &KindRegistry) -> BTreeMap<String, String> {
    let stored = kinds
        .all()
        .filter(|(_, k)| !k.group.is_empty())
        .map(|(_, k)| (k.group.to_string(), k.version.to_string()));
    stored
        .chain(
            REVIEW_GROUPS
                .iter()
                .map(|(g, _, _)| ((*g).to_owned(), "v1".to_owned())),
        )
        .collect()
}

fn show_group_entry(name: &str, version: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

/// `/apis`.
pub fn show_groups(kinds: &KindRegistry) -> Value {
    let groups: Vec<Value> = all_groups(kinds)
        .iter()
        .map(|(name, version)| show_group_entry(name, version))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub fn show_group(kinds: &KindRegistry, name: &str) -> Option<Value> {
    let groups = all_groups(kinds);
    let mut value = show_group_entry(name, groups.get(name)?);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

const RESOURCE_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// `/api/v1`, `/apis/GROUP/VERSION`.
pub fn show_resources(kinds: &KindRegistry, group: &str, version: &str) -> Option<Value> {
    let here = |k: &&ResourceKind| k.group == group && k.version == version;
    let mut list: Vec<Value> = kinds
        .all()
        .map(|(_, k)| k)
        .filter(here)
        .flat_map(resource_entries)
        .collect();
    // Reviews have no stored objects, so they are no kinds of the store.
    for (_, plural, kind) in REVIEW_GROUPS
        .iter()
        .filter(|(g, _, _)| *g == group && version == "v1")
    {
        list.push(json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"]}));
    }
    // A version with nothing in it is not served.
    if list.is_empty() {
        return None;
    }
    let at = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": at, "resources": list}),
    )
}

fn resource_entries(kind: &ResourceKind) -> Vec<Value> {
    let mut main = json!({
        "name": kind.plural, "singularName": kind.kind.to_lowercase(), "namespaced": kind.namespaced,
        "kind": kind.kind, "verbs": RESOURCE_VERBS,
    });
    if !kind.short.is_empty() {
        main["shortNames"] = json!([kind.short]);
    }
    let sub = |name: &str, kind_name: &str, verbs: &[&str]| json!({"name": format!("{}/{name}", kind.plural), "singularName": "", "namespaced": kind.namespaced, "kind": kind_name, "verbs": verbs});
    let mut entries = vec![main];
    if kind.status {
        entries.push(sub("status", &kind.kind, &["get", "patch", "update"]));
    }
    // Subresources that the twin answers are listed, with the kind that their body has.
    match kind.plural.as_ref() {
        "pods" => {
            entries.push(sub("binding", "Binding", &["create"]));
            let mut eviction = sub("eviction", "Eviction", &["create"]);
            eviction["group"] = json!("policy");
            eviction["version"] = json!("v1");
            entries.push(eviction);
        }
        "deployments" | "replicasets" | "statefulsets" => {
            let mut scale = sub("scale", "Scale", &["get", "patch", "update"]);
            scale["group"] = json!("autoscaling");
            scale["version"] = json!("v1");
            entries.push(scale);
        }
        _ => {}
    }
    entries
}

/// `/openapi/v3`: where the documents are, one for each group and version.
pub fn openapi_index(kinds: &KindRegistry) -> Value {
    let mut paths = serde_json::Map::new();
    for (_, kind) in kinds.all() {
        let at = match kind.group.is_empty() {
            true => format!("api/{}", kind.version),
            false => format!("apis/{}/{}", kind.group, kind.version),
        };
        let url = format!("/openapi/v3/{at}?hash=0");
        paths.insert(at, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// One of them. It says no more than what `kubectl apply` looks for: that the server checks fields itself.
pub fn openapi_document(kinds: &KindRegistry, group: &str, version: &str) -> Option<Value> {
    let mut paths = serde_json::Map::new();
    let here = |k: &&ResourceKind| k.group == group && k.version == version;
    // One operation for each kind is enough, because clients look for the parameter and for nothing else.
    for kind in kinds.all().map(|(_, k)| k).filter(here) {
        let root = if group.is_empty() {
            "/api".to_owned()
        } else {
            format!("/apis/{group}")
        };
        let ns = if kind.namespaced {
            "namespaces/{namespace}/"
        } else {
            ""
        };
        let path = format!("{root}/{version}/{ns}{}/{{name}}", kind.plural);
        let parameter =
            |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
        let patch = json!({
            "parameters": [parameter("fieldValidation"), parameter("dryRun")],
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind.kind},
        });
        paths.insert(path, json!({"patch": patch}));
    }
    let info = json!({"title": "Kubernetes", "version": "twin"});
    (!paths.is_empty()).then(|| json!({"openapi": "3.0.0", "info": info, "paths": paths}))
}

/// `/openapi/v2`, which older clients ask for: a document that says nothing, so that they check nothing.
pub fn openapi_v2_document(request: &Request) -> Answer {
    let accept = request.headers().get(http::header::ACCEPT);
    if accept.is_some_and(|a| a.as_bytes().windows(8).any(|w| w == b"protobuf")) {
        let kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
        return answer_with(200, kind, Vec::new());
    }
    let info = json!({"title": "Kubernetes", "version": "twin"});
    answer_json(200, &json!({"swagger": "2.0", "info": info, "paths": {}}))
}
