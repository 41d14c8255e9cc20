//! GET: one object, a list of them, a watch.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

use super::super::Due;
use super::super::cluster::Cluster;
use super::super::kinds::PODS;
use super::super::selector::{Fields, Selector};
use super::super::status::{Failure, json_answer};
use super::super::store::{Name, Object};
use super::super::table;
use super::super::watch::{Filter, Shape, kind_for, only};
use super::Target;
use crate::twin::answer::{Answer, respond};

/// How often a watch that wants bookmarks gets one.
pub const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// One object.
pub fn get(cluster: &Cluster, target: &Target) -> Result<Answer, Failure> {
    let object = cluster
        .store
        .get(&target.key())
        .ok_or_else(|| target.missing())?;
    if target.table {
        return Ok(json_answer(
            200,
            &table::table(&target.kind, [object], &Value::Null, cluster.now),
        ));
    }
    Ok(target.answer(200, object))
}

fn filter(target: &Target) -> Result<Filter, Failure> {
    let labels =
        Selector::parse(target.query.get("labelSelector")).map_err(Failure::bad_request)?;
    let fields = Fields::parse(target.query.get("fieldSelector")).map_err(Failure::bad_request)?;
    let known = |path: &str| match path {
        "metadata.name" => true,
        "metadata.namespace" => target.kind.namespaced,
        _ => FIELDS
            .iter()
            .any(|(plural, paths)| *plural == target.kind.plural && paths.contains(&path)),
    };
    if let Some(path) = fields.paths().find(|p| !known(p)) {
        let why = format!("field label not supported: {path}");
        let fieldset = target.query.get("fieldSelector");
        return Err(Failure::bad_request(format!(
            "Unable to find {:?} that match label selector \"\", field selector {fieldset:?}: {why}",
            target.kind.resource()
        )));
    }
    Ok(Filter {
        ns: target.ns.clone(),
        labels,
        fields,
    })
}

/// Fields that can be selected by, beside name and namespace.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    ),
    ("nodes", &["spec.unschedulable"]),
    ("namespaces", &["status.phase"]),
    ("secrets", &["type"]),
    ("replicasets", &["status.replicas"]),
    ("jobs", &["status.successful"]),
    (
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
];

/// The objects that `filter` wants; an index is used where there is one.
fn select<'a>(
    cluster: &'a Cluster,
    target: &Target,
    filter: &'a Filter,
) -> Vec<(&'a Name, &'a Object)> {
    let store = &cluster.store;
    if target.res == PODS
        && let Some(node) = filter
            .fields
            .wanted("spec.nodeName")
            .filter(|n| !n.is_empty())
    {
        let pods = store.index.by_node.get(node);
        return pods
            .into_iter()
            .flat_map(|p| p.keys())
            .filter_map(|n| Some((n, store.find(PODS, n)?)))
            .filter(|(_, o)| filter.wants(o))
            .collect();
    }
    store
        .all(target.res, &filter.ns)
        .filter(|(_, o)| filter.wants(o))
        .collect()
}

/// A list, whole or in pages.
pub fn list(cluster: &Cluster, target: &Target) -> Result<Answer, Failure> {
    let filter = filter(target)?;
    let mut items = select(cluster, target, &filter);
    let mut rv = cluster.store.version();
    if let Some(token) = Some(target.query.get("continue")).filter(|t| !t.is_empty()) {
        let (version, start) = read_token(token)?;
        if version < cluster.store.oldest() {
            let message = "The provided continue parameter is too old to display a consistent list result. You can \
                           start a new list without the continue parameter.";
            return Err(Failure::new(410, "Expired", message));
        }
        rv = version;
        items.retain(|(name, _)| **name > start);
    } else if let Some(asked) = target
        .query
        .number::<u64>("resourceVersion")
        .filter(|asked| *asked > rv)
    {
        let message = format!("Timeout: Too large resource version: {asked}, current: {rv}");
        let details = json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1});
        return Err(Failure {
            details: Some(details),
            ..Failure::new(504, "Timeout", message)
        });
    }
    let mut metadata = json!({"resourceVersion": rv.to_string()});
    if let Some(limit) = target
        .query
        .number::<usize>("limit")
        .filter(|l| *l > 0 && *l < items.len())
    {
        metadata["continue"] = json!(write_token(rv, items[limit - 1].0));
        metadata["remainingItemCount"] = json!(items.len() - limit);
        items.truncate(limit);
    }
    let objects = items.into_iter().map(|(_, o)| o);
    if target.table {
        return Ok(json_answer(
            200,
            &table::table(&target.kind, objects, &metadata, cluster.now),
        ));
    }
    let items: Vec<Item> = objects
        .map(|o| Item {
            object: o,
            bare: target.kind.builtin,
        })
        .collect();
    let (kind, version) = (
        format!("{}List", target.kind.kind),
        target.kind.api_version(),
    );
    let list = List {
        kind: &kind,
        version: &version,
        metadata: &metadata,
        items,
    };
    Ok(respond(
        200,
        "application/json",
        serde_json::to_string(&list).unwrap_or_default(),
    ))
}

fn write_token(rv: u64, last: &Name) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": rv, "ns": last.ns, "start": last.name});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn read_token(token: &str) -> Result<(u64, Name), Failure> {
    let token = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|t| serde_json::from_slice::<Value>(&t).ok());
    let read = token.and_then(|t| {
        Some((
            t.get("rv")?.as_u64()?,
            Name::new(t.get("ns")?.as_str()?, t.get("start")?.as_str()?),
        ))
    });
    read.ok_or_else(|| {
        Failure::bad_request("continue key is not valid: encoded continue token is malformed")
    })
}

struct List<'a> {
    kind: &'a str,
    version: &'a str,
    metadata: &'a Value,
    items: Vec<Item<'a>>,
}

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(4))?;
        map.serialize_entry("kind", self.kind)?;
        map.serialize_entry("apiVersion", self.version)?;
        map.serialize_entry("metadata", self.metadata)?;
        map.serialize_entry("items", &self.items)?;
        map.end()
    }
}

/// The items of a list of a built-in kind do not say what they are.
struct Item<'a> {
    object: &'a Value,
    bare: bool,
}

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let fields = self.object.as_object().into_iter().flatten();
        s.collect_map(
            fields.filter(|(k, _)| !self.bare || !matches!(k.as_str(), "kind" | "apiVersion")),
        )
    }
}

/// A watch.
pub fn watch(cluster: &mut Cluster, target: &Target) -> Result<Answer, Failure> {
    let filter = filter(target)?;
    let (query, res) = (&target.query, target.res);
    let shape = if target.table {
        Shape::Table
    } else {
        Shape::Whole
    };
    let initial = query.yes("sendInitialEvents");
    let from = query
        .number::<u64>("resourceVersion")
        .filter(|rv| *rv > 0 && !initial);
    if let Some(rv) = from
        && rv < cluster.store.oldest()
    {
        return Ok(only(&Failure::expired(rv, cluster.store.oldest()).object()));
    }
    let bookmarks = query.yes("allowWatchBookmarks");
    let (id, tell, answer) =
        cluster
            .store
            .watchers
            .open(res, filter.clone(), shape, bookmarks, cluster.now);
    let store = &cluster.store;
    match from {
        Some(rv) => {
            for event in store.since(res, rv) {
                if let Some(kind) = kind_for(&filter, event) {
                    tell.event(&store.kinds, res, kind, &event.shown);
                }
            }
        }
        None => {
            for (_, object) in select(cluster, target, &filter) {
                tell.event(&store.kinds, res, "ADDED", object);
            }
            if initial && bookmarks {
                tell.initial_end(&store.kinds, res, store.version());
            }
        }
    }
    let lasts = match query.number::<u64>("timeoutSeconds").filter(|s| *s > 0) {
        Some(seconds) => Duration::from_secs(seconds),
        // The server's own choice: half an hour to an hour.
        None => cluster.between(1_800_000, 3_600_000),
    };
    cluster.later(lasts, Due::WatchEnds(res, id));
    if bookmarks {
        cluster.later(BOOKMARK_EVERY, Due::Bookmark(res, id));
    }
    Ok(answer)
}

/// The names a list would show.
pub fn names(cluster: &Cluster, target: &Target) -> Result<Vec<Name>, Failure> {
    let filter = filter(target)?;
    Ok(select(cluster, target, &filter)
        .into_iter()
        .map(|(name, _)| name.clone())
        .collect())
}
