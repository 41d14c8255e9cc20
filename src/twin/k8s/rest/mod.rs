//! The API server's requests: where they go and what they find.

mod discovery;
pub(super) mod evict;
pub(super) mod merge;
mod patch;
pub mod query;
mod read;
mod virtual_kinds;
mod write;

use http::Method;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::kinds::{Kind, Res};
use super::status::{Failure, json_answer};
use super::store::{Key, Name};
use crate::twin::answer::{Answer, respond};
use crate::wire::Request;
use query::Query;
pub use read::BOOKMARK_EVERY;

/// What a request is about.
struct Target {
    res: Res,
    kind: Kind,
    ns: String,
    name: String,
    sub: String,
    query: Query,
    table: bool,
    /// Of one object, only its metadata is wanted.
    metadata: bool,
}

impl Target {
    fn key(&self) -> Key {
        Key {
            res: self.res,
            at: Name::new(self.ns.clone(), self.name.clone()),
        }
    }

    fn dry(&self) -> bool {
        self.query.get("dryRun") == "All"
    }

    fn missing(&self) -> Failure {
        Failure::not_found(&self.kind, &self.name)
    }

    /// One object, or as much of it as is wanted.
    fn answer(&self, code: u16, object: &Value) -> Answer {
        if !self.metadata {
            return json_answer(code, object);
        }
        let metadata = object.get("metadata");
        json_answer(
            code,
            &json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}),
        )
    }
}

/// Answers a request.
pub fn handle(cluster: &mut Cluster, request: &Request) -> Answer {
    if cluster.down_until.is_some_and(|until| cluster.now < until) {
        return Answer::Broken("tcp connect error: Connection refused (os error 111)".into());
    }
    if let Err(refused) = cluster.access.check(request, cluster.now) {
        return refused.answer();
    }
    route(cluster, request).unwrap_or_else(|failure| failure.answer())
}

fn route(cluster: &mut Cluster, request: &Request) -> Result<Answer, Failure> {
    let path = request.uri().path().trim_matches('/');
    let parts: Vec<String> = path.split('/').map(query::decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => Ok(respond(200, "text/plain; charset=utf-8", "ok")),
        ["openapi", "v2"] => Ok(discovery::old_document(request)),
        ["openapi", "v3"] => Ok(json_answer(
            200,
            &discovery::documents(&cluster.store.kinds),
        )),
        ["openapi", "v3", "api", version] => {
            found(discovery::document(&cluster.store.kinds, "", version))
        }
        ["openapi", "v3", "apis", group, version] => {
            found(discovery::document(&cluster.store.kinds, group, version))
        }
        ["version"] => Ok(json_answer(200, &discovery::version(cluster.version))),
        ["api"] => Ok(json_answer(200, &discovery::versions())),
        ["apis"] => Ok(json_answer(200, &discovery::groups(&cluster.store.kinds))),
        ["apis", group] => found(discovery::group(&cluster.store.kinds, group)),
        ["api", version] => found(discovery::resources(&cluster.store.kinds, "", version)),
        ["apis", group, version] => {
            found(discovery::resources(&cluster.store.kinds, group, version))
        }
        ["api", version, rest @ ..] => object(cluster, request, ("", version), rest),
        ["apis", group, version, rest @ ..] => object(cluster, request, (group, version), rest),
        _ => Err(Failure::no_resource()),
    }
}

fn found(value: Option<Value>) -> Result<Answer, Failure> {
    value
        .map(|v| json_answer(200, &v))
        .ok_or_else(Failure::no_resource)
}

fn object(
    cluster: &mut Cluster,
    request: &Request,
    (group, version): (&str, &str),
    rest: &[&str],
) -> Result<Answer, Failure> {
    if let Some(answer) = virtual_kinds::review(cluster, group, rest, request)? {
        return Ok(answer);
    }
    let (ns, rest) = match rest {
        // `namespaces/x/status` is about the namespace, `namespaces/x/pods` about what is in it.
        ["namespaces", ns, plural, rest @ ..] if !matches!(*plural, "status" | "finalize") => {
            (*ns, [&[*plural], rest].concat())
        }
        rest => ("", rest.to_vec()),
    };
    let (plural, name, sub) = match rest.as_slice() {
        [plural] => (*plural, "", ""),
        [plural, name] => (*plural, *name, ""),
        [plural, name, sub] => (*plural, *name, *sub),
        _ => return Err(Failure::no_resource()),
    };
    let res = cluster
        .store
        .kinds
        .find(group, version, plural)
        .ok_or_else(Failure::no_resource)?;
    let kind = cluster.store.kinds.get(res).clone();
    if !ns.is_empty() && !kind.namespaced {
        return Err(Failure::no_resource());
    }
    let accept = request
        .headers()
        .get(http::header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let target = Target {
        res,
        kind,
        ns: ns.to_owned(),
        name: name.to_owned(),
        sub: sub.to_owned(),
        query: Query::parse(request.uri().query().unwrap_or_default()),
        table: accept.contains("as=Table"),
        metadata: accept.contains("as=PartialObjectMetadata;"),
    };
    serve(cluster, request, &target)
}

fn serve(cluster: &mut Cluster, request: &Request, target: &Target) -> Result<Answer, Failure> {
    let method = request.method();
    match target.sub.as_str() {
        "" => {}
        "status" if target.kind.status => {}
        "finalize" if target.kind.plural == "namespaces" => {}
        "eviction" if target.kind.plural == "pods" && method == Method::POST => {
            return evict::evict(cluster, &target.key(), &target.query, &body(request)?);
        }
        "binding" if target.kind.plural == "pods" && method == Method::POST => {
            return write::bind(cluster, target, &body(request)?);
        }
        "scale"
            if matches!(
                target.kind.plural.as_ref(),
                "deployments" | "replicasets" | "statefulsets"
            ) =>
        {
            return virtual_kinds::scale(cluster, request, target);
        }
        _ => return Err(Failure::no_resource()),
    }
    match (method, target.name.is_empty()) {
        (&Method::GET, true) if target.query.yes("watch") => read::watch(cluster, target),
        (&Method::GET, true) => read::list(cluster, target),
        (&Method::GET, false) => read::get(cluster, target),
        (&Method::POST, true) => write::create(cluster, target, body(request)?),
        (&Method::PUT, false) => write::put(cluster, target, body(request)?),
        (&Method::PATCH, false) => patch::patch(cluster, target, request),
        (&Method::DELETE, false) => write::delete(cluster, target, request),
        (&Method::DELETE, true) => write::delete_all(cluster, target, request),
        _ => Err(Failure {
            details: Some(json!({})),
            ..Failure::new(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            )
        }),
    }
}

/// The body as JSON; nothing is an empty object.
fn body(request: &Request) -> Result<Value, Failure> {
    let bytes = request.body();
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_slice(bytes).or_else(|json_error| {
        let text = std::str::from_utf8(bytes).map_err(|e| Failure::bad_request(e.to_string()))?;
        let yaml = content_type(request).contains("yaml");
        if !yaml {
            return Err(Failure::bad_request(format!(
                "the object provided is unrecognized: {json_error}"
            )));
        }
        serde_saphyr::from_str(text)
            .map_err(|e| Failure::bad_request(format!("error decoding YAML: {e}")))
    })
}

fn content_type(request: &Request) -> &str {
    request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
}
