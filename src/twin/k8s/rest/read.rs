//! GET: one object, a list of them, a watch.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

use super::super::KubeEvent;
use super::super::cluster::SimCluster;
use super::super::kinds::PODS;
use super::super::selector::{FieldSelector, LabelSelector};
use super::super::status::{ApiFailure, answer_json};
use super::super::store::{ObjectName, StoredObject};
use super::super::table;
use super::super::watch::{Filter, ResponseShape, event_type_for, single_event_answer};
use super::RequestTarget;
use crate::twin::answer::{Answer, answer_with};

/// How often a watch that wants bookmarks gets one.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// One object.
pub fn get_object(cluster: &SimCluster, target: &RequestTarget) -> Result<Answer, ApiFailure> {
    let object = cluster
        .store
        .get_object(&target.object_key())
        .ok_or_else(|| target.not_found())?;
    if target.table {
        return Ok(answer_json(
            200,
            &table::build_table(&target.kind, [object], &Value::Null, cluster.now),
        ));
    }
    Ok(target.answer_object(200, object))
}

fn build_filter(target: &RequestTarget) -> Result<Filter, ApiFailure> {
    let labels =
        LabelSelector::parse(target.query.get("labelSelector")).map_err(ApiFailure::bad_request)?;
    let fields =
        FieldSelector::parse(target.query.get("fieldSelector")).map_err(ApiFailure::bad_request)?;
    // Only some fields of a kind can be selected by; the real server refuses every other one.
    let known = |path: &str| match path {
        "metadata.name" => true,
        "metadata.namespace" => target.kind.namespaced,
        _ => SELECTABLE_FIELDS
            .iter()
            .any(|(plural, paths)| *plural == target.kind.plural && paths.contains(&path)),
    };
    if let Some(path) = fields.field_paths().find(|p| !known(p)) {
        let why = format!("field label not supported: {path}");
        let fieldset = target.query.get("fieldSelector");
        return Err(ApiFailure::bad_request(format!(
            "Unable to find {:?} that match label selector \"\", field selector {fieldset:?}: {why}",
            target.kind.qualified_resource()
        )));
    }
    Ok(Filter {
        ns: target.ns.clone(),
        labels,
        fields,
    })
}

/// Fields that can be selected by, beside name and namespace.
const SELECTABLE_FIELDS: &[(&str, &[&str])] = &[
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
fn select_objects<'a>(
    cluster: &'a SimCluster,
    target: &RequestTarget,
    filter: &'a Filter,
) -> Vec<(&'a ObjectName, &'a StoredObject)> {
    let store = &cluster.store;
    // Clients that look at one node ask for its pods often, so they are not searched for among all.
    if target.res == PODS
        && let Some(node) = filter
            .fields
            .required_value("spec.nodeName")
            .filter(|n| !n.is_empty())
    {
        let pods = store.index.by_node.get(node);
        return pods
            .into_iter()
            .flat_map(|p| p.keys())
            .filter_map(|n| Some((n, store.find_object(PODS, n)?)))
            .filter(|(_, o)| filter.wants_object(o))
            .collect();
    }
    store
        .objects_of(target.res, &filter.ns)
        .filter(|(_, o)| filter.wants_object(o))
        .collect()
}

/// A list, whole or in pages.
pub fn list_objects(cluster: &SimCluster, target: &RequestTarget) -> Result<Answer, ApiFailure> {
    let filter = build_filter(target)?;
    let mut items = select_objects(cluster, target, &filter);
    let mut rv = cluster.store.last_version();
    // A page begins after the last name of the page before it, at the version that the first page had.
    if let Some(token) = Some(target.query.get("continue")).filter(|t| !t.is_empty()) {
        let (version, start) = read_token(token)?;
        // A page whose version is no longer kept is refused with 410, and the client begins again.
        if version < cluster.store.oldest_version() {
            let message = "The provided continue parameter is too old to display a consistent list result. You can \
                           start a new list without the continue parameter.";
            return Err(ApiFailure::new(410, "Expired", message));
        }
        rv = version;
        items.retain(|(name, _)| **name > start);
    } else if let Some(asked) = target
        .query
        .parse_number::<u64>("resourceVersion")
        .filter(|asked| *asked > rv)
    {
        // A version from the future is one that another replica of the API server has seen: the client waits and asks
        // again.
        let message = format!("Timeout: Too large resource version: {asked}, current: {rv}");
        let details = json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1});
        return Err(ApiFailure {
            details: Some(details),
            ..ApiFailure::new(504, "Timeout", message)
        });
    }
    let mut metadata = json!({"resourceVersion": rv.to_string()});
    // The number of what is left is told with the token, as clients show it.
    if let Some(limit) = target
        .query
        .parse_number::<usize>("limit")
        .filter(|l| *l > 0 && *l < items.len())
    {
        metadata["continue"] = json!(write_token(rv, items[limit - 1].0));
        metadata["remainingItemCount"] = json!(items.len() - limit);
        items.truncate(limit);
    }
    let objects = items.into_iter().map(|(_, o)| o);
    if target.table {
        return Ok(answer_json(
            200,
            &table::build_table(&target.kind, objects, &metadata, cluster.now),
        ));
    }
    // Items of a list carry no kind of their own, except those of custom resources.
    let items: Vec<ListItem> = objects
        .map(|o| ListItem {
            object: o,
            bare: target.kind.builtin,
        })
        .collect();
    let (kind, version) = (
        format!("{}List", target.kind.kind),
        target.kind.api_version(),
    );
    let list = ListResponse {
        kind: &kind,
        version: &version,
        metadata: &metadata,
        items,
    };
    Ok(answer_with(
        200,
        "application/json",
        serde_json::to_string(&list).unwrap_or_default(),
    ))
}

fn write_token(rv: u64, last: &ObjectName) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": rv, "ns": last.ns, "start": last.name});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn read_token(token: &str) -> Result<(u64, ObjectName), ApiFailure> {
    let token = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|t| serde_json::from_slice::<Value>(&t).ok());
    let read = token.and_then(|t| {
        Some((
            t.get("rv")?.as_u64()?,
            ObjectName::new(t.get("ns")?.as_str()?, t.get("start")?.as_str()?),
        ))
    });
    read.ok_or_else(|| {
        ApiFailure::bad_request("continue key is not valid: encoded continue token is malformed")
    })
}

struct ListResponse<'a> {
    kind: &'a str,
    version: &'a str,
    metadata: &'a Value,
    items: Vec<ListItem<'a>>,
}

impl Serialize for ListResponse<'_> {
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
struct ListItem<'a> {
    object: &'a Value,
    bare: bool,
}

impl Serialize for ListItem<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let fields = self.object.as_object().into_iter().flatten();
        s.collect_map(
            fields.filter(|(k, _)| !self.bare || !matches!(k.as_str(), "kind" | "apiVersion")),
        )
    }
}

/// A watch.
pub fn watch_objects(
    cluster: &mut SimCluster,
    target: &RequestTarget,
) -> Result<Answer, ApiFailure> {
    let filter = build_filter(target)?;
    let (query, res) = (&target.query, target.res);
    let shape = if target.table {
        ResponseShape::Table
    } else {
        ResponseShape::Whole
    };
    // A watch that asks for the initial events begins with all objects, whatever version it names.
    let initial = query.is_true("sendInitialEvents");
    let from = query
        .parse_number::<u64>("resourceVersion")
        .filter(|rv| *rv > 0 && !initial);
    // A version that is too old is answered with 200 and an ERROR event in the stream (K8S-NODE-3).
    if let Some(rv) = from
        && rv < cluster.store.oldest_version()
    {
        return Ok(single_event_answer(
            &ApiFailure::expired_version(rv, cluster.store.oldest_version()).to_status(),
        ));
    }
    let bookmarks = query.is_true("allowWatchBookmarks");
    // The watch is opened before anything is sent, so that no event can fall between.
    let (id, tell, answer) =
        cluster
            .store
            .watchers
            .open_watch(res, filter.clone(), shape, bookmarks, cluster.now);
    let store = &cluster.store;
    // A watch from a version is sent what happened since; one without is sent every object as added.
    match from {
        Some(rv) => {
            for event in store.events_since(res, rv) {
                if let Some(kind) = event_type_for(&filter, event) {
                    tell.send_object(&store.kinds, res, kind, &event.shown);
                }
            }
        }
        None => {
            for (_, object) in select_objects(cluster, target, &filter) {
                tell.send_object(&store.kinds, res, "ADDED", object);
            }
            // The bookmark tells the client that it now has all objects.
            if initial && bookmarks {
                tell.send_initial_end(&store.kinds, res, store.last_version());
            }
        }
    }
    // Every watch ends at some time, and clients have to open it again.
    let lasts = match query
        .parse_number::<u64>("timeoutSeconds")
        .filter(|s| *s > 0)
    {
        Some(seconds) => Duration::from_secs(seconds),
        // The server's own choice: half an hour to an hour.
        None => cluster.random_delay(1_800_000, 3_600_000),
    };
    cluster.schedule_after(lasts, KubeEvent::WatchEnds(res, id));
    if bookmarks {
        cluster.schedule_after(BOOKMARK_INTERVAL, KubeEvent::Bookmark(res, id));
    }
    Ok(answer)
}

/// The names a list would show.
pub fn listed_names(
    cluster: &SimCluster,
    target: &RequestTarget,
) -> Result<Vec<ObjectName>, ApiFailure> {
    let filter = build_filter(target)?;
    Ok(select_objects(cluster, target, &filter)
        .into_iter()
        .map(|(name, _)| name.clone())
        .collect())
}
