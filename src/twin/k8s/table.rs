//! Tables: what `kubectl get` prints.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::json::{find_condition, flag_at, list_at, number_at, text_at, value_at};
use super::kinds::ResourceKind;
use super::store::StoredObject;
use super::typed_views;

type Cell = fn(&Value) -> Value;

/// The objects as rows.
pub fn build_table<'a>(
    kind: &ResourceKind,
    objects: impl IntoIterator<Item = &'a StoredObject>,
    metadata: &Value,
    now: Timestamp,
) -> Value {
    // Columns that only `-o wide` shows are always sent; the client leaves them out by their priority.
    let columns = columns_of(&kind.plural);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|(name, wide, _)| {
            let format = if *name == "Name" { "name" } else { "" };
            json!({"name": name, "type": "string", "format": format, "description": "", "priority": u8::from(*wide)})
        })
        .collect();
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            let cells: Vec<Value> = columns
                .iter()
                .map(|(name, _, cell)| {
                    // The age changes with the clock and not with the object, so it is no part of the column's own
                    // function.
                    if *name == "Age" {
                        json!(format_age(object, now))
                    } else {
                        cell(object)
                    }
                })
                .collect();
            // Rows carry the metadata only, as the real server sends them unless it is asked for more.
            let partial = json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": object.get("metadata").cloned().unwrap_or(Value::Null),
            });
            json!({"cells": cells, "object": partial})
        })
        .collect();
    let metadata = if metadata.is_null() {
        json!({})
    } else {
        metadata.clone()
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// The columns of a kind: name, whether only for `-o wide`, what stands in it.
fn columns_of(plural: &str) -> Vec<(&'static str, bool, Cell)> {
    let mut columns: Vec<(&'static str, bool, Cell)> =
        vec![("Name", false, |o| json!(text_at(o, "metadata.name")))];
    let more: &[(&'static str, bool, Cell)] = match plural {
        "pods" => &[
            ("Ready", false, ready_containers),
            ("Status", false, pod_status),
            ("Restarts", false, restart_count),
            ("Age", false, unknown_cell),
            ("IP", true, |o| text_or_none(text_at(o, "status.podIP"))),
            ("Node", true, |o| text_or_none(text_at(o, "spec.nodeName"))),
        ],
        "nodes" => &[
            ("Status", false, node_status),
            ("Roles", false, |_| json!("<none>")),
            ("Age", false, unknown_cell),
            ("Version", false, |o| {
                json!(text_at(o, "status.nodeInfo.kubeletVersion"))
            }),
            ("Internal-IP", true, internal_ip),
            ("OS-Image", true, |o| {
                json!(text_at(o, "status.nodeInfo.osImage"))
            }),
        ],
        "deployments" | "statefulsets" => &[
            ("Ready", false, |o| {
                let (ready, wanted) = (
                    count_at(o, "status.readyReplicas"),
                    count_at(o, "spec.replicas"),
                );
                json!(format!("{ready}/{wanted}"))
            }),
            ("Up-to-date", false, |o| {
                json!(count_at(o, "status.updatedReplicas"))
            }),
            ("Available", false, |o| {
                json!(count_at(o, "status.availableReplicas"))
            }),
            ("Age", false, unknown_cell),
        ],
        "replicasets" => &[
            ("Desired", false, |o| json!(count_at(o, "spec.replicas"))),
            ("Current", false, |o| json!(count_at(o, "status.replicas"))),
            ("Ready", false, |o| {
                json!(count_at(o, "status.readyReplicas"))
            }),
            ("Age", false, unknown_cell),
        ],
        "daemonsets" => &[
            ("Desired", false, |o| {
                json!(count_at(o, "status.desiredNumberScheduled"))
            }),
            ("Current", false, |o| {
                json!(count_at(o, "status.currentNumberScheduled"))
            }),
            ("Ready", false, |o| json!(count_at(o, "status.numberReady"))),
            ("Up-to-date", false, |o| {
                json!(count_at(o, "status.updatedNumberScheduled"))
            }),
            ("Available", false, |o| {
                json!(count_at(o, "status.numberAvailable"))
            }),
            ("Age", false, unknown_cell),
        ],
        "poddisruptionbudgets" => &[
            ("Min Available", false, |o| {
                int_or_percent(o, "spec.minAvailable")
            }),
            ("Max Unavailable", false, |o| {
                int_or_percent(o, "spec.maxUnavailable")
            }),
            ("Allowed Disruptions", false, |o| {
                json!(count_at(o, "status.disruptionsAllowed"))
            }),
            ("Age", false, unknown_cell),
        ],
        "services" => &[
            ("Type", false, |o| json!(text_at(o, "spec.type"))),
            ("Cluster-IP", false, |o| json!(text_at(o, "spec.clusterIP"))),
            ("Port(s)", false, service_ports),
            ("Age", false, unknown_cell),
        ],
        "namespaces" => &[
            ("Status", false, |o| json!(text_at(o, "status.phase"))),
            ("Age", false, unknown_cell),
        ],
        "volumeattachments" => &[
            ("Attacher", false, |o| json!(text_at(o, "spec.attacher"))),
            ("PV", false, |o| {
                json!(text_at(o, "spec.source.persistentVolumeName"))
            }),
            ("Node", false, |o| json!(text_at(o, "spec.nodeName"))),
            ("Attached", false, |o| json!(flag_at(o, "status.attached"))),
            ("Age", false, unknown_cell),
        ],
        // Kinds without columns of their own show their name and age.
        _ => &[("Age", false, unknown_cell)],
    };
    columns.extend_from_slice(more);
    columns
}

fn count_at(object: &Value, path: &str) -> i64 {
    number_at(object, path).unwrap_or(0)
}

fn text_or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

fn int_or_percent(object: &Value, path: &str) -> Value {
    match value_at(object, path) {
        None => json!("N/A"),
        Some(Value::String(text)) => json!(text),
        Some(other) => json!(other.to_string()),
    }
}

/// How old an object is, as the server writes it.
fn format_age(object: &Value, now: Timestamp) -> String {
    let born: Option<Timestamp> = text_at(object, "metadata.creationTimestamp").parse().ok();
    let Some(born) = born else {
        return "<unknown>".to_owned();
    };
    let seconds = now.duration_since(born).as_secs().max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |a: i64, unit_a: &str, b: i64, unit_b: &str| {
        if b == 0 {
            format!("{a}{unit_a}")
        } else {
            format!("{a}{unit_a}{b}{unit_b}")
        }
    };
    // The steps are those of the real server: the older an object is, the coarser its age.
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 192 {
        two(hours / 24, "d", hours % 24, "h")
    } else {
        format!("{}d", hours / 24)
    }
}

/// What stands under `Age` is filled in by the table, which knows the time.
fn unknown_cell(_: &Value) -> Value {
    json!("<unknown>")
}

fn ready_containers(pod: &Value) -> Value {
    let ready = list_at(pod, "status.containerStatuses")
        .iter()
        .filter(|c| flag_at(c, "ready"))
        .count();
    json!(format!("{ready}/{}", list_at(pod, "spec.containers").len()))
}

fn restart_count(pod: &Value) -> Value {
    let sum: i64 = list_at(pod, "status.containerStatuses")
        .iter()
        .map(|c| count_at(c, "restartCount"))
        .sum();
    json!(sum.to_string())
}

fn pod_status(pod: &Value) -> Value {
    if value_at(pod, "metadata.deletionTimestamp").is_some() {
        return json!("Terminating");
    }
    let waiting = list_at(pod, "status.containerStatuses")
        .iter()
        .map(|c| text_at(c, "state.waiting.reason"));
    let reason = waiting
        .chain([text_at(pod, "status.reason")])
        .find(|r| !r.is_empty());
    json!(reason.unwrap_or(match text_at(pod, "status.phase") {
        "Succeeded" => "Completed",
        phase => phase,
    }))
}

fn node_status(node: &Value) -> Value {
    let facts = typed_views::NodeView::from_object(node);
    let known = find_condition(node, "Ready").is_some();
    let ready = if facts.ready {
        "Ready"
    } else if known {
        "NotReady"
    } else {
        "Unknown"
    };
    json!(if facts.unschedulable {
        format!("{ready},SchedulingDisabled")
    } else {
        ready.to_owned()
    })
}

fn internal_ip(node: &Value) -> Value {
    let address = list_at(node, "status.addresses")
        .iter()
        .find(|a| text_at(a, "type") == "InternalIP");
    text_or_none(address.map(|a| text_at(a, "address")).unwrap_or_default())
}

fn service_ports(service: &Value) -> Value {
    let shown = list_at(service, "spec.ports").iter().map(|p| {
        let (port, protocol) = (count_at(p, "port"), text_at(p, "protocol"));
        match number_at(p, "nodePort") {
            Some(node) => format!("{port}:{node}/{protocol}"),
            None => format!("{port}/{protocol}"),
        }
    });
    json!(shown.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_the_server_writes_them() {
        let object = json!({"metadata": {"creationTimestamp": "2026-11-21T08:00:00Z"}});
        for (now, written) in [
            ("2026-11-21T08:01:59Z", "119s"),
            ("2026-11-21T08:03:00Z", "3m"),
            ("2026-11-21T08:03:05Z", "3m5s"),
            ("2026-11-21T09:00:30Z", "60m"),
            ("2026-11-21T11:01:00Z", "3h1m"),
            ("2026-11-22T08:00:00Z", "24h"),
            ("2026-11-24T09:00:00Z", "3d1h"),
            ("2026-12-21T08:00:00Z", "30d"),
        ] {
            assert_eq!(format_age(&object, now.parse().unwrap()), written);
        }
    }
}
