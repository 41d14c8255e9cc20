//! The API server's requests: where they go and what they find.

mod discovery;
pub(super) mod evict;
mod immutable;
pub(super) mod merge;
mod patch;
mod read;
mod virtual_kinds;
mod write;

use http::Method;
use serde_json::{Value, json};

use super::cluster::SimCluster;
use super::kinds::{KindId, ResourceKind};
use super::query::{self, QueryParams};
use super::status::{ApiFailure, answer_json};
use super::store::{ObjectKey, ObjectName};
use crate::twin::answer::{Answer, answer_with};
use crate::wire::Request;
pub use read::BOOKMARK_INTERVAL;

/// What a request is about.
struct RequestTarget {
    res: KindId,
    kind: ResourceKind,
    ns: String,
    name: String,
    sub: String,
    query: QueryParams,
    table: bool,
    /// Of one object, only its metadata is wanted.
    metadata: bool,
}

impl RequestTarget {
    fn object_key(&self) -> ObjectKey {
        ObjectKey {
            res: self.res,
            at: ObjectName::new(self.ns.clone(), self.name.clone()),
        }
    }

    fn is_dry_run(&self) -> bool {
        self.query.get("dryRun") == "All"
    }

    fn not_found(&self) -> ApiFailure {
        ApiFailure::not_found(&self.kind, &self.name)
    }

    /// One object, or as much of it as is wanted.
    fn answer_object(&self, code: u16, object: &Value) -> Answer {
        if !self.metadata {
            return answer_json(code, object);
        }
        let metadata = object.get("metadata");
        answer_json(
            code,
            &json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}),
        )
    }
}

/// Answers a request.
pub fn handle_request(cluster: &mut SimCluster, request: &Request) -> Answer {
    if cluster.down_until.is_some_and(|until| cluster.now < until) {
        return Answer::Broken("tcp connect error: Connection refused (os error 111)".into());
    }
    if let Err(refused) = cluster.access.check_request(request, cluster.now) {
        return refused.to_answer();
    }
    route_request(cluster, request).unwrap_or_else(|failure| failure.to_answer())
}

fn route_request(cluster: &mut SimCluster, request: &Request) -> Result<Answer, ApiFailure> {
    let path = request.uri().path().trim_matches('/');
    let parts: Vec<String> = path.split('/').map(query::decode_percent).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    // What a client asks before it knows any kind comes first: health, OpenAPI, the version and discovery.
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => {
            Ok(answer_with(200, "text/plain; charset=utf-8", "ok"))
        }
        ["openapi", "v2"] => Ok(discovery::openapi_v2_document(request)),
        ["openapi", "v3"] => Ok(answer_json(
            200,
            &discovery::openapi_index(&cluster.store.kinds),
        )),
        ["openapi", "v3", "api", version] => answer_found(discovery::openapi_document(
            &cluster.store.kinds,
            "",
            version,
        )),
        ["openapi", "v3", "apis", group, version] => answer_found(discovery::openapi_document(
            &cluster.store.kinds,
            group,
            version,
        )),
        ["version"] => Ok(answer_json(200, &discovery::show_version(cluster.version))),
        ["api"] => Ok(answer_json(200, &discovery::show_api_versions())),
        ["apis"] => Ok(answer_json(
            200,
            &discovery::show_groups(&cluster.store.kinds),
        )),
        ["apis", group] => answer_found(discovery::show_group(&cluster.store.kinds, group)),
        ["api", version] => {
            answer_found(discovery::show_resources(&cluster.store.kinds, "", version))
        }
        ["apis", group, version] => answer_found(discovery::show_resources(
            &cluster.store.kinds,
            group,
            version,
        )),
        // Everything below a version is about objects, or about a kind that has none stored.
        ["api", version, rest @ ..] => handle_object_request(cluster, request, ("", version), rest),
        ["apis", group, version, rest @ ..] => {
            handle_object_request(cluster, request, (group, version), rest)
        }
        _ => Err(ApiFailure::resource_not_found()),
    }
}

fn answer_found(value: Option<Value>) -> Result<Answer, ApiFailure> {
    value
        .map(|v| answer_json(200, &v))
        .ok_or_else(ApiFailure::resource_not_found)
}

fn handle_object_request(
    cluster: &mut SimCluster,
    request: &Request,
    (group, version): (&str, &str),
    rest: &[&str],
) -> Result<Answer, ApiFailure> {
    // Reviews are answered without a stored kind.
    if let Some(answer) = virtual_kinds::answer_review(cluster, group, rest, request)? {
        return Ok(answer);
    }
    let (ns, rest) = match rest {
        // `namespaces/x/status` is about the namespace, `namespaces/x/pods` about what is in it.
        ["namespaces", ns, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => {
            (*ns, [&[*plural], rest].concat())
        }
        rest => ("", rest.to_vec()),
    };
    // A path has at most a kind, a name and a subresource.
    let (plural, name, sub) = match rest.as_slice() {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, sub] => (*plural, *name, *sub),
        _ => return Err(ApiFailure::resource_not_found()),
    };
    let res = cluster
        .store
        .kinds
        .find_served(group, version, plural)
        .ok_or_else(ApiFailure::resource_not_found)?;
    let kind = cluster.store.kinds.get(res).clone();
    // A kind of the whole cluster is not found inside a namespace.
    if !ns.is_empty() && !kind.namespaced {
        return Err(ApiFailure::resource_not_found());
    }
    // Clients ask for a table (kubectl) or for metadata only by what they accept.
    let accept = request
        .headers()
        .get(http::header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let target = RequestTarget {
        res,
        kind,
        ns: ns.to_owned(),
        name: name.to_owned(),
        sub: sub.to_owned(),
        query: QueryParams::parse(request.uri().query().unwrap_or_default()),
        table: accept.contains("as=Table"),
        metadata: accept.contains("as=PartialObjectMetadata;"),
    };
    serve_target(cluster, request, &target)
}

fn serve_target(
    cluster: &mut SimCluster,
    request: &Request,
    target: &RequestTarget,
) -> Result<Answer, ApiFailure> {
    let method = request.method();
    // Subresources with requests of their own are answered here; a status is written like the object itself.
    match target.sub.as_str() {
        "" => {}
        "status" if target.kind.status => {}
        "finalize" if target.kind.plural == "namespaces" => {}
        "eviction" if target.kind.plural == "pods" && method == Method::POST => {
            return evict::evict_pod(
                cluster,
                &target.object_key(),
                &target.query,
                &read_body(request)?,
            );
        }
        "binding" if target.kind.plural == "pods" && method == Method::POST => {
            return write::bind_pod(cluster, target, &read_body(request)?);
        }
        "scale"
            if matches!(
                target.kind.plural.as_ref(),
                "deployments" | "replicasets" | "statefulsets"
            ) =>
        {
            return virtual_kinds::handle_scale(cluster, request, target);
        }
        _ => return Err(ApiFailure::resource_not_found()),
    }
    // A name decides between one object and the collection; what is left over is a method that the real server
    // refuses too.
    match (method, target.name.is_empty()) {
        (&Method::GET, true) if target.query.is_true("watch") => {
            read::watch_objects(cluster, target)
        }
        (&Method::GET, true) => read::list_objects(cluster, target),
        (&Method::GET, false) => read::get_object(cluster, target),
        (&Method::POST, true) => write::create_object(cluster, target, read_body(request)?),
        (&Method::PUT, false) => write::replace_object(cluster, target, read_body(request)?),
        (&Method::PATCH, false) => patch::patch_object(cluster, target, request),
        (&Method::DELETE, false) => write::delete_object(cluster, target, request),
        (&Method::DELETE, true) => write::delete_collection(cluster, target, request),
        _ => Err(ApiFailure {
            details: Some(json!({})),
            ..ApiFailure::new(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            )
        }),
    }
}

/// The body as JSON; nothing is an empty object.
fn read_body(request: &Request) -> Result<Value, ApiFailure> {
    let bytes = request.body();
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    // JSON is tried first, whatever the content type says; YAML only where it is named.
    serde_json::from_slice(bytes).or_else(|json_error| {
        let text =
            std::str::from_utf8(bytes).map_err(|e| ApiFailure::bad_request(e.to_string()))?;
        let yaml = content_type(request).contains("yaml");
        if !yaml {
            return Err(ApiFailure::bad_request(format!(
                "the object provided is unrecognized: {json_error}"
            )));
        }
        serde_saphyr::from_str(text)
            .map_err(|e| ApiFailure::bad_request(format!("error decoding YAML: {e}")))
    })
}

fn content_type(request: &Request) -> &str {
    request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
}
